//! Who may ask the REST API for what: the account's token, API keys and what they open, regions.
//! It does not know what is asked for.

use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use offhook_core::Secret;
use serde::{Deserialize, Serialize};

use super::super::Sim;
use super::Refusal;

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
    /// Phone numbers, owned and for sale.
    Numbers,
    /// Messages, and messaging services.
    Messages,
    /// SIP trunks.
    Trunks,
    /// The debugger's alerts.
    Alerts,
    /// Prices.
    Prices,
    /// Processing regions.
    Routes,
}

/// `{product}.{edge}.{region}.twilio.com` serves only credentials of that region; without one it is `us1`.
/// A region without an edge may lead to `us1` all the same, and so it does here.
pub(super) fn check_host(sim: &Sim, headers: &HeaderMap, product: &str) -> Result<(), Refusal> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.split(':').next().unwrap_or_default();
    let Some(place) = name.strip_suffix(".twilio.com") else { return Ok(()) };
    let labels: Vec<&str> = place.split('.').collect();
    let region = match labels.as_slice() {
        [asked, ..] if *asked != product => return Err(Refusal::not_found(name)),
        [_, _, region] => region,
        _ => "us1",
    };
    if region == sim.settings.region { Ok(()) } else { Err(Refusal::unauthenticated()) }
}

pub(super) fn authorize(sim: &Sim, headers: &HeaderMap, area: Area) -> Result<(), Refusal> {
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

/// Whose credentials a request carries, right or not.
pub(super) fn user(headers: &HeaderMap) -> Option<String> {
    Some(basic_credentials(headers)?.split_once(':')?.0.to_owned())
}

fn basic_credentials(headers: &HeaderMap) -> Option<String> {
    let encoded = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}
