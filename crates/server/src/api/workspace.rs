//! The workspace that a key opens. It does not know what is in it.

use super::Time;
use super::request::{Body, Name};
use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use axum::Json;
use axum::extract::State;
use jiff::tz::TimeZone;
use offhook_core::entity;
use offhook_store::WorkspaceSpec;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Where agents, numbers and conversations live.
#[derive(Serialize, ToSchema)]
pub struct Workspace {
    /// `wsp_…`
    id: String,
    /// `org_…`
    organization: String,
    /// Its name.
    name: String,
    /// IANA name of the zone that its agents tell the time of.
    #[schema(example = "Europe/Berlin")]
    time_zone: String,
    /// Grows with every change.
    revision: i64,
    /// When it was made.
    created_at: Time,
}

/// What is to change on a workspace; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceChange {
    name: Option<Name>,
    /// IANA name of a time zone.
    time_zone: Option<String>,
    /// The revision that the change is based on: when another change came in between, it is refused.
    revision: Option<i64>,
}

impl From<entity::Workspace> for Workspace {
    fn from(row: entity::Workspace) -> Self {
        Workspace {
            id: row.id.into(),
            organization: row.organization.into(),
            name: row.name,
            time_zone: row.time_zone,
            revision: row.revision,
            created_at: Time::from_us(row.created_at_us),
        }
    }
}

/// Reads the workspace
#[utoipa::path(get, path = "/api/workspace", tag = "workspace", operation_id = "readWorkspace",
    responses((status = OK, body = Workspace)))]
pub async fn read(State(app): State<Arc<App>>, Caller(scope): Caller) -> Result<Json<Workspace>, Problem> {
    Ok(Json(app.store.workspace(&scope).await?.into()))
}

/// Changes the workspace
#[utoipa::path(patch, path = "/api/workspace", tag = "workspace", operation_id = "changeWorkspace",
    request_body = WorkspaceChange, responses((status = OK, body = Workspace)))]
pub async fn change(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Body(change): Body<WorkspaceChange>,
) -> Result<Json<Workspace>, Problem> {
    let now = app.store.workspace(&scope).await?;
    let time_zone = change.time_zone.unwrap_or(now.time_zone);
    if TimeZone::get(&time_zone).is_err() {
        return Err(Problem::invalid(
            "time_zone",
            "no such time zone: write an IANA name such as Europe/Berlin",
        ));
    }
    let spec = WorkspaceSpec {
        name: change.name.map_or(now.name, Name::into),
        time_zone,
        business_hours: now.business_hours,
    };
    let revision = change.revision.unwrap_or(now.revision);
    Ok(Json(app.store.replace_workspace(&scope, revision, &spec).await?.into()))
}
