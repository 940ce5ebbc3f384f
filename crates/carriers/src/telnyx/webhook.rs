//! Telnyx's webhooks: reads one, checks that Telnyx signed it for this account, and says what it tells.
//! It knows neither server nor store; which connection an application belongs to, and its public key, is the caller's to find.

use super::event::{Event, Leg, event};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fmt;
use std::str::FromStr;

/// The largest body that is read; voice webhooks are about 1 KiB.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// How far the signed moment may be from now, in seconds.
pub const TOLERANCE_S: u64 = 300;
/// The header with the signature.
pub const SIGNATURE_HEADER: &str = "telnyx-signature-ed25519";
/// The header with the moment that is signed with the body, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "telnyx-timestamp";

const MAX_ID_BYTES: usize = 256;
const MAX_TIMESTAMP_BYTES: usize = 20;

/// The key that proves that a webhook is the account's: one for each account, shown in the Telnyx portal as 44 Base64 characters.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// Why a text is no public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public key is 44 characters that end in =, from API keys, Public key, in the Telnyx portal")]
pub struct NotAPublicKey;

impl FromStr for PublicKey {
    type Err = NotAPublicKey;

    fn from_str(text: &str) -> Result<Self, NotAPublicKey> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| NotAPublicKey)?;
        let bytes = bytes.try_into().map_err(|_| NotAPublicKey)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| NotAPublicKey)?;
        // Anybody can sign for a weak key.
        if key.is_weak() { Err(NotAPublicKey) } else { Ok(PublicKey(key)) }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// What signs a webhook, as its headers have it.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The value of [`TIMESTAMP_HEADER`].
    pub timestamp: Option<&'a str>,
    /// The value of [`SIGNATURE_HEADER`].
    pub signature: Option<&'a str>,
}

/// A webhook that has been read and not yet believed. Find the keys of its application or number, then [`Unverified::verify`].
#[derive(Clone, Debug)]
pub struct Unverified<'a> {
    body: &'a [u8],
    webhook: Webhook,
}

/// A webhook of Telnyx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The same on every delivery of one webhook: what an inbox is keyed by.
    pub id: String,
    /// Telnyx's name of what happened, such as `call.answered`.
    pub kind: String,
    /// When it happened, µs since 1970 UTC by the carrier's clock. Webhooks come in any order: this is theirs.
    pub occurred_at_us: Option<i64>,
    /// Which attempt at delivering it this is, from 1.
    pub attempt: u32,
    /// The leg that it tells of; an order of numbers has none.
    pub leg: Option<Leg>,
    /// What happened.
    pub event: Event,
}

/// Why a webhook is not believed or not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// Its limit is [`MAX_BODY_BYTES`].
    #[error("the webhook is too large")]
    TooLarge,
    /// It is no JSON, or none in Telnyx's envelope.
    #[error("the webhook is malformed at line {line}, column {column}")]
    Malformed {
        /// Where it stopped making sense, from 1.
        line: usize,
        /// Where it stopped making sense, from 1.
        column: usize,
    },
    /// Whoever sent it did not even try to sign.
    #[error("the webhook is not signed")]
    Unsigned,
    /// It was sent long ago and kept, or one of the clocks is wrong.
    #[error("the webhook was signed {off_by_s} s away from now: it is old, or a clock is wrong")]
    OtherTime {
        /// The distance in seconds; negative is in our future.
        off_by_s: i64,
    },
    /// The public key is wrong, or the request was changed or forged.
    #[error("the webhook's signature does not match its content and the account's public key")]
    WrongSignature,
    /// A field that is always there is missing.
    #[error("the webhook has no {0}")]
    Missing(&'static str),
    /// A field cannot be understood.
    #[error("the webhook's {0} cannot be understood")]
    Unreadable(&'static str),
}

impl WebhookError {
    /// The HTTP status that answers it.
    pub fn http_status(&self) -> u16 {
        match self {
            WebhookError::TooLarge => 413,
            WebhookError::Unsigned | WebhookError::OtherTime { .. } | WebhookError::WrongSignature => 403,
            WebhookError::Malformed { .. } | WebhookError::Missing(_) | WebhookError::Unreadable(_) => 400,
        }
    }
}

impl<'a> Unverified<'a> {
    /// Takes a webhook apart without believing it.
    pub fn read(body: &'a [u8]) -> Result<Self, WebhookError> {
        if body.len() > MAX_BODY_BYTES {
            return Err(WebhookError::TooLarge);
        }
        let malformed = |e: serde_json::Error| WebhookError::Malformed { line: e.line(), column: e.column() };
        let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(malformed)?;
        let data = envelope.data;
        let (leg, event) = event(&data.event_type, &data.id, us(data.occurred_at.as_deref()), data.payload)?;
        let webhook = Webhook {
            id: id(data.id, "id")?,
            kind: data.event_type,
            occurred_at_us: us(data.occurred_at.as_deref()),
            attempt: envelope.meta.and_then(|meta| meta.attempt).unwrap_or(1),
            leg,
            event,
        };
        Ok(Unverified { body, webhook })
    }

    /// The application that the webhook claims to be for: good for finding keys, for nothing else.
    pub fn application(&self) -> Option<&str> {
        self.webhook.leg.as_ref()?.application.as_deref()
    }

    /// The call that the webhook claims to be about: good for finding keys, for nothing else.
    pub fn call(&self) -> Option<&str> {
        Some(&self.webhook.leg.as_ref()?.carrier_call)
    }

    /// The number that the webhook claims was called: good for finding keys, for nothing else.
    pub fn called(&self) -> Option<&str> {
        match &self.webhook.event {
            Event::Rings(ring) => Some(ring.to.text().expose()),
            _ => None,
        }
    }

    /// What we told Telnyx to bring back, as the webhook claims: good for finding keys, for nothing else.
    pub fn client_state(&self) -> Option<&str> {
        self.webhook.leg.as_ref()?.client_state.as_deref()
    }

    /// Believes the webhook if one of the account's keys signed it not more than [`TOLERANCE_S`] from `now_s`, seconds since 1970.
    ///
    /// Give one key, or two while they are rotated.
    pub fn verify(self, signed: Signed<'_>, keys: &[PublicKey], now_s: i64) -> Result<Webhook, WebhookError> {
        verify(signed, self.body, keys, now_s)?;
        Ok(self.webhook)
    }
}

/// Checks a signature over `timestamp|body`.
pub fn verify(signed: Signed<'_>, body: &[u8], keys: &[PublicKey], now_s: i64) -> Result<(), WebhookError> {
    let (Some(timestamp), Some(signature)) = (signed.timestamp, signed.signature) else {
        return Err(WebhookError::Unsigned);
    };
    let at_s = timestamp.bytes().all(|b| b.is_ascii_digit()) && timestamp.len() < MAX_TIMESTAMP_BYTES;
    let at_s = at_s.then(|| timestamp.parse::<i64>().ok()).flatten();
    let at_s = at_s.ok_or(WebhookError::Unreadable("timestamp"))?;
    let signature = STANDARD.decode(signature.trim()).ok();
    let signature = signature.and_then(|bytes| Signature::from_slice(&bytes).ok());
    let signature = signature.ok_or(WebhookError::Unreadable("signature"))?;
    let mut message = Vec::with_capacity(timestamp.len() + 1 + body.len());
    message.extend_from_slice(timestamp.as_bytes());
    message.push(b'|');
    message.extend_from_slice(body);
    if !keys.iter().any(|key| key.0.verify_strict(&message, &signature).is_ok()) {
        return Err(WebhookError::WrongSignature);
    }
    // Told only to those who can sign: a wrong clock is a thing to repair.
    if now_s.abs_diff(at_s) > TOLERANCE_S {
        return Err(WebhookError::OtherTime { off_by_s: now_s.saturating_sub(at_s) });
    }
    Ok(())
}

/// An id of Telnyx, of which nothing but its length is known.
pub(super) fn id(text: String, name: &'static str) -> Result<String, WebhookError> {
    if text.is_empty() {
        return Err(WebhookError::Missing(name));
    }
    let shape = text.len() <= MAX_ID_BYTES && text.bytes().all(|b| b.is_ascii_graphic());
    if shape { Ok(text) } else { Err(WebhookError::Unreadable(name)) }
}

/// µs since 1970 of an RFC 3339 text.
pub(super) fn us(text: Option<&str>) -> Option<i64> {
    Some(text?.parse::<jiff::Timestamp>().ok()?.as_microsecond())
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Data<'a>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Data<'a> {
    id: String,
    event_type: String,
    occurred_at: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta {
    attempt: Option<u32>,
}
