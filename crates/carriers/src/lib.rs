//! Carriers: what a phone network tells us and what we may ask of it, in words that no single carrier owns.
//! Nothing here knows the agent, the store or the server; each carrier's own words stay inside its module.

mod account;
mod http;
mod numbers;
mod public_url;
pub mod telnyx;
pub mod twilio;

use offhook_core::{E164, Pii, Secret};
use offhook_media::coding::Coding;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

pub use account::{Account, Alert};
pub use numbers::{AvailableNumber, Bought, NumberKind, NumberSearch, OurHooks, OwnNumber, Price, Routing};
pub use public_url::{NotAPublicUrl, PublicUrl};

/// A call that asks for an answer: somebody rings one of our numbers, or somebody we rang has picked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// The carrier's id of this leg.
    pub carrier_call: String,
    /// The carrier's id of the account that the call belongs to, or of the application in it that took the call.
    pub account: String,
    /// Who calls.
    pub from: Address,
    /// Who is called.
    pub to: Address,
    /// The number that passed the call on to us, where the network tells.
    pub forwarded_from: Option<Address>,
    /// The caller's name, where a lookup of it is switched on.
    pub caller_name: Option<Pii<String>>,
    /// Who rang whom.
    pub direction: Direction,
    /// Where the call stands now.
    pub status: CallStatus,
    /// The leg that dialled this one.
    pub parent_call: Option<String>,
    /// What picked up, where the carrier was asked to find out.
    pub answered_by: Option<AnsweredBy>,
    /// The same on every delivery of one question; without it a repeat cannot be told from a new question.
    pub repeat_key: Option<String>,
}

/// A call whose answer the carrier could not fetch or carry out, asking once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The call as it stands.
    pub ring: Ring,
    /// The carrier's number for what went wrong.
    pub code: Option<u32>,
    /// The address of ours that went wrong.
    pub url: Option<String>,
    /// Nobody of ours answered at that address: what would have been answered may still be right.
    pub unanswered: bool,
}

/// How a call has moved on. Reports may come late, out of order, twice, or never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusReport {
    /// The carrier's id of this leg.
    pub carrier_call: String,
    /// The carrier's id of the account.
    pub account: String,
    /// Where the call stood when the report was made.
    pub status: CallStatus,
    /// Seconds of conversation, once the call is over.
    pub duration_s: Option<u32>,
    /// The place of this report among those of its call, from 0.
    pub sequence: Option<u32>,
    /// When it happened, µs since 1970 UTC by the carrier's clock.
    pub at_us: Option<i64>,
    /// What picked up, where the carrier was asked to find out.
    pub answered_by: Option<AnsweredBy>,
    /// The SIP response that ended the call, where the carrier tells.
    pub sip_response: Option<u16>,
    /// The same on every delivery of one report.
    pub repeat_key: String,
}

/// What became of a media stream, told beside the stream itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamReport {
    /// The carrier's id of the leg.
    pub carrier_call: String,
    /// The carrier's id of the account.
    pub account: String,
    /// The carrier's id of the stream, where the carrier tells it.
    pub stream: Option<String>,
    /// The address that the stream was to lead to, with its ticket, where the carrier tells it.
    pub url: Option<Secret<String>>,
    /// What happened.
    pub change: StreamChange,
    /// The carrier's own words about a failure.
    pub error: Option<String>,
    /// When it happened, µs since 1970 UTC by the carrier's clock.
    pub at_us: Option<i64>,
    /// The same on every delivery of one report.
    pub repeat_key: String,
}

/// The stages of a media stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamChange {
    /// Audio flows.
    Started,
    /// It ended as it should.
    Stopped,
    /// It could not be set up, or broke.
    Failed,
}

/// The media stream of a call is over and the carrier asks what comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaOver {
    /// The carrier's id of the leg.
    pub carrier_call: String,
    /// The carrier's id of the account.
    pub account: String,
    /// Still in progress: our end let go of the stream. Final: the caller hung up, and no answer is heard.
    pub status: CallStatus,
}

/// The phone that a caller was put through to is done, and the carrier asks what comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialOver {
    /// The carrier's id of the caller's leg.
    pub carrier_call: String,
    /// The carrier's id of the account.
    pub account: String,
    /// How it went with the phone that was rung.
    pub outcome: CallStatus,
    /// The carrier's id of that phone's leg, if one was made.
    pub leg: Option<String>,
    /// Seconds that the two talked.
    pub duration_s: Option<u32>,
}

/// Who rang whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// They rang us.
    Inbound,
    /// We rang them.
    Outbound,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallStatus {
    /// Waits at the carrier for its turn.
    Queued,
    /// Being dialled.
    Dialing,
    /// The other phone rings.
    Ringing,
    /// Both ends can talk.
    InProgress,
    /// Answered, and over.
    Completed,
    /// The other end was engaged.
    Busy,
    /// Nobody picked up.
    NoAnswer,
    /// The other end did not want it.
    Rejected,
    /// It could not be put through.
    Failed,
    /// Withdrawn before anybody picked up.
    Canceled,
}

impl CallStatus {
    /// Whether nothing can follow.
    pub fn is_over(self) -> bool {
        self.rank() == CallStatus::Completed.rank()
    }

    /// How far along the call is: a report of a lower rank than one already seen came late and changes nothing.
    pub fn rank(self) -> u8 {
        use CallStatus::*;
        match self {
            Queued => 0,
            Dialing => 1,
            Ringing => 2,
            InProgress => 3,
            Completed | Busy | NoAnswer | Rejected | Failed | Canceled => 4,
        }
    }
}

/// What picked up the phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnsweredBy {
    /// A person.
    Human,
    /// A machine whose greeting still plays.
    Machine,
    /// A machine that is ready to take a message.
    MachineAfterGreeting,
    /// A fax.
    Fax,
    /// The carrier could not tell.
    Unknown,
}

/// One end of a call as the network names it: often a number, but also withheld, a SIP address or an app's user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    text: Pii<String>,
    kind: AddressKind,
}

/// What an [`Address`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// A telephone number.
    Number(Pii<E164>),
    /// A SIP address.
    Sip,
    /// A user of an app at the carrier.
    App,
    /// The caller did not want to be known.
    Withheld,
    /// Anything else: short codes, national numbers, names.
    Other,
}

impl Address {
    /// Reads an address in any form; every text is one.
    pub fn read(text: &str) -> Self {
        let kind = match text.parse() {
            Ok(number) => AddressKind::Number(Pii::new(number)),
            Err(_) if text.starts_with("sip:") || text.starts_with("sips:") => AddressKind::Sip,
            Err(_) if text.starts_with("client:") => AddressKind::App,
            Err(_) if text.trim().is_empty() || text.eq_ignore_ascii_case("anonymous") => {
                AddressKind::Withheld
            }
            Err(_) => AddressKind::Other,
        };
        Address { text: Pii::new(text.to_owned()), kind }
    }

    /// An address that stands for "withheld" at this carrier, whatever it looks like.
    pub(crate) fn withheld(text: &str) -> Self {
        Address { text: Pii::new(text.to_owned()), kind: AddressKind::Withheld }
    }

    /// The address as the carrier wrote it.
    pub fn text(&self) -> &Pii<String> {
        &self.text
    }

    /// What it is.
    pub fn kind(&self) -> &AddressKind {
        &self.kind
    }

    /// The telephone number, if it is one.
    pub fn e164(&self) -> Option<&E164> {
        match &self.kind {
            AddressKind::Number(number) => Some(number.expose()),
            _ => None,
        }
    }
}

/// What one message of a media stream says. Audio itself is in the buffer that was given to the decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaEvent {
    /// The socket speaks the protocol; which call it is for is not known yet.
    Connected,
    /// The stream belongs to this call; hold everything until its ticket is checked.
    Started(Box<Started>),
    /// Audio from the caller, in the buffer.
    Audio,
    /// Everything sent before this mark has been played or cleared.
    Mark(String),
    /// The caller pressed a key.
    Dtmf(Pii<char>),
    /// Nothing follows.
    Stopped,
}

/// How a media stream introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The carrier's id of the leg.
    pub carrier_call: String,
    /// The carrier's id of the account.
    pub account: String,
    /// The carrier's id of the stream.
    pub stream: String,
    /// What we told the carrier to hand back, such as the ticket of the call.
    pub parameters: BTreeMap<String, Secret<String>>,
    /// How audio is coded, both ways.
    pub coding: Coding,
}

/// A call as the carrier remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRecord {
    /// The carrier's id of this leg.
    pub carrier_call: String,
    /// Who calls.
    pub from: Address,
    /// Who is called.
    pub to: Address,
    /// Who rang whom.
    pub direction: Direction,
    /// Where the call stands.
    pub status: CallStatus,
    /// The start of the call, µs since 1970 UTC, once it was dialled.
    pub started_us: Option<i64>,
    /// The end of the call, µs since 1970 UTC.
    pub ended_us: Option<i64>,
    /// Seconds of conversation, some seconds after the end.
    pub duration_s: Option<u32>,
    /// What picked up, where the carrier was asked to find out.
    pub answered_by: Option<AnsweredBy>,
}

/// What a test of a connection found. `Display` is the word for API and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that was tried is allowed.
    Ok {
        /// Whether the account is on trial, where the credentials may see it.
        trial: Option<bool>,
    },
    /// The carrier did not answer.
    Unreachable,
    /// The carrier does not know these credentials, here or in this region.
    WrongCredentials,
    /// The credentials are known, but not as this account's.
    WrongAccount,
    /// The secret cannot be one: a part of it may be missing.
    WrongSecret,
    /// The credentials are known in this region, not in the one that was named.
    WrongRegion(&'static str),
    /// The carrier has suspended the account.
    Suspended,
    /// The account is closed for good.
    Closed,
    /// The credentials are right but may not use an area.
    MissingPermission(Area),
}

impl Verdict {
    /// What is wrong; nothing, if nothing is.
    pub fn error(self) -> Option<CarrierError> {
        Some(match self {
            Verdict::Ok { .. } => return None,
            Verdict::Unreachable => CarrierError::Unreachable { cause: "it did not answer".into() },
            Verdict::WrongCredentials => CarrierError::WrongCredentials,
            Verdict::WrongAccount => CarrierError::WrongAccount,
            Verdict::WrongSecret => CarrierError::WrongSecret,
            Verdict::WrongRegion(region) => CarrierError::WrongRegion { region },
            Verdict::Suspended => CarrierError::Suspended,
            Verdict::Closed => CarrierError::Closed,
            Verdict::MissingPermission(area) => CarrierError::MissingPermission { area },
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Ok { .. } => f.write_str("ok"),
            Verdict::Unreachable => f.write_str("unreachable"),
            Verdict::WrongCredentials => f.write_str("wrong_credentials"),
            Verdict::WrongAccount => f.write_str("wrong_account"),
            Verdict::WrongSecret => f.write_str("wrong_secret"),
            Verdict::WrongRegion(region) => write!(f, "wrong_region:{region}"),
            Verdict::Suspended => f.write_str("suspended"),
            Verdict::Closed => f.write_str("closed"),
            Verdict::MissingPermission(area) => write!(f, "missing_permission:{area}"),
        }
    }
}

/// A part of a carrier's service that credentials may be kept out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// The account itself.
    Account,
    /// Telephone numbers.
    Numbers,
    /// Calls.
    Voice,
    /// Text messages.
    Messages,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Area::Account => "account",
            Area::Numbers => "numbers",
            Area::Voice => "voice",
            Area::Messages => "messages",
        })
    }
}

/// Why a carrier did not do what was asked, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    /// Ask the user for the current credentials, and for the account's region.
    #[error("the carrier does not accept these credentials")]
    WrongCredentials,
    /// Ask the user for the id of the account that the credentials belong to.
    #[error("these credentials belong to another account at the carrier")]
    WrongAccount,
    /// Ask the user to paste the secret again, whole.
    #[error("the secret is not formed as the carrier's secrets are: a part of it may be missing")]
    WrongSecret,
    /// Ask the user to set the region.
    #[error("these credentials belong to the carrier's region {region}")]
    WrongRegion {
        /// Where they are known.
        region: &'static str,
    },
    /// Ask the user to allow the area to these credentials.
    #[error("these credentials may not use the carrier's {area}")]
    MissingPermission {
        /// What they may not use.
        area: Area,
    },
    /// Ask the user to settle it with the carrier.
    #[error("the carrier has suspended the account")]
    Suspended,
    /// Ask the user for another account.
    #[error("the account at the carrier is closed")]
    Closed,
    /// Drop the reference to it.
    #[error("the carrier knows no such thing")]
    NotFound,
    /// Nothing is left to do to this call.
    #[error("the call is already over")]
    CallOver,
    /// Ask again later.
    #[error("the carrier asks for fewer requests")]
    RateLimited {
        /// How long the carrier wants to be left alone, if it says.
        retry_after_s: Option<u32>,
    },
    /// Ask again: nothing has happened at the carrier.
    #[error("the carrier cannot be reached: {cause}")]
    Unreachable {
        /// What went wrong on the way.
        cause: Cow<'static, str>,
    },
    /// Look whether it happened before asking again.
    #[error("the carrier may or may not have done it: {cause}")]
    OutcomeUnknown {
        /// What went wrong on the way.
        cause: Cow<'static, str>,
    },
    /// Change the request; the sentence says how.
    #[error("the carrier refused (code {code}): {sentence}")]
    Refused {
        /// The carrier's number for it, or the HTTP status where it gives none.
        code: u32,
        /// What the user needs to know.
        sentence: Cow<'static, str>,
        /// The carrier's own words, which may name people's numbers.
        detail: Pii<String>,
    },
    /// Change the request: it breaks a limit that the carrier has written down, so it was not sent.
    #[error("this cannot be asked of the carrier: {0}")]
    NotAskable(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_need_not_be_a_number() {
        let kind = |text| Address::read(text).kind().clone();
        assert_eq!(Address::read("+14155550100").e164().unwrap().as_str(), "+14155550100");
        assert_eq!(kind("sip:ada@offhook.example"), AddressKind::Sip);
        assert_eq!(kind("client:ada"), AddressKind::App);
        assert_eq!(kind("Anonymous"), AddressKind::Withheld);
        assert_eq!(kind(""), AddressKind::Withheld);
        assert_eq!(kind("85555"), AddressKind::Other);
        assert_eq!(
            format!("{:?}", Address::read("+14155550100")),
            "Address { text: [pii], kind: Number([pii]) }"
        );
    }

    #[test]
    fn a_late_report_has_the_lower_rank() {
        assert!(CallStatus::Ringing.rank() < CallStatus::InProgress.rank());
        assert!(CallStatus::Busy.is_over() && !CallStatus::InProgress.is_over());
    }
}
