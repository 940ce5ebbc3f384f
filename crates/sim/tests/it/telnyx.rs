//! The simulated Telnyx over real sockets: calls, commands, media streams, webhooks in all their ways, the official package.

use std::time::Duration;

use axum::http::HeaderMap;
use offhook_media::coding::Coding;
use offhook_sim::carrier::Pickup;
use offhook_sim::carrier::telnyx::{
    AfterLoss, AnswerRate, ByteOrder, CallOrder, CallState, Codec, Delivery, HangupCause, HangupSource,
    Manners, Signing, SimCall, TelnyxSim,
};
use offhook_sim::carrier::{LineEvent, Phone, StreamLoss, What};
use serde_json::{Value, json};

use crate::customer::{LIMIT, tone};
use crate::telnyx_customer::{
    APPLICATION, Api, CALLER, Customer, HUMAN, Media, NUMBER, VOICE_PROFILE, code, open, ring, settings,
    start,
};

/// The same tone as [`tone`], at 16 kHz.
fn wide_tone(ms: u64) -> Vec<i16> {
    let wave = |n: u64| (f64::from(n as u32 % 16) / 16.0 * std::f64::consts::TAU).sin() * 10_700.0;
    (0..ms * 16).map(|n| wave(n) as i16).collect()
}

fn coded(coding: Coding, samples: &[i16]) -> Vec<u8> {
    let mut coded = Vec::new();
    coding.encode(samples, &mut coded);
    coded
}

/// Loud samples that were heard so far.
fn loud(phone: &Phone) -> usize {
    phone.recording().heard.iter().filter(|sample| sample.abs() > 5_000).count()
}

/// Waits until about so much of a tone was heard, and no more.
async fn until_heard(call: &SimCall, tone_ms: u64) {
    let expected = tone(tone_ms).iter().filter(|sample| sample.abs() > 5_000).count();
    let heard = call.phone().until(LIMIT, |phone| loud(phone) + 40 >= expected).await;
    let loud = loud(&call.phone());
    assert!(heard.is_ok() && loud < expected + 40, "{loud} of {expected} samples: {heard:?}");
}

async fn event(call: &SimCall, fits: impl Fn(&What) -> bool) -> u64 {
    let found = call.phone().until_event(LIMIT, fits).await;
    found.unwrap_or_else(|error| panic!("{error}: {:?}", call.phone().history())).at_ms
}

fn wide_stream(customer: &Customer) -> Value {
    json!({
        "stream_url": customer.media_url("call?t=ticket"),
        "stream_track": "inbound_track",
        "stream_codec": "L16",
        "stream_bidirectional_mode": "rtp",
        "stream_bidirectional_codec": "L16",
        "stream_bidirectional_sampling_rate": 16_000,
        "stream_bidirectional_target_legs": "self",
    })
}

/// Places a call, answers it, and opens a stream of this kind.
async fn streamed(
    sim: &TelnyxSim,
    customer: &Customer,
    api: &Api,
    order: CallOrder,
    stream: Value,
) -> (SimCall, Media, Value) {
    let call = sim.call(order).unwrap();
    api.command(&call, "answer", json!({})).await;
    call.until_state(LIMIT, |state| state == CallState::Answered).await.unwrap();
    api.command(&call, "streaming_start", stream).await;
    let mut media = customer.next_media().await;
    assert_eq!(media.next("connected").await["version"], "1.0.0");
    let start = media.next("start").await;
    (call, media, start)
}

/// The next audio that is not silence, decoded.
async fn next_sound(media: &mut Media, coding: Coding) -> Vec<i16> {
    loop {
        let mut samples = Vec::new();
        coding.decode(&media.audio().await, &mut samples);
        if samples.iter().any(|sample| sample.abs() > 5_000) {
            return samples;
        }
    }
}

// Calls

#[tokio::test]
async fn a_call_rings_is_answered_streamed_both_ways_and_hung_up() {
    let (sim, customer, api) = open().await;
    let call = ring(&sim);
    let rung = customer.until_told("call.initiated", 1).await;
    assert_eq!(rung.path, "/voice");
    let payload = rung.payload();
    assert_eq!((&payload["from"], &payload["to"]), (&json!(CALLER), &json!(NUMBER)));
    assert_eq!((&payload["direction"], &payload["state"]), (&json!("incoming"), &json!("parked")));
    assert_eq!((&payload["connection_id"], &payload["client_state"]), (&json!(APPLICATION), &Value::Null));
    assert_eq!(rung.control_id(), call.control_id());
    assert_eq!(rung.json["meta"], json!({"attempt": 1, "delivered_to": customer.url("/voice")}));

    api.command(&call, "answer", json!({"client_state": "Y2FsbA=="})).await;
    let answered = customer.until_told("call.answered", 1).await;
    assert_eq!(answered.payload()["client_state"], "Y2FsbA==");
    api.command(&call, "streaming_start", wide_stream(&customer)).await;
    let mut media = customer.next_media().await;
    assert_eq!(media.uri.query(), Some("t=ticket"));
    let start = media.next("start").await;
    assert_eq!(start["sequence_number"], "1");
    assert_eq!(
        start["start"]["media_format"],
        json!({"encoding": "L16", "sample_rate": 16_000, "channels": 1})
    );
    assert_eq!(start["start"]["call_control_id"], call.control_id());
    assert_eq!(start["start"]["client_state"], "Y2FsbA==");

    call.phone().say(&tone(200));
    assert_eq!(next_sound(&mut media, Coding::WIDE).await.len(), 320);
    media.play(&coded(Coding::WIDE, &wide_tone(300))).await;
    media.mark("greeting").await;
    let mark = media.next("mark").await;
    assert_eq!((&mark["mark"]["name"], &mark["stream_id"]), (&json!("greeting"), &start["stream_id"]));
    until_heard(&call, 300).await;

    api.command(&call, "hangup", json!({})).await;
    assert_eq!(media.next("stop").await["stop"]["call_control_id"], call.control_id());
    let end = call.until_over(LIMIT).await.unwrap();
    assert_eq!((end.cause, end.source), (HangupCause::NormalClearing, HangupSource::Callee));
    let over = customer.until_told("call.hangup", 1).await;
    assert_eq!(over.payload()["hangup_cause"], "normal_clearing");
    let order: Vec<String> = customer.all_told().iter().map(|told| told.event().to_owned()).collect();
    let expected =
        ["call.initiated", "call.answered", "streaming.started", "streaming.stopped", "call.hangup"];
    assert_eq!(order, expected);
}

#[tokio::test]
async fn a_caller_who_gives_up_and_one_who_is_declined_are_told_apart() {
    let (sim, customer, api) = open().await;
    let given_up = ring(&sim);
    given_up.phone().hang_up();
    let end = given_up.until_over(LIMIT).await.unwrap();
    assert_eq!((end.cause, end.source), (HangupCause::OriginatorCancel, HangupSource::Caller));
    for (cause, expected, sip) in
        [("USER_BUSY", HangupCause::UserBusy, "486"), ("CALL_REJECTED", HangupCause::CallRejected, "603")]
    {
        let call = ring(&sim);
        api.command(&call, "reject", json!({"cause": cause})).await;
        assert_eq!(call.until_over(LIMIT).await.unwrap().cause, expected);
        let told = customer.until_told("call.hangup", if sip == "486" { 2 } else { 3 }).await;
        assert_eq!(told.payload()["sip_hangup_cause"], sip);
        assert_eq!(told.payload()["call_quality_stats"], Value::Null);
    }
}

#[tokio::test]
async fn a_call_that_nobody_commands_is_hung_up() {
    let (sim, customer, api) = open().await;
    let settings = json!({
        "application_name": "ours", "webhook_event_url": customer.url("/voice"), "webhook_api_version": "2",
        "first_command_timeout": true, "first_command_timeout_secs": 1, "call_cost_in_webhooks": true,
    });
    assert_eq!(api.patch(&format!("/call_control_applications/{APPLICATION}"), settings).await.0, 200);
    let (left, commanded) = (ring(&sim), ring(&sim));
    api.command(&commanded, "answer", json!({})).await;
    let end = left.until_over(LIMIT).await.unwrap();
    assert_eq!((end.cause, end.source), (HangupCause::Timeout, HangupSource::Unknown));
    assert_eq!(commanded.state(), CallState::Answered);
    let cost = customer.until_told("call.cost", 1).await;
    assert_eq!(
        (&cost.payload()["status"], &cost.payload()["billed_duration_secs"]),
        (&json!("success"), &json!(0))
    );
}

#[tokio::test]
async fn commands_are_possible_in_the_right_state_only() {
    let (sim, _customer, api) = open().await;
    let call = ring(&sim);
    for early in ["speak", "streaming_start", "gather", "send_dtmf"] {
        let body = match early {
            "speak" => json!({"payload": "Hello", "voice": "AWS.Polly.Joanna"}),
            "send_dtmf" => json!({"digits": "1"}),
            "streaming_start" => json!({"stream_url": "wss://offhook.example/media"}),
            _ => json!({}),
        };
        assert_eq!(code(api.try_command(&call, early, body).await), (422, "90034".into()), "{early}");
    }
    api.command(&call, "answer", json!({})).await;
    call.until_state(LIMIT, |state| state == CallState::Answered).await.unwrap();
    assert_eq!(code(api.try_command(&call, "answer", json!({})).await), (422, "10027".into()));
    api.command(&call, "hangup", json!({"command_id": "end"})).await;
    call.until_over(LIMIT).await.unwrap();
    for _ in 0..2 {
        let refused = api.try_command(&call, "hangup", json!({"command_id": "late"})).await;
        assert_eq!(code(refused), (422, "90018".into()), "a refused command is not remembered");
    }
    api.command(&call, "hangup", json!({"command_id": "end"})).await;
    let unknown = api.post("/calls/v3:nobody/actions/hangup", json!({})).await;
    assert_eq!(code(unknown), (422, "90015".into()));
    assert_eq!(code(api.try_command(&call, "dance", json!({})).await), (404, "10005".into()));
    let (_, shown) = api.get(&format!("/calls/{}", call.control_id())).await;
    assert_eq!((&shown["data"]["is_alive"], shown["data"]["end_time"].is_string()), (&json!(false), true));
}

#[tokio::test]
async fn a_call_that_is_over_can_be_as_one_that_never_was() {
    let customer = Customer::open().await;
    let mut settings = settings(&customer);
    settings.dead_calls_are_unknown = true;
    let sim = start(settings).await;
    let call = ring(&sim);
    call.phone().hang_up();
    call.until_over(LIMIT).await.unwrap();
    assert_eq!(code(Api::of(&sim).try_command(&call, "answer", json!({})).await), (422, "90015".into()));
}

#[tokio::test]
async fn a_command_that_comes_twice_is_carried_out_once() {
    let (sim, customer, api) = open().await;
    let call = ring(&sim);
    let answer = json!({"command_id": "answer"});
    api.command(&call, "answer", answer.clone()).await;
    api.command(&call, "answer", answer).await;
    call.until_state(LIMIT, |state| state == CallState::Answered).await.unwrap();
    let speak = json!({"payload": "Hello", "voice": "AWS.Polly.Joanna", "command_id": "speak"});
    api.command(&call, "speak", speak.clone()).await;
    api.command(&call, "speak", speak).await;
    api.command(&call, "speak", json!({"payload": "Bye", "voice": "AWS.Polly.Joanna"})).await;
    customer.until_told("call.speak.ended", 2).await;
    let said = |text: &str| What::CarrierSaid { text: text.into() };
    let heard: Vec<What> = call.phone().history().into_iter().map(|event| event.what).collect();
    assert_eq!(heard, [What::Answered, said("Hello"), said("Bye")]);
    assert_eq!(customer.told("call.answered").len(), 1);
}

#[tokio::test]
async fn what_is_spoken_played_pressed_and_gathered_is_told() {
    let (sim, customer, api) = open().await;
    let call = ring(&sim);
    api.command(&call, "answer", json!({})).await;
    call.until_state(LIMIT, |state| state == CallState::Answered).await.unwrap();

    let url = "https://h.example/a.mp3";
    api.command(&call, "playback_start", json!({"audio_url": url})).await;
    let ended = customer.until_told("call.playback.ended", 1).await;
    assert_eq!(
        (&ended.payload()["status"], &ended.payload()["media_url"]),
        (&json!("completed"), &json!(url))
    );
    assert_eq!(code(api.try_command(&call, "playback_start", json!({})).await), (422, "10004".into()));

    let prompt =
        json!({"payload": "Press 1", "voice": "AWS.Polly.Joanna", "maximum_digits": 1, "valid_digits": "1"});
    for (keys, expected) in [("1", "valid"), ("2", "invalid")] {
        api.command(&call, "gather_using_speak", prompt.clone()).await;
        customer.until_told("call.speak.started", if keys == "1" { 1 } else { 2 }).await;
        call.phone().press(keys);
        let ended = customer.until_told("call.gather.ended", if keys == "1" { 1 } else { 2 }).await;
        assert_eq!(
            (&ended.payload()["digits"], &ended.payload()["status"]),
            (&json!(keys), &json!(expected))
        );
    }
    assert_eq!(customer.told("call.dtmf.received")[0].payload()["digit"], "1");
    api.command(&call, "gather", json!({})).await;
    call.phone().press("42#");
    assert_eq!(customer.until_told("call.gather.ended", 3).await.payload()["digits"], "42");
    api.command(&call, "gather", json!({"initial_timeout_millis": 10})).await;
    assert_eq!(customer.until_told("call.gather.ended", 4).await.payload()["status"], "timeout");
    let patient =
        json!({"payload": "Well?", "voice": "AWS.Polly.Joanna", "timeout_millis": 10, "maximum_tries": 2});
    api.command(&call, "gather_using_speak", patient).await;
    assert_eq!(customer.until_told("call.gather.ended", 5).await.payload()["status"], "timeout");
    let asked = |event: &&LineEvent| event.what == What::CarrierSaid { text: "Well?".into() };
    assert_eq!(call.phone().history().iter().filter(asked).count(), 2);
    api.command(&call, "gather", json!({})).await;
    api.command(&call, "gather_stop", json!({})).await;
    assert_eq!(customer.until_told("call.gather.ended", 6).await.payload()["status"], "cancelled");

    api.command(&call, "send_dtmf", json!({"digits": "1w#", "duration_millis": 100})).await;
    for digit in ['1', '#'] {
        event(&call, |what| *what == What::DigitHeard { digit }).await;
    }
    assert_eq!(
        code(api.try_command(&call, "send_dtmf", json!({"digits": "1x"})).await),
        (422, "90014".into())
    );
    api.command(&call, "gather", json!({})).await;
    call.phone().hang_up();
    assert_eq!(customer.until_told("call.gather.ended", 7).await.payload()["status"], "call_hangup");
}

#[tokio::test]
async fn the_state_of_the_client_comes_back_until_it_is_changed() {
    let (sim, customer, api) = open().await;
    let call = ring(&sim);
    let answer = json!({"client_state": "b25l", "webhook_urls": {"call.hangup": customer.url("/over")}});
    api.command(&call, "answer", answer).await;
    assert_eq!(customer.until_told("call.answered", 1).await.payload()["client_state"], "b25l");
    let path = format!("/calls/{}/actions/client_state_update", call.control_id());
    let changed =
        api.try_ask(reqwest::Method::PUT, &path, Some(json!({"client_state": "dHdv"}))).await.unwrap();
    assert_eq!(changed.0, 200);
    call.phone().hang_up();
    let over = customer.until_told("call.hangup", 1).await;
    assert_eq!((&over.payload()["client_state"], over.path.as_str()), (&json!("dHdv"), "/over"));
}

// Calls out

async fn dial(sim: &TelnyxSim, api: &Api, more: Value) -> SimCall {
    let mut order = json!({"connection_id": APPLICATION, "to": HUMAN, "from": NUMBER});
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, dialled) = api.post("/calls", order).await;
    assert_eq!((status, &dialled["data"]["is_alive"]), (200, &json!(false)), "{dialled}");
    sim.find_call(dialled["data"]["call_control_id"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn each_end_of_a_dialled_call_has_its_cause() {
    let (sim, customer, api) = open().await;
    for (n, (callee, cause, sip)) in [
        (Pickup::Busy { after_ms: 1 }, "user_busy", "486"),
        (Pickup::Rejects { after_ms: 1 }, "call_rejected", "603"),
        (Pickup::NoAnswer, "timeout", "487"),
        (Pickup::NotFound, "not_found", "404"),
    ]
    .into_iter()
    .enumerate()
    {
        sim.callee(HUMAN, callee);
        dial(&sim, &api, json!({"timeout_secs": 1, "client_state": "aHVtYW4="})).await;
        let over = customer.until_told("call.hangup", n + 1).await;
        let told = over.payload();
        assert_eq!((&told["hangup_cause"], &told["sip_hangup_cause"]), (&json!(cause), &json!(sip)));
        assert_eq!(told["client_state"], "aHVtYW4=");
    }
    assert_eq!(customer.told("call.initiated")[0].payload()["direction"], "outgoing");
    assert!(customer.told("call.answered").is_empty());
}

#[tokio::test]
async fn a_dialled_call_is_streamed_hung_up_or_taken_back() {
    let (sim, customer, api) = open().await;
    let call = dial(&sim, &api, wide_stream(&customer)).await;
    let mut media = customer.next_media().await;
    media.next("start").await;
    media.play(&coded(Coding::WIDE, &wide_tone(100))).await;
    until_heard(&call, 100).await;
    call.phone().hang_up();
    let end = call.until_over(LIMIT).await.unwrap();
    assert_eq!((end.cause, end.source), (HangupCause::NormalClearing, HangupSource::Callee));

    sim.callee(HUMAN, Pickup::NoAnswer);
    let call = dial(&sim, &api, json!({"command_id": "once"})).await;
    let again = dial(&sim, &api, json!({"command_id": "once"})).await;
    assert_eq!(call.control_id(), again.control_id());
    api.command(&call, "hangup", json!({})).await;
    assert_eq!(call.until_over(LIMIT).await.unwrap().cause, HangupCause::OriginatorCancel);
    assert_eq!(sim.calls().len(), 2);
}

#[tokio::test]
async fn a_dial_that_cannot_be_is_refused() {
    let (_sim, _customer, api) = open().await;
    for (order, status, expected) in [
        (json!({"to": HUMAN, "from": NUMBER}), 422, "10004"),
        (json!({"connection_id": "1", "to": HUMAN, "from": NUMBER}), 422, "10015"),
        (json!({"connection_id": APPLICATION, "to": "12", "from": NUMBER}), 422, "10016"),
        (json!({"connection_id": APPLICATION, "to": HUMAN, "from": NUMBER, "link_to": "v3:x"}), 422, "90015"),
        (json!({"connection_id": APPLICATION, "to": 7, "from": NUMBER}), 422, "10026"),
        (json!({"connection_id": APPLICATION, "to": HUMAN, "from": NUMBER, "colour": "red"}), 400, "10015"),
    ] {
        assert_eq!(code(api.post("/calls", order).await), (status, expected.into()));
    }
}

#[tokio::test]
async fn who_answered_is_told_where_that_was_asked() {
    let (sim, customer, api) = open().await;
    let human = "+14155550178";
    sim.callee(HUMAN, Pickup::Machine { after_ms: 1 });
    for (to, wish, expected) in [
        (HUMAN, "detect", vec![("call.machine.detection.ended", "machine")]),
        (human, "detect_beep", vec![("call.machine.detection.ended", "human")]),
        (human, "premium", vec![("call.machine.premium.detection.ended", "human_residence")]),
        (
            HUMAN,
            "premium",
            vec![
                ("call.machine.premium.detection.ended", "machine"),
                ("call.machine.premium.greeting.ended", "beep_detected"),
            ],
        ),
    ] {
        let call = dial(&sim, &api, json!({"to": to, "answering_machine_detection": wish})).await;
        for (event, result) in expected {
            let told = customer.until_told_of(&call, event).await;
            assert_eq!(told.payload()["result"], result, "{to} {wish}");
        }
    }
}

#[tokio::test]
async fn a_called_party_can_decline_by_hand_and_hear_keys_on_answering() {
    let (sim, _customer, api) = open().await;
    let call = dial(&sim, &api, json!({"send_digits_on_answer": "w7"})).await;
    event(&call, |what| *what == What::DigitHeard { digit: '7' }).await;
    sim.callee(HUMAN, Pickup::NoAnswer);
    let call = dial(&sim, &api, json!({})).await;
    call.phone().hang_up();
    let end = call.until_over(LIMIT).await.unwrap();
    assert_eq!((end.cause, end.source), (HangupCause::CallRejected, HangupSource::Callee));
}

#[tokio::test]
async fn more_than_150_calls_in_five_seconds_are_not_dialled() {
    let (_sim, _customer, api) = open().await;
    let order = json!({"connection_id": APPLICATION, "to": HUMAN, "from": NUMBER, "timeout_secs": 1});
    // At once, or a busy machine takes longer than five seconds to ask.
    let answers = futures_util::future::join_all((0..200).map(|_| api.post("/calls", order.clone()))).await;
    let (dialled, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.0 == 200);
    assert!(dialled.len() >= 150 && !refused.is_empty(), "{} were dialled", dialled.len());
    for answer in refused {
        assert_eq!(code(answer), (429, "90103".into()));
    }
}

#[tokio::test]
async fn a_transferred_caller_talks_with_the_called_party() {
    let (sim, customer, api) = open().await;
    let call = ring(&sim);
    api.command(&call, "answer", json!({})).await;
    call.until_state(LIMIT, |state| state == CallState::Answered).await.unwrap();

    sim.callee(HUMAN, Pickup::Busy { after_ms: 1 });
    let transfer = json!({"to": HUMAN, "target_leg_client_state": "bGVn"});
    api.command(&call, "transfer", transfer.clone()).await;
    let over = customer.until_told("call.hangup", 1).await;
    assert_eq!(
        (&over.payload()["hangup_cause"], &over.payload()["client_state"]),
        (&json!("user_busy"), &json!("bGVn"))
    );
    assert_eq!(call.state(), CallState::Answered, "the caller is still ours");

    sim.callee(HUMAN, Pickup::Answers { after_ms: 1 });
    api.command(&call, "transfer", transfer).await;
    customer.until_told("call.bridged", 2).await;
    let human = sim.until_called(LIMIT, HUMAN, 1).await.unwrap();
    assert_eq!((human.session_id(), human.from()), (call.session_id(), NUMBER));
    call.phone().say(&tone(200));
    until_heard(&human, 200).await;
    human.phone().say(&tone(300));
    until_heard(&call, 300).await;
    human.phone().hang_up();
    assert_eq!(call.until_over(LIMIT).await.unwrap().cause, HangupCause::NormalClearing);
}

#[tokio::test]
async fn a_parked_caller_stays_when_the_other_leg_ends() {
    let (sim, customer, api) = open().await;
    let call = ring(&sim);
    api.command(&call, "answer", json!({})).await;
    call.until_state(LIMIT, |state| state == CallState::Answered).await.unwrap();
    let human = dial(&sim, &api, json!({"link_to": call.control_id(), "bridge_intent": true})).await;
    assert_eq!(human.session_id(), call.session_id());
    human.until_state(LIMIT, |state| state == CallState::Answered).await.unwrap();
    let bridge = json!({"call_control_id": human.control_id(), "park_after_unbridge": "self"});
    api.command(&call, "bridge", bridge).await;
    customer.until_told("call.bridged", 2).await;
    api.command(&human, "hangup", json!({})).await;
    human.until_over(LIMIT).await.unwrap();
    api.command(&call, "speak", json!({"payload": "Back again", "voice": "AWS.Polly.Joanna"})).await;
    event(&call, |what| matches!(what, What::CarrierSaid { .. })).await;
}

#[tokio::test]
async fn a_leg_that_is_bridged_again_lets_the_first_one_go() {
    let (sim, customer, api) = open().await;
    let call = ring(&sim);
    // Nobody answered it: the bridge does.
    api.command(&call, "transfer", json!({"to": HUMAN})).await;
    customer.until_told("call.bridged", 2).await;
    let first = sim.until_called(LIMIT, HUMAN, 0).await.unwrap();
    let second = dial(&sim, &api, json!({})).await;
    second.until_state(LIMIT, |state| state == CallState::Answered).await.unwrap();
    let bridge = json!({"call_control_id": call.control_id(), "prevent_double_bridge": true});
    assert_eq!(code(api.try_command(&second, "bridge", bridge).await), (422, "10027".into()));
    api.command(&call, "bridge", json!({"call_control_id": second.control_id()})).await;
    first.until_over(LIMIT).await.unwrap();
    call.phone().say(&tone(200));
    until_heard(&second, 200).await;
    assert_eq!(
        code(api.try_command(&call, "bridge", json!({"call_control_id": "v3:x"})).await),
        (422, "90015".into())
    );
}

#[tokio::test]
async fn a_referred_caller_leaves_where_the_other_side_takes_it() {
    let (sim, customer, api) = open().await;
    let call = ring(&sim);
    api.command(&call, "answer", json!({})).await;
    call.until_state(LIMIT, |state| state == CallState::Answered).await.unwrap();
    let address = "sip:desk@pbx.example";
    sim.callee(address, Pickup::Rejects { after_ms: 0 });
    api.command(&call, "refer", json!({"sip_address": address})).await;
    assert_eq!(customer.until_told("call.refer.failed", 1).await.payload()["sip_notify_response"], 603);
    sim.callee(address, Pickup::default());
    api.command(&call, "refer", json!({"sip_address": address})).await;
    assert_eq!(customer.until_told("call.refer.completed", 1).await.payload()["sip_notify_response"], 200);
    call.until_over(LIMIT).await.unwrap();
    assert_eq!(customer.told("call.refer.started").len(), 2);
}

// Webhooks

#[allow(clippy::disallowed_methods, reason = "how old a signature is can only be said by the clock")]
fn verifies(sim: &TelnyxSim, headers: &HeaderMap, body: &[u8]) -> bool {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    let (Some(timestamp), Some(signature)) = (text("telnyx-timestamp"), text("telnyx-signature-ed25519"))
    else {
        return false;
    };
    let age_s = (jiff::Timestamp::now().as_second() - timestamp.parse::<i64>().unwrap()).abs();
    let key = STANDARD.decode(sim.public_key()).unwrap();
    let signed = [timestamp.as_bytes(), b"|", body].concat();
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key);
    age_s <= 300 && key.verify(&signed, &STANDARD.decode(signature).unwrap()).is_ok()
}

#[tokio::test]
async fn only_a_rightly_signed_webhook_verifies() {
    let (sim, customer, _api) = open().await;
    for (n, (signing, right)) in [
        (Signing::Right, true),
        (Signing::WrongKey, false),
        (Signing::StaleTimestamp, false),
        (Signing::Unsigned, false),
        (Signing::TamperedBody, false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut order = CallOrder::new(NUMBER, CALLER);
        order.signing = Some(signing);
        sim.call(order).unwrap();
        let told = customer.until_told("call.initiated", n + 1).await;
        assert_eq!(verifies(&sim, &told.headers, &told.body), right, "{signing:?}");
        assert_eq!(told.header("content-type"), "application/json");
        assert_eq!(told.header("user-agent"), "telnyx-webhooks");
    }
}

#[tokio::test]
async fn webhooks_come_twice_late_and_out_of_order_as_asked() {
    let (sim, customer, _api) = open().await;
    let place = |delivery| {
        let mut order = CallOrder::new(NUMBER, CALLER);
        order.delivery = Some(delivery);
        let call = sim.call(order).unwrap();
        call.phone().hang_up();
        call
    };
    place(Delivery::Duplicated).until_over(LIMIT).await.unwrap();
    customer.until_told("call.hangup", 2).await;
    for event in ["call.initiated", "call.hangup"] {
        let told = customer.told(event);
        assert_eq!((told.len(), told[0].id()), (2, told[1].id()));
        assert_eq!(told[0].body, told[1].body);
    }
    place(Delivery::Reordered);
    customer.until_told("call.initiated", 3).await;
    let last: Vec<String> = customer.all_told()[4..].iter().map(|told| told.event().to_owned()).collect();
    assert_eq!(last, ["call.hangup", "call.initiated"]);
    let (hangup, initiated) =
        (customer.told("call.hangup")[2].clone(), customer.told("call.initiated")[2].clone());
    let occurred =
        |told: &crate::telnyx_customer::Told| told.json["data"]["occurred_at"].as_str().unwrap().to_owned();
    assert!(occurred(&initiated) < occurred(&hangup), "their own times tell the order");

    place(Delivery::Lost).until_over(LIMIT).await.unwrap();
    let late = place(Delivery::LateMs(200));
    late.until_over(LIMIT).await.unwrap();
    assert_eq!(customer.told("call.initiated").len(), 3);
    assert_eq!(customer.until_told("call.initiated", 4).await.control_id(), late.control_id());
    assert!(sim.repeat_last_webhook("call.initiated").await);
    assert_eq!(customer.told("call.initiated")[4].id(), customer.told("call.initiated")[3].id());
    assert!(!sim.repeat_last_webhook("call.cost").await);
}

#[tokio::test]
async fn a_slow_webhook_holds_up_those_behind_it_only_where_asked() {
    let (sim, customer, _api) = open().await;
    // 408 stands for a server that does not answer in time.
    customer.answer("/voice", &[408]);
    let mut order = CallOrder::new(NUMBER, CALLER);
    order.delivery = Some(Delivery::AtOnce);
    let call = sim.call(order).unwrap();
    customer.until_told("call.initiated", 1).await;
    call.phone().hang_up();
    customer.until_told("call.hangup", 1).await;
    assert!(sim.webhooks().iter().all(|record| record.event_type == "call.hangup"));
}

#[tokio::test]
async fn a_webhook_that_nobody_takes_goes_to_the_failover_and_comes_again() {
    let (sim, customer, api) = open().await;
    customer.answer("/voice", &[500]);
    let call = ring(&sim);
    let taken = customer.until_told("call.initiated", 2).await;
    assert_eq!((taken.path.as_str(), &taken.json["meta"]["attempt"]), ("/failover", &json!(2)));
    assert_eq!(taken.json["meta"]["delivered_to"], customer.url("/failover"));

    customer.answer("/voice", &[500, 404]);
    customer.answer("/failover", &[500, 503]);
    let policy = json!({"webhook_retries_policies": {"call.answered": {"retries_ms": [10, 20]}}});
    api.command(&call, "answer", policy).await;
    customer.until_told("call.answered", 5).await;
    let told = customer.told("call.answered");
    let attempts: Vec<(&str, u64)> = told
        .iter()
        .map(|told| (told.path.as_str(), told.json["meta"]["attempt"].as_u64().unwrap()))
        .collect();
    let expected = [("/voice", 1), ("/failover", 2), ("/voice", 3), ("/failover", 4), ("/voice", 5)];
    assert_eq!(attempts, expected);
    assert!(
        told.iter().all(|again| again.id() == told[0].id() && verifies(&sim, &again.headers, &again.body))
    );
    sim.until_webhook(LIMIT, "call.answered", 4).await.unwrap();
    let statuses: Vec<Option<u16>> = sim.webhooks().iter().skip(2).map(|record| record.status).collect();
    assert_eq!(statuses, [Some(500), Some(500), Some(404), Some(503), Some(200)]);
}

#[tokio::test]
async fn an_application_that_asks_for_no_version_gets_the_old_envelope() {
    let (sim, customer, api) = open().await;
    let (status, made) = api
        .post(
            "/call_control_applications",
            json!({"application_name": "old", "webhook_event_url": customer.url("/voice")}),
        )
        .await;
    assert_eq!((status, &made["data"]["webhook_api_version"]), (201, &json!("1")));
    sim.lead(NUMBER, made["data"]["id"].as_str());
    ring(&sim);
    sim.until_webhook(LIMIT, "call.initiated", 0).await.unwrap();
    assert_eq!(customer.all_told()[0].json["event_type"], "call_initiated");
}

// Media

#[tokio::test]
async fn each_codec_goes_both_ways() {
    let (sim, customer, api) = open().await;
    for (name, rate_hz, coding, byte_order) in [
        ("PCMU", 8_000, Coding::MU_LAW, ByteOrder::Little),
        ("PCMA", 8_000, Coding::A_LAW, ByteOrder::Little),
        ("L16", 16_000, Coding::WIDE, ByteOrder::Little),
        ("L16", 16_000, Coding::WIDE, ByteOrder::Big),
        ("L16", 8_000, Coding::Linear { rate_hz: 8_000 }, ByteOrder::Big),
    ] {
        let mut order = CallOrder::new(NUMBER, CALLER);
        order.manners = Some(Manners { byte_order, ..Manners::default() });
        let mut stream = wide_stream(&customer);
        stream["stream_codec"] = name.into();
        stream["stream_bidirectional_codec"] = name.into();
        stream["stream_bidirectional_sampling_rate"] = rate_hz.into();
        let (call, mut media, start) = streamed(&sim, &customer, &api, order, stream).await;
        let expected = json!({"encoding": name, "sample_rate": rate_hz, "channels": 1});
        assert_eq!(start["start"]["media_format"], expected);
        let turn = |coded: &mut Vec<u8>| {
            if byte_order == ByteOrder::Big {
                coded.chunks_exact_mut(2).for_each(<[u8]>::reverse);
            }
        };

        call.phone().say(&tone(400));
        let mut said = Vec::new();
        // The first sound comes somewhere in its frame: the three behind it are full of it.
        let mut sounding = false;
        while said.len() < rate_hz / 1_000 * 60 {
            let mut payload = media.audio().await;
            turn(&mut payload);
            let mut samples = Vec::new();
            coding.decode(&payload, &mut samples);
            assert_eq!(samples.len(), rate_hz / 50, "{name} {byte_order:?}");
            if sounding {
                said.extend(samples);
            }
            sounding |= said.is_empty() && payload.iter().any(|byte| *byte != payload[0]);
        }
        let turns = said.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count();
        assert!((110..=130).contains(&turns), "60 ms of 1 kHz turn {turns} times: {name} {byte_order:?}");

        let mut played = coded(coding, &if rate_hz == 16_000 { wide_tone(200) } else { tone(200) });
        turn(&mut played);
        media.play(&played).await;
        media.mark("all").await;
        media.next("mark").await;
        until_heard(&call, 200).await;
        call.phone().hang_up();
    }
}

#[tokio::test]
async fn what_arrives_can_be_another_codec_than_was_asked_for() {
    let (sim, customer, api) = open().await;
    let mut order = CallOrder::new(NUMBER, CALLER);
    order.manners = Some(Manners { codec: Some(Codec::Pcma), ..Manners::default() });
    let (call, mut media, start) = streamed(&sim, &customer, &api, order, wide_stream(&customer)).await;
    let given = json!({"encoding": "PCMA", "sample_rate": 8_000, "channels": 1});
    assert_eq!(start["start"]["media_format"], given);
    assert_eq!(media.audio().await.len(), 160);
    media.play(&coded(Coding::WIDE, &wide_tone(100))).await;
    until_heard(&call, 100).await;
}

#[tokio::test]
async fn a_rate_in_an_answer_has_the_effect_that_was_set() {
    for (rate, accepted, loud_samples) in [
        (AnswerRate::Ignored, true, 900..1_100),
        (AnswerRate::Honoured, true, 550..650),
        (AnswerRate::Refused, false, 0..1),
    ] {
        let customer = Customer::open().await;
        let mut settings = settings(&customer);
        settings.answer_rate = rate;
        let sim = start(settings).await;
        let (api, call) = (Api::of(&sim), ring(&sim));
        let (status, _) = api.try_command(&call, "answer", wide_stream(&customer)).await;
        assert_eq!(status == 200, accepted);
        if accepted {
            let mut media = customer.next_media().await;
            media.next("start").await;
            // At half the rate it is heard for twice the time, at half the pitch.
            media.play(&coded(Coding::WIDE, &wide_tone(100))).await;
            media.mark("end").await;
            media.next("mark").await;
            call.phone().until(LIMIT, |phone| phone.agent_quiet_ms() > Some(40)).await.unwrap();
        }
        let loud = loud(&call.phone());
        assert!(loud_samples.contains(&loud), "{rate:?}: {loud}");
    }
}

#[tokio::test]
async fn without_the_right_fields_nobody_hears_anything() {
    let (sim, customer, api) = open().await;
    let mut stream = wide_stream(&customer);
    stream.as_object_mut().unwrap().remove("stream_bidirectional_target_legs");
    let order = CallOrder::new(NUMBER, CALLER);
    let (call, mut media, _) = streamed(&sim, &customer, &api, order, stream).await;
    media.play(&coded(Coding::WIDE, &wide_tone(500))).await;
    media.mark("to nobody").await;
    media.next("mark").await;
    assert_eq!(loud(&call.phone()), 0, "the opposite leg of a lone one is nobody");

    let mut stream = wide_stream(&customer);
    stream.as_object_mut().unwrap().remove("stream_bidirectional_mode");
    let order = CallOrder::new(NUMBER, CALLER);
    let (call, mut media, _) = streamed(&sim, &customer, &api, order, stream).await;
    media.play(&coded(Coding::WIDE, &wide_tone(500))).await;
    media.play(&coded(Coding::WIDE, &wide_tone(500))).await;
    let error = media.next("error").await;
    assert_eq!((&error["payload"]["code"], loud(&call.phone())), (&json!(100_005), 0), "MP3 is the default");
}

#[tokio::test]
async fn frames_overtake_each_other_and_their_numbers_tell() {
    let (sim, customer, api) = open().await;
    let mut order = CallOrder::new(NUMBER, CALLER);
    order.manners = Some(Manners { swap_every: 3, ..Manners::default() });
    let (_call, mut media, _) = streamed(&sim, &customer, &api, order, wide_stream(&customer)).await;
    let mut chunks = Vec::new();
    for n in 0..8 {
        let message = media.next("media").await;
        assert_eq!(message["sequence_number"], (n + 2).to_string());
        chunks.push(message["media"]["chunk"].as_str().unwrap().to_owned());
    }
    assert_eq!(chunks, ["1", "2", "4", "3", "5", "7", "6", "8"]);
}

#[tokio::test]
async fn marks_come_back_when_heard_or_cleared() {
    let (sim, customer, api) = open().await;
    let order = CallOrder::new(NUMBER, CALLER);
    let (call, mut media, _) = streamed(&sim, &customer, &api, order, wide_stream(&customer)).await;
    media.mark("nothing waits").await;
    assert_eq!(media.next("mark").await["mark"]["name"], "nothing waits");
    media.play(&coded(Coding::WIDE, &wide_tone(200))).await;
    media.mark("heard").await;
    media.play(&coded(Coding::WIDE, &wide_tone(20_000))).await;
    media.mark("unheard").await;
    assert_eq!(media.next("mark").await["mark"]["name"], "heard");
    media.send(json!({"event": "clear"})).await;
    assert_eq!(media.next("mark").await["mark"]["name"], "unheard");
    event(&call, |what| matches!(what, What::Cleared { dropped_ms } if *dropped_ms > 15_000)).await;
    let mark = |name: &str, played| What::Mark { name: name.into(), played };
    for (name, played) in [("nothing waits", true), ("heard", true), ("unheard", false)] {
        event(&call, |what| *what == mark(name, played)).await;
    }
}

#[tokio::test]
async fn keys_come_over_the_socket_and_as_a_webhook() {
    let (sim, customer, api) = open().await;
    let order = CallOrder::new(NUMBER, CALLER);
    let (call, mut media, _) = streamed(&sim, &customer, &api, order, wide_stream(&customer)).await;
    call.phone().press("5");
    let pressed = media.next("dtmf").await;
    assert_eq!((&pressed["dtmf"]["digit"], pressed["occurred_at"].is_string()), (&json!("5"), true));
    assert_eq!(customer.until_told("call.dtmf.received", 1).await.payload()["digit"], "5");
}

#[tokio::test]
async fn what_is_not_understood_is_complained_of_and_passed_over() {
    let (sim, customer, api) = open().await;
    let order = CallOrder::new(NUMBER, CALLER);
    let (call, mut media, _) = streamed(&sim, &customer, &api, order, wide_stream(&customer)).await;
    for (text, code) in [
        ("not json", 100_003),
        (r#"{"event":"media"}"#, 100_003),
        (r#"{"event":"Clear"}"#, 100_003),
        (r#"{"event":"mark","mark":{}}"#, 100_003),
        (r#"{"event":"media","media":{"payload":"%%%"}}"#, 100_004),
        (r#"{"event":"media","media":{"payload":"AAAA"}}"#, 100_004),
    ] {
        media.send_text(text).await;
        let error = media.next("error").await;
        assert_eq!(error["payload"]["code"], code, "{text}: {error}");
    }
    media.play(&coded(Coding::WIDE, &wide_tone(100))).await;
    until_heard(&call, 100).await;
}

#[tokio::test]
async fn a_lost_socket_leaves_the_call_which_can_have_another() {
    let (sim, customer, api) = open().await;
    let order = CallOrder::new(NUMBER, CALLER);
    let (call, mut media, start) = streamed(&sim, &customer, &api, order, wide_stream(&customer)).await;
    let again = api.try_command(&call, "streaming_start", wide_stream(&customer)).await;
    assert_eq!(code(again), (422, "10027".into()), "a call has one stream");
    call.lose_socket(AfterLoss::Failed).unwrap();
    assert!(!media.until_closed().await, "it breaks");
    let failed = customer.until_told("streaming.failed", 1).await;
    assert_eq!(failed.payload()["stream_id"], start["stream_id"]);
    assert_eq!(failed.payload()["stream_params"]["track"], "inbound_track");
    assert_eq!(call.state(), CallState::Answered);

    api.command(&call, "streaming_start", wide_stream(&customer)).await;
    let mut media = customer.next_media().await;
    media.next("start").await;
    call.lose_socket(AfterLoss::Nothing).unwrap();
    event(
        &call,
        |what| matches!(what, What::StreamEnded { stream, .. } if start["stream_id"] != stream.as_str()),
    )
    .await;
    assert_eq!(
        call.lose_socket(AfterLoss::Stopped).unwrap_err().to_string(),
        "the call has no media socket to lose"
    );

    api.command(&call, "streaming_start", wide_stream(&customer)).await;
    let mut media = customer.next_media().await;
    media.next("start").await;
    api.command(&call, "streaming_stop", json!({})).await;
    media.next("stop").await;
    assert!(media.until_closed().await, "it is closed");
    customer.until_told("streaming.stopped", 1).await;
    assert_eq!(customer.told("streaming.failed").len(), 1);
}

#[tokio::test]
async fn each_way_to_lose_a_stream_is_told() {
    let (sim, customer, api) = open().await;
    let order = CallOrder::new(NUMBER, CALLER);
    let (call, media, _) = streamed(&sim, &customer, &api, order, wide_stream(&customer)).await;
    media.close().await;
    customer.until_told("streaming.stopped", 1).await;

    api.command(&call, "streaming_start", wide_stream(&customer)).await;
    drop(customer.next_media().await);
    customer.until_told("streaming.failed", 1).await;
    event(&call, |what| {
        matches!(what, What::StreamEnded { loss: Some(StreamLoss::ClosedByServer | StreamLoss::Broken), .. })
    })
    .await;

    for (n, url) in [customer.media_url("refuse"), "ws://127.0.0.1:1/media".into()].into_iter().enumerate() {
        api.command(&call, "streaming_start", json!({"stream_url": url})).await;
        let failed = customer.until_told("streaming.failed", n + 2).await;
        assert_eq!(failed.payload()["failure_reason"], "connection_failed");
    }
    assert_eq!(call.state(), CallState::Answered);
    let nowhere = api.try_command(&call, "streaming_start", json!({"stream_url": "offhook"})).await;
    assert_eq!(code(nowhere), (422, "10003".into()));
}

#[tokio::test]
async fn a_stream_shows_its_token_and_its_parameters() {
    let (sim, customer, api) = open().await;
    let mut stream = wide_stream(&customer);
    stream["stream_auth_token"] = "secret".into();
    stream["custom_parameters"] = json!([{"name": "ticket", "value": "t1"}]);
    let order = CallOrder::new(NUMBER, CALLER);
    let (_call, media, start) = streamed(&sim, &customer, &api, order, stream).await;
    assert_eq!(media.headers["x-telnyx-streaming-auth-token"], "secret");
    assert_eq!(start["start"]["custom_parameters"], json!({"ticket": "t1"}));
}

#[tokio::test]
async fn a_simulator_that_stops_ends_its_calls_first() {
    let (sim, customer, api) = open().await;
    let order = CallOrder::new(NUMBER, CALLER);
    let (call, mut media, _) = streamed(&sim, &customer, &api, order, wide_stream(&customer)).await;
    sim.stop().await;
    assert!(call.end().is_some());
    media.next("stop").await;
    customer.until_told("call.hangup", 1).await;
}

// The official package

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_package_works_unmodified() {
    let probe = std::process::Command::new("python3").args(["-c", "import telnyx, nacl"]).output();
    let found = probe.is_ok_and(|output| output.status.success());
    assert!(
        found,
        "python3 with the telnyx package is missing: pip install telnyx[webhooks], or `make test`"
    );
    let customer = Customer::open().await;
    let settings = settings(&customer);
    let key = settings.api_key.expose().clone();
    let sim = start(settings).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/telnyx_sdk.py");
    let running = tokio::process::Command::new("python3")
        .args([script, &sim.base_url(), &key, &sim.public_key(), VOICE_PROFILE, HUMAN])
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(Duration::from_secs(60), running).await.expect("the script hangs").unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{text}");
}
