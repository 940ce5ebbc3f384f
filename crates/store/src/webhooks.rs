//! What webhooks were answered, so that a repeat gets the same answer and nothing happens twice. It does not know what one asked.

use crate::error::StoreError;
use crate::rows::{connection, webhook_inbox};
use crate::scope::Scope;
use crate::{Store, tenant};
use offhook_core::ConnectionId;
use offhook_core::entity::WebhookAnswer;
use sea_orm::{ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter};

impl Store {
    /// What a webhook of this key was answered, if it came before and was not forgotten.
    pub async fn webhook_answer(
        &self,
        scope: &Scope,
        connection: &ConnectionId,
        key: &str,
    ) -> Result<Option<WebhookAnswer>, StoreError> {
        tenant::row::<connection::Entity>(self.read(), scope, connection).await?;
        let row = webhook_inbox::Entity::find_by_id((connection.to_string(), key.to_owned()))
            .filter(webhook_inbox::Column::ExpiresAtUs.gt(self.now_us()))
            .one(self.read())
            .await?;
        row.map(WebhookAnswer::try_from).transpose()
    }

    /// Keeps an answer for `keep_ms`, unless one of the same key is there: that one is given back, for it has been sent.
    pub async fn keep_webhook_answer(
        &self,
        scope: &Scope,
        connection: &ConnectionId,
        key: &str,
        answer: &WebhookAnswer,
        keep_ms: u32,
    ) -> Result<WebhookAnswer, StoreError> {
        let tx = self.begin().await?;
        tenant::row::<connection::Entity>(&tx, scope, connection).await?;
        let id = (connection.to_string(), key.to_owned());
        let now_us = self.now_us();
        webhook_inbox::Entity::delete_many()
            .filter(webhook_inbox::Column::Connection.eq(connection.as_str()))
            .filter(webhook_inbox::Column::Key.eq(key))
            .filter(webhook_inbox::Column::ExpiresAtUs.lte(now_us))
            .exec(&tx)
            .await?;
        let row = webhook_inbox::Model {
            connection: id.0.clone(),
            key: id.1.clone(),
            status: i64::from(answer.status),
            content_type: answer.content_type.clone(),
            body: answer.body.clone(),
            expires_at_us: now_us.saturating_add(i64::from(keep_ms) * 1_000),
        };
        webhook_inbox::Entity::insert(row.into_active_model())
            .on_conflict_do_nothing()
            .exec_without_returning(&tx)
            .await?;
        let kept = webhook_inbox::Entity::find_by_id(id).one(&tx).await?;
        tx.commit().await?;
        kept.ok_or_else(|| StoreError::corrupt("webhook_inbox", "the row just kept is gone"))?.try_into()
    }

    /// Forgets answers whose time is over and tells how many. The system's own.
    pub async fn forget_webhook_answers(&self) -> Result<u64, StoreError> {
        let expired = webhook_inbox::Column::ExpiresAtUs.lte(self.now_us());
        let forgotten = webhook_inbox::Entity::delete_many().filter(expired).exec(self.write()?).await?;
        Ok(forgotten.rows_affected)
    }
}
