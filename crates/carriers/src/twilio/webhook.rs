//! Twilio's webhooks: reads a request, checks that Twilio signed it for us, and says what it tells.
//! It knows neither server nor store; which connection an account belongs to, and its auth tokens, is the caller's to find.

use super::signature::{made_by, url_forms};
use crate::{
    Address, AnsweredBy, CallStatus, DialOver, Direction, MediaOver, PublicUrl, Ring, StatusReport,
    StreamChange, StreamReport, Trouble,
};
use offhook_core::{Pii, Secret};
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::fmt::Write as _;
use url::form_urlencoded;

/// The largest body that is read; voice webhooks are about 1 KiB.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// The longest path and query that is read.
pub const MAX_PATH_AND_QUERY_BYTES: usize = 16 * 1024;
/// The most parameters that are read; voice webhooks have about 40.
pub const MAX_PARAMETERS: usize = 512;

/// The header with the signature.
pub const SIGNATURE_HEADER: &str = "x-twilio-signature";
/// The header that is the same on every delivery of one webhook.
pub const IDEMPOTENCY_HEADER: &str = "i-twilio-idempotency-token";

/// A number that Twilio shows in place of a withheld one: it spells ANONYMOUS on a telephone keypad.
const WITHHELD: &str = "+266696687";
/// Parameters that a third party reports as left out of some signatures.
const PERHAPS_UNCOVERED: [&str; 2] = ["CallToken", "StirVerstat"];
const MAX_ID_BYTES: usize = 64;
/// Twilio's codes for a page of ours that gave no good answer: HTTP failure, no connection, unknown host, TLS.
const UNANSWERED: [u32; 4] = [11200, 11205, 11210, 11220];

/// A request as it arrived.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// How it was sent.
    pub method: Method,
    /// Path and query as they arrived, still encoded; `Host` is not wanted.
    pub path_and_query: &'a str,
    /// The value of [`SIGNATURE_HEADER`].
    pub signature: Option<&'a str>,
    /// The value of [`IDEMPOTENCY_HEADER`].
    pub idempotency_token: Option<&'a str>,
    /// The value of `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The body, untouched.
    pub body: &'a [u8],
}

/// How a webhook is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Parameters are in the query.
    Get,
    /// Parameters are in the body.
    Post,
}

/// A webhook that has been read and not yet believed. Find the tokens of [`Unverified::account`], then [`Unverified::verify`].
pub struct Unverified<'a> {
    request: Request<'a>,
    form: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    json: Option<&'a [u8]>,
}

/// A webhook that Twilio signed for us. The route says which question to ask of it.
pub struct Signed<'a> {
    form: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    json: Option<&'a [u8]>,
    idempotency_token: Option<&'a str>,
}

/// Who came into a room or went, or that it began or is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomReport {
    /// The call that came or went.
    pub carrier_call: Option<String>,
    /// What happened.
    pub change: RoomChange,
}

/// What happens to a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomChange {
    /// Two are in and hear each other.
    Started,
    /// A call came in.
    Joined,
    /// A call has left.
    Left,
    /// Nobody is left.
    Ended,
}

/// Why a webhook is not believed or not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// Body, address or number of parameters is above its limit.
    #[error("the webhook is too large")]
    TooLarge,
    /// The body is neither a form nor JSON.
    #[error("the webhook has a body of an unknown type")]
    UnknownType,
    /// Whoever sent it did not even try to sign.
    #[error("the webhook is not signed")]
    Unsigned,
    /// The auth token or the public URL is wrong, or the request was changed or forged.
    #[error("the webhook's signature does not match its content, the public URL and the auth token")]
    WrongSignature {
        /// It matches once `CallToken` and `StirVerstat` are left out: worth a log line, not worth trust.
        matches_without_uncovered: bool,
    },
    /// The signature is right, the body is not the one that was signed.
    #[error("the webhook's body is not the one that was signed")]
    WrongBody,
    /// A parameter that is always there is missing.
    #[error("the webhook has no {0}")]
    Missing(&'static str),
    /// A parameter cannot be understood.
    #[error("the webhook's {0} cannot be understood")]
    Unreadable(&'static str),
}

impl WebhookError {
    /// The HTTP status that answers it.
    pub fn http_status(&self) -> u16 {
        match self {
            WebhookError::TooLarge => 413,
            WebhookError::UnknownType => 415,
            WebhookError::Unsigned | WebhookError::WrongSignature { .. } | WebhookError::WrongBody => 403,
            WebhookError::Missing(_) | WebhookError::Unreadable(_) => 400,
        }
    }
}

impl<'a> Unverified<'a> {
    /// Takes a request apart without believing it.
    pub fn read(request: Request<'a>) -> Result<Self, WebhookError> {
        if request.body.len() > MAX_BODY_BYTES || request.path_and_query.len() > MAX_PATH_AND_QUERY_BYTES {
            return Err(WebhookError::TooLarge);
        }
        let media_type = request.content_type.and_then(|t| t.split(';').next()).unwrap_or_default().trim();
        let is_form = media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded");
        let (encoded, json) = match request.method {
            Method::Get => (query_of(request.path_and_query).as_bytes(), None),
            Method::Post if is_form || request.body.is_empty() => (request.body, None),
            Method::Post if media_type.eq_ignore_ascii_case("application/json") => {
                (&[][..], Some(request.body))
            }
            Method::Post => return Err(WebhookError::UnknownType),
        };
        let form: Vec<_> = form_urlencoded::parse(encoded).take(MAX_PARAMETERS + 1).collect();
        if form.len() > MAX_PARAMETERS {
            return Err(WebhookError::TooLarge);
        }
        Ok(Unverified { request, form, json })
    }

    /// The account that the request claims to come from: good for finding tokens, for nothing else.
    pub fn account(&self) -> Option<&str> {
        first(&self.form, "AccountSid")
    }

    /// The number that the request claims was called: good for finding tokens, for nothing else.
    pub fn called(&self) -> Option<&str> {
        first(&self.form, "To")
    }

    /// The call that the request claims to be about: good for finding tokens, for nothing else.
    pub fn call(&self) -> Option<&str> {
        first(&self.form, "CallSid")
    }

    /// Believes the request if one of the account's auth tokens signed it for our public URL.
    ///
    /// Give one token, or two while they are rotated. An API key's secret signs nothing.
    pub fn verify(self, public: &PublicUrl, tokens: &[Secret<String>]) -> Result<Signed<'a>, WebhookError> {
        let signature = self.request.signature.ok_or(WebhookError::Unsigned)?;
        let urls = url_forms(&public.text_of(self.request.path_and_query));
        let signed_form = match self.request.method {
            Method::Get => &[][..],
            Method::Post => &self.form,
        };
        if !made_by(tokens, signature, &urls, signed_form) {
            let covered: Vec<_> = signed_form
                .iter()
                .filter(|(name, _)| !PERHAPS_UNCOVERED.contains(&&**name))
                .cloned()
                .collect();
            let matches_without_uncovered =
                covered.len() < signed_form.len() && made_by(tokens, signature, &urls, &covered);
            return Err(WebhookError::WrongSignature { matches_without_uncovered });
        }
        if let Some(body) = self.json {
            check_body_hash(self.request.path_and_query, body)?;
        }
        Ok(Signed { form: self.form, json: self.json, idempotency_token: self.request.idempotency_token })
    }
}

impl<'a> Signed<'a> {
    /// The voice webhook: a call asks for an answer.
    pub fn ring(&self) -> Result<Ring, WebhookError> {
        Ok(Ring {
            carrier_call: self.id("CallSid")?,
            account: self.id("AccountSid")?,
            from: address(self.value("From").unwrap_or_default()),
            to: address(self.value("To").ok_or(WebhookError::Missing("To"))?),
            forwarded_from: self.value("ForwardedFrom").map(address),
            caller_name: self.value("CallerName").map(|name| Pii::new(name.to_owned())),
            direction: direction(self.value("Direction").unwrap_or_default()),
            // A call that rings is answered even if its status has a new name.
            status: self.value("CallStatus").and_then(call_status).unwrap_or(CallStatus::Ringing),
            parent_call: self.value("ParentCallSid").map(str::to_owned),
            answered_by: self.value("AnsweredBy").map(answered_by),
            repeat_key: self.idempotency_token.map(str::to_owned),
        })
    }

    /// The fallback webhook: what we answered before could not be fetched or carried out.
    pub fn trouble(&self) -> Result<Trouble, WebhookError> {
        let code = self.value("ErrorCode").and_then(|code| code.parse().ok());
        let unanswered = code.is_some_and(|code| UNANSWERED.contains(&code));
        Ok(Trouble { ring: self.ring()?, code, url: self.value("ErrorUrl").map(str::to_owned), unanswered })
    }

    /// The status callback of a call.
    pub fn status(&self) -> Result<StatusReport, WebhookError> {
        let carrier_call = self.id("CallSid")?;
        let status_text = self.value("CallStatus").ok_or(WebhookError::Missing("CallStatus"))?;
        Ok(StatusReport {
            account: self.id("AccountSid")?,
            status: call_status(status_text).ok_or(WebhookError::Unreadable("CallStatus"))?,
            duration_s: self.value("CallDuration").and_then(|s| s.parse().ok()),
            sequence: self.value("SequenceNumber").and_then(|n| n.parse().ok()),
            at_us: self.value("Timestamp").and_then(rfc_2822_us),
            answered_by: self.value("AnsweredBy").map(answered_by),
            sip_response: self.value("SipResponseCode").and_then(|code| code.parse().ok()),
            repeat_key: format!("{carrier_call}+{status_text}"),
            carrier_call,
        })
    }

    /// The status callback of a media stream.
    pub fn stream(&self) -> Result<StreamReport, WebhookError> {
        let stream = self.id("StreamSid")?;
        let event = self.value("StreamEvent").ok_or(WebhookError::Missing("StreamEvent"))?;
        let change = match event {
            "stream-started" => StreamChange::Started,
            "stream-stopped" => StreamChange::Stopped,
            "stream-error" => StreamChange::Failed,
            _ => return Err(WebhookError::Unreadable("StreamEvent")),
        };
        Ok(StreamReport {
            carrier_call: self.id("CallSid")?,
            account: self.id("AccountSid")?,
            change,
            error: self.value("StreamError").map(str::to_owned),
            at_us: self
                .value("Timestamp")
                .and_then(|t| Some(t.parse::<jiff::Timestamp>().ok()?.as_microsecond())),
            repeat_key: format!("{stream}+{event}"),
            stream: Some(stream),
            url: None,
        })
    }

    /// The `action` of `<Connect>`: the media stream is over, what next?
    pub fn media_over(&self) -> Result<MediaOver, WebhookError> {
        let status = self.value("CallStatus").and_then(call_status).unwrap_or(CallStatus::InProgress);
        Ok(MediaOver { carrier_call: self.id("CallSid")?, account: self.id("AccountSid")?, status })
    }

    /// The `action` of `<Dial>`: the phone that was rung is done, what next?
    pub fn dial_over(&self) -> Result<DialOver, WebhookError> {
        let outcome = self.value("DialCallStatus").ok_or(WebhookError::Missing("DialCallStatus"))?;
        Ok(DialOver {
            carrier_call: self.id("CallSid")?,
            account: self.id("AccountSid")?,
            outcome: call_status(outcome).ok_or(WebhookError::Unreadable("DialCallStatus"))?,
            leg: self.value("DialCallSid").map(str::to_owned),
            duration_s: self.value("DialCallDuration").and_then(|s| s.parse().ok()),
        })
    }

    /// The status callback of a room: who came or went. `None`: an event that changes nothing for the two in it.
    ///
    /// Whether events carry their long names (`participant-join`) or the short ones that they are asked for by (`join`) is not
    /// documented.
    pub fn room(&self) -> Result<Option<RoomReport>, WebhookError> {
        let event = self.value("StatusCallbackEvent").ok_or(WebhookError::Missing("StatusCallbackEvent"))?;
        let change = match event {
            "conference-start" | "start" => RoomChange::Started,
            "conference-end" | "end" => RoomChange::Ended,
            "participant-join" | "join" => RoomChange::Joined,
            "participant-leave" | "leave" => RoomChange::Left,
            _ => return Ok(None),
        };
        let carrier_call = self.value("CallSid").map(|_| self.id("CallSid")).transpose()?;
        Ok(Some(RoomReport { carrier_call, change }))
    }

    /// The body of a webhook that came as JSON.
    pub fn json(&self) -> Option<&'a [u8]> {
        self.json
    }

    /// The first value of a parameter, if it is not empty.
    fn value(&self, name: &str) -> Option<&str> {
        first(&self.form, name).filter(|value| !value.is_empty())
    }

    fn id(&self, name: &'static str) -> Result<String, WebhookError> {
        let id = self.value(name).ok_or(WebhookError::Missing(name))?;
        let shape = id.len() <= MAX_ID_BYTES && id.bytes().all(|b| b.is_ascii_alphanumeric());
        if shape { Ok(id.to_owned()) } else { Err(WebhookError::Unreadable(name)) }
    }
}

/// Checks the upgrade request of a media socket, which is signed over its `wss` URL without parameters.
///
/// Some regions may sign it as `https` (unverified), so that is tried too. The path must not be empty.
pub fn verify_upgrade(
    public: &PublicUrl,
    path_and_query: &str,
    signature: Option<&str>,
    tokens: &[Secret<String>],
) -> Result<(), WebhookError> {
    if path_and_query.len() > MAX_PATH_AND_QUERY_BYTES {
        return Err(WebhookError::TooLarge);
    }
    let signature = signature.ok_or(WebhookError::Unsigned)?;
    let page = public.text_of(path_and_query);
    let socket = page.replacen("http", "ws", 1);
    let signed = [socket, page].iter().any(|url| made_by(tokens, signature, &url_forms(url), &[]));
    if signed { Ok(()) } else { Err(WebhookError::WrongSignature { matches_without_uncovered: false }) }
}

/// JSON bodies are signed through their hash, which Twilio puts into the query.
fn check_body_hash(path_and_query: &str, body: &[u8]) -> Result<(), WebhookError> {
    let query = form_urlencoded::parse(query_of(path_and_query).as_bytes());
    let promised = query.filter(|(name, _)| name == "bodySHA256").map(|(_, hash)| hash).next();
    let promised = promised.ok_or(WebhookError::Missing("bodySHA256"))?;
    let mut actual = String::with_capacity(64);
    for byte in Sha256::digest(body) {
        let _ = write!(actual, "{byte:02x}");
    }
    if actual.eq_ignore_ascii_case(&promised) { Ok(()) } else { Err(WebhookError::WrongBody) }
}

fn query_of(path_and_query: &str) -> &str {
    path_and_query.split_once('?').map_or("", |(_, query)| query)
}

fn first<'f>(form: &'f [(Cow<'_, str>, Cow<'_, str>)], name: &str) -> Option<&'f str> {
    form.iter().find(|(n, _)| n == name).map(|(_, value)| &**value)
}

pub(super) fn address(text: &str) -> Address {
    if text == WITHHELD { Address::withheld(text) } else { Address::read(text) }
}

pub(super) fn direction(text: &str) -> Direction {
    if text.starts_with("outbound") { Direction::Outbound } else { Direction::Inbound }
}

pub(super) fn call_status(text: &str) -> Option<CallStatus> {
    Some(match text {
        "queued" => CallStatus::Queued,
        "initiated" => CallStatus::Dialing,
        "ringing" => CallStatus::Ringing,
        "in-progress" => CallStatus::InProgress,
        "completed" => CallStatus::Completed,
        "busy" => CallStatus::Busy,
        "no-answer" => CallStatus::NoAnswer,
        "failed" => CallStatus::Failed,
        "canceled" => CallStatus::Canceled,
        _ => return None,
    })
}

pub(super) fn answered_by(text: &str) -> AnsweredBy {
    match text {
        "human" => AnsweredBy::Human,
        "machine_start" => AnsweredBy::Machine,
        "machine_end_beep" | "machine_end_silence" | "machine_end_other" => AnsweredBy::MachineAfterGreeting,
        "fax" => AnsweredBy::Fax,
        _ => AnsweredBy::Unknown,
    }
}

pub(super) fn rfc_2822_us(text: &str) -> Option<i64> {
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::super::signature::sign;
    use super::*;
    use crate::AddressKind;
    use proptest::prelude::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    const FORM: Option<&str> = Some("application/x-www-form-urlencoded; charset=UTF-8");
    const JSON: Option<&str> = Some("application/json");
    const VOICE: &str = "AccountSid=AC00000000000000000000000000000001&ApiVersion=2010-04-01&CallSid=CA00000000000000000000000000000001\
        &CallStatus=ringing&Direction=inbound&From=%2B14155550100&To=%2B14155550101";
    const VOICE_SIGNATURE: &str = "UwN8SHJmGgrWPEnwflKbhbHdLH0=";

    #[test]
    fn a_signed_voice_webhook_rings() {
        let request = Request { idempotency_token: Some("token-1"), ..voice(VOICE, VOICE_SIGNATURE) };
        let unverified = Unverified::read(request).unwrap();
        assert_eq!(unverified.account(), Some("AC00000000000000000000000000000001"));
        let ring = unverified
            .verify(&public(), &tokens())
            .map(|w| w.ring().unwrap())
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(ring.carrier_call, "CA00000000000000000000000000000001");
        assert_eq!(ring.from.e164().unwrap().as_str(), "+14155550100");
        assert_eq!((ring.direction, ring.status), (Direction::Inbound, CallStatus::Ringing));
        assert_eq!(ring.repeat_key.as_deref(), Some("token-1"));
        assert_eq!((ring.forwarded_from, ring.caller_name, ring.answered_by), (None, None, None));
    }

    #[test]
    fn an_unsigned_tampered_or_foreign_webhook_is_refused() {
        let unsigned = Request { signature: None, ..voice(VOICE, "") };
        assert_eq!(verified(unsigned).err(), Some(WebhookError::Unsigned));
        let tampered = VOICE.replace("14155550100", "14155550109");
        let wrong = WebhookError::WrongSignature { matches_without_uncovered: false };
        assert_eq!(verified(voice(&tampered, VOICE_SIGNATURE)).err(), Some(wrong.clone()));
        let elsewhere = Request { path_and_query: "/twilio/other", ..voice(VOICE, VOICE_SIGNATURE) };
        assert_eq!(verified(elsewhere).err(), Some(wrong.clone()));
        let added = format!("{VOICE}&Extra=1");
        assert_eq!(verified(voice(&added, VOICE_SIGNATURE)).err(), Some(wrong));
        assert_eq!(WebhookError::Unsigned.http_status(), 403);
    }

    #[test]
    fn a_post_cannot_borrow_the_signature_of_a_get() {
        let path = format!("/twilio/voice?{VOICE}");
        let signature = sign(TOKEN, &format!("https://offhook.example{path}"), &[]);
        let get = Request {
            method: Method::Get,
            path_and_query: &path,
            content_type: None,
            ..voice("", &signature)
        };
        assert_eq!(verified(get).unwrap().ring().unwrap().to.e164().unwrap().as_str(), "+14155550101");
        let post = Request { path_and_query: &path, ..voice("", &signature) };
        assert_eq!(verified(post).unwrap().ring().err(), Some(WebhookError::Missing("CallSid")));
    }

    #[test]
    fn parameters_left_out_of_the_signature_are_told_and_not_trusted() {
        let with_token = format!("{VOICE}&CallToken=abc");
        let error = verified(voice(&with_token, VOICE_SIGNATURE)).err();
        assert_eq!(error, Some(WebhookError::WrongSignature { matches_without_uncovered: true }));
    }

    #[test]
    fn repeated_parameters_and_any_script_are_signed_over() {
        let body =
            "CallSid=CA1&AccountSid=AC1&To=%2B14155550101&X=b&X=a&X=b&CallerName=Zo%C3%AB+%F0%9F%98%80";
        let form = [
            ("CallSid", "CA1"),
            ("AccountSid", "AC1"),
            ("To", "+14155550101"),
            ("X", "a"),
            ("X", "b"),
            ("CallerName", "Zoë 😀"),
        ];
        let signature = sign(TOKEN, "https://offhook.example/twilio/voice", &form);
        let ring = verified(voice(body, &signature)).unwrap().ring().unwrap();
        assert_eq!(ring.caller_name.unwrap().expose(), "Zoë 😀");
        assert_eq!(ring.from.kind(), &AddressKind::Withheld);
    }

    #[test]
    fn a_json_body_is_bound_by_its_hash() {
        let path =
            "/hooks/twilio?bodySHA256=2d9c95a7b02d34fcd937555555970ef0183483946d5268fbcf68a324674be708";
        let json = |body| Request {
            path_and_query: path,
            content_type: JSON,
            body,
            ..voice("", "2KcITvhmpP4+DiXOA+wHNTIqzF8=")
        };
        assert_eq!(verified(json(br#"{"event":"test"}"#)).unwrap().json(), Some(&br#"{"event":"test"}"#[..]));
        assert_eq!(verified(json(br#"{"event":"best"}"#)).err(), Some(WebhookError::WrongBody));
        let signature = sign(TOKEN, "https://offhook.example/hooks/twilio", &[]);
        let bare = Request { path_and_query: "/hooks/twilio", signature: Some(&signature), ..json(b"{}") };
        assert_eq!(verified(bare).err(), Some(WebhookError::Missing("bodySHA256")));
    }

    #[test]
    fn a_media_socket_is_signed_over_wss_or_https() {
        let upgrade =
            |signature: Option<&str>| verify_upgrade(&public(), "/twilio/media", signature, &tokens());
        assert_eq!(upgrade(Some("Hz47oo1sYfzGI9T0bLvrW9+fDl8=")), Ok(()));
        for url in ["wss://offhook.example:443/twilio/media", "https://offhook.example/twilio/media"] {
            assert_eq!(upgrade(Some(&sign(TOKEN, url, &[]))), Ok(()), "{url}");
        }
        assert_eq!(upgrade(None), Err(WebhookError::Unsigned));
        let other = sign(TOKEN, "wss://offhook.example/twilio/media2", &[]);
        assert!(upgrade(Some(&other)).is_err());
    }

    #[test]
    fn too_much_is_refused_before_it_is_read() {
        let body = "a".repeat(MAX_BODY_BYTES + 1);
        assert_eq!(Unverified::read(voice(&body, "")).err(), Some(WebhookError::TooLarge));
        let body = "a&".repeat(MAX_PARAMETERS + 1);
        assert_eq!(Unverified::read(voice(&body, "")).err(), Some(WebhookError::TooLarge));
        let multipart = Request { content_type: Some("multipart/form-data"), ..voice("a", "") };
        assert_eq!(Unverified::read(multipart).err(), Some(WebhookError::UnknownType));
    }

    #[test]
    fn the_fallback_names_what_went_wrong() {
        let trouble = signed(
            "CallSid=CA1&AccountSid=AC1&To=b&From=%2B266696687&CallStatus=in-progress&Direction=outbound-api\
             &ForwardedFrom=%2B14155550102&AnsweredBy=machine_end_beep&ErrorCode=11200&ErrorUrl=https%3A%2F%2Fh%2Fv",
        );
        let trouble = trouble.trouble().unwrap();
        assert_eq!((trouble.code, trouble.url.as_deref()), (Some(11200), Some("https://h/v")));
        assert_eq!(trouble.ring.from.kind(), &AddressKind::Withheld);
        assert_eq!(trouble.ring.direction, Direction::Outbound);
        assert_eq!(trouble.ring.forwarded_from.unwrap().e164().unwrap().as_str(), "+14155550102");
        assert_eq!(trouble.ring.answered_by, Some(AnsweredBy::MachineAfterGreeting));
        assert_eq!(trouble.ring.repeat_key, None);
    }

    #[test]
    fn a_status_callback_is_told_from_its_repeat() {
        let report = signed(
            "CallSid=CA1&AccountSid=AC1&From=%2B14155550101&To=%2B14155550199&CallStatus=no-answer&Direction=outbound-api\
             &CallDuration=0&Timestamp=Fri%2C+21+Nov+2025+09%3A00%3A31+%2B0000&CallbackSource=call-progress-events&SequenceNumber=3",
        );
        let report = report.status().unwrap();
        assert_eq!(
            (report.status, report.duration_s, report.sequence),
            (CallStatus::NoAnswer, Some(0), Some(3))
        );
        assert_eq!(report.at_us, Some(1_763_715_631_000_000));
        assert_eq!(report.repeat_key, "CA1+no-answer");
        let strange = signed("CallSid=CA1&AccountSid=AC1&CallStatus=levitating");
        assert_eq!(strange.status().err(), Some(WebhookError::Unreadable("CallStatus")));
        let hostile = signed("CallSid=..%2FAccounts&AccountSid=AC1&CallStatus=busy");
        assert_eq!(hostile.status().err(), Some(WebhookError::Unreadable("CallSid")));
    }

    #[test]
    fn a_stream_callback_tells_of_failure() {
        let report = signed(
            "AccountSid=AC1&CallSid=CA1&StreamSid=MZ1&StreamName=x&StreamEvent=stream-error&StreamError=31921\
             &Timestamp=2025-11-21T09%3A00%3A31.5Z",
        );
        let report = report.stream().unwrap();
        assert_eq!((report.change, report.error.as_deref()), (StreamChange::Failed, Some("31921")));
        assert_eq!(
            (report.at_us, report.repeat_key.as_str()),
            (Some(1_763_715_631_500_000), "MZ1+stream-error")
        );
    }

    #[test]
    fn after_the_stream_the_status_says_whether_anybody_listens() {
        let over = |body| signed(body).media_over().unwrap().status;
        assert_eq!(over("CallSid=CA1&AccountSid=AC1&CallStatus=completed"), CallStatus::Completed);
        assert_eq!(over("CallSid=CA1&AccountSid=AC1&CallStatus=in-progress"), CallStatus::InProgress);
    }

    #[test]
    fn a_forwarded_caller_comes_back_with_the_outcome() {
        let over = signed(
            "CallSid=CA1&AccountSid=AC1&CallStatus=in-progress&DialCallStatus=no-answer&DialCallSid=CA2",
        );
        let over = over.dial_over().unwrap();
        assert_eq!(
            (over.outcome, over.leg.as_deref(), over.duration_s),
            (CallStatus::NoAnswer, Some("CA2"), None)
        );
        let strange = signed("CallSid=CA1&AccountSid=AC1&CallStatus=in-progress");
        assert_eq!(strange.dial_over().err(), Some(WebhookError::Missing("DialCallStatus")));
    }

    #[test]
    fn a_room_tells_who_comes_and_goes_in_long_names_or_short_ones() {
        for (event, change) in [
            ("participant-join", Some(RoomChange::Joined)),
            ("join", Some(RoomChange::Joined)),
            ("conference-start", Some(RoomChange::Started)),
            ("start", Some(RoomChange::Started)),
            ("participant-leave", Some(RoomChange::Left)),
            ("conference-end", Some(RoomChange::Ended)),
            ("participant-mute", None),
        ] {
            let body = format!("ConferenceSid=CF1&FriendlyName=r&CallSid=CA1&StatusCallbackEvent={event}");
            let report = signed(&body).room().unwrap();
            assert_eq!(report.as_ref().map(|report| report.change), change, "{event}");
            assert!(report.is_none_or(|report| report.carrier_call.as_deref() == Some("CA1")));
        }
        let begun = signed("ConferenceSid=CF1&StatusCallbackEvent=conference-start").room().unwrap();
        assert_eq!(begun, Some(RoomReport { carrier_call: None, change: RoomChange::Started }));
        assert!(signed("ConferenceSid=CF1").room().is_err());
    }

    proptest! {
        #[test]
        fn no_request_makes_it_panic(
            post: bool,
            path in "\\PC{0,80}",
            json: bool,
            signature in proptest::option::of("[A-Za-z0-9+/=]{0,40}"),
            body in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let method = if post { Method::Post } else { Method::Get };
            let content_type = if json { JSON } else { FORM };
            let signature = signature.as_deref();
            let request =
                Request { method, path_and_query: &path, signature, idempotency_token: None, content_type, body: &body };
            prop_assert!(verified(request).is_err());
        }

        #[test]
        fn no_signed_parameters_make_it_panic(
            values in proptest::collection::vec((0..PARAMETERS.len(), "\\PC{0,30}"), 0..12),
        ) {
            let form = values.into_iter().map(|(name, value)| (PARAMETERS[name].into(), value.into())).collect();
            let signed = Signed { form, json: None, idempotency_token: None };
            let _ = (signed.ring(), signed.trouble(), signed.status(), signed.stream());
            let _ = (signed.media_over(), signed.dial_over(), signed.room());
        }
    }

    const PARAMETERS: [&str; 14] = [
        "StatusCallbackEvent",
        "CallSid",
        "AccountSid",
        "From",
        "To",
        "CallStatus",
        "Direction",
        "Timestamp",
        "StreamSid",
        "StreamEvent",
        "CallDuration",
        "ErrorCode",
        "AnsweredBy",
        "SequenceNumber",
    ];

    fn voice<'a>(body: &'a str, signature: &'a str) -> Request<'a> {
        Request {
            method: Method::Post,
            path_and_query: "/twilio/voice",
            signature: Some(signature),
            idempotency_token: None,
            content_type: FORM,
            body: body.as_bytes(),
        }
    }

    fn verified(request: Request<'_>) -> Result<Signed<'_>, WebhookError> {
        Unverified::read(request)?.verify(&public(), &tokens())
    }

    fn signed(body: &str) -> Signed<'_> {
        let form = form_urlencoded::parse(body.as_bytes()).collect();
        Signed { form, json: None, idempotency_token: None }
    }

    fn public() -> PublicUrl {
        "https://offhook.example".parse().unwrap()
    }

    fn tokens() -> [Secret<String>; 1] {
        [Secret::new(TOKEN.to_owned())]
    }
}
