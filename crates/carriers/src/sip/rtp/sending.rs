//! What goes to the other end of one call, tick by tick: sound, silence where none waits, keys, reports. Pure: it makes
//! packets, and does not know sockets or clocks.

use super::packet::{Event, HEADER, Header};
use super::rtcp::{self, Block, Sent};
use crate::sip::sdp::{Codec, Numbers, Stream};
use crate::sip::srtp::{MAX_TAG_BYTES, Master, Sealing, Suite};
use offhook_media::{FRAME_MS, opus};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Sound that may wait, in frames: ten minutes, as the longest reply. What is more is dropped.
const MAX_QUEUED: usize = 10 * 60 * 1_000 / FRAME_MS as usize;
/// Keys that may wait.
const MAX_KEYS: usize = 128;
/// Packets of one tick: two frames of 10 ms, and the repeated end of a key.
const MAX_PACKETS: usize = 3;
/// The longest packet that is made.
const MAX_PACKET_BYTES: usize = HEADER + FRAME_BYTES + MAX_TAG_BYTES;
/// 20 ms of G.711; Opus is kept below it.
const FRAME_BYTES: usize = opus::MAX_PACKET_BYTES;
/// A key is pressed for 100 ms, and another comes no sooner than 60 ms after it (RFC 4733 and ITU-T Q.24).
const KEY_TICKS: u32 = 5;
const GAP_TICKS: u32 = 3;
/// `w`: half a second.
const PAUSE_TICKS: u32 = 500 / FRAME_MS;
/// How often the end of a key is told (RFC 4733 2.5.1.4), one more with each of the next ticks.
const ENDS: u32 = 3;

/// Coded sound of one packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    length: u8,
    bytes: [u8; FRAME_BYTES],
}

impl Frame {
    /// A frame of at most [`FRAME_BYTES`].
    pub fn new(coded: &[u8]) -> Frame {
        let length = coded.len().min(FRAME_BYTES);
        let mut frame = Frame { length: length as u8, bytes: [0; FRAME_BYTES] };
        frame.bytes[..length].copy_from_slice(&coded[..length]);
        frame
    }

    fn coded(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// The packets of one tick, made under a lock and sent without it. Used again and again, so that nothing is allocated.
#[derive(Debug)]
pub(super) struct Outgoing {
    packets: [Vec<u8>; MAX_PACKETS],
    count: usize,
}

impl Outgoing {
    pub fn new() -> Outgoing {
        Outgoing { packets: std::array::from_fn(|_| Vec::with_capacity(MAX_PACKET_BYTES)), count: 0 }
    }

    pub fn packets(&self) -> &[Vec<u8>] {
        &self.packets[..self.count]
    }

    fn next(&mut self) -> Option<&mut Vec<u8>> {
        let packet = self.packets.get_mut(self.count)?;
        self.count += 1;
        Some(packet)
    }
}

/// The sending half of one call.
pub(super) struct Sending {
    codec: Codec,
    numbers: Numbers,
    frame_ms: u32,
    /// The other end wants to hear us.
    sends: bool,
    signalled: SocketAddr,
    /// Where RTP goes.
    pub target: SocketAddr,
    /// Where RTCP goes.
    pub rtcp_target: SocketAddr,
    sealing: Option<(Suite, Master, Sealing)>,
    ssrc: u32,
    sequence: u16,
    /// Of the next frame.
    timestamp: u32,
    /// The next packet of sound is the first after none.
    after_silence: bool,
    silence: Frame,
    queue: VecDeque<Frame>,
    /// Frames of the queue that were sent.
    played: u64,
    /// Sound that goes before the queue: keys as tones.
    tones: VecDeque<Frame>,
    keys: VecDeque<Key>,
    pressing: Option<Pressing>,
    gap_ticks: u32,
    sent: Sent,
}

/// What was asked to be pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Press(u8),
    Pause,
}

/// A key on its way.
#[derive(Clone, Copy, Debug)]
struct Pressing {
    code: u8,
    timestamp: u32,
    ticks: u32,
}

impl Sending {
    /// Begins with these numbers, which come from chance; the first sequence number shall be below 2^15 (RFC 3711 3.3.1).
    pub fn new(stream: &Stream, ssrc: u32, sequence: u16, timestamp: u32) -> Sending {
        let mut sending = Sending {
            codec: stream.codec,
            numbers: stream.send,
            frame_ms: FRAME_MS,
            sends: false,
            signalled: stream.remote,
            target: stream.remote,
            rtcp_target: stream.remote_rtcp,
            sealing: None,
            ssrc,
            sequence,
            timestamp,
            after_silence: true,
            silence: Frame::new(&[]),
            queue: VecDeque::new(),
            played: 0,
            tones: VecDeque::new(),
            keys: VecDeque::new(),
            pressing: None,
            gap_ticks: 0,
            sent: Sent::default(),
        };
        sending.agree(stream);
        sending
    }

    /// Takes what was agreed on. Sound that waits in another codec is dropped.
    pub fn agree(&mut self, stream: &Stream) {
        if self.codec != stream.codec {
            self.played += self.queue.len() as u64;
            self.queue.clear();
            self.tones.clear();
        }
        self.codec = stream.codec;
        self.numbers = stream.send;
        self.sends = stream.direction.sends();
        // Opus stays at 20 ms: nobody was seen to ask for less.
        self.frame_ms =
            if stream.codec == Codec::Opus { FRAME_MS } else { stream.ptime_ms.clamp(10, FRAME_MS) };
        if self.signalled != stream.remote {
            (self.target, self.rtcp_target) = (stream.remote, stream.remote_rtcp);
        }
        self.signalled = stream.remote;
        self.sealing = stream.srtp.as_ref().map(|keys| match self.sealing.take() {
            // One key must never seal the same index twice.
            Some(known) if (known.0, &known.1) == (keys.suite, &keys.ours) => known,
            _ => (keys.suite, keys.ours.clone(), Sealing::new(keys.suite, &keys.ours)),
        });
        self.silence = silence(stream.codec, self.frame_bytes());
    }

    /// What packets are coded in.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Frames that were sent of those that were queued.
    pub fn played(&self) -> u64 {
        self.played
    }

    /// Frames that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of a frame, where every frame has as many.
    fn frame_bytes(&self) -> usize {
        (self.codec.clock_hz() / 1_000 * self.frame_ms) as usize
    }

    /// Queues G.711 sound, which fills the last frame first.
    pub fn play(&mut self, mut coded: &[u8]) {
        let whole = self.frame_bytes().min(FRAME_BYTES);
        if let Some(last) = self.queue.back_mut().filter(|last| usize::from(last.length) < whole) {
            let taken = coded.len().min(whole - usize::from(last.length));
            last.bytes[usize::from(last.length)..][..taken].copy_from_slice(&coded[..taken]);
            last.length += taken as u8;
            coded = &coded[taken..];
        }
        for frame in coded.chunks(whole) {
            self.play_frame(Frame::new(frame));
        }
    }

    /// Queues a frame of any codec.
    pub fn play_frame(&mut self, frame: Frame) {
        if self.queue.len() < MAX_QUEUED {
            self.queue.push_back(frame);
        }
    }

    /// Sends tones as soon as it can, in frames of G.711.
    pub fn play_tones(&mut self, coded: &[u8]) {
        let whole = self.frame_bytes().min(FRAME_BYTES);
        self.tones.extend(coded.chunks(whole).map(Frame::new).take(MAX_QUEUED));
    }

    /// The same for a frame of any codec.
    pub fn play_tone_frame(&mut self, frame: Frame) {
        self.tones.push_back(frame);
    }

    /// Drops the sound that waits.
    pub fn clear(&mut self) {
        self.played += self.queue.len() as u64;
        self.queue.clear();
    }

    /// Presses keys as telephone events; says whether they can be.
    pub fn press(&mut self, digits: &str) -> bool {
        let keys = digits.chars().filter_map(|digit| match digit {
            'w' => Some(Key::Pause),
            _ => Event::code(digit).map(Key::Press),
        });
        if self.numbers.event.is_some() {
            let room = MAX_KEYS.saturating_sub(self.keys.len());
            self.keys.extend(keys.take(room));
        }
        self.numbers.event.is_some()
    }

    /// Makes the packets of the next 20 ms; `missed` ticks before it were not made in time.
    pub fn tick(&mut self, missed: u32, outgoing: &mut Outgoing) {
        outgoing.count = 0;
        self.timestamp = self.timestamp.wrapping_add(self.ticks(FRAME_MS).wrapping_mul(missed));
        self.after_silence |= missed > 0;
        if !self.sends {
            self.timestamp = self.timestamp.wrapping_add(self.ticks(FRAME_MS));
            self.after_silence = true;
            return;
        }
        self.next_key();
        if let Some(mut pressing) = self.pressing.filter(|pressing| pressing.ticks < KEY_TICKS) {
            pressing.ticks += 1;
            self.pressing = Some(pressing);
            self.timestamp = self.timestamp.wrapping_add(self.ticks(FRAME_MS));
            self.after_silence = true;
            return self.event(pressing, outgoing);
        }
        for _ in 0..FRAME_MS / self.frame_ms {
            self.sound(outgoing);
        }
        if let Some(mut pressing) = self.pressing {
            pressing.ticks += 1;
            self.pressing = (pressing.ticks < KEY_TICKS + ENDS - 1).then_some(pressing);
            self.event(pressing, outgoing);
        }
    }

    fn ticks(&self, ms: u32) -> u32 {
        self.codec.clock_hz() / 1_000 * ms
    }

    /// Lets the next key begin, when the one before it is over.
    fn next_key(&mut self) {
        if self.gap_ticks > 0 {
            self.gap_ticks -= 1;
            return;
        }
        if self.pressing.is_some() {
            return;
        }
        match self.keys.pop_front() {
            Some(Key::Press(code)) => {
                self.pressing = Some(Pressing { code, timestamp: self.timestamp, ticks: 0 });
                self.gap_ticks = KEY_TICKS + GAP_TICKS - 1;
            }
            Some(Key::Pause) => self.gap_ticks = PAUSE_TICKS - 1,
            None => {}
        }
    }

    fn event(&mut self, pressing: Pressing, outgoing: &mut Outgoing) {
        let Some(number) = self.numbers.event else { return };
        let length = pressing.ticks.min(KEY_TICKS);
        let duration = u16::try_from(self.ticks(FRAME_MS) * length).unwrap_or(u16::MAX);
        let event = Event { code: pressing.code, end: pressing.ticks >= KEY_TICKS, duration };
        let header = self.header(pressing.ticks == 1, number, pressing.timestamp);
        let Some(packet) = outgoing.next() else { return };
        header.write(packet);
        event.write(packet);
        self.finish(packet);
    }

    fn sound(&mut self, outgoing: &mut Outgoing) {
        // Sound waits while keys do: they would cut it to pieces.
        let keys_wait = self.pressing.is_some() || !self.keys.is_empty();
        let frame = match self.tones.pop_front() {
            Some(frame) => Some(frame),
            None if keys_wait => None,
            None => self.queue.pop_front().inspect(|_| self.played += 1),
        };
        let marker = self.after_silence && (frame.is_some() || self.sent.packets == 0);
        self.after_silence = frame.is_none();
        let header = self.header(marker, self.numbers.audio, self.timestamp);
        self.timestamp = self.timestamp.wrapping_add(self.ticks(self.frame_ms));
        let Some(packet) = outgoing.next() else { return };
        header.write(packet);
        match frame {
            None => packet.extend_from_slice(self.silence.coded()),
            Some(frame) => {
                packet.extend_from_slice(frame.coded());
                if self.codec != Codec::Opus {
                    let missing = self.silence.coded().get(frame.coded().len()..).unwrap_or(&[]);
                    packet.extend_from_slice(missing);
                }
            }
        }
        self.finish(packet);
    }

    fn header(&mut self, marker: bool, payload_type: u8, timestamp: u32) -> Header {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        Header { marker, payload_type, sequence, timestamp, ssrc: self.ssrc }
    }

    fn finish(&mut self, packet: &mut Vec<u8>) {
        self.sent.packets = self.sent.packets.wrapping_add(1);
        self.sent.octets = self.sent.octets.wrapping_add((packet.len() - HEADER) as u32);
        if let Some((_, _, sealing)) = &mut self.sealing {
            sealing.rtp(packet, HEADER);
        }
    }

    /// Packets sent.
    pub fn sent(&self) -> u32 {
        self.sent.packets
    }

    /// Replaces `packet` by a report, and the goodbye if it is one; says where it goes, if anywhere.
    pub fn report(
        &mut self,
        packet: &mut Vec<u8>,
        name: &str,
        now_us: u64,
        block: Option<Block>,
        goodbye: bool,
    ) -> Option<SocketAddr> {
        let sent = (self.sent.packets > 0).then_some(Sent { timestamp: self.timestamp, ..self.sent });
        rtcp::write(packet, self.ssrc, name, now_us, sent, block, goodbye);
        if let Some((_, _, sealing)) = &mut self.sealing {
            sealing.rtcp(packet);
        }
        // An unspecified address is the old way to say "send nothing".
        Some(self.rtcp_target).filter(|target| !target.ip().is_unspecified() && target.port() != 0)
    }
}

/// A frame in which nothing is heard.
fn silence(codec: Codec, bytes: usize) -> Frame {
    match codec {
        Codec::Pcmu | Codec::Pcma => {
            let mut coded = Vec::with_capacity(bytes);
            codec.coding().silence(bytes, &mut coded);
            Frame::new(&coded)
        }
        Codec::Opus => {
            let mut packet = [0; opus::MAX_PACKET_BYTES];
            let length = opus::Encoder::new().encode(&[0; opus::FRAME_SAMPLES], &mut packet);
            Frame::new(&packet[..length])
        }
    }
}

#[cfg(test)]
mod tests;
