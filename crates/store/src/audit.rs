//! Who changed what: one row beside every change, written in the change's own transaction. It does not know what a change means.

use crate::convert::to_json;
use crate::error::StoreError;
use crate::page::{self, Listed, Page};
use crate::rows::audit_event;
use crate::scope::Scope;
use crate::{Store, tenant};
use offhook_core::entity::AuditEvent;
use sea_orm::DatabaseTransaction;
use serde_json::Value;
use std::fmt::Display;

impl Store {
    /// What was changed in the workspace, newest first.
    pub async fn audit_events(&self, scope: &Scope, page: &Page) -> Result<Listed<AuditEvent>, StoreError> {
        page::list(self.read(), tenant::find::<audit_event::Entity>(scope), page).await
    }

    pub(crate) async fn audit(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        action: &str,
        target: &impl Display,
        detail: Value,
    ) -> Result<(), StoreError> {
        let row = audit_event::Model {
            id: format!("aud_{}", self.ulid()),
            organization: scope.organization().to_string(),
            workspace: scope.workspace().to_string(),
            at_us: self.now_us(),
            actor: scope.actor().to_string(),
            action: action.to_owned(),
            target: target.to_string(),
            detail: to_json(&detail),
        };
        Ok(tenant::insert::<audit_event::Entity>(tx, row).await?)
    }
}
