//! The session descriptions of a simulated trunk: offers as carriers write them, and what an answer agreed on (RFC 3264, 8866).
//! It knows one audio stream.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::message::Malformed;

/// The payload type that keys are offered as.
pub(super) const KEYS_PAYLOAD: u8 = 101;

/// Which way sound goes, as the simulated side has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Both,
    /// We send and do not listen.
    Hold,
    /// The answer to a hold.
    Held,
}

/// An offer or an answer of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ours {
    pub(super) media: SocketAddr,
    /// Counts up with every change.
    pub(super) version: u32,
    pub(super) direction: Direction,
    /// Whether codecs beyond PCMU and PCMA are offered, which the simulator could not hear.
    pub(super) rich: bool,
}

impl Ours {
    pub(super) fn text(&self) -> String {
        let Ours { media, version, direction, rich } = self;
        let family = if media.is_ipv6() { "IP6" } else { "IP4" };
        // Carriers write an inner address into o=, which leads nowhere.
        let mut text = format!(
            "v=0\r\no=root 1185513325 {version} IN IP4 172.18.12.34\r\ns=Simulated Media Gateway\r\nc=IN {family} {}\r\nt=0 0\r\n",
            media.ip()
        );
        let codecs = if *rich { "0 8 9 18 102 101" } else { "0 8 101" };
        // Writing into a String cannot fail.
        let _ = write!(text, "m=audio {} RTP/AVP {codecs}\r\n", media.port());
        text.push_str("a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n");
        if *rich {
            text.push_str("a=rtpmap:9 G722/8000\r\na=rtpmap:18 G729/8000\r\na=rtpmap:102 opus/48000/2\r\n");
        }
        text.push_str(
            "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=maxptime:20\r\n",
        );
        text.push_str(match direction {
            Direction::Both => "a=sendrecv\r\n",
            Direction::Hold => "a=sendonly\r\n",
            Direction::Held => "a=recvonly\r\n",
        });
        text
    }
}

/// What the other side wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Theirs {
    pub(super) media: SocketAddr,
    pub(super) payloads: Vec<u8>,
    pub(super) keys: Option<u8>,
    /// Whether nothing is to be sent to them.
    pub(super) deaf: bool,
    /// Whether they will send nothing.
    pub(super) mute: bool,
}

impl Theirs {
    pub(super) fn parse(text: &str) -> Result<Theirs, Malformed> {
        let wrong = |what: &str| Malformed(format!("{what} in {text:?}"));
        let lines = || text.split("\r\n").filter_map(|line| line.split_once('='));
        if !text.starts_with("v=0\r\n") || !text.ends_with("\r\n") {
            return Err(wrong("no session description"));
        }
        for needed in ["o", "s", "c", "t", "m"] {
            lines().find(|(kind, _)| *kind == needed).ok_or_else(|| wrong(&format!("no {needed}=")))?;
        }
        let streams: Vec<&str> = lines().filter(|(kind, _)| *kind == "m").map(|(_, value)| value).collect();
        let [stream] = streams.as_slice() else { return Err(wrong("not one stream")) };
        let words: Vec<&str> = stream.split(' ').collect();
        let ["audio", port, "RTP/AVP", payloads @ ..] = words.as_slice() else {
            return Err(wrong("no plain audio stream"));
        };
        let port: u16 = port.parse().map_err(|_| wrong("a wrong port"))?;
        let payloads: Option<Vec<u8>> = payloads.iter().map(|payload| payload.parse().ok()).collect();
        let payloads =
            payloads.filter(|payloads| !payloads.is_empty()).ok_or_else(|| wrong("no payloads"))?;
        // The last one is the stream's own where it has one.
        let host = lines().filter(|(kind, _)| *kind == "c").last().map_or("", |(_, value)| value);
        let host: IpAddr =
            host.split(' ').nth(2).unwrap_or_default().parse().map_err(|_| wrong("a wrong address"))?;
        let attributes = || lines().filter(|(kind, _)| *kind == "a").map(|(_, value)| value);
        let keys = attributes().find_map(|value| {
            let (payload, codec) = value.strip_prefix("rtpmap:")?.split_once(' ')?;
            codec.eq_ignore_ascii_case("telephone-event/8000").then(|| payload.parse().ok())?
        });
        let is = |words: [&str; 2]| attributes().any(|value| words.contains(&value));
        let deaf = host.is_unspecified() || is(["sendonly", "inactive"]);
        let mute = is(["recvonly", "inactive"]);
        Ok(Theirs { media: SocketAddr::new(host, port), payloads, keys, deaf, mute })
    }

    /// What is wrong with it as an answer to ours.
    pub(super) fn complaint(&self) -> Option<String> {
        let audio: Vec<&u8> = self.payloads.iter().filter(|payload| Some(**payload) != self.keys).collect();
        if audio.first() != Some(&&0) {
            return Some(format!("the answer does not choose PCMU: {:?}", self.payloads));
        }
        let offered = self.keys.is_none_or(|keys| keys == KEYS_PAYLOAD);
        (!offered).then(|| format!("the answer renames telephone-event to {:?}", self.keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_reads_back() {
        let media: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        for direction in [Direction::Both, Direction::Hold, Direction::Held] {
            let ours = Ours { media, version: 1, direction, rich: false };
            let theirs = Theirs::parse(&ours.text()).unwrap();
            assert_eq!((theirs.media, theirs.keys), (media, Some(101)));
            let (deaf, mute) = (direction == Direction::Hold, direction == Direction::Held);
            assert_eq!((theirs.deaf, theirs.mute, theirs.complaint()), (deaf, mute, None));
        }
    }

    #[test]
    fn an_answer_that_cannot_work_is_complained_of() {
        let text = Ours {
            media: "127.0.0.1:4000".parse().unwrap(),
            version: 1,
            direction: Direction::Both,
            rich: false,
        }
        .text();
        let a_law = Theirs::parse(&text.replace("RTP/AVP 0 8", "RTP/AVP 8")).unwrap();
        assert!(a_law.complaint().is_some());
        let renamed = Theirs::parse(&text.replace("101", "96")).unwrap();
        assert!(renamed.complaint().is_some());
        for wrong in
            [text.replace("c=", "x="), text.replace("audio 4000", "audio x"), text.replace("\r\n", "\n")]
        {
            assert!(Theirs::parse(&wrong).is_err(), "{wrong}");
        }
    }
}
