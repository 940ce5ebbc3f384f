//! Deepgram's sockets: live transcription, Flux, and speech. Everything is in the query; audio is binary, the rest JSON text.

use super::program::Moment;
use super::socket::Wire;
use super::voice::{AudioFormat, Encoding};
use super::{Call, Fault, Service, Shared, read, records, socket};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use std::future::Future;
use std::sync::Arc;

mod flux;
mod listen;
mod speak;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/listen", get(open::<listen::Session>))
        .route("/v2/listen", get(open::<flux::Session>))
        .route("/v1/speak", get(open::<speak::Session>))
        .route("/v1/projects", get(projects))
}

/// One of the sockets.
trait Session: Sized + Send + 'static {
    const SERVICE: Service;
    /// The parameters as documented.
    const PARAMETERS: &[&str];
    type Options: Send + 'static;

    /// What the query asks for, or what is wrong with it.
    fn options(call: &Call) -> Result<Self::Options, String>;
    fn new(wire: Wire, shared: Arc<Shared>, options: Self::Options) -> Self;
    /// Serves the socket to its end.
    fn run(self) -> impl Future<Output = ()> + Send;
}

async fn open<S: Session>(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let call = match admit(S::SERVICE, request, &shared).await {
        Ok(call) => call,
        Err(refusal) => return refusal,
    };
    call.note_unknown_parameters(S::PARAMETERS);
    match S::options(&call) {
        Ok(options) => {
            let serving = shared.clone();
            socket::serve(call, shared, move |wire| S::new(wire, serving, options).run()).await
        }
        Err(problem) => {
            let response = error(StatusCode::BAD_REQUEST, "Bad Request", &problem);
            call.refuse(problem, response)
        }
    }
}

async fn projects(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match admit(Service::Account, request, &shared).await {
        Ok(call) => {
            call.answer(Json(json!({"projects": [{"project_id": "sim", "name": "Sim"}]})).into_response())
        }
        Err(refusal) => refusal,
    }
}

/// Every answer carries it; the documents say no more than that it is a UUID.
const REQUEST_ID: &str = "5ec0de00-0000-4000-8000-000000000001";

/// Checks the key and draws whether the opening fails.
async fn admit(service: Service, request: Request, shared: &Shared) -> Result<Call, Response> {
    let (parts, _) = read(request).await;
    let call = shared.call(service, parts);
    let credential = records::credential_of(&call.request);
    let accepted =
        credential.as_ref().is_some_and(|given| given.form == "Token" && shared.accepts(&given.key));
    if !accepted {
        let form = credential.map_or("missing".to_owned(), |given| format!("given as {}", given.form));
        return Err(call.refuse(
            format!("key refused, {form}"),
            error(StatusCode::UNAUTHORIZED, "INVALID_AUTH", "Invalid credentials."),
        ));
    }
    let Some(Fault::Refuse { status, .. }) = shared.draw(service, Moment::Opening, &call.entry) else {
        return Ok(call);
    };
    let (code, message) = match status {
        401 => ("INVALID_AUTH", "Invalid credentials."),
        402 => ("ASR_PAYMENT_REQUIRED", "Project does not have enough credits for an ASR request."),
        403 => ("INSUFFICIENT_PERMISSIONS", "Project does not have access to the requested model."),
        429 => ("TOO_MANY_REQUESTS", "Too many requests. Please try again later."),
        _ => ("INTERNAL_SERVER_ERROR", "Something went wrong."),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Err(call.answer(error(status, code, message)))
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({"err_code": code, "err_msg": message, "request_id": REQUEST_ID});
    let mut response = (status, Json(body)).into_response();
    let cause = HeaderValue::from_str(message).unwrap_or(HeaderValue::from_static("error"));
    response.headers_mut().insert("dg-error", cause);
    response.headers_mut().insert("dg-request-id", HeaderValue::from_static(REQUEST_ID));
    response
}

/// The rates that audio without a container may have.
const RATES_HZ: std::ops::RangeInclusive<u32> = 8_000..=48_000;

/// The format of raw audio; `None` where the parameters leave it open.
fn input_format(call: &Call) -> Result<Option<AudioFormat>, String> {
    let rate_hz = match call.parameter("sample_rate") {
        None => None,
        Some(text) => Some(
            text.parse()
                .ok()
                .filter(|rate| RATES_HZ.contains(rate))
                .ok_or_else(|| format!("invalid sample_rate {text}"))?,
        ),
    };
    let encoding = match call.parameter("encoding") {
        None => None,
        Some("linear16") => Some(Encoding::Linear16),
        Some("mulaw") => Some(Encoding::Mulaw),
        Some("alaw") => Some(Encoding::Alaw),
        Some(other) => {
            return Err(format!("encoding {other} is unknown, or unknown to the simulated server"));
        }
    };
    match (encoding, rate_hz) {
        (Some(encoding), Some(rate_hz)) => Ok(Some(AudioFormat { encoding, rate_hz })),
        (Some(_), None) => Err("raw audio needs sample_rate".into()),
        (None, _) => Ok(None),
    }
}

/// A boolean parameter, false when it is not there.
fn flag(call: &Call, name: &str) -> Result<bool, String> {
    match call.parameter(name) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(format!("{name} must be true or false, not {other}")),
    }
}

/// A parameter that is a number.
fn number<T: std::str::FromStr>(call: &Call, name: &str) -> Result<Option<T>, String> {
    match call.parameter(name).map(str::parse) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(format!("{name} must be a number")),
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}
