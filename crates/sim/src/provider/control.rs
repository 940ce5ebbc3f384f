//! The providers' own interface, `/_sim/…`: what they do and what they were asked, as JSON, for those who are not in this process.
//! It knows no provider.

use super::{Program, Record, Shared};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/_sim/program", get(show_program).patch(change_program))
        .route("/_sim/records", get(show_records).delete(clear_records))
}

async fn show_program(State(shared): State<Arc<Shared>>) -> Json<Program> {
    Json(shared.program().clone())
}

/// Merges the body into the program as RFC 7396 has it: objects field by field, everything else as a whole.
async fn change_program(
    State(shared): State<Arc<Shared>>,
    Json(patch): Json<Value>,
) -> Result<Json<Program>, (StatusCode, String)> {
    let mut program = shared.program();
    let mut wanted = serde_json::to_value(&*program).map_err(refused)?;
    merge(&mut wanted, patch);
    *program = serde_json::from_value(wanted).map_err(refused)?;
    Ok(Json(program.clone()))
}

fn refused(error: serde_json::Error) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, error.to_string())
}

fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    target.remove(&name);
                } else {
                    merge(target.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch,
    }
}

async fn show_records(State(shared): State<Arc<Shared>>) -> Json<Vec<Record>> {
    Json(shared.records.all())
}

async fn clear_records(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.records.clear();
    StatusCode::NO_CONTENT
}
