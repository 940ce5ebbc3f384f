//! Phone numbers with everything set on them, and the way from a ringing number to whose it is. It does not know how a call is answered.

use crate::connections::changed_meanwhile;
use crate::convert::{all, parse};
use crate::error::{OnTaken, StoreError};
use crate::page::{self, Listed, Page};
use crate::rows::{agent, connection, phone_number, workspace};
use crate::scope::Scope;
use crate::{Store, tenant};
use offhook_core::entity::{Capability, Connection, NumberSource, NumberStatus, PhoneNumber, is_carrier};
use offhook_core::{AgentId, ConnectionId, E164, PhoneNumberId, Secret};
use sea_orm::sea_query::{Cond, Expr, LockBehavior, LockType};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait,
    IntoActiveModel, JoinType, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select, SelectTwo,
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

/// A number of a carrier account that is here already, as far as the asker may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldNumber {
    /// The number.
    pub e164: E164,
    /// Its row, where it is the asker's own workspace's.
    pub number: Option<PhoneNumberId>,
    /// Who has it, in words.
    pub holder: String,
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

fn ring_claims() -> SelectTwo<phone_number::Entity, connection::Entity> {
    phone_number::Entity::find()
        .join(
            JoinType::InnerJoin,
            phone_number::Entity::belongs_to(connection::Entity)
                .from(phone_number::Column::Connection)
                .to(connection::Column::Id)
                .into(),
        )
        .select_also(connection::Entity)
}

impl Store {
    /// Adds a number. It is active when an agent or a forward stands behind it.
    pub async fn create_number(&self, scope: &Scope, spec: &NumberSpec) -> Result<PhoneNumber, StoreError> {
        let tx = self.begin().await?;
        let number = self.add_number(&tx, scope, spec, NumberSource::Byo).await?;
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

    /// The numbers that an agent answers, the oldest first.
    pub async fn numbers_of_agent(
        &self,
        scope: &Scope,
        agent: &AgentId,
    ) -> Result<Vec<PhoneNumber>, StoreError> {
        tenant::row::<agent::Entity>(self.read(), scope, agent).await?;
        let numbers = tenant::find::<phone_number::Entity>(scope)
            .filter(phone_number::Column::InboundAgent.eq(agent.as_str()))
            .order_by_asc(phone_number::Column::Id);
        all(numbers.all(self.read()).await?)
    }

    /// The numbers that are reached through a connection, of every workspace of the organization, the oldest first.
    pub async fn numbers_of_connection(
        &self,
        scope: &Scope,
        connection: &ConnectionId,
    ) -> Result<Vec<PhoneNumber>, StoreError> {
        tenant::row::<connection::Entity>(self.read(), scope, connection).await?;
        let numbers = phone_number::Entity::find()
            .filter(phone_number::Column::Connection.eq(connection.as_str()))
            .order_by_asc(phone_number::Column::Id);
        all(numbers.all(self.read()).await?)
    }

    /// The numbers of the connection's carrier account that are here, through whichever connection of the organization.
    pub async fn held_numbers(
        &self,
        scope: &Scope,
        connection: &ConnectionId,
    ) -> Result<Vec<HeldNumber>, StoreError> {
        let row = tenant::row::<connection::Entity>(self.read(), scope, connection).await?;
        let mut held = Vec::new();
        for number in same_account(self.read(), scope, &row).await?.all(self.read()).await? {
            held.push(HeldNumber {
                e164: parse("phone_number.e164", &number.e164)?,
                holder: number_holder(self.read(), scope, &number).await?,
                number: match number.workspace == scope.workspace().as_str() {
                    true => Some(parse("phone_number.id", &number.id)?),
                    false => None,
                },
            });
        }
        Ok(held)
    }

    /// Numbers of any workspace that lead here as far as is known, and of which that was not looked up since, the longest ago first. They
    /// count as looked up from now on, so that nodes that ask at once get different ones. The system's own.
    pub async fn claim_unchecked(
        &self,
        since_us: i64,
        limit: u32,
    ) -> Result<Vec<(Scope, PhoneNumber)>, StoreError> {
        let unchecked = Cond::any()
            .add(phone_number::Column::CheckedAtUs.is_null())
            .add(phone_number::Column::CheckedAtUs.lt(since_us));
        let tx = self.begin().await?;
        let mut due = phone_number::Entity::find()
            .filter(phone_number::Column::LeadsHere.eq(true))
            .filter(phone_number::Column::Operation.is_null())
            .filter(unchecked)
            .order_by_asc(phone_number::Column::CheckedAtUs)
            .limit(u64::from(limit));
        QueryTrait::query(&mut due).lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
        let rows = due.all(&tx).await?;
        phone_number::Entity::update_many()
            .col_expr(phone_number::Column::CheckedAtUs, Expr::value(self.now_us()))
            .filter(phone_number::Column::Id.is_in(rows.iter().map(|row| row.id.as_str())))
            .exec(&tx)
            .await?;
        let mut numbers = Vec::with_capacity(rows.len());
        for row in rows {
            let home = workspace::Entity::find_by_id(row.workspace.as_str()).one(&tx).await?;
            let id = row.id.clone();
            match due_number(home, row) {
                Ok(due) => numbers.push(due),
                // One that cannot be read must not keep the others from being looked up.
                Err(error) => {
                    tracing::error!(number.id = id, %error, "A number is not looked up: what is stored of it cannot be read");
                }
            }
        }
        tx.commit().await?;
        Ok(numbers)
    }

    /// Notes whether a number leads here; `fault` says where it leads else. One that is being worked on is left alone.
    pub async fn number_checked(
        &self,
        scope: &Scope,
        id: &PhoneNumberId,
        fault: Option<&str>,
    ) -> Result<PhoneNumber, StoreError> {
        let tx = self.begin().await?;
        let row = tenant::row::<phone_number::Entity>(&tx, scope, id).await?;
        if row.operation.is_none() {
            phone_number::Entity::update_many()
                .col_expr(phone_number::Column::CheckedAtUs, Expr::value(self.now_us()))
                .filter(phone_number::Column::Id.eq(id.as_str()))
                .exec(&tx)
                .await?;
            restate(&tx, id.as_str(), Fault::Set(fault)).await?;
        }
        tx.commit().await?;
        self.number(scope, id).await
    }

    /// Removes a number, whatever its carrier does with its calls from then on. Its conversations stay.
    pub async fn delete_number(&self, scope: &Scope, id: &PhoneNumberId) -> Result<(), StoreError> {
        let tx = self.begin().await?;
        let row = tenant::row::<phone_number::Entity>(&tx, scope, id).await?;
        if let Some(operation) = &row.operation {
            return Err(under_way(operation));
        }
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
        let mut claims = ring_claims()
            .filter(phone_number::Column::E164.eq(e164.as_str()))
            .filter(connection::Column::Kind.eq(kind));
        if let Some(account) = account {
            claims = claims.filter(connection::Column::Account.eq(account));
        }
        self.ring_targets(claims).await
    }

    /// Whom a call may belong to that came over a connection and names no number: one for each of its numbers, the oldest first.
    /// The system's own.
    pub async fn numbers_behind(&self, connection: &ConnectionId) -> Result<Vec<RingTarget>, StoreError> {
        self.ring_targets(ring_claims().filter(connection::Column::Id.eq(connection.as_str()))).await
    }

    async fn ring_targets(
        &self,
        claims: SelectTwo<phone_number::Entity, connection::Entity>,
    ) -> Result<Vec<RingTarget>, StoreError> {
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
        source: NumberSource,
    ) -> Result<PhoneNumber, StoreError> {
        let connection = self.number_can_be(tx, scope, spec, None).await?;
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
            source: if connection.kind == SIP { NumberSource::Sip } else { source },
            route: None,
            operation: None,
            status: NumberStatus::Inactive,
            status_reason: None,
            checked_at_us: None,
            revision: 1,
            created_at_us: now_us,
            updated_at_us: now_us,
        };
        tenant::insert::<phone_number::Entity>(tx, (&number).into())
            .await
            .on_taken("phone number", "another request was first")?;
        let number = restate(tx, number.id.as_str(), Fault::Keep).await?.unwrap_or(number);
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
        if spec.connection != before.connection && (before.route.is_some() || before.operation.is_some()) {
            return Err(StoreError::Invalid {
                what: "phone number",
                reason: "its calls are sent here by the connection it has: remove it, and add it through the other one".into(),
            });
        }
        let after = PhoneNumber {
            connection: spec.connection.clone(),
            e164: spec.e164.clone(),
            name: spec.name.clone(),
            capabilities: spec.capabilities.clone(),
            settings: spec.settings.clone(),
            forward_to: spec.forward_to.clone(),
            inbound_agent: spec.inbound_agent.clone(),
            revision: before.revision + 1,
            updated_at_us: self.now_us(),
            ..before.clone()
        };
        let row = phone_number::Model::from(&after).into_active_model().reset_all();
        // What is done to it at its carrier meanwhile is not this change's.
        let row = phone_number::ActiveModel {
            our_routing: ActiveValue::NotSet,
            previous_routing: ActiveValue::NotSet,
            leads_here: ActiveValue::NotSet,
            operation: ActiveValue::NotSet,
            status: ActiveValue::NotSet,
            status_reason: ActiveValue::NotSet,
            checked_at_us: ActiveValue::NotSet,
            ..row
        };
        let updated = tenant::update::<phone_number::Entity>(scope)
            .set(row)
            .filter(phone_number::Column::Id.eq(before.id.as_str()))
            .filter(phone_number::Column::Revision.eq(before.revision))
            .exec(tx)
            .await
            .on_taken("phone number", "another request was first")?;
        if updated.rows_affected == 0 {
            return Err(changed_meanwhile("phone number", before.revision + 1));
        }
        let after = restate(tx, before.id.as_str(), Fault::Keep).await?.unwrap_or(after);
        let detail = json!({ "before": audited(before), "after": audited(&after) });
        self.audit(tx, scope, "phone_number.change", &after.id, detail).await?;
        Ok(after)
    }

    async fn number_can_be(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        spec: &NumberSpec,
        before: Option<&PhoneNumber>,
    ) -> Result<connection::Model, StoreError> {
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
        let holder = same_account(tx, scope, &connection)
            .await?
            .filter(phone_number::Column::E164.eq(spec.e164.as_str()))
            .filter(phone_number::Column::Id.ne(before.map_or("", |before| before.id.as_str())))
            .one(tx)
            .await?;
        match holder {
            Some(row) => Err(StoreError::Conflict {
                what: "phone number",
                holder: number_holder(tx, scope, &row).await?,
            }),
            None => Ok(connection),
        }
    }
}

/// A number that is due for a look, and the scope in which that is done.
fn due_number(
    home: Option<workspace::Model>,
    row: phone_number::Model,
) -> Result<(Scope, PhoneNumber), StoreError> {
    let home = home.ok_or_else(|| StoreError::corrupt("phone_number.workspace", "it leads nowhere"))?;
    let organization = parse("workspace.organization", &home.organization)?;
    let number = PhoneNumber::try_from(row)?;
    Ok((Scope::of_job(organization, number.workspace.clone(), "drift"), number))
}

/// A number as it is audited: where its calls went before may have somebody's password in it.
fn audited(number: &PhoneNumber) -> Value {
    let mut number = number.clone();
    if let Some(route) = &mut number.route {
        (route.ours, route.previous) = (route.ours.shown(), route.previous.shown());
    }
    json!(number)
}

/// Why nothing else can be begun with a number.
pub(crate) fn under_way(operation: &str) -> StoreError {
    StoreError::Conflict { what: "phone number", holder: format!("{operation} is at work on it") }
}

/// The kind of connection whose numbers no carrier has to be asked for.
const SIP: &str = "sip";

/// The numbers that are reached through a connection, or another of the organization to the same account.
async fn same_account(
    db: &impl ConnectionTrait,
    scope: &Scope,
    connection: &connection::Model,
) -> Result<Select<phone_number::Entity>, StoreError> {
    let mut ids = vec![connection.id.clone()];
    if let Some(account) = account(connection) {
        let others = tenant::find::<connection::Entity>(scope)
            .filter(connection::Column::Kind.eq(connection.kind.as_str()))
            .filter(connection::Column::Id.ne(connection.id.as_str()));
        let others = others.all(db).await?.into_iter();
        ids.extend(others.filter(|other| self::account(other).as_ref() == Some(&account)).map(|row| row.id));
    }
    Ok(phone_number::Entity::find().filter(phone_number::Column::Connection.is_in(ids)))
}

/// Which account a connection is to. One at Telnyx has no id there, but a key of its own that its webhooks are signed with.
fn account(connection: &connection::Model) -> Option<String> {
    let key = || {
        let config: Value = serde_json::from_str(&connection.config).ok()?;
        Some(config.get("public_key")?.as_str()?.trim().to_owned())
    };
    connection.account.clone().or_else(key)
}

/// What becomes of a number's fault when its status is worked out anew.
#[derive(Clone, Copy)]
pub(crate) enum Fault<'a> {
    /// It stays.
    Keep,
    /// It is this, or none any more.
    Set(Option<&'a str>),
}

/// Works a number's status out anew, and returns the number; `None` if it is gone.
pub(crate) async fn restate(
    tx: &DatabaseTransaction,
    id: &str,
    fault: Fault<'_>,
) -> Result<Option<PhoneNumber>, StoreError> {
    let Some(row) = phone_number::Entity::find_by_id(id).one(tx).await? else { return Ok(None) };
    let mut number = PhoneNumber::try_from(row)?;
    let fault = match fault {
        Fault::Set(fault) => fault.map(Into::into),
        Fault::Keep if number.status == NumberStatus::Error => number.status_reason.take(),
        Fault::Keep => None,
    };
    (number.status, number.status_reason) = match fault {
        Some(fault) => (NumberStatus::Error, Some(fault)),
        None => standing(tx, &number).await?,
    };
    phone_number::Entity::update_many()
        .col_expr(phone_number::Column::Status, Expr::value(number.status.as_str()))
        .col_expr(phone_number::Column::StatusReason, Expr::value(number.status_reason.as_deref()))
        .filter(phone_number::Column::Id.eq(id))
        .exec(tx)
        .await?;
    Ok(Some(number))
}

/// Whether a number without a fault answers, and why it does not.
async fn standing(
    tx: &DatabaseTransaction,
    number: &PhoneNumber,
) -> Result<(NumberStatus, Option<String>), StoreError> {
    let inactive = |why: String| Ok((NumberStatus::Inactive, Some(why)));
    match (&number.route, &number.operation) {
        (None, Some(_)) => return inactive("it is being set up".into()),
        (Some(route), None) if !route.leads_here => {
            return inactive(
                "its calls go where they went before it was added: start its agent, or take it back".into(),
            );
        }
        _ => {}
    }
    let Some(agent) = &number.inbound_agent else {
        let forwards = number.forward_to.is_some();
        return Ok((if forwards { NumberStatus::Active } else { NumberStatus::Inactive }, None));
    };
    match agent::Entity::find_by_id(agent.as_str()).one(tx).await? {
        Some(agent) if !agent.running && number.forward_to.is_none() => {
            inactive(format!("its agent `{}` is stopped", agent.name))
        }
        _ => Ok((NumberStatus::Active, None)),
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
}

/// Names who holds a number as far as the asker may know: its name within the workspace, the workspace's within the organization.
async fn number_holder(
    tx: &impl ConnectionTrait,
    scope: &Scope,
    row: &phone_number::Model,
) -> Result<String, StoreError> {
    if row.workspace == scope.workspace().as_str() {
        let agent = match &row.inbound_agent {
            Some(agent) => agent::Entity::find_by_id(agent.as_str()).one(tx).await?,
            None => None,
        };
        let answers = agent.map_or(String::new(), |agent| format!(", and agent `{}` answers it", agent.name));
        return Ok(format!("`{}` ({}) has it{answers}", row.name, row.id));
    }
    let workspace = workspace::Entity::find_by_id(row.workspace.as_str()).one(tx).await?;
    Ok(match workspace {
        Some(workspace) => format!("workspace `{}` has it", workspace.name),
        None => "another workspace has it".into(),
    })
}
