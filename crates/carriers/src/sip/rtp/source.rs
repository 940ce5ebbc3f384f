//! Where the other end really is: symmetric RTP, guarded. It decides for each packet whether it is believed, and where to
//! send to; it knows addresses and times, not sound.

use std::net::{IpAddr, SocketAddr};

/// Packets of one SSRC that a new address must show before it is believed.
const PROOF: u32 = 3;
/// When nothing has come for so long, the other end may have moved.
const LOSS_US: u64 = 2_000_000;

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
    pub fn allows(&self, from: IpAddr) -> bool {
        self.networks.as_ref().is_none_or(|networks| networks.iter().any(|network| contains(network, from)))
    }
}

fn contains((address, prefix): &(IpAddr, u8), other: IpAddr) -> bool {
    let bits = |ip| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let differ = bits(*address) ^ bits(other);
    address.is_ipv4() == other.is_ipv4() && u32::from(*prefix) <= differ.leading_zeros()
}

/// The other end's address as it is learned.
#[derive(Clone, Debug)]
pub(super) struct Source {
    filter: SourceFilter,
    signalled: SocketAddr,
    latched: Option<SocketAddr>,
    /// When a packet was last believed, µs.
    believed_us: u64,
    /// Soon after the signalling named an address, whoever proves to be there is believed.
    movable_until_us: u64,
    candidate: Option<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    address: SocketAddr,
    ssrc: u32,
    seen: u32,
}

impl Source {
    pub fn new(signalled: SocketAddr, filter: SourceFilter) -> Source {
        Source { filter, signalled, latched: None, believed_us: 0, movable_until_us: 0, candidate: None }
    }

    /// The signalling named an address again, perhaps the same.
    pub fn signal(&mut self, now_us: u64, signalled: SocketAddr) {
        if self.signalled != signalled {
            self.latched = None;
        }
        self.signalled = signalled;
        self.movable_until_us = now_us + LOSS_US;
        self.candidate = None;
    }

    /// Where to send to.
    pub fn target(&self) -> SocketAddr {
        self.latched.unwrap_or(self.signalled)
    }

    /// Whether a packet may be looked at at all: cheap, before anything is decrypted.
    pub fn may_come_from(&self, from: SocketAddr) -> bool {
        from.ip() == self.signalled.ip() || self.filter.allows(from.ip())
    }

    /// Whether an authentic packet from an allowed address is believed.
    pub fn believes(&mut self, now_us: u64, from: SocketAddr, ssrc: u32) -> bool {
        let is_lost = now_us.saturating_sub(self.believed_us) >= LOSS_US;
        let expected = match self.latched {
            Some(latched) => from == latched,
            None => from == self.signalled,
        };
        let may_move = self.latched.is_none() || is_lost || now_us < self.movable_until_us;
        if expected || may_move && self.is_proven(from, ssrc) {
            if !expected {
                self.movable_until_us = 0;
            }
            if !expected || is_lost {
                self.candidate = None;
            }
            self.latched = Some(from);
            self.believed_us = now_us;
            return true;
        }
        false
    }

    fn is_proven(&mut self, address: SocketAddr, ssrc: u32) -> bool {
        let seen = match self.candidate {
            Some(known) if (known.address, known.ssrc) == (address, ssrc) => known.seen + 1,
            _ => 1,
        };
        self.candidate = Some(Candidate { address, ssrc, seen });
        seen >= PROOF
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn source() -> Source {
        Source::new(at("192.0.2.1:4000"), SourceFilter::only([("198.51.100.0".parse().unwrap(), 24)]))
    }

    #[test]
    fn networks_contain_their_addresses() {
        let filter = SourceFilter::only([
            ("168.86.128.0".parse().unwrap(), 18),
            ("2001:db8::".parse().unwrap(), 32),
            ("192.0.2.9".parse().unwrap(), 32),
        ]);
        let cases = [
            ("168.86.150.20", true),
            ("168.86.192.1", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
            ("192.0.2.9", true),
            ("192.0.2.8", false),
            ("::", false),
        ];
        for (address, allowed) in cases {
            assert_eq!(filter.allows(address.parse().unwrap()), allowed, "{address}");
        }
        assert!(SourceFilter::anybody().allows("203.0.113.1".parse().unwrap()));
        assert!(!SourceFilter::only([]).allows("203.0.113.1".parse().unwrap()));
        assert!(SourceFilter::only([("0.0.0.0".parse().unwrap(), 0)]).allows("203.0.113.1".parse().unwrap()));
    }

    #[test]
    fn the_signalled_address_is_believed_at_once() {
        let mut source = source();
        assert!(source.believes(0, at("192.0.2.1:4000"), 1));
        assert_eq!(source.target(), at("192.0.2.1:4000"));
    }

    #[test]
    fn another_address_is_believed_at_its_third_packet() {
        let mut source = source();
        let nat = at("198.51.100.7:61000");
        assert!(source.may_come_from(nat) && !source.may_come_from(at("203.0.113.9:4000")));
        assert!(!source.believes(0, nat, 1));
        assert!(!source.believes(20_000, nat, 2), "another SSRC begins to count anew");
        assert!(!source.believes(40_000, nat, 2));
        assert_eq!(source.target(), at("192.0.2.1:4000"));
        assert!(source.believes(60_000, nat, 2));
        assert_eq!(source.target(), nat);
    }

    #[test]
    fn nobody_takes_over_a_line_that_is_heard() {
        let mut source = source();
        let (there, thief) = (at("192.0.2.1:4000"), at("198.51.100.66:9"));
        for packet in 0..500 {
            assert!(source.believes(packet * 20_000, there, 1));
            assert!(!source.believes(packet * 20_000, thief, 1));
        }
        assert_eq!(source.target(), there);
    }

    #[test]
    fn after_two_seconds_of_loss_or_a_new_agreement_the_source_may_move() {
        for signalled in [false, true] {
            let mut source = source();
            source.believes(0, at("192.0.2.1:4000"), 1);
            let moved = at("198.51.100.7:5000");
            for packet in 0..5 {
                assert!(!source.believes(packet * 20_000, moved, 1));
            }
            let start = if signalled {
                source.signal(100_000, at("192.0.2.1:4000"));
                100_000
            } else {
                2_000_000
            };
            let believed: Vec<bool> = (0..4).map(|n| source.believes(start + n * 20_000, moved, 1)).collect();
            assert_eq!(believed, [false, false, true, true]);
            assert_eq!(source.target(), moved);
        }
    }

    #[test]
    fn a_new_signalled_address_is_sent_to_at_once() {
        let mut source = source();
        source.believes(0, at("192.0.2.1:4000"), 1);
        source.signal(20_000, at("192.0.2.50:6000"));
        assert_eq!(source.target(), at("192.0.2.50:6000"));
    }
}
