//! What Telnyx's webhooks tell ("Call Control webhooks"), turned into words that no carrier owns.
//! A kind of webhook that is not known is no error: Telnyx adds some.

use super::numbers::{OrderResource, bought, micros};
use super::webhook::{WebhookError, id, us};
use crate::{
    Address, AnsweredBy, Bought, CallStatus, Direction, Price, Ring, StatusReport, StreamChange, StreamReport,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use offhook_core::{Pii, Secret};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The leg that a webhook tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The id that commands are given to.
    pub carrier_call: String,
    /// The same for every leg that belongs together.
    pub session: Option<String>,
    /// The id of the call control application.
    pub application: Option<String>,
    /// What we told Telnyx to bring back.
    pub client_state: Option<String>,
}

/// What a webhook tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody rings one of our numbers, and waits for `answer` or `reject`.
    Rings(Box<Ring>),
    /// A call of ours is being dialled.
    Dials(StatusReport),
    /// Both ends can talk.
    Answered {
        /// The same for every carrier.
        report: StatusReport,
        /// A stream of its audio was asked for with the answer; without it, ask now.
        streams: bool,
    },
    /// Two legs are joined.
    Bridged,
    /// The leg is over. Nothing follows but what is saved and what it cost.
    HungUp(HungUp),
    /// What became of the stream of its audio.
    Stream(StreamReport),
    /// A key was pressed. The media socket tells it too: take one of the two.
    Key(Pii<char>),
    /// Keys that were asked for have come, or not.
    Gathered {
        /// The keys.
        keys: Pii<String>,
        /// They are as they were asked for.
        valid: bool,
    },
    /// A text or a recording begins to be played.
    Plays,
    /// It is over.
    Played {
        /// To its end.
        completed: bool,
    },
    /// What picked up.
    AnsweredBy(AnsweredBy),
    /// The audio of the call is kept at Telnyx, for ten minutes at this address.
    Recorded(Recording),
    /// It is not.
    NotRecorded {
        /// Telnyx's own words.
        reason: String,
    },
    /// The words of a recording.
    RecordedWords(Pii<String>),
    /// Words as Telnyx understood them.
    Transcript(Transcript),
    /// What became of a REFER, with the SIP response of the other end.
    Referred {
        /// It is over.
        done: bool,
        /// The other end's answer.
        sip_response: Option<u16>,
    },
    /// One end put the other on hold, or took it back.
    Hold(bool),
    /// What the leg cost.
    Cost(Cost),
    /// How an order of numbers stands.
    Order {
        /// Its id.
        order: String,
        /// What it was placed with.
        reference: Option<String>,
        /// What became of it.
        bought: Bought,
    },
    /// Anything else; the webhook's `kind` says what.
    Other,
}

/// The end of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HungUp {
    /// The same for every carrier.
    pub report: StatusReport,
    /// Which side ended it: the caller of this leg, the callee, or nobody knows.
    pub by: Option<Side>,
    /// Telnyx's own word for why.
    pub cause: String,
}

/// The two sides of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who rang.
    Caller,
    /// Who was rung.
    Callee,
}

/// A recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Where it can be fetched; whoever has the address can.
    pub url: Secret<String>,
    /// It has both sides apart.
    pub dual: bool,
    /// Its start, µs since 1970 UTC.
    pub started_us: Option<i64>,
    /// Its end, µs since 1970 UTC.
    pub ended_us: Option<i64>,
}

/// Words as Telnyx understood them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// The words.
    pub text: Pii<String>,
    /// They stay.
    pub is_final: bool,
    /// They are the other end's, not ours.
    pub inbound: bool,
}

/// What a leg cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// In all; `None`: Telnyx could not say.
    pub total: Option<Price>,
    /// Seconds that were charged.
    pub billed_s: Option<u32>,
}

/// Turns a webhook's content into words of ours; `webhook` is its id.
pub(super) fn event(
    kind: &str,
    webhook: &str,
    at_us: Option<i64>,
    payload: Option<&RawValue>,
) -> Result<(Option<Leg>, Event), WebhookError> {
    if kind == "number_order.complete" {
        let order: OrderResource = parse(payload)?;
        let event = Event::Order {
            bought: bought(&order),
            order: id(order.id, "payload.id")?,
            reference: order.customer_reference,
        };
        return Ok((None, event));
    }
    if !["call.", "streaming."].iter().any(|ours| kind.starts_with(ours)) {
        return Ok((None, Event::Other));
    }
    let payload: Payload = parse(payload)?;
    let carrier_call = id(payload.call_control_id.clone().unwrap_or_default(), "call_control_id");
    let carrier_call = match (carrier_call, kind) {
        // Documented without one; its leg is known by `client_state`.
        (Err(WebhookError::Missing(_)), "call.recording.saved" | "call.recording.transcription.saved") => {
            payload.call_leg_id.clone().unwrap_or_default()
        }
        (carrier_call, _) => carrier_call?,
    };
    let leg = Leg {
        carrier_call,
        session: payload.call_session_id.clone(),
        application: payload.connection_id.clone(),
        client_state: payload.client_state.as_deref().and_then(state),
    };
    let event = payload.event(kind, webhook, at_us, &leg)?;
    Ok((Some(leg), event))
}

fn parse<'a, T: Deserialize<'a>>(payload: Option<&'a RawValue>) -> Result<T, WebhookError> {
    let payload = payload.ok_or(WebhookError::Missing("payload"))?;
    serde_json::from_str(payload.get()).map_err(|_| WebhookError::Unreadable("payload"))
}

/// States travel in Base64; one that is none was set by somebody else.
pub(super) fn state(text: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(text).ok()?).ok().filter(|state| !state.is_empty())
}

#[derive(Deserialize)]
struct Payload {
    call_control_id: Option<String>,
    call_leg_id: Option<String>,
    call_session_id: Option<String>,
    connection_id: Option<String>,
    client_state: Option<String>,
    direction: Option<String>,
    from: Option<String>,
    to: Option<String>,
    caller_id_name: Option<String>,
    #[serde(default)]
    sip_headers: Option<Vec<Header>>,
    stream_url: Option<String>,
    stream_id: Option<String>,
    stream_params: Option<StreamParams>,
    failure_reason: Option<String>,
    hangup_cause: Option<String>,
    hangup_source: Option<String>,
    sip_hangup_cause: Option<Value>,
    digit: Option<String>,
    digits: Option<String>,
    status: Option<String>,
    result: Option<String>,
    reason: Option<String>,
    channels: Option<String>,
    recording_urls: Option<Urls>,
    public_recording_urls: Option<Urls>,
    recording_started_at: Option<String>,
    recording_ended_at: Option<String>,
    transcription_text: Option<String>,
    transcription_data: Option<TranscriptionData>,
    sip_notify_response: Option<Value>,
    total_cost: Option<Value>,
    billed_duration_secs: Option<Value>,
    cost_parts: Option<Vec<CostPart>>,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct StreamParams {
    stream_url: Option<String>,
}

#[derive(Deserialize)]
struct Urls {
    mp3: Option<String>,
    wav: Option<String>,
}

#[derive(Deserialize)]
struct TranscriptionData {
    transcript: Option<String>,
    is_final: Option<bool>,
    transcription_track: Option<String>,
}

#[derive(Deserialize)]
struct CostPart {
    currency: Option<String>,
}

impl Payload {
    fn event(self, kind: &str, webhook: &str, at_us: Option<i64>, leg: &Leg) -> Result<Event, WebhookError> {
        let report = |status| self.report(status, webhook, at_us, leg);
        Ok(match kind {
            "call.initiated" if self.direction.as_deref() == Some("outgoing") => {
                Event::Dials(report(CallStatus::Dialing))
            }
            "call.initiated" => Event::Rings(Box::new(self.ring(webhook, leg)?)),
            "call.answered" => {
                let streams = self.stream_url.as_ref().is_some_and(|url| !url.is_empty());
                Event::Answered { report: report(CallStatus::InProgress), streams }
            }
            "call.bridged" => Event::Bridged,
            "call.hangup" => {
                let cause = self.hangup_cause.clone().unwrap_or_else(|| "unspecified".into());
                let by = match self.hangup_source.as_deref() {
                    Some("caller") => Some(Side::Caller),
                    Some("callee") => Some(Side::Callee),
                    _ => None,
                };
                Event::HungUp(HungUp { report: report(outcome(&cause)), by, cause })
            }
            "streaming.started" => Event::Stream(self.stream(StreamChange::Started, webhook, at_us, leg)),
            "streaming.stopped" => Event::Stream(self.stream(StreamChange::Stopped, webhook, at_us, leg)),
            "streaming.failed" => Event::Stream(self.stream(StreamChange::Failed, webhook, at_us, leg)),
            "call.dtmf.received" => Event::Key(key(self.digit.as_deref())?),
            "call.gather.ended" => Event::Gathered {
                keys: Pii::new(self.digits.unwrap_or_default()),
                valid: self.status.as_deref() == Some("valid"),
            },
            "call.speak.started" | "call.playback.started" => Event::Plays,
            "call.speak.ended" | "call.playback.ended" => {
                Event::Played { completed: self.status.as_deref() == Some("completed") }
            }
            "call.machine.detection.ended" | "call.machine.premium.detection.ended" => {
                Event::AnsweredBy(answered_by(self.result.as_deref()))
            }
            // Whatever the result, a machine's greeting has ended, and a message can be left.
            "call.machine.greeting.ended" | "call.machine.premium.greeting.ended" => {
                Event::AnsweredBy(AnsweredBy::MachineAfterGreeting)
            }
            "call.recording.saved" => Event::Recorded(self.recording()?),
            "call.recording.error" => Event::NotRecorded { reason: self.reason.unwrap_or_default() },
            "call.recording.transcription.saved" => {
                Event::RecordedWords(Pii::new(self.transcription_text.unwrap_or_default()))
            }
            "call.transcription" => Event::Transcript(self.transcript()?),
            "call.refer.started" | "call.refer.completed" | "call.refer.failed" => {
                let sip_response = self.sip_notify_response.as_ref().and_then(number);
                Event::Referred { done: kind != "call.refer.started", sip_response }
            }
            "call.hold" => Event::Hold(true),
            "call.unhold" => Event::Hold(false),
            "call.cost" => Event::Cost(self.cost()),
            _ => Event::Other,
        })
    }

    fn ring(self, webhook: &str, leg: &Leg) -> Result<Ring, WebhookError> {
        let from = Address::read(self.from.as_deref().unwrap_or_default());
        let headers = self.sip_headers.unwrap_or_default();
        let diversion = headers.iter().find(|header| header.name.eq_ignore_ascii_case("diversion"));
        let own_number = |name: &String| Some(name) == self.from.as_ref();
        Ok(Ring {
            carrier_call: leg.carrier_call.clone(),
            account: leg.application.clone().unwrap_or_default(),
            to: Address::read(self.to.as_deref().ok_or(WebhookError::Missing("to"))?),
            forwarded_from: diversion.map(|header| Address::read(user_of(&header.value))),
            // Without a name, the number stands in its place.
            caller_name: self
                .caller_id_name
                .filter(|name| !name.is_empty() && !own_number(name))
                .map(Pii::new),
            from,
            direction: Direction::Inbound,
            status: CallStatus::Ringing,
            parent_call: None,
            answered_by: None,
            repeat_key: Some(webhook.to_owned()),
        })
    }

    fn report(&self, status: CallStatus, webhook: &str, at_us: Option<i64>, leg: &Leg) -> StatusReport {
        StatusReport {
            carrier_call: leg.carrier_call.clone(),
            account: leg.application.clone().unwrap_or_default(),
            status,
            duration_s: None,
            sequence: None,
            at_us,
            answered_by: None,
            sip_response: self.sip_hangup_cause.as_ref().and_then(number),
            repeat_key: webhook.to_owned(),
        }
    }

    fn stream(self, change: StreamChange, webhook: &str, at_us: Option<i64>, leg: &Leg) -> StreamReport {
        let asked_for = self.stream_params.and_then(|params| params.stream_url);
        StreamReport {
            carrier_call: leg.carrier_call.clone(),
            account: leg.application.clone().unwrap_or_default(),
            stream: self.stream_id,
            url: self.stream_url.or(asked_for).map(Secret::new),
            change,
            error: self.failure_reason,
            at_us,
            repeat_key: webhook.to_owned(),
        }
    }

    fn recording(self) -> Result<Recording, WebhookError> {
        let url = |urls: Option<Urls>| urls.and_then(|urls| urls.wav.or(urls.mp3));
        let url = url(self.recording_urls).or(url(self.public_recording_urls));
        Ok(Recording {
            url: Secret::new(url.ok_or(WebhookError::Missing("recording_urls"))?),
            dual: self.channels.as_deref() == Some("dual"),
            started_us: us(self.recording_started_at.as_deref()),
            ended_us: us(self.recording_ended_at.as_deref()),
        })
    }

    fn transcript(self) -> Result<Transcript, WebhookError> {
        let data = self.transcription_data.ok_or(WebhookError::Missing("transcription_data"))?;
        Ok(Transcript {
            text: Pii::new(data.transcript.unwrap_or_default()),
            is_final: data.is_final.unwrap_or(false),
            inbound: data.transcription_track.as_deref() != Some("outbound"),
        })
    }

    fn cost(self) -> Cost {
        let currency = self.cost_parts.unwrap_or_default().into_iter().find_map(|part| part.currency);
        let micros = self.total_cost.as_ref().and_then(micros);
        Cost {
            total: micros.map(|micros| Price { micros, currency: currency.unwrap_or_else(|| "USD".into()) }),
            billed_s: self.billed_duration_secs.as_ref().and_then(number),
        }
    }
}

/// A whole number, written as one or as a text.
fn number<T: TryFrom<u64>>(value: &Value) -> Option<T> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    number.try_into().ok()
}

/// What a cause makes of a call.
fn outcome(cause: &str) -> CallStatus {
    match cause {
        "normal_clearing" | "time_limit" => CallStatus::Completed,
        "user_busy" => CallStatus::Busy,
        "timeout" | "no_answer" => CallStatus::NoAnswer,
        "call_rejected" => CallStatus::Rejected,
        "originator_cancel" => CallStatus::Canceled,
        // not_found, unspecified, and what may come.
        _ => CallStatus::Failed,
    }
}

fn answered_by(result: Option<&str>) -> AnsweredBy {
    match result {
        Some("human" | "human_residence" | "human_business") => AnsweredBy::Human,
        Some("machine") => AnsweredBy::Machine,
        Some("fax_detected") => AnsweredBy::Fax,
        _ => AnsweredBy::Unknown,
    }
}

/// One key of a telephone.
pub(super) fn key(digit: Option<&str>) -> Result<Pii<char>, WebhookError> {
    match digit.ok_or(WebhookError::Missing("digit"))?.as_bytes() {
        &[key @ (b'0'..=b'9' | b'*' | b'#' | b'A'..=b'D')] => Ok(Pii::new(key.into())),
        _ => Err(WebhookError::Unreadable("digit")),
    }
}

/// The user of a SIP address with all its trimmings: `+14155550102` of `"Ada" <sip:+14155550102@h>;reason=busy`.
fn user_of(value: &str) -> &str {
    let address = value.split_once('<').map_or(value, |(_, rest)| rest);
    let address = address.split(['>', ';']).next().unwrap_or_default().trim();
    let user =
        address.strip_prefix("sips:").or(address.strip_prefix("sip:")).or(address.strip_prefix("tel:"));
    user.unwrap_or(address).split('@').next().unwrap_or_default()
}
