//! The workspace that a key opens. It does not know how business hours are read.

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
use serde_json::{Map, Value};
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
    /// IANA name of the zone its business hours are meant in.
    #[schema(example = "Europe/Berlin")]
    time_zone: String,
    /// Weekly hours, holidays and exceptions.
    #[schema(value_type = Object)]
    business_hours: Value,
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
    /// Weekly hours, holidays and exceptions.
    #[schema(value_type = Option<Object>)]
    business_hours: Option<Map<String, Value>>,
}

impl From<entity::Workspace> for Workspace {
    fn from(row: entity::Workspace) -> Self {
        Workspace {
            id: row.id.into(),
            organization: row.organization.into(),
            name: row.name,
            time_zone: row.time_zone,
            business_hours: row.business_hours,
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
        business_hours: change.business_hours.map_or(now.business_hours, Value::Object),
    };
    Ok(Json(app.store.set_workspace(&scope, &spec).await?.into()))
}
