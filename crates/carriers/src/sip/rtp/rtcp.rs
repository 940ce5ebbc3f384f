//! RTCP (RFC 3550 6): the reports that both ends send about every 5 s, and the goodbye. It knows bytes and arithmetic, not when.

const VERSION: u8 = 2;
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const CNAME: u8 = 1;
const BLOCK: usize = 24;
/// Packets that one compound may have.
const MAX_PACKETS: usize = 16;

/// What we tell about what we send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub packets: u32,
    pub octets: u32,
    /// The RTP timestamp of this moment.
    pub timestamp: u32,
}

/// What we tell about what we hear of a source, or are told about what it hears of us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    pub ssrc: u32,
    /// Of 256, since the last report.
    pub fraction_lost: u8,
    /// Since the beginning; below zero where packets came twice.
    pub lost: i32,
    pub highest_sequence: u32,
    /// In timestamps.
    pub jitter: u32,
    /// The middle of the NTP time of the last sender report.
    pub last_report: u32,
    /// Since then, in 1/65,536 s.
    pub since_last_report: u32,
}

/// What a compound packet says, as far as we use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The middle of the NTP time of a sender report.
    pub report: Option<u32>,
    /// The block about us.
    pub block: Option<Block>,
    pub goodbye: bool,
}

/// A time of ours as NTP's 32.32 bits: seconds since we started, as RFC 3550 6.4.1 allows those without a wall clock.
pub(super) const fn ntp(at_us: u64) -> u64 {
    ((at_us / 1_000_000) << 32) | (((at_us % 1_000_000) << 32) / 1_000_000)
}

/// The middle 32 bits of an NTP time, in 1/65,536 s.
pub(super) const fn middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// Replaces `packet` by a compound of a report, our name, and the goodbye if it is one.
pub(super) fn write(
    packet: &mut Vec<u8>,
    ssrc: u32,
    name: &str,
    at_us: u64,
    sent: Option<Sent>,
    block: Option<Block>,
    goodbye: bool,
) {
    packet.clear();
    let kind = if sent.is_some() { SENDER_REPORT } else { RECEIVER_REPORT };
    let start = begin(packet, u8::from(block.is_some()), kind);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    if let Some(sent) = sent {
        packet.extend_from_slice(&ntp(at_us).to_be_bytes());
        for word in [sent.timestamp, sent.packets, sent.octets] {
            packet.extend_from_slice(&word.to_be_bytes());
        }
    }
    if let Some(block) = block {
        let lost = block.lost.clamp(-0x80_0000, 0x7F_FFFF) as u32 & 0xFF_FFFF;
        let loss = u32::from(block.fraction_lost) << 24 | lost;
        let words = [block.ssrc, loss, block.highest_sequence, block.jitter];
        for word in words.into_iter().chain([block.last_report, block.since_last_report]) {
            packet.extend_from_slice(&word.to_be_bytes());
        }
    }
    end(packet, start);
    let start = begin(packet, 1, DESCRIPTION);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    let name = &name.as_bytes()[..name.len().min(255)];
    packet.extend_from_slice(&[CNAME, name.len() as u8]);
    packet.extend_from_slice(name);
    // The list of items ends with at least one zero, and on a whole word.
    packet.push(0);
    packet.resize(start + (packet.len() - start).next_multiple_of(4), 0);
    end(packet, start);
    if goodbye {
        let start = begin(packet, 1, GOODBYE);
        packet.extend_from_slice(&ssrc.to_be_bytes());
        end(packet, start);
    }
}

fn begin(packet: &mut Vec<u8>, count: u8, kind: u8) -> usize {
    packet.extend_from_slice(&[VERSION << 6 | count, kind, 0, 0]);
    packet.len() - 4
}

fn end(packet: &mut [u8], start: usize) {
    let words = ((packet.len() - start) / 4 - 1) as u16;
    packet[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

/// Reads an opened compound packet; `ours` is the SSRC that blocks about us name. `None`: it is none.
pub(super) fn read(compound: &[u8], ours: u32) -> Option<Heard> {
    let mut heard = Heard::default();
    let mut rest = compound;
    for place in 0..MAX_PACKETS {
        let Some(head) = rest.first_chunk::<4>() else { break };
        let length = 4 * (usize::from(u16::from_be_bytes([head[2], head[3]])) + 1);
        if head[0] >> 6 != VERSION || length > rest.len() {
            // Others may pad as they like; the first packet must be whole, or it is no RTCP.
            return (place > 0).then_some(heard);
        }
        let (packet, after) = rest.split_at(length);
        let words: Vec<u32> =
            packet.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word)).collect();
        let count = usize::from(head[0] & 0x1F);
        match head[1] {
            SENDER_REPORT => {
                heard.report = words.get(2..4).map(|ntp| ntp[0] << 16 | ntp[1] >> 16).or(heard.report);
                heard.block = block(&words, 7, count, ours).or(heard.block);
            }
            RECEIVER_REPORT => heard.block = block(&words, 2, count, ours).or(heard.block),
            GOODBYE => heard.goodbye = true,
            _ => {}
        }
        rest = after;
    }
    (rest.len() < compound.len()).then_some(heard)
}

fn block(words: &[u32], start: usize, count: usize, ours: u32) -> Option<Block> {
    let blocks = words.get(start..)?.chunks_exact(BLOCK / 4).take(count);
    blocks.into_iter().find(|block| block[0] == ours).map(|block| Block {
        ssrc: block[0],
        fraction_lost: (block[1] >> 24) as u8,
        lost: ((block[1] << 8) as i32) >> 8,
        highest_sequence: block[2],
        jitter: block[3],
        last_report: block[4],
        since_last_report: block[5],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_compound_says_what_was_written() {
        let sent = Sent { packets: 3, octets: 480, timestamp: 77 };
        let block = Block {
            ssrc: 5,
            fraction_lost: 128,
            lost: -2,
            highest_sequence: 65_540,
            jitter: 9,
            last_report: 10,
            since_last_report: 11,
        };
        for (name, goodbye) in [("a", false), ("ab", true), ("abc", true), ("abcd", false)] {
            let mut packet = Vec::new();
            write(&mut packet, 7, name, 2_500_000, Some(sent), Some(block), goodbye);
            assert_eq!(packet.len() % 4, 0);
            let expected = Heard { report: Some(2 << 16 | 1 << 15), block: Some(block), goodbye };
            assert_eq!(read(&packet, 5), Some(expected));
            assert_eq!(read(&packet, 6).unwrap().block, None, "it is about somebody else");
            write(&mut packet, 7, name, 2_500_000, None, Some(block), goodbye);
            assert_eq!(read(&packet, 5), Some(Heard { report: None, ..expected }));
            write(&mut packet, 7, name, 0, None, None, goodbye);
            assert_eq!(packet[..8], [0x80, 201, 0, 1, 0, 0, 0, 7]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), ours: u32) {
            let _ = read(&bytes, ours);
        }

        #[test]
        fn any_report_with_a_good_head_is_read(mut bytes in prop::collection::vec(any::<u8>(), 4..200), kind in 200_u8..205) {
            let words = (bytes.len() / 4 - 1) as u8;
            let head = [0x80 | bytes[0] & 0x1F, kind, 0, words];
            bytes[..4].copy_from_slice(&head);
            prop_assert!(read(&bytes, 1).is_some());
        }
    }
}
