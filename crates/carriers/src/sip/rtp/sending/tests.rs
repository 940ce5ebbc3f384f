//! Ticks without sockets.

use super::super::packet::payload;
use super::*;
use crate::sip::sdp::{Direction, Dtmf};
use crate::sip::srtp::{Opening, SrtpKeys};
use proptest::prelude::*;

fn stream() -> Stream {
    let numbers = Numbers { audio: 0, event: Some(101) };
    Stream {
        codec: Codec::Pcmu,
        send: numbers,
        receive: numbers,
        remote: "192.0.2.1:4000".parse().unwrap(),
        remote_rtcp: "192.0.2.1:4001".parse().unwrap(),
        rtcp_mux: false,
        srtp: None,
        direction: Direction::Both,
        ptime_ms: 20,
        dtmf: Dtmf::Rfc4733,
    }
}

fn sending(stream: &Stream) -> Sending {
    Sending::new(stream, 9, 0x7FFE, u32::MAX - 400)
}

fn ticks(sending: &mut Sending, count: usize) -> Vec<(Header, Vec<u8>)> {
    let mut outgoing = Outgoing::new();
    let mut packets = Vec::new();
    for _ in 0..count {
        sending.tick(0, &mut outgoing);
        packets.extend(outgoing.packets().iter().map(|packet| {
            let (header, start) = Header::read(packet).unwrap();
            (header, payload(packet, start).unwrap().to_vec())
        }));
    }
    packets
}

fn payloads(sending: &mut Sending, count: usize) -> Vec<u8> {
    ticks(sending, count).into_iter().flat_map(|(_, payload)| payload).collect()
}

#[test]
fn sound_is_cut_into_packets_whatever_pieces_it_comes_in() {
    for ptime_ms in [10, 20] {
        let mut sending = sending(&Stream { ptime_ms, ..stream() });
        let sound: Vec<u8> = (0..1_000).map(|n| (n % 127) as u8).collect();
        sound.chunks(37).for_each(|piece| sending.play(piece));
        let packets = ticks(&mut sending, 8);
        let bytes = 8 * ptime_ms as usize;
        assert!(packets.iter().all(|(_, payload)| payload.len() == bytes));
        let heard: Vec<u8> = packets.iter().flat_map(|(_, payload)| payload.clone()).collect();
        assert_eq!((&heard[..1_000], &heard[1_000..1_280]), (&sound[..], &[0xFF; 280][..]));
        for pair in packets.windows(2) {
            assert_eq!(pair[1].0.timestamp, pair[0].0.timestamp.wrapping_add(bytes as u32));
            assert_eq!(pair[1].0.sequence, pair[0].0.sequence.wrapping_add(1));
        }
    }
}

#[test]
fn the_marker_stands_where_sound_begins() {
    let mut sending = sending(&stream());
    let mut marked = Vec::new();
    for tick in 0..20 {
        if [5, 6, 12].contains(&tick) {
            sending.play(&[1; 160]);
        }
        marked.extend(ticks(&mut sending, 1).iter().filter(|(header, _)| header.marker).map(|_| tick));
    }
    assert_eq!(marked, [0, 5, 12]);
}

#[test]
fn missed_ticks_are_skipped_in_time_and_not_in_sound() {
    let mut sending = sending(&stream());
    sending.play(&[[1; 160], [2; 160]].concat());
    let first = ticks(&mut sending, 1).remove(0).0;
    let mut outgoing = Outgoing::new();
    sending.tick(3, &mut outgoing);
    let (header, start) = Header::read(&outgoing.packets()[0]).unwrap();
    assert_eq!(header.timestamp, first.timestamp.wrapping_add(4 * 160));
    assert_eq!(header.sequence, first.sequence.wrapping_add(1));
    assert!(header.marker && outgoing.packets()[0][start] == 2);
}

#[test]
fn keys_go_before_sound_with_a_gap_between_them() {
    let mut sending = sending(&stream());
    sending.play(&[1; 320]);
    assert!(sending.press("1x2"));
    let packets = ticks(&mut sending, 30);
    let shape: String = packets
        .iter()
        .map(|(header, payload)| match (header.payload_type, payload[0]) {
            (101, code) if payload[1] & 0x80 != 0 => char::from(b'a' + code),
            (101, code) => char::from(b'0' + code),
            (_, 1) => 's',
            _ => '.',
        })
        .collect();
    let expected = "1111b.b.b.2222c.c.css";
    assert!(shape.starts_with(expected), "{shape}");
    let at = |wanted: char| packets[shape.find(wanted).unwrap()].0;
    assert_eq!(at('2').timestamp, at('1').timestamp.wrapping_add(8 * 160));
    assert!(at('1').marker && at('2').marker && at('s').marker && !at('b').marker);
    assert_eq!(sending.played(), 2);
}

#[test]
fn a_pause_between_keys_is_half_a_second() {
    let mut sending = sending(&stream());
    sending.press("1w2");
    let packets = ticks(&mut sending, 50);
    let begins: Vec<u32> = packets
        .iter()
        .filter(|(header, _)| header.payload_type == 101 && header.marker)
        .map(|(header, _)| header.timestamp)
        .collect();
    assert_eq!(begins[1].wrapping_sub(begins[0]), (8 + 25) * 160);
}

#[test]
fn on_hold_time_passes_and_nothing_else() {
    let mut sending = sending(&stream());
    sending.play(&[1; 160]);
    sending.press("5");
    sending.agree(&Stream { direction: Direction::Inactive, ..stream() });
    assert_eq!(ticks(&mut sending, 10), []);
    sending.agree(&stream());
    let packets = ticks(&mut sending, 9);
    assert_eq!(packets[0].0.timestamp, (u32::MAX - 400).wrapping_add(10 * 160));
    assert!(packets.iter().any(|(header, _)| header.payload_type == 101));
    assert_eq!((sending.played(), sending.waiting()), (1, 0));
}

#[test]
fn keys_without_events_are_refused() {
    let mut numbers = stream();
    numbers.send.event = None;
    assert!(!sending(&numbers).press("1"));
}

#[test]
fn another_law_drops_what_waits_and_is_silent_in_its_own_way() {
    let mut sending = sending(&stream());
    sending.play(&[1; 1_600]);
    sending.agree(&Stream { codec: Codec::Pcma, ..stream() });
    assert_eq!(payloads(&mut sending, 1), [0xD5; 160]);
    assert_eq!(sending.played(), 10, "its marks come back");
}

#[test]
fn keys_for_sealing_are_not_begun_anew_by_a_change_that_keeps_them() {
    let keys = SrtpKeys {
        suite: Suite::AesCm128HmacSha1_80,
        ours: Master::new([1; 30]),
        theirs: Master::new([2; 30]),
    };
    let sealed = Stream { srtp: Some(keys.clone()), ..stream() };
    let mut sending = sending(&sealed);
    let mut opening = Opening::new(keys.suite, &keys.ours);
    let mut outgoing = Outgoing::new();
    for tick in 0..40_000_u32 {
        if tick == 39_000 {
            sending.agree(&sealed);
        }
        sending.tick(0, &mut outgoing);
        if tick % 1_000 < 2 || tick > 32_765 && tick < 32_772 {
            let mut packet = outgoing.packets()[0].clone();
            opening.rtp(&mut packet, HEADER).unwrap_or_else(|e| panic!("tick {tick}: {e}"));
            assert_eq!(packet[HEADER..], [0xFF; 160]);
        }
    }
    let mut report = Vec::new();
    assert_eq!(sending.report(&mut report, "name", 0, None, true), Some(sealed.remote_rtcp));
    opening.rtcp(&mut report).unwrap();
    let heard = rtcp::read(&report, 0).unwrap();
    assert!(heard.goodbye && heard.report.is_some());
}

#[test]
fn ten_minutes_may_wait_and_no_more() {
    let mut sending = sending(&stream());
    for _ in 0..11 * 60 {
        sending.play(&[1; 8_000]);
    }
    assert_eq!(sending.waiting(), 30_000);
    sending.clear();
    assert_eq!((sending.waiting(), sending.played()), (0, 30_000));
}

proptest! {
    #[test]
    fn every_tick_is_twenty_milliseconds(
        orders in prop::collection::vec((0_u8..6, 0_usize..700, "[0-9w#x]{0,3}"), 1..60),
        ptime_ms in prop::sample::select(vec![10_u32, 20]),
    ) {
        let mut sending = sending(&Stream { ptime_ms, ..stream() });
        let (mut last, mut played) = (None, 0);
        for (order, bytes, digits) in orders {
            match order {
                0 | 1 => sending.play(&vec![1; bytes]),
                2 => drop(sending.press(&digits)),
                3 => sending.clear(),
                _ => {}
            }
            let before = sending.timestamp;
            for (header, payload) in ticks(&mut sending, 1) {
                prop_assert!(last.is_none_or(|last: u16| header.sequence == last.wrapping_add(1)));
                last = Some(header.sequence);
                let expected = if header.payload_type == 101 { 4 } else { 8 * ptime_ms as usize };
                prop_assert_eq!(payload.len(), expected);
            }
            prop_assert_eq!(sending.timestamp, before.wrapping_add(160));
            prop_assert!(sending.played() >= played);
            played = sending.played();
        }
    }
}
