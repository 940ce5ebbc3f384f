//! Agents and their versions: every save that changes what an agent is adds a version, and none is ever changed.
//! It does not know what stands in an agent's settings.

use crate::connections::changed_meanwhile;
use crate::convert::{parse, to_json};
use crate::error::{OnTaken, StoreError};
use crate::numbers::{Fault, restate};
use crate::page::{self, Listed, Page};
use crate::rows::{agent, agent_version, phone_number, workspace};
use crate::scope::Scope;
use crate::{Store, tenant};
use offhook_core::entity::{Agent, AgentVersion};
use offhook_core::{AgentId, AgentVersionId};
use sea_orm::sea_query::Query;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, JoinType, QueryFilter,
    QueryOrder, QuerySelect,
};
use serde_json::{Value, json};

/// What can be set on an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentSpec {
    /// Its name, unique in the workspace.
    pub name: String,
    /// Whether it answers at all.
    pub running: bool,
    /// Instructions, voice, languages, abilities, patience.
    pub config: Value,
}

impl Store {
    /// Adds an agent with its first version.
    pub async fn create_agent(&self, scope: &Scope, spec: &AgentSpec) -> Result<Agent, StoreError> {
        let tx = self.begin().await?;
        let agent = self.add_agent(&tx, scope, spec).await?;
        tx.commit().await?;
        Ok(agent)
    }

    /// One agent.
    pub async fn agent(&self, scope: &Scope, id: &AgentId) -> Result<Agent, StoreError> {
        tenant::row::<agent::Entity>(self.read(), scope, id).await?.try_into()
    }

    /// The workspace's agents, newest first.
    pub async fn agents(&self, scope: &Scope, page: &Page) -> Result<Listed<Agent>, StoreError> {
        page::list(self.read(), tenant::find::<agent::Entity>(scope), page).await
    }

    /// One saved state of an agent.
    pub async fn agent_version(
        &self,
        scope: &Scope,
        id: &AgentVersionId,
    ) -> Result<AgentVersion, StoreError> {
        tenant::row::<agent_version::Entity>(self.read(), scope, id).await?.try_into()
    }

    /// An agent's saved states, newest first.
    pub async fn agent_versions(
        &self,
        scope: &Scope,
        agent: &AgentId,
        page: &Page,
    ) -> Result<Listed<AgentVersion>, StoreError> {
        tenant::row::<agent::Entity>(self.read(), scope, agent).await?;
        let versions = tenant::find::<agent_version::Entity>(scope)
            .filter(agent_version::Column::Agent.eq(agent.as_str()));
        page::list(self.read(), versions, page).await
    }

    /// Running agents that answer a number, of any workspace, the newest first. The system's own.
    pub async fn answering_agents(&self, limit: u32) -> Result<Vec<(Scope, Agent)>, StoreError> {
        let mut answering = Query::select();
        answering.column(phone_number::Column::InboundAgent).from(phone_number::Entity);
        answering.and_where(phone_number::Column::InboundAgent.is_not_null());
        let belongs = agent::Entity::belongs_to(workspace::Entity)
            .from(agent::Column::Workspace)
            .to(workspace::Column::Id);
        let rows = agent::Entity::find()
            .join(JoinType::InnerJoin, belongs.into())
            .select_also(workspace::Entity)
            .filter(agent::Column::Running.eq(true))
            .filter(agent::Column::Id.in_subquery(answering))
            .order_by_desc(agent::Column::Id)
            .limit(u64::from(limit))
            .all(self.read())
            .await?;
        let with_scope = |(agent, workspace): (agent::Model, Option<workspace::Model>)| {
            let workspace =
                workspace.ok_or_else(|| StoreError::corrupt("agent.workspace", "it leads nowhere"))?;
            let organization = parse("workspace.organization", &workspace.organization)?;
            let agent = Agent::try_from(agent)?;
            Ok((Scope::of_job(organization, agent.workspace.clone(), "rehearse"), agent))
        };
        rows.into_iter().map(with_scope).collect()
    }

    /// Sets everything on an agent, based on the revision that was read. The next call gets it.
    ///
    /// Other settings are a new version; where they are as they were, none is added: a name is not a version's.
    pub async fn save_agent(
        &self,
        scope: &Scope,
        id: &AgentId,
        revision: i64,
        spec: &AgentSpec,
    ) -> Result<Agent, StoreError> {
        let tx = self.begin().await?;
        let before: Agent = tenant::row::<agent::Entity>(&tx, scope, id).await?.try_into()?;
        if before.revision != revision {
            return Err(changed_meanwhile("agent", before.revision));
        }
        let agent = self.change_agent(&tx, scope, &before, spec).await?;
        tx.commit().await?;
        Ok(agent)
    }

    /// Removes an agent and its versions; `Conflict` names a number that it answers. Its conversations stay.
    pub async fn delete_agent(&self, scope: &Scope, id: &AgentId) -> Result<(), StoreError> {
        let tx = self.begin().await?;
        let row = tenant::row::<agent::Entity>(&tx, scope, id).await?;
        let needed = tenant::find::<phone_number::Entity>(scope)
            .filter(phone_number::Column::InboundAgent.eq(id.as_str()))
            .one(&tx)
            .await?;
        if let Some(number) = needed {
            return Err(StoreError::Conflict {
                what: "agent",
                holder: format!("it answers {}", number.e164),
            });
        }
        tenant::delete::<agent::Entity>(scope)
            .filter(agent::Column::Id.eq(id.as_str()))
            .exec(&tx)
            .await
            .on_taken("agent", "it answers a number")?;
        self.audit(&tx, scope, "agent.delete", id, json!({ "name": row.name })).await?;
        Ok(tx.commit().await?)
    }

    pub(crate) async fn add_agent(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        spec: &AgentSpec,
    ) -> Result<Agent, StoreError> {
        self.agent_name_is_free(tx, scope, spec, None).await?;
        let now_us = self.now_us();
        let agent = Agent {
            id: AgentId::from_ulid(&self.ulid()),
            workspace: scope.workspace().clone(),
            name: spec.name.clone(),
            running: spec.running,
            current: AgentVersionId::from_ulid(&self.ulid()),
            version: 1,
            revision: 1,
            created_at_us: now_us,
            updated_at_us: now_us,
        };
        tenant::insert::<agent::Entity>(tx, (&agent).into())
            .await
            .on_taken("agent name", "another request was first")?;
        self.add_version(tx, &agent, spec).await?;
        self.audit(tx, scope, "agent.create", &agent.id, json!({ "after": agent })).await?;
        Ok(agent)
    }

    pub(crate) async fn change_agent(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        before: &Agent,
        spec: &AgentSpec,
    ) -> Result<Agent, StoreError> {
        self.agent_name_is_free(tx, scope, spec, Some(&before.id)).await?;
        let current: AgentVersion =
            tenant::row::<agent_version::Entity>(tx, scope, &before.current).await?.try_into()?;
        let mut after = Agent {
            name: spec.name.clone(),
            running: spec.running,
            revision: before.revision + 1,
            updated_at_us: self.now_us(),
            ..before.clone()
        };
        let same_config = current.config == spec.config;
        if !same_config {
            after.current = AgentVersionId::from_ulid(&self.ulid());
            after.version += 1;
        }
        let updated = tenant::update::<agent::Entity>(scope)
            .set(agent::Model::from(&after).into_active_model().reset_all())
            .filter(agent::Column::Id.eq(before.id.as_str()))
            .filter(agent::Column::Revision.eq(before.revision))
            .exec(tx)
            .await
            .on_taken("agent name", "another request was first")?;
        if updated.rows_affected == 0 {
            return Err(changed_meanwhile("agent", before.revision + 1));
        }
        if !same_config {
            self.add_version(tx, &after, spec).await?;
        }
        if after.running != before.running || after.name != before.name {
            restate_lines(tx, &after.id).await?;
        }
        self.audit(tx, scope, "agent.save", &after.id, json!({ "before": before, "after": after })).await?;
        Ok(after)
    }

    /// Whether a save would leave everything as it is.
    pub(crate) async fn agent_is(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        agent: &Agent,
        spec: &AgentSpec,
    ) -> Result<bool, StoreError> {
        let current: AgentVersion =
            tenant::row::<agent_version::Entity>(tx, scope, &agent.current).await?.try_into()?;
        Ok(agent.name == spec.name && agent.running == spec.running && current.config == spec.config)
    }

    async fn add_version(
        &self,
        tx: &DatabaseTransaction,
        agent: &Agent,
        spec: &AgentSpec,
    ) -> Result<(), StoreError> {
        let row = agent_version::Model {
            id: agent.current.to_string(),
            workspace: agent.workspace.to_string(),
            agent: agent.id.to_string(),
            number: agent.version,
            config: to_json(&spec.config),
            created_at_us: agent.updated_at_us,
        };
        tenant::insert::<agent_version::Entity>(tx, row)
            .await
            .on_taken("agent version", "another request was first")
    }

    async fn agent_name_is_free(
        &self,
        tx: &DatabaseTransaction,
        scope: &Scope,
        spec: &AgentSpec,
        but_for: Option<&AgentId>,
    ) -> Result<(), StoreError> {
        let holder = tenant::find::<agent::Entity>(scope)
            .filter(agent::Column::Name.eq(spec.name.as_str()))
            .one(tx)
            .await?;
        match holder {
            Some(row) if but_for.is_none_or(|id| id.as_str() != row.id) => {
                Err(StoreError::Conflict { what: "agent name", holder: format!("{} has it", row.id) })
            }
            _ => Ok(()),
        }
    }
}

/// Works out anew whether the numbers answer that an agent stands behind.
pub(crate) async fn restate_lines(tx: &DatabaseTransaction, agent: &AgentId) -> Result<(), StoreError> {
    let answered = phone_number::Column::InboundAgent.eq(agent.as_str());
    for number in phone_number::Entity::find().filter(answered).all(tx).await? {
        restate(tx, &number.id, Fault::Keep).await?;
    }
    Ok(())
}
