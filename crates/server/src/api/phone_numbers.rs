//! Phone numbers and what is set on them: which account they are reached through and which agent answers. It does not know how.

use super::request::{Body, Id, Name, Paging, Params, given};
use super::{Page, Time, words};
use crate::app::App;
use crate::auth::Caller;
use crate::problem::{About, Problem};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use offhook_core::entity::{self, Capability, NumberStatus};
use offhook_core::{AgentId, ConnectionId, E164, PhoneNumberId};
use offhook_store::{NumberSpec, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::ToSchema;

/// A phone number and everything set on it.
#[derive(Serialize, ToSchema)]
pub struct PhoneNumber {
    /// `num_…`
    id: String,
    /// `con_…`: the carrier account it is reached through.
    connection: String,
    /// The number.
    #[schema(example = "+14155550123")]
    e164: String,
    /// Its name.
    name: String,
    /// What it can carry.
    #[schema(schema_with = words::capabilities)]
    capabilities: Vec<Capability>,
    /// Where calls go that are forwarded.
    forward_to: Option<String>,
    /// `agt_…`: who answers.
    inbound_agent: Option<String>,
    /// Whether it answers.
    #[schema(schema_with = words::number_status)]
    status: NumberStatus,
    /// Why it does not.
    status_reason: Option<String>,
    /// Grows with every change.
    revision: i64,
    /// When it was made.
    created_at: Time,
    /// When its settings last changed.
    updated_at: Time,
}

/// A number to be added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPhoneNumber {
    /// `con_…`: the carrier account it is reached through.
    #[schema(value_type = String)]
    connection: ConnectionId,
    /// The number, in E.164.
    #[schema(value_type = String, example = "+14155550123")]
    e164: E164,
    /// Its name; the number itself if it is left out.
    name: Option<Name>,
    /// What it can carry; calls if it is left out.
    #[serde(default = "calls_only")]
    #[schema(schema_with = words::capabilities, required = false)]
    capabilities: Vec<Capability>,
    /// Where calls go that are forwarded, in E.164.
    #[schema(value_type = Option<String>)]
    forward_to: Option<E164>,
    /// `agt_…`: who answers.
    #[schema(value_type = Option<String>)]
    inbound_agent: Option<AgentId>,
}

/// What is to change on a number; what is left out stays, what is null is cleared.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PhoneNumberChange {
    #[schema(value_type = Option<String>)]
    connection: Option<ConnectionId>,
    name: Option<Name>,
    #[schema(schema_with = words::capabilities, required = false)]
    capabilities: Option<Vec<Capability>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    forward_to: Option<Option<E164>>,
    /// The agent that gets the next call.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    inbound_agent: Option<Option<AgentId>>,
    /// The revision that the change is based on: when another change came in between, it is refused.
    revision: Option<i64>,
}

fn calls_only() -> Vec<Capability> {
    vec![Capability::Voice]
}

impl From<entity::PhoneNumber> for PhoneNumber {
    fn from(row: entity::PhoneNumber) -> Self {
        PhoneNumber {
            id: row.id.into(),
            connection: row.connection.into(),
            e164: row.e164.into(),
            name: row.name,
            capabilities: row.capabilities,
            forward_to: row.forward_to.map(E164::into),
            inbound_agent: row.inbound_agent.map(AgentId::into),
            status: row.status,
            status_reason: row.status_reason,
            revision: row.revision,
            created_at: Time::from_us(row.created_at_us),
            updated_at: Time::from_us(row.updated_at_us),
        }
    }
}

/// Lists numbers
#[utoipa::path(get, path = "/api/phone-numbers", tag = "phone numbers", operation_id = "listPhoneNumbers",
    params(Paging), responses((status = OK, body = Page<PhoneNumber>)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<PhoneNumber>>, Problem> {
    Ok(Json(Page::of(app.store.numbers(&scope, &paging.page()?).await?)))
}

/// Adds a number
#[utoipa::path(post, path = "/api/phone-numbers", tag = "phone numbers", operation_id = "createPhoneNumber",
    request_body = NewPhoneNumber, responses((status = CREATED, body = PhoneNumber)))]
pub async fn create(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Body(new): Body<NewPhoneNumber>,
) -> Result<(StatusCode, Json<PhoneNumber>), Problem> {
    let spec = NumberSpec {
        name: new.name.map_or_else(|| new.e164.to_string(), Name::into),
        connection: new.connection,
        e164: new.e164,
        capabilities: new.capabilities,
        settings: Value::Object(Map::new()),
        forward_to: new.forward_to,
        inbound_agent: new.inbound_agent,
    };
    carries_something(&spec)?;
    let number = app.store.create_number(&scope, &spec).await.map_err(|error| refusal(error, &spec))?;
    Ok((StatusCode::CREATED, Json(number.into())))
}

/// Reads a number
#[utoipa::path(get, path = "/api/phone-numbers/{id}", tag = "phone numbers", operation_id = "readPhoneNumber",
    params(("id" = String, Path)), responses((status = OK, body = PhoneNumber)))]
pub async fn read(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<PhoneNumberId>,
) -> Result<Json<PhoneNumber>, Problem> {
    Ok(Json(app.store.number(&scope, &id).await.about(&id)?.into()))
}

/// Changes a number; the next call gets it
#[utoipa::path(patch, path = "/api/phone-numbers/{id}", tag = "phone numbers", operation_id = "changePhoneNumber",
    params(("id" = String, Path)), request_body = PhoneNumberChange, responses((status = OK, body = PhoneNumber)))]
pub async fn change(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<PhoneNumberId>,
    Body(change): Body<PhoneNumberChange>,
) -> Result<Json<PhoneNumber>, Problem> {
    let now = app.store.number(&scope, &id).await.about(&id)?;
    let spec = NumberSpec {
        connection: change.connection.unwrap_or(now.connection),
        e164: now.e164,
        name: change.name.map_or(now.name, Name::into),
        capabilities: change.capabilities.unwrap_or(now.capabilities),
        settings: now.settings,
        forward_to: change.forward_to.unwrap_or(now.forward_to),
        inbound_agent: change.inbound_agent.unwrap_or(now.inbound_agent),
    };
    carries_something(&spec)?;
    let revision = change.revision.unwrap_or(now.revision);
    let changed = app.store.replace_number(&scope, &id, revision, &spec).await;
    Ok(Json(changed.map_err(|error| refusal(error, &spec))?.into()))
}

/// Removes a number; its conversations stay
#[utoipa::path(delete, path = "/api/phone-numbers/{id}", tag = "phone numbers", operation_id = "deletePhoneNumber",
    params(("id" = String, Path)), responses((status = NO_CONTENT)))]
pub async fn delete(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<PhoneNumberId>,
) -> Result<StatusCode, Problem> {
    app.store.delete_number(&scope, &id).await.about(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

fn carries_something(spec: &NumberSpec) -> Result<(), Problem> {
    match spec.capabilities.is_empty() {
        true => Err(Problem::invalid(
            "capabilities",
            "a number carries at least one thing: name it, or leave the field out",
        )),
        false => Ok(()),
    }
}

/// Why a number cannot be so, naming what it refers to and what is not there.
fn refusal(error: StoreError, spec: &NumberSpec) -> Problem {
    let missing = match &error {
        StoreError::NotFound { what: "connection" } => Some(spec.connection.as_str()),
        StoreError::NotFound { what: "agent" } => spec.inbound_agent.as_ref().map(AgentId::as_str),
        _ => None,
    };
    Problem::from(error).about(missing.unwrap_or(spec.e164.as_str()))
}
