//! API keys: listed, made, revoked. A key itself is shown once, when it is made, and stored by nobody here.

use super::request::{Body, Id, Name, Paging, Params};
use super::{Page, Time, words};
use crate::app::App;
use crate::auth::Caller;
use crate::problem::{About, Kind, Problem};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use offhook_core::ApiKeyId;
use offhook_core::entity::{self, Role};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// A key for programs, as it is shown.
#[derive(Serialize, ToSchema)]
pub struct ApiKey {
    /// `key_…`
    id: String,
    /// What it is for.
    name: String,
    /// How it begins, to recognise it by.
    #[schema(example = "ohk_4f1c2a90")]
    prefix: String,
    /// What it may do.
    #[schema(schema_with = words::role)]
    role: Role,
    /// When it was made.
    created_at: Time,
    /// When it was last used, to the minute.
    last_used_at: Option<Time>,
    /// When it was revoked.
    revoked_at: Option<Time>,
}

/// A key to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiKey {
    /// What it is for.
    name: Name,
    /// What it may do; not more than the key that makes it.
    #[schema(schema_with = words::role)]
    role: Role,
}

/// A key that was made just now.
#[derive(Serialize, ToSchema)]
pub struct MadeApiKey {
    #[serde(flatten)]
    shown: ApiKey,
    /// The key itself. It is never shown again.
    key: String,
}

impl From<entity::ApiKey> for ApiKey {
    fn from(row: entity::ApiKey) -> Self {
        ApiKey {
            id: row.id.into(),
            name: row.name,
            prefix: row.prefix,
            role: row.role,
            created_at: Time::from_us(row.created_at_us),
            last_used_at: row.last_used_at_us.map(Time::from_us),
            revoked_at: row.revoked_at_us.map(Time::from_us),
        }
    }
}

/// Lists keys, revoked ones too
#[utoipa::path(get, path = "/api/keys", tag = "keys", operation_id = "listKeys", params(Paging),
    responses((status = OK, body = Page<ApiKey>)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<ApiKey>>, Problem> {
    Ok(Json(Page::of(app.store.api_keys(&scope, &paging.page()?).await?)))
}

/// Makes a key and shows it this once
#[utoipa::path(post, path = "/api/keys", tag = "keys", operation_id = "createKey", request_body = NewApiKey,
    responses((status = CREATED, body = MadeApiKey)))]
pub async fn create(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Body(new): Body<NewApiKey>,
) -> Result<(StatusCode, Json<MadeApiKey>), Problem> {
    if new.role > scope.role() {
        let detail = format!("role: a key of role {} cannot make one of role {}", scope.role(), new.role);
        return Err(Problem::new(Kind::Forbidden, detail, "use a key of that role to make it"));
    }
    let (row, key) = app.store.create_api_key(&scope, &String::from(new.name), new.role).await?;
    Ok((StatusCode::CREATED, Json(MadeApiKey { shown: row.into(), key: key.expose().clone() })))
}

/// Makes a key useless from now on
///
/// Its role must not be above that of the key that asks, and the last owner's key stays.
#[utoipa::path(delete, path = "/api/keys/{id}", tag = "keys", operation_id = "revokeKey",
    params(("id" = String, Path)), responses((status = NO_CONTENT)))]
pub async fn revoke(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ApiKeyId>,
) -> Result<StatusCode, Problem> {
    let role = app.store.api_key(&scope, &id).await.about(&id)?.role;
    if role > scope.role() {
        let detail = format!("{id}: a key of role {} cannot revoke one of role {role}", scope.role());
        return Err(Problem::new(Kind::Forbidden, detail, "use a key of that role to revoke it"));
    }
    app.store.revoke_api_key(&scope, &id).await.about(&id)?;
    Ok(StatusCode::NO_CONTENT)
}
