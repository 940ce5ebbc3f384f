//! Our application and messaging profile at Telnyx: looked for before they are made, and set right when they are not.

use crate::stand_in::{Reply, StandIn};
use crate::telnyx_account::{
    APPLICATION, LABEL, PROFILE, application, asked, body, data, listed, profile, refused, telnyx,
};
use crate::telnyx_numbers::{hooks, ours};
use offhook_carriers::{CarrierError, OurHooks};
use serde_json::{Value, json};

const FIND_APPLICATION: &str = "GET /call_control_applications?filter[application_name][contains]=offhook con_01J&page[number]=1&page[size]=250";
const FIND_PROFILE: &str =
    "GET /messaging_profiles?filter[name][eq]=offhook con_01J&page[number]=1&page[size]=250";
const FIND_OUTBOUND: &str = "GET /outbound_voice_profiles?sort=created_at&page[number]=1&page[size]=250";

#[tokio::test]
async fn what_is_there_and_right_is_used_as_it_is() {
    let longer = application(json!({"id": "1", "application_name": "offhook con_01J2"}));
    let newer = application(json!({"id": "10345678901234567890"}));
    let carrier =
        StandIn::answering([listed(&[longer, newer, application(json!({}))]), listed(&[profile(json!({}))])])
            .await;
    assert_eq!(telnyx(&carrier).routing_to(&hooks(), LABEL).await.unwrap(), ours());
    assert_eq!(asked(&carrier), [FIND_APPLICATION, FIND_PROFILE]);
}

#[tokio::test]
async fn what_is_missing_is_made_once() {
    let carrier = StandIn::answering([
        listed(&[]),
        listed(&[outbound("1293384261075731400", "PBX", true)]),
        Reply::Say(201, json!({"data": application(json!({}))}).to_string()),
        listed(&[]),
        data(profile(json!({}))),
    ])
    .await;
    assert_eq!(telnyx(&carrier).routing_to(&hooks(), LABEL).await.unwrap(), ours());
    assert_eq!(
        asked(&carrier),
        [
            FIND_APPLICATION,
            FIND_OUTBOUND,
            "POST /call_control_applications",
            FIND_PROFILE,
            "POST /messaging_profiles"
        ]
    );
    assert_eq!(
        body(&carrier, 2),
        json!({
            "application_name": LABEL, "active": true, "webhook_event_url": "https://offhook.example/hooks/telnyx/voice",
            "webhook_event_failover_url": "https://offhook.example/hooks/telnyx/fallback", "webhook_api_version": "2",
            "webhook_timeout_secs": 10, "first_command_timeout": true, "first_command_timeout_secs": 30,
            "dtmf_type": "RFC 2833", "anchorsite_override": "Latency", "call_cost_in_webhooks": true,
            "outbound": {"outbound_voice_profile_id": "1293384261075731400"},
        })
    );
    assert_eq!(
        body(&carrier, 4),
        json!({
            "name": LABEL, "enabled": true, "webhook_url": "https://offhook.example/hooks/telnyx/messages",
            "webhook_failover_url": "https://offhook.example/hooks/telnyx/messages", "webhook_api_version": "2",
            "whitelisted_destinations": ["US", "CA"],
        })
    );
}

#[tokio::test]
async fn what_somebody_changed_is_set_right_and_what_is_theirs_is_kept() {
    for (changed_application, changed_profile) in [
        (json!({"webhook_event_url": "https://elsewhere/v"}), json!({"webhook_url": null})),
        (json!({"webhook_event_failover_url": null}), json!({"webhook_failover_url": "https://elsewhere/m"})),
        (json!({"webhook_api_version": "1"}), json!({"webhook_api_version": "1"})),
        (json!({"active": false}), json!({"enabled": false})),
    ] {
        let carrier = StandIn::answering([
            listed(&[application(changed_application)]),
            data(application(json!({}))),
            listed(&[profile(changed_profile)]),
            data(profile(json!({}))),
        ])
        .await;
        assert_eq!(telnyx(&carrier).routing_to(&hooks(), LABEL).await.unwrap(), ours());
        let change = |list: &str, id: &str| format!("PATCH /{list}/{id}");
        let asked = asked(&carrier);
        assert_eq!(asked[1], change("call_control_applications", APPLICATION));
        assert_eq!(asked[3], change("messaging_profiles", PROFILE));
        assert_eq!(body(&carrier, 1)["webhook_event_url"], "https://offhook.example/hooks/telnyx/voice");
        assert_eq!(body(&carrier, 1).get("outbound"), None, "it has one, and whoever chose it had a reason");
        assert_eq!(body(&carrier, 3).get("whitelisted_destinations"), None);
    }
}

#[tokio::test]
async fn an_application_that_cannot_ring_out_gets_what_it_needs_where_the_key_allows_it() {
    let mute = || listed(&[application(json!({"outbound": {"outbound_voice_profile_id": null}}))]);
    let set = || data(application(json!({})));
    let quiet = OurHooks { messages: None, ..hooks() };
    let ours = |list: &[Value]| listed(list);
    for (replies, expected) in [
        (vec![mute(), ours(&[outbound("1", "PBX", false), outbound("2", LABEL, true)]), set()], Some("2")),
        (vec![mute(), ours(&[outbound("1", "PBX", false), outbound("3", "other", true)]), set()], Some("3")),
        (vec![mute(), ours(&[]), data(outbound("4", LABEL, true)), set()], Some("4")),
        (vec![mute(), ours(&[]), refused(403, "10010"), set()], None),
        (vec![mute(), refused(403, "10010"), set()], None),
    ] {
        let last = replies.len() - 1;
        let carrier = StandIn::answering(replies).await;
        let routing = telnyx(&carrier).routing_to(&quiet, LABEL).await.unwrap();
        assert!(!routing.0.contains_key("messaging_profile_id"), "texts are left as they are");
        assert_eq!(body(&carrier, last)["outbound"]["outbound_voice_profile_id"].as_str(), expected);
        asked(&carrier);
    }
}

#[tokio::test]
async fn two_that_make_it_at_once_agree_on_one() {
    let carrier = StandIn::answering([
        listed(&[]),
        listed(&[outbound("1", "PBX", true)]),
        refused(409, "10012"),
        listed(&[application(json!({}))]),
        listed(&[]),
        refused(422, "10012"),
        listed(&[profile(json!({}))]),
    ])
    .await;
    assert_eq!(telnyx(&carrier).routing_to(&hooks(), LABEL).await.unwrap(), ours());
    asked(&carrier);
}

#[tokio::test]
async fn a_making_of_unknown_outcome_is_looked_for_when_asked_again() {
    let carrier = StandIn::answering([
        listed(&[]),
        listed(&[outbound("1", "PBX", true)]),
        Reply::Say(500, String::new()),
        listed(&[application(json!({}))]),
        listed(&[profile(json!({}))]),
    ])
    .await;
    let telnyx = telnyx(&carrier);
    let error = telnyx.routing_to(&hooks(), LABEL).await.unwrap_err();
    assert!(matches!(error, CarrierError::OutcomeUnknown { .. }), "{error}");
    assert_eq!(telnyx.routing_to(&hooks(), LABEL).await.unwrap(), ours());
    let made = asked(&carrier).iter().filter(|line| line.starts_with("POST")).count();
    assert_eq!(made, 1);
}

#[tokio::test]
async fn a_permission_that_is_missing_is_named() {
    let carrier = StandIn::answering([listed(&[application(json!({}))]), refused(403, "10010")]).await;
    let error = telnyx(&carrier).routing_to(&hooks(), LABEL).await.unwrap_err();
    assert_eq!(error.to_string(), "these credentials may not use the carrier's messages");
    let carrier = StandIn::answering([]).await;
    let error = telnyx(&carrier).routing_to(&hooks(), "ab").await.unwrap_err();
    assert!(matches!(error, CarrierError::NotAskable(_)));
}

pub fn outbound(id: &str, name: &str, enabled: bool) -> Value {
    json!({"id": id, "record_type": "outbound_voice_profile", "name": name, "enabled": enabled})
}
