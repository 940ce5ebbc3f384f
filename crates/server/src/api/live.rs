//! What happens on calls right now, as server-sent events: of the whole workspace, or of one call from its first word.
//! Events are hints; the record is written when a call has ended.

use super::calls::TurnTiming;
use super::request::Id;
use crate::app::App;
use crate::auth::Caller;
use crate::call::finish::word;
use crate::call::resume;
use crate::live::{self, Happening};
use crate::problem::{About, Problem};
use crate::router::Stopping;
use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use offhook_core::call::{self, Purpose, Speaker};
use offhook_core::entity::{self, CallStatus, MessageRole};
use offhook_core::{ConversationId, WorkspaceId};
use offhook_store::{CallFilter, LogFrom, PAGE_ROWS_MAX, Page, Scope};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, interval_at};
use utoipa::ToSchema;

/// How often the store is asked whether a watched call has ended.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// One event of one call. `event` is also the name of the server-sent event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LiveEvent {
    /// It rings.
    Ringing {
        /// `cnv_…`
        call: String,
        /// Who calls, as the carrier wrote it.
        from: String,
        /// Who is called.
        to: String,
    },
    /// It was answered.
    Answered {
        /// `cnv_…`
        call: String,
    },
    /// A line was said. A line with a number that came before replaces it.
    Line {
        /// `cnv_…`
        call: String,
        /// The line.
        line: Line,
    },
    /// An answer has begun to be heard.
    Timing {
        /// `cnv_…`
        call: String,
        /// How long it took.
        timing: TurnTiming,
    },
    /// An ability is used.
    Tool {
        /// `cnv_…`
        call: String,
        /// Its name.
        name: String,
    },
    /// It is over; its record is written in this moment.
    Ended {
        /// `cnv_…`
        call: String,
        /// Why, in a word.
        reason: String,
    },
    /// The watcher was too slow: it has missed so many events, of any call.
    Missed {
        /// How many.
        events: u64,
    },
}

/// One line of a transcript.
#[derive(Debug, Serialize, ToSchema)]
pub struct Line {
    /// Its place, from 1.
    number: u32,
    /// The turn it belongs to: 0 for the greeting.
    turn: u32,
    /// Who speaks.
    speaker: LineSpeaker,
    /// Why the agent spoke.
    purpose: Option<LinePurpose>,
    /// When, in ms since the call began to ring.
    at_ms: u64,
    /// The caller's words, or the agent's as far as they were heard.
    text: String,
    /// The agent was interrupted: there was more to say.
    cut: bool,
}

macro_rules! mirrored {
    ($($(#[$doc:meta])* $name:ident = $core:ident { $($(#[$member_doc:meta])* $member:ident,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$member_doc])* $member,)* }

        impl From<$core> for $name {
            fn from(word: $core) -> Self {
                match word { $($core::$member => $name::$member,)* }
            }
        }
    )*};
}

mirrored! {
    /// Who speaks a line.
    LineSpeaker = Speaker {
        /// The caller.
        Caller,
        /// The agent.
        Agent,
        /// A person who was rung from the call.
        Staff,
    }
    /// Why the agent spoke.
    LinePurpose = Purpose {
        /// The first message.
        Greeting,
        /// An answer to what the caller said.
        Answer,
        /// Something to hear while an answer takes long.
        Filler,
        /// Asked into silence.
        Nudge,
        /// What was heard could not be understood.
        NotUnderstood,
        /// The last words.
        Goodbye,
        /// Something broke.
        Apology,
        /// That the call is recorded.
        Announcement,
        /// Something to hear before and while somebody is rung.
        Connecting,
        /// What is said around the message that a caller leaves.
        Voicemail,
        /// Why nobody answers.
        Closed,
    }
}

impl From<call::Line> for Line {
    fn from(line: call::Line) -> Self {
        Line {
            number: line.number,
            turn: line.turn,
            speaker: line.speaker.into(),
            purpose: line.purpose.map(LinePurpose::from),
            at_ms: line.at.as_ms(),
            text: line.text,
            cut: line.cut,
        }
    }
}

impl LiveEvent {
    fn of(event: &live::LiveEvent) -> Self {
        let call = event.call.to_string();
        match &event.what {
            Happening::Ringing { from, to } => {
                LiveEvent::Ringing { call, from: from.expose().clone(), to: to.expose().clone() }
            }
            Happening::Answered => LiveEvent::Answered { call },
            Happening::Line { line } => LiveEvent::Line { call, line: line.expose().clone().into() },
            Happening::Timed { timing } => LiveEvent::Timing { call, timing: timing.into() },
            Happening::Tool { name } => LiveEvent::Tool { call, name: name.clone() },
            Happening::Ended { reason } => LiveEvent::Ended { call, reason: word(*reason) },
        }
    }

    fn name(&self) -> &'static str {
        match self {
            LiveEvent::Ringing { .. } => "ringing",
            LiveEvent::Answered { .. } => "answered",
            LiveEvent::Line { .. } => "line",
            LiveEvent::Timing { .. } => "timing",
            LiveEvent::Tool { .. } => "tool",
            LiveEvent::Ended { .. } => "ended",
            LiveEvent::Missed { .. } => "missed",
        }
    }
}

/// Watches every call of the workspace
///
/// Calls in progress come first, as `ringing` and `answered`.
#[utoipa::path(get, path = "/api/live", tag = "calls", operation_id = "watchCalls",
    responses((status = OK, body = LiveEvent, content_type = "text/event-stream")))]
pub async fn workspace(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Extension(stopping): Extension<Stopping>,
) -> Result<Response, Problem> {
    // Before the calls are read: what happens meanwhile comes twice rather than never.
    let from_now = app.around.live.watch();
    let mut open = Vec::new();
    let mut page = Some(Page::first(PAGE_ROWS_MAX));
    while let Some(wanted) = page {
        let listed = app.store.calls(&scope, CallFilter::Live, &wanted).await?;
        open.extend(listed.rows);
        page = listed.next.map(|next| Page::after(next, PAGE_ROWS_MAX));
    }
    let known = open.into_iter().rev().flat_map(beginning).collect();
    Ok(stream_of(app, known, from_now, Watched::Workspace(scope.workspace().clone()), stopping))
}

/// Watches one call: its transcript so far, then every line as it is said
///
/// The stream ends with the call. Of a call that has ended it is the whole. A line of the last half second may be missing at first: the
/// log that the beginning is read from is that much behind.
#[utoipa::path(get, path = "/api/calls/{id}/events", tag = "calls", operation_id = "watchCall",
    params(("id" = String, Path)), responses((status = OK, body = LiveEvent, content_type = "text/event-stream")))]
pub async fn call(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConversationId>,
    Extension(stopping): Extension<Stopping>,
) -> Result<Response, Problem> {
    let from_now = app.around.live.watch();
    let known = so_far(&app, &scope, &id).await?;
    Ok(stream_of(app, known, from_now, Watched::Call(scope, id), stopping))
}

/// What is watched.
enum Watched {
    Workspace(WorkspaceId),
    Call(Scope, ConversationId),
}

impl Watched {
    fn sees(&self, event: &live::LiveEvent) -> bool {
        match self {
            Watched::Workspace(id) => event.workspace == *id,
            Watched::Call(_, id) => event.call == *id,
        }
    }

    fn is_over_with(&self, event: &LiveEvent) -> bool {
        matches!((self, event), (Watched::Call(..), LiveEvent::Ended { .. }))
    }
}

/// What is known, then what happens until the watched is over or the server stops.
fn stream_of(
    app: Arc<App>,
    known: Vec<LiveEvent>,
    from_now: Receiver<Arc<live::LiveEvent>>,
    watched: Watched,
    stopping: Stopping,
) -> Response {
    let over = known.last().is_some_and(|event| watched.is_over_with(event));
    let live = (!over).then_some(from_now);
    let events = stream::iter(known)
        .chain(happenings(app, live, watched))
        .take_until(stopping.closing.cancelled_owned())
        .map(|event| Event::default().event(event.name()).json_data(&event));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

/// A watcher of one call also asks the store now and then: what this node tells may have been missed, or the end be another's.
fn happenings(
    app: Arc<App>,
    from_now: Option<Receiver<Arc<live::LiveEvent>>>,
    watched: Watched,
) -> impl Stream<Item = LiveEvent> {
    let again = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    stream::unfold((from_now, watched, again), move |(from_now, watched, mut again)| {
        let app = app.clone();
        async move {
            let mut from_now = from_now?;
            let events = loop {
                tokio::select! {
                    received = from_now.recv() => match received {
                        Ok(event) if watched.sees(&event) => break vec![LiveEvent::of(&event)],
                        Ok(_) => {}
                        Err(RecvError::Lagged(events)) => break vec![LiveEvent::Missed { events }],
                        Err(RecvError::Closed) => return None,
                    },
                    _ = again.tick() => if let Some(whole) = whole(&app, &watched).await {
                        break whole;
                    },
                }
            };
            let over = events.last().is_some_and(|event| watched.is_over_with(event));
            let rest = (!over).then_some(from_now);
            Some((stream::iter(events), (rest, watched, again)))
        }
    })
    .flatten()
}

/// Every line of a watched call that has ended meanwhile, and its end.
async fn whole(app: &App, watched: &Watched) -> Option<Vec<LiveEvent>> {
    let Watched::Call(scope, id) = watched else { return None };
    let status = app.store.call(scope, id).await.ok()?.status;
    if status != CallStatus::Ended {
        return None;
    }
    let known = so_far(app, scope, id).await.ok()?;
    let begun = |event: &LiveEvent| matches!(event, LiveEvent::Ringing { .. } | LiveEvent::Answered { .. });
    Some(known.into_iter().filter(|event| !begun(event)).collect())
}

/// How a call began.
fn beginning(call: entity::Call) -> Vec<LiveEvent> {
    let id = call.id.to_string();
    let (from, to) = (call.from.into_inner(), call.to.into_inner());
    let answered = call.answered_at_us.map(|_| LiveEvent::Answered { call: id.clone() });
    [LiveEvent::Ringing { call: id, from, to }].into_iter().chain(answered).collect()
}

/// One call as far as the store knows it.
async fn so_far(app: &App, scope: &Scope, id: &ConversationId) -> Result<Vec<LiveEvent>, Problem> {
    let stored = app.store.call(scope, id).await.about(id)?;
    let began_us = stored.started_at_us;
    let ended = (stored.status == CallStatus::Ended).then(|| stored.ended_reason.clone().unwrap_or_default());
    let mut events = beginning(stored);
    let lines: Vec<Line> = match ended {
        None => unfinished(app, scope, id).await?.into_iter().map(Line::from).collect(),
        Some(_) => {
            let messages = app.store.messages(scope, id).await.about(id)?;
            messages.into_iter().map(|message| finished(message, began_us)).collect()
        }
    };
    events.extend(lines.into_iter().map(|line| LiveEvent::Line { call: id.to_string(), line }));
    events.extend(ended.map(|reason| LiveEvent::Ended { call: id.to_string(), reason }));
    Ok(events)
}

/// The transcript of a call in progress: its log, folded.
async fn unfinished(app: &App, scope: &Scope, id: &ConversationId) -> Result<Vec<call::Line>, Problem> {
    let log = app.store.load_log(scope, id, LogFrom::Snapshot).await.about(id)?;
    let (call, _) = resume::stand(&log).map_err(|error| Problem::internal(&error))?;
    Ok(call.transcript())
}

fn finished(message: entity::Message, began_us: i64) -> Line {
    let at_us = message.at_us.saturating_sub(began_us).max(0);
    Line {
        number: message.seq + 1,
        turn: message.turn,
        speaker: match message.role {
            MessageRole::Member => LineSpeaker::Caller,
            MessageRole::Staff => LineSpeaker::Staff,
            _ => LineSpeaker::Agent,
        },
        purpose: None,
        at_ms: at_us.unsigned_abs() / 1_000,
        cut: message.heard.is_some(),
        text: message.heard.unwrap_or(message.text).into_inner(),
    }
}
