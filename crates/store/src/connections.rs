//! Connections: outside accounts, their settings, and their sealed credentials. It does not know what any of them is used for.

use crate::convert::to_json;
use crate::error::{OnTaken, StoreError};
use crate::keeping::Kept;
use crate::page::{self, Listed, Page};
use crate::rows::{connection, phone_number};
use crate::scope::Scope;
use crate::{Store, tenant};
use offhook_core::entity::{Connection, ConnectionStatus, is_carrier};
use offhook_core::{ConnectionId, Secret};
use sea_orm::ActiveValue::NotSet;
use sea_orm::sea_query::{Cond, Expr, ExprTrait};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect,
};
use serde_json::{Value, json};

/// What can be set on a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionSpec {
    /// What it connects to, by the name of the adapter. Never changes.
    pub kind: String,
    /// Its name, unique in the organization.
    pub name: String,
    /// The outside account's id.
    pub account: Option<String>,
    /// Settings that are no secret.
    pub config: Value,
    /// The credentials; `None` leaves those that are stored.
    pub secret: Option<Secret<String>>,
}

/// A vault key that credentials are sealed with and that this process was not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingKey {
    /// The key's fingerprint.
    pub key_id: String,
    /// The names of the connections that cannot be used without it.
    pub connections: Vec<String>,
}

/// The most connections of one kind that are read at once.
const CONNECTIONS_OF_KIND_MAX: u64 = 10_000;

impl Store {
    /// Adds a connection, unchecked.
    pub async fn create_connection(
        &self,
        scope: &Scope,
        spec: &ConnectionSpec,
    ) -> Result<Connection, StoreError> {
        let tx = self.begin().await?;
        let connection = self.add_connection(&tx, scope, spec).await?;
        tx.commit().await?;
        Ok(connection)
    }

    /// One connection.
    pub async fn connection(&self, scope: &Scope, id: &ConnectionId) -> Result<Connection, StoreError> {
        tenant::row::<connection::Entity>(self.read(), scope, id).await?.try_into()
    }

    /// The organization's connections, newest first.
    pub async fn connections(&self, scope: &Scope, page: &Page) -> Result<Listed<Connection>, StoreError> {
        page::list(self.read(), tenant::find::<connection::Entity>(scope), page).await
    }

    /// A connection's credentials; `NotFound` when none are stored.
    pub async fn connection_secret(
        &self,
        scope: &Scope,
        id: &ConnectionId,
    ) -> Result<Secret<String>, StoreError> {
        let row = tenant::row::<connection::Entity>(self.read(), scope, id).await?;
        self.unseal(&row)?.ok_or(StoreError::NotFound { what: "secret" })
    }

    /// From now on only the present secret is believed, not the one that it took the place of: that one is in wrong hands.
    pub async fn forget_earlier_secret(&self, scope: &Scope, id: &ConnectionId) -> Result<(), StoreError> {
        let tx = self.begin().await?;
        let row = tenant::row::<connection::Entity>(&tx, scope, id).await?;
        let Some(kept) = self.kept(&row)? else { return Err(StoreError::NotFound { what: "secret" }) };
        let sealed = self.seal(id.as_str(), &Kept::alone(kept.secret));
        tenant::update::<connection::Entity>(scope)
            .col_expr(connection::Column::Secret, Expr::value(sealed.blob))
            .col_expr(connection::Column::SecretKeyId, Expr::value(sealed.key_id))
            .filter(connection::Column::Id.eq(id.as_str()))
            .exec(&tx)
            .await?;
        self.audit(&tx, scope, "connection.forget_earlier_secret", id, json!({ "name": row.name })).await?;
        Ok(tx.commit().await?)
    }

    /// Sets everything on a connection, based on the revision that was read; it is unchecked afterwards.
    pub async fn replace_connection(
        &self,
        scope: &Scope,
        id: &ConnectionId,
        revision: i64,
        spec: &ConnectionSpec,
    ) -> Result<Connection, StoreError> {
        let tx = self.begin().await?;
        let row = tenant::row::<connection::Entity>(&tx, scope, id).await?;
        if row.revision != revision {
            return Err(changed_meanwhile("connection", row.revision));
        }
        let connection = self.change_connection(&tx, scope, row, spec).await?;
        tx.commit().await?;
        Ok(connection)
    }

    /// Notes how a try of the connection went; `Conflict` when it was changed since the revision that was tried.
    pub async fn set_connection_status(
        &self,
        scope: &Scope,
        id: &ConnectionId,
        revision: i64,
        status: ConnectionStatus,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let set = tenant::update::<connection::Entity>(scope)
            .col_expr(connection::Column::Status, Expr::value(status.as_str()))
            .col_expr(connection::Column::StatusReason, Expr::value(reason))
            .col_expr(connection::Column::CheckedAtUs, Expr::value(self.now_us()))
            .filter(connection::Column::Id.eq(id.as_str()))
            .filter(connection::Column::Revision.eq(revision))
            .exec(self.write()?)
            .await?;
        if set.rows_affected == 0 {
            let row = tenant::row::<connection::Entity>(self.read(), scope, id).await?;
            return Err(changed_meanwhile("connection", row.revision));
        }
        Ok(())
    }

    /// Notes how a connection is seen to be by whoever keeps it up. The system's own.
    pub async fn note_connection(
        &self,
        id: &ConnectionId,
        status: ConnectionStatus,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        connection::Entity::update_many()
            .col_expr(connection::Column::Status, Expr::value(status.as_str()))
            .col_expr(connection::Column::StatusReason, Expr::value(reason))
            .col_expr(connection::Column::CheckedAtUs, Expr::value(self.now_us()))
            .filter(connection::Column::Id.eq(id.as_str()))
            .exec(self.write()?)
            .await?;
        Ok(())
    }

    /// Removes a connection; `Conflict` names a number that still needs it.
    pub async fn delete_connection(&self, scope: &Scope, id: &ConnectionId) -> Result<(), StoreError> {
        let tx = self.begin().await?;
        let row = tenant::row::<connection::Entity>(&tx, scope, id).await?;
        let needed = phone_number::Entity::find()
            .filter(phone_number::Column::Connection.eq(id.as_str()))
            .one(&tx)
            .await?;
        if let Some(number) = needed {
            return Err(StoreError::Conflict {
                what: "connection",
                holder: format!("{} uses it", number.e164),
            });
        }
        tenant::delete::<connection::Entity>(scope)
            .filter(connection::Column::Id.eq(id.as_str()))
            .exec(&tx)
            .await
            .on_taken("connection", "a number uses it")?;
        self.audit(&tx, scope, "connection.delete", id, json!({ "name": row.name })).await?;
        Ok(tx.commit().await?)
    }

    /// The connections of a kind, of all organizations, each with its credentials where they can be opened. The system's own.
    pub async fn connections_of_kind(
        &self,
        kind: &str,
    ) -> Result<Vec<(Connection, Option<Secret<String>>)>, StoreError> {
        let rows = connection::Entity::find()
            .filter(connection::Column::Kind.eq(kind))
            .order_by_asc(connection::Column::Id)
            .limit(CONNECTIONS_OF_KIND_MAX)
            .all(self.read())
            .await?;
        let opened = rows.into_iter().filter_map(|row| {
            let secret = self.unseal(&row).ok().flatten();
            Connection::try_from(row).ok().map(|connection| (connection, secret))
        });
        Ok(opened.collect())
    }

    /// Which keys are wanted to open all credentials and were not given. The system's own.
    pub async fn missing_keys(&self) -> Result<Vec<MissingKey>, StoreError> {
        let sealed: Vec<(String, String)> = connection::Entity::find()
            .select_only()
            .columns([connection::Column::SecretKeyId, connection::Column::Name])
            .filter(connection::Column::SecretKeyId.is_not_null())
            .filter(connection::Column::SecretKeyId.is_not_in(self.keys.vault().key_ids()))
            .order_by_asc(connection::Column::Id)
            .into_tuple()
            .all(self.read())
            .await?;
        let mut missing: Vec<MissingKey> = Vec::new();
        for (key_id, name) in sealed {
            match missing.iter_mut().find(|key| key.key_id == key_id) {
                Some(key) => key.connections.push(name),
                None => missing.push(MissingKey { key_id, connections: vec![name] }),
            }
        }
        Ok(missing)
    }

    /// Removes every credential that a lost key has sealed, and names the connections that are without one now. The system's own.
    pub async fn forget_secrets(&self, key_id: &str) -> Result<Vec<String>, StoreError> {
        let tx = self.begin().await?;
        let sealed_with_it = connection::Column::SecretKeyId.eq(key_id);
        let rows = connection::Entity::find().filter(sealed_with_it.clone()).all(&tx).await?;
        connection::Entity::update_many()
            .col_expr(connection::Column::Secret, Expr::value(None::<Vec<u8>>))
            .col_expr(connection::Column::SecretKeyId, Expr::value(None::<String>))
            .col_expr(connection::Column::Status, Expr::value(ConnectionStatus::Unchecked.as_str()))
            .col_expr(connection::Column::StatusReason, Expr::value(None::<String>))
            .col_expr(connection::Column::CheckedAtUs, Expr::value(None::<i64>))
            .col_expr(connection::Column::Revision, Expr::col(connection::Column::Revision).add(1))
            .filter(sealed_with_it)
            .exec(&tx)
            .await?;
        tx.commit().await?;
        Ok(rows.into_iter().map(|row| row.name).collect())
    }

    /// Seals every credential anew that an earlier key has sealed, and tells how many. The system's own.
    pub async fn reseal_secrets(&self) -> Result<usize, StoreError> {
        let tx = self.begin().await?;
        let rows = connection::Entity::find()
            .filter(connection::Column::SecretKeyId.ne(self.keys.vault().key_id()))
            .all(&tx)
            .await?;
        let mut resealed = 0;
        for row in rows {
            let kept = match self.kept(&row) {
                Ok(Some(kept)) => kept,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(connection.id = row.id, %error, "A credential stays as it is: it does not open");
                    continue;
                }
            };
            let sealed = self.seal(&row.id, &kept);
            connection::Entity::update_many()
                .col_expr(connection::Column::Secret, Expr::value(sealed.blob))
                .col_expr(connection::Column::SecretKeyId, Expr::value(sealed.key_id))
                .filter(connection::Column::Id.eq(row.id))
                // A secret that was pasted meanwhile stays.
                .filter(connection::Column::Secret.eq(row.secret))
                .exec(&tx)
                .await?;
            resealed += 1;
        }
        tx.commit().await?;
        Ok(resealed)
    }

    pub(crate) async fn add_connection(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        spec: &ConnectionSpec,
    ) -> Result<Connection, StoreError> {
        self.name_is_free(tx, scope, spec, None).await?;
        let now_us = self.now_us();
        let id = ConnectionId::from_ulid(&self.ulid());
        let sealed = spec.secret.clone().map(|secret| self.seal(id.as_str(), &Kept::alone(secret)));
        let (secret, secret_key_id) = sealed.map(|sealed| (sealed.blob, sealed.key_id)).unzip();
        let row = connection::Model {
            id: id.to_string(),
            organization: scope.organization().to_string(),
            kind: spec.kind.clone(),
            name: spec.name.clone(),
            account: spec.account.clone(),
            config: to_json(&spec.config),
            secret,
            secret_key_id,
            status: ConnectionStatus::Unchecked.to_string(),
            status_reason: None,
            checked_at_us: None,
            revision: 1,
            created_at_us: now_us,
            updated_at_us: now_us,
        };
        tenant::insert::<connection::Entity>(tx, row.clone())
            .await
            .on_taken("connection name", "another request was first")?;
        let connection = Connection::try_from(row)?;
        self.audit(tx, scope, "connection.create", &id, json!({ "after": connection })).await?;
        Ok(connection)
    }

    pub(crate) async fn change_connection(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        row: connection::Model,
        spec: &ConnectionSpec,
    ) -> Result<Connection, StoreError> {
        if row.kind != spec.kind {
            let reason = format!("it is a {} connection and stays one", row.kind);
            return Err(StoreError::Invalid { what: "connection", reason });
        }
        self.name_is_free(tx, scope, spec, Some(&row.id)).await?;
        if row.account != spec.account {
            account_is_free(tx, &row.id).await?;
        }
        let before = Connection::try_from(row.clone())?;
        let sealed = spec.secret.clone().map(|secret| {
            // What no longer opens is replaced and gone.
            let before = self.kept(&row).ok().flatten().filter(|_| is_carrier(&row.kind));
            self.seal(&row.id, &Kept::after(before, secret, self.now_us()))
        });
        let (secret, secret_key_id) = match sealed {
            Some(sealed) => (Some(sealed.blob), Some(sealed.key_id)),
            None => (row.secret, row.secret_key_id),
        };
        let row = connection::Model {
            name: spec.name.clone(),
            account: spec.account.clone(),
            config: to_json(&spec.config),
            secret,
            secret_key_id,
            status: ConnectionStatus::Unchecked.to_string(),
            status_reason: None,
            checked_at_us: None,
            revision: row.revision + 1,
            updated_at_us: self.now_us(),
            ..row
        };
        let mut changed = row.clone().into_active_model().reset_all();
        if spec.secret.is_none() {
            // It may be sealed anew at this moment, which is no change that a revision tells of.
            (changed.secret, changed.secret_key_id) = (NotSet, NotSet);
        }
        let updated = tenant::update::<connection::Entity>(scope)
            .set(changed)
            .filter(connection::Column::Id.eq(row.id.as_str()))
            .filter(connection::Column::Revision.eq(before.revision))
            .exec(tx)
            .await
            .on_taken("connection name", "another request was first")?;
        if updated.rows_affected == 0 {
            return Err(changed_meanwhile("connection", row.revision));
        }
        let after = Connection::try_from(row)?;
        let detail = json!({ "before": before, "after": after, "secret_replaced": spec.secret.is_some() });
        self.audit(tx, scope, "connection.change", &after.id, detail).await?;
        Ok(after)
    }

    /// Whether a change would leave everything as it is, the credentials included.
    pub(crate) fn is_as_declared(
        &self,
        row: &connection::Model,
        spec: &ConnectionSpec,
    ) -> Result<bool, StoreError> {
        let same_secret = match &spec.secret {
            None => true,
            // Credentials that no longer open are replaced by those declared.
            Some(secret) => self.unseal(row).is_ok_and(|stored| stored.as_ref() == Some(secret)),
        };
        let stored = Connection::try_from(row.clone())?;
        Ok(same_secret
            && stored.kind == spec.kind
            && stored.name == spec.name
            && stored.account == spec.account
            && stored.config == spec.config)
    }

    pub(crate) fn unseal(&self, row: &connection::Model) -> Result<Option<Secret<String>>, StoreError> {
        Ok(self.kept(row)?.map(|kept| kept.secret))
    }

    async fn name_is_free(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        spec: &ConnectionSpec,
        but_for: Option<&str>,
    ) -> Result<(), StoreError> {
        let holder = tenant::find::<connection::Entity>(scope)
            .filter(connection::Column::Name.eq(spec.name.as_str()))
            .one(tx)
            .await?;
        match holder {
            Some(row) if but_for != Some(row.id.as_str()) => {
                Err(StoreError::Conflict { what: "connection name", holder: format!("{} has it", row.id) })
            }
            _ => Ok(()),
        }
    }
}

/// Whether nothing has to be given back in the account that a connection has; `Conflict` names a number.
async fn account_is_free(tx: &DatabaseTransaction, connection: &str) -> Result<(), StoreError> {
    let ours = Cond::any()
        .add(phone_number::Column::LeadsHere.eq(true))
        .add(phone_number::Column::Operation.is_not_null());
    let number = phone_number::Entity::find()
        .filter(phone_number::Column::Connection.eq(connection))
        .filter(ours)
        .order_by_asc(phone_number::Column::Id)
        .one(tx)
        .await?;
    match number {
        None => Ok(()),
        Some(number) => {
            let holder = format!(
                "{} was pointed here in it: remove that number first, or make another connection",
                number.e164
            );
            Err(StoreError::Conflict { what: "account", holder })
        }
    }
}

pub(crate) fn changed_meanwhile(what: &'static str, revision: i64) -> StoreError {
    StoreError::Conflict { what, holder: format!("it was changed meanwhile and is at revision {revision}") }
}
