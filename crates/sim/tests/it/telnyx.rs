//! The simulated Telnyx over real sockets: calls, commands, media streams, webhooks in all their ways, the official package.

use axum::http::HeaderMap;
use offhook_media::coding::Coding;
use offhook_sim::carrier::telnyx::{
    AfterLoss, AnswerRate, ByteOrder, CallOrder, CallState, Callee, Codec, Delivery, HangupCause,
    HangupSource, Manners, Signing, SimCall, TelnyxSim,
};
use offhook_sim::carrier::{Phone, StreamLoss, What};
use serde_json::{Value, json};

use crate::customer::{LIMIT, tone};
use crate::telnyx_customer::{
    APPLICATION, Api, CALLER, Customer, HUMAN, Media, NUMBER, code, open, ring, settings, start,
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
