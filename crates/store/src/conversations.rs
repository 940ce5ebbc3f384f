//! Reading what has happened: conversations, calls, transcripts and what they cost. Nothing here is ever changed; it does not know how a
//! call is driven.

use crate::convert;
use crate::error::StoreError;
use crate::page::{self, Listed, Page};
use crate::rows::{call, connection, conversation, message, tool_call, usage};
use crate::scope::Scope;
use crate::{Store, tenant};
use offhook_core::entity::{Call, Conversation, Message, ToolCall, Usage};
use offhook_core::{ConnectionId, ConversationId};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Iterable, QueryFilter, QueryOrder, QuerySelect, Select};

/// Which calls are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFilter {
    /// All.
    All,
    /// Those in progress.
    Live,
}

impl Store {
    /// The workspace's conversations, newest first.
    pub async fn conversations(
        &self,
        scope: &Scope,
        page: &Page,
    ) -> Result<Listed<Conversation>, StoreError> {
        page::list(self.read(), tenant::find::<conversation::Entity>(scope), page).await
    }

    /// One conversation.
    pub async fn conversation(&self, scope: &Scope, id: &ConversationId) -> Result<Conversation, StoreError> {
        tenant::row::<conversation::Entity>(self.read(), scope, id).await?.try_into()
    }

    /// The workspace's calls, newest first.
    pub async fn calls(
        &self,
        scope: &Scope,
        filter: CallFilter,
        page: &Page,
    ) -> Result<Listed<Call>, StoreError> {
        let calls = without_plan(tenant::find::<call::Entity>(scope));
        let calls = match filter {
            CallFilter::All => calls,
            CallFilter::Live => calls.filter(call::Column::LeaseExpiresAtUs.is_not_null()),
        };
        page::list(self.read(), calls, page).await
    }

    /// One call.
    pub async fn call(&self, scope: &Scope, id: &ConversationId) -> Result<Call, StoreError> {
        let row = without_plan(tenant::find::<call::Entity>(scope)).filter(call::Column::Id.eq(id.as_str()));
        row.one(self.read()).await?.ok_or(StoreError::NotFound { what: "call" })?.try_into()
    }

    /// The call that a carrier knows by this id.
    pub async fn call_of_carrier(
        &self,
        scope: &Scope,
        connection: &ConnectionId,
        carrier_call: &str,
    ) -> Result<Call, StoreError> {
        tenant::row::<connection::Entity>(self.read(), scope, connection).await?;
        let row = without_plan(tenant::find::<call::Entity>(scope))
            .filter(call::Column::Connection.eq(connection.as_str()))
            .filter(call::Column::CarrierCall.eq(carrier_call))
            .one(self.read())
            .await?;
        row.ok_or(StoreError::NotFound { what: "call" })?.try_into()
    }

    /// What was said in a conversation, in order. A call's transcript is there when the call has ended.
    pub async fn messages(&self, scope: &Scope, id: &ConversationId) -> Result<Vec<Message>, StoreError> {
        tenant::row::<conversation::Entity>(self.read(), scope, id).await?;
        let rows = tenant::find::<message::Entity>(scope)
            .filter(message::Column::Conversation.eq(id.as_str()))
            .order_by_asc(message::Column::Seq);
        convert::all(rows.all(self.read()).await?)
    }

    /// The abilities used in a conversation, in order.
    pub async fn tool_calls(&self, scope: &Scope, id: &ConversationId) -> Result<Vec<ToolCall>, StoreError> {
        tenant::row::<conversation::Entity>(self.read(), scope, id).await?;
        let rows = tenant::find::<tool_call::Entity>(scope)
            .filter(tool_call::Column::Conversation.eq(id.as_str()))
            .order_by_asc(tool_call::Column::StartedAtUs)
            .order_by_asc(tool_call::Column::Id);
        convert::all(rows.all(self.read()).await?)
    }

    /// What a conversation has cost.
    pub async fn usage(&self, scope: &Scope, id: &ConversationId) -> Result<Vec<Usage>, StoreError> {
        tenant::row::<conversation::Entity>(self.read(), scope, id).await?;
        let rows = tenant::find::<usage::Entity>(scope)
            .filter(usage::Column::Conversation.eq(id.as_str()))
            .order_by_asc(usage::Column::Id);
        convert::all(rows.all(self.read()).await?)
    }
}

/// Calls as they are shown. A plan may be longer than all the rest of a page together, and only the log is read with it.
fn without_plan(calls: Select<call::Entity>) -> Select<call::Entity> {
    let shown = call::Column::iter().filter(|column| !matches!(column, call::Column::Plan));
    calls.select_only().columns(shown).column_as(Expr::value(""), call::Column::Plan)
}
