//! Connections: accounts at carriers and providers, made, changed and tried out. A secret goes in and never comes out.

use super::request::{Body, Id, Name, Paging, Params, given};
use super::telephony::{self, Operation};
use super::{Page, Time, words};
use crate::app::App;
use crate::auth::Caller;
use crate::carrier;
use crate::connection::{self, TwilioSecret, leads_elsewhere};
use crate::numbers::{self, plan};
use crate::problem::{About, Kind, Problem};
use crate::trunks;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use offhook_carriers::twilio::is_api_key;
use offhook_core::entity::{self, ConnectionStatus, is_carrier};
use offhook_core::{ConnectionId, Secret};
use offhook_store::{ConnectionSpec, Scope, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// What stands where a secret is stored.
const MASK: &str = "••••";
/// How long whoever saves a connection waits for it to be tried out.
const SAVE_PATIENCE: Duration = Duration::from_secs(8);

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
    /// `twilio`, `telnyx`, `sip`, `openai`, `deepgram`, `deepgram_flux`, `elevenlabs` or `cartesia`. It never changes.
    #[schema(example = "twilio")]
    kind: String,
    /// Its name, unique in the organization.
    name: Name,
    /// The outside account's id: the Account SID of Twilio; the others have none.
    #[schema(value_type = Option<String>)]
    account: Option<Name>,
    /// Settings that are no secret: region, base URL, model.
    #[serde(default)]
    #[schema(value_type = Object)]
    config: Map<String, Value>,
    /// Token, key or password: Twilio's auth token, Telnyx' API key, a SIP trunk's password. It is sealed and never shown again.
    #[schema(value_type = Option<String>, write_only)]
    secret: Option<Secret<String>>,
    /// Twilio only: what its REST interface is asked with instead of the auth token, which still tells whose webhooks are Twilio's.
    #[schema(write_only)]
    api_key: Option<TwilioApiKey>,
}

/// An API key of a Twilio account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TwilioApiKey {
    /// `SK` and 32 hexadecimal digits.
    sid: String,
    /// Its secret. It is sealed and never shown again.
    #[schema(value_type = String, write_only)]
    secret: Secret<String>,
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
    /// The new token, key or password. A carrier's before it is believed for an hour beside it, so that none of its webhooks is
    /// refused while it changes over; `DELETE /api/connections/{id}/earlier-secret` ends that at once.
    #[schema(value_type = Option<String>, write_only)]
    secret: Option<Secret<String>>,
    /// Twilio only: the API key that its REST interface is asked with; null: the auth token again.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<TwilioApiKey>, write_only)]
    api_key: Option<Option<TwilioApiKey>>,
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
    let secret = with_api_key(&new.kind, new.secret, new.api_key)?;
    let spec = ConnectionSpec {
        kind: new.kind,
        name: new.name.into(),
        account: new.account.map(Name::into),
        config: Value::Object(new.config),
        secret,
    };
    connection::check(&spec)?;
    let connection = app.store.create_connection(&scope, &spec).await?;
    Ok((StatusCode::CREATED, Json(saved(&app, &scope, connection).await?.into())))
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
    let elsewhere = leads_elsewhere(&now.kind, &now.config, &config);
    if now.has_secret && change.secret.is_none() && elsewhere {
        let wrong = "the connection would lead to another host, and the secret was given for the one before: send it again with the change";
        return Err(Problem::invalid("secret", wrong).about(&id));
    }
    let secret = match change.api_key {
        None if change.secret.is_none() => None,
        api_key => {
            let stored = match now.has_secret {
                true => Some(TwilioSecret::read(&app.store.connection_secret(&scope, &id).await.about(&id)?)),
                false => None,
            };
            let token = change.secret.or_else(|| stored.as_ref().map(|stored| stored.auth_token.clone()));
            let kept = || {
                let (sid, secret) = stored.filter(|_| now.kind == "twilio" && !elsewhere)?.api_key?;
                Some(TwilioApiKey { sid, secret })
            };
            with_api_key(&now.kind, token, api_key.unwrap_or_else(kept))?
        }
    };
    let spec = ConnectionSpec {
        kind: now.kind,
        name: change.name.map_or(now.name, Name::into),
        account: change.account.map_or(now.account, |account| account.map(Name::into)),
        config,
        secret,
    };
    connection::check(&spec)?;
    let revision = change.revision.unwrap_or(now.revision);
    let changed = app.store.replace_connection(&scope, &id, revision, &spec).await.about(&id)?;
    Ok(Json(saved(&app, &scope, changed).await?.into()))
}

/// Believes only the present secret from now on
///
/// After a carrier's secret was replaced, the one before is believed for an hour. When it is in wrong hands, that must end at once.
#[utoipa::path(delete, path = "/api/connections/{id}/earlier-secret", tag = "connections",
    operation_id = "forgetEarlierSecret", params(("id" = String, Path)), responses((status = NO_CONTENT)))]
pub async fn forget_earlier_secret(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConnectionId>,
) -> Result<StatusCode, Problem> {
    app.store.forget_earlier_secret(&scope, &id).await.about(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

/// How a connection is removed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// `true`: its lines may go offline, those of other workspaces among them.
    #[serde(default)]
    take_offline: bool,
}

/// Removes a connection
///
/// Where numbers are reached through it they are named, and nothing is done. With `take_offline` they are given back as they were before
/// and removed, then the connection goes; the answer is the operation then.
#[utoipa::path(delete, path = "/api/connections/{id}", tag = "connections", operation_id = "deleteConnection",
    params(("id" = String, Path), Removal),
    responses((status = NO_CONTENT), (status = ACCEPTED, body = Operation)))]
pub async fn delete(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConnectionId>,
    Params(removal): Params<Removal>,
) -> Result<Response, Problem> {
    let lines = app.store.numbers_of_connection(&scope, &id).await.about(&id)?;
    if lines.is_empty() {
        app.store.delete_connection(&scope, &id).await.about(&id)?;
        app.trunks.look();
        app.trunks.look();
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    if !removal.take_offline {
        return Err(go_offline(&lines).about(&id));
    }
    let begun = numbers::begin(&app, &scope, &plan::disconnect(&id, &lines)).await.about(&id)?;
    Ok(telephony::accepted(begun).into_response())
}

/// Which lines would go offline with their connection.
fn go_offline(lines: &[entity::PhoneNumber]) -> Problem {
    const NAMED: usize = 20;
    let named: Vec<_> = lines.iter().take(NAMED).map(|number| number.e164.as_str()).collect();
    let more = lines.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let detail = format!("these lines would go offline: {}{more}", named.join(", "));
    let fix = "if that is wanted, delete it with `?take_offline=true`: their webhooks are given back first";
    Problem::new(Kind::Conflict, detail, fix)
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
    let (status, reason) = match tried(&app, &scope, &connection).await {
        Ok(()) => (ConnectionStatus::Active, None),
        // It says nothing about the connection: what was known stays known.
        Err(problem) if problem.may_pass() => return Err(problem.about(&id)),
        Err(problem) => (ConnectionStatus::Error, Some(problem.sentence())),
    };
    let tried = connection.revision;
    app.store.set_connection_status(&scope, &id, tried, status, reason.as_deref()).await.about(&id)?;
    Ok(Json(app.store.connection(&scope, &id).await.about(&id)?.into()))
}

/// A connection that was just saved, tried out where there is something to try: whoever saved it reads at once what is wrong.
async fn saved(
    app: &App,
    scope: &Scope,
    connection: entity::Connection,
) -> Result<entity::Connection, Problem> {
    app.trunks.look();
    if !connection.has_secret && connection.kind != "sip" {
        return Ok(connection);
    }
    let tried = tokio::time::timeout(SAVE_PATIENCE, tried(app, scope, &connection));
    let (status, reason) = match tried.await {
        Ok(Ok(())) => (ConnectionStatus::Active, None),
        Ok(Err(problem)) if problem.may_pass() => (ConnectionStatus::Unchecked, Some(problem.sentence())),
        Ok(Err(problem)) => (ConnectionStatus::Error, Some(problem.sentence())),
        Err(_) => (ConnectionStatus::Unchecked, Some("it did not answer in time; check it again".to_owned())),
    };
    let id = &connection.id;
    match app.store.set_connection_status(scope, id, connection.revision, status, reason.as_deref()).await {
        Ok(()) | Err(StoreError::Conflict { .. }) => Ok(app.store.connection(scope, id).await.about(id)?),
        Err(error) => Err(Problem::from(error).about(id)),
    }
}

/// The secret of a connection, with the API key in it that belongs to a Twilio account.
fn with_api_key(
    kind: &str,
    secret: Option<Secret<String>>,
    api_key: Option<TwilioApiKey>,
) -> Result<Option<Secret<String>>, Problem> {
    let Some(key) = api_key else { return Ok(secret) };
    if kind != "twilio" {
        return Err(Problem::invalid("api_key", "only a Twilio account has one: give the key as `secret`"));
    }
    let Some(auth_token) = secret else {
        let wrong =
            "the auth token is wanted beside it: Twilio signs webhooks with the token, never with a key";
        return Err(Problem::invalid("secret", wrong));
    };
    if !is_api_key(&key.sid) {
        return Err(Problem::invalid("api_key.sid", "an API key's SID is `SK` and 32 hexadecimal digits"));
    }
    if key.secret.expose().trim().is_empty() {
        return Err(Problem::invalid("api_key.secret", "it is empty: paste the key's secret"));
    }
    Ok(Some(TwilioSecret { auth_token, api_key: Some((key.sid, key.secret)) }.text()))
}

pub(crate) async fn tried(app: &App, scope: &Scope, connection: &entity::Connection) -> Result<(), Problem> {
    let secret = match connection.has_secret {
        true => Some(app.store.connection_secret(scope, &connection.id).await.about(&connection.id)?),
        false => None,
    };
    try_out(app, connection, secret).await
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
    if connection.kind == "sip" {
        return trunks::probe(app, connection, secret).await;
    }
    match carrier::account(&app.http, connection, secret.as_ref()) {
        Some(account) => match account.check().await?.error() {
            None => Ok(()),
            Some(error) => Err(error.into()),
        },
        None => {
            let missing = if secret.is_none() { "secret" } else { "config" };
            Err(Problem::invalid(missing, "without it the carrier cannot be asked"))
        }
    }
}
