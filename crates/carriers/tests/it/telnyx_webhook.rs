//! What Telnyx's webhooks are believed and understood to tell.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use offhook_carriers::telnyx::webhook::{
    MAX_BODY_BYTES, PublicKey, Signed, Unverified, Webhook, WebhookError, verify,
};
use offhook_carriers::telnyx::{Event, Side};
use offhook_carriers::{
    AddressKind, AnsweredBy, Bought, CallStatus, Direction, Price, StreamChange, StreamReport,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The test vector of the protocol notes: seed bytes 00 to 1f.
const PUBLIC_KEY: &str = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
const NOW_S: i64 = 1_700_000_000;
const BODY: &[u8] = br#"{"data":{"event_type":"call.initiated"},"meta":{"attempt":1}}"#;
const SIGNATURE: &str =
    "oWUTrNfcngOkU5dFWBWPt894ZrnuqoTYXIRWODEA/OyncYdSAUGhkCnfLqD2lLnulcR2eH/HQYSiRrX2wlQeBA==";

const VECTOR: Signed<'_> = Signed { timestamp: Some("1700000000"), signature: Some(SIGNATURE) };

#[test]
fn the_documented_signature_is_believed_and_no_other() {
    let keys = [key()];
    assert_eq!(verify(VECTOR, BODY, &keys, NOW_S), Ok(()));
    for (signed, body, keys, error) in [
        (Signed { signature: None, ..VECTOR }, BODY, &keys[..], WebhookError::Unsigned),
        (Signed { timestamp: None, ..VECTOR }, BODY, &keys, WebhookError::Unsigned),
        (Signed { timestamp: Some("1700000001"), ..VECTOR }, BODY, &keys, WebhookError::WrongSignature),
        (VECTOR, &BODY[1..], &keys, WebhookError::WrongSignature),
        (VECTOR, BODY, &[], WebhookError::WrongSignature),
        (VECTOR, BODY, &[other_key()], WebhookError::WrongSignature),
        (
            Signed { timestamp: Some("+1700000000"), ..VECTOR },
            BODY,
            &keys,
            WebhookError::Unreadable("timestamp"),
        ),
        (Signed { timestamp: Some(""), ..VECTOR }, BODY, &keys, WebhookError::Unreadable("timestamp")),
        (
            Signed { timestamp: Some("99999999999999999999"), ..VECTOR },
            BODY,
            &keys,
            WebhookError::Unreadable("timestamp"),
        ),
        (Signed { signature: Some("AAAA"), ..VECTOR }, BODY, &keys, WebhookError::Unreadable("signature")),
        (
            Signed { signature: Some("no base64!"), ..VECTOR },
            BODY,
            &keys,
            WebhookError::Unreadable("signature"),
        ),
    ] {
        assert_eq!(verify(signed, body, keys, NOW_S), Err(error), "{signed:?}");
    }
    assert_eq!(WebhookError::WrongSignature.http_status(), 403);
}

#[test]
fn one_of_two_keys_is_enough_while_they_are_rotated() {
    assert_eq!(verify(VECTOR, BODY, &[other_key(), key()], NOW_S), Ok(()));
}

#[test]
fn an_old_webhook_is_not_believed_and_says_how_old_it_is() {
    for (now_s, outcome) in [
        (NOW_S + 300, Ok(())),
        (NOW_S - 300, Ok(())),
        (NOW_S + 301, Err(WebhookError::OtherTime { off_by_s: 301 })),
        (NOW_S - 301, Err(WebhookError::OtherTime { off_by_s: -301 })),
        (i64::MIN, Err(WebhookError::OtherTime { off_by_s: i64::MIN })),
    ] {
        assert_eq!(verify(VECTOR, BODY, &[key()], now_s), outcome);
    }
}

#[test]
fn a_public_key_is_read_once_and_half_a_key_is_told() {
    let shown = format!(" {PUBLIC_KEY}\n").parse::<PublicKey>().unwrap().to_string();
    assert_eq!(shown, PUBLIC_KEY);
    let weak = STANDARD.encode([0; 32]);
    for bad in ["", &PUBLIC_KEY[1..], &PUBLIC_KEY[..40], "KEY0123456789", &weak, &PUBLIC_KEY.repeat(2)] {
        assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
    }
}

#[test]
fn a_call_that_rings_tells_who_where_and_for_which_application() {
    let mut payload = leg();
    extend(
        &mut payload,
        json!({
            "client_state": null, "direction": "incoming", "state": "parked", "from": "+14155550100", "to": "+14155550101",
            "caller_id_name": "ADA L", "start_time": "2025-11-21T09:00:00.000000Z", "offered_codecs": "PCMU,PCMA,G722",
            "shaken_stir_attestation": "A", "shaken_stir_validated": true, "custom_headers": [], "tags": [],
            "sip_headers": [{"name": "Diversion", "value": "\"Ada\" <sip:+14155550102@h;user=phone>;reason=busy"}],
        }),
    );
    let body = body("call.initiated", &payload);
    let unverified = Unverified::read(&body).unwrap();
    assert_eq!(unverified.application(), Some("2345678901234567890"));
    assert_eq!(unverified.called(), Some("+14155550101"));
    assert_eq!((unverified.call(), unverified.client_state()), (Some("v3:MdI91X4l"), None));
    let webhook = believed(unverified, &body);
    assert_eq!((webhook.kind.as_str(), webhook.attempt), ("call.initiated", 2));
    assert_eq!(webhook.occurred_at_us, Some(1_763_715_600_123_456));
    let Event::Rings(ring) = webhook.event else { panic!("{:?}", webhook.event) };
    assert_eq!(ring.carrier_call, "v3:MdI91X4l");
    assert_eq!(ring.from.e164().unwrap().as_str(), "+14155550100");
    assert_eq!(ring.to.e164().unwrap().as_str(), "+14155550101");
    assert_eq!(ring.forwarded_from.unwrap().e164().unwrap().as_str(), "+14155550102");
    assert_eq!(ring.caller_name.unwrap().expose(), "ADA L");
    assert_eq!((ring.direction, ring.status), (Direction::Inbound, CallStatus::Ringing));
    assert_eq!(ring.repeat_key.as_deref(), Some(ID));
    assert_eq!(webhook.id, ID);
}

#[test]
fn a_withheld_or_foreign_caller_rings_too() {
    for (from, kind) in [
        ("anonymous", AddressKind::Withheld),
        ("", AddressKind::Withheld),
        ("sip:ada@offhook.example", AddressKind::Sip),
        ("85555", AddressKind::Other),
    ] {
        let Event::Rings(ring) =
            told("call.initiated", json!({"from": from, "to": "+14155550101", "caller_id_name": from}))
        else {
            panic!("{from}")
        };
        assert_eq!((ring.from.kind(), ring.caller_name), (&kind, None), "{from}");
    }
}

#[test]
fn a_call_of_ours_is_dialled_answered_and_streamed() {
    let Event::Dials(report) = told("call.initiated", json!({"direction": "outgoing", "state": "bridging"}))
    else {
        panic!()
    };
    assert_eq!((report.status, report.repeat_key.as_str()), (CallStatus::Dialing, ID));
    let Event::Answered { report, streams } = told("call.answered", json!({"state": "answered"})) else {
        panic!()
    };
    assert_eq!((report.status, streams), (CallStatus::InProgress, false));
    let with = json!({"state": "answered", "stream_url": "wss://h/m?t=1", "stream_track": "inbound_track"});
    assert!(matches!(told("call.answered", with), Event::Answered { streams: true, .. }));
    assert_eq!(told("call.bridged", json!({})), Event::Bridged);
}

#[test]
fn every_hangup_cause_has_its_outcome() {
    for (cause, status) in [
        ("normal_clearing", CallStatus::Completed),
        ("time_limit", CallStatus::Completed),
        ("user_busy", CallStatus::Busy),
        ("timeout", CallStatus::NoAnswer),
        ("no_answer", CallStatus::NoAnswer),
        ("call_rejected", CallStatus::Rejected),
        ("originator_cancel", CallStatus::Canceled),
        ("not_found", CallStatus::Failed),
        ("unspecified", CallStatus::Failed),
        ("levitation", CallStatus::Failed),
    ] {
        let payload = json!({
            "hangup_cause": cause, "hangup_source": "callee", "sip_hangup_cause": "486", "call_quality_stats": null,
        });
        let Event::HungUp(hung_up) = told("call.hangup", payload) else { panic!("{cause}") };
        assert_eq!((hung_up.report.status, hung_up.cause.as_str()), (status, cause));
        assert_eq!((hung_up.report.sip_response, hung_up.by), (Some(486), Some(Side::Callee)));
        assert!(hung_up.report.status.is_over());
    }
    let Event::HungUp(bare) = told("call.hangup", json!({"hangup_source": "unknown"})) else { panic!() };
    assert_eq!((bare.report.status, bare.by), (CallStatus::Failed, None));
}

#[test]
fn what_becomes_of_a_stream_is_told_with_its_address() {
    let report = |kind, payload| -> StreamReport {
        let Event::Stream(report) = told(kind, payload) else { panic!("{kind}") };
        report
    };
    let started = report("streaming.started", json!({"stream_url": "wss://h/m?t=1"}));
    assert_eq!(
        (started.change, started.url.unwrap().expose().as_str()),
        (StreamChange::Started, "wss://h/m?t=1")
    );
    assert_eq!(report("streaming.stopped", json!({})).change, StreamChange::Stopped);
    let failed = report(
        "streaming.failed",
        json!({
            "failure_reason": "connection_failed", "stream_id": "32de0dea", "stream_type": "websocket",
            "stream_params": {"stream_url": "wss://h/m?t=2", "track": "inbound_track"},
        }),
    );
    assert_eq!((failed.change, failed.error.as_deref()), (StreamChange::Failed, Some("connection_failed")));
    assert_eq!(
        (failed.stream.as_deref(), failed.url.unwrap().expose().as_str()),
        (Some("32de0dea"), "wss://h/m?t=2")
    );
}

#[test]
fn everything_else_of_a_call_is_told_in_our_words() {
    let Event::Key(key) = told("call.dtmf.received", json!({"digit": "#"})) else { panic!() };
    assert_eq!(*key.expose(), '#');
    let Event::Gathered { keys, valid } =
        told("call.gather.ended", json!({"digits": "12", "status": "valid"}))
    else {
        panic!()
    };
    assert_eq!((keys.expose().as_str(), valid), ("12", true));
    assert!(matches!(
        told("call.gather.ended", json!({"status": "timeout"})),
        Event::Gathered { valid: false, .. }
    ));
    assert_eq!(told("call.speak.started", json!({})), Event::Plays);
    assert_eq!(told("call.speak.ended", json!({"status": "completed"})), Event::Played { completed: true });
    assert_eq!(told("call.playback.started", json!({"media_url": "x"})), Event::Plays);
    assert_eq!(
        told("call.playback.ended", json!({"status": "file_not_found"})),
        Event::Played { completed: false }
    );
    for (kind, result, who) in [
        ("call.machine.detection.ended", "human", AnsweredBy::Human),
        ("call.machine.detection.ended", "machine", AnsweredBy::Machine),
        ("call.machine.detection.ended", "not_sure", AnsweredBy::Unknown),
        ("call.machine.premium.detection.ended", "human_residence", AnsweredBy::Human),
        ("call.machine.premium.detection.ended", "human_business", AnsweredBy::Human),
        ("call.machine.premium.detection.ended", "fax_detected", AnsweredBy::Fax),
        ("call.machine.premium.detection.ended", "silence", AnsweredBy::Unknown),
        ("call.machine.greeting.ended", "beep_detected", AnsweredBy::MachineAfterGreeting),
        ("call.machine.premium.greeting.ended", "no_beep_detected", AnsweredBy::MachineAfterGreeting),
    ] {
        assert_eq!(told(kind, json!({"result": result})), Event::AnsweredBy(who), "{kind} {result}");
    }
    let Event::Transcript(transcript) = told(
        "call.transcription",
        json!({
            "transcription_data": {"transcript": "hello", "is_final": true, "confidence": 0.9, "transcription_track": "inbound"},
        }),
    ) else {
        panic!()
    };
    assert!(transcript.is_final && transcript.inbound && transcript.text.expose() == "hello");
    assert_eq!(told("call.refer.started", json!({})), Event::Referred { done: false, sip_response: None });
    let referred = told("call.refer.completed", json!({"sip_notify_response": 200}));
    assert_eq!(referred, Event::Referred { done: true, sip_response: Some(200) });
    let refused = told("call.refer.failed", json!({"sip_notify_response": "603"}));
    assert_eq!(refused, Event::Referred { done: true, sip_response: Some(603) });
    assert_eq!(told("call.hold", json!({})), Event::Hold(true));
    assert_eq!(told("call.unhold", json!({})), Event::Hold(false));
    assert_eq!(told("call.fork.started", json!({})), Event::Other);
}

#[test]
fn what_is_kept_and_what_it_cost_comes_after_the_end() {
    let recorded = json!({
        "call_control_id": null, "channels": "dual", "recording_urls": {"mp3": "https://s3/a.mp3", "wav": "https://s3/a.wav"},
        "recording_started_at": "2025-11-21T09:00:01Z", "recording_ended_at": "2025-11-21T09:00:31.5Z",
    });
    let Event::Recorded(recording) = told("call.recording.saved", recorded) else { panic!() };
    assert_eq!(recording.url.expose(), "https://s3/a.wav");
    assert_eq!((recording.dual, recording.ended_us), (true, Some(1_763_715_631_500_000)));
    let failed = told("call.recording.error", json!({"reason": "Failed to authorize with storage"}));
    assert_eq!(failed, Event::NotRecorded { reason: "Failed to authorize with storage".into() });
    let Event::RecordedWords(words) =
        told("call.recording.transcription.saved", json!({"transcription_text": "hello"}))
    else {
        panic!()
    };
    assert_eq!(words.expose(), "hello");
    for (total, billed, expected) in [
        (json!("0.0121"), json!(42), (Some(12_100), Some(42))),
        (json!(0.5), json!("42"), (Some(500_000), Some(42))),
        (Value::Null, Value::Null, (None, None)),
        (json!("free"), json!(-1), (None, None)),
    ] {
        let payload = json!({"total_cost": total, "billed_duration_secs": billed, "status": "success",
            "cost_parts": [{"call_part": "call-control", "cost": "0.01", "currency": "USD", "rate": "0.01", "billed_duration_secs": 60}]});
        let Event::Cost(cost) = told("call.cost", payload) else { panic!() };
        let price = |micros| Price { micros, currency: "USD".into() };
        assert_eq!((cost.total, cost.billed_s), (expected.0.map(price), expected.1));
    }
}

#[test]
fn an_order_of_numbers_tells_how_it_stands() {
    for (status, requirements, outcome) in [
        ("success", "approved", Some(Bought::Done)),
        ("pending", "pending", Some(Bought::Ordered { order: "ord-1".into() })),
        ("failure", "requirement-info-exception", None),
    ] {
        let payload = json!({"id": "ord-1", "status": status, "customer_reference": "ws_1/num_1",
            "phone_numbers": [{"phone_number": "+14155550101", "status": status, "requirements_status": requirements}]});
        let body = body("number_order.complete", &payload);
        let webhook = believed(Unverified::read(&body).unwrap(), &body);
        let Event::Order { order, reference, bought } = webhook.event else { panic!() };
        assert_eq!((order.as_str(), reference.as_deref(), webhook.leg), ("ord-1", Some("ws_1/num_1"), None));
        match outcome {
            Some(outcome) => assert_eq!(bought, outcome),
            None => assert!(matches!(bought, Bought::Failed { reason } if reason.contains("papers"))),
        }
    }
}

#[test]
fn our_state_comes_back_and_a_foreign_one_is_left() {
    for (sent, state) in [
        (json!(STANDARD.encode("cnv_1")), Some("cnv_1")),
        (Value::Null, None),
        (json!(""), None),
        (json!("not base64"), None),
        (json!(STANDARD.encode([0xff, 0xfe])), None),
    ] {
        let body = body("call.bridged", &merged(json!({"client_state": sent})));
        assert_eq!(Unverified::read(&body).unwrap().client_state(), state, "{sent}");
    }
}

#[test]
fn an_unknown_kind_is_no_error() {
    for kind in ["call.levitated", "conference.created", "message.received", "fax.sent", ""] {
        assert_eq!(told(kind, json!({"from": "+14155550100"})), Event::Other, "{kind}");
    }
}

#[test]
fn a_body_that_is_none_is_told() {
    let bad = |body: &str| Unverified::read(body.as_bytes()).map(drop);
    assert!(matches!(bad(""), Err(WebhookError::Malformed { .. })));
    assert!(matches!(bad("[1]"), Err(WebhookError::Malformed { line: 1, .. })));
    assert!(matches!(bad(r#"{"data":{"event_type":"call.hangup"}}"#), Err(WebhookError::Malformed { .. })));
    let hangup =
        |payload: &str| bad(&format!(r#"{{"data":{{"id":"1","event_type":"call.hangup"{payload}}}}}"#));
    assert_eq!(hangup(""), Err(WebhookError::Missing("payload")));
    assert_eq!(hangup(r#","payload":7"#), Err(WebhookError::Unreadable("payload")));
    assert_eq!(hangup(r#","payload":{}"#), Err(WebhookError::Missing("call_control_id")));
    assert_eq!(
        hangup(r#","payload":{"call_control_id":"a b"}"#),
        Err(WebhookError::Unreadable("call_control_id"))
    );
    let huge = vec![b' '; MAX_BODY_BYTES + 1];
    assert_eq!(Unverified::read(&huge).map(drop), Err(WebhookError::TooLarge));
    assert_eq!(WebhookError::TooLarge.http_status(), 413);
}

#[test]
fn a_number_of_a_caller_does_not_reach_the_log() {
    let body = body(
        "call.initiated",
        &merged(json!({"from": "+14155550100", "to": "+14155550101", "caller_id_name": "ADA"})),
    );
    let shown = format!("{:?}", believed(Unverified::read(&body).unwrap(), &body));
    assert!(!shown.contains("14155550100") && !shown.contains("ADA"), "{shown}");
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Unverified::read(&body);
    }

    #[test]
    fn no_payload_makes_it_panic(
        kind in proptest::sample::select(KINDS.to_vec()),
        fields in proptest::collection::btree_map(
            proptest::sample::select(FIELDS.to_vec()),
            prop_oneof![
                Just(Value::Null),
                any::<i64>().prop_map(Value::from),
                "\\PC{0,30}".prop_map(Value::from),
                Just(json!({"wav": 1})),
                Just(json!([{"name": "Diversion", "value": "<sip:"}])),
            ],
            0..12,
        ),
    ) {
        let body = body(kind, &merged(json!(fields)));
        let _ = Unverified::read(&body);
    }

    #[test]
    fn only_what_was_signed_is_believed(body in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..300, bit in 0u8..8) {
        let signature = STANDARD.encode(signing_key().sign(&[b"1700000000|", &body[..]].concat()).to_bytes());
        let signed = Signed { timestamp: Some("1700000000"), signature: Some(&signature) };
        prop_assert_eq!(verify(signed, &body, &[key()], NOW_S), Ok(()));
        let mut forged = body.clone();
        match forged.get_mut(at) {
            Some(byte) => *byte ^= 1 << bit,
            None => forged.push(bit),
        }
        prop_assert_eq!(verify(signed, &forged, &[key()], NOW_S), Err(WebhookError::WrongSignature));
    }
}

const KINDS: [&str; 12] = [
    "call.initiated",
    "call.answered",
    "call.hangup",
    "streaming.failed",
    "call.dtmf.received",
    "call.gather.ended",
    "call.recording.saved",
    "call.transcription",
    "call.refer.failed",
    "call.cost",
    "number_order.complete",
    "call.other",
];

const FIELDS: [&str; 17] = [
    "call_control_id",
    "connection_id",
    "client_state",
    "direction",
    "from",
    "to",
    "caller_id_name",
    "sip_headers",
    "stream_url",
    "hangup_cause",
    "sip_hangup_cause",
    "digit",
    "recording_urls",
    "total_cost",
    "sip_notify_response",
    "id",
    "status",
];

const ID: &str = "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0";

fn leg() -> Value {
    json!({
        "call_control_id": "v3:MdI91X4l", "call_leg_id": "428c31b6-7af4", "call_session_id": "428c31b6-abf3",
        "connection_id": "2345678901234567890",
    })
}

fn extend(payload: &mut Value, more: Value) {
    let (Value::Object(payload), Value::Object(more)) = (payload, more) else { panic!("two objects") };
    payload.extend(more);
}

fn merged(more: Value) -> Value {
    let mut payload = leg();
    extend(&mut payload, more);
    payload
}

fn body(kind: &str, payload: &Value) -> Vec<u8> {
    let body = json!({
        "data": {"record_type": "event", "event_type": kind, "id": ID, "occurred_at": "2025-11-21T09:00:00.123456Z", "payload": payload},
        "meta": {"attempt": 2, "delivered_to": "https://offhook.example/hooks/telnyx/voice"},
    });
    body.to_string().into_bytes()
}

/// What a webhook with this payload is understood to tell.
fn told(kind: &str, payload: Value) -> Event {
    let body = body(kind, &merged(payload));
    believed(Unverified::read(&body).unwrap_or_else(|e| panic!("{kind}: {e}")), &body).event
}

fn believed(unverified: Unverified<'_>, body: &[u8]) -> Webhook {
    let signature = STANDARD.encode(signing_key().sign(&[b"1700000000|", body].concat()).to_bytes());
    let signed = Signed { timestamp: Some("1700000000"), signature: Some(&signature) };
    unverified.verify(signed, &[key()], NOW_S).unwrap()
}

fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&std::array::from_fn(|n| n as u8))
}

fn key() -> PublicKey {
    PUBLIC_KEY.parse().unwrap()
}

fn other_key() -> PublicKey {
    let other = SigningKey::from_bytes(&[7; 32]);
    STANDARD.encode(other.verifying_key().as_bytes()).parse().unwrap()
}
