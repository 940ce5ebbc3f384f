//! The text of a session description (RFC 8866), read as far as a telephone call needs it. It knows the lines, not what
//! is made of them: what cannot be used is kept as such, and only what cannot be read is an error.

use super::{Direction, MAX_SDP_BYTES, SdpError};
use crate::sip::srtp::{Master, Suite};
use std::net::IpAddr;

/// Media lines that one description may have.
const MAX_MEDIA: usize = 16;
/// Formats that one media line may list, and lines of one kind that are kept for it.
const MAX_FORMATS: usize = 64;
/// The clock of an encoding whose `rtpmap` may be left out (RFC 3551 table 4).
const STATIC: [(u8, &str, u32); 3] = [(0, "PCMU", 8_000), (8, "PCMA", 8_000), (13, "CN", 8_000)];

/// A session description.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    pub media: Vec<Media>,
}

/// One `m=` line and what stands below it; what stood before the first holds for all.
#[derive(Clone, Debug, Default)]
pub(super) struct Media {
    pub kind: String,
    pub port: u16,
    pub protocol: String,
    pub formats: Vec<String>,
    /// Where it wants to be sent to; `None`: a name, or nothing at all.
    pub address: Option<IpAddr>,
    pub direction: Direction,
    pub rtpmaps: Vec<RtpMap>,
    pub max_ptime_ms: Option<u32>,
    pub rtcp_mux: bool,
    pub rtcp_port: Option<u16>,
    pub rtcp_address: Option<IpAddr>,
    pub crypto: Vec<Crypto>,
}

/// What a payload number stands for.
#[derive(Clone, Debug)]
pub(super) struct RtpMap {
    pub number: u8,
    pub encoding: String,
    pub clock_hz: u32,
}

/// An `a=crypto` line that we could use (RFC 4568).
#[derive(Clone, Debug)]
pub(super) struct Crypto {
    pub tag: u32,
    pub suite: Suite,
    pub master: Master,
}

impl Text {
    pub fn parse(text: &[u8]) -> Result<Text, SdpError> {
        if text.len() > MAX_SDP_BYTES {
            return Err(SdpError::TooLong);
        }
        let text = String::from_utf8_lossy(text);
        let mut whole = Media::default();
        let mut media: Vec<Media> = Vec::new();
        let mut versioned = false;
        for line in text.lines().map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty()) {
            let Some((kind, value)) = line.split_once('=').filter(|(kind, _)| kind.len() == 1) else {
                return Err(SdpError::NotALine);
            };
            if !versioned && (kind, value.trim()) != ("v", "0") {
                return Err(SdpError::NotSdp);
            }
            versioned = true;
            match kind {
                "m" if media.len() == MAX_MEDIA => return Err(SdpError::TooManyMedia),
                "m" => media.push(media_line(value, &whole).ok_or(SdpError::BadMedia)?),
                "c" => media.last_mut().unwrap_or(&mut whole).address = connection(value),
                "a" => media.last_mut().unwrap_or(&mut whole).attribute(value),
                _ => {}
            }
        }
        if versioned { Ok(Text { media }) } else { Err(SdpError::NotSdp) }
    }
}

impl Media {
    fn attribute(&mut self, text: &str) {
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.trim();
        match name.trim() {
            "sendrecv" => self.direction = Direction::Both,
            "sendonly" => self.direction = Direction::SendOnly,
            "recvonly" => self.direction = Direction::ReceiveOnly,
            "inactive" => self.direction = Direction::Inactive,
            "rtpmap" if self.rtpmaps.len() < MAX_FORMATS => self.rtpmaps.extend(rtpmap(value)),
            "maxptime" => self.max_ptime_ms = value.parse().ok(),
            "rtcp-mux" => self.rtcp_mux = true,
            "rtcp" => {
                let (port, address) = value.split_once(' ').unwrap_or((value, ""));
                self.rtcp_port = port.parse().ok();
                self.rtcp_address = connection(address);
            }
            "crypto" if self.crypto.len() < MAX_FORMATS => self.crypto.extend(crypto(value)),
            _ => {}
        }
    }

    /// What the payload numbers of this line stand for, in its order. A number without a meaning is left out.
    pub fn payloads(&self) -> impl Iterator<Item = RtpMap> {
        self.formats.iter().filter_map(|format| {
            let number: u8 = format.parse().ok().filter(|number| *number < 128)?;
            let written = self.rtpmaps.iter().find(|map| map.number == number);
            written.cloned().or_else(|| {
                let (_, encoding, clock_hz) = STATIC.iter().find(|(known, ..)| *known == number)?;
                Some(RtpMap { number, encoding: (*encoding).to_owned(), clock_hz: *clock_hz })
            })
        })
    }
}

impl RtpMap {
    pub fn is(&self, encoding: &str, clock_hz: u32) -> bool {
        self.encoding.eq_ignore_ascii_case(encoding) && self.clock_hz == clock_hz
    }
}

/// `audio 18234 RTP/AVP 0 8 101`; a port may carry a count, `18234/2`.
fn media_line(value: &str, whole: &Media) -> Option<Media> {
    let mut words = value.split_ascii_whitespace();
    let kind = words.next()?.to_owned();
    let port = words.next()?.split('/').next()?.parse().ok()?;
    let protocol = words.next()?.to_owned();
    let formats: Vec<String> = words.take(MAX_FORMATS).map(str::to_owned).collect();
    // Keys and numbers of the session belong to no media line (RFC 4568 5.1, RFC 8866 6.6).
    let whole = Media { rtpmaps: Vec::new(), crypto: Vec::new(), ..whole.clone() };
    (!formats.is_empty()).then_some(Media { kind, port, protocol, formats, ..whole })
}

/// `IN IP4 168.86.150.20`, with a multicast's `/127` cut off: such an address is refused by who reads it.
fn connection(value: &str) -> Option<IpAddr> {
    let mut words = value.split_ascii_whitespace();
    let (net, family, address) = (words.next()?, words.next()?, words.next()?);
    let address: IpAddr = address.split('/').next()?.parse().ok()?;
    let fits = matches!((family, address), ("IP4", IpAddr::V4(_)) | ("IP6", IpAddr::V6(_)));
    (net == "IN" && fits).then_some(address)
}

/// `101 telephone-event/8000`
fn rtpmap(value: &str) -> Option<RtpMap> {
    let (number, meaning) = value.split_once(' ')?;
    let mut parts = meaning.trim().split('/');
    let (encoding, clock) = (parts.next()?, parts.next()?);
    Some(RtpMap {
        number: number.parse().ok()?,
        encoding: encoding.to_owned(),
        clock_hz: clock.trim().parse().ok()?,
    })
}

/// `1 AES_CM_128_HMAC_SHA1_80 inline:BASE64|2^48`. A line with a master key identifier or a session parameter would have to be
/// obeyed (RFC 4568 6.3.7): it counts as one whose suite we do not have.
fn crypto(value: &str) -> Option<Crypto> {
    let mut words = value.split_ascii_whitespace();
    let (tag, suite, key) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || key.contains(';') {
        return None;
    }
    let suite = Suite::read(suite)?;
    let mut parts = key.strip_prefix("inline:")?.split('|');
    let master = Master::read(suite, parts.next()?)?;
    (!parts.any(|part| part.contains(':'))).then_some(Crypto { tag: tag.parse().ok()?, suite, master })
}
