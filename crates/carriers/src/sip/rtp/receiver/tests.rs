//! A network that impairs, with exact expectations.

use super::super::packet::Event;
use super::*;
use crate::sip::sdp::Direction;
use crate::sip::srtp::{Sealing, SrtpKeys};
use proptest::prelude::*;

const FRAME_US: u64 = 20_000;
const SSRC: u32 = 0x5EED;

fn there() -> SocketAddr {
    "192.0.2.1:4000".parse().unwrap()
}

fn stream() -> Stream {
    let numbers = Numbers { audio: 0, event: Some(101) };
    Stream {
        codec: Codec::Pcmu,
        send: numbers,
        receive: numbers,
        remote: there(),
        remote_rtcp: "192.0.2.1:4001".parse().unwrap(),
        rtcp_mux: false,
        srtp: None,
        direction: Direction::Both,
        ptime_ms: 20,
        dtmf: Dtmf::Rfc4733,
    }
}

/// A line whose packets say their number in every byte, with 0 to 126 again and again.
struct Line {
    receiver: Receiver,
    now_us: u64,
    heard: Vec<Vec<u8>>,
    pressed: Vec<char>,
}

impl Line {
    fn new(stream: &Stream) -> Line {
        let filter = SourceFilter::only([("198.51.100.0".parse().unwrap(), 24)]);
        let receiver = Receiver::new(stream, stream.codec.coding(), filter, 1, 0);
        Line { receiver, now_us: 0, heard: Vec::new(), pressed: Vec::new() }
    }

    fn packet(number: u32, ssrc: u32) -> Vec<u8> {
        let mut packet = Vec::new();
        let sequence = (number + 65_500) as u16;
        Header { marker: false, payload_type: 0, sequence, timestamp: number * 160, ssrc }.write(&mut packet);
        packet.resize(172, (number % 127) as u8);
        packet
    }

    fn take(&mut self, from: SocketAddr, mut packet: Vec<u8>) {
        self.receiver.rtp(self.now_us, from, &mut packet, &mut self.pressed);
    }

    fn push(&mut self, number: u32) {
        self.take(there(), Line::packet(number, SSRC));
    }

    fn pull(&mut self) {
        let mut frame = Vec::new();
        self.receiver.frame(&mut frame, &mut self.pressed);
        assert_eq!(frame.len(), 160);
        self.heard.push(frame);
        self.now_us += FRAME_US;
    }

    /// Pushes the packets of each frame's list, then pulls the frame.
    fn run(&mut self, frames: usize, arrivals: impl Fn(usize) -> Vec<u32>) {
        for frame in 0..frames {
            arrivals(frame).into_iter().for_each(|number| self.push(number));
            self.pull();
        }
    }

    /// The numbers of packets that were heard whole, in their order.
    fn whole(&self) -> Vec<u8> {
        let same = |frame: &&Vec<u8>| frame.iter().all(|byte| *byte == frame[0]) && frame[0] < 127;
        self.heard.iter().filter(same).map(|frame| frame[0]).collect()
    }

    fn figures(&self) -> Received {
        self.receiver.figures()
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<u8> {
    range.map(|number| (number % 127) as u8).collect()
}

#[test]
fn a_steady_network_is_heard_whole() {
    let mut line = Line::new(&stream());
    line.run(100, |frame| vec![frame as u32]);
    assert_eq!(line.whole(), numbers(0..98));
    let figures = line.figures();
    let expected = Received { received: 100, delay_ms: figures.delay_ms, ..Received::default() };
    assert_eq!(figures, expected);
    assert!((20..=40).contains(&figures.delay_ms), "{}", figures.delay_ms);
}

#[test]
fn what_is_lost_is_counted_and_filled_in() {
    let mut line = Line::new(&stream());
    line.run(100, |frame| if frame % 10 == 5 { vec![] } else { vec![frame as u32] });
    let figures = line.figures();
    assert_eq!((figures.received, figures.lost, figures.late), (90, 10, 0));
    assert_eq!(figures.concealed_ms, 10 * 20);
    assert_eq!(line.heard.iter().filter(|frame| frame[100] == 0xFF).count(), 2, "only before the first");
}

#[test]
fn reordering_and_repeats_change_nothing_that_is_heard() {
    let mut line = Line::new(&stream());
    let swapped = |frame: usize| if frame % 6 == 3 { vec![] } else { vec![frame as u32] };
    line.run(102, |frame| match frame % 6 {
        4 => vec![frame as u32, frame as u32 - 1, frame as u32 - 1],
        _ => [swapped(frame), swapped(frame)].concat(),
    });
    assert_eq!(line.whole(), numbers(0..100));
    let figures = line.figures();
    assert_eq!((figures.received, figures.lost, figures.late, figures.concealed_ms), (102, 0, 0, 0));
    assert_eq!(figures.twice, 85);
}

#[test]
fn jitter_is_absorbed_after_it_has_been_met() {
    let mut line = Line::new(&stream());
    // Every fifth packet and those behind it come up to 60 ms late, in order.
    let arrives = |n: u32| n + [0, 3, 2, 1, 0][n as usize % 5];
    line.run(500, |frame| (0..500).filter(|n| arrives(*n) == frame as u32).collect());
    let figures = line.figures();
    assert_eq!((figures.lost, figures.late), (0, 0));
    assert!(figures.concealed_ms <= 60, "{}", figures.concealed_ms);
    let whole = line.whole();
    let settled = &whole[whole.len() - 400..];
    assert!(settled.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 127), "{settled:?}");
    assert!(figures.jitter_us > 5_000, "{}", figures.jitter_us);
}

#[test]
fn another_ssrc_from_its_second_packet_on_is_a_new_source() {
    let mut line = Line::new(&stream());
    line.run(50, |frame| vec![frame as u32]);
    line.take(there(), Line::packet(7, 99));
    line.run(10, |frame| vec![frame as u32 + 50]);
    assert_eq!(line.figures().discarded, 1, "one packet alone is no source");
    for number in 1_000..1_050 {
        line.take(there(), Line::packet(number, 99));
        line.pull();
    }
    let whole = line.whole();
    assert_eq!(whole[whole.len() - 47..], numbers(1_001..1_048), "one packet was the proof, two frames wait");
    assert_eq!((line.figures().lost, line.figures().late, line.figures().discarded), (0, 0, 2));
}

#[test]
fn a_packet_of_the_other_law_is_heard_in_the_line_s() {
    let mut line = Line::new(&stream());
    let mut pcm = Vec::new();
    Coding::MU_LAW.decode(&[0x80; 160], &mut pcm);
    for number in 0..20_u32 {
        let mut packet = Line::packet(number, SSRC);
        packet[1] = PCMA;
        packet.truncate(12);
        Coding::A_LAW.encode(&pcm, &mut packet);
        line.take(there(), packet);
        line.pull();
    }
    assert!(line.heard[10..].iter().flatten().all(|byte| byte.abs_diff(0x80) <= 1), "{:?}", line.heard[12]);
}

#[test]
fn strangers_echoes_and_nonsense_are_dropped_and_counted() {
    let mut line = Line::new(&stream());
    line.run(10, |frame| vec![frame as u32]);
    for number in 10..20 {
        line.take("203.0.113.7:4000".parse().unwrap(), Line::packet(number, SSRC));
        line.take("198.51.100.7:4000".parse().unwrap(), Line::packet(number, SSRC));
        line.take(there(), Line::packet(number, 1));
        line.take(there(), vec![0x80; 5]);
        line.take(there(), vec![0x40; 172]);
        let mut unknown = Line::packet(number, SSRC);
        unknown[1] = 77;
        line.take(there(), unknown);
    }
    let figures = line.figures();
    assert_eq!((figures.received, figures.strangers, figures.discarded), (20, 30, 30));
}

#[test]
fn comfort_noise_and_pauses_are_silence_and_not_loss() {
    let mut line = Line::new(&stream());
    line.run(20, |frame| vec![frame as u32]);
    let mut noise = Line::packet(20, SSRC);
    noise[1] = COMFORT_NOISE;
    noise.truncate(13);
    line.take(there(), noise);
    line.run(50, |_| vec![]);
    assert!(line.heard[30..].iter().flatten().all(|byte| *byte == 0xFF), "it has faded");
    let figures = line.figures();
    assert_eq!((figures.lost, figures.received), (0, 21));
    assert_eq!(line.receiver.heard_us(), 20 * FRAME_US);
}

#[test]
fn a_faster_and_a_slower_clock_are_followed() {
    // 500 ppm: far beyond any telephone.
    for (every, faster) in [(2_000_usize, true), (2_000, false)] {
        let mut line = Line::new(&stream());
        line.run(20_000, |frame| {
            let shift = frame / every;
            let number = if faster { frame + shift } else { frame.saturating_sub(shift) } as u32;
            match frame % every {
                0 if frame > 0 && faster => vec![number - 1, number],
                0 if frame > 0 => vec![],
                _ => vec![number],
            }
        });
        let figures = line.figures();
        assert_eq!((figures.lost, figures.late), (0, 0), "faster: {faster}");
        if faster {
            assert!((8..=11).contains(&figures.slipped) && figures.concealed_ms <= 20, "{figures:?}");
        } else {
            assert!(figures.slipped <= 1 && (160..=220).contains(&figures.concealed_ms), "{figures:?}");
        }
        assert!(figures.delay_ms <= 60, "{figures:?}");
    }
}

#[test]
fn keys_are_heard_through_loss_and_repeats() {
    let mut line = Line::new(&stream());
    line.run(10, |frame| vec![frame as u32]);
    let mut number = 10_u32;
    for (key, kept) in [('1', 0b111_1111_u32), ('1', 0b000_0001), ('#', 0b100_0000), ('0', 0b000_1100)] {
        let start = number;
        for n in 0..7_u32 {
            let event =
                Event { code: Event::code(key).unwrap(), end: n >= 4, duration: 160 * (n.min(4) + 1) as u16 };
            let mut packet = Line::packet(start + n, SSRC);
            packet.truncate(12);
            packet[1] = 101;
            packet[4..8].copy_from_slice(&(start * 160).to_be_bytes());
            event.write(&mut packet);
            if kept >> n & 1 == 1 {
                line.take(there(), packet.clone());
                line.take(there(), packet);
            }
            line.pull();
            number += 1;
        }
        line.push(number);
        number += 1;
    }
    assert_eq!(line.pressed, ['1', '1', '#', '0']);
}

#[test]
fn a_held_line_is_silent_and_begins_anew_afterwards() {
    let mut line = Line::new(&stream());
    line.run(20, |frame| vec![frame as u32]);
    line.receiver.change(&Stream { direction: Direction::ReceiveOnly, ..stream() }, line.now_us);
    line.run(20, |frame| vec![frame as u32 + 20]);
    assert!(line.heard[20..].iter().flatten().all(|byte| *byte == 0xFF));
    line.receiver.change(&stream(), line.now_us);
    line.run(20, |frame| vec![frame as u32 + 40]);
    let whole = line.whole();
    assert_eq!(whole[whole.len() - 18..], numbers(40..58));
    assert_eq!((line.figures().lost, line.figures().late), (0, 0));
}

#[test]
fn a_change_that_changes_nothing_keeps_the_keys_and_the_sound() {
    let keys = SrtpKeys {
        suite: Suite::AesCm128HmacSha1_80,
        ours: Master::new([1; 30]),
        theirs: Master::new([2; 30]),
    };
    let sealed = Stream { srtp: Some(keys.clone()), ..stream() };
    let mut sealing = Sealing::new(keys.suite, &keys.theirs);
    let mut line = Line::new(&sealed);
    let mut again = Vec::new();
    for number in 0..60 {
        let mut packet = Line::packet(number, SSRC);
        sealing.rtp(&mut packet, 12);
        again.push(packet.clone());
        line.take(there(), packet);
        line.pull();
        if number == 50 {
            line.receiver.change(&sealed, line.now_us);
        }
    }
    assert_eq!(line.whole(), numbers(0..58), "sequence numbers began anew on the way");
    again.into_iter().for_each(|packet| line.take(there(), packet));
    line.push(61);
    let figures = line.figures();
    assert_eq!((figures.received, figures.srtp_failures), (60, 61), "replayed, and not sealed");
}

#[test]
fn reports_go_where_reports_come_from() {
    let mut line = Line::new(&stream());
    assert_eq!(line.receiver.rtcp_target(), "192.0.2.1:4001".parse().unwrap());
    let nat: SocketAddr = "198.51.100.9:62000".parse().unwrap();
    for number in 0..3 {
        line.take(nat, Line::packet(number, SSRC));
    }
    assert_eq!(line.receiver.target(), nat);
    assert_eq!(line.receiver.rtcp_target(), "198.51.100.9:62001".parse().unwrap());
    let mut report = Vec::new();
    rtcp::write(&mut report, SSRC, "x", 0, None, None, false);
    line.receiver.rtcp(9, "198.51.100.9:62777".parse().unwrap(), &mut report);
    assert_eq!(line.receiver.rtcp_target(), "198.51.100.9:62777".parse().unwrap());
    assert_eq!(line.receiver.heard_us(), 9);
    line.receiver.change(&Stream { rtcp_mux: true, ..stream() }, 10);
    assert_eq!(line.receiver.rtcp_target(), nat);
}

proptest! {
    #[test]
    fn datagrams_of_any_kind_leave_frames_whole(
        kind: u8,
        datagrams in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..60)), 0..40),
    ) {
        let mut line = super::super::bench::receiver(kind);
        for (step, mut datagram) in datagrams {
            if let [head, number, ..] = &mut datagram[..] {
                (*head, *number) = (0x80, [0, 101, 13, 200][usize::from(step) % 4]);
            }
            line(step, &mut datagram);
        }
    }

    #[test]
    fn with_any_loss_and_little_jitter_everything_that_came_is_heard(
        fates in prop::collection::vec(prop_oneof![8 => Just(Some(0_u32)), 1 => Just(Some(1)), 1 => Just(None)], 180),
    ) {
        let mut line = Line::new(&stream());
        line.run(195, |frame| {
            let comes = |n: &u32| fates[*n as usize].is_some_and(|late| n + late == frame as u32);
            (0..180).filter(comes).collect()
        });
        let came: Vec<u8> = (0..180).filter(|n| fates[*n].is_some()).map(|n| (n % 127) as u8).collect();
        let figures = line.figures();
        prop_assert_eq!((figures.received as usize, figures.late), (came.len(), 0));
        // What is filled in sounds like what was before it, and is blended with what comes after it.
        let mut heard = line.heard.iter().map(|frame| frame[100]);
        for number in came {
            prop_assert!(heard.any(|byte| byte == number), "{} is not heard, or out of order", number);
        }
    }
}
