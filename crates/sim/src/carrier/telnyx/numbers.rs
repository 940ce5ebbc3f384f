//! The account's numbers: what leads where, and the three places of the API that say so. It does not know how they are bought or called.

use std::sync::Arc;

use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::account::{Shelf, missing};
use super::request::{Body, Field, Kind, Refusal};
use super::rest::{Answer, RestRequest, shown};
use super::{Sim, new_big_id, timestamp};

/// A number that the account owns when the simulator starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedNumber {
    /// The number itself.
    pub e164: String,
    /// The id of the application or other connection that it leads to.
    pub connection: Option<String>,
    /// The id of its messaging profile.
    pub messaging_profile: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
}

impl OwnedNumber {
    /// A number that leads to a connection.
    pub fn new(e164: impl Into<String>, connection: impl Into<String>) -> OwnedNumber {
        OwnedNumber {
            e164: e164.into(),
            connection: Some(connection.into()),
            messaging_profile: None,
            tags: Vec::new(),
        }
    }

    /// A number that leads nowhere.
    pub fn idle(e164: impl Into<String>) -> OwnedNumber {
        OwnedNumber { e164: e164.into(), connection: None, messaging_profile: None, tags: Vec::new() }
    }
}

/// A number as the API keeps it.
#[derive(Clone, Debug)]
pub(super) struct Number {
    id: String,
    e164: String,
    kind: &'static str,
    country: String,
    pub(super) connection: Option<String>,
    messaging_profile: Option<String>,
    /// What else can be set on the number itself.
    fields: Map<String, Value>,
    voice: Value,
    created: Timestamp,
    updated: Timestamp,
    /// Before this nobody is shown it: the API is only consistent after a while.
    appears: Instant,
}

impl Number {
    pub(super) fn new(owned: &OwnedNumber, appears: Instant) -> Number {
        let now = Timestamp::now();
        let us = owned.e164.starts_with("+1");
        Number {
            id: new_big_id(),
            e164: owned.e164.clone(),
            kind: "local",
            country: if us { "US" } else { "GB" }.to_owned(),
            connection: owned.connection.clone(),
            messaging_profile: owned.messaging_profile.clone(),
            fields: Map::from_iter([("tags".to_owned(), json!(owned.tags))]),
            voice: json!({
                "call_forwarding": {
                    "call_forwarding_enabled": false, "forwards_to": "", "forwarding_type": "always",
                },
                "caller_id_name_enabled": false,
                "cnam_listing": {"cnam_listing_enabled": false, "cnam_listing_details": ""},
                "call_recording": {
                    "inbound_call_recording_enabled": false,
                    "inbound_call_recording_format": "wav",
                    "inbound_call_recording_channels": "single",
                },
                "inbound_call_screening": "disabled",
                "media_features": {
                    "rtp_auto_adjust_enabled": true,
                    "accept_any_rtp_packets_enabled": false,
                    "t38_fax_gateway_enabled": false,
                },
                "tech_prefix_enabled": false,
                "translated_number": "",
                "usage_payment_method": "pay-per-minute",
            }),
            created: now,
            updated: now,
            appears,
        }
    }

    pub(super) fn bought(mut self, kind: &'static str, country: &str, reference: Option<&str>) -> Number {
        self.kind = kind;
        self.country = country.to_owned();
        self.fields.insert("customer_reference".into(), reference.into());
        self
    }

    pub(super) fn e164(&self) -> &str {
        &self.e164
    }

    /// A deleted application or profile leaves its numbers without one.
    pub(super) fn forget(&mut self, shelf: Shelf, id: &str) {
        let setting = match shelf {
            Shelf::Applications => &mut self.connection,
            Shelf::MessagingProfiles => &mut self.messaging_profile,
            Shelf::VoiceProfiles => return,
        };
        if setting.as_deref() == Some(id) {
            *setting = None;
        }
    }

    fn is_visible(&self) -> bool {
        self.appears <= Instant::now()
    }

    fn json(&self, sim: &Sim) -> Value {
        let connection_name = self.connection.as_deref().and_then(|id| sim.connection_name(id));
        let profile = self.messaging_profile.as_deref();
        let profile = profile.and_then(|id| sim.thing(Shelf::MessagingProfiles, id));
        let voice = |name: &str| self.voice[name].clone();
        let mut number = json!({
            "id": self.id,
            "record_type": "phone_number",
            "phone_number": self.e164,
            "phone_number_type": self.kind,
            "country_iso_alpha2": self.country,
            "status": "active",
            "source_type": "number_order",
            "tags": [],
            "external_pin": null,
            "customer_reference": null,
            "billing_group_id": null,
            "connection_id": self.connection,
            "connection_name": connection_name,
            "messaging_profile_id": self.messaging_profile,
            "messaging_profile_name": profile.map(|profile| profile["name"].clone()),
            "emergency_enabled": false,
            "emergency_status": "disabled",
            "emergency_address_id": null,
            "call_forwarding_enabled": self.voice["call_forwarding"]["call_forwarding_enabled"],
            "call_recording_enabled": false,
            "caller_id_name_enabled": voice("caller_id_name_enabled"),
            "cnam_listing_enabled": self.voice["cnam_listing"]["cnam_listing_enabled"],
            "inbound_call_screening": voice("inbound_call_screening"),
            "t38_fax_gateway_enabled": false,
            "hd_voice_enabled": false,
            "deletion_lock_enabled": false,
            "purchased_at": timestamp(self.created),
            "activated_at": timestamp(self.created),
            "created_at": timestamp(self.created),
            "updated_at": timestamp(self.updated),
        });
        for (name, value) in &self.fields {
            number[name] = value.clone();
        }
        number
    }

    fn messaging_json(&self) -> Value {
        let both_ways =
            json!({"domestic_two_way": true, "international_inbound": true, "international_outbound": true});
        json!({
            "record_type": "messaging_settings",
            "id": self.id,
            "phone_number": self.e164,
            "messaging_profile_id": self.messaging_profile,
            "country_code": self.country,
            "type": "long-code",
            "messaging_product": "A2P",
            "traffic_type": "A2P",
            "eligible_messaging_products": ["A2P"],
            "features": {"sms": both_ways, "mms": both_ways},
            "health": {
                "message_count": 0, "inbound_outbound_ratio": 0.0, "success_ratio": 1.0, "spam_ratio": 0.0,
            },
            "tags": self.fields.get("tags"),
            "created_at": timestamp(self.created),
            "updated_at": timestamp(self.updated),
        })
    }

    fn voice_json(&self) -> Value {
        let mut voice = self.voice.clone();
        if let Some(fields) = voice.as_object_mut() {
            // It can be set here and is documented to be shown on the number only.
            fields.remove("caller_id_name_enabled");
        }
        voice["record_type"] = "voice_settings".into();
        voice["id"] = self.id.as_str().into();
        voice["phone_number"] = self.e164.as_str().into();
        voice["connection_id"] = json!(self.connection);
        voice["customer_reference"] = json!(self.fields.get("customer_reference"));
        voice["emergency"] =
            json!({"emergency_enabled": false, "emergency_status": "disabled", "emergency_address_id": ""});
        voice
    }
}

/// Fewer are refused in a filter.
const LEAST_DIGITS: usize = 3;

const FILTERS: &[&str] = &[
    "page[number]",
    "page[size]",
    "sort",
    "handle_messaging_profile_error",
    "filter[phone_number]",
    "filter[status]",
    "filter[tag]",
    "filter[connection_id]",
    "filter[customer_reference]",
    "filter[country_iso_alpha2]",
    "filter[number_type][eq]",
    "filter[source]",
    "filter[without_tags]",
    "filter[voice.connection_name][contains]",
    "filter[voice.connection_name][eq]",
    "filter[voice.connection_name][starts_with]",
    "filter[voice.connection_name][ends_with]",
    "filter[voice.usage_payment_method]",
    "filter[emergency_address_id]",
    "filter[billing_group_id]",
];

pub(super) fn list(request: &RestRequest<'_>) -> Answer {
    let query = request.query(FILTERS)?;
    let visible: Vec<Number> =
        request.sim.lock().numbers.iter().filter(|number| number.is_visible()).cloned().collect();
    let mut shown: Vec<Value> = visible.iter().map(|number| number.json(request.sim)).collect();
    let dialled = query.value("filter[phone_number]");
    if dialled.is_some_and(|part| part.chars().filter(char::is_ascii_digit).count() < LEAST_DIGITS) {
        let detail = format!("The 'filter[phone_number]' parameter requires at least {LEAST_DIGITS} digits.");
        return Err(Refusal::bad_request(detail));
    }
    let takes_plus = request.sim.settings.number_filter_takes_plus;
    let is_dialled = |e164: &str| {
        dialled.is_none_or(|part| {
            let part = if takes_plus { part.strip_prefix('+').unwrap_or(part) } else { part };
            // Documented: other characters find nothing.
            part.chars().all(|c| c.is_ascii_digit()) && e164.contains(part)
        })
    };
    shown.retain(|number| {
        let is = |filter: &str, field: &str| {
            let wished = query.value(&format!("filter[{filter}]"));
            wished.is_none_or(|wished| number[field].as_str() == Some(wished))
        };
        let name = number["connection_name"].as_str().unwrap_or_default();
        let named = |how: &str| query.value(&format!("filter[voice.connection_name][{how}]"));
        is_dialled(number["phone_number"].as_str().unwrap_or_default())
            && is("status", "status")
            && is("connection_id", "connection_id")
            && is("customer_reference", "customer_reference")
            && is("country_iso_alpha2", "country_iso_alpha2")
            && is("number_type][eq", "phone_number_type")
            && (query.value("filter[without_tags]") != Some("true") || number["tags"] == json!([]))
            && query.value("filter[tag]").is_none_or(|tag| {
                number["tags"].as_array().is_some_and(|tags| tags.iter().any(|own| own == tag))
            })
            && named("contains").is_none_or(|part| name.contains(part))
            && named("eq").is_none_or(|whole| name == whole)
            && named("starts_with").is_none_or(|start| name.starts_with(start))
            && named("ends_with").is_none_or(|end| name.ends_with(end))
    });
    match query.value("sort") {
        None | Some("purchased_at" | "usage_payment_method") => {}
        Some(field @ ("phone_number" | "connection_name")) => {
            shown.sort_by_key(|number| number[field].as_str().unwrap_or_default().to_owned());
        }
        Some(other) => return Err(Refusal::bad_request(format!("Numbers are not sorted by '{other}'."))),
    }
    Ok((StatusCode::OK, query.page(shown)?))
}

fn find(sim: &Sim, id: &str) -> Result<Number, Refusal> {
    let state = sim.lock();
    let found = state.numbers.iter().find(|number| number.id == id && number.is_visible());
    found.cloned().ok_or_else(Refusal::not_found)
}

fn change(sim: &Sim, id: &str, change: impl FnOnce(&mut Number)) -> Result<Number, Refusal> {
    let mut state = sim.lock();
    let number = state.numbers.iter_mut().find(|number| number.id == id).ok_or_else(Refusal::not_found)?;
    change(number);
    number.updated = Timestamp::now();
    Ok(number.clone())
}

pub(super) fn show(request: &RestRequest<'_>, id: &str) -> Answer {
    request.query(&[])?;
    shown(find(request.sim, id)?.json(request.sim))
}

pub(super) fn update(request: &RestRequest<'_>, id: &str) -> Answer {
    const FIELDS: &[Field] = &[
        Field::text("id"),
        Field::text("connection_id").or_null(),
        Field::text("customer_reference"),
        Field::text("external_pin"),
        Field::text("billing_group_id"),
        Field::text("address_id"),
        Field::flag("hd_voice_enabled"),
        Field::new("tags", Kind::Texts),
    ];
    let number = find(request.sim, id)?;
    let mut body = request.body(FIELDS)?;
    let connection = take_id(&mut body, "connection_id");
    if let Some(Some(id)) = &connection
        && request.sim.connection_name(id).is_none()
    {
        return Err(missing("connection_id"));
    }
    body.0.remove("id");
    let changed = change(request.sim, &number.id, |number| {
        if let Some(connection) = connection {
            number.connection = connection;
        }
        number.fields.extend(body.0);
    })?;
    shown(changed.json(request.sim))
}

/// An id that a request sets: nothing where it is not named, and inside nothing where it is taken away.
fn take_id(body: &mut Body, name: &str) -> Option<Option<String>> {
    let value = body.0.remove(name)?;
    Some(value.as_str().filter(|id| !id.is_empty()).map(str::to_owned))
}

pub(super) fn delete(request: &RestRequest<'_>, id: &str) -> Answer {
    request.body(&[])?;
    let number = find(request.sim, id)?;
    request.sim.lock().numbers.retain(|other| other.id != number.id);
    let mut deleted = number.json(request.sim);
    deleted["status"] = "deleted".into();
    if let Some(fields) = deleted.as_object_mut() {
        // A deleted number is documented with fewer fields, and without null.
        const NOT_SHOWN: [&str; 4] =
            ["country_iso_alpha2", "emergency_status", "inbound_call_screening", "source_type"];
        fields.retain(|name, value| !value.is_null() && !NOT_SHOWN.contains(&name.as_str()));
    }
    shown(deleted)
}

pub(super) fn show_messaging(request: &RestRequest<'_>, id: &str) -> Answer {
    request.query(&[])?;
    shown(find(request.sim, id)?.messaging_json())
}

pub(super) fn update_messaging(request: &RestRequest<'_>, id: &str) -> Answer {
    const FIELDS: &[Field] = &[
        Field::text("messaging_profile_id").or_null(),
        Field::text("messaging_product").or_null(),
        Field::new("tags", Kind::Texts),
    ];
    let number = find(request.sim, id)?;
    let mut body = request.body(FIELDS)?;
    // Documented: null keeps, as if it were not named.
    body.0.retain(|_, value| !value.is_null());
    let profile = take_id(&mut body, "messaging_profile_id");
    if let Some(Some(id)) = &profile
        && request.sim.thing(Shelf::MessagingProfiles, id).is_none()
    {
        return Err(missing("messaging_profile_id"));
    }
    let changed = change(request.sim, &number.id, |number| {
        if let Some(profile) = profile {
            number.messaging_profile = profile;
        }
    })?;
    shown(changed.messaging_json())
}

pub(super) fn show_voice(request: &RestRequest<'_>, id: &str) -> Answer {
    request.query(&[])?;
    shown(find(request.sim, id)?.voice_json())
}

pub(super) fn update_voice(request: &RestRequest<'_>, id: &str) -> Answer {
    const FORWARDING: &[Field] = &[
        Field::flag("call_forwarding_enabled"),
        Field::text("forwards_to"),
        Field::one_of("forwarding_type", &["always", "on-failure"]),
    ];
    const RECORDING: &[Field] = &[
        Field::flag("inbound_call_recording_enabled"),
        Field::one_of("inbound_call_recording_format", &["wav", "mp3"]),
        Field::one_of("inbound_call_recording_channels", &["single", "dual"]),
    ];
    const LISTING: &[Field] = &[Field::flag("cnam_listing_enabled"), Field::text("cnam_listing_details")];
    const MEDIA: &[Field] = &[
        Field::flag("rtp_auto_adjust_enabled"),
        Field::flag("accept_any_rtp_packets_enabled"),
        Field::flag("t38_fax_gateway_enabled"),
    ];
    const FIELDS: &[Field] = &[
        Field::new("call_forwarding", Kind::Object(FORWARDING)),
        Field::new("call_recording", Kind::Object(RECORDING)),
        Field::new("cnam_listing", Kind::Object(LISTING)),
        Field::new("media_features", Kind::Object(MEDIA)),
        Field::flag("caller_id_name_enabled"),
        Field::one_of("inbound_call_screening", &["disabled", "reject_calls", "flag_calls"]),
        Field::flag("tech_prefix_enabled"),
        Field::text("translated_number"),
        Field::one_of("usage_payment_method", &["pay-per-minute", "channel"]),
    ];
    let number = find(request.sim, id)?;
    let Body(fields) = request.body(FIELDS)?;
    let changed = change(request.sim, &number.id, |number| super::account::merge(&mut number.voice, fields))?;
    shown(changed.voice_json())
}

/// The application that a called number leads to.
pub(super) fn application_of(sim: &Arc<Sim>, e164: &str) -> Option<Value> {
    let connection = {
        let state = sim.lock();
        state.numbers.iter().find(|number| number.e164 == e164)?.connection.clone()?
    };
    sim.thing(Shelf::Applications, &connection)
}
