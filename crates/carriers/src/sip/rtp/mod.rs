//! The sound of SIP calls: RTP in both directions, paced for all calls from few timers. It knows what was agreed (a
//! [`Stream`]), not how: signalling is elsewhere.

use super::sdp::{Local, Stream};
use offhook_media::coding::Coding;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The sockets and the pacing of all calls. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Media {}

impl Media {
    /// Starts pacing; calls get even ports of this range, each with the odd one after it.
    ///
    /// # Errors
    /// When the range holds no pair of ports, or no thread can be started.
    pub fn start(_bind: IpAddr, _ports: RangeInclusive<u16>) -> io::Result<Media> {
        Ok(Media {})
    }

    /// A pair of ports for one call.
    ///
    /// # Errors
    /// When all pairs of the range are taken.
    pub fn open(&self) -> io::Result<Port> {
        Ok(Port {})
    }
}

/// A pair of ports that waits for what the two ends agree on.
#[derive(Debug)]
pub struct Port {}

impl Port {
    /// The even one, for RTP.
    pub fn local_port(&self) -> u16 {
        0
    }

    /// Our end of the call for its descriptions, with keys of its own, at the address that others reach us at.
    pub fn local(&self, address: IpAddr) -> Local {
        Local::new(address, self.local_port(), 0, super::srtp::Master::new([0; 30]))
    }

    /// Begins to send and to listen. Packets from networks that `allowed` does not name are dropped.
    pub fn begin(self, stream: Stream, _allowed: SourceFilter) -> (RtpLine, RtpControl) {
        (RtpLine { coding: stream.codec.coding(), audio: Vec::new() }, RtpControl {})
    }
}

/// Whose packets may be believed, beside those from the address in the session description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFilter {
    networks: Option<Vec<(IpAddr, u8)>>,
}

impl SourceFilter {
    /// Anybody's: for peers behind NAT whose networks are not known.
    pub const fn anybody() -> SourceFilter {
        SourceFilter { networks: None }
    }

    /// Only those of these networks (address and length of the prefix).
    pub fn only(networks: impl IntoIterator<Item = (IpAddr, u8)>) -> SourceFilter {
        SourceFilter { networks: Some(networks.into_iter().collect()) }
    }

    /// Whether packets from there may be believed.
    pub fn allows(&self, _from: IpAddr) -> bool {
        self.networks.is_none()
    }
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

/// The sound of one call. It behaves as a carrier's media socket does.
#[derive(Debug)]
pub struct RtpLine {
    coding: Coding,
    audio: Vec<u8>,
}

impl RtpLine {
    /// The next thing from the line: sound every 20 ms, whatever becomes of packets. May be dropped while waiting.
    pub async fn next(&mut self) -> RtpEvent {
        RtpEvent::Stopped
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
    pub fn play(&mut self, _coded: &[u8]) {}

    /// Queues a mark: it comes back when everything before it has been sent, at once when nothing waits.
    pub fn mark(&mut self, _name: &str) {}

    /// Drops what was not sent, and gives its marks back.
    pub fn clear(&mut self) {}

    /// Sends keys: `0`–`9`, `*`, `#`, `A`–`D`, and `w` for a pause of half a second. Others are left out.
    pub fn press(&mut self, _digits: &str) {}
}

/// A call's media as its signalling sees them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RtpControl {}

impl RtpControl {
    /// Something else was agreed on: a re-INVITE, hold, another address.
    pub fn change(&self, _stream: Stream) {}

    /// Ends it: the line says [`RtpEvent::Stopped`].
    pub fn stop(&self) {}

    /// How it goes.
    pub fn statistics(&self) -> Statistics {
        Statistics::default()
    }

    /// A key that came by SIP INFO.
    pub fn key(&self, _key: char) {}

    /// The next key to be sent by SIP INFO, where that was agreed; waits for ever where it was not. For one task.
    pub async fn key_to_send(&self) -> char {
        std::future::pending().await
    }

    /// Returns when neither RTP nor RTCP has come for so long, which 30 s should be, and the call is not held.
    pub async fn silence(&self, _limit: Duration) {
        std::future::pending().await
    }
}

/// Figures of one call's media.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Packets sent.
    pub sent: u64,
    /// Packets received and believed.
    pub received: u64,
    /// Packets that never came, as far as sequence numbers tell.
    pub lost: u64,
    /// Packets that came too late to be played.
    pub late: u64,
    /// Packets from strangers, dropped.
    pub strangers: u64,
    /// Packets that SRTP did not open: 50 of them mean wrong keys.
    pub srtp_failures: u64,
}
