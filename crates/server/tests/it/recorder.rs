//! What calls leave behind is written, if need be later, and one call's bad line costs no other call its own.

use crate::house::{self, House, LIMIT, until};
use offhook_core::Pii;
use offhook_core::entity::{CallEvent, CallStatus};
use offhook_server::call::recorder::Lines;
use offhook_store::{CallLease, FinishedCall, LogFrom};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::watch;

on_both!(a_line_that_cannot_be_stored_costs_no_other_call_its_own);

fn lines(lease: &Arc<CallLease>, orders: &str, written: &watch::Sender<u32>) -> Lines {
    let (input, orders) = (Pii::new("\"started\"".into()), orders.into());
    let event = CallEvent { seq: 0, at_us: 0, input, orders, digest: 1 };
    Lines { lease: lease.clone(), events: vec![event], snapshot: None, written: written.clone() }
}

async fn a_line_that_cannot_be_stored_costs_no_other_call_its_own(house: House) {
    let (bad, good) = (house.call().await, house.call().await);
    let (recorder, written) = (&house.app.around.recorder, watch::Sender::new(0));
    // PostgreSQL has no place for a zero character.
    recorder.append(lines(&bad, "say \0", &watch::Sender::new(0))).unwrap();
    recorder.append(lines(&good, "say", &written)).unwrap();
    let mut known = written.subscribe();
    tokio::time::timeout(LIMIT, known.wait_for(|lines| *lines == 1)).await.expect("it is written").unwrap();
    let log = house.app.store.load_log(good.scope(), good.call(), LogFrom::Start).await.unwrap();
    assert_eq!(log.events.len(), 1);
}

#[tokio::test]
async fn an_end_waits_for_a_database_that_is_away_and_the_call_is_ours_until_then() {
    let house = House::sqlite().await;
    let lease = house.call().await;
    let _letters = house.drive(lease.call());
    let registry = &house.app.around.registry;
    registry.over(&registry.by_id(lease.call()).unwrap());
    let (here, away) = (house.file("offhook.db"), house.file("away.db"));
    std::fs::rename(&here, &away).unwrap();
    let finished = FinishedCall {
        ended_reason: "caller_hung_up".into(),
        ended_at_us: 1,
        outcome: None,
        summary: None,
        collected: Pii::new(Value::Null),
        messages: Vec::new(),
        tool_calls: Vec::new(),
        usage: Vec::new(),
    };
    house.app.around.recorder.finish(&lease, finished).await;
    until(|| house::log().contains("does not take a call's end")).await;
    assert!(registry.has(lease.call()), "nobody may take it for one whose process died");
    assert!(house::log().contains("removed or replaced"), "the cause is told");
    std::fs::rename(&away, &here).unwrap();
    until(|| !registry.has(lease.call())).await;
    let call = house.app.store.call(lease.scope(), lease.call()).await.unwrap();
    assert_eq!((call.status, call.ended_reason.as_deref()), (CallStatus::Ended, Some("caller_hung_up")));
}
