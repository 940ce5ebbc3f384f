//! Twilio's webhooks and media sockets. It knows what Twilio asks and in which words it is answered, and decides nothing.

use super::{Arrived, Refused};
use crate::app::App;
use crate::call::arrive;
use crate::call::line::Line;
use crate::call::registry::{Handle, Letter, OPENINGS, Onward};
use crate::call::welcome::{SORRY, Welcome};
use crate::carrier::CarrierControl;
use crate::carrier::twilio::{MEDIA, MEDIA_OVER, STATUS, VOICE, VOICE_FALLBACK};
use crate::connection::signing_secret;
use crate::problem::chain;
use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{DefaultBodyLimit, OriginalUri, Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use offhook_carriers::twilio::media::{MAX_MESSAGE_BYTES, MediaReader};
use offhook_carriers::twilio::webhook::{self, Request, Signed, Unverified, WebhookError};
use offhook_carriers::twilio::{Answer, Dial, MediaStream, Rejection, Speech as Sentence, Verb};
use offhook_carriers::{CallStatus, MediaEvent};
use offhook_core::call::Input;
use offhook_core::{ConversationId, E164, Secret};
use offhook_store::RingTarget;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a caller is held before the carrier asks again whether their call can go on, in seconds.
const HOLD_S: u16 = 1;
/// The name under which a ticket travels.
const TICKET: &str = "ticket";
/// How long a media socket may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// Messages that may come before the introduction.
const INTRODUCTION_MESSAGES: usize = 4;
/// Small, because there are two for every call.
const MEDIA_BUFFER_BYTES: usize = 8 * 1024;

/// Twilio's routes.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route(VOICE, any(voice))
        .route(VOICE_FALLBACK, any(voice_fallback))
        .route(MEDIA_OVER, any(media_over))
        .route(STATUS, any(status))
        .route(&format!("{MEDIA}/{{call}}"), get(media))
        .layer(DefaultBodyLimit::max(webhook::MAX_BODY_BYTES))
}

/// A webhook that was signed by an account of ours, and what it is about.
struct Believed<'a> {
    signed: Signed<'a>,
    about: About,
}

enum About {
    /// A call that is driven here: neither its number nor the store is needed.
    Call(Arc<Handle>),
    /// A number of ours.
    Number(Box<RingTarget>),
}

/// Finds whose webhook this is: the call or else the connection whose token signed it.
async fn believe<'a>(app: &App, arrived: &'a Arrived) -> Result<Believed<'a>, Refused> {
    let request = Request {
        method: if arrived.method == Method::GET { webhook::Method::Get } else { webhook::Method::Post },
        path_and_query: arrived.path_and_query(),
        signature: arrived.header(webhook::SIGNATURE_HEADER),
        idempotency_token: arrived.header(webhook::IDEMPOTENCY_HEADER),
        content_type: arrived.header(header::CONTENT_TYPE.as_str()),
        body: &arrived.body,
    };
    let claims = Unverified::read(request)?;
    if request.signature.is_none() {
        return Err(WebhookError::Unsigned.into());
    }
    let registry = &app.around.registry;
    let carrier_call = claims.call().unwrap_or_default().to_owned();
    for handle in registry.named(&carrier_call) {
        if let Ok(signed) = Unverified::read(request)?.verify(&app.public_url, &handle.tokens()) {
            return Ok(Believed { signed, about: About::Call(handle) });
        }
    }
    let called: E164 = claims.called().and_then(|to| to.parse().ok()).ok_or(Refused::NoNumber)?;
    let targets = app.store.numbers_for_ring("twilio", claims.account(), &called).await?;
    let mut refusal = Refused::NoNumber;
    for target in targets {
        let tokens: Vec<_> = target.secrets().map(|secret| signing_secret("twilio", secret)).collect();
        match Unverified::read(request)?.verify(&app.public_url, &tokens) {
            Ok(signed) => {
                let about = match registry.find(&target.connection.id, &carrier_call) {
                    Some(handle) => {
                        tokens.iter().for_each(|token| handle.signed_with(token));
                        About::Call(handle)
                    }
                    None => About::Number(Box::new(target)),
                };
                return Ok(Believed { signed, about });
            }
            Err(error) => refusal = error.into(),
        }
    }
    Err(refusal)
}

/// What becomes of the caller, in Twilio's words; `ask_again` is the page that is asked after a hold.
fn answer(app: &App, welcome: Welcome, ask_again: &str) -> Response {
    let answer = match welcome {
        Welcome::Talk(handle) => connect(app, &handle),
        Welcome::Hold => {
            let page = app.public_url.page(ask_again);
            Answer::Run(vec![Verb::Pause { length_s: HOLD_S }, Verb::Redirect(page)])
        }
        Welcome::Forward(to) => {
            let dial = Dial::new(vec![to]).map_or(Verb::HangUp, Verb::Dial);
            Answer::Run(vec![dial])
        }
        Welcome::Busy => Answer::Reject(Rejection::Busy),
        Welcome::Declined => Answer::Reject(Rejection::Rejected),
        Welcome::Sorry => told(SORRY),
        Welcome::Message(text) => told(&text),
        Welcome::Over => Answer::Run(vec![Verb::HangUp]),
    };
    say(&answer)
}

/// The caller hears this and is hung up on.
fn told(text: &str) -> Answer {
    Answer::Run(Sentence::new(text).map(Verb::Say).into_iter().chain([Verb::HangUp]).collect())
}

fn say(answer: &Answer) -> Response {
    ([(header::CONTENT_TYPE, Answer::CONTENT_TYPE)], answer.render()).into_response()
}

fn control(app: &App, target: &RingTarget) -> CarrierControl {
    CarrierControl::open(app, &target.connection, target.secret.as_ref())
}

/// Opens a media socket for a call, with a ticket that is good once.
fn connect(app: &App, handle: &Arc<Handle>) -> Answer {
    let ticket = app.ticket();
    app.around.registry.issue(&ticket, handle, Instant::now());
    let socket = app.public_url.websocket(&format!("{MEDIA}/{}", handle.id));
    let stream = MediaStream::new(socket).and_then(|s| s.parameter(TICKET, ticket.expose()));
    match stream {
        Ok(stream) => {
            let over = app.public_url.page(MEDIA_OVER);
            // Whether the action is asked when the socket breaks is not documented; the verb after it then may be.
            Answer::Run(vec![Verb::Connect(stream.after(over.clone())), Verb::Redirect(over)])
        }
        Err(error) => {
            tracing::error!(%error, "The public URL makes no media socket");
            Answer::Run(vec![Verb::HangUp])
        }
    }
}

/// Somebody rings.
async fn voice(State(app): State<Arc<App>>, arrived: Arrived) -> Result<Response, Refused> {
    let believed = believe(&app, &arrived).await?;
    let ring = believed.signed.ring()?;
    let welcome = match believed.about {
        About::Call(handle) => arrive::go(handle),
        // The carrier asks the fallback page, or another node. Who is held already is held on.
        About::Number(_) if app.around.registry.is_draining() && ring.status == CallStatus::Ringing => {
            return Err(Refused::Stopping);
        }
        About::Number(target) => arrive::ring(&app, &target, &ring, &control(&app, &target)).await?,
    };
    Ok(answer(&app, welcome, VOICE))
}

/// An answer of ours could not be fetched or carried out: the caller is not left with the carrier's error message.
async fn voice_fallback(State(app): State<Arc<App>>, arrived: Arrived) -> Result<Response, Refused> {
    let believed = match believe(&app, &arrived).await {
        // Nobody can be asked whether this is the carrier; an apology tells a stranger nothing.
        Err(Refused::Store(error)) => {
            tracing::error!(error = chain(&error), "A caller gets an apology: the store failed");
            return Ok(answer(&app, Welcome::Sorry, VOICE));
        }
        other => other?,
    };
    let trouble = believed.signed.trouble()?;
    // The query, and what stands before the host, may hold secrets.
    let page = trouble.url.as_deref().and_then(|url| url.parse::<url::Url>().ok());
    tracing::error!(
        carrier.code = trouble.code,
        carrier.path = page.as_ref().map(url::Url::path),
        "The carrier could not carry out an answer of ours"
    );
    let welcome = match (believed.about, trouble.unanswered) {
        // The process that was asked is gone; this one answers in its place.
        (About::Call(handle), true) => arrive::go(handle),
        (About::Number(target), true) => arrive::ring(&app, &target, &trouble.ring, &control(&app, &target))
            .await
            .unwrap_or_else(|error| {
                tracing::error!(error = chain(&error), "A caller gets an apology: the store failed");
                Welcome::sorry(&target.number.forward_to)
            }),
        // The same answer would fail again.
        (About::Call(handle), false) => {
            handle.tell(Letter::NoMedia);
            Welcome::sorry(&handle.forward_to)
        }
        (About::Number(target), false) => Welcome::sorry(&target.number.forward_to),
    };
    Ok(answer(&app, welcome, VOICE))
}

/// A media socket is over, and the carrier asks what comes next.
async fn media_over(State(app): State<Arc<App>>, arrived: Arrived) -> Result<Response, Refused> {
    let believed = believe(&app, &arrived).await?;
    let over = believed.signed.media_over()?;
    let welcome = match believed.about {
        About::Call(handle) if over.status.is_over() => {
            has_hung_up(&handle);
            return Ok(say(&Answer::empty()));
        }
        About::Number(_) if over.status.is_over() => return Ok(say(&Answer::empty())),
        About::Call(handle) if handle.unopened() >= OPENINGS && !handle.is_over() => {
            tracing::error!(call.id = %handle.id, attempts = handle.unopened(), "A call ends: the carrier was told to open a media socket to {} and never did. If a proxy stands before this server, it must let WebSockets pass (the `Upgrade` header)", app.public_url.websocket(MEDIA));
            handle.tell(Letter::NoMedia);
            Welcome::sorry(&handle.forward_to)
        }
        About::Call(handle) => {
            let welcome = arrive::go(handle.clone());
            if !matches!(welcome, Welcome::Talk(_)) {
                handle.tell(Letter::Fact(Input::HungUp { by_caller: false }));
            }
            welcome
        }
        About::Number(target) => {
            arrive::again(&app, &target, &over.carrier_call, &control(&app, &target)).await?
        }
    };
    Ok(answer(&app, welcome, MEDIA_OVER))
}

/// How a call has moved on.
async fn status(State(app): State<Arc<App>>, arrived: Arrived) -> Result<StatusCode, Refused> {
    let believed = believe(&app, &arrived).await?;
    let report = believed.signed.status()?;
    if report.status.is_over()
        && let About::Call(handle) = believed.about
    {
        has_hung_up(&handle);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The call is over at the carrier.
fn has_hung_up(handle: &Handle) {
    handle.tell(Letter::Fact(Input::HungUp { by_caller: handle.onward() == Onward::MediaAgain }));
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
    if let Err(error) = webhook::verify_upgrade(&app.public_url, path, signature, &handle.tokens()) {
        return refuse(&error.to_string());
    }
    upgrade
        .read_buffer_size(MEDIA_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
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
    handle.tell(Letter::Line(Box::new(Line::twilio(socket, reader, &started.stream))));
}
