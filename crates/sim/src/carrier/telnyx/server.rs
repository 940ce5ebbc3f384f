//! The socket of the API: takes requests, keeps the journal of all of them, and makes the trouble that was asked for, down to connections
//! that are cut before an answer. It does not know what is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::request::Refusal;
use super::{Sim, rest};

const MAX_BODY_BYTES: usize = 1 << 20;
const MAX_RECORDS: usize = 100_000;
/// Where the API begins: in front of it stands the host.
pub(super) const PREFIX: &str = "/v2";

/// Trouble that one request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// 500 (10007), and nothing was done.
    ServerError,
    /// 429 (10011), and nothing was done.
    TooManyRequests,
    /// No answer ever, and nothing was done.
    NeverAnswers,
    /// The connection is cut without an answer, and nothing was done.
    Cut,
    /// It is done, but the connection is cut before the answer.
    DoneThenCut,
    /// It is done, but there is never an answer.
    DoneThenSilent,
    /// It is done, but the answer is 500 (10007).
    DoneThenServerError,
}

/// One request to the API, in the order of their arrival.
#[derive(Clone, Debug, Serialize)]
pub struct RequestRecord {
    /// Its place among all requests, from 1.
    pub number: usize,
    /// When it arrived.
    pub at: Timestamp,
    /// `GET`, `POST`, `PATCH`, `PUT` or `DELETE`.
    pub method: String,
    /// The path behind `/v2`.
    pub path: String,
    /// The query as it was sent.
    pub query: String,
    /// The JSON of the body; null where there was none.
    pub body: Value,
    /// Trouble that it met on demand.
    pub trouble: Option<Trouble>,
    /// The HTTP status of the answer; nothing where there was none.
    pub status: Option<u16>,
}

/// How many requests are taken; the documents show the headers but name no figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests in one window.
    pub requests: u32,
    /// Its length, seconds.
    pub window_s: u64,
}

/// The journal, the trouble to come, and what is left of the rate limit.
#[derive(Default)]
pub(super) struct Desk {
    journal: Vec<RequestRecord>,
    troubles: BTreeMap<usize, Trouble>,
    window: Option<Window>,
}

struct Window {
    began: Instant,
    requests: u32,
}

impl Desk {
    pub(super) fn journal(&self) -> &[RequestRecord] {
        &self.journal
    }

    pub(super) fn next_number(&self) -> usize {
        self.journal.len() + 1
    }

    pub(super) fn trouble_at(&mut self, number: usize, trouble: Trouble) {
        self.troubles.insert(number, trouble);
    }

    fn note(&mut self, request: &Parts, body: &[u8]) -> (usize, Option<Trouble>) {
        let number = self.next_number();
        let trouble = self.troubles.remove(&number);
        let path = request.uri.path();
        // Beyond the limit a simulator that runs for days forgets nothing but what requests held.
        let body = if self.journal.len() < MAX_RECORDS { body } else { &[] };
        self.journal.push(RequestRecord {
            number,
            at: Timestamp::now(),
            method: request.method.to_string(),
            path: path.strip_prefix(PREFIX).unwrap_or(path).to_owned(),
            query: request.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(body)
                .unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned().into()),
            trouble,
            status: None,
        });
        (number, trouble)
    }

    /// Counts a request: what is left of the window, and how long it still lasts.
    fn count(&mut self, limit: RateLimit) -> (Option<u32>, u64) {
        let length = Duration::from_secs(limit.window_s);
        let now = Instant::now();
        let window = self.window.get_or_insert(Window { began: now, requests: 0 });
        if now.duration_since(window.began) >= length {
            *window = Window { began: now, requests: 0 };
        }
        window.requests += 1;
        let reset = length.saturating_sub(now.duration_since(window.began));
        (limit.requests.checked_sub(window.requests), reset.as_secs_f64().ceil() as u64)
    }
}

/// The connection is to be cut.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut on demand")]
struct CutOff;

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, sim: Arc<Sim>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, _) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "A connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Without this the first byte of an answer can wait 40 ms for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let sim = sim.clone();
        connections.spawn(async move {
            let service = service_fn(|request| take(sim.clone(), request));
            // A client that goes away, or is cut off, is no error of ours.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn take(sim: Arc<Sim>, request: Request<Incoming>) -> Result<Response, CutOff> {
    let (parts, incoming) = request.into_parts();
    let body = to_bytes(Body::new(incoming), MAX_BODY_BYTES).await.map_err(|_| CutOff)?;
    let (number, trouble) = sim.lock().desk.note(&parts, &body);
    let limit = sim.settings.rate_limit;
    let (left, reset_s) = sim.lock().desk.count(limit);
    let response = match trouble {
        Some(Trouble::Cut) => return Err(CutOff),
        Some(Trouble::NeverAnswers) => std::future::pending().await,
        Some(Trouble::ServerError) => server_error().into_response(),
        Some(Trouble::TooManyRequests) => too_many_requests().into_response(),
        _ if left.is_none() => too_many_requests().into_response(),
        _ => rest::answer(&sim, &parts, &body),
    };
    let mut response = match trouble {
        Some(Trouble::DoneThenCut) => return Err(CutOff),
        Some(Trouble::DoneThenSilent) => std::future::pending().await,
        Some(Trouble::DoneThenServerError) => server_error().into_response(),
        _ => response,
    };
    let refused = response.status() == StatusCode::TOO_MANY_REQUESTS;
    let figures = [
        ("x-ratelimit-limit", limit.requests.into()),
        ("x-ratelimit-remaining", if refused { 0 } else { left.unwrap_or(0).into() }),
        ("x-ratelimit-reset", reset_s),
    ];
    for (name, figure) in figures {
        response.headers_mut().insert(name, HeaderValue::from(figure));
    }
    if let Some(record) = sim.lock().desk.journal.get_mut(number - 1) {
        record.status = Some(response.status().as_u16());
    }
    Ok(response)
}

fn server_error() -> Refusal {
    let detail = "An unexpected error occured.";
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "10007", "Unexpected error", detail)
}

fn too_many_requests() -> Refusal {
    let detail = "You have exceeded the maximum number of allowed requests.";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "10011", "Too many requests", detail)
}
