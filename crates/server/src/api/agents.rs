//! Agents and their versions: every change of settings is a new version, and each can be gone back to. It does not know calls.

use super::request::{Body, Id, Ids, Name, Paging, Params};
use super::telephony::{self, Operation, OperationLog};
use super::{Page, Time};
use crate::agent::AgentConfig;
use crate::app::App;
use crate::auth::Caller;
use crate::call::plan;
use crate::numbers;
use crate::problem::{About, Problem};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use offhook_core::entity;
use offhook_core::{AgentId, AgentVersionId};
use offhook_store::{AgentSpec, Scope, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

/// An agent as it is listed.
#[derive(Serialize, ToSchema)]
pub struct AgentSummary {
    /// `agt_…`
    id: String,
    /// Its name, unique in the workspace.
    name: String,
    /// Whether it answers at all.
    running: bool,
    /// The number of its current version; grows with every change of settings.
    version: i64,
    /// Grows with every change.
    revision: i64,
    /// `agv_…`: the current version.
    current: String,
    /// When it was made.
    created_at: Time,
    /// When it last changed.
    updated_at: Time,
}

/// An agent with its settings.
#[derive(Serialize, ToSchema)]
pub struct Agent {
    #[serde(flatten)]
    summary: AgentSummary,
    /// Its settings, as they were written; what is left out has its default.
    #[schema(value_type = AgentConfig)]
    config: Value,
}

/// An agent to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAgent {
    /// Its name, unique in the workspace.
    name: Name,
    /// Whether it answers at all.
    #[serde(default = "yes")]
    #[schema(default = true)]
    running: bool,
    /// Its settings.
    #[schema(value_type = AgentConfig)]
    config: Value,
}

/// What is to change on an agent; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentChange {
    name: Option<Name>,
    running: Option<bool>,
    /// All of its settings.
    #[schema(value_type = Option<AgentConfig>)]
    config: Option<Value>,
    /// The revision that the change is based on: when another change came in between, it is refused.
    revision: Option<i64>,
}

/// One saved state of an agent. It never changes.
#[derive(Serialize, ToSchema)]
pub struct AgentVersion {
    /// `agv_…`
    id: String,
    /// `agt_…`
    agent: String,
    /// Counts from 1.
    number: i64,
    /// The settings.
    #[schema(value_type = AgentConfig)]
    config: Value,
    /// When it was saved.
    created_at: Time,
}

fn yes() -> bool {
    true
}

impl From<entity::Agent> for AgentSummary {
    fn from(row: entity::Agent) -> Self {
        AgentSummary {
            id: row.id.into(),
            name: row.name,
            running: row.running,
            version: row.version,
            revision: row.revision,
            current: row.current.into(),
            created_at: Time::from_us(row.created_at_us),
            updated_at: Time::from_us(row.updated_at_us),
        }
    }
}

impl From<entity::AgentVersion> for AgentVersion {
    fn from(row: entity::AgentVersion) -> Self {
        AgentVersion {
            id: row.id.into(),
            agent: row.agent.into(),
            number: row.number,
            config: row.config,
            created_at: Time::from_us(row.created_at_us),
        }
    }
}

/// Lists agents, without their settings
#[utoipa::path(get, path = "/api/agents", tag = "agents", operation_id = "listAgents", params(Paging),
    responses((status = OK, body = Page<AgentSummary>)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<AgentSummary>>, Problem> {
    Ok(Json(Page::of(app.store.agents(&scope, &paging.page()?).await?)))
}

/// Makes an agent
#[utoipa::path(post, path = "/api/agents", tag = "agents", operation_id = "createAgent", request_body = NewAgent,
    responses((status = CREATED, body = Agent)))]
pub async fn create(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Body(new): Body<NewAgent>,
) -> Result<(StatusCode, Json<Agent>), Problem> {
    AgentConfig::read(&new.config)?;
    let spec = AgentSpec { name: new.name.into(), running: new.running, config: new.config };
    let row = app.store.create_agent(&scope, &spec).await?;
    Ok((StatusCode::CREATED, Json(Agent { summary: row.into(), config: spec.config })))
}

/// Reads an agent
#[utoipa::path(get, path = "/api/agents/{id}", tag = "agents", operation_id = "readAgent",
    params(("id" = String, Path)), responses((status = OK, body = Agent)))]
pub async fn read(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<AgentId>,
) -> Result<Json<Agent>, Problem> {
    let row = app.store.agent(&scope, &id).await.about(&id)?;
    let config = app.store.agent_version(&scope, &row.current).await.about(&id)?.config;
    Ok(Json(Agent { summary: row.into(), config }))
}

/// Changes an agent; other settings make a new version, and the next call gets it
#[utoipa::path(patch, path = "/api/agents/{id}", tag = "agents", operation_id = "changeAgent",
    params(("id" = String, Path)), request_body = AgentChange, responses((status = OK, body = Agent)))]
pub async fn change(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<AgentId>,
    Body(change): Body<AgentChange>,
) -> Result<Json<Agent>, Problem> {
    if let Some(config) = &change.config {
        AgentConfig::read(config)?;
    }
    Ok(Json(save(&app, &scope, &id, change).await.about(&id)?))
}

/// Removes an agent that answers no number; its conversations stay
#[utoipa::path(delete, path = "/api/agents/{id}", tag = "agents", operation_id = "deleteAgent",
    params(("id" = String, Path)), responses((status = NO_CONTENT)))]
pub async fn delete(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<AgentId>,
) -> Result<StatusCode, Problem> {
    app.store.delete_agent(&scope, &id).await.about(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells whether an agent could take a call now
///
/// A problem names what is missing: a connection that there is none of, settings that its provider does not take.
#[utoipa::path(post, path = "/api/agents/{id}/check", tag = "agents", operation_id = "checkAgent",
    params(("id" = String, Path)), responses((status = NO_CONTENT)))]
pub async fn check(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<AgentId>,
) -> Result<StatusCode, Problem> {
    plan::ready(&app, &scope, &id).await.about(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Starts an agent: from now on it answers, and its numbers are pointed here
///
/// Numbers that lead elsewhere are taken back. The operation tells each step.
#[utoipa::path(post, path = "/api/agents/{id}/start", tag = "agents", operation_id = "startAgent",
    params(("id" = String, Path)), responses((status = ACCEPTED, body = Operation)))]
pub async fn start(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<AgentId>,
) -> Result<(StatusCode, Json<Operation>), Problem> {
    let lines = app.store.numbers_of_agent(&scope, &id).await.about(&id)?;
    let begun = numbers::begin(&app, &scope, &numbers::plan::start(&id, &lines)).await;
    begun.map(telephony::accepted).about(&id)
}

/// Stops an agent: no new call reaches it from now on, calls in progress go on
///
/// Numbers that led elsewhere before they were imported are given back. The others stay here: their calls are forwarded if they say
/// where to, else declined.
#[utoipa::path(post, path = "/api/agents/{id}/stop", tag = "agents", operation_id = "stopAgent",
    params(("id" = String, Path)), responses((status = ACCEPTED, body = Operation)))]
pub async fn stop(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<AgentId>,
) -> Result<(StatusCode, Json<Operation>), Problem> {
    let lines = app.store.numbers_of_agent(&scope, &id).await.about(&id)?;
    let begun = numbers::begin(&app, &scope, &numbers::plan::stop(&id, &lines)).await;
    begun.map(telephony::accepted).about(&id)
}

/// Tells how an agent was started and stopped, step by step, the newest first
#[utoipa::path(get, path = "/api/agents/{id}/log", tag = "agents", operation_id = "readAgentLog",
    params(("id" = String, Path), Paging), responses((status = OK, body = Page<OperationLog>)))]
pub async fn log(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<AgentId>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<OperationLog>>, Problem> {
    let listed = app.store.operations(&scope, Some(&id), &paging.page()?).await.about(&id)?;
    let mut items = Vec::with_capacity(listed.rows.len());
    for operation in listed.rows {
        items.push(telephony::with_steps(&app, &scope, operation).await.about(&id)?);
    }
    Ok(Json(Page { items, next: listed.next }))
}

/// Lists an agent's versions
#[utoipa::path(get, path = "/api/agents/{id}/versions", tag = "agents", operation_id = "listAgentVersions",
    params(("id" = String, Path), Paging), responses((status = OK, body = Page<AgentVersion>)))]
pub async fn versions(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<AgentId>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<AgentVersion>>, Problem> {
    Ok(Json(Page::of(app.store.agent_versions(&scope, &id, &paging.page()?).await.about(&id)?)))
}

/// Goes back to a version: its settings become a new version
#[utoipa::path(post, path = "/api/agents/{id}/versions/{version}/restore", tag = "agents",
    operation_id = "restoreAgentVersion", params(("id" = String, Path), ("version" = String, Path)),
    responses((status = OK, body = Agent)))]
pub async fn restore(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Ids(id, version): Ids<AgentId, AgentVersionId>,
) -> Result<Json<Agent>, Problem> {
    let old = app.store.agent_version(&scope, &version).await.about(&version)?;
    if old.agent != id {
        return Err(Problem::from(StoreError::NotFound { what: "agent version" }).about(&version));
    }
    let change = AgentChange { name: None, running: None, config: Some(old.config), revision: None };
    Ok(Json(save(&app, &scope, &id, change).await.about(&id)?))
}

async fn save(app: &App, scope: &Scope, id: &AgentId, change: AgentChange) -> Result<Agent, StoreError> {
    let now = app.store.agent(scope, id).await?;
    let config = match change.config {
        Some(config) => config,
        None => app.store.agent_version(scope, &now.current).await?.config,
    };
    let spec = AgentSpec {
        name: change.name.map_or(now.name, Name::into),
        running: change.running.unwrap_or(now.running),
        config,
    };
    let row = app.store.save_agent(scope, id, change.revision.unwrap_or(now.revision), &spec).await?;
    Ok(Agent { summary: row.into(), config: spec.config })
}
