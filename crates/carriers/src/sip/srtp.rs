//! SRTP with keys from the signalling (RFC 3711, RFC 4568, RFC 7714): packets are sealed and opened in place. It knows no
//! socket; which sources are believed at all is decided elsewhere.

use aes::Aes128;
use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{Aes128Gcm, Nonce};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig as Config};
use ctr::cipher::{InnerIvInit, KeyInit, StreamCipher};
use ctr::{Ctr128BE, CtrCore};
use hmac::{Hmac, Mac};
use offhook_core::Secret;
use sha1::Sha1;

/// Bytes of a master key and of the longer of the two salts.
const MASTER_BYTES: usize = 30;
const KEY_BYTES: usize = 16;
const AUTH_KEY_BYTES: usize = 20;
/// The longest tag; what sealing adds to RTP at most.
pub const MAX_TAG_BYTES: usize = 16;
/// Where the encrypted part of an RTCP packet begins.
const RTCP_HEADER: usize = 8;
const RTCP_INDEX_BYTES: usize = 4;
const RTCP_ENCRYPTED: u32 = 1 << 31;
/// Sources of one stream that are remembered against replay; the oldest goes when there are more.
const MAX_SOURCES: usize = 8;
/// Some write base64 without its padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT_CONFIG);
const LENIENT_CONFIG: Config =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// How packets are encrypted and authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES in counter mode, HMAC-SHA1 with a tag of 80 bits.
    AesCm128HmacSha1_80,
    /// The same with a tag of 32 bits on RTP, and 80 on RTCP.
    AesCm128HmacSha1_32,
    /// AES-GCM (RFC 7714).
    AeadAes128Gcm,
}

impl Suite {
    const ALL: [Suite; 3] = [Suite::AesCm128HmacSha1_80, Suite::AesCm128HmacSha1_32, Suite::AeadAes128Gcm];

    /// Reads the name in an `a=crypto` line.
    pub fn read(name: &str) -> Option<Suite> {
        Suite::ALL.into_iter().find(|suite| suite.name() == name)
    }

    /// The name in an `a=crypto` line.
    pub const fn name(self) -> &'static str {
        match self {
            Suite::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Suite::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Suite::AeadAes128Gcm => "AEAD_AES_128_GCM",
        }
    }

    const fn master_bytes(self) -> usize {
        match self {
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => MASTER_BYTES,
            Suite::AeadAes128Gcm => 28,
        }
    }

    const fn tag_bytes(self, labels: Labels) -> usize {
        match (self, labels) {
            (Suite::AesCm128HmacSha1_32, Labels::Rtp) => 4,
            (Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32, _) => 10,
            (Suite::AeadAes128Gcm, _) => MAX_TAG_BYTES,
        }
    }
}

/// A master key with its salt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master(Secret<[u8; MASTER_BYTES]>);

impl Master {
    /// A key of ours, from chance.
    pub const fn new(bytes: [u8; MASTER_BYTES]) -> Master {
        Master(Secret::new(bytes))
    }

    /// Reads the base64 of an `a=crypto` line; `None` if its length is not the suite's.
    pub fn read(suite: Suite, text: &str) -> Option<Master> {
        let read = LENIENT.decode(text).ok().filter(|bytes| bytes.len() == suite.master_bytes())?;
        let mut bytes = [0; MASTER_BYTES];
        bytes[..read.len()].copy_from_slice(&read);
        Some(Master::new(bytes))
    }

    /// The base64 of an `a=crypto` line.
    pub fn write(&self, suite: Suite) -> String {
        STANDARD.encode(&self.0.expose()[..suite.master_bytes()])
    }
}

/// What both ends encrypt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrtpKeys {
    /// How.
    pub suite: Suite,
    /// The key of what we send.
    pub ours: Master,
    /// The key of what we receive.
    pub theirs: Master,
}

/// Why a packet is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// The keys are not the same on both ends, or somebody else sent it.
    #[error("the packet is not authentic")]
    NotAuthentic,
    /// It came before, or is too old to tell.
    #[error("the packet came twice")]
    Replayed,
    /// It is too short to be one.
    #[error("the packet is too short")]
    TooShort,
}

/// What session keys are derived for (RFC 3711 4.3.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Labels {
    Rtp = 0,
    Rtcp = 3,
}

/// The session keys of one kind of packets, one way.
enum Keys {
    Cm { aes: Aes128, salt: [u8; 14], mac: Hmac<Sha1>, tag_bytes: usize },
    Gcm { gcm: Aes128Gcm, salt: [u8; 12] },
}

impl Keys {
    fn derive(suite: Suite, master: &Master, labels: Labels) -> Keys {
        let mut master = *master.0.expose();
        // RFC 7714 11: a salt of 12 bytes is followed by zeros.
        master[suite.master_bytes()..].fill(0);
        let [key, auth, salt] = [0, 1, 2].map(|offset| derive(&master, labels as u8 + offset));
        let key: [u8; KEY_BYTES] = std::array::from_fn(|i| key[i]);
        Keys::new(suite, labels, key, &auth, &salt)
    }

    fn new(
        suite: Suite,
        labels: Labels,
        key: [u8; KEY_BYTES],
        auth: &[u8; AUTH_KEY_BYTES],
        salt: &[u8],
    ) -> Keys {
        match suite {
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => Keys::Cm {
                aes: Aes128::new(&key.into()),
                salt: std::array::from_fn(|i| salt[i]),
                mac: Hmac::new_from_slice(auth).expect("HMAC takes a key of any length"),
                tag_bytes: suite.tag_bytes(labels),
            },
            Suite::AeadAes128Gcm => {
                Keys::Gcm { gcm: Aes128Gcm::new(&key.into()), salt: std::array::from_fn(|i| salt[i]) }
            }
        }
    }
}

/// The first bytes of the key stream of one label.
fn derive(master: &[u8; MASTER_BYTES], label: u8) -> [u8; AUTH_KEY_BYTES] {
    let aes = Aes128::new_from_slice(&master[..KEY_BYTES]).expect("it is 16 bytes");
    let mut salt: [u8; 14] = std::array::from_fn(|i| master[KEY_BYTES + i]);
    salt[7] ^= label;
    let mut derived = [0; AUTH_KEY_BYTES];
    counter_mode(&aes, &salt, 0, 0, &mut derived);
    derived
}

/// RFC 3711 4.1.1.
fn counter_mode(aes: &Aes128, salt: &[u8; 14], ssrc: u32, index: u64, data: &mut [u8]) {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(salt);
    let parts = ssrc.to_be_bytes().into_iter().chain(index.to_be_bytes().into_iter().skip(2));
    iv[4..14].iter_mut().zip(parts).for_each(|(byte, part)| *byte ^= part);
    Ctr128BE::from_core(CtrCore::inner_iv_init(aes, &iv.into())).apply_keystream(data);
}

/// RFC 7714 8.1 and 9.1: both kinds of packets have their index in the last six bytes.
fn gcm_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> [u8; 12] {
    let mut nonce = *salt;
    let parts = ssrc.to_be_bytes().into_iter().chain(index.to_be_bytes().into_iter().skip(2));
    nonce[2..].iter_mut().zip(parts).for_each(|(byte, part)| *byte ^= part);
    nonce
}

/// Seals what we send: one for each stream, fed with its packets in order.
pub struct Sealing {
    rtp: Keys,
    rtcp: Keys,
    rollover: u32,
    last_sequence: Option<u16>,
    rtcp_index: u32,
}

impl Sealing {
    /// A stream that begins.
    pub fn new(suite: Suite, master: &Master) -> Sealing {
        Sealing {
            rtp: Keys::derive(suite, master, Labels::Rtp),
            rtcp: Keys::derive(suite, master, Labels::Rtcp),
            rollover: 0,
            last_sequence: None,
            rtcp_index: 0,
        }
    }

    /// Seals an RTP packet whose payload begins at `header`, growing it by [`MAX_TAG_BYTES`] at most.
    pub fn rtp(&mut self, packet: &mut Vec<u8>, header: usize) {
        let (sequence, ssrc) = (u16_at(packet, 2), u32_at(packet, 8));
        if self.last_sequence.is_some_and(|last| last > sequence) {
            self.rollover = self.rollover.wrapping_add(1);
        }
        self.last_sequence = Some(sequence);
        let index = u64::from(self.rollover) << 16 | u64::from(sequence);
        match &self.rtp {
            Keys::Cm { aes, salt, mac, tag_bytes } => {
                counter_mode(aes, salt, ssrc, index, &mut packet[header..]);
                let tag = mac.clone().chain_update(&packet).chain_update(self.rollover.to_be_bytes());
                packet.extend_from_slice(&tag.finalize().into_bytes()[..*tag_bytes]);
            }
            Keys::Gcm { gcm, salt } => {
                let nonce = Nonce::from(gcm_nonce(salt, ssrc, index));
                let (head, payload) = packet.split_at_mut(header);
                let tag = gcm.encrypt_inout_detached(&nonce, head, InOutBuf::from(payload));
                packet.extend_from_slice(&tag.expect("a packet is far below the cipher's limit"));
            }
        }
    }

    /// Seals a compound RTCP packet.
    pub fn rtcp(&mut self, packet: &mut Vec<u8>) {
        let ssrc = u32_at(packet, 4);
        self.rtcp_index = (self.rtcp_index + 1) & !RTCP_ENCRYPTED;
        let index = u64::from(self.rtcp_index);
        let trailer = (self.rtcp_index | RTCP_ENCRYPTED).to_be_bytes();
        match &self.rtcp {
            Keys::Cm { aes, salt, mac, tag_bytes } => {
                counter_mode(aes, salt, ssrc, index, &mut packet[RTCP_HEADER..]);
                packet.extend_from_slice(&trailer);
                let tag = mac.clone().chain_update(&packet).finalize().into_bytes();
                packet.extend_from_slice(&tag[..*tag_bytes]);
            }
            Keys::Gcm { gcm, salt } => {
                let nonce = Nonce::from(gcm_nonce(salt, ssrc, index));
                let (head, rest) = packet.split_at_mut(RTCP_HEADER);
                let associated = rtcp_associated(head, trailer);
                let tag = gcm.encrypt_inout_detached(&nonce, &associated, InOutBuf::from(rest));
                packet.extend_from_slice(&tag.expect("a packet is far below the cipher's limit"));
                packet.extend_from_slice(&trailer);
            }
        }
    }
}

/// Opens what we receive.
pub struct Opening {
    suite: Suite,
    rtp: Keys,
    rtcp: Keys,
    sources: Vec<Source>,
    rtcp_sources: Vec<(u32, Window)>,
}

/// What is known of one sender.
#[derive(Clone, Copy, Debug)]
struct Source {
    ssrc: u32,
    window: Window,
}

/// The highest index that was opened, and which of those below it were.
#[derive(Clone, Copy, Debug)]
struct Window {
    highest: u64,
    seen: u128,
}

impl Window {
    const fn new(index: u64) -> Window {
        Window { highest: index, seen: 1 }
    }

    fn is_new(&self, index: u64) -> bool {
        match self.highest.checked_sub(index) {
            None => true,
            Some(age) => age < u64::from(u128::BITS) && self.seen >> age & 1 == 0,
        }
    }

    fn note(&mut self, index: u64) {
        if let Some(ahead) = index.checked_sub(self.highest).filter(|ahead| *ahead > 0) {
            self.seen = u32::try_from(ahead).ok().and_then(|by| self.seen.checked_shl(by)).unwrap_or(0) | 1;
            self.highest = index;
        } else {
            self.seen |= 1_u128.checked_shl((self.highest - index) as u32).unwrap_or(0);
        }
    }
}

impl Opening {
    /// A stream that begins.
    pub fn new(suite: Suite, master: &Master) -> Opening {
        Opening {
            suite,
            rtp: Keys::derive(suite, master, Labels::Rtp),
            rtcp: Keys::derive(suite, master, Labels::Rtcp),
            sources: Vec::new(),
            rtcp_sources: Vec::new(),
        }
    }

    /// Opens an RTP packet whose payload begins at `header` (checked by its reader), and takes the tag off.
    ///
    /// # Errors
    /// When it is not authentic, or came before.
    pub fn rtp(&mut self, packet: &mut Vec<u8>, header: usize) -> Result<(), SrtpError> {
        let end = packet.len().checked_sub(self.suite.tag_bytes(Labels::Rtp)).ok_or(SrtpError::TooShort)?;
        if header > end || header < 12 {
            return Err(SrtpError::TooShort);
        }
        let (sequence, ssrc) = (u16_at(packet, 2), u32_at(packet, 8));
        let known = self.sources.iter().position(|source| source.ssrc == ssrc);
        let highest = known.map(|at| self.sources[at].window.highest);
        let index = match highest {
            Some(highest) => estimated_index(highest, sequence).ok_or(SrtpError::Replayed)?,
            None => u64::from(sequence),
        };
        if known.is_some_and(|at| !self.sources[at].window.is_new(index)) {
            return Err(SrtpError::Replayed);
        }
        match &self.rtp {
            Keys::Cm { aes, salt, mac, .. } => {
                let rollover = (index >> 16) as u32;
                let mac = mac.clone().chain_update(&packet[..end]).chain_update(rollover.to_be_bytes());
                mac.verify_truncated_left(&packet[end..]).map_err(|_| SrtpError::NotAuthentic)?;
                counter_mode(aes, salt, ssrc, index, &mut packet[header..end]);
            }
            Keys::Gcm { gcm, salt } => {
                let nonce = Nonce::from(gcm_nonce(salt, ssrc, index));
                let (sealed, tag) = packet.split_at_mut(end);
                let (head, payload) = sealed.split_at_mut(header);
                gcm_open(gcm, &nonce, head, payload, tag)?;
            }
        }
        packet.truncate(end);
        match known {
            Some(at) => self.sources[at].window.note(index),
            None => remember(&mut self.sources, Source { ssrc, window: Window::new(index) }),
        }
        Ok(())
    }

    /// Opens a compound RTCP packet and takes index and tag off.
    ///
    /// # Errors
    /// When it is not authentic, or came before.
    pub fn rtcp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        let tag_bytes = self.suite.tag_bytes(Labels::Rtcp);
        let end = packet.len().checked_sub(tag_bytes + RTCP_INDEX_BYTES).ok_or(SrtpError::TooShort)?;
        if end < RTCP_HEADER {
            return Err(SrtpError::TooShort);
        }
        let ssrc = u32_at(packet, 4);
        let index_at = match self.rtp {
            Keys::Cm { .. } => end,
            Keys::Gcm { .. } => end + tag_bytes,
        };
        let trailer = u32_at(packet, index_at);
        let (index, encrypted) = (u64::from(trailer & !RTCP_ENCRYPTED), trailer & RTCP_ENCRYPTED != 0);
        let known = self.rtcp_sources.iter().position(|(source, _)| *source == ssrc);
        if known.is_some_and(|at| !self.rtcp_sources[at].1.is_new(index)) {
            return Err(SrtpError::Replayed);
        }
        match &self.rtcp {
            Keys::Cm { aes, salt, mac, .. } => {
                let (signed, tag) = packet.split_at(end + RTCP_INDEX_BYTES);
                let mac = mac.clone().chain_update(signed);
                mac.verify_truncated_left(tag).map_err(|_| SrtpError::NotAuthentic)?;
                if encrypted {
                    counter_mode(aes, salt, ssrc, index, &mut packet[RTCP_HEADER..end]);
                }
            }
            Keys::Gcm { gcm, salt } => {
                let nonce = Nonce::from(gcm_nonce(salt, ssrc, index));
                let (sealed, rest) = packet.split_at_mut(end);
                let tag = &rest[..tag_bytes];
                if encrypted {
                    let (head, payload) = sealed.split_at_mut(RTCP_HEADER);
                    gcm_open(gcm, &nonce, &rtcp_associated(head, trailer.to_be_bytes()), payload, tag)?;
                } else {
                    let associated = [&*sealed, &trailer.to_be_bytes()].concat();
                    gcm_open(gcm, &nonce, &associated, &mut [], tag)?;
                }
            }
        }
        packet.truncate(end);
        match known {
            Some(at) => self.rtcp_sources[at].1.note(index),
            None => remember(&mut self.rtcp_sources, (ssrc, Window::new(index))),
        }
        Ok(())
    }
}

fn remember<T>(sources: &mut Vec<T>, source: T) {
    if sources.len() == MAX_SOURCES {
        sources.remove(0);
    }
    sources.push(source);
}

fn gcm_open(
    gcm: &Aes128Gcm,
    nonce: &Nonce<aes_gcm::aead::consts::U12>,
    associated: &[u8],
    payload: &mut [u8],
    tag: &[u8],
) -> Result<(), SrtpError> {
    let tag = tag.try_into().map_err(|_| SrtpError::TooShort)?;
    gcm.decrypt_inout_detached(nonce, associated, InOutBuf::from(payload), tag)
        .map_err(|_| SrtpError::NotAuthentic)
}

/// RFC 7714 9.2: the header, and the word with the index.
fn rtcp_associated(head: &[u8], trailer: [u8; RTCP_INDEX_BYTES]) -> [u8; RTCP_HEADER + RTCP_INDEX_BYTES] {
    let mut associated = [0; RTCP_HEADER + RTCP_INDEX_BYTES];
    associated[..RTCP_HEADER].copy_from_slice(head);
    associated[RTCP_HEADER..].copy_from_slice(&trailer);
    associated
}

/// The index nearest to the highest so far that ends in this sequence number (RFC 3711 3.3.1); `None` before the first.
fn estimated_index(highest: u64, sequence: u16) -> Option<u64> {
    let ahead = sequence.wrapping_sub(highest as u16) as i16;
    highest.checked_add_signed(i64::from(ahead))
}

/// Two bytes of a packet that is long enough.
fn u16_at(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// Four bytes of a packet that is long enough.
fn u32_at(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

#[cfg(test)]
mod tests;
