//! What comes from the other end of one call: whom to believe, in which order, and what is heard of it. Pure but for its
//! size: time is given, sockets are elsewhere.

use super::arrivals::Arrivals;
use super::keys::Keys;
use super::packet::{self, Header};
use super::rtcp;
use super::sound::Sound;
use super::source::{Source, SourceFilter};
use super::{Received, RemoteReport};
use crate::sip::sdp::{Codec, Dtmf, Numbers, Stream};
use crate::sip::srtp::{Master, Opening, Suite};
use offhook_media::coding::Coding;
use offhook_media::jitter::Pushed;
use offhook_media::resample::Resampler;
use offhook_media::{FRAME_MS, LINE_RATE_HZ, dtmf};
use std::net::SocketAddr;

/// Comfort noise (RFC 3389): silence, and the other end lives.
const COMFORT_NOISE: u8 = 13;
/// The numbers that G.711 has without being asked (RFC 3551).
const PCMU: u8 = 0;
const PCMA: u8 = 8;

/// The receiving half of one call.
pub(super) struct Receiver {
    coding: Coding,
    codec: Codec,
    numbers: Numbers,
    opening: Option<(Suite, Master, Opening)>,
    source: Source,
    rtcp_source: Option<SocketAddr>,
    signalled_rtcp: SocketAddr,
    rtcp_mux: bool,
    /// Our own SSRC: who sends with it is an echo.
    ours: u32,
    heard: Option<Speaker>,
    /// Another SSRC from the believed address, seen once.
    next_ssrc: Option<u32>,
    sound: Sound,
    tones: Option<Tones>,
    /// The other end holds the call: whatever it sends is not for us.
    held: bool,
    figures: Received,
    lost_before: u64,
    heard_us: u64,
}

/// The one that is heard.
struct Speaker {
    ssrc: u32,
    arrivals: Arrivals,
    keys: Keys,
}

/// Keys as tones in the sound.
struct Tones {
    detector: dtmf::Detector,
    resampler: Option<Resampler>,
    pcm: Vec<i16>,
    narrow: Vec<i16>,
    presses: Vec<dtmf::Press>,
}

impl Receiver {
    pub fn new(stream: &Stream, coding: Coding, filter: SourceFilter, ours: u32, now_us: u64) -> Receiver {
        let mut receiver = Receiver {
            coding,
            codec: stream.codec,
            numbers: stream.receive,
            opening: None,
            source: Source::new(stream.remote, filter),
            rtcp_source: None,
            signalled_rtcp: stream.remote_rtcp,
            rtcp_mux: stream.rtcp_mux,
            ours,
            heard: None,
            next_ssrc: None,
            sound: Sound::new(stream.codec, coding),
            tones: None,
            held: false,
            figures: Received::default(),
            lost_before: 0,
            heard_us: now_us,
        };
        receiver.agree(stream);
        receiver
    }

    /// Something else was agreed on.
    pub fn change(&mut self, stream: &Stream, now_us: u64) {
        self.source.signal(now_us, stream.remote);
        if self.codec != stream.codec || self.held == stream.direction.sends() {
            self.renew_sound(stream.codec);
        }
        if self.signalled_rtcp != stream.remote_rtcp {
            self.rtcp_source = None;
        }
        self.codec = stream.codec;
        self.numbers = stream.receive;
        self.signalled_rtcp = stream.remote_rtcp;
        self.rtcp_mux = stream.rtcp_mux;
        // Whoever was on hold need not have told that it lives.
        self.heard_us = now_us;
        self.agree(stream);
    }

    fn agree(&mut self, stream: &Stream) {
        self.held = !stream.direction.sends();
        self.opening = stream.srtp.as_ref().map(|keys| match self.opening.take() {
            // Another context for the same key would open again what came before.
            Some(known) if (known.0, &known.1) == (keys.suite, &keys.theirs) => known,
            _ => (keys.suite, keys.theirs.clone(), Opening::new(keys.suite, &keys.theirs)),
        });
        self.tones = (stream.dtmf == Dtmf::Inband).then(|| Tones::new(self.coding));
    }

    fn renew_sound(&mut self, codec: Codec) {
        self.figures.concealed_ms += self.sound.concealed_ms;
        self.figures.slipped += self.sound.slipped;
        self.sound = Sound::new(codec, self.coding);
    }

    /// Where RTP is to be sent to.
    pub fn target(&self) -> SocketAddr {
        self.source.target()
    }

    /// Where RTCP is to be sent to.
    pub fn rtcp_target(&self) -> SocketAddr {
        let target = self.source.target();
        match self.rtcp_source {
            _ if self.rtcp_mux => target,
            Some(source) => source,
            // Behind NAT the address of the description is of no use, and the next port the best guess.
            None if target.ip() != self.signalled_rtcp.ip() => {
                SocketAddr::new(target.ip(), target.port().saturating_add(1))
            }
            None => self.signalled_rtcp,
        }
    }

    /// When anything of the other end was last believed, µs.
    pub fn heard_us(&self) -> u64 {
        self.heard_us
    }

    /// Takes a datagram from the RTP port; keys that it presses are appended.
    pub fn rtp(&mut self, now_us: u64, from: SocketAddr, datagram: &mut Vec<u8>, pressed: &mut Vec<char>) {
        if packet::is_rtcp(datagram) {
            return self.rtcp(now_us, from, datagram);
        }
        let Some((header, start)) = Header::read(datagram) else {
            self.figures.discarded += 1;
            return;
        };
        if !self.source.may_come_from(from) || header.ssrc == self.ours {
            self.figures.strangers += 1;
            return;
        }
        if let Some((_, _, opening)) = &mut self.opening
            && opening.rtp(datagram, start).is_err()
        {
            self.figures.srtp_failures += 1;
            return;
        }
        if !self.source.believes(now_us, from, header.ssrc) {
            self.figures.strangers += 1;
            return;
        }
        self.heard_us = now_us;
        let Some(payload) = packet::payload(datagram, start).filter(|_| self.is_heard(header)) else {
            self.figures.discarded += 1;
            return;
        };
        self.believed(now_us, header, payload, pressed);
    }

    /// Whether a packet is of the SSRC that is heard; another one is from its second packet in a row.
    fn is_heard(&mut self, header: Header) -> bool {
        match &self.heard {
            Some(heard) if heard.ssrc == header.ssrc => {
                self.next_ssrc = None;
                return true;
            }
            Some(_) if self.next_ssrc.replace(header.ssrc) != Some(header.ssrc) => return false,
            Some(heard) => {
                self.lost_before += heard.arrivals.lost() as u64;
                self.renew_sound(self.codec);
            }
            None => {}
        }
        self.next_ssrc = None;
        let arrivals = Arrivals::new(header.sequence);
        self.heard = Some(Speaker { ssrc: header.ssrc, arrivals, keys: Keys::default() });
        true
    }

    fn believed(&mut self, now_us: u64, header: Header, payload: &[u8], pressed: &mut Vec<char>) {
        let Some(heard) = &mut self.heard else { return };
        if !heard.arrivals.packet(header.sequence) {
            self.figures.twice += 1;
            return;
        }
        self.figures.received += 1;
        if Some(header.payload_type) == self.numbers.event {
            heard.keys.packet(header.marker, header.timestamp, payload, pressed);
            return;
        }
        let codec = match header.payload_type {
            number if number == self.numbers.audio => self.codec,
            // Some switch between the laws without a word.
            PCMU if self.codec != Codec::Opus => Codec::Pcmu,
            PCMA if self.codec != Codec::Opus => Codec::Pcma,
            COMFORT_NOISE => return,
            _ => {
                self.figures.discarded += 1;
                return;
            }
        };
        let clock = u64::from(codec.clock_hz());
        heard.arrivals.sound(header.timestamp, now_us * clock / 1_000_000);
        if self.held {
            return;
        }
        if self.sound.codec() != codec {
            self.renew_sound(codec);
        }
        match self.sound.push(header.timestamp, payload) {
            Some(Pushed::Taken) => {}
            Some(Pushed::Late) => self.figures.late += 1,
            Some(Pushed::Twice) => self.figures.twice += 1,
            None => self.figures.discarded += 1,
        }
    }

    /// Takes a datagram from the RTCP port.
    pub fn rtcp(&mut self, now_us: u64, from: SocketAddr, datagram: &mut Vec<u8>) {
        if !self.source.may_come_from(from) && from.ip() != self.signalled_rtcp.ip() {
            self.figures.strangers += 1;
            return;
        }
        if let Some((_, _, opening)) = &mut self.opening
            && opening.rtcp(datagram).is_err()
        {
            self.figures.srtp_failures += 1;
            return;
        }
        let Some(report) = rtcp::read(datagram, self.ours) else {
            self.figures.discarded += 1;
            return;
        };
        self.heard_us = now_us;
        if from.ip() == self.source.target().ip() {
            self.rtcp_source = Some(from);
        }
        if let (Some(middle), Some(heard)) = (report.report, &mut self.heard) {
            heard.arrivals.reported(middle, now_us);
        }
        if let Some(block) = report.block {
            let clock = self.codec.clock_hz();
            let now = rtcp::middle(rtcp::ntp(now_us));
            let trip = now.wrapping_sub(block.last_report).wrapping_sub(block.since_last_report);
            let round_trip_us = (block.last_report != 0 && trip < 10 << 16)
                .then(|| (u64::from(trip) * 1_000_000 / 65_536) as u32);
            self.figures.remote = Some(RemoteReport {
                lost: block.lost,
                fraction_lost: block.fraction_lost,
                jitter_us: (u64::from(block.jitter) * 1_000_000 / u64::from(clock)) as u32,
                round_trip_us,
            });
        }
    }

    /// What is to be told of the source that is heard.
    pub fn block(&mut self, now_us: u64) -> Option<rtcp::Block> {
        self.heard.as_mut().map(|heard| heard.arrivals.block(heard.ssrc, now_us))
    }

    /// Replaces `frame` by the next 20 ms that are heard; keys found in them are appended.
    pub fn frame(&mut self, frame: &mut Vec<u8>, pressed: &mut Vec<char>) {
        if self.held {
            frame.clear();
            self.coding.silence(self.coding.bytes_per_ms() * FRAME_MS as usize, frame);
            return;
        }
        self.sound.frame(frame);
        if let Some(tones) = &mut self.tones {
            tones.listen(self.coding, frame, pressed);
        }
    }

    /// How it goes.
    pub fn figures(&self) -> Received {
        let arrivals = self.heard.as_ref().map(|heard| &heard.arrivals);
        let clock = u64::from(self.codec.clock_hz());
        Received {
            lost: self.lost_before + arrivals.map_or(0, |arrivals| arrivals.lost() as u64),
            jitter_us: arrivals.map_or(0, |a| (u64::from(a.jitter()) * 1_000_000 / clock) as u32),
            delay_ms: self.sound.delay_ms(),
            concealed_ms: self.figures.concealed_ms + self.sound.concealed_ms,
            slipped: self.figures.slipped + self.sound.slipped,
            ..self.figures
        }
    }
}

impl Tones {
    fn new(coding: Coding) -> Tones {
        let rate_hz = coding.rate_hz();
        Tones {
            detector: dtmf::Detector::new(),
            resampler: (rate_hz != LINE_RATE_HZ)
                .then(|| Resampler::new(rate_hz, LINE_RATE_HZ).ok())
                .flatten(),
            pcm: Vec::new(),
            narrow: Vec::new(),
            presses: Vec::new(),
        }
    }

    fn listen(&mut self, coding: Coding, frame: &[u8], pressed: &mut Vec<char>) {
        self.pcm.clear();
        coding.decode(frame, &mut self.pcm);
        let narrow = match &mut self.resampler {
            None => &self.pcm,
            Some(resampler) => {
                self.narrow.clear();
                resampler.push(&self.pcm, &mut self.narrow);
                &self.narrow
            }
        };
        self.detector.push(narrow, &mut self.presses);
        pressed.extend(self.presses.drain(..).map(|press| press.digit));
    }
}

#[cfg(test)]
mod tests;
