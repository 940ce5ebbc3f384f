//! A SIP trunk at Twilio: found or made, corrected, and numbers put on it.

use crate::stand_in::{Reply, StandIn};
use crate::twilio_account::{NUMBER, TRUNK, by_token, form, listed, number};
use offhook_carriers::CarrierError;
use offhook_carriers::twilio::TrunkWish;
use serde_json::{Value, json};

pub fn wish() -> TrunkWish {
    TrunkWish {
        name: "offhook con_1".into(),
        uri: "sip:sip.offhook.example:5061;transport=tls".into(),
        secure: true,
        transfers: true,
        recovery: Some("https://offhook.example/hooks/twilio/voice".parse().unwrap()),
    }
}

/// The trunk as wished, but for what is given.
pub fn trunk(but: Value) -> Value {
    let mut trunk = json!({
        "sid": TRUNK, "friendly_name": wish().name, "secure": true, "transfer_mode": "enable-all",
        "disaster_recovery_url": wish().recovery, "disaster_recovery_method": "POST", "domain_name": null,
    });
    trunk.as_object_mut().unwrap().extend(but.as_object().unwrap().clone());
    trunk
}

pub fn origination(uri: &str) -> Value {
    json!({
        "sid": "OU00000000000000000000000000000001", "trunk_sid": TRUNK, "friendly_name": wish().name,
        "sip_url": uri, "priority": 10, "weight": 10, "enabled": true,
    })
}

#[tokio::test]
async fn a_trunk_is_made_with_its_address() {
    let carrier = StandIn::answering([
        listed("trunks", json!([trunk(json!({ "sid": "TK9", "friendly_name": "another" }))])),
        Reply::Say(201, trunk(json!({})).to_string()),
        listed("origination_urls", json!([])),
        Reply::Say(201, origination(&wish().uri).to_string()),
        listed("origination_urls", json!([origination(&wish().uri)])),
    ])
    .await;
    let made = by_token(&carrier).trunk(&wish()).await.unwrap();
    assert_eq!((made.id.as_str(), made.secure, made.transfers), (TRUNK, true, true));
    assert_eq!((made.originations.len(), made.originations[0].uri.as_str()), (1, wish().uri.as_str()));
    let at = format!("/v1/Trunks/{TRUNK}/OriginationUrls");
    assert_eq!(
        carrier.lines(),
        [
            "GET /v1/Trunks?PageSize=100".to_owned(),
            "POST /v1/Trunks".into(),
            format!("GET {at}?PageSize=100"),
            format!("POST {at}"),
            format!("GET {at}?PageSize=100"),
        ]
    );
    let sent = form(&carrier.asked()[3].body);
    assert!(sent.contains(&("SipUrl".into(), wish().uri)), "{sent:?}");
}

#[tokio::test]
async fn a_trunk_that_is_as_wished_is_left_alone_with_what_others_added() {
    let theirs = json!({
        "sid": "OU9", "friendly_name": "backup", "sip_url": "sip:backup.example", "priority": 20, "weight": 1, "enabled": false,
    });
    let carrier = StandIn::answering([
        listed("trunks", json!([trunk(json!({}))])),
        listed("origination_urls", json!([theirs, origination(&wish().uri)])),
    ])
    .await;
    let found = by_token(&carrier).trunk(&wish()).await.unwrap();
    assert_eq!(found.originations.len(), 2);
    assert!(carrier.lines().iter().all(|line| line.starts_with("GET ")));
}

#[tokio::test]
async fn a_trunk_is_corrected_where_it_is_not_as_wished() {
    let mut off = origination(&wish().uri);
    off["enabled"] = false.into();
    let carrier = StandIn::answering([
        listed(
            "trunks",
            json!([trunk(json!({ "transfer_mode": "disable-all", "disaster_recovery_url": null }))]),
        ),
        Reply::ok(&trunk(json!({})).to_string()),
        listed("origination_urls", json!([off])),
        Reply::ok("{}"),
        listed("origination_urls", json!([origination(&wish().uri)])),
    ])
    .await;
    let trunk = by_token(&carrier).trunk(&wish()).await.unwrap();
    assert!(trunk.transfers && trunk.originations[0].enabled && trunk.recovery.is_some());
    let lines = carrier.lines();
    assert_eq!(lines[1], format!("POST /v1/Trunks/{TRUNK}"));
    assert_eq!(
        lines[3],
        format!("POST /v1/Trunks/{TRUNK}/OriginationUrls/OU00000000000000000000000000000001")
    );
}

#[tokio::test]
async fn a_number_is_put_on_a_trunk_and_taken_from_it_once() {
    let on = || Reply::ok(&number(json!({ "trunk_sid": TRUNK })).to_string());
    let off = || Reply::error(404, 20404);
    let carrier = StandIn::answering([off(), on(), on(), on(), Reply::gone(), off()]).await;
    let twilio = by_token(&carrier);
    twilio.attach_to_trunk(TRUNK, NUMBER).await.unwrap();
    twilio.attach_to_trunk(TRUNK, NUMBER).await.unwrap();
    twilio.detach_from_trunk(TRUNK, NUMBER).await.unwrap();
    twilio.detach_from_trunk(TRUNK, NUMBER).await.unwrap();
    let methods: Vec<_> =
        carrier.lines().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(methods, ["GET", "POST", "GET", "GET", "DELETE", "GET"]);
    assert_eq!(carrier.asked()[1].body, format!("PhoneNumberSid={NUMBER}"));
}

#[tokio::test]
async fn a_number_that_did_not_get_onto_its_trunk_is_told() {
    let carrier = StandIn::answering([Reply::error(404, 20404), Reply::ok("{}")]).await;
    let error = by_token(&carrier).attach_to_trunk(TRUNK, NUMBER).await.unwrap_err();
    assert!(matches!(error, CarrierError::OutcomeUnknown { .. }), "{error}");
}
