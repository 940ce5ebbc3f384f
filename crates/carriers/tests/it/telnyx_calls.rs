//! Commands to calls at Telnyx: what is sent, and how often.

use crate::stand_in::{Reply, StandIn};
use crate::telnyx_account::{APPLICATION, CALL, accepted, asked, body, data, refused, telnyx};
use offhook_carriers::CarrierError;
use offhook_carriers::telnyx::{NewCall, NewLeg, Rejection, StreamTo, Transfer};
use offhook_core::Pii;
use offhook_media::coding::Coding;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn a_telephone_stream_begins_with_the_answer() {
    for (coding, codec) in [(Coding::MU_LAW, "PCMU"), (Coding::A_LAW, "PCMA")] {
        let carrier = StandIn::answering([accepted()]).await;
        telnyx(&carrier).answer(CALL, &stream(coding), Some("cnv_1"), "cmd_1").await.unwrap();
        assert_eq!(asked(&carrier), [action("answer")]);
        assert_eq!(
            body(&carrier, 0),
            json!({
                "stream_url": "wss://offhook.example/hooks/telnyx/media?t=ticket", "stream_track": "inbound_track",
                "stream_codec": codec, "stream_bidirectional_mode": "rtp", "stream_bidirectional_codec": codec,
                "stream_bidirectional_target_legs": "self", "client_state": "Y252XzE=", "command_id": "cmd_1",
            })
        );
    }
}

#[tokio::test]
async fn a_wideband_stream_begins_after_the_answer_which_cannot_ask_for_its_rate() {
    let carrier = StandIn::answering([accepted(), accepted()]).await;
    let telnyx = telnyx(&carrier);
    telnyx.answer(CALL, &stream(Coding::WIDE), None, "cmd_1").await.unwrap();
    telnyx.start_stream(CALL, &stream(Coding::WIDE), "cmd_2").await.unwrap();
    assert_eq!(asked(&carrier), [action("answer"), action("streaming_start")]);
    assert_eq!(body(&carrier, 0), json!({ "command_id": "cmd_1" }));
    assert_eq!(
        body(&carrier, 1),
        json!({
            "stream_url": "wss://offhook.example/hooks/telnyx/media?t=ticket", "stream_track": "inbound_track",
            "stream_codec": "L16", "stream_bidirectional_mode": "rtp", "stream_bidirectional_codec": "L16",
            "stream_bidirectional_sampling_rate": 16000, "stream_bidirectional_target_legs": "self", "command_id": "cmd_2",
        })
    );
}

#[tokio::test]
async fn every_command_says_what_is_to_be_done() {
    let carrier = StandIn::answering(std::iter::repeat_with(accepted).take(9)).await;
    let telnyx = telnyx(&carrier);
    telnyx.hang_up(CALL, "c1").await.unwrap();
    telnyx.reject(CALL, Rejection::Declined, "c2").await.unwrap();
    telnyx.reject(CALL, Rejection::Busy, "c3").await.unwrap();
    telnyx.stop_stream(CALL, "c4").await.unwrap();
    telnyx.press(CALL, &Pii::new("1w2#".into()), "c5").await.unwrap();
    telnyx.speak(CALL, &Pii::new("Guten Tag".into()), &"de-AT".parse().unwrap(), "c6").await.unwrap();
    telnyx.refer(CALL, &Pii::new("sip:ada@offhook.example".into()), "c7").await.unwrap();
    telnyx.transfer(CALL, &transfer(), "c8").await.unwrap();
    telnyx.bridge(CALL, "v3:person", "c9").await.unwrap();
    let actions =
        ["hangup", "reject", "reject", "streaming_stop", "send_dtmf", "speak", "refer", "transfer", "bridge"];
    assert_eq!(asked(&carrier), actions.map(action));
    let bodies: Vec<Value> = (0..9).map(|index| body(&carrier, index)).collect();
    assert_eq!(
        bodies,
        [
            json!({"command_id": "c1"}),
            json!({"command_id": "c2", "cause": "CALL_REJECTED"}),
            json!({"command_id": "c3", "cause": "USER_BUSY"}),
            json!({"command_id": "c4"}),
            json!({"command_id": "c5", "digits": "1w2#"}),
            json!({"command_id": "c6", "payload": "Guten Tag", "payload_type": "text", "voice": "AWS.Polly.Vicki"}),
            json!({"command_id": "c7", "sip_address": "sip:ada@offhook.example"}),
            json!({
                "command_id": "c8", "to": "+14155550199", "from": "+14155550101", "timeout_secs": 20,
                "target_leg_client_state": "Y252XzE=",
            }),
            json!({
                "command_id": "c9", "call_control_id": "v3:person", "park_after_unbridge": "self",
                "prevent_double_bridge": true,
            }),
        ]
    );
}

#[tokio::test]
async fn a_command_of_unknown_outcome_is_given_once_more_with_the_same_id() {
    let carrier = StandIn::answering([Reply::Say(500, String::new()), accepted()]).await;
    telnyx(&carrier).hang_up(CALL, "cmd_1").await.unwrap();
    assert_eq!(
        (body(&carrier, 0), body(&carrier, 1)),
        (json!({"command_id": "cmd_1"}), json!({"command_id": "cmd_1"}))
    );
    let carrier = StandIn::answering([Reply::Silence, Reply::Silence, accepted()]).await;
    let impatient = telnyx(&carrier).with_timeout(Duration::from_millis(200));
    let error = impatient.answer(CALL, &stream(Coding::MU_LAW), None, "cmd_1").await.unwrap_err();
    assert!(matches!(error, CarrierError::OutcomeUnknown { .. }), "{error}");
    assert_eq!(asked(&carrier).len(), 2);
}

#[tokio::test]
async fn a_call_that_is_over_needs_no_hanging_up() {
    for code in ["90015", "90018"] {
        let carrier = StandIn::answering([refused(422, code), refused(422, code), refused(422, code)]).await;
        let telnyx = telnyx(&carrier);
        telnyx.hang_up(CALL, "c1").await.unwrap();
        telnyx.reject(CALL, Rejection::Busy, "c2").await.unwrap();
        let error = telnyx.press(CALL, &Pii::new("1".into()), "c3").await.unwrap_err();
        assert!(matches!(error, CarrierError::CallOver), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_not_sent() {
    let carrier = StandIn::answering([]).await;
    let telnyx = telnyx(&carrier);
    let english = "en-US".parse().unwrap();
    let not_askable =
        |outcome: Result<(), CarrierError>| assert!(matches!(outcome, Err(CarrierError::NotAskable(_))));
    not_askable(telnyx.press(CALL, &Pii::new("call me".into()), "c").await);
    not_askable(telnyx.speak(CALL, &Pii::new(" ".into()), &english, "c").await);
    not_askable(telnyx.speak(CALL, &Pii::new("a".repeat(3_001)), &english, "c").await);
    not_askable(telnyx.start_stream(CALL, &stream(Coding::Linear { rate_hz: 22_050 }), "c").await);
    for wrong in [
        NewCall { time_limit_s: Some(14_401), ..new_call() },
        NewCall { link_to: None, shows_linked_caller: true, ..new_call() },
    ] {
        not_askable(telnyx.dial(&wrong, "c").await.map(drop));
    }
    assert!(asked(&carrier).is_empty());
}

#[tokio::test]
async fn a_call_is_made_once() {
    let leg = json!({"call_control_id": CALL, "call_leg_id": "l", "call_session_id": "s", "is_alive": false, "record_type": "call"});
    let carrier = StandIn::answering([data(leg)]).await;
    let made = telnyx(&carrier).dial(&new_call(), "cmd_1").await.unwrap();
    assert_eq!(made, NewLeg { carrier_call: CALL.into(), session: "s".into() });
    assert_eq!(asked(&carrier), ["POST /calls"]);
    assert_eq!(
        body(&carrier, 0),
        json!({
            "connection_id": APPLICATION, "to": "+14155550199", "from": "+14155550101", "link_to": "v3:caller",
            "bridge_intent": true,
            "send_digits_on_answer": "W12#", "timeout_secs": 20, "time_limit_secs": 3600, "command_id": "cmd_1",
            "client_state": "Y252XzE=", "stream_url": "wss://offhook.example/hooks/telnyx/media?t=ticket",
            "stream_track": "inbound_track", "stream_codec": "L16", "stream_bidirectional_mode": "rtp",
            "stream_bidirectional_codec": "L16", "stream_bidirectional_sampling_rate": 16000,
            "stream_bidirectional_target_legs": "self",
        })
    );
    for reply in [Reply::Say(500, "oops".into()), Reply::ok("{"), data(json!({"call_control_id": CALL}))] {
        let carrier = StandIn::answering([reply, accepted()]).await;
        let error = telnyx(&carrier).dial(&new_call(), "cmd_1").await.unwrap_err();
        assert!(matches!(error, CarrierError::OutcomeUnknown { .. }), "{error}");
        assert_eq!(asked(&carrier).len(), 1);
    }
}

#[tokio::test]
async fn a_call_of_unknown_outcome_is_found_by_its_state() {
    let live = |id: &str, state: &str| json!({"call_control_id": id, "client_state": state, "call_duration": 1, "record_type": "call"});
    let page = |calls: Value, after: Value| {
        Reply::ok(
            &json!({"data": calls, "meta": {"total_items": 2, "cursors": {"after": after, "before": null}}})
                .to_string(),
        )
    };
    let pages = || {
        [
            page(json!([live("v3:a", "")]), json!("next==")),
            page(json!([live("v3:b", "Y252XzE=")]), json!(null)),
        ]
    };
    let carrier = StandIn::answering(pages()).await;
    assert_eq!(telnyx(&carrier).live_call(APPLICATION, "cnv_1").await.unwrap().as_deref(), Some("v3:b"));
    let list = format!("GET /connections/{APPLICATION}/active_calls?page[limit]=250");
    assert_eq!(asked(&carrier), [list.clone(), format!("{list}&page[after]=next==")]);
    let carrier = StandIn::answering(pages()).await;
    assert_eq!(telnyx(&carrier).live_call(APPLICATION, "cnv_2").await.unwrap(), None);
}

#[tokio::test]
async fn a_call_is_live_until_telnyx_says_otherwise() {
    let call =
        |alive: bool| data(json!({"call_control_id": CALL, "call_session_id": "s", "is_alive": alive}));
    for (reply, live) in [
        (call(true), true),
        (call(false), false),
        (refused(404, "10005"), false),
        (refused(422, "90015"), false),
    ] {
        let carrier = StandIn::answering([reply]).await;
        assert_eq!(telnyx(&carrier).is_live(CALL).await.unwrap(), live);
        assert_eq!(asked(&carrier), [format!("GET /calls/{CALL}")]);
    }
}

#[tokio::test]
async fn a_hostile_id_stays_in_its_place() {
    let carrier = StandIn::answering([accepted()]).await;
    telnyx(&carrier).hang_up("../../x?y#z", "c").await.unwrap();
    assert_eq!(carrier.lines(), ["POST /v2/calls/..%2F..%2Fx%3Fy%23z/actions/hangup"]);
}

pub fn new_call() -> NewCall {
    NewCall {
        application: APPLICATION.into(),
        to: Pii::new("+14155550199".into()),
        from: Pii::new("+14155550101".into()),
        stream: Some(stream(Coding::WIDE)),
        client_state: Some("cnv_1".into()),
        link_to: Some("v3:caller".into()),
        shows_linked_caller: true,
        keys: Some(Pii::new("W12#".into())),
        ring_timeout_s: Some(20),
        time_limit_s: Some(3600),
    }
}

pub fn transfer() -> Transfer {
    Transfer {
        to: Pii::new("+14155550199".into()),
        from: Some(Pii::new("+14155550101".parse().unwrap())),
        ring_timeout_s: Some(20),
        target_state: Some("cnv_1".into()),
    }
}

pub fn stream(coding: Coding) -> StreamTo {
    StreamTo { url: "wss://offhook.example/hooks/telnyx/media?t=ticket".parse().unwrap(), coding }
}

fn action(name: &str) -> String {
    format!("POST /calls/{CALL}/actions/{name}")
}
