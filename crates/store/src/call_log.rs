//! The replay log: appended in batches while calls go on, read when one is taken over or replayed. It does not know what an event says.

use crate::calls::{insert_all, not_held};
use crate::convert;
use crate::error::StoreError;
use crate::lease::CallLease;
use crate::rows::{call, call_event, call_snapshot};
use crate::scope::Scope;
use crate::{Store, tenant};
use offhook_core::ConversationId;
use offhook_core::entity::{CallEvent, CallSnapshot, CallStatus};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
};
use std::collections::HashMap;

/// Events of one call, to be appended together.
#[derive(Clone, Copy, Debug)]
pub struct LogBatch<'a> {
    /// The right to write them.
    pub lease: &'a CallLease,
    /// The events, in order.
    pub events: &'a [CallEvent],
}

/// Where reading a log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFrom {
    /// At the first ring: for a replay.
    Start,
    /// After the last snapshot, which comes with it: for going on. Without a snapshot, at the first ring.
    Snapshot,
}

/// A call's log.
#[derive(Clone, Debug, PartialEq)]
pub struct CallLog {
    /// What the call depends on, as it was begun with.
    pub plan: String,
    /// The revision of the call machine that wrote the log.
    pub log_revision: u32,
    /// Where the events go on from.
    pub snapshot: Option<CallSnapshot>,
    /// The events in order.
    pub events: Vec<CallEvent>,
}

impl Store {
    /// Appends events of any number of calls and names the calls whose events were refused: another node drives them now, or they are over.
    /// Appending what is there already changes nothing: after an error, the same batches can be given again.
    pub async fn append_events(&self, batches: &[LogBatch<'_>]) -> Result<Vec<ConversationId>, StoreError> {
        match self.append_held(batches, Already::None).await {
            Err(StoreError::Conflict { .. }) => self.append_held(batches, Already::Some).await,
            other => other,
        }
    }

    async fn append_held(
        &self,
        batches: &[LogBatch<'_>],
        already: Already,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let tx = self.begin().await?;
        // In one order everywhere, so that nodes never wait for each other in a circle.
        let driven: HashMap<String, Option<String>> = call::Entity::find()
            .select_only()
            .columns([call::Column::Id, call::Column::Incarnation])
            .filter(call::Column::Id.is_in(batches.iter().map(|batch| batch.lease.call().as_str())))
            .filter(call::Column::Status.ne(CallStatus::Ended.as_str()))
            .order_by_asc(call::Column::Id)
            .lock_exclusive()
            .into_tuple::<(String, Option<String>)>()
            .all(&tx)
            .await?
            .into_iter()
            .collect();
        let mut refused: Vec<ConversationId> = Vec::new();
        let mut new = Vec::new();
        for batch in batches {
            let (call, lease) = (batch.lease.call(), batch.lease);
            if refused.contains(call) {
                continue;
            }
            let held = driven.get(call.as_str()).is_some_and(|by| by.as_deref() == Some(lease.incarnation()));
            let rows = batch.events.iter().map(|event| row(lease, event));
            let taken = match already {
                _ if !held => false,
                Already::None => {
                    new.extend(rows);
                    true
                }
                Already::Some => append_missing(&tx, rows.collect()).await?,
            };
            if !taken {
                refused.push(call.clone());
            }
        }
        insert_all::<call_event::Entity>(&tx, new).await?;
        tx.commit().await?;
        Ok(refused)
    }

    /// Keeps the machine's state in place of the one before; an older one than is stored is ignored.
    pub async fn save_snapshot(&self, lease: &CallLease, snapshot: &CallSnapshot) -> Result<(), StoreError> {
        let tx = self.begin().await?;
        let held = tenant::find::<call::Entity>(lease.scope()).filter(lease.held()).lock_exclusive();
        if held.one(&tx).await?.is_none() {
            return Err(not_held(&tx, lease.scope(), lease.call()).await);
        }
        let row = call_snapshot::Model {
            call: lease.call().to_string(),
            seq: i64::from(snapshot.seq),
            state: snapshot.state.expose().clone(),
        };
        let newer = OnConflict::column(call_snapshot::Column::Call)
            .update_columns([call_snapshot::Column::Seq, call_snapshot::Column::State])
            .action_and_where(call_snapshot::Column::Seq.lt(i64::from(snapshot.seq)))
            .to_owned();
        call_snapshot::Entity::insert(row.into_active_model())
            .on_conflict(newer)
            .exec_without_returning(&tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Reads a call's log.
    pub async fn load_log(
        &self,
        scope: &Scope,
        id: &ConversationId,
        from: LogFrom,
    ) -> Result<CallLog, StoreError> {
        let call = tenant::row::<call::Entity>(self.read(), scope, id).await?;
        let snapshot: Option<CallSnapshot> = match from {
            LogFrom::Start => None,
            LogFrom::Snapshot => call_snapshot::Entity::find_by_id(id.as_str())
                .one(self.read())
                .await?
                .map(CallSnapshot::try_from)
                .transpose()?,
        };
        let first = snapshot.as_ref().map_or(0, |snapshot| i64::from(snapshot.seq) + 1);
        let events = call_event::Entity::find()
            .filter(call_event::Column::Call.eq(id.as_str()))
            .filter(call_event::Column::Seq.gte(first))
            .order_by_asc(call_event::Column::Seq)
            .all(self.read())
            .await?;
        let log_revision = u32::try_from(call.log_revision)
            .map_err(|_| StoreError::corrupt("call.log_revision", call.log_revision))?;
        Ok(CallLog { plan: call.plan, log_revision, snapshot, events: convert::all(events)? })
    }
}

/// Whether events may be there from an attempt whose end was not seen.
#[derive(Clone, Copy)]
enum Already {
    None,
    Some,
}

/// Appends those of a call's events that are not there; `false` when others are in their place.
async fn append_missing(
    tx: &DatabaseTransaction,
    mut rows: Vec<call_event::Model>,
) -> Result<bool, StoreError> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(true) };
    let stored: HashMap<i64, i64> = call_event::Entity::find()
        .select_only()
        .columns([call_event::Column::Seq, call_event::Column::Digest])
        .filter(call_event::Column::Call.eq(first.call.as_str()))
        .filter(call_event::Column::Seq.between(first.seq, last.seq))
        .into_tuple::<(i64, i64)>()
        .all(tx)
        .await?
        .into_iter()
        .collect();
    if rows.iter().any(|row| stored.get(&row.seq).is_some_and(|digest| *digest != row.digest)) {
        return Ok(false);
    }
    rows.retain(|row| !stored.contains_key(&row.seq));
    insert_all::<call_event::Entity>(tx, rows).await?;
    Ok(true)
}

fn row(lease: &CallLease, event: &CallEvent) -> call_event::Model {
    call_event::Model {
        call: lease.call().to_string(),
        seq: i64::from(event.seq),
        at_us: i64::try_from(event.at_us).unwrap_or(i64::MAX),
        input: event.input.expose().clone(),
        orders: event.orders.clone(),
        digest: event.digest.cast_signed(),
    }
}
