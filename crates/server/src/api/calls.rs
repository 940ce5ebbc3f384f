//! Calls: who called whom, what it took turn by turn, the log to replay it from, and the order to hang up.
//! It does not know what is decided on a call.

use super::request::{Id, Paging, Params};
use super::{Page, Time, words};
use crate::app::App;
use crate::auth::Caller;
use crate::call::registry::Letter;
use crate::problem::{About, Kind, Problem};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use offhook_core::call::{self, CallTime, Input};
use offhook_core::entity::{self, CallStatus, Direction, UsageKind};
use offhook_core::{AgentVersionId, ConversationId, PhoneNumberId, Pii};
use offhook_store::{CallFilter, LogFrom, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// A call.
#[derive(Serialize, ToSchema)]
pub struct Call {
    /// `cnv_…`: its conversation has the same id.
    id: String,
    /// `con_…`: the carrier account it came through.
    connection: String,
    /// The carrier's id of it.
    carrier_call: String,
    /// How far it is.
    #[schema(schema_with = words::call_status)]
    status: CallStatus,
    /// Why it ended, in a word.
    #[schema(example = "caller_hung_up")]
    ended_reason: Option<String>,
    /// Who called, as the carrier wrote it.
    from: String,
    /// Who was called.
    to: String,
    /// When it began to ring.
    started_at: Time,
    /// When it was answered.
    answered_at: Option<Time>,
    /// When it ended.
    ended_at: Option<Time>,
}

/// A call with everything that is known of it but its words: those are its conversation's messages.
#[derive(Serialize, ToSchema)]
pub struct CallRecord {
    #[serde(flatten)]
    call: Call,
    /// Who began it.
    #[schema(schema_with = words::direction)]
    direction: Direction,
    /// `agv_…`: who talked for us.
    agent_version: Option<String>,
    /// `num_…`: our number in it.
    phone_number: Option<String>,
    /// How long the answer of each turn took.
    turns: Vec<TurnTiming>,
    /// The abilities that were used.
    tool_calls: Vec<ToolCall>,
    /// What was used up.
    usage: Vec<Usage>,
}

/// The waterfall of one turn, in ms after the caller fell silent.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct TurnTiming {
    /// The caller's turns counted from 1.
    #[serde(default)]
    turn: u32,
    /// The turn was taken to be over.
    turn_end_ms: u32,
    /// How long before the end of the turn the model was asked already.
    head_start_ms: u32,
    /// The model's first token came.
    first_token_ms: u32,
    /// The voice's first audio came.
    first_audio_ms: u32,
    /// The caller began to hear it.
    playout_ms: u32,
    /// Answers prepared for this turn and thrown away.
    thrown_away: u8,
}

/// One use of an ability.
#[derive(Serialize, ToSchema)]
pub struct ToolCall {
    /// `tcl_…`
    id: String,
    /// The turn it belongs to.
    turn: u32,
    /// The ability's name.
    name: String,
    /// What the model asked for: JSON text, as it wrote it.
    arguments: String,
    /// What came back.
    result: Option<String>,
    /// What went wrong.
    error: Option<String>,
    /// When it began.
    started_at: Time,
    /// When it ended; null when the call ended first.
    ended_at: Option<Time>,
}

/// Something that costs money.
#[derive(Serialize, ToSchema)]
pub struct Usage {
    /// What was used.
    #[schema(schema_with = words::usage_kind)]
    kind: UsageKind,
    /// Who provided it.
    provider: String,
    /// How much, in the kind's unit.
    quantity: i64,
    /// Price of one unit, in millionths of the currency.
    unit_price_micros: i64,
    /// ISO 4217.
    currency: String,
}

/// The log of a call: folded over the call machine it gives the call again.
#[derive(Serialize, ToSchema)]
pub struct CallLog {
    /// What the call depended on.
    #[schema(value_type = Object)]
    plan: Box<RawValue>,
    /// The revision of the call machine that wrote it.
    log_revision: u32,
    /// Its lines in order.
    events: Vec<CallEvent>,
}

/// One line of a call's log.
#[derive(Serialize, ToSchema)]
pub struct CallEvent {
    /// Its place, from 0.
    seq: u32,
    /// When, in µs since the call began.
    at_us: u64,
    /// What the machine was told; `"started"` and `"resumed"` stand for its beginnings.
    #[schema(value_type = Value)]
    input: Box<RawValue>,
    /// What the machine ordered, in short.
    orders: String,
    /// Fingerprint of what it ordered: 16 hexadecimal digits.
    digest: String,
}

/// Which calls are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CallChoice {
    /// Only calls in progress.
    #[serde(default)]
    live: bool,
}

impl From<entity::Call> for Call {
    fn from(row: entity::Call) -> Self {
        Call {
            id: row.id.into(),
            connection: row.connection.into(),
            carrier_call: row.carrier_call,
            status: row.status,
            ended_reason: row.ended_reason,
            from: row.from.into_inner(),
            to: row.to.into_inner(),
            started_at: Time::from_us(row.started_at_us),
            answered_at: row.answered_at_us.map(Time::from_us),
            ended_at: row.ended_at_us.map(Time::from_us),
        }
    }
}

impl From<entity::ToolCall> for ToolCall {
    fn from(row: entity::ToolCall) -> Self {
        ToolCall {
            id: row.id.into(),
            turn: row.turn,
            name: row.name,
            arguments: row.arguments.into_inner(),
            result: row.result.map(Pii::into_inner),
            error: row.error,
            started_at: Time::from_us(row.started_at_us),
            ended_at: row.ended_at_us.map(Time::from_us),
        }
    }
}

impl From<entity::Usage> for Usage {
    fn from(row: entity::Usage) -> Self {
        let entity::Usage { kind, provider, quantity, unit_price_micros, currency, .. } = row;
        Usage { kind, provider, quantity, unit_price_micros, currency }
    }
}

impl TurnTiming {
    /// The timing stored with a message, if it has one.
    pub fn stored(turn: u32, timing: &Value) -> Option<Self> {
        let read = TurnTiming::deserialize(timing).ok()?;
        Some(TurnTiming { turn, ..read })
    }
}

impl From<&call::TurnTiming> for TurnTiming {
    fn from(timing: &call::TurnTiming) -> Self {
        let after = |at: CallTime| at.since_ms(timing.speech_end);
        TurnTiming {
            turn: timing.turn,
            turn_end_ms: after(timing.turn_end),
            head_start_ms: timing.turn_end.since_ms(timing.asked),
            first_token_ms: after(timing.first_token),
            first_audio_ms: after(timing.first_audio),
            playout_ms: after(timing.playout),
            thrown_away: timing.thrown_away,
        }
    }
}

/// Lists calls
#[utoipa::path(get, path = "/api/calls", tag = "calls", operation_id = "listCalls", params(Paging, CallChoice),
    responses((status = OK, body = Page<Call>)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Params(paging): Params<Paging>,
    Params(choice): Params<CallChoice>,
) -> Result<Json<Page<Call>>, Problem> {
    let filter = if choice.live { CallFilter::Live } else { CallFilter::All };
    Ok(Json(Page::of(app.store.calls(&scope, filter, &paging.page()?).await?)))
}

/// Reads a call with its tools, its usage and the time that each turn took
#[utoipa::path(get, path = "/api/calls/{id}", tag = "calls", operation_id = "readCall",
    params(("id" = String, Path)), responses((status = OK, body = CallRecord)))]
pub async fn read(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConversationId>,
) -> Result<Json<CallRecord>, Problem> {
    let call = app.store.call(&scope, &id).await.about(&id)?;
    let conversation = app.store.conversation(&scope, &id).await.about(&id)?;
    let messages = app.store.messages(&scope, &id).await.about(&id)?;
    let tool_calls = app.store.tool_calls(&scope, &id).await.about(&id)?;
    let usage = app.store.usage(&scope, &id).await.about(&id)?;
    Ok(Json(CallRecord {
        call: call.into(),
        direction: conversation.direction,
        agent_version: conversation.agent_version.map(AgentVersionId::into),
        phone_number: conversation.phone_number.map(PhoneNumberId::into),
        turns: messages.iter().filter_map(|m| TurnTiming::stored(m.turn, &m.timing)).collect(),
        tool_calls: tool_calls.into_iter().map(ToolCall::from).collect(),
        usage: usage.into_iter().map(Usage::from).collect(),
    }))
}

/// Reads a call's log, to replay it
#[utoipa::path(get, path = "/api/calls/{id}/log", tag = "calls", operation_id = "readCallLog",
    params(("id" = String, Path)), responses((status = OK, body = CallLog)))]
pub async fn log(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConversationId>,
) -> Result<Json<CallLog>, Problem> {
    let stored = app.store.load_log(&scope, &id, LogFrom::Start).await.about(&id)?;
    let json = |text: String| RawValue::from_string(text).map_err(|error| Problem::internal(&error));
    let event = |event: entity::CallEvent| {
        Ok(CallEvent {
            seq: event.seq,
            at_us: event.at_us,
            input: json(event.input.into_inner())?,
            orders: event.orders,
            digest: format!("{:016x}", event.digest),
        })
    };
    Ok(Json(CallLog {
        plan: json(stored.plan)?,
        log_revision: stored.log_revision,
        events: stored.events.into_iter().map(event).collect::<Result<_, Problem>>()?,
    }))
}

/// Hangs up
///
/// The order is taken, the call ends a moment later: its `ended_reason` will be `ordered`.
#[utoipa::path(post, path = "/api/calls/{id}/hang-up", tag = "calls", operation_id = "hangUpCall",
    params(("id" = String, Path)), responses((status = ACCEPTED)))]
pub async fn hang_up(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConversationId>,
) -> Result<StatusCode, Problem> {
    let call = app.store.call(&scope, &id).await.about(&id)?;
    if call.status == CallStatus::Ended {
        return Err(Problem::from(StoreError::Ended { what: "call" }).about(&id));
    }
    let Some(handle) = app.around.registry.by_id(&id) else {
        let detail = format!("{id}: this call is not driven by the node that was asked");
        let fix = match call.node {
            Some(node) if node != app.node.name => format!("ask node {node}"),
            _ => "read the call again: it may just have ended, or wait for its carrier to reconnect".into(),
        };
        return Err(Problem::new(Kind::Conflict, detail, fix));
    };
    handle.tell(Letter::Fact(Input::HangUpOrdered));
    tracing::info!(call.id = %id, actor = %scope.actor(), "Call ordered to end");
    Ok(StatusCode::ACCEPTED)
}
