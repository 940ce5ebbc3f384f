//! Twilio's REST API as far as telephony and connection tests use it, with its own errors and its own paging. One server
//! stands for all hosts: those beside api.twilio.com are told apart by their paths. It changes and shows what the
//! simulator holds; it runs nothing itself.

mod access;
mod calls;
mod conferences;
pub(super) mod fields;
pub(super) mod form;
mod monitor;
mod numbers;
mod page;
mod prices;
mod routes;
mod services;
mod trunks;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State as Shared};
use axum::http::header::HOST;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use jiff::Timestamp;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::faults::{RestRecord, RestTrouble, Wire};
use super::{AccountStatus, Sim, rfc2822};
use form::Form;
use page::PAGING;

pub use access::{ApiKey, Area, KeyKind};
pub(super) use services::Service;
pub(super) use trunks::Trunk;

pub(super) fn router() -> Router<Arc<Sim>> {
    Router::new()
        .route("/2010-04-01/{*resource}", any(serve))
        .route("/v1/{*resource}", any(serve))
        .route("/v2/{*resource}", any(serve))
}

/// An error of the API, with the body that Twilio gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: u32,
    pub(super) message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: u32, message: impl Into<String>) -> Refusal {
        Refusal { status, code, message: message.into() }
    }

    fn invalid(code: u32, message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, code, message)
    }

    fn unknown_parameter(name: &str) -> Refusal {
        Refusal::invalid(20001, format!("Unknown parameter: {name}"))
    }

    fn unauthenticated() -> Refusal {
        Refusal::new(StatusCode::UNAUTHORIZED, 20003, "Authenticate")
    }

    fn not_found(path: &str) -> Refusal {
        let message = format!("The requested resource {path} was not found");
        Refusal::new(StatusCode::NOT_FOUND, 20404, message)
    }

    fn not_allowed() -> Refusal {
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, 20004, "Method not allowed")
    }

    fn internal() -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, 20500, "Internal server error")
    }

    fn too_many_requests() -> Refusal {
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, 20429, "Too Many Requests")
    }

    fn unavailable() -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, 20503, "Service unavailable")
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

/// The answer to a DELETE.
fn done() -> Answer {
    Ok((StatusCode::NO_CONTENT, Value::Null))
}

fn into_response(answer: Answer) -> Response {
    match answer {
        Ok((StatusCode::NO_CONTENT, _)) => StatusCode::NO_CONTENT.into_response(),
        Ok((status, value)) => (status, axum::Json(value)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// Writes the request down, makes the trouble that was planned for it, and answers.
async fn serve(
    Shared(sim): Shared<Arc<Sim>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let pairs = |form: Form| form.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let record = RestRecord {
        method: method.to_string(),
        path: uri.path().to_owned(),
        query: pairs(Form::query(uri.query().unwrap_or_default())),
        form: Form::body(&headers, &body).map(pairs).unwrap_or_default(),
        user: access::user(&headers),
        trouble: None,
        status: None,
        code: None,
    };
    let (number, trouble) = sim.lock().journal.begin(record);
    let carried_out = match trouble {
        None => Some(fail_on_demand(&sim).and_then(|()| answer(&sim, &method, &uri, &headers, &body))),
        Some(trouble) if trouble.is_done_first() => Some(answer(&sim, &method, &uri, &headers, &body)),
        Some(_) => None,
    };
    let outcome = match trouble {
        Some(RestTrouble::InternalError) => Err(Refusal::internal()),
        Some(RestTrouble::TooManyRequests) => Err(Refusal::too_many_requests()),
        Some(RestTrouble::Unavailable) => Err(Refusal::unavailable()),
        _ => carried_out.clone().unwrap_or_else(done),
    };
    if carried_out.is_some() || outcome.is_err() {
        let (status, code) = match &outcome {
            Ok((status, _)) => (status.as_u16(), None),
            Err(refusal) => (refusal.status.as_u16(), Some(refusal.code)),
        };
        sim.lock().journal.end(number, status, code);
    }
    sim.requests_changed.send_replace(());
    match trouble {
        Some(RestTrouble::NoAnswer | RestTrouble::DoneThenNoAnswer) => std::future::pending().await,
        Some(RestTrouble::Cut | RestTrouble::DoneThenCut) => {
            wire.cut();
            into_response(outcome)
        }
        Some(RestTrouble::DoneThenInternalError) => Refusal::internal().into_response(),
        _ => into_response(outcome),
    }
}

fn fail_on_demand(sim: &Sim) -> Result<(), Refusal> {
    let faults = &mut sim.lock().rest_faults;
    if faults.too_many_requests > 0 {
        faults.too_many_requests -= 1;
        return Err(Refusal::too_many_requests());
    }
    if faults.unavailable > 0 {
        faults.unavailable -= 1;
        return Err(Refusal::unavailable());
    }
    if faults.wrong_region { Err(Refusal::unauthenticated()) } else { Ok(()) }
}

fn answer(sim: &Arc<Sim>, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Answer {
    let path = uri.path();
    let segments: Vec<String> = path.split('/').skip(1).map(decoded).collect();
    let mut segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if segments.first() == Some(&"2010-04-01") {
        let last = segments.last_mut().ok_or_else(|| Refusal::not_found(path))?;
        *last = last.strip_suffix(".json").ok_or_else(|| Refusal::not_found(path))?;
    }
    let (product, area) = place_of(&segments).ok_or_else(|| Refusal::not_found(path))?;
    access::check_host(sim, headers, product)?;
    access::authorize(sim, headers, area)?;
    if product == "api" && segments.get(2).is_some_and(|account| *account != sim.settings.account_sid) {
        return Err(Refusal::not_found(path));
    }
    if area != Area::Account && sim.lock().account_status != AccountStatus::Active {
        return Err(Refusal::unauthenticated());
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let query = Form::query(uri.query().unwrap_or_default());
    let request = RestRequest { sim, path, host, query };
    let form = match *method {
        Method::POST => {
            request.query.only(&[])?;
            Some(Form::body(headers, body)?)
        }
        _ => None,
    };
    match (product, &form) {
        ("api", Some(form)) => request.post_api(&segments[3.min(segments.len())..], form),
        ("api", None) => request.read_api(method, &segments[3.min(segments.len())..]),
        (_, form) => request.beside(method, &segments, form.as_ref()),
    }
}

/// The host that a path belongs to, and the area that a key must open.
fn place_of(segments: &[&str]) -> Option<(&'static str, Area)> {
    let place = match segments {
        ["2010-04-01", "Accounts"] | ["2010-04-01", "Accounts", _] => ("api", Area::Account),
        ["2010-04-01", "Accounts", _, "Calls" | "Conferences", ..] => ("api", Area::Calls),
        ["2010-04-01", "Accounts", _, "IncomingPhoneNumbers" | "AvailablePhoneNumbers", ..] => {
            ("api", Area::Numbers)
        }
        ["2010-04-01", "Accounts", _, "Messages", ..] => ("api", Area::Messages),
        ["v1", "Trunks", ..] => ("trunking", Area::Trunks),
        ["v1", "Services", ..] => ("messaging", Area::Messages),
        ["v1", "Alerts", ..] => ("monitor", Area::Alerts),
        ["v1", "PhoneNumbers", "Countries", ..] | ["v2", "Voice", "Countries", ..] => {
            ("pricing", Area::Prices)
        }
        ["v2", "PhoneNumbers", _] => ("routes", Area::Routes),
        _ => return None,
    };
    Some(place)
}

/// A segment of a path, in which a plus is a plus.
fn decoded(segment: &str) -> String {
    let segment = segment.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(segment.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

struct RestRequest<'a> {
    sim: &'a Arc<Sim>,
    path: &'a str,
    /// The host that was asked, with its port: links lead back to it.
    host: &'a str,
    query: Form,
}

impl RestRequest<'_> {
    fn read_api(&self, method: &Method, resource: &[&str]) -> Answer {
        match (method, resource) {
            (&Method::GET, []) => self.account_json(),
            (&Method::GET, ["Calls"]) => self.calls(),
            (&Method::GET, ["Calls", sid]) => self.call(sid),
            (&Method::GET | &Method::DELETE, ["Conferences", rest @ ..]) => {
                self.conferences(method, rest, None)
            }
            (&Method::GET, ["AvailablePhoneNumbers"]) => self.countries(),
            (&Method::GET, ["AvailablePhoneNumbers", country]) => self.country(country),
            (&Method::GET, ["AvailablePhoneNumbers", country, kind]) => self.available(country, kind),
            (&Method::GET, ["IncomingPhoneNumbers"]) => self.numbers(),
            (&Method::GET, ["IncomingPhoneNumbers", sid]) => self.number(sid),
            (&Method::DELETE, ["IncomingPhoneNumbers", sid]) => self.release(sid),
            (&Method::GET, ["Messages"]) => self.messages(),
            (_, [_] | [_, _]) => Err(Refusal::not_allowed()),
            _ => Err(Refusal::not_found(self.path)),
        }
    }

    fn post_api(&self, resource: &[&str], form: &Form) -> Answer {
        match resource {
            ["Calls"] => self.create_call(form),
            ["Calls", sid] => self.update_call(sid, form),
            ["Conferences", rest @ ..] => self.conferences(&Method::POST, rest, Some(form)),
            ["IncomingPhoneNumbers"] => self.buy(form),
            ["IncomingPhoneNumbers", sid] => self.update_number(sid, form),
            [_] | [_, _] => Err(Refusal::not_allowed()),
            _ => Err(Refusal::not_found(self.path)),
        }
    }

    /// The hosts beside api.twilio.com.
    fn beside(&self, method: &Method, resource: &[&str], form: Option<&Form>) -> Answer {
        let deletes = *method == Method::DELETE;
        if !deletes && *method != Method::GET && form.is_none() {
            return Err(Refusal::not_allowed());
        }
        match (&resource[1..], form) {
            (["Trunks"], None) if !deletes => self.trunks(),
            (["Trunks"], Some(form)) => self.create_trunk(form),
            (["Trunks", sid], None) if deletes => self.delete_trunk(sid),
            (["Trunks", sid], None) => self.trunk(sid),
            (["Trunks", sid], Some(form)) => self.update_trunk(sid, form),
            (["Trunks", trunk, "Recording"], form) if !deletes => self.recording(trunk, form),
            (["Trunks", trunk, "OriginationUrls"], None) if !deletes => self.originations(trunk),
            (["Trunks", trunk, "OriginationUrls"], Some(form)) => self.create_origination(trunk, form),
            (["Trunks", trunk, "OriginationUrls", sid], _) if deletes => self.delete_origination(trunk, sid),
            (["Trunks", trunk, "OriginationUrls", sid], form) => self.origination(trunk, sid, form),
            (["Trunks", trunk, "PhoneNumbers"], None) if !deletes => self.trunk_numbers(trunk),
            (["Trunks", trunk, "PhoneNumbers"], Some(form)) => self.add_trunk_number(trunk, form),
            (["Trunks", trunk, "PhoneNumbers", sid], None) if deletes => self.remove_trunk_number(trunk, sid),
            (["Trunks", trunk, "PhoneNumbers", sid], None) => self.trunk_number(trunk, sid),
            (["Services"], None) if !deletes => self.services(),
            (["Services"], Some(form)) => self.create_service(form),
            (["Services", sid], _) if deletes => self.delete_service(sid),
            (["Services", sid], form) => self.service(sid, form),
            (["Services", service, "PhoneNumbers"], None) if !deletes => self.service_numbers(service),
            (["Services", service, "PhoneNumbers"], Some(form)) => self.add_service_number(service, form),
            (["Services", service, "PhoneNumbers", sid], None) if deletes => {
                self.remove_service_number(service, sid)
            }
            (["Services", service, "PhoneNumbers", sid], None) => self.service_number(service, sid),
            (["Alerts"], None) if !deletes => self.alerts(),
            (["Alerts", sid], None) if !deletes => self.alert(sid),
            (["PhoneNumbers", "Countries"] | ["Voice", "Countries"], None) if !deletes => {
                self.priced_countries()
            }
            (["PhoneNumbers", "Countries", country], None) if !deletes => self.number_prices(country),
            (["Voice", "Countries", country], None) if !deletes => self.voice_prices(country),
            (["PhoneNumbers", e164], form) if !deletes => self.route(e164, form),
            _ => Err(Refusal::not_found(self.path)),
        }
    }

    fn account(&self) -> &str {
        &self.sim.settings.account_sid
    }

    fn account_path(&self) -> String {
        format!("/2010-04-01/Accounts/{}", self.account())
    }

    /// A whole URL of the host that was asked.
    fn url(&self, path: &str) -> String {
        let scheme = if self.host.ends_with(".twilio.com") { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.host)
    }

    fn account_json(&self) -> Answer {
        let sid = self.account();
        let base = self.account_path();
        let created = rfc2822(Timestamp::UNIX_EPOCH);
        let account = json!({
            "sid": sid,
            "owner_account_sid": sid,
            "friendly_name": "Simulated account",
            "status": self.sim.lock().account_status,
            "type": if self.sim.settings.trial { "Trial" } else { "Full" },
            "auth_token": self.sim.settings.auth_token.expose(),
            "date_created": created,
            "date_updated": created,
            "uri": format!("{base}.json"),
            "subresource_uris": {
                "calls": format!("{base}/Calls.json"),
                "available_phone_numbers": format!("{base}/AvailablePhoneNumbers.json"),
                "incoming_phone_numbers": format!("{base}/IncomingPhoneNumbers.json"),
                "messages": format!("{base}/Messages.json"),
            },
        });
        Ok((StatusCode::OK, account))
    }

    fn messages(&self) -> Answer {
        self.query
            .only(&[["To", "From", "DateSent", "DateSent<", "DateSent>"].as_slice(), &PAGING].concat())?;
        self.page("messages", Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_in_a_path_is_a_plus_however_it_is_written() {
        for segment in ["+14155550200", "%2B14155550200"] {
            assert_eq!(decoded(segment), "+14155550200");
        }
        assert_eq!(decoded("a%20b"), "a b");
    }
}
