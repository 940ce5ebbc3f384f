//! A call as it is driven, without a line: what cannot be undone waits for the store, and a machine that breaks ends its call.

use crate::house::{self, House, until};
use offhook_core::call::{Call, CallPlan, Greeting, Input};
use offhook_core::entity::CallStatus;
use offhook_core::{AgentId, ConnectionId};
use offhook_server::abilities::Abilities;
use offhook_server::agent::AgentConfig;
use offhook_server::call::driver::{self, Beginning, Machine, NotStarted};
use offhook_server::call::ledger::Ledger;
use offhook_server::call::recorder::Lines;
use offhook_server::call::registry::{Handle, Letter, Onward, Whose};
use offhook_server::carrier::CarrierControl;
use offhook_server::speech::{Recording, Speech};
use offhook_store::{CallLease, LogFrom};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

on_both!(an_order_that_cannot_be_undone_is_in_the_log_before_it_is_carried_out);

fn plan() -> CallPlan {
    CallPlan { greeting: Greeting::Fixed("Hello, this is the shop.".into()), ..AgentConfig::default().plan() }
}

/// Drives a call whose providers nobody needs.
fn drive(house: &House, lease: &Arc<CallLease>, machine: Machine) -> Result<Arc<Handle>, NotStarted> {
    const ULID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let speech = Speech {
        stt: Vec::new(),
        llm: Vec::new(),
        tts: Vec::new(),
        voice_keys: Vec::new(),
        language: "en-US".parse().unwrap(),
        keywords: Vec::new(),
        endpointing_ms: 300,
        max_tokens: 100,
        temperature_centi: None,
        phrases: house.app.phrases.clone(),
        canned_apology: Arc::new(Recording::of_samples(&[], 8_000)),
    };
    let whose = Whose {
        id: lease.call().clone(),
        connection: ConnectionId::from_ulid(ULID),
        carrier_call: lease.call().to_string(),
        agent: AgentId::from_ulid(ULID),
        tokens: Vec::new(),
        forward_to: None,
    };
    let begin = Beginning {
        lease: lease.clone(),
        began_us: 0,
        whose,
        speech: Arc::new(speech),
        abilities: Abilities,
        carrier: CarrierControl::None,
    };
    driver::start(begin, machine, house.app.around.clone())
}

fn ringing() -> Machine {
    Machine::New { plan: Box::new(plan()), age: Duration::ZERO }
}

async fn an_order_that_cannot_be_undone_is_in_the_log_before_it_is_carried_out(house: House) {
    let lease = house.call().await;
    let handle = drive(&house, &lease, ringing()).unwrap();
    handle.tell(Letter::Fact(Input::HangUpOrdered));
    until(|| handle.onward() == Onward::HangUp).await;
    let log = house.app.store.load_log(lease.scope(), lease.call(), LogFrom::Start).await.unwrap();
    assert_eq!(log.events.last().map(|line| line.orders.contains("hang up")), Some(true), "{log:?}");
}

#[tokio::test]
async fn an_order_does_not_wait_for_ever_for_a_database_that_is_away() {
    let house = House::sqlite().await;
    let lease = house.call().await;
    let handle = drive(&house, &lease, ringing()).unwrap();
    std::fs::rename(house.file("offhook.db"), house.file("away.db")).unwrap();
    handle.tell(Letter::Fact(Input::HangUpOrdered));
    until(|| handle.onward() == Onward::HangUp).await;
    assert!(house::log().contains("carried out before the store has its line"));
}

#[tokio::test]
async fn the_last_lines_of_a_call_wait_for_a_recorder_that_is_behind() {
    let house = House::sqlite().await;
    let (lease, other) = (house.call().await, house.call().await);
    let handle = drive(&house, &lease, ringing()).unwrap();
    std::fs::rename(house.file("offhook.db"), house.file("away.db")).unwrap();
    let recorder = &house.app.around.recorder;
    let nothing =
        || Lines { lease: other.clone(), events: Vec::new(), snapshot: None, written: watch::Sender::new(0) };
    recorder.append(nothing()).unwrap();
    until(|| house::log().contains("does not take the log")).await;
    while recorder.append(nothing()).is_ok() {}
    handle.tell(Letter::Fact(Input::HungUp { by_caller: true }));
    until(|| handle.is_over()).await;
    std::fs::rename(house.file("away.db"), house.file("offhook.db")).unwrap();
    until(|| !house.app.around.registry.has(lease.call())).await;
    let log = house.app.store.load_log(lease.scope(), lease.call(), LogFrom::Start).await.unwrap();
    let inputs: Vec<_> = log.events.iter().map(|line| line.input.expose().as_str()).collect();
    assert_eq!(inputs, ["\"started\"", r#"{"is":"hung_up","by_caller":true}"#]);
}

/// A call that was taken up, with something in its machine that cannot be.
fn resumed(damage: impl Fn(&mut Value)) -> Machine {
    let mut call = serde_json::to_value(Call::start(plan(), &mut Vec::new())).unwrap();
    damage(&mut call);
    Machine::Resumed {
        call: serde_json::from_value(call).unwrap(),
        ledger: Ledger::default(),
        next_seq: 1,
        age: Duration::from_secs(1),
    }
}

#[tokio::test]
async fn a_machine_that_breaks_ends_its_call_for_a_reason_of_its_own() {
    let house = House::sqlite().await;
    let lease = house.call().await;
    // Four billion replies: taking the call up makes the last of them.
    let machine = resumed(|call| call["next_reply"] = json!(u32::MAX - 1));
    let handle = drive(&house, &lease, machine).unwrap();
    handle.tell(Letter::Fact(Input::TtsFailed { voice: 0, may_pass: true }));
    until(|| !house.app.around.registry.has(lease.call())).await;
    let call = house.app.store.call(lease.scope(), lease.call()).await.unwrap();
    assert_eq!((call.status, call.ended_reason.as_deref()), (CallStatus::Ended, Some("offhook_failed")));
    assert!(house::log().contains("The call machine broke"));
}

#[tokio::test]
async fn a_machine_that_breaks_as_it_is_taken_up_is_not_driven() {
    let house = House::sqlite().await;
    let lease = house.call().await;
    // More of the reply was spoken than there is of it: what was heard of it cannot be told.
    let machine = resumed(|call| {
        for (field, value) in [("given", 9_999), ("synthesized_ms", 1), ("played_ms", 1), ("started_at", 0)] {
            call["replies"][0][field] = json!(value);
        }
        call["replies"][0]["synthesized"] = json!(true);
    });
    assert!(matches!(drive(&house, &lease, machine), Err(NotStarted::Broken)));
    assert!(!house.app.around.registry.has(lease.call()), "and can be tried again");
}
