//! RTP between the customer and a telephone: PCMU and keys, with the faults that networks have (RFC 3550, 3551, 4733).
//! It knows packets and one line; what was agreed on is told to it.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use offhook_media::g711::Law;
use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::phone::{FromPhone, Line, What};

const HEADER_BYTES: usize = 12;
const MAX_PACKET_BYTES: usize = 2_048;
const PCMU: u8 = 0;
const FRAME_SAMPLES: u32 = 160;
const KEYS: &str = "0123456789*#ABCD";
/// A pressed key sounds for so many packets before its end packets.
const KEY_PACKETS: u16 = 5;
/// RFC 4733 section 2.5.1.4: the end is sent three times.
const END_PACKETS: u32 = 3;
/// -10 dBm0.
const KEY_VOLUME: u8 = 10;
/// The far end's own buffer: what arrives is heard so much later.
const EAR_DELAY_MS: u64 = 60;
/// Attempts to find an even port whose neighbour is free too.
const PORT_ATTEMPTS: usize = 100;

/// What happens to packets on their way to the customer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RtpTrouble {
    /// Every so-manieth packet is lost; none where 0.
    pub lose_every: u32,
    /// Every so-manieth packet changes places with the one behind it; none where 0.
    pub swap_every: u32,
    /// Every so-manieth packet comes twice; none where 0.
    pub repeat_every: u32,
    /// Every second packet comes so much later than it should, milliseconds.
    pub jitter_ms: u64,
    /// End packets of a key that are lost, of three.
    pub lost_ends: u32,
    /// End packets of a key beyond the usual three.
    pub extra_ends: u32,
    /// Nothing is sent at all.
    pub silent: bool,
}

/// What came from the customer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RtpReport {
    /// Audio packets.
    pub packets: u64,
    /// Packets that the sequence numbers promise and that did not come.
    pub missing: u64,
    /// Packets that came twice or behind a later one.
    pub late: u64,
    /// Packets whose payload is none that was agreed on.
    pub unexpected: u64,
    /// Sources of packets, in the order of their first packet.
    pub from: Vec<SocketAddr>,
    /// Synchronisation sources, in the order of their first packet.
    pub ssrcs: Vec<u32>,
    /// Steps of the timestamp that were not the length of the packet before.
    pub broken_timestamps: u64,
    /// The longest time between two packets, milliseconds.
    pub longest_gap_ms: u64,
    /// Packets of RTCP.
    pub rtcp: u64,
    /// Keys by RFC 4733, each once.
    pub keys: String,
}

/// The media of one call.
#[derive(Clone)]
pub(super) struct Rtp(Arc<Shared>);

struct Shared {
    line: Line,
    local: SocketAddr,
    state: Mutex<State>,
}

struct State {
    sockets: Vec<Arc<UdpSocket>>,
    tasks: Vec<JoinHandle<()>>,
    /// Where packets go, and as what keys are sent.
    remote: Option<SocketAddr>,
    key_payload: Option<u8>,
    held: bool,
    trouble: RtpTrouble,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    sent: u32,
    swapped: Option<Vec<u8>>,
    key: Option<Key>,
    report: RtpReport,
    last: Option<Arrived>,
    last_key: Option<u32>,
}

struct Arrived {
    sequence: u16,
    timestamp: u32,
    at: Instant,
}

/// A key on its way.
struct Key {
    event: u8,
    timestamp: u32,
    packets: u16,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for task in &lock(&self.state).tasks {
            task.abort();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Rtp {
    /// Takes an even port for media and the odd one above it for RTCP.
    pub(super) async fn open(host: IpAddr, line: Line) -> io::Result<Rtp> {
        let (media, control) = ports(host).await?;
        let local = media.local_addr()?;
        let state = State {
            sockets: vec![Arc::new(media)],
            tasks: Vec::new(),
            remote: None,
            key_payload: None,
            held: false,
            trouble: RtpTrouble::default(),
            ssrc: rand::random(),
            sequence: rand::random(),
            timestamp: rand::random(),
            sent: 0,
            swapped: None,
            key: None,
            report: RtpReport::default(),
            last: None,
            last_key: None,
        };
        let rtp = Rtp(Arc::new(Shared { line, local, state: Mutex::new(state) }));
        rtp.listen();
        let shared = Arc::downgrade(&rtp.0);
        let counting = tokio::spawn(async move {
            let mut packet = [0; MAX_PACKET_BYTES];
            while control.recv_from(&mut packet).await.is_ok() {
                let Some(shared) = shared.upgrade() else { return };
                lock(&shared.state).report.rtcp += 1;
            }
        });
        lock(&rtp.0.state).tasks.push(counting);
        Ok(rtp)
    }

    /// Where the customer is to send to.
    pub(super) fn local(&self) -> SocketAddr {
        self.0.local
    }

    /// Begins to send what the telephone says, or goes on elsewhere; nothing is sent while it is held.
    pub(super) fn connect(&self, remote: SocketAddr, key_payload: Option<u8>, held: bool) {
        let begins = {
            let mut state = lock(&self.0.state);
            let begins = state.remote.is_none();
            (state.remote, state.key_payload, state.held) = (Some(remote), key_payload, held);
            begins
        };
        if begins {
            self.speak();
        }
    }

    pub(super) fn trouble(&self, trouble: RtpTrouble) {
        lock(&self.0.state).trouble = trouble;
    }

    /// Goes on as another source, as after a transfer inside the carrier.
    pub(super) fn change_ssrc(&self) {
        let mut state = lock(&self.0.state);
        (state.ssrc, state.sequence, state.timestamp) = (rand::random(), rand::random(), rand::random());
    }

    /// Goes on from another port, as behind a NAT that forgot; the old one stays open.
    pub(super) async fn change_port(&self) -> io::Result<()> {
        let socket = UdpSocket::bind((self.0.local.ip(), 0)).await?;
        lock(&self.0.state).sockets.push(Arc::new(socket));
        self.listen();
        Ok(())
    }

    pub(super) fn report(&self) -> RtpReport {
        lock(&self.0.state).report.clone()
    }

    pub(super) fn stop(&self) {
        for task in lock(&self.0.state).tasks.drain(..) {
            task.abort();
        }
    }

    /// Hears what comes to the newest socket.
    fn listen(&self) {
        let shared = Arc::downgrade(&self.0);
        let Some(socket) = lock(&self.0.state).sockets.last().cloned() else { return };
        let hearing = tokio::spawn(async move {
            let mut packet = [0; MAX_PACKET_BYTES];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                let Some(shared) = shared.upgrade() else { return };
                let heard = lock(&shared.state).receive(&packet[..length], from);
                match heard {
                    // A full buffer loses what it cannot hold.
                    Heard::Audio(pcm) => {
                        let _ = shared.line.hear(&pcm, if shared.line.is_idle() { EAR_DELAY_MS } else { 0 });
                    }
                    Heard::Key(digit) => shared.line.note(What::DigitHeard { digit }),
                    Heard::Nothing => {}
                }
            }
        });
        lock(&self.0.state).tasks.push(hearing);
    }

    fn speak(&self) {
        let shared = Arc::downgrade(&self.0);
        let mut from_phone = self.0.line.take();
        let speaking = tokio::spawn(async move {
            let mut waiting = VecDeque::new();
            while let Some(heard) = from_phone.recv().await {
                let Some(shared) = shared.upgrade() else { return };
                let pcm = match heard {
                    FromPhone::Digit(digit) => {
                        waiting.push_back(digit);
                        continue;
                    }
                    FromPhone::Frame { pcm, .. } => pcm,
                };
                let (packets, socket, remote) = {
                    let mut state = lock(&shared.state);
                    if state.key.is_none() && state.key_payload.is_some() {
                        state.key = waiting.pop_front().and_then(|digit| state.begin_key(digit));
                    }
                    let packets = state.packets(pcm.as_slice());
                    let Some(remote) = state.remote.filter(|_| !state.held) else { continue };
                    (packets, state.sockets.last().cloned(), remote)
                };
                let Some(socket) = socket else { return };
                for (packet, delay_ms) in packets {
                    deliver(socket.clone(), packet, remote, delay_ms).await;
                }
            }
        });
        lock(&self.0.state).tasks.push(speaking);
    }
}

/// Sends at once, or later without holding up what follows.
async fn deliver(socket: Arc<UdpSocket>, packet: Vec<u8>, remote: SocketAddr, delay_ms: u64) {
    if delay_ms == 0 {
        // Nobody at the other port is an answer that media does not wait for.
        let _ = socket.send_to(&packet, remote).await;
        return;
    }
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        let _ = socket.send_to(&packet, remote).await;
    });
}

enum Heard {
    Audio(Vec<i16>),
    Key(char),
    Nothing,
}

impl State {
    fn begin_key(&self, digit: char) -> Option<Key> {
        let event = KEYS.find(digit.to_ascii_uppercase())? as u8;
        Some(Key { event, timestamp: self.timestamp, packets: 0 })
    }

    /// The packets of the next 20 ms, each with how late it is.
    fn packets(&mut self, pcm: &[i16]) -> Vec<(Vec<u8>, u64)> {
        let mut made = Vec::new();
        match self.key.take() {
            None => {
                let mut coded = Vec::with_capacity(pcm.len());
                Law::Mu.encode(pcm, &mut coded);
                let packet = self.packet(PCMU, self.timestamp, false, &coded);
                self.sequence = self.sequence.wrapping_add(1);
                made.push(packet);
            }
            Some(mut key) => {
                key.packets += 1;
                let ended = key.packets > KEY_PACKETS;
                let duration = key.packets.min(KEY_PACKETS) * FRAME_SAMPLES as u16;
                let copies = match ended {
                    true => (END_PACKETS + self.trouble.extra_ends).saturating_sub(self.trouble.lost_ends),
                    false => 1,
                };
                for _ in 0..copies {
                    made.push(self.key_packet(&key, ended, duration));
                    self.sequence = self.sequence.wrapping_add(1);
                }
                self.key = (!ended).then_some(key);
            }
        }
        self.timestamp = self.timestamp.wrapping_add(FRAME_SAMPLES);
        made.into_iter().flat_map(|packet| self.mistreat(packet)).collect()
    }

    /// Loses, repeats, delays and swaps packets as the trouble has it.
    fn mistreat(&mut self, packet: Vec<u8>) -> Vec<(Vec<u8>, u64)> {
        let trouble = self.trouble;
        self.sent += 1;
        let falls_on = |every: u32| every > 0 && self.sent.is_multiple_of(every);
        if trouble.silent || falls_on(trouble.lose_every) {
            return Vec::new();
        }
        if falls_on(trouble.swap_every) && self.swapped.is_none() {
            self.swapped = Some(packet);
            return Vec::new();
        }
        let late = if self.sent.is_multiple_of(2) { trouble.jitter_ms } else { 0 };
        let copies = if falls_on(trouble.repeat_every) { 2 } else { 1 };
        let mut sent = vec![(packet, late); copies];
        sent.extend(self.swapped.take().map(|packet| (packet, late)));
        sent
    }

    fn key_packet(&self, key: &Key, ended: bool, duration: u16) -> Vec<u8> {
        let flags = if ended { 0x80 | KEY_VOLUME } else { KEY_VOLUME };
        let [high, low] = duration.to_be_bytes();
        let first = key.packets == 1;
        self.packet(
            self.key_payload.unwrap_or_default(),
            key.timestamp,
            first,
            &[key.event, flags, high, low],
        )
    }

    fn packet(&self, payload_type: u8, timestamp: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, payload_type | if marker { 0x80 } else { 0 }];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(payload);
        packet
    }

    fn receive(&mut self, packet: &[u8], from: SocketAddr) -> Heard {
        let Some((header, payload)) =
            packet.split_at_checked(HEADER_BYTES).filter(|(header, _)| header[0] == 0x80)
        else {
            self.report.unexpected += 1;
            return Heard::Nothing;
        };
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (sequence, timestamp, ssrc) = (u16::from_be_bytes([header[2], header[3]]), word(4), word(8));
        if !self.report.from.contains(&from) {
            self.report.from.push(from);
        }
        if !self.report.ssrcs.contains(&ssrc) {
            self.report.ssrcs.push(ssrc);
            self.last = None;
        }
        match header[1] & 0x7F {
            PCMU => self.audio(payload, sequence, timestamp),
            kind if Some(kind) == self.key_payload => self.hear_key(payload, sequence, timestamp),
            _ => {
                self.report.unexpected += 1;
                Heard::Nothing
            }
        }
    }

    fn audio(&mut self, payload: &[u8], sequence: u16, timestamp: u32) -> Heard {
        self.report.packets += 1;
        if !self.follows(sequence, Some(timestamp)) {
            return Heard::Nothing;
        }
        let mut pcm = Vec::with_capacity(payload.len());
        Law::Mu.decode(payload, &mut pcm);
        Heard::Audio(pcm)
    }

    /// One digit for each timestamp, however many packets tell it.
    fn hear_key(&mut self, payload: &[u8], sequence: u16, timestamp: u32) -> Heard {
        self.follows(sequence, None);
        let Some(digit) = payload.first().and_then(|event| KEYS.chars().nth(usize::from(*event))) else {
            self.report.unexpected += 1;
            return Heard::Nothing;
        };
        if self.last_key.replace(timestamp) == Some(timestamp) {
            return Heard::Nothing;
        }
        self.report.keys.push(digit);
        Heard::Key(digit)
    }

    /// Counts what is wrong with the order of packets; false for one that is late.
    fn follows(&mut self, sequence: u16, timestamp: Option<u32>) -> bool {
        let now = Instant::now();
        let arrived = |timestamp| Arrived { sequence, timestamp, at: now };
        let Some(last) = &self.last else {
            self.last = timestamp.map(arrived);
            return true;
        };
        let step = sequence.wrapping_sub(last.sequence);
        if step == 0 || step > u16::MAX / 2 {
            self.report.late += 1;
            return false;
        }
        self.report.missing += u64::from(step - 1);
        self.report.longest_gap_ms = self.report.longest_gap_ms.max(last.at.elapsed().as_millis() as u64);
        let before = last.timestamp;
        if step == 1 && timestamp.is_some_and(|now| now.wrapping_sub(before) % FRAME_SAMPLES != 0) {
            self.report.broken_timestamps += 1;
        }
        self.last = Some(arrived(timestamp.unwrap_or(before)));
        true
    }
}

async fn ports(host: IpAddr) -> io::Result<(UdpSocket, UdpSocket)> {
    for _ in 0..PORT_ATTEMPTS {
        let media = UdpSocket::bind((host, 0)).await?;
        let port = media.local_addr()?.port();
        if port.is_multiple_of(2)
            && let Ok(control) = UdpSocket::bind((host, port + 1)).await
        {
            return Ok((media, control));
        }
    }
    Err(io::Error::from(io::ErrorKind::AddrInUse))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            sockets: Vec::new(),
            tasks: Vec::new(),
            remote: None,
            key_payload: Some(101),
            held: false,
            trouble: RtpTrouble::default(),
            ssrc: 7,
            sequence: u16::MAX,
            timestamp: u32::MAX,
            sent: 0,
            swapped: None,
            key: None,
            report: RtpReport::default(),
            last: None,
            last_key: None,
        }
    }

    /// What another state hears of it.
    fn heard(sender: &mut State, frames: usize) -> (RtpReport, usize) {
        let mut receiver = state();
        let mut samples = 0;
        for _ in 0..frames {
            for (packet, _) in sender.packets(&[1_000; 160]) {
                if let Heard::Audio(pcm) = receiver.receive(&packet, "127.0.0.1:1".parse().unwrap()) {
                    samples += pcm.len();
                }
            }
        }
        (receiver.report, samples)
    }

    #[test]
    fn packets_follow_each_other_over_the_wrap() {
        let (report, samples) = heard(&mut state(), 50);
        assert_eq!((report.packets, report.missing, report.late, samples), (50, 0, 0, 8_000));
        assert_eq!((report.broken_timestamps, report.ssrcs), (0, vec![7]));
    }

    #[test]
    fn trouble_is_what_was_asked_for() {
        let with = |trouble| heard(&mut State { trouble, ..state() }, 100).0;
        let lost = with(RtpTrouble { lose_every: 10, ..RtpTrouble::default() });
        assert_eq!((lost.packets, lost.missing), (90, 9), "the last one is not missed yet");
        let swapped = with(RtpTrouble { swap_every: 10, ..RtpTrouble::default() });
        assert_eq!((swapped.packets, swapped.late), (99, 9));
        let twice = with(RtpTrouble { repeat_every: 10, ..RtpTrouble::default() });
        assert_eq!((twice.packets, twice.late), (110, 10));
        let silent = with(RtpTrouble { silent: true, ..RtpTrouble::default() });
        assert_eq!(silent.packets, 0);
    }

    #[test]
    fn a_key_is_heard_once_however_its_end_arrives() {
        for trouble in [
            RtpTrouble::default(),
            RtpTrouble { lost_ends: 3, ..RtpTrouble::default() },
            RtpTrouble { extra_ends: 4, ..RtpTrouble::default() },
        ] {
            let mut sender = State { trouble, ..state() };
            sender.key = sender.begin_key('#');
            let (report, _) = heard(&mut sender, 10);
            assert_eq!((report.keys.as_str(), report.missing), ("#", 0), "{trouble:?}");
        }
    }
}
