//! The sound of one call as the rest of the house sees it. It has no timer and no socket to wait for: the pacing wakes it
//! every 20 ms, and it looks what has come.

use super::RtpEvent;
use super::pace::Clock;
use super::receiver::Receiver;
use super::session::{Session, lock};
use super::wire::{Place, Wire};
use crate::sip::sdp::{Dtmf, Stream};
use offhook_media::LINE_RATE_HZ;
use offhook_media::coding::Coding;
use offhook_media::dtmf::{self, Keying};
use offhook_media::resample::Resampler;
use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

/// Datagrams that are read at a tick; what floods us waits in the kernel, which drops it.
const MAX_DATAGRAMS: usize = 64;
/// The longest datagram that is read whole: more than any path carries.
const MAX_DATAGRAM_BYTES: usize = 2_048;
/// Frames that are made up for when nobody asked for them in time; older ones are nobody's.
const MAX_BEHIND: u64 = 10;
/// Reports come seldom: their port is looked at in every tenth tick.
const RTCP_EVERY: u64 = 10;
/// The interval of reports is 5 s, and between half and three halves of it by chance (RFC 3550 6.2).
const REPORT_MS: u64 = 5_000;
/// Keys of one call that may wait for SIP INFO.
pub(super) const MAX_INFO_KEYS: usize = 128;

/// The sound of one call. It behaves as a carrier's media socket does. The call's media end when it is dropped.
pub struct RtpLine {
    session: Arc<Session>,
    clock: Clock,
    receiver: Receiver,
    wire: Wire,
    coding: Coding,
    stream: Stream,
    agreement: u32,
    audio: Vec<u8>,
    events: VecDeque<RtpEvent>,
    /// Marks, with the number of frames after whose sending they come back.
    marks: VecDeque<(u64, String)>,
    ticks: u64,
    report_at_us: u64,
    /// Where chance for the reports' intervals comes from.
    seed: u32,
    info_keys: mpsc::Sender<char>,
    keys_by_info: mpsc::Receiver<char>,
    datagram: Vec<u8>,
    pressed: Vec<char>,
}

impl std::fmt::Debug for RtpLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RtpLine").field("coding", &self.coding).finish_non_exhaustive()
    }
}

/// What a line begins with, beside what was agreed.
pub(super) struct Beginning {
    pub clock: Clock,
    pub seed: u32,
    /// Keys that we send by SIP INFO.
    pub info_keys: mpsc::Sender<char>,
    /// Keys that came by SIP INFO.
    pub keys_by_info: mpsc::Receiver<char>,
}

impl RtpLine {
    pub(super) fn new(
        session: Arc<Session>,
        stream: Stream,
        receiver: Receiver,
        beginning: Beginning,
    ) -> RtpLine {
        let Beginning { clock, seed, info_keys, keys_by_info } = beginning;
        let coding = stream.codec.coding();
        let mut line = RtpLine {
            session,
            clock,
            receiver,
            wire: Wire::new(stream.codec, coding),
            coding,
            stream,
            agreement: 0,
            audio: Vec::new(),
            events: VecDeque::new(),
            marks: VecDeque::new(),
            ticks: 0,
            report_at_us: 0,
            seed,
            info_keys,
            keys_by_info,
            datagram: Vec::with_capacity(MAX_DATAGRAM_BYTES),
            pressed: Vec::new(),
        };
        line.plan_report(clock.now_us());
        line
    }

    /// The next thing from the line: sound every 20 ms, whatever becomes of packets. May be dropped while waiting.
    pub async fn next(&mut self) -> RtpEvent {
        loop {
            if self.session.is_stopped() {
                return RtpEvent::Stopped;
            }
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let ticks = self.session.ticked(self.ticks).await;
            if ticks != self.ticks {
                self.ticks = (self.ticks + 1).max(ticks.saturating_sub(MAX_BEHIND));
                self.tick();
            }
        }
    }

    /// The sound of the last [`RtpEvent::Audio`], in [`RtpLine::coding`].
    pub fn audio(&self) -> &[u8] {
        &self.audio
    }

    /// The coding of what is heard and played; it stays the same through every change of codec.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Queues sound.
    pub fn play(&mut self, coded: &[u8]) {
        self.keep_up();
        let frames = self.wire.prepare(coded);
        self.wire.deliver(frames, Place::Queue, &mut lock(&self.session.sending));
    }

    /// Queues a mark: it comes back when everything before it has been sent, at once when nothing waits.
    pub fn mark(&mut self, name: &str) {
        let (played, waiting) = {
            let sending = lock(&self.session.sending);
            (sending.played(), sending.waiting() as u64 + u64::from(self.wire.has_rest()))
        };
        if waiting == 0 && self.marks.is_empty() {
            self.events.push_back(RtpEvent::Mark(name.to_owned()));
        } else {
            self.marks.push_back((played + waiting, name.to_owned()));
        }
    }

    /// Drops what was not sent, and gives its marks back.
    pub fn clear(&mut self) {
        lock(&self.session.sending).clear();
        self.wire = Wire::new(self.wire.codec(), self.coding);
        self.events.extend(self.marks.drain(..).map(|(_, name)| RtpEvent::Mark(name)));
    }

    /// Sends keys: `0`–`9`, `*`, `#`, `A`–`D`, and `w` for a pause of half a second. Others are left out.
    pub fn press(&mut self, digits: &str) {
        self.keep_up();
        if self.stream.dtmf == Dtmf::Info {
            // More than the queue holds are not a person's keys.
            for digit in digits.chars() {
                let _ = self.info_keys.try_send(digit);
            }
            return;
        }
        if lock(&self.session.sending).press(digits) {
            return;
        }
        let known: String = digits.chars().filter(|digit| "0123456789*#ABCDabcdw".contains(*digit)).collect();
        let Ok(tones) = dtmf::tones(&known, Keying::default()) else { return };
        let mut coded = Vec::new();
        let rate_hz = self.coding.rate_hz();
        match Resampler::new(LINE_RATE_HZ, rate_hz) {
            Ok(mut resampler) if rate_hz != LINE_RATE_HZ => {
                let mut wide = Vec::new();
                resampler.push(&tones, &mut wide);
                resampler.flush(&mut wide);
                self.coding.encode(&wide, &mut coded);
            }
            _ => self.coding.encode(&tones, &mut coded),
        }
        let mut wire = Wire::new(self.wire.codec(), self.coding);
        let frames = wire.prepare(&coded);
        wire.deliver(frames, Place::First, &mut lock(&self.session.sending));
        let frames = wire.finish();
        wire.deliver(frames, Place::First, &mut lock(&self.session.sending));
    }

    /// Takes over what the signalling has agreed on since.
    fn keep_up(&mut self) {
        let agreement = self.session.agreement.load(Ordering::Acquire);
        if agreement == self.agreement {
            return;
        }
        self.agreement = agreement;
        self.stream = lock(&self.session.stream).clone();
        self.receiver.change(&self.stream, self.clock.now_us());
        if self.wire.codec() != self.stream.codec {
            self.wire = Wire::new(self.stream.codec, self.coding);
        }
    }

    /// Everything that belongs to 20 ms.
    fn tick(&mut self) {
        self.keep_up();
        let now_us = self.clock.now_us();
        self.receive(now_us);
        let (played, waiting) = {
            let mut sending = lock(&self.session.sending);
            if self.agreement == self.session.agreement.load(Ordering::Acquire) {
                sending.target = self.receiver.target();
                sending.rtcp_target = self.receiver.rtcp_target();
            }
            (sending.played(), sending.waiting())
        };
        // What does not fill a frame waits for more, but not longer than there is sound before it.
        if waiting == 0 && self.wire.has_rest() {
            let frames = self.wire.finish();
            self.wire.deliver(frames, Place::Queue, &mut lock(&self.session.sending));
        }
        while let Some((_, name)) = self.marks.pop_front_if(|(at, _)| *at <= played) {
            self.events.push_back(RtpEvent::Mark(name));
        }
        let mut audio = std::mem::take(&mut self.audio);
        self.receiver.frame(&mut audio, &mut self.pressed);
        self.audio = audio;
        while let Ok(key) = self.keys_by_info.try_recv() {
            self.pressed.push(key);
        }
        self.events.extend(self.pressed.drain(..).map(RtpEvent::Key));
        self.events.push_back(RtpEvent::Audio);
        if now_us >= self.report_at_us {
            self.plan_report(now_us);
            let block = self.receiver.block(now_us);
            self.session.report(&mut self.datagram, now_us, block, false);
        }
        self.session.heard_us.store(self.receiver.heard_us(), Ordering::Relaxed);
        *lock(&self.session.received) = self.receiver.figures();
    }

    /// Reads what has come.
    fn receive(&mut self, now_us: u64) {
        let Self { session, receiver, datagram, pressed, .. } = self;
        drain(&session.sockets.rtp, datagram, |from, datagram| {
            receiver.rtp(now_us, from, datagram, pressed);
        });
        if self.ticks.is_multiple_of(RTCP_EVERY) && !self.stream.rtcp_mux {
            drain(&session.sockets.rtcp, datagram, |from, datagram| receiver.rtcp(now_us, from, datagram));
        }
    }

    fn plan_report(&mut self, now_us: u64) {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let share = u64::from(self.seed >> 16);
        let wait_ms = REPORT_MS / 2 + ((REPORT_MS * share) >> 16);
        self.report_at_us = now_us + wait_ms * 1_000;
    }
}

fn drain(socket: &UdpSocket, datagram: &mut Vec<u8>, mut take: impl FnMut(SocketAddr, &mut Vec<u8>)) {
    for _ in 0..MAX_DATAGRAMS {
        datagram.resize(MAX_DATAGRAM_BYTES, 0);
        match socket.recv_from(datagram) {
            Ok((length, from)) => {
                datagram.truncate(length);
                take(from, datagram);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            // What a peer that is gone answers to our packets comes as an error of the next read.
            Err(_) => {}
        }
    }
}

impl Drop for RtpLine {
    fn drop(&mut self) {
        self.session.stop();
    }
}
