//! Who may speak to the SIP port: packets of strangers, floods and monsters are dropped before anything parses them, without
//! an answer. It knows addresses, sizes and rates; of SIP only where lines end.

use super::trunk::{Network, TrunkId};
use rsipstack::platform::net::UdpSocket;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tokio::time::Instant;

/// The largest datagram that is read, bytes; larger ones are cut by the socket and dropped.
pub const MAX_DATAGRAM_BYTES: usize = 8 * 1024;
/// The most header lines of a message.
pub const MAX_HEADERS: usize = 100;
/// The largest description of a session, bytes.
pub const MAX_SDP_BYTES: usize = 16 * 1024;
/// Messages a second from one address, over a while.
pub const MESSAGES_PER_S: f64 = 2_000.0;
/// Messages at once from one address.
pub const MESSAGE_BURST: f64 = 4_000.0;
/// How many addresses are counted at once.
pub const MAX_SOURCES: usize = 10_000;
/// How long an address that a name led to is let in after the name leads elsewhere.
const LEARNED_FOR: Duration = Duration::from_secs(24 * 3600);

/// What the guard has turned away since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Packets and streams from addresses of no trunk.
    pub strangers: u64,
    /// Packets beyond the rate of their source.
    pub floods: u64,
    /// Packets that are too large, have too many lines, or are no text.
    pub monsters: u64,
}

/// The list at the door.
#[derive(Debug, Default)]
pub struct Guard {
    known: RwLock<Known>,
    rates: Mutex<HashMap<IpAddr, Bucket>>,
    strangers: AtomicU64,
    floods: AtomicU64,
    monsters: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    networks: Vec<(TrunkId, Network)>,
    /// Addresses that the names of trunks led to.
    learned: HashMap<IpAddr, Vec<(TrunkId, Instant)>>,
    /// Addresses that calls led us to: they are heard, but belong to no trunk, so that they can begin nothing.
    spoken_to: HashMap<IpAddr, Instant>,
}

/// A bucket of tokens: full at first, one taken by each packet, refilled with time.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Guard {
    /// Replaces the networks that may speak; addresses that were learned for trunks that are gone are forgotten.
    pub fn set_networks(&self, networks: Vec<(TrunkId, Network)>, trunks: &HashSet<TrunkId>) {
        let mut known = self.known.write().unwrap_or_else(|e| e.into_inner());
        known.networks = networks;
        for owners in known.learned.values_mut() {
            owners.retain(|(trunk, _)| trunks.contains(trunk));
        }
        known.learned.retain(|_, owners| !owners.is_empty());
    }

    /// Lets in an address that the name of a trunk leads to.
    pub fn learn(&self, trunk: &TrunkId, address: IpAddr) {
        let mut known = self.known.write().unwrap_or_else(|e| e.into_inner());
        let now = Instant::now();
        let owners = known.learned.entry(address.to_canonical()).or_default();
        owners.retain(|(owner, at)| owner != trunk && now.duration_since(*at) < LEARNED_FOR);
        owners.push((trunk.clone(), now));
    }

    /// Lets in answers, and requests inside calls, of an address that a call's far end has named.
    pub fn expect(&self, address: IpAddr) {
        let mut known = self.known.write().unwrap_or_else(|e| e.into_inner());
        let now = Instant::now();
        if known.spoken_to.len() >= MAX_SOURCES {
            known.spoken_to.retain(|_, at| now.duration_since(*at) < LEARNED_FOR);
        }
        if known.spoken_to.len() < MAX_SOURCES {
            known.spoken_to.insert(address.to_canonical(), now);
        }
    }

    /// The trunks whose requests may come from this address.
    pub fn trunks_at(&self, address: IpAddr) -> Vec<TrunkId> {
        let known = self.known.read().unwrap_or_else(|e| e.into_inner());
        let address = address.to_canonical();
        let listed = known.networks.iter().filter(|(_, n)| n.contains(address)).map(|(trunk, _)| trunk);
        let now = Instant::now();
        let learned = known.learned.get(&address).into_iter().flatten();
        let learned = learned.filter(|(_, at)| now.duration_since(*at) < LEARNED_FOR).map(|(trunk, _)| trunk);
        let mut trunks: Vec<TrunkId> = listed.chain(learned).cloned().collect();
        trunks.sort();
        trunks.dedup();
        trunks
    }

    /// Whether a stream from this address may open. The library asks this of every datagram again, so nothing is counted here.
    pub fn admits_stream(&self, from: IpAddr) -> bool {
        let known = self.knows(from.to_canonical());
        if !known {
            self.strangers.fetch_add(1, Ordering::Relaxed);
        }
        known
    }

    /// Whether a message from this address may be looked at now.
    pub fn admits_message(&self, from: IpAddr) -> bool {
        self.admits(from)
    }

    /// Whether a datagram may be read.
    pub fn admits_datagram(&self, from: IpAddr, datagram: &[u8]) -> bool {
        if !self.admits(from) {
            return false;
        }
        let fits = datagram.len() <= MAX_DATAGRAM_BYTES && looks_bearable(datagram);
        if !fits {
            self.monsters.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// What was turned away so far.
    pub fn dropped(&self) -> Dropped {
        Dropped {
            strangers: self.strangers.load(Ordering::Relaxed),
            floods: self.floods.load(Ordering::Relaxed),
            monsters: self.monsters.load(Ordering::Relaxed),
        }
    }

    fn admits(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        if !self.knows(from) {
            self.strangers.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let now = Instant::now();
        let mut rates = self.rates.lock().unwrap_or_else(|e| e.into_inner());
        if rates.len() >= MAX_SOURCES && !rates.contains_key(&from) {
            // Who was quiet long enough to be full again needs no counting.
            rates.retain(|_, bucket| now.duration_since(bucket.at) < Duration::from_secs(60));
            if rates.len() >= MAX_SOURCES {
                self.floods.fetch_add(1, Ordering::Relaxed);
                return false;
            }
        }
        let bucket = rates.entry(from).or_insert(Bucket { tokens: MESSAGE_BURST, at: now });
        let admitted = bucket.take(now, MESSAGES_PER_S, MESSAGE_BURST);
        if !admitted {
            self.floods.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    fn knows(&self, address: IpAddr) -> bool {
        let known = self.known.read().unwrap_or_else(|e| e.into_inner());
        let now = Instant::now();
        let recent = |at: &Instant| now.duration_since(*at) < LEARNED_FOR;
        known.networks.iter().any(|(_, network)| network.contains(address))
            || known.learned.get(&address).is_some_and(|owners| owners.iter().any(|(_, at)| recent(at)))
            || known.spoken_to.get(&address).is_some_and(recent)
    }
}

impl Bucket {
    fn take(&mut self, now: Instant, rate: f64, burst: f64) -> bool {
        let passed = now.duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(burst);
        self.at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// Whether bytes can be a SIP message, or an empty line that keeps a NAT open: few enough lines, and no zero byte among them.
pub fn looks_bearable(message: &[u8]) -> bool {
    let head = &message[..head_length(message)];
    head.iter().filter(|byte| **byte == b'\n').count() <= MAX_HEADERS + 1 && !head.contains(&0)
}

/// Makes the head of a message UTF-8 where it is not: the parser leaves out every line after one that is not, and a caller's
/// name in Latin-1 would hide the lines that say who is called.
pub fn make_readable(message: &mut [u8]) {
    let length = head_length(message);
    let mut rest = &mut message[..length];
    // What was read once is not read again: a message of nothing else costs no more than another.
    while let Err(wrong) = std::str::from_utf8(rest) {
        let at = wrong.valid_up_to();
        rest[at] = b'?';
        rest = &mut rest[at + 1..];
    }
}

fn head_length(message: &[u8]) -> usize {
    message.windows(4).position(|four| four == b"\r\n\r\n").map_or(message.len(), |at| at + 4)
}

/// A UDP socket that hears only who may speak.
pub struct GuardedSocket {
    socket: tokio::net::UdpSocket,
    guard: Arc<Guard>,
}

impl GuardedSocket {
    /// Puts the guard before a socket.
    pub fn new(socket: tokio::net::UdpSocket, guard: Arc<Guard>) -> Self {
        GuardedSocket { socket, guard }
    }
}

#[async_trait::async_trait]
impl UdpSocket for GuardedSocket {
    async fn recv_from(&self, buffer: &mut [u8]) -> rsipstack::Result<(usize, SocketAddr)> {
        loop {
            let (length, from) = match self.socket.recv_from(buffer).await {
                Ok(received) => received,
                // An ICMP answer to something we sent; the socket itself is well.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue,
                Err(error) => {
                    // The library asks again at once: a socket that always fails must not take a core.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    return Err(error.into());
                }
            };
            let Some(datagram) = buffer.get_mut(..length) else { continue };
            // A full buffer is a datagram that was cut.
            if length < MAX_DATAGRAM_BYTES && self.guard.admits_datagram(from.ip(), datagram) {
                make_readable(datagram);
                return Ok((length, from));
            }
        }
    }

    async fn send_to(&self, buffer: &[u8], to: SocketAddr) -> rsipstack::Result<usize> {
        Ok(self.socket.send_to(buffer, to).await?)
    }

    fn local_addr(&self) -> rsipstack::Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(networks: &[&str]) -> Guard {
        let guard = Guard::default();
        let trunk = TrunkId("con_1".into());
        let networks = networks.iter().map(|n| (trunk.clone(), n.parse().unwrap())).collect();
        guard.set_networks(networks, &HashSet::from([trunk]));
        guard
    }

    const OPTIONS: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nVia: x\r\n\r\n";

    #[tokio::test]
    async fn strangers_are_not_heard() {
        let guard = guard(&["203.0.113.0/24"]);
        assert!(guard.admits_datagram("203.0.113.7".parse().unwrap(), OPTIONS));
        assert!(!guard.admits_datagram("198.51.100.1".parse().unwrap(), OPTIONS));
        assert!(!guard.admits_stream("198.51.100.1".parse().unwrap()));
        assert_eq!(guard.dropped(), Dropped { strangers: 2, floods: 0, monsters: 0 });
        assert_eq!(guard.rates.lock().unwrap().len(), 1, "strangers take no memory");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_thinned_and_forgiven() {
        let guard = guard(&["203.0.113.7"]);
        let from = "203.0.113.7".parse().unwrap();
        let heard = (0..10_000).filter(|_| guard.admits_datagram(from, OPTIONS)).count();
        assert_eq!(heard, MESSAGE_BURST as usize);
        tokio::time::advance(Duration::from_secs(1)).await;
        let heard = (0..10_000).filter(|_| guard.admits_datagram(from, OPTIONS)).count();
        assert_eq!(heard, MESSAGES_PER_S as usize);
    }

    #[tokio::test]
    async fn monsters_are_not_parsed() {
        let guard = guard(&["203.0.113.7"]);
        let from = "203.0.113.7".parse().unwrap();
        let many = format!("OPTIONS sip:a SIP/2.0\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS + 1));
        assert!(!guard.admits_datagram(from, many.as_bytes()));
        assert!(!guard.admits_datagram(from, b"OPTIONS sip:\0 SIP/2.0\r\n\r\n"));
        let body_may_hold_anything = [OPTIONS, b"\0\n\n".repeat(200).as_slice()].concat();
        assert!(guard.admits_datagram(from, &body_may_hold_anything));
        assert_eq!(guard.dropped().monsters, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_s_addresses_are_let_in_for_a_day() {
        let guard = guard(&[]);
        let trunk = TrunkId("con_1".into());
        let from = "203.0.113.7".parse().unwrap();
        assert!(guard.trunks_at(from).is_empty());
        guard.learn(&trunk, from);
        assert_eq!(guard.trunks_at(from), std::slice::from_ref(&trunk));
        tokio::time::advance(LEARNED_FOR).await;
        assert!(guard.trunks_at(from).is_empty());
        guard.learn(&trunk, from);
        guard.set_networks(Vec::new(), &HashSet::new());
        assert!(!guard.admits_datagram(from, OPTIONS));
        // Who was only named by a call is heard, and is no trunk.
        guard.expect(from);
        assert!(guard.admits_datagram(from, OPTIONS) && guard.trunks_at(from).is_empty());
    }

    #[test]
    fn a_message_of_nothing_readable_is_gone_through_once() {
        // Each byte anew from the start would take an hour.
        let mut message = vec![0xff; 4 << 20];
        make_readable(&mut message);
        assert!(message.iter().all(|byte| *byte == b'?'));
    }

    #[test]
    fn a_name_in_latin_1_hides_no_other_line() {
        let mut message =
            b"INVITE sip:a SIP/2.0\r\nFrom: \"J\xfcrgen\" <sip:j@h>\r\nTo: x\r\n\r\n\xff\xfe".to_vec();
        make_readable(&mut message);
        assert_eq!(message, b"INVITE sip:a SIP/2.0\r\nFrom: \"J?rgen\" <sip:j@h>\r\nTo: x\r\n\r\n\xff\xfe");
    }
}
