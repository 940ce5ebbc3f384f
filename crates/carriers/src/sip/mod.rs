//! SIP trunks and PBXs: our own user agent, which answers and makes calls without a carrier's API between. It knows neither
//! store nor server.
//!
//! `sdp`, `rtp` and `srtp` are a call's media, everything else is its signalling. Parser, transactions and transports are the
//! library rsipstack's (behind `wire`), and nothing of it shows outside. Its dialogs are not used: they know no session timers
//! and no answer in an ACK, and let a CANCEL, a BYE and our own answer overtake each other.

mod agent;
mod call;
mod dial;
mod dialog;
mod digest;
#[doc(hidden)]
pub mod fuzz;
mod guard;
mod incoming;
mod media;
mod message;
mod outcome;
mod reading;
mod register;
pub mod rtp;
pub mod sdp;
mod session_timer;
pub mod srtp;
mod trunk;
mod wire;

use offhook_core::{Pii, Secret};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::SystemTime;

pub use agent::UserAgent;
pub use call::SipCall;
pub use dial::{Dialling, NewCall, Progress};
pub use guard::Dropped;
pub use incoming::{Contested, Incoming};
pub use outcome::{DialFailure, Outcome};
pub use rtp::{RtpControl, RtpEvent, RtpLine, SourceFilter};
pub use trunk::{
    BadSettings, CallerId, CodecName, DtmfMode, Network, NotANetwork, SrtpMode, Transport, Trunk, TrunkId,
    TrunkSettings,
};

/// Where the user agent listens, and how others reach it.
#[derive(Clone, Debug)]
pub struct Listening {
    /// For datagrams.
    pub udp: Option<SocketAddr>,
    /// For streams.
    pub tcp: Option<SocketAddr>,
    /// For encrypted streams.
    pub tls: Option<TlsListening>,
    /// The name or address that others reach us at, where it is not the one that we see.
    pub public_host: Option<String>,
    /// The address that media are sent to, where it is not the one that we see.
    pub public_media: Option<std::net::IpAddr>,
    /// The ports of RTP and RTCP.
    pub rtp_ports: RangeInclusive<u16>,
}

/// A listener for encrypted streams.
#[derive(Clone, Debug)]
pub struct TlsListening {
    /// Where.
    pub address: SocketAddr,
    /// Our certificate and those that lead to it, PEM.
    pub certificate_chain: String,
    /// Its key, PEM in PKCS#8 or PKCS#1.
    pub private_key: Secret<String>,
}

/// What the user agent tells its owner.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "few are under way at once, and calls are what they are for")]
pub enum SipEvent {
    /// Somebody calls.
    Rings(Incoming),
    /// Somebody calls, and it must be said over which trunk.
    Contested(Contested),
    /// A trunk came or went.
    Trunk {
        /// Which one.
        id: TrunkId,
        /// How it is now.
        state: TrunkState,
    },
}

/// How a trunk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrunkState {
    /// It answers, or has nothing that could be asked.
    Up,
    /// We are registered there.
    Registered {
        /// When the registration ends unless it is refreshed.
        until: SystemTime,
    },
    /// It cannot be used.
    Down {
        /// Why, in a sentence for the user.
        reason: String,
    },
}

/// How a call is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// All who could answer are busy: 486.
    Busy,
    /// Nobody answers there now: 480.
    Inactive,
    /// A rule says no: 603.
    Declined,
    /// Nobody has that number: 404.
    UnknownNumber,
    /// The caller may not: 403.
    Forbidden,
    /// We stop, or have too much to do: 503.
    Draining {
        /// When to try again, seconds.
        retry_after_s: u32,
    },
}

impl Rejection {
    fn status(self) -> u16 {
        match self {
            Rejection::Busy => 486,
            Rejection::Inactive => 480,
            Rejection::Declined => 603,
            Rejection::UnknownNumber => 404,
            Rejection::Forbidden => 403,
            Rejection::Draining { .. } => 503,
        }
    }
}

/// How a call that had been answered ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallEnd {
    /// Who ended it.
    pub by: EndedBy,
    /// The Q.850 or SIP cause that the far end gave.
    pub cause: Option<u16>,
    /// Its words.
    pub text: Option<Pii<String>>,
}

/// Who ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The far end.
    Them,
    /// We.
    Us,
    /// Nobody: the far end was not heard of any more.
    Silence,
}

impl CallEnd {
    fn by(by: EndedBy) -> Self {
        CallEnd { by, cause: None, text: None }
    }
}

/// Why something was not done, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum SipError {
    /// Choose another address, or free this one.
    #[error("cannot listen for SIP on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// Choose other ports, or more of them.
    #[error("there is no port for the call's audio")]
    NoPort(#[source] std::io::Error),
    /// Correct the certificate.
    #[error("the certificate for SIP over TLS and its key cannot be used: PEM, key in PKCS#8 or PKCS#1")]
    Certificate,
    /// Correct the settings.
    #[error("trunk {id}")]
    Settings {
        /// Which one.
        id: TrunkId,
        /// What is wrong.
        #[source]
        cause: BadSettings,
    },
    /// Start another one.
    #[error("the user agent has stopped")]
    Stopped,
    /// Make the trunk first.
    #[error("there is no such trunk")]
    NoSuchTrunk,
    /// Wait until a call ends.
    #[error("the trunk has as many calls as it may")]
    TrunkFull,
    /// Correct the trunk's domain.
    #[error("the trunk's host has no address")]
    NoSuchHost,
    /// Ask again later.
    #[error("the trunk cannot be reached")]
    Unreachable,
    /// Nothing is left to do to this call.
    #[error("the call is already over")]
    CallOver,
    /// Nothing: the far end cannot agree with us about the audio.
    #[error("the far end's audio does not fit ours")]
    NoMedia,
    /// Tell the user what they said.
    #[error("the far end refused with {status}")]
    Refused {
        /// The SIP status.
        status: u16,
    },
}

impl SipError {
    fn listening(address: SocketAddr, cause: std::io::Error) -> Self {
        SipError::Listen { address, cause }
    }
}
