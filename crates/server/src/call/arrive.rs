//! A caller at the door, whichever carrier brought them: who talks to them, or what becomes of them instead.
//! It does not know how any carrier is told.

use super::driver::{self, Beginning, Machine, NotStarted};
use super::plan::{self, NotReady, OverflowTo};
use super::registry::{Handle, Onward, Whose};
use super::resume::{NotResumed, give_up, go_on};
use super::welcome::Welcome;
use crate::abilities::Abilities;
use crate::app::App;
use crate::carrier::CarrierControl;
use crate::live::{Happening, LiveEvent};
use crate::problem::chain;
use offhook_carriers::Ring;
use offhook_core::call::log::LOG_REVISION;
use offhook_core::entity::{CallStatus, Direction};
use offhook_core::{AgentId, ConversationId, E164};
use offhook_store::{Begun, CallLease, NewCall, RingTarget, StoreError};
use std::sync::Arc;
use std::time::Duration;

/// Somebody rings, or their carrier asks once more about a call it has asked about before.
///
/// # Errors
/// When the store does not answer; the carrier then asks its fallback.
pub async fn ring(
    app: &Arc<App>,
    target: &RingTarget,
    ring: &Ring,
    carrier: &CarrierControl,
) -> Result<Welcome, StoreError> {
    if let Some(handle) = app.around.registry.find(&target.connection.id, &ring.carrier_call) {
        return Ok(go(handle));
    }
    if app.around.registry.is_draining() {
        // The process ends; the next one answers.
        return Ok(Welcome::Hold);
    }
    let Some(agent) = &target.number.inbound_agent else {
        tracing::info!(number.id = %target.number.id, "Call not taken: no agent answers this number");
        return Ok(target.number.forward_to.clone().map_or(Welcome::Declined, Welcome::Forward));
    };
    let ready = match plan::ready(app, &target.scope, agent).await {
        Ok(ready) => ready,
        Err(NotReady::Store(error)) => return Err(error),
        Err(NotReady::Stopped) => {
            tracing::info!(number.id = %target.number.id, agent.id = %agent, "Call not taken: the agent is stopped");
            return Ok(target.number.forward_to.clone().map_or(Welcome::Declined, Welcome::Forward));
        }
        Err(error) => {
            let error = chain(&error);
            tracing::error!(number.id = %target.number.id, agent.id = %agent, error, "Call not taken: the agent is not ready");
            return Ok(Welcome::sorry(&target.number.forward_to));
        }
    };
    if ready.max_open_calls.is_some_and(|most| app.around.registry.count_of(agent) >= most as usize) {
        tracing::info!(agent.id = %agent, "Call not taken: the agent is on as many calls as it may take");
        return Ok(overflow(ready.overflow, &target.number.forward_to));
    }
    let new = NewCall {
        connection: target.connection.id.clone(),
        carrier_call: ring.carrier_call.clone(),
        phone_number: Some(target.number.id.clone()),
        agent_version: Some(ready.version.clone()),
        direction: Direction::Inbound,
        from: ring.from.text().clone(),
        to: ring.to.text().clone(),
        forwarded_from: ring.forwarded_from.as_ref().map(|from| from.text().clone()),
        plan: serde_json::to_string(&ready.plan).unwrap_or_default(),
        log_revision: LOG_REVISION,
    };
    let lease = match app.store.begin_call(&target.scope, &new, &app.node).await? {
        Begun::New(lease) => lease,
        Begun::Existing(call) if call.status == CallStatus::Ended => return Ok(Welcome::Over),
        Begun::Existing(call) => return Ok(take_up(app, target, &call.id, call.started_at_us, carrier).await),
    };
    let begin = Beginning {
        whose: whose(target, &lease, &ring.carrier_call, ready.agent, carrier),
        lease: Arc::new(lease),
        began_us: app.environment.now_us(),
        speech: ready.speech,
        abilities: Abilities,
        carrier: carrier.clone(),
    };
    let (workspace, lease) = (target.scope.workspace().clone(), begin.lease.clone());
    let call = lease.call().clone();
    let machine = Machine::New { plan: Box::new(ready.plan), age: Duration::ZERO };
    let handle = match driver::start(begin, machine, app.around.clone()) {
        Ok(handle) | Err(NotStarted::Driven(handle)) => handle,
        Err(NotStarted::Broken) => {
            tracing::error!(call.id = %call, "Call not taken: its machine broke as it began");
            give_up(app, &lease).await;
            return Ok(Welcome::sorry(&target.number.forward_to));
        }
    };
    metrics::counter!("offhook_calls_started_total").increment(1);
    tracing::info!(call.id = %call, number.id = %target.number.id, "Call ringing");
    let what = Happening::Ringing { from: ring.from.text().clone(), to: ring.to.text().clone() };
    app.around.live.tell(LiveEvent { workspace, call, what });
    Ok(Welcome::Talk(handle))
}

/// What becomes of a caller above the agent's limit.
fn overflow(to: OverflowTo, forward_to: &Option<E164>) -> Welcome {
    match to {
        OverflowTo::Busy => Welcome::Busy,
        OverflowTo::Forward(fallback) => {
            forward_to.clone().or(fallback).map_or(Welcome::Busy, Welcome::Forward)
        }
        OverflowTo::Message(text) => Welcome::Message(text),
    }
}

/// The media of a call is over although the caller is still there, and their carrier asks what comes next.
///
/// # Errors
/// As [`ring`].
pub async fn again(
    app: &Arc<App>,
    target: &RingTarget,
    carrier_call: &str,
    carrier: &CarrierControl,
) -> Result<Welcome, StoreError> {
    if let Some(handle) = app.around.registry.find(&target.connection.id, carrier_call) {
        return Ok(go(handle));
    }
    match app.store.call_of_carrier(&target.scope, &target.connection.id, carrier_call).await {
        Ok(call) if call.status == CallStatus::Ended => Ok(Welcome::Over),
        Ok(_) if app.around.registry.is_draining() => Ok(Welcome::Hold),
        Ok(call) => Ok(take_up(app, target, &call.id, call.started_at_us, carrier).await),
        Err(StoreError::NotFound { .. }) => Ok(Welcome::Over),
        Err(error) => Err(error),
    }
}

/// A call of this node goes on as its machine has decided.
pub fn go(handle: Arc<Handle>) -> Welcome {
    match handle.onward() {
        Onward::MediaAgain if handle.is_over() => Welcome::Over,
        Onward::MediaAgain => Welcome::Talk(handle),
        Onward::HangUp => Welcome::Over,
        Onward::Forward(to) => Welcome::Forward(to),
    }
}

/// Goes on with a call that another process had driven.
async fn take_up(
    app: &Arc<App>,
    target: &RingTarget,
    call: &ConversationId,
    started_at_us: i64,
    carrier: &CarrierControl,
) -> Welcome {
    match go_on(app, target, call, started_at_us, carrier).await {
        Ok(handle) => Welcome::Talk(handle),
        // Another process holds the call. If it is dead its lease runs out soon: until then the caller is held.
        Err(NotResumed::Store(StoreError::Conflict { .. })) => {
            tracing::info!(call.id = %call, "Call held until it can be taken up");
            Welcome::Hold
        }
        Err(error) => {
            let error = chain(&error);
            tracing::error!(call.id = %call, error, "A call could not be taken up again");
            Welcome::sorry(&target.number.forward_to)
        }
    }
}

/// What the carrier's requests about a call are answered with from now on.
pub(super) fn whose(
    target: &RingTarget,
    lease: &CallLease,
    carrier_call: &str,
    agent: AgentId,
    carrier: &CarrierControl,
) -> Whose {
    Whose {
        id: lease.call().clone(),
        connection: target.connection.id.clone(),
        carrier_call: carrier_call.to_owned(),
        agent,
        tokens: carrier.signs_with(target),
        forward_to: target.number.forward_to.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_above_the_limit_go_where_the_agent_says() {
        let number = |text: &str| text.parse::<E164>().unwrap();
        let (forward, fallback) = (Some(number("+15550100001")), Some(number("+15550100002")));
        let goes = |to: OverflowTo, forward_to: &Option<E164>| format!("{:?}", overflow(to, forward_to));
        for (to, forward_to, expected) in [
            (OverflowTo::Busy, &forward, "Busy".to_owned()),
            (OverflowTo::Forward(fallback.clone()), &forward, r#"Forward(E164("+15550100001"))"#.to_owned()),
            (OverflowTo::Forward(fallback.clone()), &None, r#"Forward(E164("+15550100002"))"#.to_owned()),
            (OverflowTo::Forward(None), &None, "Busy".to_owned()),
            (OverflowTo::Message("Later.".into()), &forward, r#"Message("Later.")"#.to_owned()),
        ] {
            assert_eq!(goes(to.clone(), forward_to), expected, "{to:?}");
        }
    }
}
