//! Operations on numbers: what is done to them at their carriers, request by request, kept so that any process can go on with it. A
//! number has one at a time. It does not know what a request means.

use crate::agents::restate_lines;
use crate::convert::{all, parse, parse_some, to_json};
use crate::error::StoreError;
use crate::lease::Node;
use crate::numbers::{Fault, NumberSpec, restate, under_way};
use crate::page::{self, Listed, Page};
use crate::rows::{agent, connection, operation, operation_line, operation_step, phone_number};
use crate::scope::Scope;
use crate::{Store, tenant};
use offhook_core::entity::{
    Capability, NumberSource, Operation, OperationKind, OperationLine, OperationStatus, OperationStep,
    PhoneNumber,
};
use offhook_core::provisioning::Provisioning;
use offhook_core::{AgentId, ConnectionId, OperationId, PhoneNumberId};
use sea_orm::sea_query::{Cond, Condition, Expr, LockBehavior, LockType};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait,
};
use serde_json::json;

/// Operations of one workspace that go on at the same time.
const OPERATIONS_MAX: u64 = 100;
/// Numbers that are named where more may be in the way.
const NAMED_MAX: u64 = 20;
/// Steps of one operation that are kept; those of one that is tried for days repeat each other.
const STEPS_MAX: i64 = 1_000;

/// An operation to be begun.
#[derive(Clone, Debug)]
pub struct NewOperation {
    /// What is done.
    pub kind: OperationKind,
    /// The agent that is started or stopped; it runs or stands still from this moment on.
    pub agent: Option<AgentId>,
    /// The connection that is removed.
    pub connection: Option<ConnectionId>,
    /// What is done to each number.
    pub lines: Vec<NewLine>,
}

/// What is done to one number.
#[derive(Clone, Debug)]
pub struct NewLine {
    /// The number.
    pub number: LineNumber,
    /// Nothing has been asked yet.
    pub machine: Provisioning,
}

/// The number of a line.
#[derive(Clone, Debug)]
pub enum LineNumber {
    /// It is here.
    Known(PhoneNumberId),
    /// It is added with the operation, so that nobody else begins the same.
    New(Box<NumberSpec>, NumberSource),
}

/// The right to go on with one operation. Handed out by the store only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationLease {
    operation: OperationId,
    /// Another one each time that it is taken: a process that has forgotten that it goes on with it does not write it twice.
    claim: String,
    lease_ms: u32,
    scope: Scope,
}

impl OperationLease {
    /// The operation.
    pub fn operation(&self) -> &OperationId {
        &self.operation
    }

    /// The scope in which it goes on.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    fn held(&self) -> Condition {
        Cond::all()
            .add(operation::Column::Id.eq(self.operation.as_str()))
            .add(operation::Column::Claim.eq(self.claim.as_str()))
            .add(operation::Column::Status.eq(OperationStatus::Running.as_str()))
    }
}

/// How an operation has moved on: written in one transaction.
#[derive(Clone, Debug, Default)]
pub struct Progress<'a> {
    /// The line that has moved, by its place, and how far it is now.
    pub line: Option<(usize, &'a OperationLine)>,
    /// What was done.
    pub steps: &'a [OperationStep],
    /// What becomes of the line's number, if that is decided.
    pub end: Option<LineEnd>,
    /// How the operation has ended, and why it did not come to what was wanted.
    pub ended: Option<(OperationStatus, Option<String>)>,
}

/// What becomes of a number at the end of what was done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// It goes; its conversations stay.
    Removed,
    /// It stays.
    Stays {
        /// Whether it leads here; `None`: as before.
        leads_here: Option<bool>,
        /// What it can carry, if that was learnt.
        capabilities: Option<Vec<Capability>>,
        /// What is wrong with it.
        fault: Option<String>,
    },
}

impl Store {
    /// Begins an operation and takes its numbers; `Conflict` names who has a number, or what is done to it already.
    pub async fn begin_operation(
        &self,
        scope: &Scope,
        new: &NewOperation,
        node: &Node,
    ) -> Result<(Operation, OperationLease), StoreError> {
        let tx = self.begin().await?;
        let open = tenant::find::<operation::Entity>(scope)
            .filter(operation::Column::LeaseExpiresAtUs.is_not_null())
            .count(&tx)
            .await?;
        if open >= OPERATIONS_MAX {
            let holder =
                format!("{OPERATIONS_MAX} others go on at the same time: wait until some have ended");
            return Err(StoreError::Conflict { what: "operation", holder });
        }
        let id = OperationId::from_ulid(&self.ulid());
        let row = operation::Model {
            id: id.to_string(),
            organization: scope.organization().to_string(),
            workspace: scope.workspace().to_string(),
            kind: new.kind.to_string(),
            status: OperationStatus::Running.to_string(),
            reason: None,
            agent: new.agent.as_ref().map(ToString::to_string),
            connection: new.connection.as_ref().map(ToString::to_string),
            node: node.name.clone(),
            incarnation: node.incarnation.clone(),
            claim: self.ulid(),
            lease_expires_at_us: Some(self.lease_end_us(node)),
            created_at_us: self.now_us(),
            ended_at_us: None,
        };
        tenant::insert::<operation::Entity>(&tx, row.clone()).await?;
        if let Some(agent) = &new.agent {
            self.set_running(&tx, scope, agent, new.kind == OperationKind::Start).await?;
        }
        if let Some(connection) = &new.connection {
            tenant::row::<connection::Entity>(&tx, scope, connection).await?;
        }
        let mut lines = Vec::with_capacity(new.lines.len());
        for (seq, line) in (0..).zip(&new.lines) {
            let number = match &line.number {
                LineNumber::New(spec, source) => self.add_number(&tx, scope, spec, *source).await?,
                // Removing a connection takes the organization's numbers in every workspace.
                LineNumber::Known(number) if new.connection.is_some() => {
                    let row = phone_number::Entity::find_by_id(number.as_str()).one(&tx).await?;
                    let ours = |row: &phone_number::Model| {
                        new.connection.as_ref().is_some_and(|id| id.as_str() == row.connection)
                    };
                    row.filter(ours).ok_or(StoreError::NotFound { what: "phone number" })?.try_into()?
                }
                LineNumber::Known(number) => {
                    tenant::row::<phone_number::Entity>(&tx, scope, number).await?.try_into()?
                }
            };
            take(&tx, &number, &id).await?;
            let machine = line.machine.clone();
            let line = OperationLine {
                number: number.id,
                e164: number.e164,
                connection: number.connection,
                machine,
            };
            tenant::insert::<operation_line::Entity>(&tx, line_row(&id, seq, &line)).await?;
            lines.push(line);
        }
        let numbers: Vec<_> = lines.iter().map(|line| &line.e164).collect();
        let action = format!("operation.{}", new.kind);
        self.audit(&tx, scope, &action, &id, json!({ "numbers": numbers, "agent": new.agent })).await?;
        tx.commit().await?;
        let lease = OperationLease {
            operation: id,
            claim: row.claim.clone(),
            lease_ms: node.lease_ms,
            scope: scope.clone(),
        };
        Ok((entity(row, lines)?, lease))
    }

    /// Writes how far an operation is, and holds it on; `Conflict` when another process has it.
    pub async fn save_operation(
        &self,
        lease: &OperationLease,
        progress: &Progress<'_>,
    ) -> Result<(), StoreError> {
        let tx = self.begin().await?;
        let lease_end = match progress.ended {
            Some(_) => None,
            None => Some(self.now_us().saturating_add(i64::from(lease.lease_ms) * 1_000)),
        };
        let held = operation::Entity::update_many()
            .col_expr(operation::Column::LeaseExpiresAtUs, Expr::value(lease_end))
            .filter(lease.held())
            .exec(&tx)
            .await?;
        if held.rows_affected == 0 {
            return Err(StoreError::Conflict { what: "operation", holder: "another process has it".into() });
        }
        if let Some((seq, line)) = progress.line {
            let seq = i64::try_from(seq).unwrap_or(i64::MAX);
            operation_line::Entity::update_many()
                .col_expr(operation_line::Column::Machine, Expr::value(to_json(&line.machine)))
                .filter(operation_line::Column::Operation.eq(lease.operation.as_str()))
                .filter(operation_line::Column::Seq.eq(seq))
                .exec(&tx)
                .await?;
            self.settle(&tx, lease, line, progress.end.as_ref()).await?;
        }
        self.add_steps(&tx, lease, progress.steps).await?;
        if let Some((status, reason)) = &progress.ended {
            self.end(&tx, lease, *status, reason.as_deref()).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Holds an operation on; `Conflict` when another process has it.
    pub async fn hold_operation(&self, lease: &OperationLease) -> Result<(), StoreError> {
        self.save_operation(lease, &Progress::default()).await
    }

    /// Takes over operations that nobody goes on with: their leases have expired, or their process is dead and had this one's name. The
    /// system's own.
    pub async fn claim_operations(
        &self,
        node: &Node,
        limit: u32,
    ) -> Result<Vec<(Operation, OperationLease)>, StoreError> {
        let dead = Cond::all()
            .add(operation::Column::Node.eq(node.name.as_str()))
            .add(operation::Column::Incarnation.not_in_subquery(self.alive()));
        let free = Cond::any().add(operation::Column::LeaseExpiresAtUs.lt(self.now_us())).add(dead);
        let mut left = operation::Entity::find()
            .filter(operation::Column::LeaseExpiresAtUs.is_not_null())
            .filter(free)
            .order_by_asc(operation::Column::LeaseExpiresAtUs)
            .limit(u64::from(limit));
        if left.clone().limit(1).one(self.read()).await?.is_none() {
            return Ok(Vec::new());
        }
        let tx = self.begin().await?;
        QueryTrait::query(&mut left).lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
        let rows = left.all(&tx).await?;
        let claim = self.ulid();
        operation::Entity::update_many()
            .col_expr(operation::Column::Claim, Expr::value(claim.as_str()))
            .col_expr(operation::Column::Node, Expr::value(node.name.as_str()))
            .col_expr(operation::Column::Incarnation, Expr::value(node.incarnation.as_str()))
            .col_expr(operation::Column::LeaseExpiresAtUs, Expr::value(self.lease_end_us(node)))
            .filter(operation::Column::Id.is_in(rows.iter().map(|row| row.id.as_str())))
            .exec(&tx)
            .await?;
        let mut claimed = Vec::with_capacity(rows.len());
        for row in rows {
            let id = row.id.clone();
            match taken_up(&tx, row, &claim, node).await {
                Ok(taken_up) => claimed.push(taken_up),
                // One that cannot be read must not keep the others from going on.
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(operation.id = id, %error, "An operation does not go on: what is stored of it cannot be read");
                }
                Err(error) => return Err(error),
            }
        }
        tx.commit().await?;
        Ok(claimed)
    }

    /// One operation.
    pub async fn operation(&self, scope: &Scope, id: &OperationId) -> Result<Operation, StoreError> {
        let row = tenant::row::<operation::Entity>(self.read(), scope, id).await?;
        entity(row, lines_of(self.read(), id.as_str()).await?)
    }

    /// The workspace's operations, newest first; those of one agent if one is named.
    pub async fn operations(
        &self,
        scope: &Scope,
        agent: Option<&AgentId>,
        page: &Page,
    ) -> Result<Listed<Operation>, StoreError> {
        let mut wanted = tenant::find::<operation::Entity>(scope);
        if let Some(agent) = agent {
            tenant::row::<agent::Entity>(self.read(), scope, agent).await?;
            wanted = wanted.filter(operation::Column::Agent.eq(agent.as_str()));
        }
        let listed: Listed<Row> = page::list(self.read(), wanted, page).await?;
        let mut rows = Vec::with_capacity(listed.rows.len());
        for Row(row) in listed.rows {
            let lines = lines_of(self.read(), &row.id).await?;
            rows.push(entity(row, lines)?);
        }
        Ok(Listed { rows, next: listed.next })
    }

    /// What an operation has done, in order.
    pub async fn operation_steps(
        &self,
        scope: &Scope,
        id: &OperationId,
    ) -> Result<Vec<OperationStep>, StoreError> {
        tenant::row::<operation::Entity>(self.read(), scope, id).await?;
        let steps = operation_step::Entity::find()
            .filter(operation_step::Column::Operation.eq(id.as_str()))
            .order_by_asc(operation_step::Column::Seq);
        all(steps.all(self.read()).await?)
    }

    async fn set_running(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        id: &AgentId,
        running: bool,
    ) -> Result<(), StoreError> {
        let row = tenant::row::<agent::Entity>(tx, scope, id).await?;
        if row.running == running {
            return Ok(());
        }
        tenant::update::<agent::Entity>(scope)
            .col_expr(agent::Column::Running, Expr::value(running))
            .col_expr(agent::Column::Revision, Expr::value(row.revision + 1))
            .col_expr(agent::Column::UpdatedAtUs, Expr::value(self.now_us()))
            .filter(agent::Column::Id.eq(id.as_str()))
            .exec(tx)
            .await?;
        restate_lines(tx, id).await?;
        self.audit(tx, scope, "agent.save", id, json!({ "running": running })).await
    }

    /// Writes what is known of the line's number before anything of it is changed, and what becomes of it.
    async fn settle(
        &self,
        tx: &DatabaseTransaction,
        lease: &OperationLease,
        line: &OperationLine,
        end: Option<&LineEnd>,
    ) -> Result<(), StoreError> {
        let mut change = phone_number::Entity::update_many().filter(
            Cond::all()
                .add(phone_number::Column::Id.eq(line.number.as_str()))
                .add(phone_number::Column::Operation.eq(lease.operation.as_str())),
        );
        if let (Some(ours), Some(previous)) = (line.machine.ours(), line.machine.previous()) {
            change = change
                .col_expr(phone_number::Column::OurRouting, Expr::value(to_json(ours)))
                .col_expr(phone_number::Column::PreviousRouting, Expr::value(to_json(&previous)));
        } else if end.is_none() {
            return Ok(());
        }
        let fault = match end {
            None => {
                change.exec(tx).await?;
                return Ok(());
            }
            Some(LineEnd::Removed) => {
                let removed = phone_number::Entity::delete_by_id(line.number.as_str()).exec(tx).await?;
                if removed.rows_affected > 0 {
                    let detail = json!({ "e164": line.e164 });
                    self.audit(tx, &lease.scope, "phone_number.delete", &line.number, detail).await?;
                }
                return Ok(());
            }
            Some(LineEnd::Stays { leads_here, capabilities, fault }) => {
                if let Some(leads_here) = leads_here {
                    change = change
                        .col_expr(phone_number::Column::LeadsHere, Expr::value(*leads_here))
                        .col_expr(phone_number::Column::CheckedAtUs, Expr::value(self.now_us()));
                }
                if let Some(capabilities) = capabilities {
                    let capabilities = to_json(capabilities);
                    change = change.col_expr(phone_number::Column::Capabilities, Expr::value(capabilities));
                }
                fault
            }
        };
        change.col_expr(phone_number::Column::Operation, Expr::value(None::<String>)).exec(tx).await?;
        restate(tx, line.number.as_str(), Fault::Set(fault.as_deref())).await?;
        Ok(())
    }

    async fn add_steps(
        &self,
        tx: &DatabaseTransaction,
        lease: &OperationLease,
        steps: &[OperationStep],
    ) -> Result<(), StoreError> {
        if steps.is_empty() {
            return Ok(());
        }
        let last: Option<Option<i64>> = operation_step::Entity::find()
            .select_only()
            .column_as(operation_step::Column::Seq.max(), "last")
            .filter(operation_step::Column::Operation.eq(lease.operation.as_str()))
            .into_tuple()
            .one(tx)
            .await?;
        let first = last.flatten().map_or(0, |last| last + 1);
        for (seq, step) in (first..STEPS_MAX).zip(steps) {
            let row = operation_step::Model {
                operation: lease.operation.to_string(),
                seq,
                at_us: step.at_us,
                ended_at_us: step.ended_at_us,
                e164: step.e164.as_ref().map(ToString::to_string),
                what: step.what.clone(),
                error: step.error.clone(),
            };
            tenant::insert::<operation_step::Entity>(tx, row).await?;
        }
        Ok(())
    }

    async fn end(
        &self,
        tx: &DatabaseTransaction,
        lease: &OperationLease,
        status: OperationStatus,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let row = tenant::row::<operation::Entity>(tx, &lease.scope, &lease.operation).await?;
        let connection = row.connection.filter(|_| status == OperationStatus::Done);
        let left = match &connection {
            Some(connection) => still_uses(tx, connection).await?,
            None => None,
        };
        let (status, reason) = match &left {
            Some(left) => (OperationStatus::Failed, Some(left.as_str())),
            None => (status, reason),
        };
        operation::Entity::update_many()
            .col_expr(operation::Column::Status, Expr::value(status.as_str()))
            .col_expr(operation::Column::Reason, Expr::value(reason))
            .col_expr(operation::Column::EndedAtUs, Expr::value(self.now_us()))
            .filter(lease.held())
            .exec(tx)
            .await?;
        let Some(connection) = connection.filter(|_| left.is_none()) else { return Ok(()) };
        let gone = connection::Entity::delete_by_id(connection.as_str()).exec(tx).await?;
        if gone.rows_affected > 0 {
            self.audit(tx, &lease.scope, "connection.delete", &connection, json!({})).await?;
        }
        Ok(())
    }
}

/// Why a connection cannot go yet: numbers that were added while those that it had were given back.
async fn still_uses(tx: &DatabaseTransaction, connection: &str) -> Result<Option<String>, StoreError> {
    let left: Vec<String> = phone_number::Entity::find()
        .select_only()
        .column(phone_number::Column::E164)
        .filter(phone_number::Column::Connection.eq(connection))
        .order_by_asc(phone_number::Column::Id)
        .limit(NAMED_MAX)
        .into_tuple()
        .all(tx)
        .await?;
    let reason =
        || format!("numbers were added to the connection meanwhile: {}; remove it again", left.join(", "));
    Ok((!left.is_empty()).then(reason))
}

/// Takes a number for an operation.
async fn take(tx: &DatabaseTransaction, number: &PhoneNumber, id: &OperationId) -> Result<(), StoreError> {
    let taken = phone_number::Entity::update_many()
        .col_expr(phone_number::Column::Operation, Expr::value(id.as_str()))
        .filter(phone_number::Column::Id.eq(number.id.as_str()))
        .filter(phone_number::Column::Operation.is_null())
        .exec(tx)
        .await?;
    if taken.rows_affected == 0 {
        let other = number.operation.as_ref().map_or_else(|| "another operation".into(), ToString::to_string);
        return Err(under_way(&other));
    }
    restate(tx, number.id.as_str(), Fault::Keep).await?;
    Ok(())
}

/// An operation that was just claimed, and the right to go on with it.
async fn taken_up(
    tx: &DatabaseTransaction,
    row: operation::Model,
    claim: &str,
    node: &Node,
) -> Result<(Operation, OperationLease), StoreError> {
    let lines = lines_of(tx, &row.id).await?;
    let organization = parse("operation.organization", &row.organization)?;
    let workspace = parse("operation.workspace", &row.workspace)?;
    let operation = entity(row, lines)?;
    let lease = OperationLease {
        operation: operation.id.clone(),
        claim: claim.into(),
        lease_ms: node.lease_ms,
        scope: Scope::of_job(organization, workspace, "operation"),
    };
    Ok((operation, lease))
}

async fn lines_of(db: &impl ConnectionTrait, id: &str) -> Result<Vec<OperationLine>, StoreError> {
    let lines = operation_line::Entity::find()
        .filter(operation_line::Column::Operation.eq(id))
        .order_by_asc(operation_line::Column::Seq);
    all(lines.all(db).await?)
}

fn line_row(operation: &OperationId, seq: i64, line: &OperationLine) -> operation_line::Model {
    operation_line::Model {
        operation: operation.to_string(),
        seq,
        number: line.number.to_string(),
        e164: line.e164.to_string(),
        connection: line.connection.to_string(),
        machine: to_json(&line.machine),
    }
}

/// A row of a list, before its lines are read.
struct Row(operation::Model);

impl TryFrom<operation::Model> for Row {
    type Error = StoreError;

    fn try_from(row: operation::Model) -> Result<Self, StoreError> {
        Ok(Row(row))
    }
}

fn entity(row: operation::Model, lines: Vec<OperationLine>) -> Result<Operation, StoreError> {
    Ok(Operation {
        id: parse("operation.id", &row.id)?,
        workspace: parse("operation.workspace", &row.workspace)?,
        kind: parse("operation.kind", &row.kind)?,
        status: parse("operation.status", &row.status)?,
        reason: row.reason,
        agent: parse_some("operation.agent", row.agent.as_deref())?,
        connection: parse_some("operation.connection", row.connection.as_deref())?,
        lines,
        created_at_us: row.created_at_us,
        ended_at_us: row.ended_at_us,
    })
}
