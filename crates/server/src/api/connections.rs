//! Connections: accounts at carriers and providers, made, changed and tried out. A secret goes in and never comes out.

use super::request::{Body, Id, Name, Paging, Params, given};
use super::{Page, Time, words};
use crate::app::App;
use crate::auth::Caller;
use crate::carrier::CarrierControl;
use crate::connection::{self, leads_elsewhere};
use crate::problem::{About, Problem};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use offhook_core::entity::{self, ConnectionStatus, is_carrier};
use offhook_core::{ConnectionId, Secret};
use offhook_store::ConnectionSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::ToSchema;

/// What stands where a secret is stored.
const MASK: &str = "••••";

/// An account at a carrier or a provider.
#[derive(Serialize, ToSchema)]
pub struct Connection {
    /// `con_…`
    id: String,
    /// What it connects to.
    #[schema(example = "twilio")]
    kind: String,
    /// Its name, unique in the organization; agents name it by this.
    name: String,
    /// The outside account's id, by which its webhooks are told apart.
    account: Option<String>,
    /// Settings that are no secret.
    #[schema(value_type = Object)]
    config: Value,
    /// `••••` where a secret is stored. The secret itself cannot be read, only replaced.
    secret: Option<&'static str>,
    /// Whether it works, as far as is known.
    #[schema(schema_with = words::connection_status)]
    status: ConnectionStatus,
    /// Why it does not, and what to do.
    status_reason: Option<String>,
    /// When it was last checked.
    checked_at: Option<Time>,
    /// Grows with every change.
    revision: i64,
    /// When it was made.
    created_at: Time,
    /// When its settings last changed.
    updated_at: Time,
}

/// A connection to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewConnection {
    /// `twilio`, `openai`, `deepgram`, `deepgram_flux`, `elevenlabs` or `cartesia`. It never changes.
    #[schema(example = "twilio")]
    kind: String,
    /// Its name, unique in the organization.
    name: Name,
    /// The outside account's id: the Account SID of Twilio.
    #[schema(value_type = Option<String>)]
    account: Option<Name>,
    /// Settings that are no secret: region, base URL, model.
    #[serde(default)]
    #[schema(value_type = Object)]
    config: Map<String, Value>,
    /// Token or key. It is sealed and never shown again.
    #[schema(value_type = Option<String>, write_only)]
    secret: Option<Secret<String>>,
}

/// What is to change on a connection; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionChange {
    name: Option<Name>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    account: Option<Option<Name>>,
    /// All settings that are no secret. Where they lead to another host, `secret` must be sent again.
    #[schema(value_type = Option<Object>)]
    config: Option<Map<String, Value>>,
    /// The new token or key.
    #[schema(value_type = Option<String>, write_only)]
    secret: Option<Secret<String>>,
    /// The revision that the change is based on: when another change came in between, it is refused.
    revision: Option<i64>,
}

impl From<entity::Connection> for Connection {
    fn from(row: entity::Connection) -> Self {
        Connection {
            id: row.id.into(),
            kind: row.kind,
            name: row.name,
            account: row.account,
            config: row.config,
            secret: row.has_secret.then_some(MASK),
            status: row.status,
            status_reason: row.status_reason,
            checked_at: row.checked_at_us.map(Time::from_us),
            revision: row.revision,
            created_at: Time::from_us(row.created_at_us),
            updated_at: Time::from_us(row.updated_at_us),
        }
    }
}

/// Lists connections
#[utoipa::path(get, path = "/api/connections", tag = "connections", operation_id = "listConnections", params(Paging),
    responses((status = OK, body = Page<Connection>)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<Connection>>, Problem> {
    Ok(Json(Page::of(app.store.connections(&scope, &paging.page()?).await?)))
}

/// Makes a connection
#[utoipa::path(post, path = "/api/connections", tag = "connections", operation_id = "createConnection",
    request_body = NewConnection, responses((status = CREATED, body = Connection)))]
pub async fn create(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Body(new): Body<NewConnection>,
) -> Result<(StatusCode, Json<Connection>), Problem> {
    let spec = ConnectionSpec {
        kind: new.kind,
        name: new.name.into(),
        account: new.account.map(Name::into),
        config: Value::Object(new.config),
        secret: new.secret,
    };
    connection::check(&spec)?;
    let connection = app.store.create_connection(&scope, &spec).await?;
    Ok((StatusCode::CREATED, Json(connection.into())))
}

/// Reads a connection
#[utoipa::path(get, path = "/api/connections/{id}", tag = "connections", operation_id = "readConnection",
    params(("id" = String, Path)), responses((status = OK, body = Connection)))]
pub async fn read(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConnectionId>,
) -> Result<Json<Connection>, Problem> {
    Ok(Json(app.store.connection(&scope, &id).await.about(&id)?.into()))
}

/// Changes a connection; the next call gets it
#[utoipa::path(patch, path = "/api/connections/{id}", tag = "connections", operation_id = "changeConnection",
    params(("id" = String, Path)), request_body = ConnectionChange, responses((status = OK, body = Connection)))]
pub async fn change(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConnectionId>,
    Body(change): Body<ConnectionChange>,
) -> Result<Json<Connection>, Problem> {
    let now = app.store.connection(&scope, &id).await.about(&id)?;
    let config = change.config.map_or_else(|| now.config.clone(), Value::Object);
    // Or whoever may change a connection could have its secret sent to themselves.
    if now.has_secret && change.secret.is_none() && leads_elsewhere(&now.kind, &now.config, &config) {
        let wrong = "the connection would lead to another host, and the secret was given for the one before: send it again with the change";
        return Err(Problem::invalid("secret", wrong).about(&id));
    }
    let spec = ConnectionSpec {
        kind: now.kind,
        name: change.name.map_or(now.name, Name::into),
        account: change.account.map_or(now.account, |account| account.map(Name::into)),
        config,
        secret: change.secret,
    };
    connection::check(&spec)?;
    let revision = change.revision.unwrap_or(now.revision);
    Ok(Json(app.store.replace_connection(&scope, &id, revision, &spec).await.about(&id)?.into()))
}

/// Removes a connection that no number uses
#[utoipa::path(delete, path = "/api/connections/{id}", tag = "connections", operation_id = "deleteConnection",
    params(("id" = String, Path)), responses((status = NO_CONTENT)))]
pub async fn delete(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConnectionId>,
) -> Result<StatusCode, Problem> {
    app.store.delete_connection(&scope, &id).await.about(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tries a connection out with a harmless request and keeps what came of it
///
/// The answer is the connection: its `status` is `active`, or `error` with the reason and the next step.
#[utoipa::path(post, path = "/api/connections/{id}/check", tag = "connections", operation_id = "checkConnection",
    params(("id" = String, Path)), responses((status = OK, body = Connection)))]
pub async fn check(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConnectionId>,
) -> Result<Json<Connection>, Problem> {
    let connection = app.store.connection(&scope, &id).await.about(&id)?;
    let secret = match connection.has_secret {
        true => Some(app.store.connection_secret(&scope, &id).await.about(&id)?),
        false => None,
    };
    let (status, reason) = match try_out(&app, &connection, secret).await {
        Ok(()) => (ConnectionStatus::Active, None),
        // It says nothing about the connection: what was known stays known.
        Err(problem) if problem.may_pass() => return Err(problem.about(&id)),
        Err(problem) => (ConnectionStatus::Error, Some(problem.sentence())),
    };
    let tried = connection.revision;
    app.store.set_connection_status(&scope, &id, tried, status, reason.as_deref()).await.about(&id)?;
    Ok(Json(app.store.connection(&scope, &id).await.about(&id)?.into()))
}

async fn try_out(
    app: &App,
    connection: &entity::Connection,
    secret: Option<Secret<String>>,
) -> Result<(), Problem> {
    if !is_carrier(&connection.kind) {
        let settings = connection::provider(&connection.kind, &connection.config)?;
        return Ok(offhook_providers::check(&settings, secret.unwrap_or_default()).await?);
    }
    match CarrierControl::open(&app.http, connection, secret.as_ref()) {
        CarrierControl::Twilio(twilio) => match twilio.check().await?.error() {
            None => Ok(()),
            Some(error) => Err(error.into()),
        },
        CarrierControl::None => {
            let missing = if secret.is_none() { "secret" } else { "config" };
            Err(Problem::invalid(missing, "without it the carrier cannot be asked"))
        }
    }
}
