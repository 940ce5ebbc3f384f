//! The simulated Twilio over real sockets: calls, documents, media streams, trouble, REST, the control API, the official package.

use std::time::Duration;

use axum::http::StatusCode;
use offhook_core::Secret;
use offhook_media::g711::Law;
use offhook_sim::carrier::twilio::{
    AccountStatus, AfterLoss, ApiKey, Area, CallOrder, CallStatus, CallbackDelivery, Callee, KeyKind,
    Network, OwnedNumber, RestFaults, Signing, SimCall, TwilioSettings, TwilioSim, WebhookKind,
};
use offhook_sim::carrier::{CallerStep, Party, Phone, StreamLoss, What, follow};
use serde_json::{Value, json};

use crate::customer::{Customer, LIMIT, Prepared, tone};

const NUMBER: &str = "+15550100002";
const CALLER: &str = "+14155550199";
const HUMAN: &str = "+14155550177";
const ACCOUNT: &str = "AC00000000000000000000000000000001";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn settings(customer: &Customer) -> TwilioSettings {
    let mut number = OwnedNumber::new(NUMBER, customer.url("/voice"));
    number.voice_fallback_url = customer.url("/fallback");
    number.status_callback = customer.url("/status");
    TwilioSettings {
        numbers: vec![number],
        say_ms_per_character: 1,
        play_ms: 20,
        calls_per_second: 1_000.0,
        callee: Callee::Answers { after_ms: 10 },
        ..TwilioSettings::default()
    }
}

async fn open() -> (TwilioSim, Customer) {
    let customer = Customer::open().await;
    let sim = start(settings(&customer)).await;
    (sim, customer)
}

async fn start(settings: TwilioSettings) -> TwilioSim {
    TwilioSim::start("127.0.0.1:0".parse().unwrap(), settings).await.unwrap()
}

fn ring(sim: &TwilioSim) -> SimCall {
    sim.call(CallOrder::new(NUMBER, CALLER)).unwrap()
}

async fn event(call: &SimCall, fits: impl Fn(&What) -> bool) -> u64 {
    let found = call.phone().until_event(LIMIT, fits).await;
    found.unwrap_or_else(|error| panic!("{error}: {:?}", call.phone().history())).at_ms
}

/// Waits until so much of a tone was heard: neither less nor, so far, more.
async fn until_heard(call: &SimCall, tone_ms: u64) {
    let loud = |phone: &Phone| phone.recording().heard.iter().filter(|sample| sample.abs() > 5_000).count();
    let expected = tone(tone_ms).iter().filter(|sample| sample.abs() > 5_000).count();
    let heard = call.phone().until(LIMIT, |phone| loud(phone) >= expected).await;
    assert_eq!((heard, loud(&call.phone())), (Ok(()), expected), "{} to {}", call.from(), call.to());
}

fn codes(sim: &TwilioSim) -> Vec<u32> {
    sim.alerts().iter().map(|alert| alert.code).collect()
}

// Calls and webhooks

#[tokio::test]
async fn a_call_is_asked_for_answered_spoken_to_and_reported() {
    let (sim, customer) = open().await;
    customer.answer("/voice", "<Response><Say>Hello</Say><Play>https://h.example/a.mp3</Play></Response>");
    let mut order = CallOrder::new(NUMBER, CALLER);
    order.forwarded_from = Some(HUMAN.into());
    let call = sim.call(order).unwrap();
    assert_eq!(call.until_over(LIMIT).await, Ok(CallStatus::Completed));

    let asked = &customer.asked("/voice")[0];
    let expected = [
        ("CallSid", call.sid()),
        ("AccountSid", ACCOUNT),
        ("From", CALLER),
        ("To", NUMBER),
        ("CallStatus", "ringing"),
        ("Direction", "inbound"),
        ("ApiVersion", "2010-04-01"),
        ("ForwardedFrom", HUMAN),
    ];
    for (name, value) in expected {
        assert_eq!(asked.param(name), value, "{name}");
    }
    assert_eq!(asked.header("i-twilio-idempotency-token").len(), 32);
    let told = &customer.until_asked("/status", 1).await[0];
    assert_eq!((told.param("CallStatus"), told.param("SequenceNumber")), ("completed", "3"));
    assert_eq!(told.param("CallbackSource"), "call-progress-events");

    let history: Vec<What> = call.phone().history().into_iter().map(|event| event.what).collect();
    assert_eq!(
        history,
        [
            What::Answered,
            What::CarrierSaid { text: "Hello".into() },
            What::CarrierPlayed { url: "https://h.example/a.mp3".into() },
            What::HungUp { by: Party::Agent },
        ]
    );
}

#[tokio::test]
async fn only_a_rightly_signed_request_carries_the_right_signature() {
    let (sim, customer) = open().await;
    customer.answer("/voice", "<Response><Reject/></Response>");
    for signing in [Signing::Right, Signing::WrongToken, Signing::Unsigned, Signing::TamperedBody] {
        let mut order = CallOrder::new(NUMBER, CALLER);
        order.signing = signing;
        sim.call(order).unwrap().until_over(LIMIT).await.unwrap();
    }
    let asked = customer.until_asked("/voice", 4).await;
    let signatures: Vec<&str> = asked.iter().map(|asked| asked.header("x-twilio-signature")).collect();
    assert_eq!((signatures[0].len(), signatures[1].len(), signatures[2]), (28, 28, ""));
    assert_eq!((asked[0].param("Tampered"), asked[3].param("Tampered")), ("", "1"));
}

#[tokio::test]
async fn a_repeated_webhook_is_the_same_to_the_letter() {
    let (sim, customer) = open().await;
    customer.answer("/voice", "<Response><Reject/></Response>");
    let mut order = CallOrder::new(NUMBER, CALLER);
    order.extra_params = vec![("Twice".into(), "b".into()), ("Twice".into(), "a".into())];
    sim.call(order).unwrap().until_over(LIMIT).await.unwrap();
    sim.repeat_last_webhook(WebhookKind::Voice).await.unwrap().unwrap();
    let asked = customer.until_asked("/voice", 2).await;
    assert_eq!(asked[0].body, asked[1].body);
    for name in ["i-twilio-idempotency-token", "x-twilio-signature"] {
        assert_eq!(asked[0].header(name), asked[1].header(name), "{name}");
    }
    assert!(sim.repeat_last_webhook(WebhookKind::Stream).await.is_none());
}

#[tokio::test]
async fn a_server_that_is_gone_is_tried_twice_and_then_the_fallback_is_told_why() {
    let customer = Customer::open().await;
    let gone = "http://127.0.0.1:1/voice".to_owned();
    let mut settings = settings(&customer);
    settings.numbers[0].voice_url = gone.clone();
    let sim = start(settings).await;
    customer.answer("/fallback", "<Response><Reject reason=\"busy\"/></Response>");
    assert_eq!(ring(&sim).until_over(LIMIT).await, Ok(CallStatus::Busy));
    let asked = &customer.asked("/fallback")[0];
    assert_eq!((asked.param("ErrorCode"), asked.param("ErrorUrl")), ("11205", gone.as_str()));
    let first = &sim.webhooks()[0];
    assert_eq!((first.attempts, first.error_code), (2, Some(11205)));
    assert_eq!(codes(&sim), [11205]);
}

#[tokio::test]
async fn a_server_that_answers_too_late_or_wrongly_is_not_waited_for() {
    let customer = Customer::open().await;
    let mut settings = settings(&customer);
    settings.numbers[0].voice_url = customer.url("/voice#rt=1000");
    let sim = start(settings).await;
    let header = ("content-type", "text/xml".to_owned());
    let body = "<Response/>".to_owned();
    let after = Duration::from_secs(5);
    customer.prepare("/voice", Prepared { status: StatusCode::OK, header: header.clone(), body, after });
    let after = Duration::ZERO;
    let body = "<Response><Say>unclosed</Response>".to_owned();
    customer.prepare("/voice", Prepared { status: StatusCode::OK, header: header.clone(), body, after });
    let body = String::new();
    customer.prepare("/voice", Prepared { status: StatusCode::NOT_FOUND, header, body, after });
    customer.answer("/fallback", "<Response><Say>Sorry</Say></Response>");
    for _ in 0..3 {
        ring(&sim).until_over(LIMIT).await.unwrap();
    }
    let told: Vec<String> =
        customer.asked("/fallback").iter().map(|asked| asked.param("ErrorCode").to_owned()).collect();
    assert_eq!(told, ["11200", "12100", "11200"]);
}

#[tokio::test]
async fn a_retry_that_the_url_asks_for_carries_the_same_idempotency_token() {
    let customer = Customer::open().await;
    let mut settings = settings(&customer);
    settings.numbers[0].voice_url = customer.url("/voice#rc=2&rp=5xx");
    let sim = start(settings).await;
    let header = ("content-type", "text/xml".to_owned());
    let (status, body, after) = (StatusCode::BAD_GATEWAY, String::new(), Duration::ZERO);
    customer.prepare("/voice", Prepared { status, header, body, after });
    customer.answer("/voice", "<Response><Reject/></Response>");
    assert_eq!(ring(&sim).until_over(LIMIT).await, Ok(CallStatus::NoAnswer));
    let asked = customer.asked("/voice");
    let tokens: Vec<&str> = asked.iter().map(|asked| asked.header("i-twilio-idempotency-token")).collect();
    assert_eq!((tokens.len(), tokens[0]), (2, tokens[1]));
    ring(&sim).until_over(LIMIT).await.unwrap();
    assert_ne!(customer.asked("/voice")[2].header("i-twilio-idempotency-token"), tokens[0]);
}

#[tokio::test]
async fn without_a_fallback_the_caller_hears_an_application_error() {
    let customer = Customer::open().await;
    let mut settings = settings(&customer);
    settings.numbers[0].voice_fallback_url = String::new();
    let sim = start(settings).await;
    customer.answer("/voice", "<Oops/>");
    let call = ring(&sim);
    assert_eq!(call.until_over(LIMIT).await, Ok(CallStatus::Completed));
    event(&call, |what| matches!(what, What::CarrierSaid { text } if text.contains("application error")))
        .await;
}

#[tokio::test]
async fn a_redirected_webhook_arrives_as_a_get_without_parameters() {
    let (sim, customer) = open().await;
    let header = ("location", "/elsewhere".to_owned());
    let (status, body, after) = (StatusCode::FOUND, String::new(), Duration::ZERO);
    customer.prepare("/voice", Prepared { status, header, body, after });
    customer.answer("/elsewhere", "<Response><Reject/></Response>");
    assert_eq!(ring(&sim).until_over(LIMIT).await, Ok(CallStatus::NoAnswer));
    let asked = &customer.asked("/elsewhere")[0];
    assert_eq!((asked.method.as_str(), asked.params.len(), asked.body.len()), ("GET", 0, 0));
}

#[tokio::test]
async fn status_callbacks_come_in_order_reversed_or_never() {
    let (sim, customer) = open().await;
    let all = [("StatusCallbackEvent", "initiated ringing answered completed")];
    create_call(&sim, &[("Twiml", "<Response/>"), ("StatusCallback", &customer.url("/status")), all[0]])
        .await;
    let told = customer.until_asked("/status", 4).await;
    let words: Vec<&str> = told.iter().map(|asked| asked.param("CallStatus")).collect();
    assert_eq!(words, ["initiated", "ringing", "in-progress", "completed"]);

    customer.answer("/voice", "<Response/>");
    let mut order = CallOrder::new(NUMBER, CALLER);
    order.callbacks = CallbackDelivery::Lost;
    let lost = sim.call(order.clone()).unwrap();
    lost.until_over(LIMIT).await.unwrap();
    order.callbacks = CallbackDelivery::Reversed;
    let reversed = sim.call(order).unwrap();
    reversed.until_over(LIMIT).await.unwrap();
    let told = customer.until_asked("/status", 5).await;
    assert_eq!(told[4].param("CallSid"), reversed.sid());
}

#[tokio::test]
async fn a_json_event_carries_the_hash_of_its_body_in_the_signed_url() {
    let (sim, customer) = open().await;
    let url = customer.url("/events");
    assert_eq!(sim.send_event(&url, r#"{"event":"test"}"#, Signing::Right).await.unwrap(), 204);
    let asked = &customer.asked("/events")[0];
    assert!(
        asked.url.ends_with("?bodySHA256=2d9c95a7b02d34fcd937555555970ef0183483946d5268fbcf68a324674be708")
    );
    assert_eq!(asked.header("x-twilio-signature").len(), 28);
}

// Documents

#[tokio::test]
async fn a_caller_who_is_rejected_is_never_answered() {
    let (sim, customer) = open().await;
    customer.answer("/voice", "<Response><Reject reason=\"busy\"/><Say>unreachable</Say></Response>");
    let call = ring(&sim);
    assert_eq!(call.until_over(LIMIT).await, Ok(CallStatus::Busy));
    assert_eq!(call.phone().history().len(), 1, "{:?}", call.phone().history());
}

#[tokio::test]
async fn a_caller_who_gives_up_while_it_rings_cancels_the_call() {
    let (sim, customer) = open().await;
    customer.answer("/voice", "<Response><Pause length=\"30\"/></Response>");
    let call = ring(&sim);
    customer.until_asked("/voice", 1).await;
    call.phone().hang_up();
    assert_eq!(call.until_over(LIMIT).await, Ok(CallStatus::Canceled));
}

#[tokio::test]
async fn keys_are_gathered_until_the_finish_key() {
    let (sim, customer) = open().await;
    customer.answer(
        "/voice",
        "<Response><Gather action=\"/digits\" timeout=\"9\"><Say>Your number?</Say></Gather></Response>",
    );
    customer.answer("/digits", "<Response><Hangup/></Response>");
    let call = ring(&sim);
    call.phone().press("42#");
    call.until_over(LIMIT).await.unwrap();
    assert_eq!(customer.asked("/digits")[0].param("Digits"), "42");
}

#[tokio::test]
async fn a_caller_who_presses_nothing_hears_the_next_verb() {
    let (sim, customer) = open().await;
    customer.answer(
        "/voice",
        "<Response><Gather action=\"/digits\" timeout=\"0\"/><Say>Goodbye</Say></Response>",
    );
    let call = ring(&sim);
    call.until_over(LIMIT).await.unwrap();
    event(&call, |what| *what == What::CarrierSaid { text: "Goodbye".into() }).await;
    assert!(customer.asked("/digits").is_empty());
}

#[tokio::test]
async fn digits_played_to_the_caller_are_heard_as_tones() {
    let (sim, customer) = open().await;
    customer.answer("/voice", "<Response><Play digits=\"5w#\"/><Pause length=\"1\"/></Response>");
    let call = ring(&sim);
    event(&call, |what| *what == What::DigitHeard { digit: '5' }).await;
    event(&call, |what| *what == What::DigitHeard { digit: '#' }).await;
}

#[tokio::test]
async fn a_dialed_human_and_the_caller_hear_each_other() {
    let (sim, customer) = open().await;
    let dial = format!(
        "<Response><Dial action=\"/dialed\"><Number statusCallback=\"/leg\">{HUMAN}</Number></Dial></Response>"
    );
    customer.answer("/voice", dial);
    customer.answer("/dialed", "<Response/>");
    let call = ring(&sim);
    let human = sim.until_called(LIMIT, HUMAN, 0).await.unwrap();
    human.until_status(LIMIT, |status| status == CallStatus::InProgress).await.unwrap();
    assert_eq!(human.from(), CALLER);
    call.phone().say(&tone(200));
    event(&human, |what| *what == What::AgentStarted).await;
    human.phone().say(&tone(200));
    event(&call, |what| *what == What::AgentStopped).await;
    let heard = call.phone().recording().heard;
    let first = heard.iter().position(|sample| sample.abs() > 5_000).unwrap();
    let speech = &heard[first..first + 190 * 8];
    assert!(
        speech.chunks(80).all(|chunk| chunk.iter().any(|sample| sample.abs() > 5_000)),
        "a hole on the bridge"
    );
    human.phone().hang_up();
    call.until_over(LIMIT).await.unwrap();
    let dialed = &customer.asked("/dialed")[0];
    assert_eq!((dialed.param("DialCallStatus"), dialed.param("DialCallSid")), ("completed", human.sid()));
    assert_eq!(customer.until_asked("/leg", 1).await[0].param("ParentCallSid"), call.sid());
}

#[tokio::test]
async fn a_human_who_is_busy_or_does_not_accept_is_reported_to_the_action() {
    let (sim, customer) = open().await;
    sim.callee(HUMAN, Callee::Busy { after_ms: 1 });
    let dial = format!(
        "<Response><Dial action=\"/dialed\"><Number url=\"/whisper\">{HUMAN}</Number></Dial></Response>"
    );
    customer.answer("/voice", dial);
    customer.answer("/dialed", "<Response/>");
    customer.answer("/whisper", "<Response><Say>A caller for you</Say><Hangup/></Response>");
    ring(&sim).until_over(LIMIT).await.unwrap();
    sim.callee(HUMAN, Callee::Answers { after_ms: 1 });
    ring(&sim).until_over(LIMIT).await.unwrap();
    let dialed = customer.asked("/dialed");
    let words: Vec<&str> = dialed.iter().map(|asked| asked.param("DialCallStatus")).collect();
    assert_eq!(words, ["busy", "no-answer"]);
    let human = sim.until_called(LIMIT, HUMAN, 1).await.unwrap();
    event(&human, |what| *what == What::CarrierSaid { text: "A caller for you".into() }).await;
}

#[tokio::test]
async fn of_several_numbers_the_first_to_answer_is_connected_and_the_others_stop_ringing() {
    let (sim, customer) = open().await;
    sim.callee("+14155550171", Callee::NoAnswer);
    sim.callee("+14155550172", Callee::Fails);
    customer.answer(
        "/voice",
        format!("<Response><Dial><Number>+14155550171</Number><Number>+14155550172</Number><Number>{HUMAN}</Number></Dial></Response>"),
    );
    let call = ring(&sim);
    let human = sim.until_called(LIMIT, HUMAN, 0).await.unwrap();
    human.until_status(LIMIT, |status| status == CallStatus::InProgress).await.unwrap();
    let silent = sim.until_called(LIMIT, "+14155550171", 0).await.unwrap();
    assert_eq!(silent.until_over(LIMIT).await, Ok(CallStatus::Canceled));
    call.phone().hang_up();
    assert_eq!(human.until_over(LIMIT).await, Ok(CallStatus::Completed));
}

// Media streams

#[tokio::test]
async fn the_stream_begins_as_documented() {
    let (sim, customer) = open().await;
    customer.answer("/voice", customer.stream("echo", "", ""));
    let call = ring(&sim);
    customer.until_message("media", 10).await;
    call.phone().press("7");
    customer.until_message("dtmf", 1).await;
    call.phone().hang_up();
    customer.until_message("stop", 1).await;

    assert_eq!(
        customer.messages("connected"),
        [json!({"event": "connected", "protocol": "Call", "version": "1.0.0"})]
    );
    let start = &customer.messages("start")[0];
    let sid = start["streamSid"].as_str().unwrap();
    assert!(sid.starts_with("MZ") && sid.len() == 34);
    assert_eq!(
        *start,
        json!({"event": "start", "sequenceNumber": "1", "streamSid": sid, "start": {
            "accountSid": ACCOUNT, "streamSid": sid, "callSid": call.sid(), "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"ticket": "t1"}}})
    );
    for (index, media) in customer.messages("media").iter().enumerate() {
        assert_eq!(media["media"]["chunk"], (index + 1).to_string());
        assert_eq!(media["media"]["track"], "inbound");
        assert_eq!(media["media"]["payload"].as_str().unwrap().len(), 216);
    }
    assert_eq!(customer.messages("dtmf")[0]["dtmf"], json!({"track": "inbound_track", "digit": "7"}));
    assert_eq!(customer.messages("stop")[0]["stop"], json!({"accountSid": ACCOUNT, "callSid": call.sid()}));
    let upgrade = &customer.asked("/media")[0];
    assert_eq!(upgrade.header("x-twilio-signature").len(), 28);
    let told = customer.until_asked("/stream-status", 2).await;
    let events: Vec<&str> = told.iter().map(|asked| asked.param("StreamEvent")).collect();
    assert_eq!(events, ["stream-started", "stream-stopped"]);
}

#[tokio::test]
async fn what_the_caller_says_comes_back_from_an_echo_without_a_hole() {
    let (sim, customer) = open().await;
    customer.answer("/voice", customer.stream("echo", "", ""));
    let call = ring(&sim);
    event(&call, |what| matches!(what, What::StreamOpened { .. })).await;
    call.phone().say(&tone(400));
    until_heard(&call, 400).await;
    let recording = call.phone().recording();
    assert_eq!(recording.said.len(), recording.heard.len());
    let sounding = |pcm: &[i16]| pcm.iter().copied().filter(|sample| *sample != 0).collect::<Vec<_>>();
    let mut coded = Vec::new();
    let mut wire = Vec::new();
    Law::Mu.encode(&sounding(&tone(400)), &mut coded);
    Law::Mu.decode(&coded, &mut wire);
    assert_eq!(sounding(&recording.heard), wire);
}

#[tokio::test]
async fn a_mark_returns_when_the_audio_before_it_was_played() {
    let (sim, customer) = open().await;
    customer.answer("/voice", customer.stream("greet", "", ""));
    let call = ring(&sim);
    let started = event(&call, |what| *what == What::AgentStarted).await;
    let marked = event(&call, |what| *what == What::Mark { name: "greeting".into(), played: true }).await;
    assert!(marked - started >= 999, "a second of audio was played in {} ms", marked - started);
    let mark = &customer.until_message("mark", 1).await[0];
    assert_eq!(mark["mark"], json!({"name": "greeting"}));
    assert!(mark["sequenceNumber"].is_string());
}

#[tokio::test]
async fn a_caller_who_talks_over_the_greeting_silences_it_and_the_mark_returns_unplayed() {
    let (sim, customer) = open().await;
    customer.answer("/voice", customer.stream("interruptible", "", ""));
    let call = ring(&sim);
    event(&call, |what| *what == What::AgentStarted).await;
    call.phone().say(&tone(200));
    let cleared =
        event(&call, |what| matches!(what, What::Cleared { dropped_ms } if *dropped_ms > 100)).await;
    event(&call, |what| *what == What::Mark { name: "greeting".into(), played: false }).await;
    customer.until_message("mark", 1).await;
    let stopped = event(&call, |what| *what == What::AgentStopped).await;
    assert!(stopped <= cleared, "sounded until {stopped}, cleared at {cleared}");
}

#[tokio::test]
async fn messages_that_are_wrong_are_reported_and_skipped() {
    let (sim, customer) = open().await;
    customer.answer("/voice", customer.stream("garbage", "", ""));
    let call = ring(&sim);
    customer.until_message("mark", 1).await;
    assert_eq!(codes(&sim), [31924; 7]);
    assert_eq!(call.status(), CallStatus::InProgress);
}

#[tokio::test]
async fn a_stream_that_the_server_closes_leads_to_the_action_or_to_the_next_verb() {
    let (sim, customer) = open().await;
    customer.answer("/voice", customer.stream("close", "action=\"/after\"", "<Say>skipped</Say>"));
    customer.answer("/voice", customer.stream("close", "", "<Say>next</Say>"));
    customer.answer("/after", "<Response><Say>after</Say></Response>");
    for word in ["after", "next"] {
        let call = ring(&sim);
        call.until_over(LIMIT).await.unwrap();
        let said: Vec<What> = call.phone().history().into_iter().map(|event| event.what).collect();
        assert!(said.contains(&What::CarrierSaid { text: word.into() }), "{said:?}");
        assert!(said.iter().any(|what| matches!(what, What::StreamEnded { loss: None, .. })), "{said:?}");
        assert!(!said.contains(&What::CarrierSaid { text: "skipped".into() }), "{said:?}");
    }
    assert_eq!(codes(&sim), Vec::<u32>::new());
}

#[tokio::test]
async fn a_lost_socket_is_followed_by_the_action_the_next_verb_or_nothing() {
    let (sim, customer) = open().await;
    customer.answer("/voice", customer.stream("echo", "action=\"/after\"", "<Say>next</Say>"));
    customer.answer("/after", "<Response><Say>after</Say></Response>");
    for (then, word) in [(AfterLoss::Action, "after"), (AfterLoss::NextVerb, "next")] {
        let call = streaming(&sim, &customer).await;
        call.lose_socket(then).unwrap();
        event(&call, |what| *what == What::CarrierSaid { text: word.into() }).await;
        call.until_over(LIMIT).await.unwrap();
    }
    let call = streaming(&sim, &customer).await;
    call.lose_socket(AfterLoss::Nothing).unwrap();
    event(&call, |what| matches!(what, What::StreamEnded { loss: Some(StreamLoss::Broken), .. })).await;
    assert_eq!(call.status(), CallStatus::InProgress);
    let twiml = customer.stream("greet", "", "");
    let update = post(&sim, &format!("Calls/{}.json", call.sid()), &[("Twiml", &twiml)]).await;
    assert_eq!(update.0, 200, "{}", update.1);
    event(&call, |what| *what == What::AgentStarted).await;
    assert_eq!(codes(&sim), [31903; 3]);
    assert_eq!(call.lose_socket(AfterLoss::Nothing), Ok(()));
}

async fn streaming(sim: &TwilioSim, customer: &Customer) -> SimCall {
    let seen = customer.messages("start").len();
    let call = ring(sim);
    customer.until_message("start", seen + 1).await;
    call
}

#[tokio::test]
async fn a_server_that_vanishes_or_refuses_is_reported() {
    let (sim, customer) = open().await;
    customer.answer("/voice", customer.stream("vanish", "", ""));
    customer.answer("/voice", customer.stream("refuse", "", ""));
    customer
        .answer("/voice", "<Response><Connect><Stream url=\"ws://127.0.0.1:1/media\"/></Connect></Response>");
    for _ in 0..3 {
        assert_eq!(ring(&sim).until_over(LIMIT).await, Ok(CallStatus::Completed));
    }
    assert_eq!(codes(&sim), [31921, 31920, 31901]);
    let told = customer.until_asked("/stream-status", 5).await;
    let errors: Vec<&str> = told
        .iter()
        .filter(|asked| asked.param("StreamEvent") == "stream-error")
        .map(|asked| &asked.param("StreamError")[..5])
        .collect();
    assert_eq!(errors, ["31921", "31920"]);
}

#[tokio::test]
async fn a_hundred_callers_at_once_each_hear_their_own_echo() {
    let (sim, customer) = open().await;
    customer.answer("/voice", customer.stream("echo", "", ""));
    let calls: Vec<SimCall> = (0..100).map(|_| ring(&sim)).collect();
    for (index, call) in calls.iter().enumerate() {
        event(call, |what| matches!(what, What::StreamOpened { .. })).await;
        call.phone().say(&tone(100 + 10 * index as u64));
    }
    for (index, call) in calls.iter().enumerate() {
        until_heard(call, 100 + 10 * index as u64).await;
    }
}

#[tokio::test]
async fn a_live_call_that_is_redirected_stops_its_stream_in_order() {
    let (sim, customer) = open().await;
    customer.answer("/voice", customer.stream("echo", "action=\"/after\"", ""));
    let call = streaming(&sim, &customer).await;
    customer.answer("/new", "<Response><Say>moved</Say></Response>");
    let update = post(&sim, &format!("Calls/{}.json", call.sid()), &[("Url", &customer.url("/new"))]).await;
    assert_eq!(update.0, 200, "{}", update.1);
    customer.until_message("stop", 1).await;
    event(&call, |what| *what == What::CarrierSaid { text: "moved".into() }).await;
    assert!(customer.asked("/after").is_empty());
}

#[tokio::test]
async fn a_bad_network_loses_frames_and_keeps_their_order() {
    let (sim, customer) = open().await;
    customer.answer("/voice", customer.stream("echo", "", ""));
    let mut order = CallOrder::new(NUMBER, CALLER);
    order.network = Network { delay_ms: 30, jitter_ms: 40, loss: 0.3, seed: 7 };
    let _call = sim.call(order).unwrap();
    let media = customer.until_message("media", 40).await;
    let number = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
    let times: Vec<u64> = media.iter().map(|media| number(&media["media"]["timestamp"])).collect();
    assert!(times.is_sorted());
    assert!(times[39] - times[0] > 40 * 20, "nothing was lost: {times:?}");
    assert_eq!(number(&media[39]["media"]["chunk"]), 40);
}

// The robot

#[tokio::test]
async fn a_robot_holds_a_conversation_and_measures_its_turns() {
    let (sim, customer) = open().await;
    customer.answer("/voice", customer.stream("receptionist", "", ""));
    let call = ring(&sim);
    let script = [
        CallerStep::WaitForAgentQuiet { ms: 250 },
        CallerStep::Say(tone(300).into()),
        CallerStep::WaitForAgentQuiet { ms: 250 },
        CallerStep::Dtmf("1".into()),
        CallerStep::Pause { ms: 100 },
        CallerStep::Say(tone(300).into()),
        CallerStep::BargeIn { after_ms_of_agent: 40, say: tone(100).into() },
        CallerStep::HangUp,
    ];
    let report = follow(&call.phone(), &script, LIMIT).await;
    assert_eq!((report.steps_done, &report.stopped), (8, &None));
    assert_eq!(report.turns.len(), 3);
    assert!(report.turns[0].latency_ms().is_some() && report.turns[2].barge_in, "{report:?}");
    assert_eq!(call.until_over(LIMIT).await, Ok(CallStatus::Completed));
    event(&call, |what| *what == What::HungUp { by: Party::Caller }).await;
    customer.until_message("dtmf", 1).await;
}

#[tokio::test]
async fn a_robot_gives_up_on_an_agent_that_never_speaks() {
    let (sim, customer) = open().await;
    customer.answer("/voice", customer.stream("echo", "", ""));
    let call = ring(&sim);
    let script = [CallerStep::WaitForAgentQuiet { ms: 100 }, CallerStep::HangUp];
    let report = follow(&call.phone(), &script, Duration::from_millis(300)).await;
    assert_eq!(report.steps_done, 0);
    assert!(report.stopped.is_some());
}

// REST

async fn get(sim: &TwilioSim, path: &str, user: &str, password: &str) -> (u16, Value) {
    let url = format!("{}/2010-04-01/{path}", sim.base_url());
    let answer = reqwest::Client::new().get(url).basic_auth(user, Some(password)).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn read(sim: &TwilioSim, path: &str) -> (u16, Value) {
    get(sim, &format!("Accounts/{ACCOUNT}/{path}"), ACCOUNT, TOKEN).await
}

async fn post(sim: &TwilioSim, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
    let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}/{path}", sim.base_url());
    let request = reqwest::Client::new().post(url).basic_auth(ACCOUNT, Some(TOKEN)).form(form);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn create_call(sim: &TwilioSim, form: &[(&str, &str)]) -> SimCall {
    let form = [&[("To", HUMAN), ("From", NUMBER)], form].concat();
    let (status, call) = post(sim, "Calls.json", &form).await;
    assert_eq!((status, &call["status"]), (201, &json!("queued")), "{call}");
    sim.find_call(call["sid"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn wrong_credentials_get_the_error_that_twilio_gives() {
    let customer = Customer::open().await;
    let mut settings = settings(&customer);
    let key = |sid: &str, kind| ApiKey { sid: sid.into(), secret: Secret::new("s".into()), kind };
    settings.keys = vec![
        key("SK1", KeyKind::Standard),
        key("SK2", KeyKind::Restricted(vec![Area::Calls])),
        key("SK3", KeyKind::Main),
    ];
    let sim = start(settings).await;
    let account = format!("Accounts/{ACCOUNT}.json");
    let calls = format!("Accounts/{ACCOUNT}/Calls.json");
    let numbers = format!("Accounts/{ACCOUNT}/IncomingPhoneNumbers.json");
    let cases = [
        (account.as_str(), ACCOUNT, TOKEN, 200, 0),
        (&account, ACCOUNT, "wrong", 401, 20003),
        (&account, "SK1", "s", 401, 20003),
        (&account, "SK3", "s", 200, 0),
        (&numbers, "SK1", "s", 200, 0),
        (&calls, "SK2", "s", 200, 0),
        (&numbers, "SK2", "s", 403, 70051),
        ("Accounts/AC99999999999999999999999999999999.json", ACCOUNT, TOKEN, 404, 20404),
    ];
    for (path, user, password, status, code) in cases {
        let (got, body) = get(&sim, path, user, password).await;
        assert_eq!((got, body["code"].as_u64().unwrap_or(0)), (status, code), "{path} {user}: {body}");
        if code != 0 {
            let info = format!("https://www.twilio.com/docs/errors/{code}");
            assert_eq!((&body["more_info"], &body["status"]), (&json!(info), &json!(status)));
        }
    }
    sim.account_status(AccountStatus::Suspended);
    assert_eq!(read(&sim, "Calls.json").await.0, 401);
    assert_eq!(get(&sim, &account, ACCOUNT, TOKEN).await.1["status"], "suspended");
}

#[tokio::test]
async fn another_region_and_bursts_are_refused() {
    let (sim, _customer) = open().await;
    let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}.json", sim.base_url());
    for (host, status) in
        [("api.twilio.com", 200), ("api.dublin.ie1.twilio.com", 401), ("api.ashburn.us1.twilio.com", 200)]
    {
        let request = reqwest::Client::new().get(&url).header("host", host).basic_auth(ACCOUNT, Some(TOKEN));
        assert_eq!(request.send().await.unwrap().status().as_u16(), status, "{host}");
    }
    sim.rest_faults(RestFaults { too_many_requests: 2, ..RestFaults::default() });
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(read(&sim, "Calls.json").await.0);
    }
    assert_eq!(seen, [429, 429, 200]);
    sim.rest_faults(RestFaults { wrong_region: true, ..RestFaults::default() });
    assert_eq!(read(&sim, "Calls.json").await.1["code"], 20003);
}

#[tokio::test]
async fn requests_that_are_wrong_are_refused_with_their_codes() {
    let (sim, _customer) = open().await;
    let twiml = ("Twiml", "<Response/>");
    let cases: [(&[(&str, &str)], u64); 8] = [
        (&[("From", NUMBER), twiml], 21201),
        (&[("To", HUMAN), twiml], 21213),
        (&[("To", "555"), ("From", NUMBER), twiml], 21211),
        (&[("To", HUMAN), ("From", "12"), twiml], 21212),
        (&[("To", HUMAN), ("From", HUMAN), twiml], 21210),
        (&[("To", HUMAN), ("From", NUMBER)], 21205),
        (&[("To", HUMAN), ("From", NUMBER), ("Url", "/relative")], 21205),
        (&[("To", HUMAN), ("From", NUMBER), twiml, ("Urll", "x")], 20001),
    ];
    for (form, code) in cases {
        let (status, body) = post(&sim, "Calls.json", form).await;
        assert_eq!((status, body["code"].as_u64().unwrap()), (400, code), "{form:?}: {body}");
    }
    assert_eq!(read(&sim, "Calls.json?Sid=1").await.1["code"], 20001);
    assert_eq!(read(&sim, "Calls/CA0.json").await.1["code"], 20404);
    let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}/Calls.json", sim.base_url());
    let json = reqwest::Client::new().post(url).basic_auth(ACCOUNT, Some(TOKEN)).json(&json!({"To": HUMAN}));
    assert_eq!(json.send().await.unwrap().status().as_u16(), 415);
}

#[tokio::test]
async fn calls_are_listed_page_by_page_and_by_filters() {
    let (sim, customer) = open().await;
    customer.answer("/voice", "<Response><Reject/></Response>");
    for last in 0..5 {
        let order = CallOrder::new(NUMBER, format!("+1415555010{last}"));
        sim.call(order).unwrap().until_over(LIMIT).await.unwrap();
    }
    let (_, first) = read(&sim, "Calls.json?PageSize=2").await;
    assert_eq!(first["calls"][0]["from"], "+14155550104");
    let mut seen = first["calls"].as_array().unwrap().len();
    let mut next = first["next_page_uri"].clone();
    while let Some(uri) = next.as_str() {
        let (_, page) = get(&sim, uri.trim_start_matches("/2010-04-01/"), ACCOUNT, TOKEN).await;
        seen += page["calls"].as_array().unwrap().len();
        next = page["next_page_uri"].clone();
    }
    assert_eq!(seen, 5);
    let count = async |filter: &str| {
        read(&sim, &format!("Calls.json?{filter}")).await.1["calls"].as_array().map(Vec::len)
    };
    assert_eq!(count("From=%2B14155550103").await, Some(1));
    assert_eq!(count("Status=no-answer&To=%2B15550100002").await, Some(5));
    assert_eq!(count("StartTime%3E=2020-01-01").await, Some(5));
    assert_eq!(count("StartTime<=2020-01-01").await, Some(0));
    assert_eq!(count("Page=1").await, None);
    assert_eq!(read(&sim, "Messages.json?PageSize=1").await.1["messages"], json!([]));
}

#[tokio::test]
async fn outgoing_calls_end_as_the_called_party_has_it() {
    let (sim, _customer) = open().await;
    let cases = [
        (Callee::Busy { after_ms: 1 }, CallStatus::Busy),
        (Callee::Fails, CallStatus::Failed),
        (Callee::Answers { after_ms: 1 }, CallStatus::Completed),
    ];
    for (callee, status) in cases {
        sim.callee(HUMAN, callee);
        let call = create_call(&sim, &[("Twiml", "<Response><Say>Hi</Say></Response>")]).await;
        assert_eq!(call.until_over(LIMIT).await, Ok(status));
    }
    sim.callee(HUMAN, Callee::NoAnswer);
    let call = create_call(&sim, &[("Twiml", "<Response/>"), ("Timeout", "1")]).await;
    assert_eq!(call.until_over(LIMIT).await, Ok(CallStatus::NoAnswer));
    let call = create_call(&sim, &[("Twiml", "<Response/>")]).await;
    call.until_status(LIMIT, |status| status == CallStatus::Ringing).await.unwrap();
    let redirect = post(&sim, &format!("Calls/{}.json", call.sid()), &[("Twiml", "<Response/>")]).await;
    assert_eq!(redirect.1["code"], 21220);
    post(&sim, &format!("Calls/{}.json", call.sid()), &[("Status", "canceled")]).await;
    assert_eq!(call.until_over(LIMIT).await, Ok(CallStatus::Canceled));
}

#[tokio::test]
async fn calls_beyond_the_rate_wait_in_the_queue() {
    let customer = Customer::open().await;
    let mut settings = settings(&customer);
    settings.calls_per_second = 4.0;
    let sim = start(settings).await;
    let mut queued = Vec::new();
    for _ in 0..3 {
        let call = create_call(&sim, &[("Twiml", "<Response/>")]).await;
        let (_, body) = read(&sim, &format!("Calls/{}.json", call.sid())).await;
        queued.push(body["queue_time"].as_str().unwrap().parse::<u64>().unwrap());
    }
    assert!(queued[0] == 0 && queued[2] > queued[1], "{queued:?}");
    let last = sim.until_called(LIMIT, HUMAN, 2).await.unwrap();
    assert_eq!(last.until_over(LIMIT).await, Ok(CallStatus::Completed));
}

// The control API

#[tokio::test]
async fn another_process_can_place_a_call_and_make_trouble() {
    let (sim, customer) = open().await;
    customer.answer("/voice", customer.stream("echo", "action=\"/after\"", ""));
    customer.answer("/after", customer.stream("greet", "", ""));
    let http = reqwest::Client::new();
    let at = |path: &str| format!("{}/_sim/{path}", sim.base_url());
    let send = async |path: &str, body: Value| {
        let answer = http.post(at(path)).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
    };
    let (status, call) = send("calls", json!({"to": NUMBER, "from": CALLER})).await;
    assert_eq!(status, 201, "{call}");
    let sid = call["sid"].as_str().unwrap().to_owned();
    customer.until_message("media", 1).await;
    assert_eq!(send(&format!("calls/{sid}/dtmf"), json!({"digits": "12"})).await.0, 204);
    customer.until_message("dtmf", 2).await;
    let pcm: Vec<u8> = tone(100).iter().flat_map(|sample| sample.to_le_bytes()).collect();
    http.post(at(&format!("calls/{sid}/say"))).body(pcm).send().await.unwrap();
    let call = sim.find_call(&sid).unwrap();
    event(&call, |what| *what == What::AgentStarted).await;
    assert_eq!(send(&format!("calls/{sid}/lose-socket"), json!({"then": "action"})).await.0, 204);
    customer.until_asked("/after", 1).await;
    assert_eq!(send("webhooks/repeat-last", json!({})).await.0, 200);
    customer.until_asked("/after", 2).await;
    assert_eq!(send(&format!("calls/{sid}/hangup"), json!({})).await.0, 204);
    call.until_over(LIMIT).await.unwrap();
    let state: Value = http.get(at(&format!("calls/{sid}"))).send().await.unwrap().json().await.unwrap();
    assert_eq!(state["status"], "completed");
    let events = state["events"].as_array().unwrap();
    assert!(events.iter().any(|event| event["event"] == "hung_up" && event["by"] == "caller"), "{events:?}");
    let wav =
        http.get(at(&format!("calls/{sid}/recording.wav"))).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(offhook_media::wav::Wav::parse(&wav).unwrap().channels, 2);
    assert_eq!(send("calls", json!({"to": "+1999", "from": CALLER})).await.0, 422);
    assert_eq!(send("calls/CA0/hangup", json!({})).await.0, 404);
}

// The official package

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_package_works_unmodified() {
    let probe = std::process::Command::new("python3").args(["-c", "import twilio"]).output();
    let found = probe.is_ok_and(|output| output.status.success());
    assert!(found, "python3 with the twilio package is missing: pip install twilio, or `make test`");
    let (sim, _customer) = open().await;
    sim.callee(HUMAN, Callee::Answers { after_ms: 10 });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/twilio_sdk.py");
    let running = tokio::process::Command::new("python3")
        .args([script, &sim.base_url(), ACCOUNT, TOKEN, NUMBER, HUMAN])
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(Duration::from_secs(60), running).await.expect("the script hangs").unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{text}");
}
