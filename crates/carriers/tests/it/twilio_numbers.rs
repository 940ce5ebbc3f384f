//! Numbers at Twilio: found, bought, pointed to us and given back.

use crate::stand_in::{Reply, StandIn};
use crate::twilio_account::{
    AC, NUMBER, SERVICE, TRUNK, at_twilio, by_token, form, listed, no_services, number, numbers, token,
};
use offhook_carriers::{
    Account, AvailableNumber, Bought, CarrierError, NumberKind, NumberSearch, OurHooks, OwnNumber, Routing,
};
use offhook_core::E164;
use offhook_core::entity::Capability;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub fn wanted(kind: Option<NumberKind>) -> NumberSearch {
    NumberSearch {
        country: "US".into(),
        kind,
        area_code: None,
        locality: None,
        region: None,
        contains: None,
        capabilities: vec![],
        limit: 20,
    }
}

pub fn hooks() -> OurHooks {
    let page = |path: &str| format!("https://offhook.example/hooks/twilio/{path}").parse().unwrap();
    OurHooks {
        voice: page("voice"),
        voice_fallback: page("voice"),
        status: page("status"),
        messages: Some(page("messages")),
    }
}

/// A number as it was read some time ago.
pub fn own_number(read: Value) -> OwnNumber {
    let settings = read.as_object().unwrap().iter().filter(|(name, _)| {
        ["voice_", "sms_", "status_", "trunk_"].iter().any(|start| name.starts_with(start))
    });
    let value = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(Into::into);
    OwnNumber {
        id: NUMBER.into(),
        e164: e164(),
        capabilities: vec![Capability::Voice, Capability::Sms],
        routing: Routing(settings.map(|(name, set)| (name.clone(), value(set))).collect()),
    }
}

fn e164() -> E164 {
    "+14155550101".parse().unwrap()
}

fn fields(body: &str) -> BTreeMap<String, String> {
    form(body).into_iter().collect()
}

#[tokio::test]
async fn a_search_asks_for_one_kind_and_reads_capabilities_however_written() {
    let found = json!({ "available_phone_numbers": [
        {
            "phone_number": "+14155550101", "locality": "San Francisco", "region": "CA", "iso_country": "US",
            "address_requirements": "none", "capabilities": { "voice": true, "SMS": true, "MMS": false },
        },
        { "phone_number": "+14155550102", "locality": null, "region": "", "address_requirements": "local" },
        { "phone_number": "no number" },
    ] });
    let carrier = StandIn::answering([Reply::ok(&found.to_string())]).await;
    let search = NumberSearch {
        area_code: Some("415".into()),
        contains: Some("555*".into()),
        capabilities: vec![Capability::Voice, Capability::Sms],
        ..wanted(Some(NumberKind::Local))
    };
    let found = by_token(&carrier).search(&search).await.unwrap();
    let first = AvailableNumber {
        e164: e164(),
        kind: NumberKind::Local,
        locality: Some("San Francisco".into()),
        region: Some("CA".into()),
        country: "US".into(),
        capabilities: vec![Capability::Voice, Capability::Sms],
        monthly: None,
        upfront: None,
        needs_papers: false,
    };
    let second = AvailableNumber {
        e164: "+14155550102".parse().unwrap(),
        locality: None,
        region: None,
        capabilities: vec![],
        needs_papers: true,
        ..first.clone()
    };
    assert_eq!(found, [first, second]);
    let query = "AreaCode=415&Contains=555*&VoiceEnabled=true&SmsEnabled=true&PageSize=20";
    assert_eq!(carrier.lines(), [format!("GET {AC}/AvailablePhoneNumbers/US/Local.json?{query}")]);
}

#[tokio::test]
async fn a_search_for_any_kind_asks_for_those_that_the_country_has() {
    let country = r#"{"subresource_uris":{"local":"/l","toll_free":"/t","machine_to_machine":"/m"}}"#;
    let two = |prefix: &str| {
        let number = |last: u8| json!({ "phone_number": format!("{prefix}{last}"), "capabilities": {} });
        Reply::ok(&json!({ "available_phone_numbers": [number(1), number(2), number(3)] }).to_string())
    };
    let carrier = StandIn::answering([Reply::ok(country), two("+1415555010"), two("+1800555010")]).await;
    let search = NumberSearch { limit: 3, ..wanted(None) };
    let found = by_token(&carrier).search(&search).await.unwrap();
    let found: Vec<_> = found.iter().map(|number| (number.e164.as_str(), number.kind)).collect();
    let (local, free) = (NumberKind::Local, NumberKind::TollFree);
    assert_eq!(found, [("+14155550101", local), ("+14155550102", local), ("+18005550101", free)]);
    let at = |path: &str| format!("GET {AC}/AvailablePhoneNumbers/{path}");
    assert_eq!(
        carrier.lines(),
        [at("US.json"), at("US/Local.json?PageSize=2"), at("US/TollFree.json?PageSize=2")]
    );
}

#[tokio::test]
async fn a_country_without_such_numbers_has_none_for_sale() {
    let carrier = StandIn::answering([Reply::error(404, 20404), Reply::error(404, 20404)]).await;
    assert_eq!(by_token(&carrier).search(&wanted(Some(NumberKind::Mobile))).await.unwrap(), []);
    assert_eq!(by_token(&carrier).search(&wanted(None)).await.unwrap(), []);
}

#[tokio::test]
async fn a_search_that_twilio_could_not_read_is_not_made() {
    let carrier = StandIn::answering([]).await;
    for search in [
        NumberSearch { country: "us".into(), ..wanted(None) },
        NumberSearch { country: "../Calls".into(), ..wanted(None) },
        NumberSearch { area_code: Some("(415)".into()), ..wanted(None) },
        NumberSearch { contains: Some("5".into()), ..wanted(None) },
        NumberSearch { contains: Some("555 0101".into()), ..wanted(None) },
    ] {
        let error = by_token(&carrier).search(&search).await.unwrap_err();
        assert!(matches!(error, CarrierError::NotAskable(_)), "{error}");
    }
    assert_eq!(carrier.lines(), [""; 0]);
}

#[tokio::test]
async fn own_numbers_are_read_over_all_pages_with_their_services() {
    let next = format!("{AC}/IncomingPhoneNumbers.json?PageSize=200&Page=1&PageToken=PAPN1");
    let other = |n: u8| json!({ "sid": format!("PN{n}"), "phone_number": format!("+1415555020{n}") });
    let first = json!({ "incoming_phone_numbers": [number(json!({})), { "sid": "PN0", "phone_number": "none" }], "next_page_uri": next });
    let services = json!([
        { "sid": "MG1", "use_inbound_webhook_on_number": true },
        { "sid": SERVICE, "use_inbound_webhook_on_number": false },
    ]);
    let members = json!([{ "sid": NUMBER }, { "sid": "PN9" }]);
    let carrier = StandIn::answering([
        Reply::ok(&first.to_string()),
        numbers(&[number(other(1)), number(other(2))]),
        listed("services", services),
        listed("phone_numbers", members),
    ])
    .await;
    let account = Account::Twilio(at_twilio(&carrier, token()));
    let owned = account.own_numbers(500).await.unwrap();
    let services: Vec<_> = owned
        .iter()
        .map(|number| (number.id.as_str(), number.routing.0["messaging_service_sid"].as_deref()))
        .collect();
    assert_eq!(services, [(NUMBER, Some(SERVICE)), ("PN1", None), ("PN2", None)]);
    let asked = carrier.asked();
    let asked: Vec<_> = asked.iter().map(|a| (a.host.split(':').next().unwrap(), a.line.as_str())).collect();
    let members = format!("GET /v1/Services/{SERVICE}/PhoneNumbers?PageSize=200");
    assert_eq!(
        asked,
        [
            ("api.twilio.com", format!("GET {AC}/IncomingPhoneNumbers.json?PageSize=200").as_str()),
            ("api.twilio.com", &format!("GET {next}")),
            ("messaging.twilio.com", "GET /v1/Services?PageSize=50"),
            ("messaging.twilio.com", &members),
        ]
    );
}

#[tokio::test]
async fn no_more_numbers_are_read_than_wanted() {
    let next = format!(r#"{AC}/IncomingPhoneNumbers.json?Page=1"#);
    let voice_only = |n: u8| number(json!({ "sid": n.to_string(), "capabilities": { "voice": true } }));
    let page = json!({ "incoming_phone_numbers": [voice_only(1), voice_only(2), voice_only(3)], "next_page_uri": next });
    let carrier = StandIn::answering([Reply::ok(&page.to_string())]).await;
    assert_eq!(by_token(&carrier).own_numbers(2).await.unwrap().len(), 2);
    assert_eq!(carrier.lines(), [format!("GET {AC}/IncomingPhoneNumbers.json?PageSize=2")]);
}

#[tokio::test]
async fn a_number_is_ours_only_by_all_its_digits() {
    let longer = number(json!({ "phone_number": "+141555501011", "sid": "PN2" }));
    let carrier = StandIn::answering([
        numbers(&[longer.clone(), number(json!({ "voice_url": "https://old.example" }))]),
        // The credentials may not see the messaging services.
        Reply::error(403, 70051),
        numbers(&[longer]),
    ])
    .await;
    let twilio = by_token(&carrier);
    let found = twilio.own_number(&e164()).await.unwrap().unwrap();
    assert_eq!(
        (found.id.as_str(), found.routing.0["voice_url"].as_deref()),
        (NUMBER, Some("https://old.example"))
    );
    assert_eq!(
        (found.routing.0["trunk_sid"].as_deref(), found.routing.0["sms_url"].as_deref()),
        (None, None)
    );
    assert!(!found.routing.0.contains_key("messaging_service_sid"), "it is not known");
    assert_eq!(twilio.own_number(&e164()).await.unwrap(), None);
    assert_eq!(carrier.lines()[0], format!("GET {AC}/IncomingPhoneNumbers.json?PhoneNumber=%2B14155550101"));
}

#[tokio::test]
async fn a_number_is_bought_and_configured_in_one_request() {
    let carrier = StandIn::answering([
        Reply::Say(201, number(json!({})).to_string()),
        Reply::error(400, 21422),
        Reply::Say(504, String::new()),
        Reply::Say(201, "{}".into()),
    ])
    .await;
    let twilio = by_token(&carrier);
    let routing = twilio.routing_to(&hooks(), "offhook").await.unwrap();
    let buy = async || twilio.buy(&e164(), &routing, "num_1").await;
    assert_eq!(buy().await.unwrap(), Bought::Done);
    let taken = buy().await.unwrap_err();
    assert!(matches!(taken, CarrierError::Refused { code: 21422, .. }), "{taken}");
    for _ in 0..2 {
        let unknown = buy().await.unwrap_err();
        assert!(matches!(unknown, CarrierError::OutcomeUnknown { .. }), "{unknown}");
    }
    let asked = carrier.asked();
    assert_eq!(asked[0].line, format!("POST {AC}/IncomingPhoneNumbers.json"));
    let url = |path: &str| format!("https://offhook.example/hooks/twilio/{path}");
    let expected = [
        ("PhoneNumber", "+14155550101".to_owned()),
        ("VoiceReceiveMode", "voice".into()),
        ("VoiceUrl", url("voice")),
        ("VoiceMethod", "POST".into()),
        ("VoiceFallbackUrl", url("voice")),
        ("VoiceFallbackMethod", "POST".into()),
        ("StatusCallback", url("status")),
        ("StatusCallbackMethod", "POST".into()),
        ("SmsUrl", url("messages")),
        ("SmsMethod", "POST".into()),
        ("SmsFallbackUrl", url("messages")),
        ("SmsFallbackMethod", "POST".into()),
    ];
    assert_eq!(form(&asked[0].body), expected.map(|(name, value)| (name.to_owned(), value)));
}

#[tokio::test]
async fn a_number_without_texts_keeps_its_text_settings() {
    let carrier = StandIn::answering([]).await;
    let routing =
        by_token(&carrier).routing_to(&OurHooks { messages: None, ..hooks() }, "offhook").await.unwrap();
    assert!(routing.0.keys().all(|name| !name.starts_with("sms") && !name.starts_with("messaging")));
}

#[tokio::test]
async fn a_number_is_pointed_to_us_from_under_trunk_and_app() {
    let ours = json!({
        "voice_url": "https://offhook.example/hooks/twilio/voice",
        "voice_fallback_url": "https://offhook.example/hooks/twilio/voice",
        "status_callback": "https://offhook.example/hooks/twilio/status",
        "sms_url": "https://offhook.example/hooks/twilio/messages",
        "sms_fallback_url": "https://offhook.example/hooks/twilio/messages",
    });
    let now = number(ours).to_string();
    let services = listed("services", json!([{ "sid": SERVICE }]));
    let member = Reply::ok(&json!({ "sid": NUMBER }).to_string());
    let carrier = StandIn::answering([Reply::ok(&now), Reply::ok(&now), services, member]).await;
    let twilio = by_token(&carrier);
    let routing = twilio.routing_to(&hooks(), "offhook").await.unwrap();
    let before = own_number(number(json!({ "trunk_sid": TRUNK })));
    let after = twilio.route(&before, &routing).await.unwrap();
    let form = fields(&carrier.asked()[0].body);
    for cleared in ["TrunkSid", "VoiceApplicationSid", "SmsApplicationSid"] {
        assert_eq!(form[cleared], "", "{cleared} would win over our address");
    }
    assert_eq!(form["VoiceReceiveMode"], "voice");
    assert_eq!(form.len(), 14);
    // The service is seen and left alone.
    let left: Vec<_> = routing.differs(&after.routing).collect();
    assert_eq!(left, [("messaging_service_sid", None, Some(SERVICE))]);
    let account = Account::Twilio(twilio);
    assert!(account.setting("messaging_service_sid").contains("service"));
}

#[tokio::test]
async fn a_number_is_given_back_exactly_and_what_went_with_the_trunk_is_set_again() {
    let before = json!({
        "voice_application_sid": "AP00000000000000000000000000000001", "voice_url": "https://old.example/v",
        "voice_method": "GET", "sms_url": "https://old.example/s", "sms_fallback_method": "GET",
    });
    let first = number(json!({ "voice_url": "https://old.example/v", "voice_method": "GET" })).to_string();
    let second = number(before.clone()).to_string();
    let replies = [&first, &first, &second, &second].map(|reply| Reply::ok(reply));
    let carrier = StandIn::answering(replies.into_iter().chain([no_services()])).await;
    let theirs = own_number(number(before));
    let after = by_token(&carrier).route(&theirs, &theirs.routing).await.unwrap();
    assert_eq!(theirs.routing.differs(&after.routing).count(), 0);
    let asked = carrier.asked();
    let form = fields(&asked[0].body);
    assert!(!form.contains_key("TrunkSid"), "emptied by name, it might take the app with it");
    assert_eq!((form["VoiceMethod"].as_str(), form["VoiceFallbackUrl"].as_str()), ("GET", ""));
    let again = fields(&asked[2].body);
    let names: Vec<_> = again.keys().map(String::as_str).collect();
    assert_eq!(names, ["SmsFallbackMethod", "SmsUrl", "VoiceApplicationSid"]);
}

#[tokio::test]
async fn what_cannot_be_set_is_told_and_not_tried_for_ever() {
    let stubborn = number(json!({ "trunk_sid": TRUNK })).to_string();
    let replies = std::iter::repeat_with(|| Reply::ok(&stubborn)).take(4).chain([no_services()]);
    let carrier = StandIn::answering(replies).await;
    let routing = Routing([("trunk_sid".to_owned(), None)].into());
    let after = by_token(&carrier).route(&own_number(number(json!({}))), &routing).await.unwrap();
    assert_eq!(routing.differs(&after.routing).collect::<Vec<_>>(), [("trunk_sid", None, Some(TRUNK))]);
    assert_eq!(carrier.lines().len(), 5);
}

#[tokio::test]
async fn a_number_is_released_once() {
    let carrier =
        StandIn::answering([Reply::gone(), Reply::error(404, 20404), Reply::Say(500, String::new())]).await;
    let (twilio, number) = (by_token(&carrier), own_number(number(json!({}))));
    twilio.release(&number).await.unwrap();
    twilio.release(&number).await.unwrap();
    let unknown = twilio.release(&number).await.unwrap_err();
    assert!(matches!(unknown, CarrierError::OutcomeUnknown { .. }), "{unknown}");
    assert_eq!(carrier.lines(), vec![format!("DELETE {AC}/IncomingPhoneNumbers/{NUMBER}.json"); 3]);
}

#[tokio::test]
async fn alerts_say_why_a_page_of_ours_was_not_asked() {
    let alert = |code: &str, at: &str| {
        json!({
            "sid": "NO1", "error_code": code, "alert_text": "Msg=about+14155550199", "log_level": "error",
            "request_url": "https://ada:word@offhook.example/hooks/twilio/voice", "resource_sid": "CA1", "date_generated": at,
        })
    };
    let alerts = json!([
        alert("11205", "2025-11-21T09:00:31Z"),
        alert("11200", "2025-11-21T09:00:32Z"),
        { "sid": "NO3", "error_code": "odd" },
    ]);
    let carrier = StandIn::answering([listed("alerts", alerts)]).await;
    let alerts = by_token(&carrier).alerts(1_763_715_600_000_000).await.unwrap();
    let read: Vec<_> = alerts.iter().map(|alert| (alert.code, alert.at_us)).collect();
    assert_eq!(
        read,
        [
            (Some(11200), Some(1_763_715_632_000_000)),
            (Some(11205), Some(1_763_715_631_000_000)),
            (None, None)
        ]
    );
    assert!(
        alerts[1].sentence.contains("could not connect") && !format!("{alerts:?}").contains("14155550199")
    );
    assert_eq!(carrier.lines(), ["GET /v1/Alerts?StartDate=2025-11-21T09%3A00%3A00Z&PageSize=100"]);
}
