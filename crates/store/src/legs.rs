//! The legs of a call beside the caller's: phones that were rung, as far as each has come. After a crash they are what is known of phones
//! that still ring. It does not know how one is rung.

use crate::calls::{not_held, storable};
use crate::error::StoreError;
use crate::lease::CallLease;
use crate::rows::{call, leg};
use crate::scope::Scope;
use crate::{Store, convert, tenant};
use offhook_core::ConversationId;
use offhook_core::entity::Leg;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect};

impl Store {
    /// Keeps how far a leg has come. Only the process that drives its call may, also when the call has just ended.
    pub async fn keep_leg(&self, lease: &CallLease, kept: &Leg) -> Result<(), StoreError> {
        let tx = self.begin().await?;
        let ours = tenant::find::<call::Entity>(lease.scope())
            .select_only()
            .column(call::Column::Id)
            .filter(call::Column::Id.eq(lease.call().as_str()))
            .filter(call::Column::Incarnation.eq(lease.incarnation()))
            .into_tuple::<String>()
            .one(&tx)
            .await?;
        if ours.is_none() {
            return Err(not_held(&tx, lease.scope(), lease.call()).await);
        }
        let row = leg::Model {
            call: lease.call().to_string(),
            number: i64::from(kept.number),
            role: kept.role.to_string(),
            connection: kept.connection.to_string(),
            carrier_call: kept.carrier_call.clone(),
            to_address: storable(&kept.to),
            dialled_at_us: kept.dialled_at_us,
            answered_at_us: kept.answered_at_us,
            bridged_at_us: kept.bridged_at_us,
            at_carrier: kept.at_carrier,
            ended_at_us: kept.ended_at_us,
            outcome: kept.outcome.clone(),
        };
        let further = OnConflict::columns([leg::Column::Call, leg::Column::Number])
            .update_columns([
                leg::Column::CarrierCall,
                leg::Column::AnsweredAtUs,
                leg::Column::BridgedAtUs,
                leg::Column::AtCarrier,
                leg::Column::EndedAtUs,
                leg::Column::Outcome,
            ])
            .to_owned();
        leg::Entity::insert(row.into_active_model()).on_conflict(further).exec_without_returning(&tx).await?;
        Ok(tx.commit().await?)
    }

    /// The legs of a call, in the order in which they were rung.
    pub async fn legs(&self, scope: &Scope, call: &ConversationId) -> Result<Vec<Leg>, StoreError> {
        tenant::row::<call::Entity>(self.read(), scope, call).await?;
        let rows =
            leg::Entity::find().filter(leg::Column::Call.eq(call.as_str())).order_by_asc(leg::Column::Number);
        convert::all(rows.all(self.read()).await?)
    }
}
