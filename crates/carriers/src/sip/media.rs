//! A call's media as its signalling handles them: one port for the whole call, offers and answers that follow each other, and
//! the line that they lead to. It knows neither requests nor responses.

use super::rtp::{Media, Port, RtpControl, RtpLine, SourceFilter};
use super::sdp::{
    self, Codec, Dtmf, Local, MediaWishes, NotAnswerable, Offer, Offered, SdpError, SrtpPolicy, Stream,
};
use super::trunk::{CodecName, DtmfMode, SrtpMode, TrunkSettings};
use offhook_media::coding::Coding;
use std::io;
use std::net::IpAddr;

/// A call's media.
pub struct MediaSide {
    state: State,
    local: Local,
    wishes: MediaWishes,
    allowed: SourceFilter,
    /// An offer of ours that waits for its answer.
    offered: Option<Offered>,
}

enum State {
    /// A port, and what was agreed on if anything was.
    Waiting(Port, Option<Stream>),
    Running(RtpControl),
    Over,
}

/// Why an offer of theirs was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Unacceptable {
    /// Answer 400.
    #[error("the session description cannot be read")]
    Unreadable(#[source] SdpError),
    /// Answer 488.
    #[error("the offer holds nothing for this trunk")]
    NothingForUs(#[source] NotAnswerable),
}

impl Unacceptable {
    /// The answer that says so.
    pub fn status(&self) -> u16 {
        match self {
            Unacceptable::Unreadable(_) => 400,
            Unacceptable::NothingForUs(_) => 488,
        }
    }
}

impl MediaSide {
    /// Takes a port; `address` is the one that the peer shall send to.
    ///
    /// # Errors
    /// All ports are taken.
    pub fn open(
        media: &Media,
        address: IpAddr,
        settings: &TrunkSettings,
        allowed: SourceFilter,
    ) -> io::Result<Self> {
        let port = media.open()?;
        let local = port.local(address);
        Ok(MediaSide {
            local,
            state: State::Waiting(port, None),
            wishes: wishes(settings),
            allowed,
            offered: None,
        })
    }

    /// Answers an offer, the first one or one that changes the call.
    ///
    /// # Errors
    /// There is nothing in it for us; all stays as it was.
    pub fn answer(&mut self, offer: &[u8]) -> Result<String, Unacceptable> {
        let offer = Offer::parse(offer).map_err(Unacceptable::Unreadable)?;
        let (text, stream) =
            offer.answer(&mut self.local, &self.wishes).map_err(Unacceptable::NothingForUs)?;
        self.agree(stream);
        Ok(text)
    }

    /// Offers what we would like.
    pub fn offer(&mut self) -> String {
        let (text, offered) = sdp::offer(&mut self.local, &self.wishes);
        self.offered = Some(offered);
        text
    }

    /// Offers one codec only: for who asks without an offer, as what they choose is known too late to begin the call in it.
    pub fn offer_first_codec(&mut self) -> (String, Coding) {
        let first = self.wishes.codecs.first().copied().unwrap_or(Codec::Pcmu);
        let narrow = MediaWishes { codecs: vec![first], ..self.wishes.clone() };
        let (text, offered) = sdp::offer(&mut self.local, &narrow);
        self.offered = Some(offered);
        (text, first.coding())
    }

    /// Takes the answer to our offer.
    ///
    /// # Errors
    /// It does not fit.
    pub fn accept(&mut self, answer: &[u8]) -> Result<(), SdpError> {
        if let Some(offered) = self.offered.take() {
            let stream = offered.accept(answer)?;
            self.agree(stream);
        }
        Ok(())
    }

    /// Whether an offer of ours waits for its answer.
    pub fn awaits_answer(&self) -> bool {
        self.offered.is_some()
    }

    /// What the call's audio is, once it is agreed on.
    pub fn coding(&self) -> Option<Coding> {
        match &self.state {
            State::Waiting(_, Some(stream)) => Some(stream.codec.coding()),
            _ => None,
        }
    }

    /// Begins to send and to hear; once.
    pub fn begin(&mut self) -> Option<(RtpLine, RtpControl)> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Waiting(port, Some(stream)) => {
                let (line, control) = port.begin(stream, self.allowed.clone());
                self.state = State::Running(control.clone());
                Some((line, control))
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// A key that came by INFO.
    pub fn key(&self, key: char) {
        if let State::Running(control) = &self.state {
            control.key(key);
        }
    }

    /// Ends the sound.
    pub fn stop(&self) {
        if let State::Running(control) = &self.state {
            control.stop();
        }
    }

    fn agree(&mut self, stream: Stream) {
        match &mut self.state {
            State::Waiting(_, agreed) => *agreed = Some(stream),
            State::Running(control) => control.change(stream),
            State::Over => {}
        }
    }
}

impl Drop for MediaSide {
    fn drop(&mut self) {
        self.stop();
    }
}

fn wishes(settings: &TrunkSettings) -> MediaWishes {
    MediaWishes {
        codecs: settings
            .codecs
            .iter()
            .map(|codec| match codec {
                CodecName::Pcmu => Codec::Pcmu,
                CodecName::Pcma => Codec::Pcma,
                CodecName::Opus => Codec::Opus,
            })
            .collect(),
        srtp: match settings.srtp {
            SrtpMode::Off => SrtpPolicy::Off,
            SrtpMode::Optional => SrtpPolicy::Optional,
            SrtpMode::Required => SrtpPolicy::Required,
        },
        dtmf: match settings.dtmf {
            DtmfMode::Rfc4733 => Dtmf::Rfc4733,
            DtmfMode::Info => Dtmf::Info,
            DtmfMode::Inband => Dtmf::Inband,
        },
    }
}
