//! Every request that the Twilio adapter can send, checked against Twilio's OpenAPI files.

use crate::contract::{Contract, TWILIO};
use crate::rest::new_call;
use crate::stand_in::{Reply, StandIn};
use crate::twilio_account::{
    CALL, CALL_JSON, NUMBER, QUEUED_JSON, SERVICE, TRUNK, at_twilio, key, listed, no_services, number,
    numbers, token,
};
use crate::twilio_numbers::{hooks, own_number, wanted};
use crate::twilio_trunk::{origination, trunk, wish};
use offhook_carriers::twilio::{Answer, CallFilter, NewCall, Steer, Tones, Twilio, Verb};
use offhook_carriers::{NumberKind, NumberSearch};
use offhook_core::Pii;
use offhook_core::entity::Capability;
use serde_json::json;

#[tokio::test]
async fn every_request_to_twilio_is_one_that_its_documents_know() {
    let mut contract = Contract::read(TWILIO);
    check(&mut contract).await;
    calls(&mut contract).await;
    search(&mut contract).await;
    numbers_of_the_account(&mut contract).await;
    trunks(&mut contract).await;
    contract.finish("twilio");
}

/// Checks what is asked of Twilio by `ask`, which must ask for exactly these replies.
async fn checked(contract: &mut Contract, replies: Vec<Reply>, ask: impl AsyncFnOnce(Twilio)) {
    let expected = replies.len();
    let carrier = StandIn::answering(replies).await;
    ask(at_twilio(&carrier, token())).await;
    let asked = carrier.asked();
    asked.iter().for_each(|asked| contract.check(asked));
    assert_eq!(asked.len(), expected, "{:#?}", carrier.lines());
}

async fn check(contract: &mut Contract) {
    let wrong = || Reply::error(401, 20003);
    let fine = vec![Reply::ok(r#"{"status":"active"}"#), Reply::ok("{}"), Reply::ok("{}"), Reply::ok("{}")];
    checked(contract, fine, async |twilio| {
        twilio.check().await.unwrap();
    })
    .await;
    let carrier = StandIn::answering([wrong(), wrong(), wrong(), wrong()]).await;
    at_twilio(&carrier, key()).check().await.unwrap();
    carrier.asked().iter().for_each(|asked| contract.check(asked));
    checked(contract, vec![listed("alerts", json!([]))], async |twilio| {
        twilio.alerts(1_763_715_632_000_000).await.unwrap();
    })
    .await;
}

async fn calls(contract: &mut Contract) {
    let filter = CallFilter {
        to: Some(Pii::new("+14155550199".into())),
        from: Some(Pii::new("+14155550101".into())),
        started_from_us: Some(1_763_715_632_000_000),
    };
    let call = || Reply::ok(CALL_JSON);
    let replies = vec![
        Reply::ok(QUEUED_JSON),
        Reply::ok(QUEUED_JSON),
        call(),
        call(),
        call(),
        call(),
        call(),
        Reply::ok(r#"{"calls":[]}"#),
    ];
    checked(contract, replies, async |twilio| {
        twilio.dial(&new_call()).await.unwrap();
        let then = Steer::Do(Answer::Run(vec![Verb::HangUp]));
        twilio.dial(&NewCall { then, ..new_call() }).await.unwrap();
        twilio.call(CALL).await.unwrap();
        twilio.steer(CALL, &Steer::Ask("https://offhook.example/a".parse().unwrap())).await.unwrap();
        twilio.steer(CALL, &Steer::Do(Answer::Run(vec![Verb::HangUp]))).await.unwrap();
        twilio.press(CALL, &Tones::new("1").unwrap(), &[]).await.unwrap();
        twilio.hang_up(CALL).await.unwrap();
        twilio.calls(&filter).await.unwrap();
    })
    .await;
}

async fn search(contract: &mut Contract) {
    let kinds = ["local", "mobile", "toll_free", "national", "voip", "shared_cost"];
    let links =
        json!(kinds.map(|kind| (kind, "/x")).into_iter().collect::<std::collections::BTreeMap<_, _>>());
    let country = Reply::ok(&json!({ "country_code": "US", "subresource_uris": links }).to_string());
    let none = || Reply::ok(r#"{"available_phone_numbers":[]}"#);
    let replies = [country].into_iter().chain(std::iter::repeat_with(none).take(7)).collect();
    checked(contract, replies, async |twilio| {
        twilio.search(&wanted(None)).await.unwrap();
        let narrow = NumberSearch {
            area_code: Some("415".into()),
            locality: Some("San Francisco".into()),
            region: Some("CA".into()),
            contains: Some("555**01".into()),
            capabilities: vec![Capability::Voice, Capability::Sms, Capability::Mms],
            ..wanted(Some(NumberKind::Local))
        };
        twilio.search(&narrow).await.unwrap();
    })
    .await;
}

async fn numbers_of_the_account(contract: &mut Contract) {
    let listed_numbers = || numbers(&[number(json!({}))]);
    let services = || listed("services", json!([{ "sid": SERVICE }]));
    let all = vec![listed_numbers(), services(), listed("phone_numbers", json!([{ "sid": NUMBER }]))];
    checked(contract, all, async |twilio| drop(twilio.own_numbers(500).await.unwrap())).await;
    let one = vec![listed_numbers(), services(), Reply::ok(&json!({ "sid": NUMBER }).to_string())];
    checked(contract, one, async |twilio| {
        twilio.own_number(&"+14155550101".parse().unwrap()).await.unwrap();
    })
    .await;

    let bought = Reply::Say(201, number(json!({})).to_string());
    checked(contract, vec![bought], async |twilio| {
        let routing = twilio.routing_to(&hooks(), "offhook").await.unwrap();
        twilio.buy(&"+14155550101".parse().unwrap(), &routing, "num_1").await.unwrap();
    })
    .await;

    // Pointed to us, and given back to a trunk.
    let before =
        json!({ "trunk_sid": TRUNK, "voice_url": "https://old.example/voice", "voice_method": "GET" });
    let now = || Reply::ok(&number(json!({})).to_string());
    let back = || Reply::ok(&number(before.clone()).to_string());
    let routed = vec![now(), now(), now(), now(), no_services(), now(), back(), no_services(), Reply::gone()];
    checked(contract, routed, async |twilio| {
        let theirs = own_number(number(before.clone()));
        let ours = twilio.routing_to(&hooks(), "offhook").await.unwrap();
        twilio.route(&theirs, &ours).await.unwrap();
        twilio.route(&theirs, &theirs.routing).await.unwrap();
        twilio.release(&theirs).await.unwrap();
    })
    .await;
}

async fn trunks(contract: &mut Contract) {
    let none = |key| listed(key, json!([]));
    let one = |trunk| listed("trunks", json!([trunk]));
    let address = |uri| listed("origination_urls", json!([origination(uri)]));
    let made = || Reply::Say(201, trunk(json!({})).to_string());
    let ours = &wish().uri;
    let replies = vec![
        // Made; then corrected, in itself and in its address.
        none("trunks"),
        made(),
        none("origination_urls"),
        made(),
        address(ours),
        one(trunk(json!({ "secure": false }))),
        made(),
        address("sip:elsewhere.example"),
        made(),
        address(ours),
        // A number that is put on it and taken from it.
        Reply::error(404, 20404),
        Reply::Say(201, number(json!({ "trunk_sid": TRUNK })).to_string()),
        Reply::ok(&number(json!({ "trunk_sid": TRUNK })).to_string()),
        Reply::gone(),
        Reply::gone(),
    ];
    checked(contract, replies, async |twilio| {
        twilio.trunk(&wish()).await.unwrap();
        twilio.trunk(&wish()).await.unwrap();
        twilio.attach_to_trunk(TRUNK, NUMBER).await.unwrap();
        twilio.detach_from_trunk(TRUNK, NUMBER).await.unwrap();
        twilio.remove_trunk(TRUNK).await.unwrap();
    })
    .await;
}
