//! Watching calls: the transcript so far, then every line as it is said.

use crate::calls::{append, finish};
use crate::house::{CALLED, CALLER, House, tidy};
use axum::body::BodyDataStream;
use expect_test::expect;
use futures_util::StreamExt;
use offhook_core::Pii;
use offhook_core::call::{CallTime, EndedReason, Line, Purpose, Speaker, TurnTiming};
use offhook_server::live::{Happening, LiveEvent};
use offhook_store::CallLease;
use serde_json::{Value, json};
use std::time::Duration;

on_both!(
    a_watcher_of_a_call_hears_it_from_its_beginning_to_its_end,
    an_ended_call_is_told_whole,
    an_end_that_nobody_tells_is_found_in_the_store
);

const LIMIT: Duration = Duration::from_secs(10);

fn tell(house: &House, lease: &CallLease, what: Happening) {
    let (workspace, call) = (lease.scope().workspace().clone(), lease.call().clone());
    house.app.around.live.tell(LiveEvent { workspace, call, what });
}

fn line(number: u32, text: &str) -> Happening {
    let line = Line {
        number,
        turn: 1,
        speaker: Speaker::Agent,
        purpose: Some(Purpose::Answer),
        at: CallTime::from_ms(2_000),
        text: text.into(),
        cut: false,
    };
    Happening::Line { line: Pii::new(line) }
}

/// The next event of a stream; `None` at its end.
async fn next(events: &mut BodyDataStream) -> Option<Value> {
    let chunk = tokio::time::timeout(LIMIT, events.next()).await.expect("an event comes in time")?.unwrap();
    let text = String::from_utf8(chunk.to_vec()).unwrap();
    let (name, data) = text.trim_end().split_once('\n').unwrap();
    let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(name.strip_prefix("event: "), data["event"].as_str());
    Some(tidy(data))
}

async fn a_watcher_of_a_call_hears_it_from_its_beginning_to_its_end(house: House) {
    let lease = house.call().await;
    house.app.store.call_answered(&lease, house.app.environment.now_us()).await.unwrap();
    append(&house, &lease, &["\"started\"", r#"{"is":"connected"}"#]).await;
    let other = house.call().await;
    let mut events = house.stream(&format!("/api/calls/{}/events", lease.call())).await;
    tell(&house, &other, line(1, "Somebody else's words."));
    tell(&house, &lease, line(2, "Until five."));
    let timing = TurnTiming {
        turn: 1,
        speech_end: CallTime::from_ms(1_000),
        turn_end: CallTime::from_ms(1_120),
        asked: CallTime::from_ms(1_040),
        first_token: CallTime::from_ms(1_250),
        first_audio: CallTime::from_ms(1_330),
        playout: CallTime::from_ms(1_340),
        thrown_away: 0,
    };
    tell(&house, &lease, Happening::Timed { timing });
    tell(&house, &lease, Happening::Ended { reason: EndedReason::CallerHungUp });
    let mut told = Vec::new();
    while let Some(event) = next(&mut events).await {
        told.push(event.to_string());
    }
    expect![[r#"
        {"call":"cnv_…","event":"ringing","from":"+14155550199","to":"+14155550100"}
        {"call":"cnv_…","event":"answered"}
        {"call":"cnv_…","event":"line","line":{"at_ms":2000,"cut":false,"number":2,"purpose":"answer","speaker":"agent","text":"Until five.","turn":1}}
        {"call":"cnv_…","event":"timing","timing":{"first_audio_ms":330,"first_token_ms":250,"head_start_ms":80,"playout_ms":340,"thrown_away":0,"turn":1,"turn_end_ms":120}}
        {"call":"cnv_…","event":"ended","reason":"caller_hung_up"}"#]].assert_eq(&told.join("\n"));
}

async fn an_ended_call_is_told_whole(house: House) {
    let lease = house.call().await;
    finish(&house, &lease).await;
    let mut events = house.stream(&format!("/api/calls/{}/events", lease.call())).await;
    let mut told = Vec::new();
    while let Some(event) = next(&mut events).await {
        told.push(event.to_string());
    }
    expect![[r#"
        {"call":"cnv_…","event":"ringing","from":"+14155550199","to":"+14155550100"}
        {"call":"cnv_…","event":"line","line":{"at_ms":1500,"cut":false,"number":1,"purpose":null,"speaker":"caller","text":"Are you open?","turn":1}}
        {"call":"cnv_…","event":"line","line":{"at_ms":2000,"cut":true,"number":2,"purpose":null,"speaker":"agent","text":"Until","turn":1}}
        {"call":"cnv_…","event":"ended","reason":"caller_hung_up"}"#]].assert_eq(&told.join("\n"));
}

async fn an_end_that_nobody_tells_is_found_in_the_store(house: House) {
    let lease = house.call().await;
    let mut events = house.stream(&format!("/api/calls/{}/events", lease.call())).await;
    finish(&house, &lease).await;
    let mut told = Vec::new();
    while let Some(event) = next(&mut events).await {
        told.push(event["event"].as_str().unwrap().to_owned());
    }
    assert_eq!(told, ["ringing", "line", "line", "ended"]);
}

#[tokio::test]
async fn a_workspace_is_told_of_all_its_calls() {
    let house = House::sqlite().await;
    for _ in 0..=offhook_store::PAGE_ROWS_MAX {
        house.call().await;
    }
    let mut events = house.stream("/api/live").await;
    for _ in 0..=offhook_store::PAGE_ROWS_MAX {
        assert_eq!(next(&mut events).await.unwrap()["event"], "ringing");
    }
}

#[tokio::test]
async fn a_workspace_is_watched_and_no_other() {
    let house = House::sqlite().await;
    let open = house.call().await;
    let mut events = house.stream("/api/live").await;
    let ringing = json!({ "event": "ringing", "call": "cnv_…", "from": CALLER, "to": CALLED });
    assert_eq!(next(&mut events).await, Some(ringing), "what goes on already comes first");
    let strangers = LiveEvent {
        workspace: offhook_core::WorkspaceId::from_ulid("01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        call: open.call().clone(),
        what: Happening::Answered,
    };
    house.app.around.live.tell(strangers);
    tell(&house, &open, Happening::Tool { name: "take_message".into() });
    let tool = json!({ "event": "tool", "call": "cnv_…", "name": "take_message" });
    assert_eq!(next(&mut events).await, Some(tool));
    tell(&house, &open, Happening::Ended { reason: EndedReason::Silence });
    assert_eq!(next(&mut events).await.unwrap()["reason"], "silence");
    house.stopping.closing.cancel();
    assert_eq!(next(&mut events).await, None, "a server that stops lets its watchers go");
}

#[tokio::test]
async fn a_slow_watcher_is_told_what_it_missed() {
    let house = House::sqlite().await;
    let lease = house.call().await;
    let mut events = house.stream(&format!("/api/calls/{}/events", lease.call())).await;
    for number in 0..3_000 {
        tell(&house, &lease, line(number, "words"));
    }
    let mut missed = 0;
    while missed == 0 {
        let event = next(&mut events).await.unwrap();
        missed = event["events"].as_u64().unwrap_or(0);
    }
    assert!((1..3_000).contains(&missed), "{missed}");
}
