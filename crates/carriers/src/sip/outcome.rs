//! What the answers to our INVITEs mean (`sip-trunk.md`, section 5, *Outbound results*). A table and nothing else.

use super::message::printable;
use crate::CallStatus;
use offhook_core::Pii;

/// How a call of ours failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{outcome}")]
pub struct DialFailure {
    /// What it means.
    pub outcome: Outcome,
    /// The SIP status that said so, if one did.
    pub status: Option<u16>,
    /// The far end's words.
    pub text: Option<Pii<String>>,
}

/// What a failed call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Outcome {
    /// The other phone is in use.
    #[error("the line is busy")]
    Busy,
    /// Nobody picked up.
    #[error("nobody answered")]
    NoAnswer,
    /// We gave up.
    #[error("the call was withdrawn")]
    Canceled,
    /// Somebody or something said no.
    #[error("the call was rejected")]
    Rejected,
    /// The number leads nowhere.
    #[error("there is no such number")]
    InvalidNumber,
    /// The audio of both ends does not fit.
    #[error("the far end's audio does not fit ours")]
    Media,
    /// Name, password or permission are missing.
    #[error("the trunk does not accept our credentials, or does not let us call there")]
    NotAllowed,
    /// The carrier's limits are reached.
    #[error("the carrier allows no more calls now")]
    CarrierLimit,
    /// The trunk sends us elsewhere, which it may not.
    #[error("the trunk redirects the call, which its settings do not allow")]
    Redirected,
    /// The trunk fails, or cannot be reached.
    #[error("the trunk cannot put the call through")]
    Failed,
}

impl DialFailure {
    pub(super) fn of(outcome: Outcome) -> Self {
        DialFailure { outcome, status: None, text: None }
    }

    /// What a final answer means.
    pub(super) fn answered(status: u16, text: &str) -> Self {
        let outcome = Outcome::of(status, text);
        let text = printable(text);
        DialFailure { outcome, status: Some(status), text: (!text.is_empty()).then(|| Pii::new(text)) }
    }

    /// Where the call stands, in every carrier's words.
    pub fn call_status(&self) -> CallStatus {
        match self.outcome {
            Outcome::Busy => CallStatus::Busy,
            Outcome::NoAnswer => CallStatus::NoAnswer,
            Outcome::Canceled => CallStatus::Canceled,
            _ => CallStatus::Failed,
        }
    }
}

impl Outcome {
    fn of(status: u16, text: &str) -> Self {
        match status {
            486 | 600 => Outcome::Busy,
            480 | 408 => Outcome::NoAnswer,
            487 => Outcome::Canceled,
            603 | 607 | 608 => Outcome::Rejected,
            404 | 410 | 484 | 604 => Outcome::InvalidNumber,
            488 | 606 | 415 => Outcome::Media,
            // Telnyx says with a 403 that its channels are used up: `User channel limit exceeded D1`.
            403 | 503 if speaks_of_channels(text) => Outcome::CarrierLimit,
            401 | 407 | 403 => Outcome::NotAllowed,
            402 | 429 => Outcome::CarrierLimit,
            300..=399 => Outcome::Redirected,
            _ => Outcome::Failed,
        }
    }
}

/// Whether another address of the trunk may do better (RFC 3263, section 4.3, and the server failures of the table).
pub fn is_worth_another_route(status: u16, text: &str) -> bool {
    matches!(status, 408 | 500 | 502 | 503 | 504) && !speaks_of_channels(text)
}

fn speaks_of_channels(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["channel", "concurrent", "limit exceeded", "capacity"].iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_its_meaning() {
        use Outcome::*;
        for (statuses, text, outcome) in [
            (&[486, 600][..], "", Busy),
            (&[480, 408], "", NoAnswer),
            (&[487], "", Canceled),
            (&[603, 607, 608], "Decline", Rejected),
            (&[404, 410, 484, 604], "", InvalidNumber),
            (&[488, 606, 415], "", Media),
            (&[401, 407, 403], "Forbidden", NotAllowed),
            (&[402, 429], "", CarrierLimit),
            (&[403, 503], "User channel limit exceeded D1", CarrierLimit),
            (&[500, 502, 503, 504, 481, 420, 699], "Server Error", Failed),
            (&[300, 301, 302, 380], "", Redirected),
        ] {
            for status in statuses {
                assert_eq!(DialFailure::answered(*status, text).outcome, outcome, "{status} {text}");
            }
        }
        assert!(is_worth_another_route(503, "Service Unavailable"));
        assert!(!is_worth_another_route(503, "Channel limit"));
        assert!(!is_worth_another_route(486, ""));
    }
}
