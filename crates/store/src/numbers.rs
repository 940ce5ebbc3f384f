//! Phone numbers with everything set on them, and the way from a ringing number to whose it is. It does not know how a call is answered.

use crate::connections::changed_meanwhile;
use crate::convert::parse;
use crate::error::{OnTaken, StoreError};
use crate::page::{self, Listed, Page};
use crate::rows::{agent, connection, phone_number, workspace};
use crate::scope::Scope;
use crate::{Store, tenant};
use offhook_core::entity::{Capability, Connection, NumberStatus, PhoneNumber, is_carrier};
use offhook_core::{AgentId, ConnectionId, E164, PhoneNumberId, Secret};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel,
    JoinType, QueryFilter, QueryOrder, QuerySelect,
};
use serde_json::{Value, json};
use std::error::Error;

/// Organizations that may claim one number of one account before a ring stops asking.
const RING_TARGETS_MAX: u64 = 8;

/// What can be set on a number.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberSpec {
    /// The carrier account it is reached through, of the same organization.
    pub connection: ConnectionId,
    /// The number.
    pub e164: E164,
    /// Its name.
    pub name: String,
    /// What it can carry.
    pub capabilities: Vec<Capability>,
    /// Work modes, messages, languages and the like.
    pub settings: Value,
    /// Where calls go that are forwarded.
    pub forward_to: Option<E164>,
    /// Who answers, of the same workspace.
    pub inbound_agent: Option<AgentId>,
}

/// Whom a ringing number may belong to.
#[derive(Clone, Debug)]
pub struct RingTarget {
    /// The number.
    pub number: PhoneNumber,
    /// The carrier account it is reached through.
    pub connection: Connection,
    /// The account's credentials.
    pub secret: Option<Secret<String>>,
    /// Those before, while they are believed beside them.
    pub earlier_secret: Option<Secret<String>>,
    /// The scope in which the call is handled, once the signature has been found good.
    pub scope: Scope,
}

impl RingTarget {
    /// Every secret that the account may have signed a webhook with.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret<String>> {
        self.secret.iter().chain(&self.earlier_secret)
    }
}

impl Store {
    /// Adds a number. It is active when an agent or a forward stands behind it.
    pub async fn create_number(&self, scope: &Scope, spec: &NumberSpec) -> Result<PhoneNumber, StoreError> {
        let tx = self.begin().await?;
        let number = self.add_number(&tx, scope, spec).await?;
        tx.commit().await?;
        Ok(number)
    }

    /// One number.
    pub async fn number(&self, scope: &Scope, id: &PhoneNumberId) -> Result<PhoneNumber, StoreError> {
        tenant::row::<phone_number::Entity>(self.read(), scope, id).await?.try_into()
    }

    /// The workspace's numbers, newest first.
    pub async fn numbers(&self, scope: &Scope, page: &Page) -> Result<Listed<PhoneNumber>, StoreError> {
        page::list(self.read(), tenant::find::<phone_number::Entity>(scope), page).await
    }

    /// Sets everything on a number, based on the revision that was read. Calls in progress keep what they began with.
    pub async fn replace_number(
        &self,
        scope: &Scope,
        id: &PhoneNumberId,
        revision: i64,
        spec: &NumberSpec,
    ) -> Result<PhoneNumber, StoreError> {
        let tx = self.begin().await?;
        let before: PhoneNumber = tenant::row::<phone_number::Entity>(&tx, scope, id).await?.try_into()?;
        if before.revision != revision {
            return Err(changed_meanwhile("phone number", before.revision));
        }
        let number = self.change_number(&tx, scope, &before, spec).await?;
        tx.commit().await?;
        Ok(number)
    }

    /// Removes a number. Its conversations stay.
    pub async fn delete_number(&self, scope: &Scope, id: &PhoneNumberId) -> Result<(), StoreError> {
        let tx = self.begin().await?;
        let row = tenant::row::<phone_number::Entity>(&tx, scope, id).await?;
        tenant::delete::<phone_number::Entity>(scope)
            .filter(phone_number::Column::Id.eq(id.as_str()))
            .exec(&tx)
            .await?;
        self.audit(&tx, scope, "phone_number.delete", id, json!({ "e164": row.e164 })).await?;
        Ok(tx.commit().await?)
    }

    /// Whom a ringing number may belong to, the oldest claim first. The system's own.
    ///
    /// Anybody can enter a number and an account id that are another's, so there may be more than one: the right one is the
    /// one whose secret has signed the webhook.
    pub async fn numbers_for_ring(
        &self,
        kind: &str,
        account: Option<&str>,
        e164: &E164,
    ) -> Result<Vec<RingTarget>, StoreError> {
        let mut claims = phone_number::Entity::find()
            .join(
                JoinType::InnerJoin,
                phone_number::Entity::belongs_to(connection::Entity)
                    .from(phone_number::Column::Connection)
                    .to(connection::Column::Id)
                    .into(),
            )
            .select_also(connection::Entity)
            .filter(phone_number::Column::E164.eq(e164.as_str()))
            .filter(connection::Column::Kind.eq(kind));
        if let Some(account) = account {
            claims = claims.filter(connection::Column::Account.eq(account));
        }
        let claims =
            claims.order_by_asc(phone_number::Column::Id).limit(RING_TARGETS_MAX).all(self.read()).await?;
        let mut targets = Vec::with_capacity(claims.len());
        for (number, connection) in claims {
            let id = number.id.clone();
            match self.ring_target(number, connection) {
                Ok(target) => targets.push(target),
                // One claim that cannot be read must not keep the others from their calls.
                Err(error) => {
                    let because = error.source().map(ToString::to_string);
                    tracing::error!(number.id = id, %error, because, "A number gets no calls: what is stored of it cannot be read");
                }
            }
        }
        Ok(targets)
    }

    fn ring_target(
        &self,
        number: phone_number::Model,
        connection: Option<connection::Model>,
    ) -> Result<RingTarget, StoreError> {
        let row =
            connection.ok_or_else(|| StoreError::corrupt("phone_number.connection", "it leads nowhere"))?;
        let organization = parse("connection.organization", &row.organization)?;
        let number = PhoneNumber::try_from(number)?;
        let scope = Scope::of_job(organization, number.workspace.clone(), "ring");
        let kept = self.kept(&row)?;
        let secret = kept.as_ref().map(|kept| kept.secret.clone());
        let earlier_secret = kept.and_then(|kept| kept.earlier_at(self.now_us()));
        Ok(RingTarget { number, secret, earlier_secret, connection: row.try_into()?, scope })
    }

    pub(crate) async fn add_number(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        spec: &NumberSpec,
    ) -> Result<PhoneNumber, StoreError> {
        self.number_can_be(tx, scope, spec, None).await?;
        let now_us = self.now_us();
        let number = PhoneNumber {
            id: PhoneNumberId::from_ulid(&self.ulid()),
            workspace: scope.workspace().clone(),
            connection: spec.connection.clone(),
            e164: spec.e164.clone(),
            name: spec.name.clone(),
            capabilities: spec.capabilities.clone(),
            settings: spec.settings.clone(),
            forward_to: spec.forward_to.clone(),
            inbound_agent: spec.inbound_agent.clone(),
            status: spec.status(),
            status_reason: None,
            revision: 1,
            created_at_us: now_us,
            updated_at_us: now_us,
        };
        tenant::insert::<phone_number::Entity>(tx, (&number).into())
            .await
            .on_taken("phone number", "another request was first")?;
        self.audit(tx, scope, "phone_number.create", &number.id, json!({ "after": number })).await?;
        Ok(number)
    }

    pub(crate) async fn change_number(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        before: &PhoneNumber,
        spec: &NumberSpec,
    ) -> Result<PhoneNumber, StoreError> {
        self.number_can_be(tx, scope, spec, Some(before)).await?;
        let after = PhoneNumber {
            connection: spec.connection.clone(),
            e164: spec.e164.clone(),
            name: spec.name.clone(),
            capabilities: spec.capabilities.clone(),
            settings: spec.settings.clone(),
            forward_to: spec.forward_to.clone(),
            inbound_agent: spec.inbound_agent.clone(),
            status: spec.status(),
            status_reason: None,
            revision: before.revision + 1,
            updated_at_us: self.now_us(),
            ..before.clone()
        };
        let row = phone_number::Model::from(&after);
        let updated = tenant::update::<phone_number::Entity>(scope)
            .set(row.into_active_model().reset_all())
            .filter(phone_number::Column::Id.eq(before.id.as_str()))
            .filter(phone_number::Column::Revision.eq(before.revision))
            .exec(tx)
            .await
            .on_taken("phone number", "another request was first")?;
        if updated.rows_affected == 0 {
            return Err(changed_meanwhile("phone number", before.revision + 1));
        }
        let detail = json!({ "before": before, "after": after });
        self.audit(tx, scope, "phone_number.change", &after.id, detail).await?;
        Ok(after)
    }

    async fn number_can_be(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        spec: &NumberSpec,
        before: Option<&PhoneNumber>,
    ) -> Result<(), StoreError> {
        let connection = tenant::row::<connection::Entity>(tx, scope, &spec.connection).await?;
        if !is_carrier(&connection.kind) {
            return Err(StoreError::Invalid {
                what: "phone number",
                reason: format!(
                    "a number is reached through a carrier, and connection `{}` is of kind {}",
                    connection.name, connection.kind
                ),
            });
        }
        if let Some(agent) = &spec.inbound_agent {
            tenant::row::<agent::Entity>(tx, scope, agent).await?;
        }
        let holder = phone_number::Entity::find()
            .filter(phone_number::Column::Connection.eq(spec.connection.as_str()))
            .filter(phone_number::Column::E164.eq(spec.e164.as_str()))
            .one(tx)
            .await?;
        match holder {
            Some(row) if before.is_none_or(|before| before.id.as_str() != row.id) => {
                Err(StoreError::Conflict {
                    what: "phone number",
                    holder: number_holder(tx, scope, &row).await?,
                })
            }
            _ => Ok(()),
        }
    }
}

impl NumberSpec {
    /// Whether a number already is what is wanted.
    pub(crate) fn describes(&self, number: &PhoneNumber) -> bool {
        number.connection == self.connection
            && number.e164 == self.e164
            && number.name == self.name
            && number.capabilities == self.capabilities
            && number.settings == self.settings
            && number.forward_to == self.forward_to
            && number.inbound_agent == self.inbound_agent
    }

    fn status(&self) -> NumberStatus {
        match (&self.inbound_agent, &self.forward_to) {
            (None, None) => NumberStatus::Inactive,
            _ => NumberStatus::Active,
        }
    }
}

/// Names who holds a number as far as the asker may know: its name within the workspace, the workspace's within the organization.
async fn number_holder(
    tx: &impl ConnectionTrait,
    scope: &Scope,
    row: &phone_number::Model,
) -> Result<String, StoreError> {
    if row.workspace == scope.workspace().as_str() {
        return Ok(format!("`{}` ({}) has it", row.name, row.id));
    }
    let workspace = workspace::Entity::find_by_id(row.workspace.as_str()).one(tx).await?;
    Ok(match workspace {
        Some(workspace) => format!("workspace `{}` has it", workspace.name),
        None => "another workspace has it".into(),
    })
}
