//! What a call's media agree on: offers and answers (RFC 3264) in session descriptions (RFC 8866), with SRTP keys (RFC 4568).
//! It knows no socket and takes no chance: addresses, ports and keys are given to it.

use super::srtp::{Master, SrtpKeys, Suite};
use offhook_core::Secret;
use offhook_media::coding::Coding;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

mod text;

use text::{Crypto, Media, Text};

/// The longest description that is read.
pub const MAX_SDP_BYTES: usize = 16 * 1_024;
/// Payload numbers of our own offers, in the range that RFC 3551 leaves to be agreed on.
const OPUS_NUMBER: u8 = 111;
const EVENT_8K_NUMBER: u8 = 101;
const EVENT_48K_NUMBER: u8 = 110;
const EVENT: &str = "telephone-event";
/// Keys 0 to 9, `*`, `#` and A to D (RFC 4733 3.2).
const EVENTS: &str = "0-15";
/// Length of the packets that we send and ask for, ms.
const PTIME_MS: u32 = 20;
const SHORT_PTIME_MS: u32 = 10;
/// The suites of our own offers, the first preferred.
const OFFERED_SUITES: [Suite; 2] = [Suite::AesCm128HmacSha1_80, Suite::AeadAes128Gcm];

/// How audio travels in RTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// Opus (RFC 7587), wideband and mono to the rest of the house.
    Opus,
}

impl Codec {
    /// The RTP clock, ticks a second.
    pub const fn clock_hz(self) -> u32 {
        match self {
            Codec::Pcmu | Codec::Pcma => 8_000,
            Codec::Opus => 48_000,
        }
    }

    /// The coding of a call that agreed on this codec.
    pub const fn coding(self) -> Coding {
        match self {
            Codec::Pcmu => Coding::MU_LAW,
            Codec::Pcma => Coding::A_LAW,
            Codec::Opus => Coding::WIDE,
        }
    }

    const fn encoding(self) -> &'static str {
        match self {
            Codec::Pcmu => "PCMU",
            Codec::Pcma => "PCMA",
            Codec::Opus => "opus",
        }
    }

    /// Its number in our own offers.
    const fn number(self) -> u8 {
        match self {
            Codec::Pcmu => 0,
            Codec::Pcma => 8,
            Codec::Opus => OPUS_NUMBER,
        }
    }

    /// The number of the telephone events that share its clock, in our own offers.
    const fn event_number(self) -> u8 {
        match self {
            Codec::Pcmu | Codec::Pcma => EVENT_8K_NUMBER,
            Codec::Opus => EVENT_48K_NUMBER,
        }
    }
}

/// Whether media are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SrtpPolicy {
    /// Never.
    #[default]
    Off,
    /// Where the other end offers it; our own offers are plain.
    Optional,
    /// Always, or there is no call.
    Required,
}

/// How keys travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtmf {
    /// As telephone events beside the audio. Where the other end has none, we send tones and hear no keys.
    #[default]
    Rfc4733,
    /// As SIP INFO requests, which the signalling carries.
    Info,
    /// As tones in the audio.
    Inband,
}

/// What we would like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaWishes {
    /// Codecs that we take, the first preferred.
    pub codecs: Vec<Codec>,
    /// Encryption.
    pub srtp: SrtpPolicy,
    /// Keys.
    pub dtmf: Dtmf,
}

impl Default for MediaWishes {
    fn default() -> Self {
        MediaWishes { codecs: vec![Codec::Pcmu, Codec::Pcma], srtp: SrtpPolicy::Off, dtmf: Dtmf::Rfc4733 }
    }
}

/// Our end of one call's media: kept for the whole dialog, so that its descriptions have one origin.
#[derive(Clone, Debug)]
pub struct Local {
    address: IpAddr,
    rtp_port: u16,
    session: u64,
    master: Master,
    version: u64,
    /// The media lines of the last description: they hold the key.
    described: Option<Secret<String>>,
}

impl Local {
    /// An end at the address that others reach us at, with RTCP on the port after `rtp_port`; `session` and `master` come from
    /// chance, and are new for each call.
    pub fn new(address: IpAddr, rtp_port: u16, session: u64, master: Master) -> Local {
        // A signed 64-bit number is all that some read in `o=`.
        let session = session >> 2;
        Local { address, rtp_port, session, master, version: session, described: None }
    }

    /// The description with these media lines; its version rises when they are others than the last time.
    fn describe(&mut self, media: String) -> String {
        if self.described.as_ref().is_some_and(|described| *described.expose() != media) {
            self.version += 1;
        }
        let family = if self.address.is_ipv4() { "IP4" } else { "IP6" };
        let (address, session, version) = (self.address, self.session, self.version);
        let text = format!(
            "v=0\r\no=- {session} {version} IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n{media}"
        );
        self.described = Some(Secret::new(media));
        text
    }
}

/// Which way media flow, as seen by who says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    #[default]
    Both,
    /// Away from who says it.
    SendOnly,
    /// Towards who says it.
    ReceiveOnly,
    /// Neither way.
    Inactive,
}

impl Direction {
    const fn new(sends: bool, receives: bool) -> Direction {
        match (sends, receives) {
            (true, true) => Direction::Both,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::ReceiveOnly,
            (false, false) => Direction::Inactive,
        }
    }

    /// Whether who says it sends.
    pub const fn sends(self) -> bool {
        matches!(self, Direction::Both | Direction::SendOnly)
    }

    /// Whether who says it wants to receive.
    pub const fn receives(self) -> bool {
        matches!(self, Direction::Both | Direction::ReceiveOnly)
    }

    const fn attribute(self) -> &'static str {
        match self {
            Direction::Both => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::ReceiveOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }
}

/// The payload numbers of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Of audio.
    pub audio: u8,
    /// Of telephone events, where both ends have them.
    pub event: Option<u8>,
}

/// What was agreed on: plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The codec, both ways.
    pub codec: Codec,
    /// The numbers of packets that we send.
    pub send: Numbers,
    /// The numbers of packets that we receive.
    pub receive: Numbers,
    /// Where the other end says it receives. Behind NAT its packets come from elsewhere.
    pub remote: SocketAddr,
    /// Where it says it receives RTCP.
    pub remote_rtcp: SocketAddr,
    /// RTCP shares the port of RTP (RFC 5761).
    pub rtcp_mux: bool,
    /// Encryption, if any.
    pub srtp: Option<SrtpKeys>,
    /// Which way media flow, as we see it. Where we do not send, the other end holds the call.
    pub direction: Direction,
    /// Length of the packets that we send, ms: 10 or 20.
    pub ptime_ms: u32,
    /// How keys travel.
    pub dtmf: Dtmf,
}

/// Why a description cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// It is over [`MAX_SDP_BYTES`].
    #[error("the session description is longer than 16 KiB")]
    TooLong,
    /// It does not begin as one.
    #[error("it is not a session description of version 0")]
    NotSdp,
    /// A line is not `x=…`.
    #[error("a line of the session description has no type")]
    NotALine,
    /// An `m=` line has no port, protocol or format.
    #[error("a media line of the session description is not whole")]
    BadMedia,
    /// There are more media lines than any phone has.
    #[error("the session description has too many media lines")]
    TooManyMedia,
    /// It answers another question than ours.
    #[error("the answer does not fit our offer: {0}")]
    NotOurs(#[source] NotAnswerable),
}

/// Why an offer has nothing for us: answer 488.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnswerable {
    /// No audio over RTP, or it was refused.
    #[error("there is no audio over RTP in it")]
    NoAudio,
    /// None of the codecs that this trunk allows.
    #[error("there is no codec in it that the trunk allows")]
    NoCommonCodec,
    /// Only plain media, where the trunk requires SRTP.
    #[error("its media are not encrypted, which the trunk requires")]
    SrtpRequired,
    /// Only SRTP that we may not or cannot speak.
    #[error("its media are encrypted in a way that the trunk does not allow")]
    SrtpNotAllowed,
    /// Nowhere to send to, or somewhere that we have no way to.
    #[error("its media address cannot be reached from ours")]
    NoAddress,
}

/// The other end's offer.
#[derive(Clone, Debug)]
pub struct Offer {
    text: Text,
}

impl Offer {
    /// Reads an offer.
    ///
    /// # Errors
    /// When it is not a session description, or not a sane one.
    pub fn parse(text: &[u8]) -> Result<Offer, SdpError> {
        Ok(Offer { text: Text::parse(text)? })
    }

    /// Our answer, and what is agreed with it: the first audio line that fits, with the first of our codecs in it. Every
    /// other line is refused.
    ///
    /// # Errors
    /// When no line fits; the error is the one of the line that came nearest.
    pub fn answer(&self, local: &mut Local, wishes: &MediaWishes) -> Result<(String, Stream), NotAnswerable> {
        let mut why = NotAnswerable::NoAudio;
        // Where encrypted and plain media are offered side by side, the encrypted are meant to be taken.
        let (secure, plain): (Vec<_>, Vec<_>) =
            self.text.media.iter().enumerate().partition(|(_, media)| is_secure(media));
        for (index, media) in secure.into_iter().chain(plain) {
            match answer_to(media, local, wishes) {
                Ok((stream, crypto)) => {
                    let lines = self.answer_lines(index, local, &stream, crypto);
                    return Ok((local.describe(lines), stream));
                }
                Err(NotAnswerable::NoAudio) => {}
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }

    fn answer_lines(&self, index: usize, local: &Local, stream: &Stream, crypto: Option<Crypto>) -> String {
        let mut lines = String::new();
        for (place, media) in self.text.media.iter().enumerate() {
            if place == index {
                let payloads = [(stream.codec, stream.receive)];
                let keys: Vec<_> = crypto.iter().map(|c| (c.tag, c.suite)).collect();
                media_lines(&mut lines, local, &media.protocol, &payloads, &keys, stream.direction);
                if stream.rtcp_mux {
                    lines.push_str("a=rtcp-mux\r\n");
                }
            } else {
                let format = &media.formats[0];
                let _ = write!(lines, "m={} 0 {} {format}\r\n", media.kind, media.protocol);
            }
        }
        lines
    }
}

/// Our own offer: for calls that we make, and for those who ask without one. Plain unless SRTP is required.
pub fn offer(local: &mut Local, wishes: &MediaWishes) -> (String, Offered) {
    let secure = wishes.srtp == SrtpPolicy::Required;
    let protocol = if secure { "RTP/SAVP" } else { "RTP/AVP" };
    let numbers = |codec: &Codec| {
        let event = (wishes.dtmf == Dtmf::Rfc4733).then_some(codec.event_number());
        (*codec, Numbers { audio: codec.number(), event })
    };
    let payloads: Vec<_> = wishes.codecs.iter().map(numbers).collect();
    let suites = if secure { &OFFERED_SUITES[..] } else { &[] };
    let keys: Vec<_> = (1..).zip(suites.iter().copied()).collect();
    let mut lines = String::new();
    media_lines(&mut lines, local, protocol, &payloads, &keys, Direction::Both);
    let master = local.master.clone();
    let text = local.describe(lines);
    (text, Offered { address: local.address, wishes: wishes.clone(), payloads, keys, master })
}

/// An offer of ours that waits for its answer.
#[derive(Clone, Debug)]
pub struct Offered {
    address: IpAddr,
    wishes: MediaWishes,
    payloads: Vec<(Codec, Numbers)>,
    keys: Vec<(u32, Suite)>,
    master: Master,
}

impl Offered {
    /// What is agreed by this answer.
    ///
    /// # Errors
    /// When the answer cannot be read, or agrees to something that we did not offer.
    pub fn accept(&self, answer: &[u8]) -> Result<Stream, SdpError> {
        let text = Text::parse(answer)?;
        let media = text.media.first().ok_or(SdpError::NotOurs(NotAnswerable::NoAudio))?;
        self.agree(media).map_err(SdpError::NotOurs)
    }

    fn agree(&self, media: &Media) -> Result<Stream, NotAnswerable> {
        check_audio(media)?;
        let srtp = match (is_secure(media), self.keys.is_empty()) {
            (false, true) => None,
            (false, false) => return Err(NotAnswerable::SrtpRequired),
            (true, _) => {
                let ours = |c: &&Crypto| self.keys.contains(&(c.tag, c.suite));
                let crypto = media.crypto.iter().find(ours).ok_or(NotAnswerable::SrtpNotAllowed)?;
                Some(keys(crypto, &self.master))
            }
        };
        let (receive, codec, send) = media
            .payloads()
            .find_map(|map| {
                let mut offered = self.payloads.iter();
                let (codec, numbers) = offered.find(|(c, _)| map.is(c.encoding(), c.clock_hz()))?;
                Some((*numbers, *codec, map.number))
            })
            .ok_or(NotAnswerable::NoCommonCodec)?;
        let event = receive.event.and_then(|_| event_number(media, codec));
        let receive = Numbers { event: event.and(receive.event), ..receive };
        stream(media, self.address, &self.wishes, codec, Numbers { audio: send, event }, receive, srtp)
    }
}

fn is_secure(media: &Media) -> bool {
    media.protocol.starts_with("RTP/SAVP")
}

fn check_audio(media: &Media) -> Result<(), NotAnswerable> {
    let is_rtp = is_secure(media) || media.protocol.starts_with("RTP/AVP");
    if media.kind == "audio" && is_rtp && media.port != 0 { Ok(()) } else { Err(NotAnswerable::NoAudio) }
}

fn answer_to(
    media: &Media,
    local: &Local,
    wishes: &MediaWishes,
) -> Result<(Stream, Option<Crypto>), NotAnswerable> {
    check_audio(media)?;
    let crypto = match (is_secure(media), wishes.srtp) {
        (true, SrtpPolicy::Off) => return Err(NotAnswerable::SrtpNotAllowed),
        (true, _) => Some(media.crypto.first().cloned().ok_or(NotAnswerable::SrtpNotAllowed)?),
        (false, SrtpPolicy::Required) => return Err(NotAnswerable::SrtpRequired),
        (false, _) => None,
    };
    let (codec, audio) = (wishes.codecs.iter())
        .find_map(|codec| {
            let map = media.payloads().find(|map| map.is(codec.encoding(), codec.clock_hz()))?;
            Some((*codec, map.number))
        })
        .ok_or(NotAnswerable::NoCommonCodec)?;
    let event = if wishes.dtmf == Dtmf::Rfc4733 { event_number(media, codec) } else { None };
    let numbers = Numbers { audio, event };
    let srtp = crypto.as_ref().map(|crypto| keys(crypto, &local.master));
    Ok((stream(media, local.address, wishes, codec, numbers, numbers, srtp)?, crypto))
}

fn event_number(media: &Media, codec: Codec) -> Option<u8> {
    media.payloads().find(|map| map.is(EVENT, codec.clock_hz())).map(|map| map.number)
}

fn keys(crypto: &Crypto, ours: &Master) -> SrtpKeys {
    SrtpKeys { suite: crypto.suite, ours: ours.clone(), theirs: crypto.master.clone() }
}

fn stream(
    media: &Media,
    ours: IpAddr,
    wishes: &MediaWishes,
    codec: Codec,
    send: Numbers,
    receive: Numbers,
    srtp: Option<SrtpKeys>,
) -> Result<Stream, NotAnswerable> {
    let address = media.address.ok_or(NotAnswerable::NoAddress)?;
    // An unspecified address is the old way to hold a call (RFC 3264 8.4).
    let held = address.is_unspecified();
    let reachable = held || address.is_ipv4() == ours.is_ipv4() && !address.is_multicast();
    if !reachable {
        return Err(NotAnswerable::NoAddress);
    }
    let remote = SocketAddr::new(address, media.port);
    let remote_rtcp = if media.rtcp_mux {
        remote
    } else {
        let port = media.rtcp_port.unwrap_or_else(|| media.port.saturating_add(1));
        let elsewhere = media.rtcp_address.filter(|a| a.is_ipv4() == ours.is_ipv4() && !a.is_multicast());
        SocketAddr::new(elsewhere.unwrap_or(address), port)
    };
    let short = media.max_ptime_ms.is_some_and(|most| most < PTIME_MS);
    Ok(Stream {
        codec,
        send,
        receive,
        remote,
        remote_rtcp,
        rtcp_mux: media.rtcp_mux,
        srtp,
        direction: Direction::new(media.direction.receives() && !held, media.direction.sends()),
        ptime_ms: if short { SHORT_PTIME_MS } else { PTIME_MS },
        dtmf: wishes.dtmf,
    })
}

/// Writes one audio line of ours and what belongs to it.
fn media_lines(
    lines: &mut String,
    local: &Local,
    protocol: &str,
    payloads: &[(Codec, Numbers)],
    keys: &[(u32, Suite)],
    direction: Direction,
) {
    let mut formats = String::new();
    let mut maps = String::new();
    for (codec, numbers) in payloads {
        let (number, encoding, clock_hz) = (numbers.audio, codec.encoding(), codec.clock_hz());
        let _ = write!(formats, " {number}");
        let _ = match codec {
            Codec::Opus => write!(
                maps,
                "a=rtpmap:{number} {encoding}/{clock_hz}/2\r\na=fmtp:{number} useinbandfec=1\r\n"
            ),
            Codec::Pcmu | Codec::Pcma => write!(maps, "a=rtpmap:{number} {encoding}/{clock_hz}\r\n"),
        };
    }
    let mut events: Vec<(u8, u32)> = Vec::new();
    for (codec, numbers) in payloads {
        let Some(number) = numbers.event.filter(|number| !events.iter().any(|(seen, _)| seen == number))
        else {
            continue;
        };
        events.push((number, codec.clock_hz()));
    }
    for (number, clock_hz) in events {
        let _ = write!(formats, " {number}");
        let _ = write!(maps, "a=rtpmap:{number} {EVENT}/{clock_hz}\r\na=fmtp:{number} {EVENTS}\r\n");
    }
    let _ = write!(lines, "m=audio {} {protocol}{formats}\r\n{maps}", local.rtp_port);
    for (tag, suite) in keys {
        let _ = write!(lines, "a=crypto:{tag} {} inline:{}\r\n", suite.name(), local.master.write(*suite));
    }
    let _ = write!(lines, "a=ptime:{PTIME_MS}\r\na={}\r\n", direction.attribute());
}

#[cfg(test)]
mod tests;
