//! Conversations and what was said in them, whatever the channel. Nothing here changes anything.

use super::calls::TurnTiming;
use super::request::{Id, Paging, Params};
use super::{Page, Time, words};
use crate::app::App;
use crate::auth::Caller;
use crate::problem::{About, Problem};
use axum::Json;
use axum::extract::State;
use offhook_core::entity::{self, Channel, Direction, MessageRole};
use offhook_core::{AgentVersionId, ConversationId, PhoneNumberId, Pii};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

/// One exchange with one person.
#[derive(Serialize, ToSchema)]
pub struct Conversation {
    /// `cnv_…`; a call has the same id.
    id: String,
    /// How it is held.
    #[schema(schema_with = words::channel)]
    channel: Channel,
    /// Who began it.
    #[schema(schema_with = words::direction)]
    direction: Direction,
    /// `agv_…`: who talked for us.
    agent_version: Option<String>,
    /// `num_…`: our number in it.
    phone_number: Option<String>,
    /// What came of it.
    outcome: Option<String>,
    /// What was said, in short.
    summary: Option<String>,
    /// What the agent was to find out.
    collected: Value,
    /// When it began.
    started_at: Time,
    /// When it ended; null while it is open.
    ended_at: Option<Time>,
}

/// Something said or written, as it was heard or delivered.
#[derive(Serialize, ToSchema)]
pub struct Message {
    /// `msg_…`
    id: String,
    /// Its place in the conversation, from 0.
    seq: u32,
    /// The turn it belongs to.
    turn: u32,
    /// Who said it.
    #[schema(schema_with = words::message_role)]
    role: MessageRole,
    /// The words.
    text: String,
    /// The part that the other side heard, where that is less than the whole.
    heard: Option<String>,
    /// When it began.
    at: Time,
    /// How long the answer of this turn took, on the agent's message that began it.
    timing: Option<TurnTiming>,
}

impl From<entity::Conversation> for Conversation {
    fn from(row: entity::Conversation) -> Self {
        Conversation {
            id: row.id.into(),
            channel: row.channel,
            direction: row.direction,
            agent_version: row.agent_version.map(AgentVersionId::into),
            phone_number: row.phone_number.map(PhoneNumberId::into),
            outcome: row.outcome,
            summary: row.summary.map(Pii::into_inner),
            collected: row.collected.into_inner(),
            started_at: Time::from_us(row.started_at_us),
            ended_at: row.ended_at_us.map(Time::from_us),
        }
    }
}

impl From<entity::Message> for Message {
    fn from(row: entity::Message) -> Self {
        Message {
            timing: TurnTiming::stored(row.turn, &row.timing),
            id: row.id.into(),
            seq: row.seq,
            turn: row.turn,
            role: row.role,
            text: row.text.into_inner(),
            heard: row.heard.map(Pii::into_inner),
            at: Time::from_us(row.at_us),
        }
    }
}

/// Lists conversations
#[utoipa::path(get, path = "/api/conversations", tag = "conversations", operation_id = "listConversations",
    params(Paging), responses((status = OK, body = Page<Conversation>)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<Conversation>>, Problem> {
    Ok(Json(Page::of(app.store.conversations(&scope, &paging.page()?).await?)))
}

/// Reads a conversation
#[utoipa::path(get, path = "/api/conversations/{id}", tag = "conversations", operation_id = "readConversation",
    params(("id" = String, Path)), responses((status = OK, body = Conversation)))]
pub async fn read(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConversationId>,
) -> Result<Json<Conversation>, Problem> {
    Ok(Json(app.store.conversation(&scope, &id).await.about(&id)?.into()))
}

/// Reads what was said, in order
///
/// A call's transcript is here when the call has ended; while it goes on, watch its events.
#[utoipa::path(get, path = "/api/conversations/{id}/messages", tag = "conversations", operation_id = "listMessages",
    params(("id" = String, Path)), responses((status = OK, body = Page<Message>)))]
pub async fn messages(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConversationId>,
) -> Result<Json<Page<Message>>, Problem> {
    let rows = app.store.messages(&scope, &id).await.about(&id)?;
    Ok(Json(Page { items: rows.into_iter().map(Message::from).collect(), next: None }))
}
