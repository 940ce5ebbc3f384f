//! The test of a connection to Twilio: what it asks, and what it makes of the answers.

use crate::stand_in::{Reply, StandIn};
use crate::twilio_account::{AC, KEY, TOKEN, at_twilio, by_token, key, token, twilio};
use offhook_carriers::twilio::Credentials;
use offhook_carriers::{CarrierError, Verdict};
use offhook_core::Secret;

#[tokio::test]
async fn a_good_token_passes_every_step_of_the_test() {
    let carrier = StandIn::answering([
        Reply::ok(r#"{"sid":"AC1","status":"active","type":"Trial"}"#),
        Reply::ok(r#"{"incoming_phone_numbers":[]}"#),
        Reply::ok(r#"{"calls":[]}"#),
        Reply::ok(r#"{"messages":[]}"#),
    ])
    .await;
    let verdict = by_token(&carrier).check().await.unwrap();
    assert_eq!((verdict, verdict.to_string().as_str()), (Verdict::Ok { trial: Some(true) }, "ok"));
    assert_eq!(
        carrier.lines(),
        [
            format!("GET {AC}.json"),
            format!("GET {AC}/IncomingPhoneNumbers.json?PageSize=1"),
            format!("GET {AC}/Calls.json?PageSize=1"),
            format!("GET {AC}/Messages.json?PageSize=1"),
        ]
    );
    // "AC00…01:0123…cdef" in Base64.
    let expected =
        "Basic QUMwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMTowMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZg==";
    assert_eq!(carrier.asked()[0].authorization, expected);
}

#[tokio::test]
async fn an_api_key_is_not_asked_about_the_account() {
    let carrier = StandIn::answering([Reply::ok("{}"), Reply::ok("{}"), Reply::ok("{}")]).await;
    assert_eq!(twilio(&carrier, key()).check().await.unwrap(), Verdict::Ok { trial: None });
    let asked = ["IncomingPhoneNumbers", "Calls", "Messages"];
    assert_eq!(carrier.lines(), asked.map(|list| format!("GET {AC}/{list}.json?PageSize=1")));
    // "SK00…01:word" in Base64.
    let expected = "Basic U0swMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMTp3b3Jk";
    assert_eq!(carrier.asked()[0].authorization, expected);
}

#[tokio::test]
async fn the_test_names_what_is_wrong() {
    let account = |status| Reply::ok(&format!(r#"{{"status":"{status}","type":"Full"}}"#));
    let nothing = || Reply::ok("{}");
    for (word, credentials, replies) in [
        ("wrong_credentials", token(), vec![Reply::error(401, 20003)]),
        ("wrong_account", token(), vec![Reply::error(404, 20404)]),
        (
            "wrong_secret",
            Credentials::AuthToken(Secret::new(TOKEN[..31].into())),
            vec![Reply::error(401, 20003)],
        ),
        ("suspended", token(), vec![account("suspended")]),
        ("closed", token(), vec![account("closed")]),
        ("missing_permission:numbers", token(), vec![account("active"), Reply::error(403, 70051)]),
        ("missing_permission:voice", token(), vec![account("active"), nothing(), Reply::error(401, 20003)]),
        (
            "missing_permission:messages",
            token(),
            vec![account("active"), nothing(), nothing(), Reply::error(401, 70051)],
        ),
        ("missing_permission:numbers", key(), vec![Reply::error(401, 70051)]),
        ("missing_permission:voice", key(), vec![nothing(), Reply::error(401, 70051)]),
        // A key that opens a product whose pages name no account is right, and the account's id is not.
        ("wrong_account", key(), vec![Reply::error(401, 20003), nothing()]),
        ("wrong_account", key(), vec![Reply::error(404, 20404), Reply::error(403, 70051)]),
        ("wrong_credentials", key(), vec![Reply::error(401, 20003), Reply::error(401, 20003)]),
        (
            "wrong_secret",
            Credentials::ApiKey { sid: KEY[..20].into(), secret: Secret::new("word".into()) },
            vec![Reply::error(401, 20003)],
        ),
        ("unreachable", token(), vec![Reply::Say(503, "<html>".into()), Reply::Say(502, String::new())]),
        ("unreachable", token(), vec![Reply::ok("<html>")]),
    ] {
        let asked = replies.len();
        let carrier = StandIn::answering(replies).await;
        let verdict = twilio(&carrier, credentials).check().await.unwrap();
        assert_eq!((verdict.to_string().as_str(), carrier.lines().len()), (word, asked));
        assert!(verdict.error().is_some());
    }
    let busy = StandIn::answering([Reply::NotNow("7")]).await;
    let error = by_token(&busy).check().await.unwrap_err();
    assert!(matches!(error, CarrierError::RateLimited { retry_after_s: Some(7) }), "{error}");
}

#[tokio::test]
async fn the_other_regions_are_asked_only_at_twilio_itself() {
    let wrong = || Reply::error(401, 20003);
    let active = Reply::ok(r#"{"status":"active","type":"Full"}"#);
    let carrier = StandIn::answering([wrong(), wrong(), active]).await;
    let verdict = at_twilio(&carrier, token()).check().await.unwrap();
    assert_eq!(verdict.to_string(), "wrong_region:au1");
    let asked = carrier.asked();
    let hosts: Vec<_> = asked.iter().map(|asked| asked.host.split(':').next().unwrap()).collect();
    assert_eq!(hosts, ["api.twilio.com", "api.dublin.ie1.twilio.com", "api.sydney.au1.twilio.com"]);

    let carrier = StandIn::answering([wrong(), wrong(), wrong()]).await;
    assert_eq!(at_twilio(&carrier, token()).check().await.unwrap(), Verdict::WrongCredentials);
}
