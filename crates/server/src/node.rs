//! What a node does beside its calls: says that it lives and still drives them, lets go of those that another has taken, cares for those
//! of dead processes. It does not know what a call does.

use crate::app::App;
use crate::call::registry::Letter;
use crate::call::resume::{self, NotResumed, ROUSE_AGAIN, Roused};
use crate::problem::chain;
use crate::telemetry;
use offhook_core::ConversationId;
use offhook_store::{CallLease, NODE_SILENT_MS, StoreError};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// Renewals within the time that a lease holds: two may fail.
const RENEWALS_PER_LEASE: u32 = 3;
/// The shortest time between two renewals, ms.
const RENEWAL_MS_MIN: u32 = 10;
/// How often a node says that it lives.
const BEAT_EVERY: Duration = Duration::from_millis(NODE_SILENT_MS as u64 / 3);
/// How long a carrier may take to ask about a call whose process died.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(60);
/// How often calls of dead processes are looked for.
const ADOPT_EVERY: Duration = Duration::from_secs(2);
/// Calls of dead processes that are taken at once.
const ORPHANS_AT_ONCE: u32 = 64;
/// And that are cared for at the same time.
const ORPHANS_MAX: usize = 1_024;
/// How often samples of the metrics are folded together.
const METRICS_EVERY: Duration = Duration::from_secs(5);

/// Does a node's housekeeping for as long as it is polled. Nothing in it waits for anything else in it: a carrier that does not answer
/// must not cost a lease.
pub async fn run(app: &Arc<App>) -> Infallible {
    let pulse = Pulse::default();
    tokio::join!(beat(app, &pulse), renew_leases(app), adopt(app, &pulse), fold_metrics()).0
}

/// How long the store has answered without a break. When it was away, the leases of all nodes have expired although their nodes live:
/// nobody may take calls then before everybody had time to renew.
#[derive(Default)]
struct Pulse(Mutex<Option<Answers>>);

#[derive(Clone, Copy)]
struct Answers {
    since: Instant,
    last: Instant,
}

impl Pulse {
    fn answered(&self, now: Instant) {
        let since = self.fresh(now).map_or(now, |answers| answers.since);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Answers { since, last: now });
    }

    fn fresh(&self, now: Instant) -> Option<Answers> {
        let answers = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.filter(|answers| now.duration_since(answers.last) < BEAT_EVERY * 2)
    }

    fn is_steady_for(&self, ms: u32, now: Instant) -> bool {
        let long = Duration::from_millis(ms.into());
        self.fresh(now).is_some_and(|answers| now.duration_since(answers.since) >= long)
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn beat(app: &App, pulse: &Pulse) -> Infallible {
    let mut ticks = every(BEAT_EVERY);
    let mut silent = false;
    loop {
        ticks.tick().await;
        match app.store.node_seen(&app.node).await {
            Ok(()) => {
                pulse.answered(Instant::now());
                silent = false;
            }
            Err(error) if !std::mem::replace(&mut silent, true) => {
                let error = chain(&error);
                tracing::warn!(
                    error,
                    "This node could not say that it lives: another of its name may take its calls"
                );
            }
            // Told when it began.
            Err(_) => {}
        }
    }
}

async fn renew_leases(app: &App) -> Infallible {
    let renewal_ms = (app.node.lease_ms / RENEWALS_PER_LEASE).max(RENEWAL_MS_MIN);
    let mut ticks = every(Duration::from_millis(renewal_ms.into()));
    loop {
        ticks.tick().await;
        if let Err(error) = renew(app).await {
            tracing::error!(error = chain(&error), "The leases of this node's calls were not renewed");
        }
    }
}

async fn fold_metrics() -> Infallible {
    let mut ticks = every(METRICS_EVERY);
    loop {
        ticks.tick().await;
        telemetry::fold();
    }
}

/// Looks for calls whose process died, and cares for each.
async fn adopt(app: &Arc<App>, pulse: &Pulse) -> Infallible {
    let mut ticks = every(ADOPT_EVERY);
    let mut cared_for = JoinSet::new();
    let mut known: HashMap<Id, ConversationId> = HashMap::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(done) = cared_for.join_next_with_id() => {
                let id = done.map_or_else(|error| error.id(), |(id, ())| id);
                known.remove(&id);
                continue;
            }
        }
        if app.around.registry.is_draining() || cared_for.len() >= ORPHANS_MAX {
            continue;
        }
        match orphans(app, pulse).await {
            Ok(found) => {
                for lease in found {
                    let call = lease.call().clone();
                    if known.values().all(|id| *id != call) {
                        known.insert(cared_for.spawn(care(app.clone(), lease)).id(), call);
                    }
                }
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "Calls whose process died were not looked for");
            }
        }
    }
}

async fn orphans(app: &App, pulse: &Pulse) -> Result<Vec<CallLease>, StoreError> {
    let now = Instant::now();
    let mut found = Vec::new();
    if pulse.is_steady_for(app.node.lease_ms, now) {
        found = app.store.claim_expired(&app.node, ORPHANS_AT_ONCE).await?;
    }
    if pulse.is_steady_for(NODE_SILENT_MS, now) {
        let ours = app.around.registry.ids();
        found.extend(app.store.claim_left(&app.node, &ours, ORPHANS_AT_ONCE).await?);
    }
    found.retain(|lease| !app.around.registry.has(lease.call()));
    Ok(found)
}

/// Waits until the carrier of a call whose process died asks what comes next, or tells it to; one that stays away is written off.
async fn care(app: Arc<App>, lease: CallLease) {
    let taken_up = || app.around.registry.is_draining() || app.around.registry.has(lease.call());
    let patience = Instant::now() + ORPHAN_PATIENCE;
    while !taken_up() {
        match resume::rouse(&app, &lease).await {
            Roused::Written => return,
            Roused::Gone => break,
            Roused::Told => {
                tokio::time::sleep_until(patience).await;
                break;
            }
            Roused::Unreached if Instant::now() >= patience => break,
            Roused::Unreached => tokio::time::sleep(ROUSE_AGAIN).await,
        }
    }
    if taken_up() {
        return;
    }
    match resume::bury(&app, &lease).await {
        Ok(()) | Err(NotResumed::Store(StoreError::Conflict { .. } | StoreError::Ended { .. })) => {}
        Err(error) => {
            let error = chain(&error);
            tracing::error!(call.id = %lease.call(), error, "A call whose process died could not be written off");
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_was_away_must_answer_for_a_whole_lease_before_calls_are_taken() {
        const LEASE_MS: u32 = 15_000;
        let began = Instant::now();
        let pulse = Pulse::default();
        let mut now = began;
        let mut beat_for = |beats: u32| {
            for _ in 0..beats {
                now += BEAT_EVERY;
                pulse.answered(now);
            }
            now
        };
        assert!(!pulse.is_steady_for(LEASE_MS, began));
        let steady = beat_for(16);
        assert!(pulse.is_steady_for(LEASE_MS, steady));
        let away = steady + Duration::from_secs(20);
        assert!(!pulse.is_steady_for(NODE_SILENT_MS, away), "it does not answer now");
        pulse.answered(away);
        assert!(!pulse.is_steady_for(NODE_SILENT_MS, away));
        assert!(!pulse.is_steady_for(NODE_SILENT_MS, away + BEAT_EVERY));
    }
}
