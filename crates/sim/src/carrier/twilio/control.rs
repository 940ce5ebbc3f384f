//! The simulator's own API under `/_sim/`: places calls and makes trouble from another process, such as a terminal.
//! It is no part of Twilio and asks for no credentials: bind the simulator to an address that only you can reach.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::Call;
use super::webhook::{Signing, WebhookFailure, WebhookKind};
use super::{
    AfterLoss, Alert, CallOrder, Callee, RestFaults, RestRecord, RestTrouble, Sim, WebhookRecord, Which,
    place_inbound,
};

pub(super) fn router() -> Router<Arc<Sim>> {
    Router::new()
        .route("/_sim/calls", get(calls).post(place))
        .route("/_sim/calls/{sid}", get(call))
        .route("/_sim/calls/{sid}/recording.wav", get(recording))
        .route("/_sim/calls/{sid}/hangup", post(hang_up))
        .route("/_sim/calls/{sid}/dtmf", post(dtmf))
        .route("/_sim/calls/{sid}/say", post(say))
        .route("/_sim/calls/{sid}/lose-socket", post(lose_socket))
        .route("/_sim/callees", post(callee))
        .route("/_sim/rest-faults", post(rest_faults))
        .route("/_sim/rest-trouble", post(rest_trouble))
        .route("/_sim/requests", get(requests))
        .route("/_sim/webhooks", get(webhooks))
        .route("/_sim/webhooks/repeat-last", post(repeat_last))
        .route("/_sim/webhooks/event", post(event))
        .route("/_sim/alerts", get(alerts))
}

/// A refusal in words.
struct Refused(StatusCode, String);

impl Refused {
    fn no_call() -> Refused {
        Refused(StatusCode::NOT_FOUND, "there is no such call".into())
    }
}

impl From<WebhookFailure> for Refused {
    fn from(failure: WebhookFailure) -> Refused {
        Refused(StatusCode::BAD_GATEWAY, failure.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

type Sims = Shared<Arc<Sim>>;

async fn place(
    Shared(sim): Sims,
    Json(order): Json<CallOrder>,
) -> Result<(StatusCode, Json<Value>), Refused> {
    let placed = place_inbound(&sim, order);
    let call = placed.map_err(|error| Refused(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    Ok((StatusCode::CREATED, Json(state_of(&call.call))))
}

async fn calls(Shared(sim): Sims) -> Json<Value> {
    let calls = sim.lock().calls.clone();
    Json(calls.iter().map(|call| summary(call)).collect())
}

async fn call(Shared(sim): Sims, Path(sid): Path<String>) -> Result<Json<Value>, Refused> {
    Ok(Json(state_of(&*find(&sim, &sid)?)))
}

async fn recording(Shared(sim): Sims, Path(sid): Path<String>) -> Result<Response, Refused> {
    let recording = find(&sim, &sid)?.line.phone().recording();
    Ok(([(CONTENT_TYPE, "audio/wav")], recording.wav().to_bytes()).into_response())
}

async fn hang_up(Shared(sim): Sims, Path(sid): Path<String>) -> Result<StatusCode, Refused> {
    find(&sim, &sid)?.line.phone().hang_up();
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Digits {
    digits: String,
}

async fn dtmf(
    Shared(sim): Sims,
    Path(sid): Path<String>,
    Json(keys): Json<Digits>,
) -> Result<StatusCode, Refused> {
    if !keys.digits.chars().all(|key| "0123456789*#ABCD".contains(key)) {
        return Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, "digits are 0-9, *, # and A-D".into()));
    }
    find(&sim, &sid)?.line.phone().press(&keys.digits);
    Ok(StatusCode::NO_CONTENT)
}

/// Takes 16-bit little-endian samples at 8 kHz.
async fn say(Shared(sim): Sims, Path(sid): Path<String>, pcm: Bytes) -> Result<StatusCode, Refused> {
    let samples: Vec<i16> = pcm.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    find(&sim, &sid)?.line.phone().say(&samples);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Loss {
    #[serde(default)]
    then: AfterLoss,
}

async fn lose_socket(
    Shared(sim): Sims,
    Path(sid): Path<String>,
    Json(loss): Json<Loss>,
) -> Result<StatusCode, Refused> {
    let lost = find(&sim, &sid)?.lose_stream(loss.then);
    lost.map_err(|()| Refused(StatusCode::CONFLICT, super::NoStream.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct CalledParty {
    number: String,
    #[serde(flatten)]
    callee: Callee,
}

async fn callee(Shared(sim): Sims, Json(party): Json<CalledParty>) -> StatusCode {
    sim.lock().callees.insert(party.number, party.callee);
    StatusCode::NO_CONTENT
}

async fn rest_faults(Shared(sim): Sims, Json(faults): Json<RestFaults>) -> StatusCode {
    sim.lock().rest_faults = faults;
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct Planned {
    #[serde(default)]
    which: Which,
    trouble: RestTrouble,
}

async fn rest_trouble(Shared(sim): Sims, Json(planned): Json<Planned>) -> StatusCode {
    sim.lock().journal.plan(planned.which, planned.trouble);
    StatusCode::NO_CONTENT
}

async fn requests(Shared(sim): Sims) -> Json<Vec<RestRecord>> {
    Json(sim.lock().journal.records().cloned().collect())
}

async fn webhooks(Shared(sim): Sims) -> Json<Vec<WebhookRecord>> {
    Json(sim.webhooks.records())
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<WebhookKind>,
}

async fn repeat_last(Shared(sim): Sims, Query(Kind { kind }): Query<Kind>) -> Result<Json<Value>, Refused> {
    let repeated = sim.webhooks.repeat_last(kind.unwrap_or(WebhookKind::Voice)).await;
    let nothing = || Refused(StatusCode::CONFLICT, "no webhook of this kind was sent".into());
    let reply = repeated.ok_or_else(nothing)??;
    Ok(Json(json!({"content_type": reply.content_type, "body": reply.body})))
}

#[derive(Deserialize)]
struct Event {
    url: String,
    #[serde(default)]
    signing: Signing,
}

/// Posts the body of the request as a JSON event.
async fn event(
    Shared(sim): Sims,
    Query(event): Query<Event>,
    headers: HeaderMap,
    body: String,
) -> Result<Json<Value>, Refused> {
    if headers.get(CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
        return Err(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "an event is application/json".into()));
    }
    let status = sim.webhooks.send_json(&event.url, &body, event.signing).await?;
    Ok(Json(json!({"status": status})))
}

async fn alerts(Shared(sim): Sims) -> Json<Vec<Alert>> {
    Json(sim.lock().alerts.iter().cloned().collect())
}

fn find(sim: &Sim, sid: &str) -> Result<Arc<Call>, Refused> {
    sim.find_call(sid).ok_or_else(Refused::no_call)
}

fn summary(call: &Call) -> Value {
    json!({
        "sid": call.sid,
        "parent": call.parent,
        "direction": call.direction,
        "from": call.from,
        "to": call.to,
        "status": call.status(),
    })
}

fn state_of(call: &Call) -> Value {
    let phone = call.line.phone();
    let mut state = summary(call);
    state["now_ms"] = phone.now_ms().into();
    state["agent_quiet_ms"] = phone.agent_quiet_ms().into();
    state["caller_is_speaking"] = phone.is_speaking().into();
    state["events"] = json!(phone.history());
    state
}
