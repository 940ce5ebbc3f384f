//! What an account has beside numbers and calls: money, call control applications, messaging profiles, outbound voice profiles.
//! The last three are kept as the JSON that the API shows; it does not know what calls make of them.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::request::{Body, Field, Kind, Refusal};
use super::rest::{Answer, RestRequest, shown};
use super::webhook::{DEFAULT_LIMIT, Target};
use super::{Sim, new_big_id, new_uuid, timestamp};

/// A call control application that exists when the simulator starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedApplication {
    /// A number larger than 2^53, as text.
    pub id: String,
    /// Its name: no two have the same.
    pub name: String,
    /// Where its events go.
    pub webhook_event_url: String,
    /// Where they go when nobody takes them there; empty for nowhere.
    pub webhook_event_failover_url: String,
    /// Its outbound voice profile, without which it cannot dial.
    pub outbound_voice_profile: Option<String>,
}

impl OwnedApplication {
    /// An application whose events go to one URL; it cannot dial.
    pub fn new(id: impl Into<String>, name: impl Into<String>, url: impl Into<String>) -> OwnedApplication {
        OwnedApplication {
            id: id.into(),
            name: name.into(),
            webhook_event_url: url.into(),
            webhook_event_failover_url: String::new(),
            outbound_voice_profile: None,
        }
    }
}

/// A messaging profile or an outbound voice profile that exists when the simulator starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedProfile {
    /// Its id: a UUID for messaging, a number larger than 2^53 for voice, both as text.
    pub id: String,
    /// Its name.
    pub name: String,
}

pub(super) fn balance(request: &RestRequest<'_>) -> Answer {
    request.query(&[])?;
    shown(json!({
        "record_type": "balance",
        "balance": "300.00",
        "available_credit": "400.00",
        "credit_limit": "100.00",
        "pending": "10.00",
        "currency": "USD",
    }))
}

/// A kind of things that are made, changed and deleted in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shelf {
    Applications,
    MessagingProfiles,
    VoiceProfiles,
}

const SITES: &[&str] = &[
    "Latency",
    "Chicago, IL",
    "Ashburn, VA",
    "San Jose, CA",
    "London, UK",
    "Chennai, IN",
    "Amsterdam, Netherlands",
    "Toronto, Canada",
    "Sydney, Australia",
];

const INBOUND: &[Field] = &[
    Field::whole("channel_limit", 0..=i64::MAX).or_null(),
    Field::flag("shaken_stir_enabled"),
    Field::text("sip_subdomain").or_null(),
    Field::one_of("sip_subdomain_receive_settings", &["only_my_connections", "from_anyone"]),
];

const OUTBOUND: &[Field] = &[
    Field::whole("channel_limit", 0..=i64::MAX).or_null(),
    Field::text("outbound_voice_profile_id").or_null(),
];

const APPLICATION: &[Field] = &[
    Field::text("application_name").required(),
    Field::new("webhook_event_url", Kind::WebUrl).required(),
    Field::new("webhook_event_failover_url", Kind::WebUrl).or_null(),
    Field::one_of("webhook_api_version", &["1", "2"]),
    Field::whole("webhook_timeout_secs", 0..=30).or_null(),
    Field::flag("active"),
    Field::one_of("anchorsite_override", SITES),
    Field::flag("call_cost_in_webhooks"),
    Field::one_of("dtmf_type", &["RFC 2833", "Inband", "SIP INFO"]),
    Field::flag("first_command_timeout"),
    Field::whole("first_command_timeout_secs", 0..=i64::MAX),
    Field::flag("redact_dtmf_debug_logging"),
    Field::new("tags", Kind::Texts),
    Field::new("inbound", Kind::Object(INBOUND)),
    Field::new("outbound", Kind::Object(OUTBOUND)),
];

const NUMBER_POOL: &[Field] = &[
    Field::any("toll_free_weight").required(),
    Field::any("long_code_weight").required(),
    Field::flag("skip_unhealthy").required(),
    Field::flag("sticky_sender"),
    Field::flag("geomatch"),
];

const MESSAGING_PROFILE: &[Field] = &[
    Field::text("name").required(),
    Field::new("whitelisted_destinations", Kind::Texts).required(),
    Field::new("webhook_url", Kind::WebUrl).or_null(),
    Field::new("webhook_failover_url", Kind::WebUrl).or_null(),
    Field::one_of("webhook_api_version", &["1", "2", "2010-04-01"]),
    Field::flag("enabled"),
    Field::text("ai_assistant_id").or_null(),
    Field::text("alpha_sender").or_null(),
    Field::text("daily_spend_limit"),
    Field::flag("daily_spend_limit_enabled"),
    Field::new("health_webhook_url", Kind::WebUrl).or_null(),
    Field::flag("mms_fall_back_to_sms"),
    Field::flag("mms_transcoding"),
    Field::flag("mobile_only"),
    Field::new("number_pool_settings", Kind::Object(NUMBER_POOL)).or_null(),
    Field::text("resource_group_id").or_null(),
    Field::flag("smart_encoding"),
    Field::any("url_shortener_settings").or_null(),
];

const VOICE_PROFILE: &[Field] = &[
    Field::text("name").required(),
    Field::flag("enabled"),
    Field::new("whitelisted_destinations", Kind::Texts),
    Field::whole("concurrent_call_limit", 0..=i64::MAX).or_null(),
    Field::text("daily_spend_limit"),
    Field::flag("daily_spend_limit_enabled"),
    Field::any("max_destination_rate"),
    Field::text("billing_group_id").or_null(),
    Field::one_of("service_plan", &["global"]),
    Field::one_of("traffic_type", &["conversational"]),
    Field::one_of("usage_payment_method", &["rate-deck"]),
    Field::new("tags", Kind::Texts),
    Field::any("call_recording"),
    Field::any("calling_window"),
];

impl Shelf {
    fn fields(self) -> &'static [Field] {
        match self {
            Shelf::Applications => APPLICATION,
            Shelf::MessagingProfiles => MESSAGING_PROFILE,
            Shelf::VoiceProfiles => VOICE_PROFILE,
        }
    }

    /// Only a profile can be changed without naming all that making it requires.
    fn repeats_required(self) -> bool {
        self != Shelf::MessagingProfiles
    }

    fn name_field(self) -> &'static str {
        if self == Shelf::Applications { "application_name" } else { "name" }
    }

    fn new_id(self) -> String {
        if self == Shelf::MessagingProfiles { new_uuid() } else { new_big_id() }
    }

    /// Documented for each: a new application is 201, a new profile 200.
    fn made(self) -> StatusCode {
        if self == Shelf::Applications { StatusCode::CREATED } else { StatusCode::OK }
    }

    /// What may be asked of a list: page, order, and how a name is filtered.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Shelf::Applications => {
                &["page[number]", "page[size]", "sort", "filter[application_name][contains]", "filter[name]"]
            }
            Shelf::MessagingProfiles => {
                &["page[number]", "page[size]", "filter[name]", "filter[name][eq]", "filter[name][contains]"]
            }
            Shelf::VoiceProfiles => &["page[number]", "page[size]", "sort", "filter[name][contains]"],
        }
    }

    fn defaults(self) -> Value {
        match self {
            Shelf::Applications => json!({
                "record_type": "call_control_application",
                "active": true,
                "anchorsite_override": "Latency",
                "call_cost_in_webhooks": false,
                "dtmf_type": "RFC 2833",
                "first_command_timeout": false,
                "first_command_timeout_secs": 30,
                "redact_dtmf_debug_logging": false,
                "inbound": {
                    "channel_limit": null,
                    "shaken_stir_enabled": false,
                    "sip_subdomain": null,
                    "sip_subdomain_receive_settings": "from_anyone",
                },
                "outbound": {"channel_limit": null, "outbound_voice_profile_id": null},
                "tags": [],
                "webhook_api_version": "1",
                "webhook_event_failover_url": "",
                "webhook_timeout_secs": null,
            }),
            Shelf::MessagingProfiles => json!({
                "record_type": "messaging_profile",
                "enabled": true,
                "webhook_api_version": "2",
                "webhook_url": "",
                "webhook_failover_url": "",
                "whitelisted_destinations": [],
                "number_pool_settings": null,
                "url_shortener_settings": null,
                "alpha_sender": null,
                "mms_fall_back_to_sms": false,
                "mms_transcoding": false,
            }),
            Shelf::VoiceProfiles => json!({
                "record_type": "outbound_voice_profile",
                "enabled": true,
                "connections_count": 0,
                "traffic_type": "conversational",
                "service_plan": "global",
                "usage_payment_method": "rate-deck",
                "whitelisted_destinations": ["US", "CA"],
                "concurrent_call_limit": null,
                "daily_spend_limit_enabled": false,
                "billing_group_id": null,
                "tags": [],
            }),
        }
    }

    /// A thing with these fields.
    pub(super) fn make(self, id: &str, fields: Map<String, Value>) -> Value {
        let mut thing = self.defaults();
        let now = timestamp(Timestamp::now());
        thing["id"] = id.into();
        thing["created_at"] = now.clone().into();
        thing["updated_at"] = now.into();
        merge(&mut thing, fields);
        thing
    }
}

impl From<&OwnedApplication> for Value {
    fn from(owned: &OwnedApplication) -> Value {
        let fields = json!({
            "application_name": owned.name,
            "webhook_event_url": owned.webhook_event_url,
            "webhook_event_failover_url": owned.webhook_event_failover_url,
            "webhook_api_version": "2",
            "outbound": {"channel_limit": null, "outbound_voice_profile_id": owned.outbound_voice_profile},
        });
        Shelf::Applications.make(&owned.id, fields.as_object().cloned().unwrap_or_default())
    }
}

impl OwnedProfile {
    pub(super) fn on(&self, shelf: Shelf) -> Value {
        let fields = json!({"name": self.name});
        shelf.make(&self.id, fields.as_object().cloned().unwrap_or_default())
    }
}

/// Objects are changed field by field, everything else as a whole.
pub(super) fn merge(thing: &mut Value, fields: Map<String, Value>) {
    for (name, value) in fields {
        match value {
            Value::Object(inner) if thing[&name].is_object() => merge(&mut thing[&name], inner),
            value => thing[&name] = value,
        }
    }
}

pub(super) fn serve(request: &RestRequest<'_>, shelf: Shelf, method: &Method, rest: &[&str]) -> Answer {
    match (method, rest) {
        (&Method::GET, []) => list(request, shelf),
        (&Method::POST, []) => create(request, shelf),
        (&Method::GET, [id]) => {
            request.query(&[])?;
            shown(request.sim.thing(shelf, id).ok_or_else(Refusal::not_found)?)
        }
        (&Method::PATCH, [id]) => update(request, shelf, id),
        (&Method::DELETE, [id]) => delete(request, shelf, id),
        _ => Err(Refusal::not_found()),
    }
}

fn list(request: &RestRequest<'_>, shelf: Shelf) -> Answer {
    let query = request.query(shelf.parameters())?;
    let field = shelf.name_field();
    let part = query.value(&format!("filter[{field}][contains]"));
    let whole = query.value("filter[name]").or(query.value("filter[name][eq]"));
    let fits = |thing: &Value| {
        let name = thing[field].as_str().unwrap_or_default();
        part.is_none_or(|part| name.contains(part)) && whole.is_none_or(|whole| name == whole)
    };
    let state = request.sim.lock();
    let things = state.shelves.get(&shelf).into_iter().flatten();
    Ok((StatusCode::OK, query.page(things.filter(|thing| fits(thing)).cloned().collect())?))
}

fn create(request: &RestRequest<'_>, shelf: Shelf) -> Answer {
    let Body(fields) = request.body(shelf.fields())?;
    check_names(request.sim, shelf, &fields, None)?;
    let thing = shelf.make(&shelf.new_id(), fields);
    request.sim.lock().shelves.entry(shelf).or_default().push(thing.clone());
    Ok((shelf.made(), json!({"data": thing})))
}

fn update(request: &RestRequest<'_>, shelf: Shelf, id: &str) -> Answer {
    request.sim.thing(shelf, id).ok_or_else(Refusal::not_found)?;
    let fields = shelf.fields().iter();
    let Body(fields) = if shelf.repeats_required() {
        request.body(shelf.fields())?
    } else {
        request.body(&fields.map(Field::optional).collect::<Vec<_>>())?
    };
    check_names(request.sim, shelf, &fields, Some(id))?;
    let mut state = request.sim.lock();
    let things = state.shelves.entry(shelf).or_default();
    let thing = things.iter_mut().find(|thing| thing["id"] == id).ok_or_else(Refusal::not_found)?;
    merge(thing, fields);
    thing["updated_at"] = timestamp(Timestamp::now()).into();
    shown(thing.clone())
}

fn delete(request: &RestRequest<'_>, shelf: Shelf, id: &str) -> Answer {
    request.body(&[])?;
    let mut state = request.sim.lock();
    let things = state.shelves.entry(shelf).or_default();
    let place = things.iter().position(|thing| thing["id"] == id).ok_or_else(Refusal::not_found)?;
    let thing = things.remove(place);
    for number in &mut state.numbers {
        number.forget(shelf, id);
    }
    shown(thing)
}

/// No two applications have one name, and what is named must be there.
fn check_names(
    sim: &Arc<Sim>,
    shelf: Shelf,
    fields: &Map<String, Value>,
    own: Option<&str>,
) -> Result<(), Refusal> {
    if shelf != Shelf::Applications {
        return Ok(());
    }
    let name = &fields["application_name"];
    let state = sim.lock();
    let mut others = state.shelves.get(&shelf).into_iter().flatten();
    if others.any(|other| {
        other["application_name"] == *name && Some(&other["id"]) != own.map(Value::from).as_ref()
    }) {
        let detail = "The application name has already been taken.";
        let refusal = Refusal::new(StatusCode::CONFLICT, "10012", "Duplicate resource", detail);
        return Err(refusal.at("application_name"));
    }
    drop(state);
    let profile = fields.get("outbound").and_then(|outbound| outbound["outbound_voice_profile_id"].as_str());
    match profile.filter(|id| !id.is_empty() && sim.thing(Shelf::VoiceProfiles, id).is_none()) {
        None => Ok(()),
        Some(_) => Err(missing("outbound/outbound_voice_profile_id")),
    }
}

/// Something is named that is not there.
pub(super) fn missing(field: &str) -> Refusal {
    let detail = format!("The '{field}' parameter names nothing that this account has.");
    Refusal::unprocessable("10017", "Association missing", detail).at(field)
}

/// Where an application's events go; nothing where it takes none.
pub(super) fn target(application: &Value) -> Option<Target> {
    let text = |name: &str| application[name].as_str().unwrap_or_default();
    let url = text("webhook_event_url");
    if url.is_empty() || application["active"] == false {
        return None;
    }
    let failover = text("webhook_event_failover_url");
    let limit_s = application["webhook_timeout_secs"].as_u64().filter(|limit_s| *limit_s > 0);
    Some(Target {
        failover: (!failover.is_empty()).then(|| failover.to_owned()),
        limit: limit_s.map_or(DEFAULT_LIMIT, Duration::from_secs),
        is_v2: text("webhook_api_version") == "2",
        ..Target::new(url)
    })
}
