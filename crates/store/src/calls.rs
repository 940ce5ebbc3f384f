//! A call's row from the first ring to the last: begun once however often the carrier asks, finished once however often the driver tries.
//! What happens in between stands in its log; this module does not know what a call does.

use crate::convert::to_json;
use crate::dialect::ROWS_PER_INSERT;
use crate::error::StoreError;
use crate::lease::{CallLease, Node};
use crate::rows::{
    agent_version, call, call_snapshot, connection, conversation, message, phone_number, tool_call, usage,
};
use crate::scope::Scope;
use crate::{Store, tenant};
use offhook_core::entity::{Call, CallStatus, Channel, Conversation, Direction, MessageRole, UsageKind};
use offhook_core::{AgentVersionId, ConnectionId, ConversationId, MessageId, PhoneNumberId, Pii, ToolCallId};
use sea_orm::sea_query::{Expr, Func};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, IntoActiveModel,
    QueryFilter,
};
use serde_json::Value;

/// A call as it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCall {
    /// The carrier account it comes through.
    pub connection: ConnectionId,
    /// The carrier's id of it.
    pub carrier_call: String,
    /// Our number in it.
    pub phone_number: Option<PhoneNumberId>,
    /// Who answers.
    pub agent_version: Option<AgentVersionId>,
    /// Who calls whom.
    pub direction: Direction,
    /// Who calls, as the carrier writes it.
    pub from: Pii<String>,
    /// Who is called.
    pub to: Pii<String>,
    /// The number that passed the call on to ours, where the network told.
    pub forwarded_from: Option<Pii<String>>,
    /// Everything the call may depend on, as JSON text: a replay begins with it.
    pub plan: String,
    /// The revision of the call machine that will write the log.
    pub log_revision: u32,
}

/// Whether a call was begun just now.
#[derive(Clone, Debug, PartialEq)]
pub enum Begun {
    /// It was, and the asker drives it.
    New(CallLease),
    /// The carrier has asked before.
    Existing(Call),
}

/// A call as it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct FinishedCall {
    /// Why it ended, in a word.
    pub ended_reason: String,
    /// When it ended.
    pub ended_at_us: i64,
    /// What came of it.
    pub outcome: Option<String>,
    /// What was said, in short.
    pub summary: Option<Pii<String>>,
    /// What the agent has found out.
    pub collected: Pii<Value>,
    /// The transcript, in order.
    pub messages: Vec<NewMessage>,
    /// Every use of an ability.
    pub tool_calls: Vec<NewToolCall>,
    /// What it cost.
    pub usage: Vec<NewUsage>,
}

/// Something said; see [`offhook_core::entity::Message`].
#[derive(Clone, Debug, PartialEq)]
pub struct NewMessage {
    /// The turn it belongs to.
    pub turn: u32,
    /// Who said it.
    pub role: MessageRole,
    /// The words.
    pub text: Pii<String>,
    /// The part that was heard, where that is less than the whole.
    pub heard: Option<Pii<String>>,
    /// When it began.
    pub at_us: i64,
    /// Latencies of the turn.
    pub timing: Value,
}

/// One use of an ability; see [`offhook_core::entity::ToolCall`].
#[derive(Clone, Debug, PartialEq)]
pub struct NewToolCall {
    /// The turn it belongs to.
    pub turn: u32,
    /// The ability's name.
    pub name: String,
    /// What the model asked for.
    pub arguments: Pii<String>,
    /// What came back.
    pub result: Option<Pii<String>>,
    /// What went wrong.
    pub error: Option<String>,
    /// When it began.
    pub started_at_us: i64,
    /// When it ended.
    pub ended_at_us: Option<i64>,
}

/// Something that cost money; see [`offhook_core::entity::Usage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUsage {
    /// When it was used.
    pub at_us: i64,
    /// What was used.
    pub kind: UsageKind,
    /// Who provided it.
    pub provider: String,
    /// How much, in the kind's unit.
    pub quantity: i64,
    /// Price of one unit, in millionths of the currency.
    pub unit_price_micros: i64,
    /// ISO 4217.
    pub currency: String,
}

/// Whether a call was finished just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It was.
    Now,
    /// It had been before, and stays as it was.
    Before,
}

impl Store {
    /// Begins a call with its conversation, or finds the one begun by an earlier request for the same carrier's call.
    pub async fn begin_call(&self, scope: &Scope, new: &NewCall, node: &Node) -> Result<Begun, StoreError> {
        match self.try_begin(scope, new, node).await {
            // Another request was between our look and our row: now there is something to find.
            Err(StoreError::Conflict { .. }) => self.try_begin(scope, new, node).await,
            other => other,
        }
    }

    /// Notes that the call was answered; only the first time counts.
    pub async fn call_answered(&self, lease: &CallLease, at_us: i64) -> Result<(), StoreError> {
        let first_answer = Func::coalesce([Expr::col(call::Column::AnsweredAtUs), Expr::value(at_us)]);
        let answered = tenant::update::<call::Entity>(lease.scope())
            .col_expr(call::Column::Status, Expr::value(CallStatus::Answered.as_str()))
            .col_expr(call::Column::AnsweredAtUs, first_answer.into())
            .filter(lease.held())
            .exec(self.write()?)
            .await?;
        if answered.rows_affected == 0 {
            return Err(not_held(self.read(), lease.scope(), lease.call()).await);
        }
        Ok(())
    }

    /// Ends a call: its last state, transcript, tool calls and usage, in one transaction, and its lease with it.
    pub async fn finish_call(
        &self,
        lease: &CallLease,
        finished: &FinishedCall,
    ) -> Result<Finished, StoreError> {
        let tx = self.begin().await?;
        let ended = tenant::update::<call::Entity>(lease.scope())
            .col_expr(call::Column::Status, Expr::value(CallStatus::Ended.as_str()))
            .col_expr(call::Column::EndedReason, Expr::value(finished.ended_reason.as_str()))
            .col_expr(call::Column::EndedAtUs, Expr::value(finished.ended_at_us))
            .col_expr(call::Column::LeaseExpiresAtUs, Expr::value(None::<i64>))
            .filter(lease.held())
            .exec(&tx)
            .await?;
        if ended.rows_affected == 0 {
            return match not_held(&tx, lease.scope(), lease.call()).await {
                StoreError::Ended { .. } => Ok(Finished::Before),
                other => Err(other),
            };
        }
        tenant::update::<conversation::Entity>(lease.scope())
            .col_expr(conversation::Column::Outcome, Expr::value(finished.outcome.as_deref()))
            .col_expr(conversation::Column::Summary, Expr::value(finished.summary.as_ref().map(storable)))
            .col_expr(conversation::Column::Collected, Expr::value(to_json(&finished.collected)))
            .col_expr(conversation::Column::EndedAtUs, Expr::value(finished.ended_at_us))
            .filter(conversation::Column::Id.eq(lease.call().as_str()))
            .exec(&tx)
            .await?;
        self.add_transcript(&tx, lease, finished).await?;
        call_snapshot::Entity::delete_by_id(lease.call().as_str()).exec(&tx).await?;
        tx.commit().await?;
        Ok(Finished::Now)
    }

    async fn try_begin(&self, scope: &Scope, new: &NewCall, node: &Node) -> Result<Begun, StoreError> {
        let tx = self.begin().await?;
        tenant::row::<connection::Entity>(&tx, scope, &new.connection).await?;
        let existing = call::Entity::find()
            .filter(call::Column::Connection.eq(new.connection.as_str()))
            .filter(call::Column::CarrierCall.eq(new.carrier_call.as_str()))
            .one(&tx)
            .await?;
        match existing {
            Some(row) if row.workspace == scope.workspace().as_str() => {
                return Ok(Begun::Existing(row.try_into()?));
            }
            Some(_) => return Err(StoreError::NotFound { what: "call" }),
            None => {}
        }
        if let Some(number) = &new.phone_number {
            tenant::row::<phone_number::Entity>(&tx, scope, number).await?;
        }
        if let Some(version) = &new.agent_version {
            tenant::row::<agent_version::Entity>(&tx, scope, version).await?;
        }
        let id = ConversationId::from_ulid(&self.ulid());
        let now_us = self.now_us();
        let conversation = Conversation {
            id: id.clone(),
            workspace: scope.workspace().clone(),
            channel: Channel::Voice,
            direction: new.direction,
            agent_version: new.agent_version.clone(),
            phone_number: new.phone_number.clone(),
            outcome: None,
            summary: None,
            collected: Pii::new(Value::Null),
            started_at_us: now_us,
            ended_at_us: None,
        };
        let row = call::Model {
            id: id.to_string(),
            organization: scope.organization().to_string(),
            workspace: scope.workspace().to_string(),
            connection: new.connection.to_string(),
            carrier_call: new.carrier_call.clone(),
            status: CallStatus::Ringing.to_string(),
            ended_reason: None,
            from_address: storable(&new.from),
            to_address: storable(&new.to),
            plan: new.plan.clone(),
            log_revision: i64::from(new.log_revision),
            node: Some(node.name.clone()),
            lease_expires_at_us: Some(self.lease_end_us(node)),
            started_at_us: now_us,
            answered_at_us: None,
            ended_at_us: None,
            incarnation: Some(node.incarnation.clone()),
            forwarded_from: new.forwarded_from.as_ref().map(storable),
        };
        tenant::insert::<conversation::Entity>(&tx, (&conversation).into()).await?;
        tenant::insert::<call::Entity>(&tx, row).await?;
        tx.commit().await?;
        Ok(Begun::New(CallLease::new(id, node, scope.clone())))
    }

    async fn add_transcript(
        &self,
        tx: &DatabaseTransaction,
        lease: &CallLease,
        finished: &FinishedCall,
    ) -> Result<(), StoreError> {
        let workspace = lease.scope().workspace();
        let messages = finished.messages.iter().zip(0..).map(|(new, seq)| message::Model {
            id: MessageId::from_ulid(&self.ulid()).into(),
            workspace: workspace.to_string(),
            conversation: lease.call().to_string(),
            seq,
            turn: i64::from(new.turn),
            role: new.role.to_string(),
            text: storable(&new.text),
            heard: new.heard.as_ref().map(storable),
            at_us: new.at_us,
            timing: to_json(&new.timing),
        });
        insert_all::<message::Entity>(tx, messages.collect()).await?;
        let tool_calls = finished.tool_calls.iter().map(|new| tool_call::Model {
            id: ToolCallId::from_ulid(&self.ulid()).into(),
            workspace: workspace.to_string(),
            conversation: lease.call().to_string(),
            turn: i64::from(new.turn),
            name: new.name.clone(),
            arguments: storable(&new.arguments),
            result: new.result.as_ref().map(storable),
            error: new.error.as_deref().map(without_zero),
            started_at_us: new.started_at_us,
            ended_at_us: new.ended_at_us,
        });
        insert_all::<tool_call::Entity>(tx, tool_calls.collect()).await?;
        let usage = finished.usage.iter().map(|new| usage::Model {
            id: format!("use_{}", self.ulid()),
            workspace: workspace.to_string(),
            at_us: new.at_us,
            kind: new.kind.to_string(),
            provider: new.provider.clone(),
            quantity: new.quantity,
            unit_price_micros: new.unit_price_micros,
            currency: new.currency.clone(),
            conversation: Some(lease.call().to_string()),
        });
        Ok(insert_all::<usage::Entity>(tx, usage.collect()).await?)
    }
}

/// Why a change to a call found no row: it is not there, it is over, or another node has it.
pub(crate) async fn not_held(db: &impl ConnectionTrait, scope: &Scope, id: &ConversationId) -> StoreError {
    match tenant::row::<call::Entity>(db, scope, id).await {
        Err(error) => error,
        Ok(row) if row.status == CallStatus::Ended.as_str() => StoreError::Ended { what: "call" },
        Ok(row) => {
            let holder = row.node.map_or("nobody drives it".into(), |node| format!("node {node} drives it"));
            StoreError::Conflict { what: "call", holder }
        }
    }
}

pub(crate) async fn insert_all<E>(db: &impl ConnectionTrait, rows: Vec<E::Model>) -> Result<(), DbErr>
where
    E: EntityTrait,
    E::Model: IntoActiveModel<E::ActiveModel>,
    E::ActiveModel: ActiveModelTrait<Entity = E> + Send,
{
    let mut rows = rows.into_iter().map(IntoActiveModel::into_active_model).peekable();
    while rows.peek().is_some() {
        E::insert_many(rows.by_ref().take(ROWS_PER_INSERT)).exec_without_returning(db).await?;
    }
    Ok(())
}

/// Words as every database takes them. A provider or a carrier may send a zero character, and PostgreSQL has no place for it.
pub(crate) fn storable(words: &Pii<String>) -> String {
    without_zero(words.expose())
}

fn without_zero(words: &str) -> String {
    words.replace('\0', "\u{fffd}")
}
