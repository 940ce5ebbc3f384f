//! Outgoing calls: those of `<Dial>`, where the first that answers is connected with the caller, and those of the REST API.
//! It knows how a called party is reached and bridged, not what documents say.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, select_all};
use offhook_media::dtmf::{self, Keying};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::person;
use super::super::phone::{FromPhone, Party};
use super::call::{Call, CallStatus, Direction, Order, Origin, StatusHook};
use super::execute::{self, Ending, Next, Scope, Script};
use super::twiml::{Complaint, Dial, DialNumber, Hook};
use super::{Callee, Sim};

/// How a `<Dial>` ended, as its action is told.
pub(super) struct DialOutcome {
    status: CallStatus,
    call_sid: Option<String>,
    duration_s: u64,
}

impl DialOutcome {
    fn unconnected(status: CallStatus, call_sid: Option<String>) -> DialOutcome {
        DialOutcome { status, call_sid, duration_s: 0 }
    }

    pub(super) fn params(&self) -> Vec<(String, String)> {
        let bridged = self.status == CallStatus::Completed;
        let mut params = vec![("DialCallStatus".to_owned(), self.status.as_str().to_owned())];
        if let Some(sid) = &self.call_sid {
            params.push(("DialCallSid".into(), sid.clone()));
        }
        if bridged {
            params.push(("DialCallDuration".into(), self.duration_s.to_string()));
        }
        params.push(("DialBridged".into(), bridged.to_string()));
        params
    }
}

/// Dials, connects and waits for the end; dropping it lets all legs go.
///
/// The future is boxed because a whisper runs documents, and documents dial.
pub(super) fn run<'a>(
    sim: &'a Arc<Sim>,
    parent: &'a Arc<Call>,
    dial: &'a Dial,
    numbers: &'a [DialNumber],
) -> BoxFuture<'a, DialOutcome> {
    connect(sim, parent, dial, numbers).boxed()
}

async fn connect(sim: &Arc<Sim>, parent: &Arc<Call>, dial: &Dial, numbers: &[DialNumber]) -> DialOutcome {
    let caller_id = match &dial.caller_id {
        None => parent.from.clone(),
        Some(id) if *id == parent.from || *id == parent.to || sim.owns(id) => id.clone(),
        Some(id) => {
            let message = format!("callerId {id} is neither the caller's, the called, nor an owned number");
            sim.alert(&parent.sid, Complaint { code: 13214, message });
            return DialOutcome::unconnected(CallStatus::Failed, None);
        }
    };
    let timeout = Duration::from_secs(dial.timeout_s);
    let legs: Vec<_> = numbers
        .iter()
        .filter_map(|number| Leg::place(sim, parent, number, &caller_id))
        .map(|leg| leg.reach(sim, timeout).boxed())
        .collect();
    let mut ringing = legs;
    let mut missed = DialOutcome::unconnected(CallStatus::Failed, None);
    while !ringing.is_empty() {
        let (reached, _, others) = select_all(ringing).await;
        match reached {
            Ok(leg) => {
                drop(others);
                return leg.bridge(sim, parent, dial).await;
            }
            Err(outcome) => missed = outcome,
        }
        ringing = others;
    }
    missed
}

/// The call to one number; dropped, it is let go.
struct Leg {
    call: Arc<Call>,
    orders: mpsc::Receiver<Order>,
    whisper: Option<Next>,
    /// It goes its own way by an order and is no longer ours.
    released: bool,
}

impl Leg {
    fn place(sim: &Arc<Sim>, parent: &Arc<Call>, number: &DialNumber, caller_id: &str) -> Option<Leg> {
        let origin = Origin {
            parent: Some(parent.sid.clone()),
            direction: Direction::OutboundDial,
            to: number.number.clone(),
            from: caller_id.to_owned(),
            forwarded_from: None,
            caller_name: None,
            number_sid: None,
            signing: parent.signing,
            network: sim.settings.network,
            extra_params: Vec::new(),
        };
        let events = number.status_events.iter().cloned().collect();
        let status_hook = number.status_callback.clone().map(|hook| StatusHook { hook, events });
        let (call, orders) = Call::new(sim, origin, status_hook, sim.settings.callbacks);
        sim.add_call(call.clone()).ok()?;
        let whisper = number.whisper.clone().map(|hook| Next::Fetch { hook, params: Vec::new() });
        Some(Leg { call, orders, whisper, released: false })
    }

    /// Rings until somebody answers, and lets the called party hear the whisper.
    async fn reach(mut self, sim: &Arc<Sim>, timeout: Duration) -> Result<Leg, DialOutcome> {
        let sid = Some(self.call.sid.clone());
        if let Err(status) = ring(sim, &self.call, &mut self.orders, timeout).await {
            self.call.finish(status, Party::Carrier);
            return Err(DialOutcome::unconnected(status, sid));
        }
        let Some(whisper) = self.whisper.take() else { return Ok(self) };
        let script = Script { sim, call: &self.call, fallback: None, scope: Scope::Whisper };
        let accepted = tokio::select! {
            biased;
            () = self.call.line.caller_hangs_up() => false,
            _ = self.orders.recv() => false,
            ending = script.run(whisper) => ending == Ending::RanOut,
        };
        if accepted {
            return Ok(self);
        }
        self.call.finish(CallStatus::Completed, Party::Caller);
        Err(DialOutcome::unconnected(CallStatus::NoAnswer, sid))
    }

    /// Carries sound both ways until one side, the time limit or an order ends it.
    async fn bridge(mut self, sim: &Arc<Sim>, parent: &Arc<Call>, dial: &Dial) -> DialOutcome {
        parent.answer();
        let started = Instant::now();
        let limit = tokio::time::sleep(Duration::from_secs(dial.time_limit_s));
        tokio::pin!(limit);
        let mut from_caller = parent.line.take();
        let mut from_callee = self.call.line.take();
        let ended_by = loop {
            tokio::select! {
                biased;
                () = self.call.line.caller_hangs_up() => break Some(Party::Caller),
                () = &mut limit => break Some(Party::Carrier),
                order = self.orders.recv() => match order {
                    Some(Order::Redirect(next)) => {
                        self.release(sim, next);
                        break None;
                    }
                    Some(Order::HangUp) | None => break Some(Party::Agent),
                },
                Some(said) = from_caller.recv() => match said {
                    FromPhone::Digit('*') if dial.hangup_on_star => break Some(Party::Carrier),
                    said => pass_on(said, parent, &self.call),
                },
                Some(said) = from_callee.recv() => pass_on(said, &self.call, parent),
            }
        };
        if let Some(by) = ended_by {
            self.call.finish(CallStatus::Completed, by);
        }
        self.outcome(started)
    }

    /// Lets the called party go on alone with what the order says.
    fn release(&mut self, sim: &Arc<Sim>, next: Next) {
        let (_, none) = mpsc::channel(1);
        let orders = std::mem::replace(&mut self.orders, none);
        self.released = true;
        tokio::spawn(execute::conduct(sim.clone(), self.call.clone(), orders, next, None));
    }

    fn outcome(&self, started: Instant) -> DialOutcome {
        DialOutcome {
            status: CallStatus::Completed,
            call_sid: Some(self.call.sid.clone()),
            duration_s: started.elapsed().as_secs(),
        }
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        if !self.released {
            self.call.finish(CallStatus::Canceled, Party::Agent);
        }
    }
}

/// Lets a call ring until the called party does what it does, the time is over, or the call is taken back. Who picks up then
/// follows their own script.
async fn ring(
    sim: &Sim,
    call: &Call,
    orders: &mut mpsc::Receiver<Order>,
    timeout: Duration,
) -> Result<(), CallStatus> {
    call.move_to(CallStatus::Initiated);
    call.move_to(CallStatus::Ringing);
    let after = |ms| tokio::time::sleep(Duration::from_millis(ms));
    let (callee, script) = sim.callee_at(&call.to);
    let callee = async {
        match callee {
            Callee::Answers { after_ms } => after(after_ms).map(Ok).await,
            Callee::Busy { after_ms } => after(after_ms).map(|()| Err(CallStatus::Busy)).await,
            Callee::NoAnswer => std::future::pending().await,
            Callee::Fails => Err(CallStatus::Failed),
        }
    };
    tokio::select! {
        biased;
        _ = orders.recv() => return Err(CallStatus::Canceled),
        () = call.line.caller_hangs_up() => return Err(CallStatus::Busy),
        answer = tokio::time::timeout(timeout, callee) => answer.unwrap_or(Err(CallStatus::NoAnswer))?,
    }
    call.answer();
    person::act(call.line.phone(), script);
    Ok(())
}

/// What one side says, the other side hears.
fn pass_on(said: FromPhone, from: &Call, to: &Call) {
    // A line whose buffer is full loses sound.
    let _ = match said {
        FromPhone::Frame { at, pcm } => to.line.hear_from(&from.line, at, pcm.as_slice()),
        FromPhone::Digit(digit) => {
            let tone = dtmf::tones(&digit.to_string(), Keying::default()).unwrap_or_default();
            to.line.hear(&tone, to.network.delay_ms)
        }
    };
}

/// A call that the REST API asked for: waits for its turn, rings, and runs what was asked once it is answered.
pub(super) async fn conduct_outgoing(
    sim: Arc<Sim>,
    call: Arc<Call>,
    mut orders: mpsc::Receiver<Order>,
    departure: Instant,
    timeout: Duration,
    first: Next,
    fallback: Option<Hook>,
) {
    let turn = tokio::select! {
        biased;
        _ = orders.recv() => Err(CallStatus::Canceled),
        () = tokio::time::sleep_until(departure) => Ok(()),
    };
    let reached = match turn {
        Ok(()) => ring(&sim, &call, &mut orders, timeout).await,
        canceled => canceled,
    };
    match reached {
        Ok(()) => execute::conduct(sim, call, orders, first, fallback).await,
        Err(status) => call.finish(status, Party::Carrier),
    }
}
