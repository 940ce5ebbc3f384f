//! Telnyx's REST API, version 2, as far as telephony and connection tests use it: who may ask what, and where each path leads.
//! It changes and shows what the simulator holds; it runs nothing itself.

use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use offhook_core::Secret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::request::{Body, Field, Query, Refusal};
use super::server::PREFIX;
use super::{Sim, account, command, dial, numbers, order};

/// A part of the API that a key can lack the permission for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// What the account has to spend.
    Balance,
    /// The account's numbers.
    Numbers,
    /// Numbers for sale, and orders of them.
    Orders,
    /// Call control applications.
    Applications,
    /// Outbound voice profiles.
    VoiceProfiles,
    /// Messaging profiles and the messaging settings of numbers.
    Messaging,
    /// Calls and their commands.
    Calls,
}

/// A key of the API beside the account's first one.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// `KEY…`
    pub key: Secret<String>,
    /// What it does not open.
    pub lacks: Vec<Area>,
}

pub(super) type Answer = Result<(StatusCode, Value), Refusal>;

/// 200 with something as its data.
pub(super) fn shown(data: Value) -> Answer {
    Ok((StatusCode::OK, json!({"data": data})))
}

/// One request to the API with what its path led to.
pub(super) struct RestRequest<'a> {
    pub(super) sim: &'a Arc<Sim>,
    parts: &'a Parts,
    body: &'a [u8],
}

impl RestRequest<'_> {
    pub(super) fn query(&self, known: &[&str]) -> Result<Query, Refusal> {
        Query::read(self.parts.uri.query().unwrap_or_default(), known)
    }

    /// The body's checked fields, of a request that has no query.
    pub(super) fn body(&self, fields: &[Field]) -> Result<Body, Refusal> {
        self.body_of(&[fields])
    }

    /// The same, where the fields come in families.
    pub(super) fn body_of(&self, families: &[&[Field]]) -> Result<Body, Refusal> {
        self.query(&[])?;
        Body::read(families, &self.parts.headers, self.body)
    }
}

pub(super) fn answer(sim: &Arc<Sim>, parts: &Parts, body: &[u8]) -> Response {
    match route(&RestRequest { sim, parts, body }) {
        Ok((status, value)) => (status, axum::Json(value)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

fn route(request: &RestRequest<'_>) -> Answer {
    let path = request.parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let segments: Vec<String> = path.split('/').skip(1).map(unescape).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let area = match segments.as_slice() {
        ["balance"] => Area::Balance,
        ["phone_numbers", _, "messaging"] | ["messaging_profiles", ..] => Area::Messaging,
        ["phone_numbers", ..] => Area::Numbers,
        ["available_phone_numbers"] | ["number_orders", ..] => Area::Orders,
        ["call_control_applications", ..] => Area::Applications,
        ["outbound_voice_profiles", ..] => Area::VoiceProfiles,
        ["calls", ..] => Area::Calls,
        _ => return Err(Refusal::not_found()),
    };
    authorize(request, area)?;
    match (&request.parts.method, segments.as_slice()) {
        (&Method::GET, ["balance"]) => account::balance(request),
        (&Method::GET, ["phone_numbers"]) => numbers::list(request),
        (&Method::GET, ["phone_numbers", id]) => numbers::show(request, id),
        (&Method::PATCH, ["phone_numbers", id]) => numbers::update(request, id),
        (&Method::DELETE, ["phone_numbers", id]) => numbers::delete(request, id),
        (&Method::GET, ["phone_numbers", id, "messaging"]) => numbers::show_messaging(request, id),
        (&Method::PATCH, ["phone_numbers", id, "messaging"]) => numbers::update_messaging(request, id),
        (&Method::GET, ["phone_numbers", id, "voice"]) => numbers::show_voice(request, id),
        (&Method::PATCH, ["phone_numbers", id, "voice"]) => numbers::update_voice(request, id),
        (&Method::GET, ["available_phone_numbers"]) => order::available(request),
        (&Method::GET, ["number_orders"]) => order::list(request),
        (&Method::POST, ["number_orders"]) => order::create(request),
        (&Method::GET, ["number_orders", id]) => order::show(request, id),
        (&Method::PATCH, ["number_orders", id]) => order::update(request, id),
        (method, ["call_control_applications", rest @ ..]) => {
            account::serve(request, account::Shelf::Applications, method, rest)
        }
        (method, ["messaging_profiles", rest @ ..]) => {
            account::serve(request, account::Shelf::MessagingProfiles, method, rest)
        }
        (method, ["outbound_voice_profiles", rest @ ..]) => {
            account::serve(request, account::Shelf::VoiceProfiles, method, rest)
        }
        (&Method::POST, ["calls"]) => dial::create(request),
        (&Method::GET, ["calls", id]) => command::show(request, id),
        (&Method::POST, ["calls", id, "actions", name]) => command::run(request, id, name),
        (&Method::PUT, ["calls", id, "actions", "client_state_update"]) => {
            command::run(request, id, "client_state_update")
        }
        _ => Err(Refusal::not_found()),
    }
}

/// A request without the header is told that there is nothing here (section 1 of the notes), and not that it needs one.
fn authorize(request: &RestRequest<'_>, area: Area) -> Result<(), Refusal> {
    let header = request.parts.headers.get(AUTHORIZATION).ok_or_else(Refusal::not_found)?;
    let key = header.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let settings = &request.sim.settings;
    let own = settings.keys.iter().find(|own| own.key.expose() == key);
    if own.is_none() && key != settings.api_key.expose() {
        let detail = "Could not understand the provided credentials.";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "10009", "Authentication failed", detail));
    }
    let denied = own.is_some_and(|own| own.lacks.contains(&area));
    if denied || request.sim.lock().denied.contains(&area) {
        let detail = "You do not have permission to perform the requested action.";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "10010", "Authorization failed", detail));
    }
    Ok(())
}

/// A segment of a path as it was meant: ids of calls hold colons, which some clients escape.
fn unescape(segment: &str) -> String {
    let query = format!("s={}", segment.replace('+', "%2B"));
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}
