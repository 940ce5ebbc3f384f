//! Telnyx's webhooks and media sockets. Telnyx tells what happens and asks nothing: a webhook is believed or refused at once, and what
//! follows from it is commanded from a task of its own. It decides nothing.

use super::{Arrived, Refused};
use crate::app::App;
use crate::call::arrive;
use crate::call::line::Line;
use crate::call::registry::{Handle, Letter, Onward};
use crate::call::welcome::Welcome;
use crate::carrier::CarrierControl;
use crate::carrier::telnyx::{CODING, FORWARDED, Forwarded, MEDIA, TICKET, TelnyxConfig, VOICE};
use crate::problem::chain;
use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use offhook_carriers::telnyx::media::MAX_MESSAGE_BYTES;
use offhook_carriers::telnyx::webhook::{self, PublicKey, Signed, Unverified, Webhook, WebhookError};
use offhook_carriers::telnyx::{Event, Side};
use offhook_carriers::{CarrierError, MediaEvent, Ring, StreamChange, StreamReport};
use offhook_core::call::Input;
use offhook_core::{ConversationId, E164, Secret};
use offhook_store::RingTarget;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether the call of a caller who is held can go on.
const HOLD: Duration = Duration::from_secs(1);
/// How long a caller is held: as long as a lease of another process may last.
const HELD_MAX: Duration = Duration::from_secs(60);
/// How long until a media socket that could not be opened is tried again.
const FAILED_PAUSE: Duration = Duration::from_millis(500);
/// How long a media socket may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// Messages that may come before the introduction.
const INTRODUCTION_MESSAGES: usize = 4;
/// Small, because there are two for every call.
const MEDIA_BUFFER_BYTES: usize = 8 * 1024;

/// Telnyx's routes.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route(VOICE, post(voice))
        .route(&format!("{MEDIA}/{{call}}"), get(media))
        .layer(DefaultBodyLimit::max(webhook::MAX_BODY_BYTES))
}

/// A webhook that was signed for an account of ours, and what it is about.
struct Believed {
    webhook: Webhook,
    about: About,
}

enum About {
    /// A call that is driven here: neither its number nor the store is needed.
    Call(Arc<Handle>),
    /// A number of ours.
    Number(Box<RingTarget>),
    /// The other phone of a caller who was put through.
    Forwarded(Forwarded),
}

/// Something has happened to a call.
async fn voice(State(app): State<Arc<App>>, arrived: Arrived) -> Result<StatusCode, Refused> {
    let Some(Believed { webhook, about }) = believe(&app, &arrived).await? else {
        // Of a call that is none of ours any more there is nothing to do.
        return Ok(StatusCode::NO_CONTENT);
    };
    match about {
        About::Number(target) => {
            let Event::Rings(ring) = webhook.event else { return Ok(StatusCode::NO_CONTENT) };
            // Telnyx asks the failover URL, or once more.
            if app.around.registry.is_draining() {
                return Err(Refused::Stopping);
            }
            tokio::spawn(receive(app, target, ring));
        }
        About::Call(handle) if handle.is_new(&webhook.id) => happened(&app, &handle, webhook.event),
        About::Forwarded(forwarded) if matches!(webhook.event, Event::HungUp(_)) => forwarded.is_over(),
        About::Call(_) | About::Forwarded(_) => {}
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Finds whose webhook this is: the call or else the connection whose key signed it. `None`: it tells of a call that is none of ours.
async fn believe(app: &App, arrived: &Arrived) -> Result<Option<Believed>, Refused> {
    let claims = Unverified::read(&arrived.body)?;
    let signed = Signed {
        timestamp: arrived.header(webhook::TIMESTAMP_HEADER),
        signature: arrived.header(webhook::SIGNATURE_HEADER),
    };
    if signed.signature.is_none() {
        return Err(WebhookError::Unsigned.into());
    }
    let now_s = app.environment.now_us() / 1_000_000;
    let registry = &app.around.registry;
    let carrier_call = claims.call().unwrap_or_default().to_owned();
    for handle in registry.named(&carrier_call) {
        if let Ok(webhook) = claims.clone().verify(signed, &keys(&handle.tokens()), now_s) {
            return Ok(Some(Believed { webhook, about: About::Call(handle) }));
        }
    }
    let caller = claims.client_state().and_then(|state| state.strip_prefix(FORWARDED));
    if let Some(forwarded) = caller.and_then(|caller| app.telnyx.forwarded(caller)) {
        let webhook = claims.verify(signed, &keys(&[forwarded.signs_with()]), now_s)?;
        return Ok(Some(Believed { webhook, about: About::Forwarded(forwarded) }));
    }
    let Some(called) = claims.called() else { return Ok(None) };
    let called: E164 = called.parse().map_err(|_| Refused::NoNumber)?;
    let mut refusal = Refused::NoNumber;
    for target in app.store.numbers_for_ring("telnyx", None, &called).await? {
        let account = target.connection.account.as_deref();
        if account.is_some_and(|account| claims.application() != Some(account)) {
            continue;
        }
        let Some(config) = TelnyxConfig::of(&target.connection) else { continue };
        match claims.clone().verify(signed, &keys(&[Secret::new(config.public_key)]), now_s) {
            Ok(webhook) => {
                let about = match registry.find(&target.connection.id, &carrier_call) {
                    Some(handle) => About::Call(handle),
                    None => About::Number(Box::new(target)),
                };
                return Ok(Some(Believed { webhook, about }));
            }
            Err(error) => refusal = error.into(),
        }
    }
    Err(refusal)
}

fn keys(texts: &[Secret<String>]) -> Vec<PublicKey> {
    texts.iter().filter_map(|text| text.expose().parse().ok()).collect()
}

/// Somebody rings: decides what becomes of them, for as long as that cannot be decided, and leads them there.
async fn receive(app: Arc<App>, target: Box<RingTarget>, ring: Box<Ring>) {
    let carrier = CarrierControl::open(&app, &target.connection, target.secret.as_ref());
    let patience = Instant::now() + HELD_MAX;
    let welcome = loop {
        match arrive::ring(&app, &target, &ring, &carrier).await {
            Ok(Welcome::Hold) => {}
            Ok(welcome) => break welcome,
            Err(error) => tracing::error!(error = chain(&error), "A caller is held: the store failed"),
        }
        if Instant::now() >= patience {
            break Welcome::sorry(&target.number.forward_to);
        }
        tokio::time::sleep(HOLD).await;
    };
    let led = carrier.lead(&ring.carrier_call, &welcome).await;
    let (Err(error), Welcome::Talk(handle)) = (&led, &welcome) else {
        if let Err(error) = led {
            tracing::warn!(error = chain(&error), "A caller could not be led on");
        }
        return;
    };
    match error {
        CarrierError::NotFound | CarrierError::CallOver => {
            handle.tell(Letter::Fact(Input::HungUp { by_caller: true }));
        }
        error => {
            tracing::error!(call.id = %handle.id, error = chain(error), "A call could not be answered");
            handle.tell(Letter::NoMedia);
        }
    }
}

/// Something has happened to a call that is driven here.
fn happened(app: &Arc<App>, handle: &Arc<Handle>, event: Event) {
    match event {
        Event::Answered { streams: false, .. } => handle.tell(Letter::OpenMedia),
        Event::HungUp(end) => {
            let by_caller = handle.onward() == Onward::MediaAgain && end.by != Some(Side::Callee);
            handle.tell(Letter::Fact(Input::HungUp { by_caller }));
        }
        Event::Stream(report) if report.change != StreamChange::Started && never_opened(app, &report) => {
            tracing::warn!(call.id = %handle.id, error = report.error, "The carrier could not open a media socket");
            let handle = handle.clone();
            tokio::spawn(async move {
                tokio::time::sleep(FAILED_PAUSE).await;
                handle.tell(Letter::OpenMedia);
            });
        }
        // What is told twice is taken from the media socket: keys, and the end of a stream that was open.
        _ => {}
    }
}

/// Whether a stream ended whose socket never came: its ticket was not used.
fn never_opened(app: &App, report: &StreamReport) -> bool {
    let url = report.url.as_ref().and_then(|url| url.expose().parse::<url::Url>().ok());
    let ticket = url.and_then(|url| Some(url.query_pairs().find(|(name, _)| name == TICKET)?.1.into_owned()));
    ticket.is_some_and(|ticket| app.around.registry.holds(&Secret::new(ticket)))
}

/// What comes with the address of a media socket.
#[derive(Deserialize)]
struct Opening {
    ticket: Option<Secret<String>>,
}

/// The media socket of a call, opened by the ticket in its address.
async fn media(
    State(app): State<Arc<App>>,
    Path(call): Path<String>,
    Query(Opening { ticket }): Query<Opening>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let handle = call.parse::<ConversationId>().ok().and_then(|id| app.around.registry.by_id(&id));
    let good = handle.and_then(|handle| {
        let redeemed = app.around.registry.redeem(&ticket?, &handle.carrier_call, Instant::now())?;
        (redeemed.id == handle.id).then_some(handle)
    });
    let Some(handle) = good else {
        metrics::counter!("offhook_media_sockets_refused_total").increment(1);
        let why = "there is no such call, or its ticket is missing, used, late, or another call's";
        tracing::warn!(why, "Media socket refused");
        return (StatusCode::FORBIDDEN, why).into_response();
    };
    upgrade
        .read_buffer_size(MEDIA_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .on_upgrade(move |socket| introduce(app, handle, socket))
}

/// Waits for the introduction of a media socket, and gives it to its call.
async fn introduce(app: Arc<App>, handle: Arc<Handle>, mut socket: WebSocket) {
    let mut reader = app.telnyx.reader(&handle.connection);
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
    let started = match tokio::time::timeout(INTRODUCTION, introduction).await {
        Ok(Some(started)) if started.carrier_call == handle.carrier_call => started,
        _ => {
            metrics::counter!("offhook_media_sockets_refused_total").increment(1);
            tracing::warn!(call.id = %handle.id, "Media socket closed: it did not introduce itself as its call's");
            return;
        }
    };
    let (lines, connection) = (app.telnyx.clone(), handle.connection.clone());
    let found = move |order| lines.heard(&connection, order);
    handle.tell(Letter::Line(Box::new(Line::telnyx(socket, reader, started.coding, CODING, found))));
}
