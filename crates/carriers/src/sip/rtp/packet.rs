//! RTP packets (RFC 3550) and telephone events in them (RFC 4733), as bytes. It knows one packet at a time.

use std::ops::Range;

/// Bytes of a header without extras: the one that we send.
pub(super) const HEADER: usize = 12;
const VERSION: u8 = 2;
const MARKER: u8 = 0x80;
/// With RTP and RTCP on one port, second bytes of 192 to 223 are RTCP (RFC 5761 4).
const RTCP_TYPES: Range<u8> = 192..224;
/// Bytes of one event.
const EVENT: usize = 4;
/// Events that one packet may carry.
const MAX_EVENTS: usize = 8;
const EVENT_END: u8 = 0x80;
/// -10 dBm0, as loud as a telephone's keys are.
const EVENT_VOLUME: u8 = 10;
const KEYS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];

/// The fixed part of a packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
}

impl Header {
    /// Replaces `packet` by a header.
    pub fn write(self, packet: &mut Vec<u8>) {
        packet.clear();
        packet.push(VERSION << 6);
        packet.push(self.payload_type | if self.marker { MARKER } else { 0 });
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&self.timestamp.to_be_bytes());
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
    }

    /// Reads a header; with it, where the payload begins. Padding is taken off by [`payload`], once the packet is opened.
    pub fn read(packet: &[u8]) -> Option<(Header, usize)> {
        let fixed: &[u8; HEADER] = packet.first_chunk()?;
        if fixed[0] >> 6 != VERSION {
            return None;
        }
        let mut start = HEADER + 4 * usize::from(fixed[0] & 0x0F);
        if fixed[0] & 0x10 != 0 {
            let extension: &[u8; 4] = packet.get(start..)?.first_chunk()?;
            start += 4 + 4 * usize::from(u16::from_be_bytes([extension[2], extension[3]]));
        }
        let header = Header {
            marker: fixed[1] & MARKER != 0,
            payload_type: fixed[1] & !MARKER,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
        };
        (start <= packet.len()).then_some((header, start))
    }
}

/// The payload of an opened packet that begins at `start`, without padding.
pub(super) fn payload(packet: &[u8], start: usize) -> Option<&[u8]> {
    let padding = if packet.first()? & 0x20 != 0 { usize::from(*packet.last()?) } else { 0 };
    packet.get(start..packet.len().checked_sub(padding)?)
}

/// Whether a packet on a shared port is RTCP.
pub(super) fn is_rtcp(packet: &[u8]) -> bool {
    packet.get(1).is_some_and(|kind| RTCP_TYPES.contains(kind))
}

/// A key that is being pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Its number.
    pub code: u8,
    /// It is over.
    pub end: bool,
    /// How long it is, in timestamps.
    pub duration: u16,
}

impl Event {
    /// The number of a key.
    pub fn code(key: char) -> Option<u8> {
        KEYS.iter().position(|known| *known == key.to_ascii_uppercase()).map(|code| code as u8)
    }

    /// The key of this number, if it is one.
    pub fn key(self) -> Option<char> {
        KEYS.get(usize::from(self.code)).copied()
    }

    /// Appends it to a packet.
    pub fn write(self, packet: &mut Vec<u8>) {
        let end = if self.end { EVENT_END } else { 0 };
        packet.extend_from_slice(&[self.code, EVENT_VOLUME | end]);
        packet.extend_from_slice(&self.duration.to_be_bytes());
    }

    /// Reads all of a payload.
    pub fn read_all(payload: &[u8]) -> impl Iterator<Item = Event> {
        let event = |bytes: &[u8; EVENT]| Event {
            code: bytes[0],
            end: bytes[1] & EVENT_END != 0,
            duration: u16::from_be_bytes([bytes[2], bytes[3]]),
        };
        payload.as_chunks::<EVENT>().0.iter().take(MAX_EVENTS).map(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn extras_of_a_header_are_skipped() {
        let mut packet = vec![0xB2, 0x80, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        packet.extend([9; 8]);
        packet.extend([0xBE, 0xDE, 0, 1, 7, 7, 7, 7]);
        packet.extend([1, 2, 3, 0, 0, 3]);
        let (header, start) = Header::read(&packet).unwrap();
        assert_eq!((header.marker, header.payload_type, header.sequence), (true, 0, 1));
        assert_eq!(payload(&packet, start), Some(&[1, 2, 3][..]));
        for length in 0..28 {
            assert_eq!(Header::read(&packet[..length]), None, "{length}");
        }
        packet[33] = 40;
        assert_eq!(payload(&packet, start), None, "more padding than packet");
    }

    #[test]
    fn every_key_has_its_number() {
        for (code, key) in "0123456789*#ABCD".chars().enumerate() {
            assert_eq!(Event::code(key), Some(code as u8));
            assert_eq!(Event { code: code as u8, end: false, duration: 0 }.key(), Some(key));
        }
        assert_eq!((Event::code('d'), Event::code('x')), (Some(15), None));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            marker: bool, payload_type in 0_u8..128, sequence: u16, timestamp: u32, ssrc: u32,
            code: u8, end: bool, duration: u16,
        ) {
            let header = Header { marker, payload_type, sequence, timestamp, ssrc };
            let event = Event { code, end, duration };
            let mut packet = Vec::new();
            header.write(&mut packet);
            event.write(&mut packet);
            prop_assert_eq!(Header::read(&packet), Some((header, HEADER)));
            let read: Vec<_> = Event::read_all(payload(&packet, HEADER).unwrap()).collect();
            prop_assert_eq!(read, [event]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some((_, start)) = Header::read(&packet) {
                let _ = payload(&packet, start).map(|payload| Event::read_all(payload).count());
            }
        }
    }
}
