//! Calls and conversations over the API: what is kept of them, and the order to hang up.

use crate::house::{CALLER, House};
use axum::http::StatusCode;
use expect_test::expect;
use offhook_core::Pii;
use offhook_core::call::Input;
use offhook_core::entity::{CallEvent, MessageRole, UsageKind};
use offhook_server::call::registry::Letter;
use offhook_store::{CallLease, FinishedCall, LogBatch, NewMessage, NewToolCall, NewUsage};
use serde_json::{Value, json};

on_both!(a_call_that_has_ended_is_read_whole, a_log_is_read_byte_for_byte, a_live_call_is_ordered_to_end);

/// Ends a call with two lines, a tool and some usage.
pub async fn finish(house: &House, lease: &CallLease) {
    let began_us = house.app.store.call(lease.scope(), lease.call()).await.unwrap().started_at_us;
    let timing = json!({
        "turn_end_ms": 120, "head_start_ms": 80, "first_token_ms": 250, "first_audio_ms": 330, "playout_ms": 340, "thrown_away": 1,
    });
    let said = |role, text: &str, heard: Option<&str>, after_ms: i64, timing| NewMessage {
        turn: 1,
        role,
        text: Pii::new(text.into()),
        heard: heard.map(|heard| Pii::new(heard.into())),
        at_us: began_us + after_ms * 1_000,
        timing,
    };
    let finished = FinishedCall {
        ended_reason: "caller_hung_up".into(),
        ended_at_us: began_us + 9_000_000,
        outcome: None,
        summary: None,
        collected: Pii::new(Value::Null),
        messages: vec![
            said(MessageRole::Member, "Are you open?", None, 1_500, Value::Null),
            said(MessageRole::Agent, "Until five.", Some("Until"), 2_000, timing),
        ],
        tool_calls: vec![NewToolCall {
            turn: 1,
            name: "take_message".into(),
            arguments: Pii::new(r#"{"message":"call me"}"#.into()),
            result: Some(Pii::new("ok".into())),
            error: None,
            started_at_us: began_us + 3_000_000,
            ended_at_us: Some(began_us + 3_100_000),
        }],
        usage: vec![NewUsage {
            at_us: began_us,
            kind: UsageKind::Second,
            provider: "carrier".into(),
            quantity: 9,
            unit_price_micros: 0,
            currency: "USD".into(),
        }],
    };
    house.app.store.finish_call(lease, &finished).await.unwrap();
}

/// Appends to a call's log.
pub async fn append(house: &House, lease: &CallLease, inputs: &[&str]) {
    let event = |(seq, input): (u32, &&str)| CallEvent {
        seq,
        at_us: u64::from(seq) * 1_000,
        input: Pii::new((*input).to_owned()),
        orders: "say".into(),
        digest: u64::MAX - u64::from(seq),
    };
    let events: Vec<_> = (0..).zip(inputs).map(event).collect();
    assert!(house.app.store.append_events(&[LogBatch { lease, events: &events }]).await.unwrap().is_empty());
}

async fn a_call_that_has_ended_is_read_whole(house: House) {
    let lease = house.call().await;
    let id = lease.call();
    assert_eq!(house.get("/api/calls?live=true").await.json()["items"][0]["status"], "ringing");
    finish(&house, &lease).await;
    let mut record = house.get(&format!("/api/calls/{id}")).await;
    let carrier_call = record.json()["carrier_call"].as_str().unwrap().to_owned();
    record.body = record.text().replace(&carrier_call, "CA").into();
    record.check(&expect![[r#"
        200 OK
        {
          "agent_version": "agv_…",
          "answered_at": null,
          "carrier_call": "CA",
          "connection": "con_…",
          "direction": "inbound",
          "ended_at": "<time>",
          "ended_reason": "caller_hung_up",
          "from": "+14155550199",
          "id": "cnv_…",
          "phone_number": null,
          "started_at": "<time>",
          "status": "ended",
          "to": "+14155550100",
          "tool_calls": [
            {
              "arguments": "{\"message\":\"call me\"}",
              "ended_at": "<time>",
              "error": null,
              "id": "tcl_…",
              "name": "take_message",
              "result": "ok",
              "started_at": "<time>",
              "turn": 1
            }
          ],
          "turns": [
            {
              "first_audio_ms": 330,
              "first_token_ms": 250,
              "head_start_ms": 80,
              "playout_ms": 340,
              "thrown_away": 1,
              "turn": 1,
              "turn_end_ms": 120
            }
          ],
          "usage": [
            {
              "currency": "USD",
              "kind": "second",
              "provider": "carrier",
              "quantity": 9,
              "unit_price_micros": 0
            }
          ]
        }
    "#]]);
    house.get(&format!("/api/conversations/{id}")).await.check(&expect![[r#"
        200 OK
        {
          "agent_version": "agv_…",
          "channel": "voice",
          "collected": null,
          "direction": "inbound",
          "ended_at": "<time>",
          "id": "cnv_…",
          "outcome": null,
          "phone_number": null,
          "started_at": "<time>",
          "summary": null
        }
    "#]]);
    house.get(&format!("/api/conversations/{id}/messages")).await.check(&expect![[r#"
        200 OK
        {
          "items": [
            {
              "at": "<time>",
              "heard": null,
              "id": "msg_…",
              "role": "member",
              "seq": 0,
              "text": "Are you open?",
              "timing": null,
              "turn": 1
            },
            {
              "at": "<time>",
              "heard": "Until",
              "id": "msg_…",
              "role": "agent",
              "seq": 1,
              "text": "Until five.",
              "timing": {
                "first_audio_ms": 330,
                "first_token_ms": 250,
                "head_start_ms": 80,
                "playout_ms": 340,
                "thrown_away": 1,
                "turn": 1,
                "turn_end_ms": 120
              },
              "turn": 1
            }
          ],
          "next": null
        }
    "#]]);
    assert_eq!(house.get("/api/calls?live=true").await.json()["items"], json!([]));
    let listed = house.get("/api/calls").await.json();
    assert_eq!(
        (&listed["items"][0]["from"], &listed["items"][0]["ended_reason"]),
        (&json!(CALLER), &json!("caller_hung_up"))
    );
    assert_eq!(house.get("/api/conversations").await.json()["items"][0]["id"], json!(id.as_str()));
}

async fn a_log_is_read_byte_for_byte(house: House) {
    let lease = house.call().await;
    append(&house, &lease, &["\"started\"", r#"{"is":"dtmf", "digit":"1"}"#]).await;
    let answer = house.get(&format!("/api/calls/{}/log", lease.call())).await;
    assert!(answer.text().contains(r#""input":{"is":"dtmf", "digit":"1"}"#), "{}", answer.text());
    let log = answer.json();
    assert_eq!(log["plan"]["language"], "en-US");
    assert_eq!(
        log["events"][0],
        json!({ "seq": 0, "at_us": 0, "input": "started", "orders": "say", "digest": "ffffffffffffffff" })
    );
}

async fn a_live_call_is_ordered_to_end(house: House) {
    let lease = house.call().await;
    let path = format!("/api/calls/{}/hang-up", lease.call());
    house.post(&path, json!({})).await.check(&expect![[r#"
        409 Conflict
        {
          "detail": "cnv_…: this call is not driven by the node that was asked",
          "fix": "read the call again: it may just have ended, or wait for its carrier to reconnect",
          "status": 409,
          "title": "It does not go with what is there",
          "type": "urn:offhook:problem:conflict"
        }
    "#]]);
    let mut letters = house.drive(lease.call());
    assert_eq!(house.post(&path, json!({})).await.status, StatusCode::ACCEPTED);
    assert!(matches!(letters.recv().await, Some(Letter::Fact(Input::HangUpOrdered))));
    finish(&house, &lease).await;
    house.post(&path, json!({})).await.check(&expect![[r#"
        409 Conflict
        {
          "detail": "cnv_…: this call has ended",
          "fix": "nothing is left to do: read its record instead",
          "status": 409,
          "title": "It does not go with what is there",
          "type": "urn:offhook:problem:conflict"
        }
    "#]]);
}
