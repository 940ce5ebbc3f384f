//! OpenAI's HTTP interface under `/v1`, and that of the servers that are compatible with it: chat, models, transcription, speech.
//! It knows neither the conversation nor the call.

use super::{Call, ClosedBy, Fault, Moment, Service, Shared, ended, read};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

mod audio;
mod chat;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/chat/completions", post(chat::complete))
        .route("/v1/models", get(models))
        .route("/v1/audio/transcriptions", post(audio::transcribe))
        .route("/v1/audio/speech", post(audio::speak))
}

async fn models(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, _) = read(request).await;
    let call = shared.call(Service::Models, parts);
    let call = match admit(call, &shared).await {
        Ok((call, _)) => call,
        Err(refusal) => return refusal,
    };
    const ANY_MODEL: &str = "sim-chat";
    let names = if shared.models.is_empty() { vec![ANY_MODEL.to_owned()] } else { shared.models.clone() };
    let model = |id| json!({"id": id, "object": "model", "created": CREATED, "owned_by": "sim"});
    let list = json!({"object": "list", "data": names.into_iter().map(model).collect::<Vec<_>>()});
    call.answer(Json(list).into_response())
}

/// The moment at which everything here was made, in Unix seconds.
const CREATED: u64 = 1_763_715_600;

/// Checks the key and draws what goes wrong with this request; a request that stalls stays here.
async fn admit(call: Call, shared: &Shared) -> Result<(Call, Option<Fault>), Response> {
    let credential = super::records::credential_of(&call.request);
    match credential {
        None => {
            let message = "You didn't provide an API key. You need to provide your API key in an Authorization header \
                           using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).";
            let refusal = Refusal { status: StatusCode::UNAUTHORIZED, ..Refusal::new(message) };
            return Err(call.refuse("no key", refusal.into_response()));
        }
        Some(credential) if credential.form != "Bearer" || !shared.accepts(&credential.key) => {
            let refusal = Refusal {
                status: StatusCode::UNAUTHORIZED,
                code: Some("invalid_api_key"),
                ..Refusal::new("Incorrect API key provided.")
            };
            let oddity = format!("key refused, given as {}", credential.form);
            return Err(call.refuse(oddity, refusal.into_response()));
        }
        Some(_) => {}
    }
    match shared.draw(call.service, Moment::Request, &call.entry) {
        Some(Fault::Refuse { status, retry_after_ms }) => {
            let code = match status {
                401 => "invalid_api_key",
                402 => "insufficient_quota",
                404 => "model_not_found",
                429 => "rate_limit_exceeded",
                _ => "server_error",
            };
            Err(call.answer(error_response(status, code, retry_after_ms)))
        }
        Some(Fault::Stall) => std::future::pending().await,
        fault => Ok((call, fault)),
    }
}

/// An error as the rules and the faults ask for it.
fn error_response(status: u16, code: &str, retry_after_ms: Option<u64>) -> Response {
    let body = json!({"error": {"message": format!("The simulated server answers {code}."), "type": code, "param": null, "code": code}});
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(body)).into_response();
    if let Some(wait_ms) = retry_after_ms {
        response.headers_mut().insert("retry-after-ms", HeaderValue::from(wait_ms));
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait_ms.div_ceil(1_000)));
    }
    response
}

/// A request that OpenAI does not accept.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
}

impl Refusal {
    fn new(message: impl Into<String>) -> Self {
        Refusal { status: StatusCode::BAD_REQUEST, message: message.into(), param: None, code: None }
    }

    fn about(param: &str, code: &'static str, message: impl Into<String>) -> Self {
        Refusal { param: Some(param.to_owned()), code: Some(code), ..Refusal::new(message) }
    }

    fn missing(param: &str) -> Self {
        Refusal::about(param, "missing_required_parameter", format!("Missing required parameter: '{param}'."))
    }

    fn invalid(param: &str, why: &str) -> Self {
        Refusal::about(param, "invalid_value", format!("Invalid value for '{param}': {why}."))
    }

    fn oddity(&self) -> String {
        format!("refused: {}", self.message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Refusal { status, message, param, code } = self;
        let error =
            json!({"message": message, "type": "invalid_request_error", "param": param, "code": code});
        (status, Json(json!({"error": error}))).into_response()
    }
}

/// The names of a JSON request that OpenAI does not know.
fn check_names(body: &Value, known: &[&str]) -> Result<(), Refusal> {
    let names = body.as_object().map(|fields| fields.keys()).into_iter().flatten();
    match names.map(String::as_str).find(|name| !known.contains(name)) {
        Some(name) => Err(Refusal::about(
            name,
            "unknown_parameter",
            format!("Unrecognized request argument supplied: {name}"),
        )),
        None => Ok(()),
    }
}

fn check_model(model: &str, shared: &Shared) -> Result<(), Refusal> {
    if shared.models.is_empty() || shared.models.iter().any(|known| known == model) {
        return Ok(());
    }
    let message = format!("The model `{model}` does not exist or you do not have access to it.");
    Err(Refusal {
        status: StatusCode::NOT_FOUND,
        code: Some("model_not_found"),
        ..Refusal::about("model", "model_not_found", message)
    })
}

/// Reads a JSON request as OpenAI does, content type first.
fn parse_json(call: &Call, bytes: &Bytes) -> Result<Value, Refusal> {
    let content_type = call.header("content-type").unwrap_or_default();
    if !content_type.starts_with("application/json") {
        return Err(Refusal::about(
            "content-type",
            "unsupported_content_type",
            format!(
                "Unsupported content type: '{content_type}'. This API method only accepts 'application/json' requests."
            ),
        ));
    }
    let parse_failure = "We could not parse the JSON body of your request.";
    serde_json::from_slice(bytes).ok().filter(Value::is_object).ok_or_else(|| Refusal::new(parse_failure))
}

/// The body of an answer that is written while it is sent.
struct Stream {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    stopped: watch::Receiver<bool>,
}

/// Nobody reads any more.
struct Gone;

impl Stream {
    /// Answers with what `write` sends. The record ends when it returns, or when the client goes away.
    fn answer<F>(
        call: Call,
        shared: &Shared,
        content_type: &'static str,
        write: impl FnOnce(Stream, Arc<Call>) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = Result<(), Gone>> + Send + 'static,
    {
        call.entry.edit(|record| record.status = 200);
        let (pieces, mut waiting) = mpsc::channel(1);
        let stream = Stream { pieces, stopped: shared.stopped.subscribe() };
        let call = Arc::new(call);
        tokio::spawn(async move {
            if write(stream, call.clone()).await.is_ok() {
                call.entry.close(ClosedBy::Provider, None);
            }
        });
        let body =
            Body::from_stream(futures_util::stream::poll_fn(move |context| waiting.poll_recv(context)));
        ([(header::CONTENT_TYPE, content_type)], body).into_response()
    }

    async fn send(&self, piece: impl Into<Bytes>) -> Result<(), Gone> {
        self.pieces.send(Ok(piece.into())).await.map_err(|_| Gone)
    }

    /// Sends the pieces of one answer, with what goes wrong in the middle of it.
    async fn send_all(&self, pieces: Vec<String>, fault: Option<Fault>, call: &Call) -> Result<(), Gone> {
        let half = pieces.len() / 2;
        for (place, piece) in pieces.into_iter().enumerate() {
            match fault.filter(|_| place == half) {
                Some(Fault::StallMidStream) => return self.stall().await,
                Some(Fault::Cut) => return self.cut(call).await,
                Some(Fault::MalformedJson) => self.send("data: {\"broken\n\n").await?,
                _ => {}
            }
            self.send(piece).await?;
        }
        Ok(())
    }

    /// Lets time pass, unless the client goes away or the simulation ends.
    async fn wait(&self, time: Duration) -> Result<(), Gone> {
        if time.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = sleep(time) => Ok(()),
            gone = self.stall() => gone,
        }
    }

    /// Sends nothing more, until the client goes away or the simulation ends.
    async fn stall(&self) -> Result<(), Gone> {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            () = self.pieces.closed() => {}
            () = ended(&mut stopped) => self.break_off().await,
        }
        Err(Gone)
    }

    /// Breaks the connection because it was asked for.
    async fn cut(&self, call: &Call) -> Result<(), Gone> {
        call.entry.close(ClosedBy::Fault, None);
        self.break_off().await;
        Err(Gone)
    }

    async fn break_off(&self) {
        let _ = self.pieces.send(Err(io::Error::other("the connection is cut on purpose"))).await;
    }
}

/// A body in two pieces.
fn halves(body: &str) -> Vec<String> {
    let middle = body.floor_char_boundary(body.len() / 2);
    let (first, second) = body.split_at(middle);
    vec![first.to_owned(), second.to_owned()]
}
