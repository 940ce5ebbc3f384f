//! What a node does beside its calls: says that it still drives them, lets go of those that another has taken, takes up those of dead processes.
//! It does not know what a call does.

use crate::app::App;
use crate::call::registry::Letter;
use crate::call::resume;
use crate::telemetry;
use offhook_store::{CallLease, StoreError};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// Renewals within the time that a lease holds: two may fail.
const RENEWALS_PER_LEASE: u32 = 3;
/// The shortest time between two renewals, ms.
const RENEWAL_MS_MIN: u32 = 10;
/// How long a carrier may take to ask about a call whose process died.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(60);
/// How long it is left to the carrier to ask by itself.
const ROUSE_AFTER: Duration = Duration::from_millis(1_500);
/// How often calls of dead processes are looked for.
const ADOPT_EVERY: Duration = Duration::from_secs(2);
/// Calls of dead processes that are taken at once.
const ORPHANS_AT_ONCE: u32 = 64;
/// How often samples of the metrics are folded together.
const METRICS_EVERY: Duration = Duration::from_secs(5);

/// Does a node's housekeeping for as long as it is polled.
pub async fn run(app: &App) -> Infallible {
    let renewal_ms = (app.node.lease_ms / RENEWALS_PER_LEASE).max(RENEWAL_MS_MIN);
    let every = |period| {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let mut renewal = every(Duration::from_millis(renewal_ms.into()));
    let mut folding = every(METRICS_EVERY);
    let mut adopting = every(ADOPT_EVERY);
    let mut orphans = Vec::new();
    loop {
        tokio::select! {
            _ = renewal.tick() => {
                if let Err(error) = renew(app).await {
                    tracing::error!(%error, "The leases of this node's calls were not renewed");
                }
            }
            _ = adopting.tick() => {
                if let Err(error) = adopt(app, &mut orphans).await {
                    tracing::error!(%error, "Calls whose process died were not looked for");
                }
            }
            _ = folding.tick() => telemetry::fold(),
        }
    }
}

/// A call whose process died.
pub struct Orphan {
    lease: CallLease,
    since: Instant,
    roused: bool,
}

/// Takes calls whose process died: their carriers ask what comes next, or are told to; those that stay away are written off.
pub async fn adopt(app: &App, orphans: &mut Vec<Orphan>) -> Result<(), StoreError> {
    let now = Instant::now();
    let registry = &app.around.registry;
    let mut found = app.store.claim_expired(&app.node, ORPHANS_AT_ONCE).await?;
    found.extend(app.store.claim_left(&app.node, &registry.ids(), ORPHANS_AT_ONCE).await?);
    for lease in found {
        if orphans.iter().all(|known| known.lease.call() != lease.call()) {
            orphans.push(Orphan { lease, since: now, roused: false });
        }
    }
    let mut waiting = Vec::new();
    for mut orphan in orphans.drain(..).filter(|o| registry.by_id(o.lease.call()).is_none()) {
        let age = now.duration_since(orphan.since);
        let gone = if age >= ROUSE_AFTER && !std::mem::replace(&mut orphan.roused, age >= ROUSE_AFTER) {
            !resume::rouse(app, &orphan.lease).await
        } else {
            age >= ORPHAN_PATIENCE
        };
        if !gone {
            waiting.push(orphan);
        } else if let Err(error) = resume::bury(app, &orphan.lease).await {
            tracing::error!(call.id = %orphan.lease.call(), %error, "A call whose process died could not be written off");
        }
    }
    *orphans = waiting;
    Ok(())
}

/// Extends the leases of all calls that are driven here, and lets go of those that are another node's by now.
pub async fn renew(app: &App) -> Result<(), StoreError> {
    // Before the store is asked: a call that begins meanwhile has its row already, but is not in the answer.
    let driven = app.around.registry.ids();
    let held = app.store.renew_leases(&app.node, &driven).await?;
    for call in driven.iter().filter(|id| !held.contains(id)) {
        if let Some(handle) = app.around.registry.by_id(call) {
            tracing::warn!(call.id = %call, "Another node drives a call of ours: letting go of it");
            handle.tell(Letter::LetGo);
        }
    }
    Ok(())
}
