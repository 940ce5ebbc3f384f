//! What the REST client asks for, and what it makes of the answers.

use crate::stand_in::{Reply, StandIn};
use crate::twilio_account::{AC, ACCOUNT, CALL, CALL_JSON, QUEUED_JSON, by_token, client, form, token};
use offhook_carriers::twilio::{Answer, CallFilter, MediaStream, NewCall, Steer, Tones, Twilio, Verb};
use offhook_carriers::{AnsweredBy, Area, CallStatus, CarrierError, Direction, Verdict};
use offhook_core::Pii;
use std::time::Duration;

#[tokio::test]
async fn silence_is_unreachable_or_of_unknown_outcome() {
    let carrier = StandIn::answering([Reply::Silence, Reply::Silence, Reply::Silence]).await;
    let impatient = by_token(&carrier).with_timeout(Duration::from_millis(200));
    assert_eq!(impatient.check().await.unwrap(), Verdict::Unreachable);
    let error = impatient.dial(&new_call()).await.unwrap_err();
    assert!(matches!(error, CarrierError::OutcomeUnknown { .. }), "{error}");
}

#[tokio::test]
async fn nobody_at_the_address_is_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let twilio = Twilio::new(client(), base, ACCOUNT, token()).unwrap();
    assert_eq!(twilio.check().await.unwrap(), Verdict::Unreachable);
    let error = twilio.dial(&new_call()).await.unwrap_err();
    assert!(matches!(error, CarrierError::Unreachable { .. }), "no call can have been made: {error}");
}

#[tokio::test]
async fn a_call_is_hung_up_even_at_the_second_attempt_or_when_it_is_over() {
    let carrier = StandIn::answering([Reply::Say(500, String::new()), Reply::ok(CALL_JSON)]).await;
    by_token(&carrier).hang_up(CALL).await.unwrap();
    let asked = &carrier.asked()[1];
    assert_eq!(
        (asked.line.clone(), asked.body.as_str()),
        (format!("POST {AC}/Calls/{CALL}.json"), "Status=completed")
    );
    let carrier = StandIn::answering([Reply::error(400, 21220)]).await;
    by_token(&carrier).hang_up(CALL).await.unwrap();
    let carrier = StandIn::answering([Reply::error(404, 20404)]).await;
    assert!(matches!(by_token(&carrier).hang_up(CALL).await, Err(CarrierError::NotFound)));
}

#[tokio::test]
async fn a_live_call_is_steered_to_a_page_or_a_document() {
    let carrier =
        StandIn::answering([Reply::ok(CALL_JSON), Reply::ok(CALL_JSON), Reply::error(400, 21220)]).await;
    let twilio = by_token(&carrier);
    twilio.steer(CALL, &Steer::Ask("https://offhook.example/a?b=1".parse().unwrap())).await.unwrap();
    twilio.steer(CALL, &Steer::Do(Answer::Run(vec![Verb::HangUp]))).await.unwrap();
    let over = twilio.steer(CALL, &Steer::Do(Answer::empty())).await.unwrap_err();
    assert!(matches!(over, CarrierError::CallOver), "{over}");
    assert_eq!(carrier.asked()[0].body, "Url=https%3A%2F%2Foffhook.example%2Fa%3Fb%3D1");
    assert_eq!(
        form(&carrier.asked()[1].body),
        [("Twiml".into(), r#"<?xml version="1.0" encoding="UTF-8"?><Response><Hangup/></Response>"#.into())]
    );
}

#[tokio::test]
async fn keys_are_pressed_and_the_conversation_goes_on() {
    let carrier = StandIn::answering([Reply::ok(CALL_JSON)]).await;
    let again = Verb::Connect(MediaStream::new("wss://offhook.example/media".parse().unwrap()).unwrap());
    by_token(&carrier).press(CALL, &Tones::new("1w#").unwrap(), &[again]).await.unwrap();
    let document = form(&carrier.asked()[0].body).remove(0).1;
    assert_eq!(
        document,
        r#"<?xml version="1.0" encoding="UTF-8"?><Response><Play digits="1w#"/><Connect><Stream url="wss://offhook.example/media"/></Connect></Response>"#
    );
}

#[tokio::test]
async fn a_call_is_made_once() {
    let carrier = StandIn::answering([Reply::Say(201, QUEUED_JSON.into())]).await;
    let call = by_token(&carrier).dial(&new_call()).await.unwrap();
    assert_eq!((call.status, call.started_us, call.duration_s), (CallStatus::Queued, None, None));
    let asked = carrier.asked().remove(0);
    assert_eq!(asked.line, format!("POST {AC}/Calls.json"));
    assert_eq!(
        asked.body,
        "To=%2B14155550199&From=%2B14155550101&Url=https%3A%2F%2Foffhook.example%2Fvoice\
         &StatusCallback=https%3A%2F%2Foffhook.example%2Fstatus&StatusCallbackEvent=initiated&StatusCallbackEvent=ringing\
         &StatusCallbackEvent=answered&StatusCallbackEvent=completed&SendDigits=W12%23&Timeout=20&TimeLimit=3600"
    );
}

#[tokio::test]
async fn a_call_of_unknown_outcome_is_not_made_twice() {
    for reply in [Reply::Say(500, "oops".into()), Reply::Say(201, "{".into())] {
        let carrier = StandIn::answering([reply, Reply::Say(201, QUEUED_JSON.into())]).await;
        let error = by_token(&carrier).dial(&new_call()).await.unwrap_err();
        assert!(matches!(error, CarrierError::OutcomeUnknown { .. }), "{error}");
        assert_eq!(carrier.lines().len(), 1);
    }
}

#[tokio::test]
async fn a_refusal_says_what_to_do_and_hides_the_number() {
    let carrier =
        StandIn::answering([Reply::error(400, 13225), Reply::error(400, 21999), Reply::Say(418, "?".into())])
            .await;
    let twilio = by_token(&carrier);
    let mut shown = vec![];
    for _ in 0..3 {
        let error = twilio.dial(&new_call()).await.unwrap_err();
        assert!(!format!("{error:?}").contains("14155550199"));
        shown.push(error.to_string());
    }
    assert_eq!(
        shown,
        [
            "the carrier refused (code 13225): Twilio's dialing permissions forbid calls to this number; allow its country \
             in the Twilio console.",
            "the carrier refused (code 21999): see https://www.twilio.com/docs/errors/21999",
            "the carrier refused (code 418): see https://www.twilio.com/docs/errors/418",
        ]
    );
}

#[tokio::test]
async fn a_call_is_fetched_at_the_second_attempt() {
    let carrier = StandIn::answering([Reply::Say(503, String::new()), Reply::ok(CALL_JSON)]).await;
    let call = by_token(&carrier).call(CALL).await.unwrap();
    assert_eq!(
        (call.carrier_call.as_str(), call.status, call.direction),
        (CALL, CallStatus::Completed, Direction::Outbound)
    );
    assert_eq!((call.started_us, call.ended_us), (Some(1_763_715_631_000_000), Some(1_763_715_673_000_000)));
    assert_eq!((call.duration_s, call.answered_by), (Some(42), Some(AnsweredBy::Human)));
    assert_eq!(call.to.e164().unwrap().as_str(), "+14155550199");
    assert_eq!(carrier.lines(), vec![format!("GET {AC}/Calls/{CALL}.json"); 2]);
}

#[tokio::test]
async fn calls_are_listed_over_all_pages_from_an_instant_on() {
    let next = format!("{AC}/Calls.json?To=%2B14155550199&PageToken=PACA1&Page=1");
    let page = |calls: &str, next: &str| format!(r#"{{"calls":[{calls}],"next_page_uri":{next},"page":0}}"#);
    let carrier = StandIn::answering([
        Reply::ok(&page(QUEUED_JSON, &format!("{next:?}"))),
        Reply::ok(&page(CALL_JSON, "null")),
    ])
    .await;
    let filter = CallFilter {
        to: Some(Pii::new("+14155550199".into())),
        from: Some(Pii::new("+14155550101".into())),
        started_from_us: Some(1_763_715_632_000_000),
    };
    let calls = by_token(&carrier).calls(&filter).await.unwrap();
    let statuses: Vec<_> = calls.iter().map(|call| call.status).collect();
    assert_eq!(statuses, [CallStatus::Queued], "the other began a second too early");
    let first = format!(
        "GET {AC}/Calls.json?PageSize=50&To=%2B14155550199&From=%2B14155550101&StartTime%3E=2025-11-21T09%3A00%3A32Z"
    );
    assert_eq!(carrier.lines(), [first, format!("GET {next}")]);
}

#[tokio::test]
async fn credentials_do_not_follow_a_list_to_another_host() {
    let page = |next: &str| Reply::ok(&format!(r#"{{"calls":[],"next_page_uri":"{next}"}}"#));
    for next in ["https://evil.example/2010-04-01/x", "//evil.example/2010-04-01/x", "@evil.example/"] {
        let carrier = StandIn::answering([page(next)]).await;
        let error = by_token(&carrier).calls(&CallFilter::default()).await.unwrap_err();
        assert!(matches!(error, CarrierError::Unreachable { .. }), "{error}");
        assert_eq!(carrier.lines().len(), 1);
    }
}

#[tokio::test]
async fn an_endless_list_or_answer_ends() {
    let next = format!(r#"{{"calls":[],"next_page_uri":"{AC}/Calls.json?Page=1"}}"#);
    let carrier = StandIn::answering(std::iter::repeat_with(|| Reply::ok(&next)).take(100)).await;
    by_token(&carrier).calls(&CallFilter::default()).await.unwrap();
    assert_eq!(carrier.lines().len(), 50);
    let huge = " ".repeat(2 * 1024 * 1024);
    let carrier = StandIn::answering([Reply::ok(&huge), Reply::ok(&huge)]).await;
    let error = by_token(&carrier).call(CALL).await.unwrap_err();
    assert_eq!(error.to_string(), "the carrier cannot be reached: its answer is too large");
}

#[tokio::test]
async fn a_permission_is_named_and_a_hostile_id_stays_in_its_place() {
    let carrier = StandIn::answering([Reply::error(403, 70051)]).await;
    let error = by_token(&carrier).call("../../x?y#z").await.unwrap_err();
    assert!(matches!(error, CarrierError::MissingPermission { area: Area::Voice }), "{error}");
    assert_eq!(carrier.lines(), [format!("GET {AC}/Calls/..%2F..%2Fx%3Fy%23z.json")]);
}

pub fn new_call() -> NewCall {
    NewCall {
        to: Pii::new("+14155550199".into()),
        from: Pii::new("+14155550101".into()),
        then: Steer::Ask("https://offhook.example/voice".parse().unwrap()),
        status_callback: Some("https://offhook.example/status".parse().unwrap()),
        tones: Some(Tones::new("W12#").unwrap()),
        ring_timeout_s: Some(20),
        time_limit_s: Some(3600),
    }
}
