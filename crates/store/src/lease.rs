//! Who drives a call: one node at a time, for as long as it keeps saying so. A node that falls silent loses its calls to another.
//! Leases are compared and set in one statement; they do not know what driving a call means.

use crate::calls::not_held;
use crate::convert::parse;
use crate::environment::{Environment, ulid};
use crate::error::StoreError;
use crate::rows::{call, node};
use crate::scope::Scope;
use crate::{Store, tenant};
use offhook_core::ConversationId;
use offhook_core::entity::CallStatus;
use sea_orm::sea_query::{Cond, Condition, Expr, LockBehavior, LockType, OnConflict, SelectStatement};
use sea_orm::{
    ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
};

/// A process that was not seen for so long is dead to the next one of its name.
pub const NODE_SILENT_MS: u32 = 3_000;
/// A process that was not seen for so long is forgotten.
const NODE_FORGOTTEN_MS: u32 = 24 * 3_600 * 1_000;

/// A process that drives calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name: a process that comes back under its name has its calls as soon as the one before is known to be dead, another must wait
    /// for the leases to expire.
    pub name: String,
    /// Tells it from other processes of its name, before it or beside it.
    pub incarnation: String,
    /// How long a lease holds without renewal.
    pub lease_ms: u32,
}

impl Node {
    /// This process under a name.
    pub fn new(name: String, lease_ms: u32, environment: &dyn Environment) -> Self {
        Node { name, incarnation: ulid(environment), lease_ms }
    }
}

/// The right to drive one call and to write its log. Handed out by the store only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallLease {
    call: ConversationId,
    node: String,
    incarnation: String,
    scope: Scope,
}

impl CallLease {
    pub(crate) fn new(call: ConversationId, node: &Node, scope: Scope) -> Self {
        CallLease { call, node: node.name.clone(), incarnation: node.incarnation.clone(), scope }
    }

    /// The call.
    pub fn call(&self) -> &ConversationId {
        &self.call
    }

    /// The node that holds it.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The scope in which the call runs.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(crate) fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Holds for the call's row as long as the lease does.
    pub(crate) fn held(&self) -> Condition {
        Cond::all()
            .add(call::Column::Id.eq(self.call.as_str()))
            .add(call::Column::Incarnation.eq(self.incarnation.as_str()))
            .add(call::Column::Status.ne(CallStatus::Ended.as_str()))
    }
}

impl Store {
    /// Says that a process lives; to be said again before [`NODE_SILENT_MS`] are over. The system's own.
    pub async fn node_seen(&self, node: &Node) -> Result<(), StoreError> {
        let now_us = self.now_us();
        let row = node::Model {
            incarnation: node.incarnation.clone(),
            name: node.name.clone(),
            seen_at_us: now_us,
        };
        let again =
            OnConflict::column(node::Column::Incarnation).update_column(node::Column::SeenAtUs).to_owned();
        let tx = self.begin().await?;
        node::Entity::insert(row.into_active_model()).on_conflict(again).exec_without_returning(&tx).await?;
        node::Entity::delete_many()
            .filter(node::Column::SeenAtUs.lt(now_us.saturating_sub(i64::from(NODE_FORGOTTEN_MS) * 1_000)))
            .exec(&tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// The processes that live.
    pub(crate) fn alive(&self) -> SelectStatement {
        let silent_us = self.now_us().saturating_sub(i64::from(NODE_SILENT_MS) * 1_000);
        let mut alive: Select<node::Entity> = node::Entity::find()
            .select_only()
            .column(node::Column::Incarnation)
            .filter(node::Column::SeenAtUs.gte(silent_us));
        QueryTrait::query(&mut alive).to_owned()
    }

    /// Holds for the calls of this process, and of dead ones of its name.
    fn left_to(&self, node: &Node) -> Condition {
        let dead = Cond::all()
            .add(call::Column::Node.eq(node.name.as_str()))
            .add(call::Column::Incarnation.not_in_subquery(self.alive()));
        Cond::any().add(call::Column::Incarnation.eq(node.incarnation.as_str())).add(dead)
    }

    /// Takes over a call whose lease has expired, or that is this process's own or a dead one's of its name; `Conflict` names the node that
    /// holds it.
    pub async fn claim_call(
        &self,
        scope: &Scope,
        id: &ConversationId,
        node: &Node,
    ) -> Result<CallLease, StoreError> {
        let free = Cond::any()
            .add(call::Column::Node.is_null())
            .add(self.left_to(node))
            .add(call::Column::LeaseExpiresAtUs.lt(self.now_us()));
        let claimed = tenant::update::<call::Entity>(scope)
            .col_expr(call::Column::Node, Expr::value(node.name.as_str()))
            .col_expr(call::Column::Incarnation, Expr::value(node.incarnation.as_str()))
            .col_expr(call::Column::LeaseExpiresAtUs, Expr::value(self.lease_end_us(node)))
            .filter(call::Column::Id.eq(id.as_str()))
            .filter(call::Column::Status.ne(CallStatus::Ended.as_str()))
            .filter(free)
            .exec(self.write()?)
            .await?;
        if claimed.rows_affected == 0 {
            return Err(not_held(self.read(), scope, id).await);
        }
        Ok(CallLease::new(id.clone(), node, scope.clone()))
    }

    /// Takes over calls of any workspace whose leases have expired, those of the longest silence first. The system's own.
    ///
    /// Nodes that ask at once get different calls.
    pub async fn claim_expired(&self, node: &Node, limit: u32) -> Result<Vec<CallLease>, StoreError> {
        // Before the database is waited for: who waits as well must not look dead for it.
        let now_us = self.now_us();
        let tx = self.begin().await?;
        let mut expired = call::Entity::find()
            .filter(call::Column::LeaseExpiresAtUs.lt(now_us))
            .order_by_asc(call::Column::LeaseExpiresAtUs)
            .limit(u64::from(limit));
        QueryTrait::query(&mut expired).lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
        let rows = expired.all(&tx).await?;
        call::Entity::update_many()
            .col_expr(call::Column::Node, Expr::value(node.name.as_str()))
            .col_expr(call::Column::Incarnation, Expr::value(node.incarnation.as_str()))
            .col_expr(call::Column::LeaseExpiresAtUs, Expr::value(self.lease_end_us(node)))
            .filter(call::Column::Id.is_in(rows.iter().map(|row| row.id.as_str())))
            .exec(&tx)
            .await?;
        tx.commit().await?;
        rows.iter().map(|row| Ok(CallLease::new(parse("call.id", &row.id)?, node, scope_of(row)?))).collect()
    }

    /// Takes over the calls that dead processes of this node's name have left behind, and names with them those of its own that it does not
    /// drive. Their leases are not extended. The system's own.
    pub async fn claim_left(
        &self,
        node: &Node,
        driven: &[ConversationId],
        limit: u32,
    ) -> Result<Vec<CallLease>, StoreError> {
        let left = Cond::all()
            .add(call::Column::LeaseExpiresAtUs.is_not_null())
            .add(self.left_to(node))
            .add(call::Column::Id.is_not_in(driven.iter().map(|id| id.as_str())));
        let mut all = call::Entity::find().filter(left).limit(u64::from(limit));
        if all.clone().limit(1).one(self.read()).await?.is_none() {
            return Ok(Vec::new());
        }
        let tx = self.begin().await?;
        QueryTrait::query(&mut all).lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
        let rows = all.all(&tx).await?;
        call::Entity::update_many()
            .col_expr(call::Column::Incarnation, Expr::value(node.incarnation.as_str()))
            .filter(call::Column::Id.is_in(rows.iter().map(|row| row.id.as_str())))
            .exec(&tx)
            .await?;
        tx.commit().await?;
        rows.iter().map(|row| Ok(CallLease::new(parse("call.id", &row.id)?, node, scope_of(row)?))).collect()
    }

    /// Extends the leases of the calls that the node drives and names those that it still has. One that is missing was taken over: the
    /// node must let go of it at once. What the node held before it died and does not drive expires. The system's own.
    pub async fn renew_leases(
        &self,
        node: &Node,
        driven: &[ConversationId],
    ) -> Result<Vec<ConversationId>, StoreError> {
        let tx = self.begin().await?;
        let ours = Cond::all()
            .add(call::Column::LeaseExpiresAtUs.is_not_null())
            .add(call::Column::Incarnation.eq(node.incarnation.as_str()))
            .add(call::Column::Id.is_in(driven.iter().map(|id| id.as_str())));
        // In the order in which the log locks them too, or each would wait for the other.
        let ids: Vec<String> = call::Entity::find()
            .select_only()
            .column(call::Column::Id)
            .filter(ours)
            .order_by_asc(call::Column::Id)
            .lock_exclusive()
            .into_tuple()
            .all(&tx)
            .await?;
        call::Entity::update_many()
            .col_expr(call::Column::LeaseExpiresAtUs, Expr::value(self.lease_end_us(node)))
            .filter(call::Column::Id.is_in(&ids))
            .exec(&tx)
            .await?;
        tx.commit().await?;
        ids.iter().map(|id| parse("call.id", id)).collect()
    }

    /// Lets go of a call so that another node can claim it at once.
    pub async fn release_call(&self, lease: &CallLease) -> Result<(), StoreError> {
        tenant::update::<call::Entity>(lease.scope())
            .col_expr(call::Column::LeaseExpiresAtUs, Expr::value(0_i64))
            .filter(lease.held())
            .exec(self.write()?)
            .await?;
        Ok(())
    }

    pub(crate) fn lease_end_us(&self, node: &Node) -> i64 {
        self.now_us().saturating_add(i64::from(node.lease_ms) * 1_000)
    }
}

/// The scope in which a call goes on that its node has lost.
pub(crate) fn scope_of(row: &call::Model) -> Result<Scope, StoreError> {
    let organization = parse("call.organization", &row.organization)?;
    Ok(Scope::of_job(organization, parse("call.workspace", &row.workspace)?, "call"))
}
