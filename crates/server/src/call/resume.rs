//! Calls whose process died: taken up again when their carrier asks, and written to their end when it does not.
//! The machine is as its log says it stood; what happened after the last line nobody knows.

use super::arrive::whose;
use super::driver::{self, Beginning, Machine, NotStarted, RESUMED, STARTED};
use super::finish::{Ending, record};
use super::ledger::Ledger;
use super::plan::{self, NotReady};
use super::registry::{Handle, Letter};
use super::welcome::Welcome;
use crate::abilities::Abilities;
use crate::app::App;
use crate::carrier::CarrierControl;
use crate::live::{Happening, LiveEvent};
use crate::problem::chain;
use offhook_carriers::CarrierError;
use offhook_core::ConversationId;
use offhook_core::call::log::LogLine;
use offhook_core::call::{Call, CallPlan, CallTime, EndedReason, Input, Line};
use offhook_core::entity::CallStatus;
use offhook_store::{CallLease, CallLog, LogFrom, RingTarget, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Why a call that another process had driven cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum NotResumed {
    /// The store refused it.
    #[error("the store did not give it")]
    Store(#[from] StoreError),
    /// What is stored cannot be read.
    #[error("its stored state cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Its machine breaks.
    #[error("its machine breaks on what is stored")]
    Broken,
    /// Its agent is gone or wrong.
    #[error("its agent is not ready")]
    NotReady(#[from] NotReady),
    /// The number lost its agent.
    #[error("nobody answers the number any more")]
    NoAgent,
}

/// Takes up a call whose process died: the machine as its log says it stood, and everything opened again. One that cannot go on is
/// written to its end: its caller is led elsewhere, and nobody shall call them back from there.
pub async fn go_on(
    app: &Arc<App>,
    target: &RingTarget,
    id: &ConversationId,
    started_at_us: i64,
    carrier: &CarrierControl,
) -> Result<Arc<Handle>, NotResumed> {
    let lease: CallLease = app.store.claim_call(&target.scope, id, &app.node).await?;
    let taken = take(app, target, started_at_us, lease.clone(), carrier).await;
    if taken.is_err() {
        give_up(app, &lease).await;
    }
    taken
}

/// Writes the end of a call that was begun or claimed here and cannot be driven.
pub(super) async fn give_up(app: &App, lease: &CallLease) {
    if let Err(error) = bury(app, lease).await {
        let error = chain(&error);
        tracing::error!(call.id = %lease.call(), error, "The end of a call that cannot go on was not written");
    }
}

async fn take(
    app: &Arc<App>,
    target: &RingTarget,
    started_at_us: i64,
    lease: CallLease,
    carrier: &CarrierControl,
) -> Result<Arc<Handle>, NotResumed> {
    let id = &lease.call().clone();
    let log = app.store.load_log(&target.scope, id, LogFrom::Snapshot).await?;
    let agent = target.number.inbound_agent.as_ref().ok_or(NotResumed::NoAgent)?;
    let ready = plan::ready(app, &target.scope, agent).await?;
    let age_us = app.environment.now_us().saturating_sub(started_at_us).max(0);
    let age = Duration::from_micros(age_us.unsigned_abs());
    let (machine, lines) = match log.snapshot.is_none() && log.events.is_empty() {
        // Nothing is known of it but that it rings: it begins anew, and so does its log.
        true => (Machine::New { plan: Box::new(serde_json::from_str(&log.plan)?), age }, 0),
        false => {
            let Recalled { call, ledger, next_seq } = recall(&log)?;
            (Machine::Resumed { call: Box::new(call), ledger, next_seq, age }, next_seq)
        }
    };
    let record = app.store.call(&target.scope, id).await?;
    let begin = Beginning {
        whose: whose(target, &lease, &record.carrier_call, ready.agent, carrier),
        lease: Arc::new(lease),
        began_us: started_at_us,
        speech: ready.speech,
        abilities: Abilities,
        carrier: carrier.clone(),
    };
    metrics::counter!("offhook_calls_resumed_total").increment(1);
    tracing::warn!(call.id = %id, lines, "Call taken up again from its log");
    match driver::start(begin, machine, app.around.clone()) {
        Ok(handle) | Err(NotStarted::Driven(handle)) => Ok(handle),
        Err(NotStarted::Broken) => Err(NotResumed::Broken),
    }
}

/// A call as its log leaves it.
#[derive(Debug)]
pub struct Recalled {
    /// The machine.
    pub call: Call,
    /// What was used.
    pub ledger: Ledger,
    /// The number of the next line.
    pub next_seq: u32,
}

/// What a snapshot is made of.
#[derive(Serialize, Deserialize)]
struct State<C, L> {
    call: C,
    ledger: L,
}

/// A snapshot of a call. The plan is left out: it is the longest part, never changes, and stands in the call's row.
pub(super) fn snapshot(call: &Call, ledger: &Ledger) -> Option<String> {
    let mut state = serde_json::to_value(State { call, ledger }).ok()?;
    state["call"].as_object_mut()?.remove(PLAN)?;
    Some(state.to_string())
}

fn recalled(snapshot: &str, plan: &str) -> Result<State<Call, Ledger>, serde_json::Error> {
    let mut state: Value = serde_json::from_str(snapshot)?;
    if let Some(call) = state.get_mut("call").and_then(Value::as_object_mut) {
        call.insert(PLAN.into(), serde_json::from_str(plan)?);
    }
    serde_json::from_value(state)
}

/// Where a call keeps its plan.
const PLAN: &str = "plan";

/// Folds a log from its snapshot, or from the first ring.
pub fn recall(log: &CallLog) -> Result<Recalled, NotResumed> {
    catch_unwind(AssertUnwindSafe(|| folded(log))).map_err(|_| NotResumed::Broken)?.map_err(NotResumed::from)
}

fn folded(log: &CallLog) -> Result<Recalled, serde_json::Error> {
    let next_seq =
        log.events.last().map(|e| e.seq + 1).or(log.snapshot.as_ref().map(|s| s.seq + 1)).unwrap_or(0);
    let mut orders = Vec::new();
    let State { mut call, mut ledger } = match &log.snapshot {
        Some(snapshot) => recalled(snapshot.state.expose(), &log.plan)?,
        None => {
            let plan: CallPlan = serde_json::from_str(&log.plan)?;
            let call = Call::start(plan, &mut orders);
            let mut ledger = Ledger::default();
            ledger.orders(CallTime::ZERO, &orders);
            State { call, ledger }
        }
    };
    for line in lines(log)? {
        orders.clear();
        match line.input {
            Some(input) => {
                ledger.fact(line.at, &input);
                call.handle(line.at, input, &mut orders);
            }
            None if line.resumed => {
                ledger.resumed(line.at);
                call.resume(line.at, &mut orders);
            }
            None => {}
        }
        ledger.orders(line.at, &orders);
    }
    Ok(Recalled { call, ledger, next_seq })
}

/// The machine as a log leaves it, and the number of the next line.
pub fn stand(log: &CallLog) -> Result<(Call, u32), NotResumed> {
    recall(log).map(|recalled| (recalled.call, recalled.next_seq))
}

/// The lines of a stored log.
pub fn lines(log: &CallLog) -> Result<Vec<LogLine>, serde_json::Error> {
    let line = |event: &offhook_core::entity::CallEvent| {
        let text = event.input.expose().as_str();
        let input = if text == STARTED || text == RESUMED { None } else { Some(serde_json::from_str(text)?) };
        Ok(LogLine {
            at: offhook_core::call::CallTime::from_us(event.at_us),
            input,
            resumed: text == RESUMED,
            digest: event.digest,
            orders: event.orders.clone(),
        })
    };
    log.events.iter().map(line).collect()
}

/// How long until it is told again when it could not be, or when the media has still not come.
pub const ROUSE_AGAIN: Duration = Duration::from_secs(5);

/// What came of telling a carrier to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roused {
    /// It will.
    Told,
    /// It could not be reached, or the store could not.
    Unreached,
    /// It has no such call any more.
    Gone,
    /// The call is over here as well, or driven: the carrier was not told.
    Written,
}

/// Goes on with a call whose process died as its carrier allows: one that asks is told to ask us again if it has not by itself, one
/// that is told is told at once to open media to us.
pub async fn rouse(app: &Arc<App>, lease: &CallLease) -> Roused {
    let orphan = match orphan(app, lease).await {
        Ok(Some(orphan)) if !app.around.registry.has(lease.call()) => orphan,
        Ok(_) => return Roused::Written,
        Err(error) => {
            let error = chain(&error);
            tracing::error!(call.id = %lease.call(), error, "A call whose process died could not be read");
            return Roused::Unreached;
        }
    };
    match orphan.carrier.rouse_after() {
        // The line was the dead process's own.
        None => return Roused::Gone,
        Some(_) if !orphan.carrier.asks() => return take_over(app, lease, orphan).await,
        Some(patience) => tokio::time::sleep(patience).await,
    }
    if app.around.registry.has(lease.call()) {
        return Roused::Written;
    }
    match orphan.carrier.ring_again(&orphan.call.carrier_call).await {
        Ok(()) => Roused::Told,
        Err(CarrierError::NotFound | CarrierError::CallOver) => Roused::Gone,
        Err(error) => {
            let error = chain(&error);
            tracing::warn!(call.id = %lease.call(), error, "The carrier could not be told to ask again");
            Roused::Unreached
        }
    }
}

/// A call whose process died, and the hand on its carrier.
struct Orphan {
    call: offhook_core::entity::Call,
    kind: String,
    carrier: CarrierControl,
}

/// `None`: it is over.
async fn orphan(app: &App, lease: &CallLease) -> Result<Option<Orphan>, StoreError> {
    let call = app.store.call(lease.scope(), lease.call()).await?;
    if call.status == CallStatus::Ended {
        return Ok(None);
    }
    let connection = app.store.connection(lease.scope(), &call.connection).await?;
    let secret = app.store.connection_secret(lease.scope(), &connection.id).await.ok();
    let carrier = CarrierControl::open(app, &connection, secret.as_ref());
    Ok(Some(Orphan { call, kind: connection.kind, carrier }))
}

/// Takes up a call whose carrier does not ask, and has media opened for it.
async fn take_over(app: &Arc<App>, lease: &CallLease, orphan: Orphan) -> Roused {
    let Orphan { call, kind, carrier } = orphan;
    let target = match call.to.expose().parse() {
        Ok(called) => app.store.numbers_for_ring(&kind, None, &called).await,
        Err(_) => Ok(Vec::new()),
    };
    let taken = match target {
        Ok(targets) => match targets.into_iter().find(|target| target.connection.id == call.connection) {
            Some(target) => go_on(app, &target, lease.call(), call.started_at_us, &carrier)
                .await
                .map_err(|error| (error, target.number.forward_to)),
            None => Err((NotResumed::NoAgent, None)),
        },
        Err(error) => Err((error.into(), None)),
    };
    match taken {
        Ok(handle) => {
            handle.tell(Letter::OpenMedia);
            Roused::Written
        }
        Err((NotResumed::Store(error), _)) => {
            let error = chain(&error);
            tracing::warn!(call.id = %lease.call(), error, "A call whose process died could not be taken up");
            Roused::Unreached
        }
        Err((error, forward_to)) => {
            let error = chain(&error);
            tracing::error!(call.id = %lease.call(), error, "A call could not be taken up again");
            if let Err(error) = carrier.lead(&call.carrier_call, &Welcome::sorry(&forward_to)).await {
                let error = chain(&error);
                tracing::warn!(call.id = %lease.call(), error, "A caller is left without an apology");
            }
            Roused::Gone
        }
    }
}

/// Writes the end of a call that no carrier asks about any more.
pub async fn bury(app: &App, lease: &CallLease) -> Result<(), NotResumed> {
    let log = app.store.load_log(lease.scope(), lease.call(), LogFrom::Snapshot).await?;
    let last = log.events.last().map_or(CallTime::ZERO, |event| CallTime::from_us(event.at_us));
    let (lines, ledger) = last_words(&log, last).unwrap_or_else(|error| {
        let error = chain(&error);
        tracing::error!(call.id = %lease.call(), error, "A call is written off without what was said on it");
        Default::default()
    });
    let began_us = app.store.call(lease.scope(), lease.call()).await?.started_at_us;
    let finished = record(Ending {
        began_us,
        lasted_ms: last.as_ms(),
        reason: EndedReason::MediaLost,
        lines,
        ledger: &ledger,
        speech: None,
    });
    app.store.finish_call(lease, &finished).await?;
    let (workspace, call) = (lease.scope().workspace().clone(), lease.call().clone());
    let what = Happening::Ended { reason: EndedReason::MediaLost };
    app.around.live.tell(LiveEvent { workspace, call, what });
    tracing::warn!(call.id = %lease.call(), "Call written off: nobody drives it any more");
    Ok(())
}

/// What was said and used on a call of which nothing more is known after its last line.
fn last_words(log: &CallLog, last: CallTime) -> Result<(Vec<Line>, Ledger), NotResumed> {
    let Recalled { mut call, mut ledger, .. } = recall(log)?;
    ledger.close(last);
    let lines = catch_unwind(AssertUnwindSafe(|| {
        call.handle(last, Input::MediaLost, &mut Vec::new());
        call.handle(last, Input::HungUp { by_caller: false }, &mut Vec::new());
        call.transcript()
    }));
    Ok((lines.map_err(|_| NotResumed::Broken)?, ledger))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::AgentConfig;

    #[test]
    fn a_snapshot_holds_the_call_without_its_plan() {
        let plan = AgentConfig::default().plan();
        let mut call = Call::start(plan.clone(), &mut Vec::new());
        call.handle(CallTime::from_ms(500), Input::Connected, &mut Vec::new());
        let kept = snapshot(&call, &Ledger::default()).unwrap();
        assert!(!kept.contains("\"instructions\""), "{kept}");
        let state = recalled(&kept, &serde_json::to_string(&plan).unwrap()).unwrap();
        let text = |call: &Call| serde_json::to_string(call).unwrap();
        assert_eq!(text(&state.call), text(&call));
    }
}
