//! Twilio's REST API of 2010-04-01 as far as telephony and connection tests use it, with its own errors and its own paging.
//! It changes and shows what the simulator holds; it runs nothing itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use offhook_core::{E164, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use url::form_urlencoded;

use super::call::{Call, CallStatus, Direction, Facts, Order, Origin, StatusHook};
use super::execute::{Next, is_absolute};
use super::twiml::Hook;
use super::webhook::{HttpMethod, Signing};
use super::{AccountStatus, Sim, dial, new_sid, rfc2822};

const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 1_000;
const MAX_TWIML_CHARACTERS: usize = 4_000;
const DEFAULT_RING_S: u64 = 60;
const MAX_RING_S: u64 = 600;

pub(super) fn router() -> Router<Arc<Sim>> {
    Router::new().route("/2010-04-01/{*resource}", any(serve))
}

/// A key of the API beside the account's token.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// `SK` and 32 hexadecimal digits.
    pub sid: String,
    /// Its secret.
    pub secret: Secret<String>,
    /// What it opens.
    pub kind: KeyKind,
}

/// What an API key opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Everything.
    Main,
    /// Everything but `/Accounts` and `/Keys`.
    Standard,
    /// What is named.
    Restricted(Vec<Area>),
}

/// A part of the API that a restricted key can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// The account itself.
    Account,
    /// Calls.
    Calls,
    /// Phone numbers.
    Numbers,
    /// Messages.
    Messages,
}

/// A number that the account owns when the simulator starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnedNumber {
    /// The number itself.
    pub e164: String,
    /// What is asked when it is called; empty for nothing.
    #[serde(default)]
    pub voice_url: String,
    /// What is asked when that fails; empty for nothing.
    #[serde(default)]
    pub voice_fallback_url: String,
    /// What is told the end of its calls; empty for nothing.
    #[serde(default)]
    pub status_callback: String,
}

impl OwnedNumber {
    /// A number whose calls are answered by a voice URL.
    pub fn new(e164: impl Into<String>, voice_url: impl Into<String>) -> OwnedNumber {
        OwnedNumber {
            e164: e164.into(),
            voice_url: voice_url.into(),
            voice_fallback_url: String::new(),
            status_callback: String::new(),
        }
    }
}

/// What can be changed of a number: name in requests, name in answers, value at first.
const NUMBER_FIELDS: [(&str, &str, &str); 20] = [
    ("FriendlyName", "friendly_name", ""),
    ("VoiceUrl", "voice_url", ""),
    ("VoiceMethod", "voice_method", "POST"),
    ("VoiceFallbackUrl", "voice_fallback_url", ""),
    ("VoiceFallbackMethod", "voice_fallback_method", "POST"),
    ("VoiceApplicationSid", "voice_application_sid", ""),
    ("VoiceReceiveMode", "voice_receive_mode", "voice"),
    ("StatusCallback", "status_callback", ""),
    ("StatusCallbackMethod", "status_callback_method", "POST"),
    ("SmsUrl", "sms_url", ""),
    ("SmsMethod", "sms_method", "POST"),
    ("SmsFallbackUrl", "sms_fallback_url", ""),
    ("SmsFallbackMethod", "sms_fallback_method", "POST"),
    ("SmsApplicationSid", "sms_application_sid", ""),
    ("TrunkSid", "trunk_sid", ""),
    ("AddressSid", "address_sid", ""),
    ("BundleSid", "bundle_sid", ""),
    ("IdentitySid", "identity_sid", ""),
    ("EmergencyStatus", "emergency_status", "Inactive"),
    ("EmergencyAddressSid", "emergency_address_sid", ""),
];

/// A number as the API keeps it.
#[derive(Clone, Debug)]
pub(super) struct Number {
    pub(super) sid: String,
    e164: String,
    fields: BTreeMap<&'static str, String>,
    created: Timestamp,
    updated: Timestamp,
}

impl From<&OwnedNumber> for Number {
    fn from(owned: &OwnedNumber) -> Number {
        let mut fields: BTreeMap<_, _> =
            NUMBER_FIELDS.iter().map(|(_, field, value)| (*field, value.to_string())).collect();
        fields.insert("friendly_name", owned.e164.clone());
        fields.insert("voice_url", owned.voice_url.clone());
        fields.insert("voice_fallback_url", owned.voice_fallback_url.clone());
        fields.insert("status_callback", owned.status_callback.clone());
        let now = Timestamp::now();
        Number { sid: new_sid("PN"), e164: owned.e164.clone(), fields, created: now, updated: now }
    }
}

impl Number {
    pub(super) fn e164(&self) -> &str {
        &self.e164
    }

    /// What is asked when the number is called: nothing while a trunk or an application stands before the URL.
    pub(super) fn voice_hook(&self) -> Option<Hook> {
        let taken = !self.field("trunk_sid").is_empty() || !self.field("voice_application_sid").is_empty();
        if taken || self.field("voice_receive_mode") != "voice" {
            None
        } else {
            self.hook("voice_url", "voice_method")
        }
    }

    pub(super) fn fallback_hook(&self) -> Option<Hook> {
        self.hook("voice_fallback_url", "voice_fallback_method")
    }

    pub(super) fn status_hook(&self) -> Option<Hook> {
        self.hook("status_callback", "status_callback_method")
    }

    fn hook(&self, url: &str, method: &str) -> Option<Hook> {
        let url = self.field(url);
        let method = HttpMethod::parse(self.field(method)).unwrap_or_default();
        (!url.is_empty()).then(|| Hook { url: url.to_owned(), method })
    }

    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    fn json(&self, account_sid: &str) -> Value {
        let uri = format!("/2010-04-01/Accounts/{account_sid}/IncomingPhoneNumbers/{}.json", self.sid);
        let mut number = json!({
            "sid": self.sid,
            "account_sid": account_sid,
            "phone_number": self.e164,
            "api_version": "2010-04-01",
            "address_requirements": "none",
            "beta": false,
            "capabilities": {"voice": true, "sms": true, "mms": true, "fax": false},
            "date_created": rfc2822(self.created),
            "date_updated": rfc2822(self.updated),
            "emergency_address_status": "unregistered",
            "origin": "twilio",
            "status": "in-use",
            "type": "local",
            "voice_caller_id_lookup": false,
            "uri": uri,
        });
        for (name, value) in &self.fields {
            let absent = value.is_empty() && name.ends_with("_sid");
            number[*name] = if absent { Value::Null } else { value.as_str().into() };
        }
        number
    }
}

/// An error of the API, with the body that Twilio gives it.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    code: u32,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: u32, message: impl Into<String>) -> Refusal {
        Refusal { status, code, message: message.into() }
    }

    fn invalid(code: u32, message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, code, message)
    }

    fn unauthenticated() -> Refusal {
        Refusal::new(StatusCode::UNAUTHORIZED, 20003, "Authenticate")
    }

    fn not_found(path: &str) -> Refusal {
        let message = format!("The requested resource {path} was not found");
        Refusal::new(StatusCode::NOT_FOUND, 20404, message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Refusal { status, code, message } = self;
        let more_info = format!("https://www.twilio.com/docs/errors/{code}");
        let body =
            json!({"code": code, "message": message, "more_info": more_info, "status": status.as_u16()});
        let mut response = (status, axum::Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = axum::http::HeaderValue::from_static("Basic realm=\"Twilio API\"");
            response.headers_mut().insert("www-authenticate", challenge);
        }
        response
    }
}

type Answer = Result<(StatusCode, Value), Refusal>;

async fn serve(
    Shared(sim): Shared<Arc<Sim>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match answer(&sim, &method, &uri, &headers, &body) {
        Ok((StatusCode::NO_CONTENT, _)) => StatusCode::NO_CONTENT.into_response(),
        Ok((status, value)) => (status, axum::Json(value)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

fn answer(sim: &Arc<Sim>, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Answer {
    fail_on_demand(sim)?;
    check_region(sim, headers)?;
    let path = uri.path();
    let resource = path.trim_start_matches("/2010-04-01/");
    let resource = resource.strip_suffix(".json").ok_or_else(|| Refusal::not_found(path))?;
    let segments: Vec<&str> = resource.split('/').collect();
    let area = match segments.as_slice() {
        ["Accounts"] | ["Accounts", _] => Area::Account,
        ["Accounts", _, "Calls", ..] => Area::Calls,
        ["Accounts", _, "IncomingPhoneNumbers", ..] => Area::Numbers,
        ["Accounts", _, "Messages", ..] => Area::Messages,
        _ => return Err(Refusal::not_found(path)),
    };
    authorize(sim, headers, area)?;
    if segments.get(1).is_some_and(|account| *account != sim.settings.account_sid) {
        return Err(Refusal::not_found(path));
    }
    if area != Area::Account && sim.lock().account_status != AccountStatus::Active {
        return Err(Refusal::unauthenticated());
    }
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let request = RestRequest { sim, path, query: Form(query) };
    let form = || read_form(headers, body);
    match (method, &segments[2.min(segments.len())..]) {
        (&Method::GET, []) => request.account(),
        (&Method::GET, ["Calls"]) => request.calls(),
        (&Method::POST, ["Calls"]) => request.create_call(form()?),
        (&Method::GET, ["Calls", sid]) => request.call(sid),
        (&Method::POST, ["Calls", sid]) => request.update_call(sid, form()?),
        (&Method::GET, ["IncomingPhoneNumbers"]) => request.numbers(),
        (&Method::GET, ["IncomingPhoneNumbers", sid]) => request.number(sid),
        (&Method::POST, ["IncomingPhoneNumbers", sid]) => request.update_number(sid, form()?),
        (&Method::GET, ["Messages"]) => request.messages(),
        (_, [_] | [_, _]) => Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, 20004, "Method not allowed")),
        _ => Err(Refusal::not_found(path)),
    }
}

fn fail_on_demand(sim: &Sim) -> Result<(), Refusal> {
    let faults = &mut sim.lock().rest_faults;
    if faults.too_many_requests > 0 {
        faults.too_many_requests -= 1;
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, 20429, "Too Many Requests"));
    }
    if faults.unavailable > 0 {
        faults.unavailable -= 1;
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, 20503, "Service unavailable"));
    }
    if faults.wrong_region { Err(Refusal::unauthenticated()) } else { Ok(()) }
}

/// `api.{edge}.{region}.twilio.com` serves only credentials of that region; without one it is `us1`.
fn check_region(sim: &Sim, headers: &HeaderMap) -> Result<(), Refusal> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.split(':').next().unwrap_or_default();
    let Some(place) = name.strip_prefix("api.").and_then(|rest| rest.strip_suffix("twilio.com")) else {
        return Ok(());
    };
    let region = place.trim_end_matches('.').rsplit('.').next().filter(|region| !region.is_empty());
    if region.unwrap_or("us1") == sim.settings.region { Ok(()) } else { Err(Refusal::unauthenticated()) }
}

fn authorize(sim: &Sim, headers: &HeaderMap, area: Area) -> Result<(), Refusal> {
    let credentials = basic_credentials(headers).ok_or_else(Refusal::unauthenticated)?;
    let (user, password) = credentials.split_once(':').ok_or_else(Refusal::unauthenticated)?;
    let settings = &sim.settings;
    if user == settings.account_sid && password == settings.auth_token.expose() {
        return Ok(());
    }
    let key = settings.keys.iter().find(|key| key.sid == user && key.secret.expose() == password);
    match key.map(|key| &key.kind) {
        None => Err(Refusal::unauthenticated()),
        Some(KeyKind::Standard) if area == Area::Account => Err(Refusal::unauthenticated()),
        Some(KeyKind::Restricted(areas)) if !areas.contains(&area) => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            70051,
            "Authorization error: the key lacks the permission",
        )),
        Some(_) => Ok(()),
    }
}

fn basic_credentials(headers: &HeaderMap) -> Option<String> {
    let encoded = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

fn read_form(headers: &HeaderMap, body: &[u8]) -> Result<Form, Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !body.is_empty() && !kind.starts_with("application/x-www-form-urlencoded") {
        let message = format!("a request is form encoded, not \"{kind}\"");
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, 20001, message));
    }
    Ok(Form(form_urlencoded::parse(body).into_owned().collect()))
}

/// Decoded parameters; a name may repeat.
struct Form(Vec<(String, String)>);

impl Form {
    fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => Err(Refusal::invalid(20001, format!("Unknown parameter: {name}"))),
            None => Ok(()),
        }
    }

    /// A value that was given and is not empty.
    fn value(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    fn values(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    fn hook(&self, url: &str, method: &str) -> Result<Option<Hook>, Refusal> {
        let method = match self.value(method) {
            None => HttpMethod::Post,
            Some(name) => HttpMethod::parse(name)
                .ok_or_else(|| Refusal::invalid(20001, format!("{method} must be GET or POST")))?,
        };
        match self.value(url) {
            None => Ok(None),
            Some(address) if is_absolute(address) => Ok(Some(Hook { url: address.to_owned(), method })),
            Some(address) => Err(Refusal::invalid(21205, format!("{url} is not a valid URL: {address}"))),
        }
    }

    fn number(&self, name: &str, default: u64) -> Result<u64, Refusal> {
        let invalid = |_| Refusal::invalid(20001, format!("{name} must be a number"));
        self.value(name).map_or(Ok(default), |value| value.parse().map_err(invalid))
    }

    /// What is to run: a URL goes before a document.
    fn next(&self) -> Result<Option<Next>, Refusal> {
        if let Some(hook) = self.hook("Url", "Method")? {
            return Ok(Some(Next::Fetch { hook, params: Vec::new() }));
        }
        let Some(twiml) = self.value("Twiml") else { return Ok(None) };
        if twiml.chars().count() > MAX_TWIML_CHARACTERS {
            return Err(Refusal::invalid(20001, format!("Twiml takes {MAX_TWIML_CHARACTERS} characters")));
        }
        Ok(Some(Next::Twiml(twiml.to_owned())))
    }
}

struct RestRequest<'a> {
    sim: &'a Arc<Sim>,
    path: &'a str,
    query: Form,
}

impl RestRequest<'_> {
    fn account(&self) -> Answer {
        let sid = &self.sim.settings.account_sid;
        let created = rfc2822(Timestamp::UNIX_EPOCH);
        let account = json!({
            "sid": sid,
            "owner_account_sid": sid,
            "friendly_name": "Simulated account",
            "status": self.sim.lock().account_status,
            "type": "Full",
            "auth_token": self.sim.settings.auth_token.expose(),
            "date_created": created,
            "date_updated": created,
            "uri": format!("/2010-04-01/Accounts/{sid}.json"),
            "subresource_uris": {
                "calls": format!("/2010-04-01/Accounts/{sid}/Calls.json"),
                "incoming_phone_numbers": format!("/2010-04-01/Accounts/{sid}/IncomingPhoneNumbers.json"),
                "messages": format!("/2010-04-01/Accounts/{sid}/Messages.json"),
            },
        });
        Ok((StatusCode::OK, account))
    }

    fn calls(&self) -> Answer {
        const KNOWN: [&str; 13] = [
            "To",
            "From",
            "ParentCallSid",
            "Status",
            "StartTime",
            "StartTime<",
            "StartTime>",
            "EndTime",
            "EndTime<",
            "EndTime>",
            "PageSize",
            "Page",
            "PageToken",
        ];
        self.query.only(&KNOWN)?;
        let started = TimeFilter::read(&self.query, "StartTime")?;
        let ended = TimeFilter::read(&self.query, "EndTime")?;
        let is = |name: &str, value: &str| self.query.value(name).is_none_or(|wished| wished == value);
        let calls = self.sim.lock().calls.clone();
        let fitting = calls.iter().rev().filter(|call| {
            let facts = call.facts();
            is("To", &call.to)
                && is("From", &call.from)
                && is("ParentCallSid", call.parent.as_deref().unwrap_or_default())
                && is("Status", facts.status.as_rest_str())
                && started.fits(Some(facts.created))
                && ended.fits(facts.ended)
        });
        let items = fitting.map(|call| (call.sid.clone(), self.call_json(call))).collect();
        self.page("calls", items)
    }

    fn call(&self, sid: &str) -> Answer {
        Ok((StatusCode::OK, self.call_json(&*self.find(sid)?)))
    }

    fn find(&self, sid: &str) -> Result<Arc<Call>, Refusal> {
        self.sim.find_call(sid).ok_or_else(|| Refusal::not_found(self.path))
    }

    fn create_call(&self, form: Form) -> Answer {
        const KNOWN: [&str; 36] = [
            "To",
            "From",
            "Url",
            "Twiml",
            "ApplicationSid",
            "Method",
            "FallbackUrl",
            "FallbackMethod",
            "StatusCallback",
            "StatusCallbackEvent",
            "StatusCallbackMethod",
            "SendDigits",
            "Timeout",
            "Record",
            "RecordingChannels",
            "RecordingStatusCallback",
            "RecordingStatusCallbackMethod",
            "RecordingStatusCallbackEvent",
            "RecordingTrack",
            "Trim",
            "SipAuthUsername",
            "SipAuthPassword",
            "MachineDetection",
            "MachineDetectionTimeout",
            "MachineDetectionSpeechThreshold",
            "MachineDetectionSpeechEndThreshold",
            "MachineDetectionSilenceTimeout",
            "AsyncAmd",
            "AsyncAmdStatusCallback",
            "AsyncAmdStatusCallbackMethod",
            "CallerId",
            "CallReason",
            "CallToken",
            "Byoc",
            "TimeLimit",
            "ClientNotificationUrl",
        ];
        form.only(&KNOWN)?;
        let to = form.value("To").ok_or_else(|| Refusal::invalid(21201, "No 'To' number is specified"))?;
        let from =
            form.value("From").ok_or_else(|| Refusal::invalid(21213, "No 'From' number is specified"))?;
        let dialable = to.parse::<E164>().is_ok() || to.starts_with("sip:") || to.starts_with("client:");
        if !dialable {
            return Err(Refusal::invalid(21211, format!("The 'To' number {to} is not a valid phone number")));
        }
        if from.parse::<E164>().is_err() && !from.starts_with("client:") {
            return Err(Refusal::invalid(
                21212,
                format!("The 'From' number {from} is not a valid phone number"),
            ));
        }
        if from.starts_with('+') && !self.sim.owns(from) {
            let message = format!("The source phone number {from} is not verified for this account");
            return Err(Refusal::invalid(21210, message));
        }
        if form.value("ApplicationSid").is_some() {
            return Err(Refusal::invalid(21218, "The ApplicationSid is not valid"));
        }
        let Some(next) = form.next()? else {
            return Err(Refusal::invalid(21205, "One of Url, Twiml and ApplicationSid is required"));
        };
        let events = form.values("StatusCallbackEvent");
        let mut events: BTreeSet<String> =
            events.iter().flat_map(|event| event.split_whitespace()).map(str::to_owned).collect();
        if events.is_empty() {
            events = StatusHook::only_the_end();
        }
        let status_hook = form.hook("StatusCallback", "StatusCallbackMethod")?;
        let fallback = form.hook("FallbackUrl", "FallbackMethod")?;
        let ring = Duration::from_secs(form.number("Timeout", DEFAULT_RING_S)?.min(MAX_RING_S));
        let origin = Origin {
            parent: None,
            direction: Direction::OutboundApi,
            to: to.to_owned(),
            from: form.value("CallerId").unwrap_or(from).to_owned(),
            forwarded_from: None,
            caller_name: None,
            number_sid: self
                .sim
                .lock()
                .numbers
                .iter()
                .find(|owned| owned.e164 == from)
                .map(|owned| owned.sid.clone()),
            signing: Signing::Right,
            network: self.sim.settings.network,
            extra_params: Vec::new(),
        };
        let told = status_hook.map(|hook| StatusHook { hook, events });
        let (call, orders) = Call::new(self.sim, origin, told, self.sim.settings.callbacks);
        let departure = self.departure();
        call.queued_for(departure.saturating_duration_since(Instant::now()).as_millis() as u64);
        let created = self.call_json(&call);
        let full =
            |error: super::NotPlaced| Refusal::new(StatusCode::TOO_MANY_REQUESTS, 20429, error.to_string());
        self.sim.add_call(call.clone()).map_err(full)?;
        tokio::spawn(dial::conduct_outgoing(self.sim.clone(), call, orders, departure, ring, next, fallback));
        Ok((StatusCode::CREATED, created))
    }

    /// The queue lets so many calls go in a second, in the order in which they were asked for.
    fn departure(&self) -> Instant {
        let between = Duration::from_secs_f64(1.0 / self.sim.settings.calls_per_second.max(0.001));
        let mut state = self.sim.lock();
        let departure = state.next_departure.unwrap_or_else(Instant::now).max(Instant::now());
        state.next_departure = Some(departure + between);
        departure
    }

    fn update_call(&self, sid: &str, form: Form) -> Answer {
        const KNOWN: [&str; 9] = [
            "Url",
            "Method",
            "Twiml",
            "Status",
            "FallbackUrl",
            "FallbackMethod",
            "StatusCallback",
            "StatusCallbackMethod",
            "TimeLimit",
        ];
        form.only(&KNOWN)?;
        let call = self.find(sid)?;
        let status = call.status();
        match form.value("Status") {
            Some("completed") => call.order(Order::HangUp),
            Some("canceled") if status < CallStatus::InProgress => call.order(Order::HangUp),
            Some("canceled") => {}
            Some(other) => return Err(Refusal::invalid(20001, format!("Status cannot be set to {other}"))),
            None => {
                if let Some(next) = form.next()? {
                    if status != CallStatus::InProgress {
                        return Err(Refusal::invalid(21220, "Call is not in-progress. Cannot redirect."));
                    }
                    call.order(Order::Redirect(next));
                }
            }
        }
        Ok((StatusCode::OK, self.call_json(&call)))
    }

    fn call_json(&self, call: &Call) -> Value {
        let account_sid = &self.sim.settings.account_sid;
        let uri = format!("/2010-04-01/Accounts/{account_sid}/Calls/{}", call.sid);
        let facts: Facts = call.facts();
        let duration_s = facts.ended.map(|_| call.duration_s().to_string());
        let price = duration_s.as_ref().map(|_| "-0.00850");
        json!({
            "sid": call.sid,
            "account_sid": account_sid,
            "parent_call_sid": call.parent,
            "to": call.to,
            "to_formatted": formatted(&call.to),
            "from": call.from,
            "from_formatted": formatted(&call.from),
            "phone_number_sid": call.number_sid,
            "status": facts.status.as_rest_str(),
            "start_time": facts.answered.map(rfc2822),
            "end_time": facts.ended.map(rfc2822),
            "duration": duration_s,
            "price": price,
            "price_unit": "USD",
            "direction": call.direction.as_str(),
            "answered_by": null,
            "api_version": "2010-04-01",
            "forwarded_from": call.forwarded_from,
            "group_sid": null,
            "caller_name": call.caller_name,
            "queue_time": facts.queue_ms.to_string(),
            "trunk_sid": null,
            "date_created": rfc2822(facts.created),
            "date_updated": rfc2822(facts.updated),
            "uri": format!("{uri}.json"),
            "subresource_uris": {
                "recordings": format!("{uri}/Recordings.json"),
                "streams": format!("{uri}/Streams.json"),
                "events": format!("{uri}/Events.json"),
            },
        })
    }

    fn numbers(&self) -> Answer {
        self.query.only(&[
            "Beta",
            "FriendlyName",
            "PhoneNumber",
            "Origin",
            "PageSize",
            "Page",
            "PageToken",
        ])?;
        let numbers = self.sim.lock().numbers.clone();
        let fits = |number: &&Number| {
            let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
            let by_number =
                self.query.value("PhoneNumber").is_none_or(|wished| number.e164.contains(&digits(wished)));
            let by_name =
                self.query.value("FriendlyName").is_none_or(|wished| number.field("friendly_name") == wished);
            by_number && by_name
        };
        let account_sid = &self.sim.settings.account_sid;
        let fitting = numbers.iter().filter(fits);
        self.page(
            "incoming_phone_numbers",
            fitting.map(|number| (number.sid.clone(), number.json(account_sid))).collect(),
        )
    }

    fn number(&self, sid: &str) -> Answer {
        let state = self.sim.lock();
        let number = state.numbers.iter().find(|number| number.sid == sid);
        let number = number.ok_or_else(|| Refusal::not_found(self.path))?;
        Ok((StatusCode::OK, number.json(&self.sim.settings.account_sid)))
    }

    fn update_number(&self, sid: &str, form: Form) -> Answer {
        let known: Vec<&str> = NUMBER_FIELDS
            .iter()
            .map(|(name, ..)| *name)
            .chain(["ApiVersion", "VoiceCallerIdLookup"])
            .collect();
        form.only(&known)?;
        let mut state = self.sim.lock();
        let number = state.numbers.iter_mut().find(|number| number.sid == sid);
        let number = number.ok_or_else(|| Refusal::not_found(self.path))?;
        let mut fields = number.fields.clone();
        for (name, value) in &form.0 {
            let Some((_, field, _)) = NUMBER_FIELDS.iter().find(|(known, ..)| known == name) else {
                continue;
            };
            let is_url = field.ends_with("_url") || *field == "status_callback";
            if is_url && !value.is_empty() && !is_absolute(value) {
                return Err(Refusal::invalid(21402, format!("{name} is not a valid URL: {value}")));
            }
            if field.ends_with("_method") && HttpMethod::parse(value).is_none() {
                return Err(Refusal::invalid(21403, format!("{name} must be GET or POST")));
            }
            fields.insert(field, value.clone());
        }
        number.fields = fields;
        number.updated = Timestamp::now();
        Ok((StatusCode::OK, number.json(&self.sim.settings.account_sid)))
    }

    fn messages(&self) -> Answer {
        self.query.only(&[
            "To",
            "From",
            "DateSent",
            "DateSent<",
            "DateSent>",
            "PageSize",
            "Page",
            "PageToken",
        ])?;
        self.page("messages", Vec::new())
    }

    /// One page of a list. The token names the last item of the page before, so that new items do not shift it.
    fn page(&self, key: &str, items: Vec<(String, Value)>) -> Answer {
        let size = (self.query.number("PageSize", DEFAULT_PAGE as u64)? as usize).clamp(1, MAX_PAGE);
        let page = self.query.number("Page", 0)? as usize;
        let token = self.query.value("PageToken");
        let begin = match token.and_then(|token| token.strip_prefix("PA")) {
            None if page == 0 => 0,
            None => return Err(Refusal::invalid(20001, "Page needs the PageToken of next_page_uri")),
            Some(last) => {
                items.iter().position(|(sid, _)| sid == last).map_or(items.len(), |index| index + 1)
            }
        };
        let end = (begin + size).min(items.len());
        let uri = |page: usize, token: Option<&str>| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            let filters = self.query.0.iter().filter(|(name, _)| !name.starts_with("Page"));
            query.extend_pairs(filters);
            query.append_pair("PageSize", &size.to_string()).append_pair("Page", &page.to_string());
            if let Some(token) = token {
                query.append_pair("PageToken", token);
            }
            format!("{}?{}", self.path, query.finish())
        };
        let next = (end < items.len()).then(|| uri(page + 1, Some(&format!("PA{}", items[end - 1].0))));
        let shown: Vec<Value> = items[begin..end].iter().map(|(_, item)| item.clone()).collect();
        let mut answer = json!({
            "page": page,
            "page_size": size,
            "start": page * size,
            "end": (page * size + shown.len()).saturating_sub(1),
            "first_page_uri": uri(0, None),
            "next_page_uri": next,
            "previous_page_uri": null,
            "uri": uri(page, token),
        });
        answer[key] = shown.into();
        Ok((StatusCode::OK, answer))
    }
}

/// The three forms of a time in a filter: on, until and from.
struct TimeFilter {
    from: Option<Timestamp>,
    before: Option<Timestamp>,
}

impl TimeFilter {
    fn read(query: &Form, name: &str) -> Result<TimeFilter, Refusal> {
        let read = |form: String| match query.value(&form) {
            None => Ok(None),
            Some(text) => span_of(text)
                .map(Some)
                .ok_or_else(|| Refusal::invalid(20001, format!("{form} is not a date: {text}"))),
        };
        let on = read(name.to_owned())?;
        let from = read(format!("{name}>"))?;
        let until = read(format!("{name}<"))?;
        Ok(TimeFilter { from: from.or(on).map(|(begin, _)| begin), before: until.or(on).map(|(_, end)| end) })
    }

    fn fits(&self, at: Option<Timestamp>) -> bool {
        if self.from.is_none() && self.before.is_none() {
            return true;
        }
        at.is_some_and(|at| {
            self.from.is_none_or(|from| at >= from) && self.before.is_none_or(|before| at < before)
        })
    }
}

/// The time that a text names: a whole day, or one second.
fn span_of(text: &str) -> Option<(Timestamp, Timestamp)> {
    if let Ok(second) = text.parse::<Timestamp>() {
        return Some((second, second.checked_add(1.second()).ok()?));
    }
    let day: Date = text.parse().ok()?;
    let begin = day.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some((begin, begin.checked_add(24.hours()).ok()?))
}

/// `+14155550123` as `(415) 555-0123`; everything else as it is.
fn formatted(address: &str) -> String {
    match address.strip_prefix("+1") {
        Some(national) if national.len() == 10 && national.is_ascii() => {
            format!("({}) {}-{}", &national[..3], &national[3..6], &national[6..])
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_as_people_write_them() {
        assert_eq!(formatted("+13051416799"), "(305) 141-6799");
        assert_eq!(formatted("+4930123456"), "+4930123456");
        assert_eq!(formatted("client:ada"), "client:ada");
    }

    #[test]
    fn a_day_in_a_filter_is_the_whole_day() {
        let query = Form(vec![("StartTime".into(), "2026-11-21".into())]);
        let filter = TimeFilter::read(&query, "StartTime").unwrap();
        assert!(filter.fits("2026-11-21T23:59:59Z".parse().ok()));
        assert!(!filter.fits("2026-11-22T00:00:00Z".parse().ok()));
        let query = Form(vec![("StartTime<".into(), "2026-11-21".into())]);
        assert!(TimeFilter::read(&query, "StartTime").unwrap().fits("2020-01-01T00:00:00Z".parse().ok()));
    }

    #[test]
    fn a_trunk_stands_before_the_voice_url() {
        let mut number = Number::from(&OwnedNumber::new("+15550100002", "https://h.example/voice"));
        assert!(number.voice_hook().is_some());
        number.fields.insert("trunk_sid", "TK1".into());
        assert_eq!(number.voice_hook(), None);
    }
}
