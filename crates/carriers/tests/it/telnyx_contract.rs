//! Every request that the Telnyx adapter can send, checked against Telnyx's OpenAPI file.

use crate::contract::{Contract, TELNYX};
use crate::stand_in::{Reply, StandIn};
use crate::telnyx_account::{
    APPLICATION, CALL, LABEL, ORDER, accepted, application, data, listed, no_forwarding, profile, telnyx,
    texts, voice,
};
use crate::telnyx_calls::{new_call, stream, transfer};
use crate::telnyx_numbers::{available, e164, here, hooks, order, ours, own, wanted};
use crate::telnyx_routing::outbound;
use offhook_carriers::NumberSearch;
use offhook_carriers::telnyx::{Rejection, Telnyx};
use offhook_core::Pii;
use offhook_media::coding::Coding;
use serde_json::{Value, json};

#[tokio::test]
async fn every_request_to_telnyx_is_one_that_its_documents_know() {
    let mut contract = Contract::read(TELNYX);
    account(&mut contract).await;
    search_and_orders(&mut contract).await;
    numbers_of_the_account(&mut contract).await;
    our_application_and_profile(&mut contract).await;
    commands(&mut contract).await;
    calls_of_ours(&mut contract).await;
    contract.finish("telnyx");
}

/// Checks what is asked of Telnyx by `ask`, which must ask for exactly these replies.
async fn checked(contract: &mut Contract, replies: Vec<Reply>, ask: impl AsyncFnOnce(Telnyx)) {
    let expected = replies.len();
    let carrier = StandIn::answering(replies).await;
    ask(telnyx(&carrier)).await;
    let asked = carrier.asked();
    asked.iter().for_each(|asked| contract.check(asked));
    assert_eq!(asked.len(), expected, "{:#?}", carrier.lines());
}

async fn account(contract: &mut Contract) {
    let replies = vec![data(json!({})), listed(&[]), listed(&[]), listed(&[]), listed(&[]), listed(&[])];
    checked(contract, replies, async |telnyx| {
        telnyx.check().await.unwrap();
        telnyx.alerts(1_763_715_632_123_456).await.unwrap();
    })
    .await;
}

async fn search_and_orders(contract: &mut Contract) {
    let replies = vec![
        data(json!([available("+14155550101")])),
        data(json!([available("+4930123456")])),
        listed(&[]),
        data(order("pending")),
        data(order("success")),
        listed(&[order("success")]),
    ];
    checked(contract, replies, async |telnyx| {
        telnyx.search(&wanted()).await.unwrap();
        telnyx.search(&NumberSearch { country: "DE".into(), ..wanted() }).await.unwrap();
        telnyx.buy(&e164(), &ours(), "ws_1/num_1").await.unwrap();
        telnyx.order(ORDER).await.unwrap();
        telnyx.order_of("ws_1/num_1").await.unwrap();
    })
    .await;
}

async fn numbers_of_the_account(contract: &mut Contract) {
    let around = |forwarding: Value| {
        [
            data(voice(forwarding)),
            data(texts(json!(null))),
            data(application(json!({}))),
            data(profile(json!({}))),
        ]
    };
    let forwarding =
        json!({"call_forwarding_enabled": true, "forwarding_type": "always", "forwards_to": "+14155550199"});
    let mut forwarded = ours();
    forwarded.0.insert("call_forwarding".into(), Some("always +14155550199".into()));
    let mut replies = vec![listed(&[here()])];
    replies.extend(std::iter::repeat_with(|| listed(&[])).take(4));
    replies.push(listed(&[here()]));
    replies.extend(around(no_forwarding()));
    replies.extend([
        data(json!({})),
        data(voice(no_forwarding())),
        data(json!({})),
        data(json!({})),
        data(here()),
    ]);
    replies.extend(around(forwarding));
    replies.push(data(here()));
    checked(contract, replies, async |telnyx| {
        telnyx.own_numbers(1_000).await.unwrap();
        telnyx.own_number(&e164()).await.unwrap().unwrap();
        telnyx.route(&own(), &forwarded).await.unwrap();
        telnyx.release(&own()).await.unwrap();
    })
    .await;
}

async fn our_application_and_profile(contract: &mut Contract) {
    let replies = vec![
        listed(&[]),
        listed(&[]),
        data(outbound("1", LABEL, true)),
        data(application(json!({}))),
        listed(&[]),
        data(profile(json!({}))),
        listed(&[application(json!({"active": false}))]),
        data(application(json!({}))),
        listed(&[profile(json!({"enabled": false}))]),
        data(profile(json!({}))),
    ];
    checked(contract, replies, async |telnyx| {
        telnyx.routing_to(&hooks(), LABEL).await.unwrap();
        telnyx.routing_to(&hooks(), LABEL).await.unwrap();
    })
    .await;
}

async fn commands(contract: &mut Contract) {
    let replies = std::iter::repeat_with(accepted).take(13).collect();
    checked(contract, replies, async |telnyx| {
        for coding in [Coding::MU_LAW, Coding::A_LAW, Coding::WIDE] {
            telnyx.answer(CALL, &stream(coding), Some("cnv_1"), "c").await.unwrap();
        }
        telnyx.start_stream(CALL, &stream(Coding::WIDE), "c").await.unwrap();
        telnyx.stop_stream(CALL, "c").await.unwrap();
        telnyx.hang_up(CALL, "c").await.unwrap();
        telnyx.reject(CALL, Rejection::Declined, "c").await.unwrap();
        telnyx.reject(CALL, Rejection::Busy, "c").await.unwrap();
        telnyx.press(CALL, &Pii::new("1w#".into()), "c").await.unwrap();
        telnyx.speak(CALL, &Pii::new("Hello".into()), &"en-US".parse().unwrap(), "c").await.unwrap();
        telnyx.refer(CALL, &Pii::new("sip:ada@offhook.example".into()), "c").await.unwrap();
        telnyx.transfer(CALL, &transfer(), "c").await.unwrap();
        telnyx.bridge(CALL, "v3:person", "c").await.unwrap();
    })
    .await;
}

async fn calls_of_ours(contract: &mut Contract) {
    let leg = || data(json!({"call_control_id": CALL, "call_session_id": "s", "is_alive": true}));
    checked(contract, vec![leg(), leg(), listed(&[])], async |telnyx| {
        telnyx.dial(&new_call(), "c").await.unwrap();
        assert!(telnyx.is_live(CALL).await.unwrap());
        assert_eq!(telnyx.live_call(APPLICATION, "cnv_1").await.unwrap(), None);
    })
    .await;
}
