//! Organizations, their workspaces, and the keys that open them. It does not know what a role may do.

use crate::connections::changed_meanwhile;
use crate::convert::{parse, to_json};
use crate::error::StoreError;
use crate::page::{self, Listed, Page};
use crate::rows::{api_key, organization, workspace};
use crate::scope::Scope;
use crate::vault::hex;
use crate::{Store, dialect, tenant};
use offhook_core::entity::{ApiKey, Organization, Role, Workspace};
use offhook_core::{ApiKeyId, OrganizationId, Secret, WorkspaceId};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How an API key begins: a leaked one is recognised by it.
const KEY_PREFIX: &str = "ohk_";
const KEY_BYTES: usize = 32;
/// Characters of a key that stay readable.
const KEY_SHOWN: usize = 12;
/// A key's last use is written down at most this often.
const LAST_USED_EVERY_US: i64 = 60_000_000;

/// What [`Store::create_first`] has made.
#[derive(Clone, Debug)]
pub struct First {
    /// The organization.
    pub organization: Organization,
    /// Its workspace.
    pub workspace: Workspace,
    /// The owner's key, as others see it.
    pub api_key: ApiKey,
    /// The key itself: nobody can read it again.
    pub key: Secret<String>,
}

/// What can be set on a workspace.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkspaceSpec {
    /// Its name.
    pub name: String,
    /// IANA name of its time zone.
    pub time_zone: String,
    /// Weekly hours, holidays and exceptions.
    pub business_hours: Value,
}

impl Store {
    /// Makes the first organization, its workspace and an owner's key; `None` when there is an organization already. The system's own.
    pub async fn create_first(
        &self,
        organization: &str,
        spec: &WorkspaceSpec,
    ) -> Result<Option<First>, StoreError> {
        let tx = self.begin().await?;
        dialect::alone(&tx, dialect::Alone::CreateFirst).await?;
        if organization::Entity::find().one(&tx).await?.is_some() {
            return Ok(None);
        }
        let organization = self.add_organization(&tx, organization).await?;
        let workspace = self.add_workspace(&tx, &organization.id, spec).await?;
        let scope = Scope::system(&workspace, "create first");
        let (api_key, key) = self.add_api_key(&tx, &scope, "first key", Role::Owner).await?;
        tx.commit().await?;
        Ok(Some(First { organization, workspace, api_key, key }))
    }

    /// Makes an organization with one workspace. The system's own.
    pub async fn create_organization(
        &self,
        organization: &str,
        spec: &WorkspaceSpec,
    ) -> Result<(Organization, Workspace), StoreError> {
        let tx = self.begin().await?;
        let organization = self.add_organization(&tx, organization).await?;
        let workspace = self.add_workspace(&tx, &organization.id, spec).await?;
        tx.commit().await?;
        Ok((organization, workspace))
    }

    /// Every workspace of every organization. The system's own: from here a [`Scope::system`] is made.
    pub async fn workspaces(&self, page: &Page) -> Result<Listed<Workspace>, StoreError> {
        page::list(self.read(), workspace::Entity::find(), page).await
    }

    /// Adds a workspace to the organization.
    pub async fn create_workspace(
        &self,
        scope: &Scope,
        spec: &WorkspaceSpec,
    ) -> Result<Workspace, StoreError> {
        let tx = self.begin().await?;
        let workspace = self.add_workspace(&tx, scope.organization(), spec).await?;
        self.audit(&tx, scope, "workspace.create", &workspace.id, json!({ "name": spec.name })).await?;
        tx.commit().await?;
        Ok(workspace)
    }

    /// The workspace that the scope is for.
    pub async fn workspace(&self, scope: &Scope) -> Result<Workspace, StoreError> {
        tenant::row::<workspace::Entity>(self.read(), scope, scope.workspace()).await?.try_into()
    }

    /// Sets the workspace's name, time zone and hours, based on the revision that was read.
    pub async fn replace_workspace(
        &self,
        scope: &Scope,
        revision: i64,
        spec: &WorkspaceSpec,
    ) -> Result<Workspace, StoreError> {
        let tx = self.begin().await?;
        let before: Workspace =
            tenant::row::<workspace::Entity>(&tx, scope, scope.workspace()).await?.try_into()?;
        if before.revision != revision {
            return Err(changed_meanwhile("workspace", before.revision));
        }
        let updated = tenant::update::<workspace::Entity>(scope)
            .col_expr(workspace::Column::Revision, Expr::value(revision + 1))
            .col_expr(workspace::Column::Name, Expr::value(spec.name.as_str()))
            .col_expr(workspace::Column::TimeZone, Expr::value(spec.time_zone.as_str()))
            .col_expr(workspace::Column::BusinessHours, Expr::value(to_json(&spec.business_hours)))
            .filter(workspace::Column::Revision.eq(revision))
            .exec(&tx)
            .await?;
        if updated.rows_affected == 0 {
            return Err(changed_meanwhile("workspace", revision + 1));
        }
        let after = Workspace {
            name: spec.name.clone(),
            time_zone: spec.time_zone.clone(),
            business_hours: spec.business_hours.clone(),
            revision: revision + 1,
            ..before.clone()
        };
        self.audit(&tx, scope, "workspace.change", &after.id, json!({ "before": before, "after": after }))
            .await?;
        tx.commit().await?;
        Ok(after)
    }

    /// Makes a key. The key itself is given back this once.
    pub async fn create_api_key(
        &self,
        scope: &Scope,
        name: &str,
        role: Role,
    ) -> Result<(ApiKey, Secret<String>), StoreError> {
        let tx = self.begin().await?;
        let made = self.add_api_key(&tx, scope, name, role).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// The workspace's keys, revoked ones too, newest first.
    pub async fn api_keys(&self, scope: &Scope, page: &Page) -> Result<Listed<ApiKey>, StoreError> {
        page::list(self.read(), tenant::find::<api_key::Entity>(scope), page).await
    }

    /// One key, revoked or not.
    pub async fn api_key(&self, scope: &Scope, id: &ApiKeyId) -> Result<ApiKey, StoreError> {
        tenant::row::<api_key::Entity>(self.read(), scope, id).await?.try_into()
    }

    /// Makes a key useless from now on. Once is enough. `Conflict`: it is the last that may do everything.
    pub async fn revoke_api_key(&self, scope: &Scope, id: &ApiKeyId) -> Result<(), StoreError> {
        let tx = self.begin().await?;
        tenant::row::<api_key::Entity>(&tx, scope, id).await?;
        let owners = tenant::find::<api_key::Entity>(scope)
            .filter(api_key::Column::Role.eq(Role::Owner.as_str()))
            .filter(api_key::Column::RevokedAtUs.is_null())
            .order_by_asc(api_key::Column::Id)
            .lock_exclusive()
            .all(&tx)
            .await?;
        if let [last] = owners.as_slice()
            && last.id == id.as_str()
        {
            let holder = "it is the last owner's key: make another first".into();
            return Err(StoreError::Conflict { what: "API key", holder });
        }
        let revoked = tenant::update::<api_key::Entity>(scope)
            .col_expr(api_key::Column::RevokedAtUs, Expr::value(self.now_us()))
            .filter(api_key::Column::Id.eq(id.as_str()))
            .filter(api_key::Column::RevokedAtUs.is_null())
            .exec(&tx)
            .await?;
        if revoked.rows_affected == 1 {
            self.audit(&tx, scope, "api_key.revoke", id, json!({})).await?;
        }
        Ok(tx.commit().await?)
    }

    /// The scope that a key opens; `NotFound` when it is unknown or revoked.
    pub async fn scope_for_api_key(&self, key: &Secret<String>) -> Result<Scope, StoreError> {
        let unknown = StoreError::NotFound { what: "API key" };
        if !key.expose().starts_with(KEY_PREFIX) {
            return Err(unknown);
        }
        let row = api_key::Entity::find()
            .filter(api_key::Column::Hash.eq(hash(key)))
            .filter(api_key::Column::RevokedAtUs.is_null())
            .one(self.read())
            .await?
            .ok_or(unknown)?;
        let organization: OrganizationId = parse("api_key.organization", &row.organization)?;
        let last_used_at_us = row.last_used_at_us.unwrap_or(i64::MIN);
        let key: ApiKey = row.try_into()?;
        let now_us = self.now_us();
        if last_used_at_us < now_us.saturating_sub(LAST_USED_EVERY_US)
            && let Err(error) = self.note_use(&key.id, now_us).await
        {
            // A key opens its workspace even where the disk is full: that it was used is worth less than that it works.
            tracing::warn!(api_key.id = %key.id, %error, "Use of an API key was not written down");
        }
        Ok(Scope::of_key(organization, key.workspace, key.role, key.id))
    }

    async fn note_use(&self, key: &ApiKeyId, now_us: i64) -> Result<(), StoreError> {
        api_key::Entity::update_many()
            .col_expr(api_key::Column::LastUsedAtUs, Expr::value(now_us))
            .filter(api_key::Column::Id.eq(key.as_str()))
            .exec(self.write()?)
            .await?;
        Ok(())
    }

    async fn add_organization(
        &self,
        tx: &DatabaseTransaction,
        name: &str,
    ) -> Result<Organization, StoreError> {
        let id = OrganizationId::from_ulid(&self.ulid());
        let organization = Organization { id, name: name.to_owned(), created_at_us: self.now_us() };
        tenant::insert::<organization::Entity>(tx, (&organization).into()).await?;
        Ok(organization)
    }

    async fn add_workspace(
        &self,
        tx: &DatabaseTransaction,
        organization: &OrganizationId,
        spec: &WorkspaceSpec,
    ) -> Result<Workspace, StoreError> {
        let workspace = Workspace {
            id: WorkspaceId::from_ulid(&self.ulid()),
            organization: organization.clone(),
            name: spec.name.clone(),
            time_zone: spec.time_zone.clone(),
            business_hours: spec.business_hours.clone(),
            revision: 1,
            created_at_us: self.now_us(),
        };
        tenant::insert::<workspace::Entity>(tx, (&workspace).into()).await?;
        Ok(workspace)
    }

    async fn add_api_key(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        name: &str,
        role: Role,
    ) -> Result<(ApiKey, Secret<String>), StoreError> {
        let mut bytes = [0; KEY_BYTES];
        self.environment.fill(&mut bytes);
        let key = Secret::new(format!("{KEY_PREFIX}{}", hex(&bytes)));
        let row = api_key::Model {
            id: ApiKeyId::from_ulid(&self.ulid()).into(),
            organization: scope.organization().to_string(),
            workspace: scope.workspace().to_string(),
            name: name.to_owned(),
            prefix: key.expose()[..KEY_SHOWN].to_owned(),
            hash: hash(&key),
            role: role.to_string(),
            created_at_us: self.now_us(),
            last_used_at_us: None,
            revoked_at_us: None,
        };
        tenant::insert::<api_key::Entity>(tx, row.clone()).await?;
        self.audit(tx, scope, "api_key.create", &row.id, json!({ "name": name, "role": role })).await?;
        Ok((row.try_into()?, key))
    }
}

/// A key of 256 random bits needs no salt and no slow hash: there is nothing to guess.
fn hash(secret: &Secret<String>) -> String {
    hex(&Sha256::digest(secret.expose().as_bytes()))
}
