//! Numbers at their carriers: what is done to them is begun here, goes on until it has ended, and is taken up again when its process
//! died. It does not know what a carrier is asked, or in which order; that is `offhook_core::provisioning`.

mod ask;
pub mod drift;
mod drive;
pub mod plan;
pub mod words;

use crate::app::App;
use crate::carrier;
use crate::problem::{About, Kind, Problem, chain};
use offhook_carriers::Account;
use offhook_core::ConnectionId;
use offhook_core::entity::{Connection, Operation};
use offhook_store::{NewOperation, Scope, StoreError};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often it is looked for operations whose process died.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Operations that are taken up at once.
const TAKEN_AT_ONCE: u32 = 16;

/// Begins an operation; it goes on by itself.
pub async fn begin(app: &Arc<App>, scope: &Scope, new: &NewOperation) -> Result<Operation, StoreError> {
    let (operation, lease) = app.store.begin_operation(scope, new, &app.node).await?;
    tokio::spawn(drive::drive(app.clone(), operation.clone(), lease));
    Ok(operation)
}

/// Takes up what others have left, and looks whether numbers still lead here, for as long as it is polled.
pub async fn run(app: &Arc<App>) -> Infallible {
    tokio::join!(take_up(app), drift::run(app)).0
}

async fn take_up(app: &Arc<App>) -> Infallible {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if app.around.registry.is_draining() {
            continue;
        }
        match app.store.claim_operations(&app.node, TAKEN_AT_ONCE).await {
            Ok(claimed) => {
                for (operation, lease) in claimed {
                    tracing::info!(operation.id = %operation.id, "Operation taken up again");
                    tokio::spawn(drive::drive(app.clone(), operation, lease));
                }
            }
            Err(error) if error.is_transient() => {}
            Err(error) => {
                tracing::error!(error = chain(&error), "Operations whose process died were not looked for");
            }
        }
    }
}

/// A connection whose carrier can be asked about numbers.
pub struct Reached {
    /// The connection.
    pub connection: Connection,
    /// The account at its carrier.
    pub account: Account,
}

/// The carrier account of a connection.
///
/// # Errors
/// When there is none that can be asked about numbers.
pub async fn reach(app: &App, scope: &Scope, id: &ConnectionId) -> Result<Reached, Problem> {
    let connection = app.store.connection(scope, id).await.about(id)?;
    let secret = match connection.has_secret {
        true => Some(app.store.connection_secret(scope, id).await.about(id)?),
        false => None,
    };
    match carrier::account(&app.http, &connection, secret.as_ref()) {
        Some(account) => Ok(Reached { connection, account }),
        None => {
            let (name, kind) = (&connection.name, &connection.kind);
            let detail = match connection.has_secret || !matches!(kind.as_str(), "twilio" | "telnyx") {
                true => format!("connection `{name}` is of kind {kind}, which cannot be asked about numbers"),
                false => {
                    format!("connection `{name}` has no credentials, so that its carrier cannot be asked")
                }
            };
            let fix = "name a connection to a carrier, and give it its token or key";
            Err(Problem::new(Kind::Conflict, detail, fix))
        }
    }
}
