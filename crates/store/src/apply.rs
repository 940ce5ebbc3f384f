//! Brings connections, agents and numbers to what a file declares: all of it or nothing, and nothing where all is so already.
//! It does not know the file, and removes nothing that the file does not name.

use crate::agents::AgentSpec;
use crate::connections::ConnectionSpec;
use crate::error::StoreError;
use crate::numbers::NumberSpec;
use crate::rows::{agent, connection, phone_number};
use crate::scope::Scope;
use crate::{Store, tenant};
use offhook_core::entity::{Agent, Capability, NumberSource, PhoneNumber};
use offhook_core::{AgentId, ConnectionId, E164};
use sea_orm::{ColumnTrait, DatabaseTransaction, QueryFilter};
use serde_json::Value;

/// What shall be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declaration {
    /// Connections, known by their names.
    pub connections: Vec<ConnectionSpec>,
    /// Agents, known by their names.
    pub agents: Vec<AgentSpec>,
    /// Numbers, known by connection and number.
    pub numbers: Vec<DeclaredNumber>,
}

/// A number that refers to others by name.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredNumber {
    /// Name of the connection: declared beside it, or there before.
    pub connection: String,
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
    /// Name of the agent that answers: declared beside it, or there before.
    pub inbound_agent: Option<String>,
}

/// Whether a declaration is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// It is.
    Write,
    /// It is tried in full and then undone.
    DryRun,
}

/// What became, or would become, of one thing declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What it is: connection, agent, phone number.
    pub what: &'static str,
    /// Its name in the declaration.
    pub name: String,
    /// What was done.
    pub change: Change,
}

/// What was done to one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Created,
    /// It was different.
    Changed,
    /// It was so already.
    Unchanged,
}

impl Store {
    /// Carries a declaration out in one transaction and tells what changed, in the order declared: connections, agents, numbers.
    pub async fn apply(
        &self,
        scope: &Scope,
        declaration: &Declaration,
        apply: Apply,
    ) -> Result<Vec<Applied>, StoreError> {
        let tx = self.begin().await?;
        let mut applied = Vec::new();
        for spec in &declaration.connections {
            let change = self.apply_connection(&tx, scope, spec).await?;
            applied.push(Applied { what: "connection", name: spec.name.clone(), change });
        }
        for spec in &declaration.agents {
            let change = self.apply_agent(&tx, scope, spec).await?;
            applied.push(Applied { what: "agent", name: spec.name.clone(), change });
        }
        for number in &declaration.numbers {
            let change = self.apply_number(&tx, scope, number).await?;
            applied.push(Applied { what: "phone number", name: number.e164.to_string(), change });
        }
        match apply {
            Apply::Write => tx.commit().await?,
            Apply::DryRun => tx.rollback().await?,
        }
        Ok(applied)
    }

    async fn apply_connection(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        spec: &ConnectionSpec,
    ) -> Result<Change, StoreError> {
        let Some(row) = connection_named(tx, scope, &spec.name).await? else {
            self.add_connection(tx, scope, spec).await?;
            return Ok(Change::Created);
        };
        if self.is_as_declared(&row, spec)? {
            return Ok(Change::Unchanged);
        }
        self.change_connection(tx, scope, row, spec).await?;
        Ok(Change::Changed)
    }

    async fn apply_agent(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        spec: &AgentSpec,
    ) -> Result<Change, StoreError> {
        let Some(row) = agent_named(tx, scope, &spec.name).await? else {
            self.add_agent(tx, scope, spec).await?;
            return Ok(Change::Created);
        };
        let agent = Agent::try_from(row)?;
        if self.agent_is(tx, scope, &agent, spec).await? {
            return Ok(Change::Unchanged);
        }
        self.change_agent(tx, scope, &agent, spec).await?;
        Ok(Change::Changed)
    }

    async fn apply_number(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        number: &DeclaredNumber,
    ) -> Result<Change, StoreError> {
        let spec = resolve(tx, scope, number).await?;
        let row = tenant::find::<phone_number::Entity>(scope)
            .filter(phone_number::Column::Connection.eq(spec.connection.as_str()))
            .filter(phone_number::Column::E164.eq(spec.e164.as_str()))
            .one(tx)
            .await?;
        let Some(row) = row else {
            self.add_number(tx, scope, &spec, NumberSource::Byo).await?;
            return Ok(Change::Created);
        };
        let before = PhoneNumber::try_from(row)?;
        if spec.describes(&before) {
            return Ok(Change::Unchanged);
        }
        self.change_number(tx, scope, &before, &spec).await?;
        Ok(Change::Changed)
    }
}

/// Finds what a declared number refers to by name.
async fn resolve(
    tx: &DatabaseTransaction,
    scope: &Scope,
    number: &DeclaredNumber,
) -> Result<NumberSpec, StoreError> {
    let unknown = |kind: &str, name: &str| StoreError::Invalid {
        what: "phone number",
        reason: format!("{} names {kind} `{name}`, which is neither declared nor there", number.e164),
    };
    let connection: ConnectionId = connection_named(tx, scope, &number.connection)
        .await?
        .ok_or_else(|| unknown("connection", &number.connection))?
        .id
        .parse()
        .map_err(|error| StoreError::corrupt("connection.id", error))?;
    let inbound_agent: Option<AgentId> = match &number.inbound_agent {
        None => None,
        Some(name) => {
            let row = agent_named(tx, scope, name).await?.ok_or_else(|| unknown("agent", name))?;
            Some(Agent::try_from(row)?.id)
        }
    };
    Ok(NumberSpec {
        connection,
        e164: number.e164.clone(),
        name: number.name.clone(),
        capabilities: number.capabilities.clone(),
        settings: number.settings.clone(),
        forward_to: number.forward_to.clone(),
        inbound_agent,
    })
}

async fn connection_named(
    tx: &DatabaseTransaction,
    scope: &Scope,
    name: &str,
) -> Result<Option<connection::Model>, StoreError> {
    let named = tenant::find::<connection::Entity>(scope).filter(connection::Column::Name.eq(name));
    Ok(named.one(tx).await?)
}

async fn agent_named(
    tx: &DatabaseTransaction,
    scope: &Scope,
    name: &str,
) -> Result<Option<agent::Model>, StoreError> {
    let named = tenant::find::<agent::Entity>(scope).filter(agent::Column::Name.eq(name));
    Ok(named.one(tx).await?)
}
