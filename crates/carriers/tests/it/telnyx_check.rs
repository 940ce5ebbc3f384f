//! The test of a connection to Telnyx, and what its REST client makes of answers and silence.

use crate::stand_in::{Reply, StandIn};
use crate::telnyx_account::{asked, data, listed, refused, telnyx};
use crate::twilio_account::client;
use offhook_carriers::telnyx::{Telnyx, api_host};
use offhook_carriers::{Account, CarrierError, Verdict};
use offhook_core::Secret;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_good_key_passes_every_step_of_the_test() {
    let carrier = StandIn::answering([balance(), listed(&[]), listed(&[]), listed(&[]), listed(&[])]).await;
    let verdict = telnyx(&carrier).check().await.unwrap();
    assert_eq!((verdict, verdict.to_string().as_str()), (Verdict::Ok { trial: None }, "ok"));
    assert_eq!(
        asked(&carrier),
        [
            "GET /balance",
            "GET /phone_numbers?page[number]=1&page[size]=1",
            "GET /call_control_applications?page[number]=1&page[size]=1",
            "GET /outbound_voice_profiles?page[number]=1&page[size]=1",
            "GET /messaging_profiles?page[number]=1&page[size]=1",
        ]
    );
}

#[tokio::test]
async fn a_key_that_may_not_see_the_balance_is_good() {
    let carrier =
        StandIn::answering([refused(403, "10010"), listed(&[]), listed(&[]), listed(&[]), listed(&[])]).await;
    assert_eq!(telnyx(&carrier).check().await.unwrap(), Verdict::Ok { trial: None });
}

#[tokio::test]
async fn the_test_names_what_is_wrong() {
    let no = || refused(403, "10010");
    let inactive = r#"{"errors":[{"code":"20012","title":"Account inactive","detail":"x"}]}"#;
    for (word, replies) in [
        ("wrong_credentials", vec![refused(401, "10009")]),
        ("wrong_credentials", vec![Reply::Say(401, "<html>".into())]),
        ("wrong_credentials", vec![refused(404, "10005")]),
        ("suspended", vec![Reply::Say(403, inactive.into())]),
        ("missing_permission:numbers", vec![balance(), no()]),
        ("missing_permission:voice", vec![balance(), listed(&[]), no()]),
        ("missing_permission:voice", vec![no(), listed(&[]), listed(&[]), no()]),
        ("missing_permission:messages", vec![balance(), listed(&[]), listed(&[]), listed(&[]), no()]),
        ("unreachable", vec![Reply::Say(503, "<html>".into()), Reply::Say(502, String::new())]),
        ("unreachable", vec![Reply::ok("<html>")]),
    ] {
        let carrier = StandIn::answering(replies).await;
        assert_eq!(telnyx(&carrier).check().await.unwrap().to_string(), word);
    }
    let busy = StandIn::answering([Reply::NotNow("7")]).await;
    let error = telnyx(&busy).check().await.unwrap_err();
    assert!(matches!(error, CarrierError::RateLimited { retry_after_s: Some(7) }), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_asked_twice_and_no_more() {
    let carrier = StandIn::answering([Reply::Silence, Reply::Silence, balance()]).await;
    let impatient = telnyx(&carrier).with_timeout(Duration::from_millis(200));
    assert_eq!(impatient.check().await.unwrap(), Verdict::Unreachable);
    assert_eq!(asked(&carrier), ["GET /balance"; 2]);
}

#[tokio::test]
async fn an_endless_list_or_answer_ends() {
    let pages =
        std::iter::repeat_with(|| crate::telnyx_account::page(&vec![number(); 250], 100_000)).take(60);
    let carrier = StandIn::answering(pages).await;
    let error = telnyx(&carrier).own_numbers(usize::MAX).await.unwrap_err();
    assert!(
        matches!(error, CarrierError::Unreachable { .. }),
        "the script has nothing for what follows: {error}"
    );
    let lists = asked(&carrier).iter().filter(|line| line.starts_with("GET /phone_numbers?")).count();
    assert_eq!(lists, 50);
    let huge = " ".repeat(2 * 1024 * 1024);
    let carrier = StandIn::answering([Reply::ok(&huge), Reply::ok(&huge)]).await;
    let error = telnyx(&carrier).order("x").await.unwrap_err();
    assert_eq!(error.to_string(), "the carrier cannot be reached: its answer is too large");
}

#[tokio::test]
async fn a_refusal_says_what_to_do_and_hides_the_number() {
    let carrier =
        StandIn::answering([refused(422, "10016"), refused(422, "99999"), Reply::Say(418, "?".into())]).await;
    let telnyx = telnyx(&carrier);
    let mut shown = vec![];
    for _ in 0..3 {
        let error = telnyx.order("x").await.unwrap_err();
        assert!(!format!("{error:?}").contains("14155550199"));
        shown.push(error.to_string());
    }
    assert_eq!(
        shown,
        [
            "the carrier refused (code 10016): The number is not in E.164; write it as +14155550123.",
            "the carrier refused (code 99999): see https://developers.telnyx.com/docs/overview/errors/99999",
            "the carrier refused (code 418): see https://developers.telnyx.com/docs/overview/errors/418",
        ]
    );
}

#[tokio::test]
async fn webhooks_that_did_not_arrive_are_told_with_the_reason() {
    let delivery = |id: &str, at: &str, attempts| {
        json!({
            "id": id, "record_type": "webhook_delivery", "status": "failed", "started_at": at, "finished_at": at, "attempts": attempts,
            "webhook": {"event_type": "call.initiated", "payload": {"call_control_id": "v3:x"}},
        })
    };
    let http = |status| json!({"request": {"url": "https://offhook.example/hooks/telnyx/voice"}, "response": status});
    let carrier = StandIn::answering([listed(&[
        delivery("a", "2025-11-21T09:00:00Z", json!([
            {"errors": [75499], "finished_at": "2025-11-21T09:00:05Z", "http": http(json!({"status": 404}))},
            {"errors": [{"code": "75001", "title": "Could not resolve name"}], "finished_at": "2025-11-21T09:00:01Z", "http": http(json!(null))},
        ])),
        delivery("b", "2025-11-21T09:00:09Z", json!([{"errors": [{"code": "75001", "detail": "no name"}], "http": http(json!(null))}])),
        delivery("c", "2025-11-21T08:00:00Z", json!([])),
    ])])
    .await;
    let alerts = Account::Telnyx(telnyx(&carrier)).alerts(1_763_715_600_000_000).await.unwrap();
    let told: Vec<_> = alerts
        .iter()
        .map(|alert| (alert.id.as_str(), alert.code, alert.sentence.split(['.', ';']).next().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("b", Some(75001), "Telnyx cannot find the host of our webhook address"),
            ("a", Some(75499), "Our webhook address answered Telnyx with HTTP status 404"),
            ("c", None, "Telnyx could not reach our webhook address in time"),
        ]
    );
    assert_eq!(alerts[1].url.as_deref(), Some("https://offhook.example/hooks/telnyx/voice"));
    assert_eq!(alerts[1].about.as_deref(), Some("v3:x"));
    let query = "filter[status][eq]=failed&filter[started_at][gte]=2025-11-21T09:00:00Z&page[number]=1&page[size]=250";
    assert_eq!(asked(&carrier), [format!("GET /webhook_deliveries?{query}")]);
}

#[test]
fn the_carriers_own_address_has_its_version() {
    let key = Secret::new("KEY1".into());
    for base in ["https://api.telnyx.com/v2", "https://api.telnyx.com/v2/"] {
        Telnyx::new(client(), base.parse().unwrap(), &key).unwrap();
    }
    assert_eq!(api_host().as_str(), "https://api.telnyx.com/v2/");
}

fn balance() -> Reply {
    data(
        json!({"record_type": "balance", "balance": "300.00", "credit_limit": "0.00", "available_credit": "300.00", "currency": "USD"}),
    )
}

fn number() -> serde_json::Value {
    crate::telnyx_account::number(json!({}))
}
