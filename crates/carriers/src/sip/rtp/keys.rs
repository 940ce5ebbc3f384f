//! Keys that come as telephone events (RFC 4733): which of their many packets is a press. It knows timestamps, not time.

use super::packet::Event;
use std::collections::VecDeque;

/// Presses that are remembered, so that packets which repeat or come late are known again.
const REMEMBERED: usize = 8;

/// The keys of one source.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    /// Timestamps of presses, the newest last.
    seen: VecDeque<u32>,
    /// The press that may go on in another segment.
    last: Option<Last>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    code: u8,
    timestamp: u32,
    duration: u16,
    ended: bool,
}

impl Keys {
    /// Takes the payload of a packet and appends the keys that it begins.
    pub fn packet(&mut self, marker: bool, mut timestamp: u32, payload: &[u8], pressed: &mut Vec<char>) {
        for event in Event::read_all(payload) {
            if let Some(key) = event.key()
                && self.is_new(marker, timestamp, event)
            {
                pressed.push(key);
            }
            timestamp = timestamp.wrapping_add(u32::from(event.duration));
        }
    }

    /// One press for each timestamp, whether its beginning or only its end came.
    fn is_new(&mut self, marker: bool, timestamp: u32, event: Event) -> bool {
        if self.seen.contains(&timestamp) {
            if let Some(last) = self.last.as_mut().filter(|last| last.timestamp == timestamp) {
                last.duration = last.duration.max(event.duration);
                last.ended |= event.end;
            }
            return false;
        }
        // A key held for longer than a duration can say goes on as another segment (RFC 4733 2.5.1.3).
        let goes_on = self.last.is_some_and(|last| {
            let end = last.timestamp.wrapping_add(u32::from(last.duration));
            !last.ended && last.duration == u16::MAX && last.code == event.code && end == timestamp && !marker
        });
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back(timestamp);
        self.last = Some(Last { code: event.code, timestamp, duration: event.duration, ended: event.end });
        !goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets: marker, timestamp, key, end, duration.
    fn pressed(packets: &[(bool, u32, char, bool, u16)]) -> String {
        let mut keys = Keys::default();
        let mut out = Vec::new();
        for (marker, timestamp, key, end, duration) in packets {
            let mut payload = Vec::new();
            Event { code: Event::code(*key).unwrap(), end: *end, duration: *duration }.write(&mut payload);
            keys.packet(*marker, *timestamp, &payload, &mut out);
        }
        out.into_iter().collect()
    }

    const FIVE: [(bool, u32, char, bool, u16); 7] = [
        (true, 1_000, '5', false, 160),
        (false, 1_000, '5', false, 320),
        (false, 1_000, '5', false, 480),
        (false, 1_000, '5', false, 640),
        (false, 1_000, '5', true, 800),
        (false, 1_000, '5', true, 800),
        (false, 1_000, '5', true, 800),
    ];

    #[test]
    fn any_part_of_a_press_is_one_press() {
        for kept in 1_u32..128 {
            let some: Vec<_> = (0..7).filter(|n| kept >> n & 1 == 1).map(|n| FIVE[n]).collect();
            assert_eq!(pressed(&some), "5", "{some:?}");
            let twice: Vec<_> = some.iter().flat_map(|packet| [*packet; 2]).collect();
            assert_eq!(pressed(&twice), "5");
        }
    }

    #[test]
    fn the_same_key_twice_is_two_presses_even_if_the_first_has_no_end() {
        let again = FIVE.map(|(marker, at, key, end, duration)| (marker, at + 2_000, key, end, duration));
        assert_eq!(pressed(&[&FIVE[..3], &again[..]].concat()), "55");
    }

    #[test]
    fn late_ends_of_earlier_keys_press_nothing() {
        let six = (true, 3_000, '6', false, 160);
        let seven = (true, 5_000, '7', false, 160);
        assert_eq!(pressed(&[FIVE[0], six, FIVE[5], seven, FIVE[6], (false, 3_000, '6', true, 800)]), "567");
    }

    #[test]
    fn a_key_that_is_held_for_long_is_one_press() {
        let long = [
            (true, 0, '#', false, u16::MAX),
            (false, 65_535, '#', false, 160),
            (false, 65_535, '#', true, 800),
        ];
        assert_eq!(pressed(&long), "#");
        assert_eq!(pressed(&[long[0], (true, 65_535, '#', false, 160)]), "##");
    }

    #[test]
    fn several_events_in_one_packet_are_several_presses() {
        let mut payload = Vec::new();
        for code in [1, 2, 16, 3] {
            Event { code, end: true, duration: 800 }.write(&mut payload);
        }
        let mut out = Vec::new();
        Keys::default().packet(true, 0, &payload, &mut out);
        assert_eq!(out, ['1', '2', '3'], "16 is a flash, which is no key");
    }
}
