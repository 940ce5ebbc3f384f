//! Carriers' webhooks in: checked, answered within a second, and the same however often they come. What a call then does
//! is not decided here.

use crate::abilities::Abilities;
use crate::app::App;
use crate::call::driver::{self, Beginning, Machine};
use crate::call::line::Line;
use crate::call::plan::{self, NotReady};
use crate::call::registry::{Handle, Letter, Onward};
use crate::call::resume::{NotResumed, go_on};
use crate::carrier::CarrierControl;
use crate::live::{Happening, LiveEvent};
use crate::problem::chain;
use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use offhook_carriers::MediaEvent;
use offhook_carriers::twilio::media::MediaReader;
use offhook_carriers::twilio::webhook::{self, Request, Signed, Unverified, WebhookError};
use offhook_carriers::twilio::{Answer, Dial, MediaStream, Rejection, Speech as Sentence, Verb};
use offhook_core::call::Input;
use offhook_core::call::log::LOG_REVISION;
use offhook_core::entity::{CallStatus as StoredStatus, Direction};
use offhook_core::{ConversationId, E164, Secret};
use offhook_store::{Begun, NewCall, RingTarget, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Where a carrier asks what to do with a call.
pub const VOICE: &str = "/hooks/twilio/voice";
const MEDIA_OVER: &str = "/hooks/twilio/media-over";
const STATUS: &str = "/hooks/twilio/status";
/// How long a caller is held before the carrier asks again whether their call can go on, in seconds.
const HOLD_S: u16 = 1;
/// The name under which a ticket travels.
const TICKET: &str = "ticket";
/// How long a media socket may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// Messages that may come before the introduction.
const INTRODUCTION_MESSAGES: usize = 4;
/// A media message is about 400 bytes; a socket that sends more than this in one is closed.
const MEDIA_MESSAGE_BYTES: usize = 64 * 1024;
/// Small, because there are two for every call.
const MEDIA_BUFFER_BYTES: usize = 8 * 1024;

/// The routes of all carriers.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route(VOICE, any(voice))
        .route("/hooks/twilio/voice-fallback", any(voice_fallback))
        .route(MEDIA_OVER, any(media_over))
        .route(STATUS, any(status))
        .route("/hooks/twilio/media/{call}", get(media))
}

/// A webhook as axum gives it.
struct Arrived {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// A webhook that was signed by an account of ours, and whose it is.
struct Believed<'a> {
    signed: Signed<'a>,
    target: RingTarget,
}

/// Why a webhook is not followed: the status it is answered with, and why.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error("no number of ours is `To` in this webhook, or its account is none of ours")]
    NoNumber,
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match &self {
            Refused::Webhook(error) => {
                StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::BAD_REQUEST)
            }
            Refused::NoNumber => StatusCode::NOT_FOUND,
            Refused::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        metrics::counter!("offhook_webhooks_refused_total", "status" => status.as_u16().to_string())
            .increment(1);
        tracing::warn!(error = %self, http.status = status.as_u16(), "Webhook refused");
        (status, self.to_string()).into_response()
    }
}

impl Arrived {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Finds whose webhook this is: the connection whose token signed it.
    async fn believe(&self, app: &App) -> Result<Believed<'_>, Refused> {
        let request = Request {
            method: if self.method == Method::GET { webhook::Method::Get } else { webhook::Method::Post },
            path_and_query: self.uri.path_and_query().map_or("/", |p| p.as_str()),
            signature: self.header(webhook::SIGNATURE_HEADER),
            idempotency_token: self.header(webhook::IDEMPOTENCY_HEADER),
            content_type: self.header(header::CONTENT_TYPE.as_str()),
            body: &self.body,
        };
        let claims = Unverified::read(request)?;
        let called: E164 = claims.called().and_then(|to| to.parse().ok()).ok_or(Refused::NoNumber)?;
        let targets = app.store.numbers_for_ring("twilio", claims.account(), &called).await?;
        let mut refusal = Refused::NoNumber;
        for target in targets {
            let tokens: Vec<_> = target.secret.iter().cloned().collect();
            match Unverified::read(request)?.verify(&app.public_url, &tokens) {
                Ok(signed) => return Ok(Believed { signed, target }),
                Err(error) => refusal = error.into(),
            }
        }
        Err(refusal)
    }
}

fn say_what(answer: &Answer) -> Response {
    ([(header::CONTENT_TYPE, Answer::CONTENT_TYPE)], answer.render()).into_response()
}

/// Somebody rings.
async fn voice(
    State(app): State<Arc<App>>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let arrived = Arrived { method, uri, headers, body };
    let believed = match arrived.believe(&app).await {
        Ok(believed) => believed,
        Err(refused) => return refused.into_response(),
    };
    match answer_ring(&app, &believed).await {
        Ok(answer) => say_what(&answer),
        Err(refused) => refused.into_response(),
    }
}

async fn answer_ring(app: &Arc<App>, believed: &Believed<'_>) -> Result<Answer, Refused> {
    let ring = believed.signed.ring()?;
    let target = &believed.target;
    if let Some(handle) = app.around.registry.find(&ring.carrier_call) {
        // The carrier asks again: the call goes on, over whichever of its sockets it opens.
        return Ok(connect(app, &handle));
    }
    let Some(agent) = &target.number.inbound_agent else {
        if let Some(dial) = target.number.forward_to.clone().and_then(|to| Dial::new(vec![to]).ok()) {
            tracing::info!(number.id = %target.number.id, "Call forwarded: no agent answers this number");
            return Ok(Answer::Run(vec![Verb::Dial(dial)]));
        }
        tracing::info!(number.id = %target.number.id, "Call rejected: no agent answers this number");
        return Ok(Answer::Reject(Rejection::Rejected));
    };
    let ready = match plan::ready(app, &target.scope, agent).await {
        Ok(ready) => ready,
        Err(NotReady::Store(error)) => return Err(error.into()),
        Err(error) => {
            let error = chain(&error);
            tracing::error!(number.id = %target.number.id, agent.id = %agent, error, "Call not taken: the agent is not ready");
            return Ok(not_ready(target));
        }
    };
    if ready.max_open_calls.is_some_and(|most| app.around.registry.count_of(agent) >= most as usize) {
        tracing::info!(agent.id = %agent, "Call rejected: the agent is on as many calls as it may take");
        return Ok(Answer::Reject(Rejection::Busy));
    }
    let new = NewCall {
        connection: target.connection.id.clone(),
        carrier_call: ring.carrier_call.clone(),
        phone_number: Some(target.number.id.clone()),
        agent_version: Some(ready.version.clone()),
        direction: Direction::Inbound,
        from: ring.from.text().clone(),
        to: ring.to.text().clone(),
        plan: serde_json::to_string(&ready.plan).unwrap_or_default(),
        log_revision: LOG_REVISION,
    };
    let lease = match app.store.begin_call(&target.scope, &new, &app.node).await? {
        Begun::New(lease) => lease,
        Begun::Existing(call) if call.status == StoredStatus::Ended => {
            return Ok(Answer::Run(vec![Verb::HangUp]));
        }
        Begun::Existing(call) => {
            return match go_on(app, target, &call.id, call.started_at_us).await {
                Ok(handle) => Ok(connect(app, &handle)),
                Err(error) => {
                    tracing::error!(call.id = %call.id, %error, "A call could not be taken up again");
                    Ok(not_ready(target))
                }
            };
        }
    };
    let machine = Machine::New(Box::new(ready.plan));
    let begin = Beginning {
        lease: Arc::new(lease),
        began_us: app.environment.now_us(),
        agent: ready.agent,
        carrier_call: ring.carrier_call.clone(),
        tokens: target.secret.iter().cloned().collect(),
        speech: ready.speech,
        abilities: Abilities,
        carrier: CarrierControl::open(&app.http, &target.connection, target.secret.as_ref()),
    };
    let (workspace, call) = (target.scope.workspace().clone(), begin.lease.call().clone());
    let handle = driver::start(begin, machine, app.around.clone()).unwrap_or_else(|already| already);
    metrics::counter!("offhook_calls_started_total").increment(1);
    tracing::info!(call.id = %call, number.id = %target.number.id, "Call ringing");
    let what = Happening::Ringing { from: ring.from.text().clone(), to: ring.to.text().clone() };
    app.around.live.tell(LiveEvent { workspace, call, what });
    Ok(connect(app, &handle))
}

/// Opens a media socket for a call, with a ticket that is good once.
fn connect(app: &App, handle: &Arc<Handle>) -> Answer {
    let ticket = app.ticket();
    app.around.registry.issue(&ticket, handle, Instant::now());
    let socket = app.public_url.websocket(&format!("/hooks/twilio/media/{}", handle.id));
    let stream = MediaStream::new(socket).and_then(|s| s.parameter(TICKET, ticket.expose()));
    match stream {
        Ok(stream) => Answer::Run(vec![Verb::Connect(stream.after(app.public_url.page(MEDIA_OVER)))]),
        Err(error) => {
            tracing::error!(%error, "The public URL makes no media socket");
            Answer::Run(vec![Verb::HangUp])
        }
    }
}

/// What a caller hears when nobody can answer them: somebody else's phone, or an apology in the carrier's voice.
fn not_ready(target: &RingTarget) -> Answer {
    if let Some(dial) = target.number.forward_to.clone().and_then(|to| Dial::new(vec![to]).ok()) {
        return Answer::Run(vec![Verb::Dial(dial)]);
    }
    let sorry = "We are sorry, we cannot take your call right now. Please try again later.";
    let verbs = Sentence::new(sorry).map(Verb::Say).into_iter().chain([Verb::HangUp]);
    Answer::Run(verbs.collect())
}

/// The carrier could not carry out our answer: the caller is not left with its error message.
async fn voice_fallback(
    State(app): State<Arc<App>>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let arrived = Arrived { method, uri, headers, body };
    match arrived.believe(&app).await {
        Ok(believed) => {
            match believed.signed.trouble() {
                Ok(trouble) => tracing::error!(
                    carrier.code = trouble.code,
                    carrier.url = trouble.url,
                    "The carrier could not carry out an answer of ours"
                ),
                Err(error) => tracing::error!(%error, "The carrier asked the fallback and did not say why"),
            }
            say_what(&not_ready(&believed.target))
        }
        Err(refused) => refused.into_response(),
    }
}

/// A media socket is over, and the carrier asks what comes next.
async fn media_over(
    State(app): State<Arc<App>>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let arrived = Arrived { method, uri, headers, body };
    let believed = match arrived.believe(&app).await {
        Ok(believed) => believed,
        Err(refused) => return refused.into_response(),
    };
    match what_next(&app, &believed).await {
        Ok(answer) => say_what(&answer),
        Err(refused) => refused.into_response(),
    }
}

async fn what_next(app: &Arc<App>, believed: &Believed<'_>) -> Result<Answer, Refused> {
    let over = believed.signed.media_over()?;
    let target = &believed.target;
    let hang_up = Answer::Run(vec![Verb::HangUp]);
    let Some(handle) = app.around.registry.find(&over.carrier_call) else {
        let call = app.store.call_of_carrier(&target.scope, &target.connection.id, &over.carrier_call).await;
        let call = match call {
            Ok(call) if call.status != StoredStatus::Ended && !over.status.is_over() => call,
            Ok(_) | Err(StoreError::NotFound { .. }) => return Ok(hang_up),
            Err(error) => return Err(error.into()),
        };
        let hold = || {
            tracing::info!(call.id = %call.id, "Call held until it can be taken up");
            let again = app.public_url.page(MEDIA_OVER);
            Answer::Run(vec![Verb::Pause { length_s: HOLD_S }, Verb::Redirect(again)])
        };
        if app.around.registry.is_closed() {
            return Ok(hold());
        }
        return match go_on(app, target, &call.id, call.started_at_us).await {
            Ok(handle) => Ok(connect(app, &handle)),
            // Another process holds the call. If it is dead, its lease runs out soon: until then the caller is held.
            Err(NotResumed::Store(StoreError::Conflict { .. })) => Ok(hold()),
            Err(error) => {
                let error = chain(&error);
                tracing::error!(call.id = %call.id, error, "A call could not be taken up again");
                Ok(not_ready(target))
            }
        };
    };
    if over.status.is_over() {
        handle.tell(Letter::Fact(Input::HungUp { by_caller: handle.onward() == Onward::MediaAgain }));
        return Ok(Answer::empty());
    }
    Ok(match handle.onward() {
        Onward::MediaAgain => connect(app, &handle),
        Onward::HangUp => {
            handle.tell(Letter::Fact(Input::HungUp { by_caller: false }));
            hang_up
        }
        Onward::Forward(to) => {
            handle.tell(Letter::Fact(Input::HungUp { by_caller: false }));
            Dial::new(vec![to]).map_or(hang_up, |dial| Answer::Run(vec![Verb::Dial(dial)]))
        }
    })
}

/// How a call has moved on.
async fn status(
    State(app): State<Arc<App>>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let arrived = Arrived { method, uri, headers, body };
    let report = match arrived.believe(&app).await {
        Ok(believed) => believed.signed.status().map_err(Refused::from),
        Err(refused) => Err(refused),
    };
    match report {
        Ok(report) => {
            if report.status.is_over()
                && let Some(handle) = app.around.registry.find(&report.carrier_call)
            {
                handle.tell(Letter::Fact(Input::HungUp { by_caller: handle.onward() == Onward::MediaAgain }));
            }
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refused) => refused.into_response(),
    }
}

/// The media socket of a call: signed on the upgrade, and opened by the ticket in its introduction.
async fn media(
    State(app): State<Arc<App>>,
    Path(call): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let refuse = |why: &str| {
        metrics::counter!("offhook_media_sockets_refused_total").increment(1);
        tracing::warn!(why, "Media socket refused");
        (StatusCode::FORBIDDEN, why.to_owned()).into_response()
    };
    let handle = call.parse::<ConversationId>().ok().and_then(|id| app.around.registry.by_id(&id));
    let Some(handle) = handle else {
        return refuse("there is no such call");
    };
    let signature = headers.get(webhook::SIGNATURE_HEADER).and_then(|value| value.to_str().ok());
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    if let Err(error) = webhook::verify_upgrade(&app.public_url, path, signature, &handle.tokens) {
        return refuse(&error.to_string());
    }
    upgrade
        .read_buffer_size(MEDIA_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(MEDIA_MESSAGE_BYTES)
        .max_frame_size(MEDIA_MESSAGE_BYTES)
        .on_upgrade(move |socket| introduce(app, handle, socket))
}

/// Waits for the introduction of a media socket, and gives it to its call if the ticket is good.
async fn introduce(app: Arc<App>, handle: Arc<Handle>, mut socket: WebSocket) {
    let mut reader = MediaReader::new();
    let introduction = async {
        let mut audio = Vec::new();
        for _ in 0..INTRODUCTION_MESSAGES {
            let Some(Ok(Message::Text(text))) = socket.recv().await else { return None };
            match reader.decode(&text, &mut audio) {
                Ok(MediaEvent::Started(started)) => return Some(started),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "Media message skipped before the introduction"),
            }
        }
        None
    };
    let Ok(Some(started)) = tokio::time::timeout(INTRODUCTION, introduction).await else {
        tracing::warn!(call.id = %handle.id, "Media socket closed: it did not introduce itself");
        return;
    };
    let good = started.parameters.get(TICKET).is_some_and(|ticket: &Secret<String>| {
        let redeemed = app.around.registry.redeem(ticket, &started.carrier_call, Instant::now());
        redeemed.is_some_and(|of| of.id == handle.id)
    });
    if !good {
        metrics::counter!("offhook_media_sockets_refused_total").increment(1);
        tracing::warn!(call.id = %handle.id, "Media socket closed: its ticket is missing, used, late, or another call's");
        return;
    }
    handle.tell(Letter::Line(Box::new(Line::new(socket, reader, &started.stream))));
}
