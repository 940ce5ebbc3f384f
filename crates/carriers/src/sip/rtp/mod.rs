//! The sound of SIP calls: RTP in both directions, paced for all calls from few timers. It knows what was agreed (a
//! [`Stream`]), not how: signalling is elsewhere.
//!
//! ```text
//!  pace.rs     threads: every 20 ms each call's packet, then a wake-up      ->  sending.rs   queue, keys, SRTP
//!  line.rs     the call's task: woken once in 20 ms, reads what has come    ->  receiver.rs  whom to believe
//!                                                                               sound.rs     jitter, decoding, gaps
//! ```

use super::sdp::{Local, Stream};
use super::srtp::Master;
use line::{Beginning, MAX_INFO_KEYS};
use pace::{Clock, Shards};
use receiver::Receiver;
use sending::Sending;
use session::{Session, Sockets, lock};
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};

mod arrivals;
#[doc(hidden)]
pub mod bench;
mod keys;
mod line;
mod pace;
mod packet;
mod receiver;
mod rtcp;
mod sending;
mod session;
mod sound;
mod source;
mod wire;

pub use line::RtpLine;
pub use source::SourceFilter;

/// How much is queued before voice by routers that look at it: expedited forwarding (RFC 3246), as RFC 4594 has it for voice.
const EXPEDITED: u32 = 46 << 2;

/// The sockets and the pacing of all calls. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Media(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bind: IpAddr,
    /// Even ports, the first and how many.
    first: u16,
    pairs: usize,
    /// Where the next search begins: a port rests as long as it can, so that late packets of a call reach no other.
    next: AtomicUsize,
    clock: Clock,
    shards: Shards,
    lateness: Arc<Lateness>,
}

impl Media {
    /// Starts pacing; calls get even ports of this range, each with the odd one after it.
    ///
    /// # Errors
    /// When the range holds no pair of ports, or no thread can be started.
    pub fn start(bind: IpAddr, ports: RangeInclusive<u16>) -> io::Result<Media> {
        let first = ports.start().checked_next_multiple_of(2).unwrap_or(u16::MAX);
        let pairs = (usize::from(*ports.end()) + 1).saturating_sub(usize::from(first)) / 2;
        if pairs == 0 || first == 0 {
            let why = "the range of RTP ports holds no even port with the odd one after it";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let clock = Clock::start();
        Ok(Media(Arc::new(Shared {
            bind,
            first,
            pairs,
            next: AtomicUsize::new(u32::from_ne_bytes(chance()?) as usize % pairs),
            clock,
            shards: Shards::start(clock)?,
            lateness: Arc::default(),
        })))
    }

    /// A pair of ports for one call.
    ///
    /// # Errors
    /// When all pairs of the range are taken.
    pub fn open(&self) -> io::Result<Port> {
        let Shared { bind, first, pairs, .. } = *self.0;
        for _ in 0..pairs {
            let place = self.0.next.fetch_add(1, Ordering::Relaxed) % pairs;
            let port = first + 2 * place as u16;
            let pair =
                UdpSocket::bind((bind, port)).and_then(|rtp| Ok((rtp, UdpSocket::bind((bind, port + 1))?)));
            match pair {
                Ok((rtp, rtcp)) => return Port::new(self.clone(), rtp, rtcp, port),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "all RTP ports are taken: widen their range"))
    }

    /// How late packets of all calls were sent.
    pub fn lateness(&self) -> &Lateness {
        &self.0.lateness
    }
}

/// A pair of ports that waits for what the two ends agree on.
#[derive(Debug)]
pub struct Port {
    media: Media,
    sockets: Sockets,
    port: u16,
    session: u64,
    master: Master,
    /// What its packets begin with.
    chance: [u32; 4],
}

impl Port {
    fn new(media: Media, rtp: UdpSocket, rtcp: UdpSocket, port: u16) -> io::Result<Port> {
        for socket in [&rtp, &rtcp] {
            socket.set_nonblocking(true)?;
            let marked = match media.0.bind {
                IpAddr::V4(_) => SockRef::from(socket).set_tos_v4(EXPEDITED),
                IpAddr::V6(_) => SockRef::from(socket).set_tclass_v6(EXPEDITED),
            };
            // A system that does not let us is one on which nobody looks.
            let _ = marked;
        }
        let (session, master) = (u64::from_ne_bytes(chance()?), Master::new(chance()?));
        let mut words = [0; 4];
        for word in &mut words {
            *word = u32::from_ne_bytes(chance()?);
        }
        Ok(Port { media, sockets: Sockets { rtp, rtcp }, port, session, master, chance: words })
    }

    /// The even one, for RTP.
    pub fn local_port(&self) -> u16 {
        self.port
    }

    /// Our end of the call for its descriptions, with keys of its own, at the address that others reach us at.
    pub fn local(&self, address: IpAddr) -> Local {
        Local::new(address, self.port, self.session, self.master.clone())
    }

    /// Begins to send and to listen. Packets from elsewhere than the agreed address are believed only as `allowed` says.
    pub fn begin(self, stream: Stream, allowed: SourceFilter) -> (RtpLine, RtpControl) {
        let shared = &self.media.0;
        let [ssrc, sequence, timestamp, seed] = self.chance;
        let sequence = (sequence & 0x7FFF) as u16;
        let now_us = shared.clock.now_us();
        let receiver = Receiver::new(&stream, stream.codec.coding(), allowed, ssrc, now_us);
        let sending = Sending::new(&stream, ssrc, sequence, timestamp);
        let name = format!("{:016x}", self.session);
        let lateness = Arc::clone(&shared.lateness);
        let session = Session::new(self.sockets, sending, stream.clone(), name, lateness, now_us);
        let session = Arc::new(session);
        let (info_keys, keys_to_send) = mpsc::channel(MAX_INFO_KEYS);
        let (keys_heard, keys_by_info) = mpsc::channel(MAX_INFO_KEYS);
        let beginning = Beginning { clock: shared.clock, seed, info_keys, keys_by_info };
        let line = RtpLine::new(Arc::clone(&session), stream, receiver, beginning);
        shared.shards.add(Arc::clone(&session));
        let keys_to_send = Arc::new(Mutex::new(keys_to_send));
        (line, RtpControl { session, media: self.media, keys_heard, keys_to_send })
    }
}

/// Bytes from the system. Keys, SSRC and first numbers must not be guessed, and nothing of a call is decided by them.
fn chance<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// What came from the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RtpEvent {
    /// 20 ms of sound, in [`RtpLine::audio`].
    Audio,
    /// Everything that was played before this mark has been sent or cleared.
    Mark(String),
    /// The caller pressed a key.
    Key(char),
    /// The call is over.
    Stopped,
}

/// A call's media as its signalling sees them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RtpControl {
    session: Arc<Session>,
    media: Media,
    keys_heard: mpsc::Sender<char>,
    keys_to_send: Arc<Mutex<mpsc::Receiver<char>>>,
}

impl RtpControl {
    /// Something else was agreed on: a re-INVITE, hold, another address.
    pub fn change(&self, stream: Stream) {
        *lock(&self.session.stream) = stream.clone();
        self.session.agreement.fetch_add(1, Ordering::AcqRel);
        lock(&self.session.sending).agree(&stream);
    }

    /// Ends it: the line says [`RtpEvent::Stopped`], and the other end is told by RTCP.
    pub fn stop(&self) {
        self.session.stop();
    }

    /// How it goes.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            sent: u64::from(lock(&self.session.sending).sent()),
            failed_sends: self.session.failed_sends(),
            lateness: self.session.lateness().percentiles(),
            received: *lock(&self.session.received),
            silent_for: self.silent_for(),
        }
    }

    /// A key that came by SIP INFO.
    pub fn key(&self, key: char) {
        let known = "0123456789*#ABCD".contains(key.to_ascii_uppercase());
        if known {
            // More than the queue holds are not a person's keys.
            let _ = self.keys_heard.try_send(key.to_ascii_uppercase());
        }
    }

    /// The next key to be sent by SIP INFO, where that was agreed (`w` is a pause of half a second); waits for ever where it
    /// was not. For one task.
    pub async fn key_to_send(&self) -> char {
        match self.keys_to_send.lock().await.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }

    /// Returns when neither RTP nor RTCP has come for so long, which 30 s should be, and the call is not held. Only a line that
    /// somebody listens to hears anything.
    pub async fn silence(&self, limit: Duration) {
        loop {
            let silent_for = self.silent_for();
            let held = !lock(&self.session.stream).direction.sends();
            if silent_for >= limit && !held {
                return;
            }
            tokio::time::sleep(limit.saturating_sub(silent_for).max(Duration::from_millis(500))).await;
        }
    }

    fn silent_for(&self) -> Duration {
        let heard_us = self.session.heard_us.load(Ordering::Relaxed);
        Duration::from_micros(self.media.0.clock.now_us().saturating_sub(heard_us))
    }
}

/// Figures of one call's media.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Packets sent.
    pub sent: u64,
    /// Packets that the system did not take.
    pub failed_sends: u64,
    /// How late they were sent.
    pub lateness: Percentiles,
    /// What came.
    pub received: Received,
    /// How long nothing was heard, neither RTP nor RTCP.
    pub silent_for: Duration,
}

/// Figures of what came from the other end of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Packets that were believed, of sound and of keys.
    pub received: u64,
    /// Packets that never came, as far as sequence numbers tell.
    pub lost: u64,
    /// Packets that came too late to be heard.
    pub late: u64,
    /// Packets that came again.
    pub twice: u64,
    /// Packets from strangers, dropped.
    pub strangers: u64,
    /// Packets that could not be read or were not agreed on.
    pub discarded: u64,
    /// Packets that SRTP did not open: 50 of them mean wrong keys.
    pub srtp_failures: u64,
    /// How irregularly packets come (RFC 3550 6.4.1), µs. The line looks every 20 ms, and so it is no finer than that: a phase
    /// at which packets come just then may add as much.
    pub jitter_us: u32,
    /// The delay of the jitter buffer now, ms.
    pub delay_ms: u32,
    /// What was filled in for missing packets, ms.
    pub concealed_ms: u64,
    /// Frames left out to follow a faster clock, or to lose delay.
    pub slipped: u64,
    /// What the other end last reported of what it hears.
    pub remote: Option<RemoteReport>,
}

/// What the other end told by RTCP of our packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteReport {
    /// Packets lost since the beginning; below zero where packets came twice.
    pub lost: i32,
    /// Of 256, since the report before.
    pub fraction_lost: u8,
    /// How irregularly they come, µs.
    pub jitter_us: u32,
    /// There and back, µs, once it can be told.
    pub round_trip_us: Option<u32>,
}

/// Upper bounds of the classes that lateness is counted in, µs; the last class has none.
const CLASSES_US: [u64; 15] =
    [50, 100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 4_000, 5_000, 7_500, 10_000, 20_000];

/// How late packets were sent: a histogram.
#[derive(Debug, Default)]
pub struct Lateness {
    classes: [AtomicU64; CLASSES_US.len() + 1],
    most_us: AtomicU64,
}

impl Lateness {
    fn note(&self, late_us: u64) {
        let class = CLASSES_US.partition_point(|bound| *bound < late_us);
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        self.most_us.fetch_max(late_us, Ordering::Relaxed);
    }

    /// Each class's upper bound in µs (`None`: no bound) and its packets.
    pub fn classes(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = CLASSES_US.iter().copied().map(Some).chain([None]);
        bounds.zip(self.classes.iter().map(|class| class.load(Ordering::Relaxed)))
    }

    /// The usual figures.
    pub fn percentiles(&self) -> Percentiles {
        let packets = self.classes().map(|(_, count)| count).sum();
        let most_us = self.most_us.load(Ordering::Relaxed);
        let at = |share: f64| {
            let mut left = (packets as f64 * share).ceil() as u64;
            let mut classes = self.classes();
            let class = classes.find(|(_, count)| {
                let found = *count >= left;
                left = left.saturating_sub(*count);
                found
            });
            class.and_then(|(bound, _)| bound).map_or(most_us, |bound| bound.min(most_us))
        };
        Percentiles { packets, p50_us: at(0.5), p99_us: at(0.99), most_us }
    }
}

/// Figures of a [`Lateness`], each the upper bound of its class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Packets counted.
    pub packets: u64,
    /// Half of them were no later, µs.
    pub p50_us: u64,
    /// 99 of 100 were no later, µs.
    pub p99_us: u64,
    /// None was later, µs.
    pub most_us: u64,
}

#[cfg(test)]
mod tests;
