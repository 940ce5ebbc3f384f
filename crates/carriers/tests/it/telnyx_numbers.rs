//! Numbers at Telnyx: found, ordered, moved to our application and back.

use crate::stand_in::{Reply, StandIn};
use crate::telnyx_account::{
    APPLICATION, NUMBER, ORDER, OTHER_APPLICATION, OTHER_PROFILE, PROFILE, application, asked, body, data,
    listed, no_forwarding, number, page, profile, refused, telnyx, texts, voice,
};
use offhook_carriers::telnyx::Telnyx;
use offhook_carriers::{Bought, CarrierError, NumberKind, NumberSearch, OurHooks, OwnNumber, Price, Routing};
use offhook_core::entity::Capability;
use serde_json::{Value, json};

#[tokio::test]
async fn numbers_are_searched_by_place_and_by_what_they_can() {
    let carrier =
        StandIn::answering([data(json!([available("+14155550101"), available("no number")]))]).await;
    let found = telnyx(&carrier).search(&wanted()).await.unwrap();
    assert_eq!(found.len(), 1);
    let number = &found[0];
    assert_eq!(
        (number.e164.as_str(), number.kind, number.country.as_str()),
        ("+14155550101", NumberKind::Local, "US")
    );
    assert_eq!((number.locality.as_deref(), number.region.as_deref()), (Some("SAN FRANCISCO"), Some("CA")));
    assert_eq!(number.capabilities, [Capability::Voice, Capability::Sms]);
    assert_eq!(number.monthly, Some(Price { micros: 1_000_000, currency: "USD".into() }));
    assert_eq!(number.upfront, Some(Price { micros: 3_210_000, currency: "USD".into() }));
    assert!(!number.needs_papers);
    let query = "filter[country_code]=US&filter[national_destination_code]=415&filter[phone_number][contains]=555\
                 &filter[locality]=San Francisco&filter[administrative_area]=CA&filter[features][]=voice&filter[features][]=sms\
                 &filter[best_effort]=false&filter[phone_number_type]=local&filter[limit]=20";
    assert_eq!(asked(&carrier), [format!("GET /available_phone_numbers?{query}")]);
}

#[tokio::test]
async fn any_kind_of_number_is_looked_for_where_none_is_named() {
    let carrier = StandIn::answering([
        data(json!([available("+4930123456")])),
        data(json!([{"regulatory_requirements": [{"name": "Proof of address"}]}])),
        refused(422, "10027"),
        refused(404, "10005"),
        data(json!([])),
        data(json!([available("+49180123456")])),
        refused(403, "10010"),
    ])
    .await;
    let found = telnyx(&carrier).search(&NumberSearch { limit: 2, ..plain("DE") }).await.unwrap();
    let found: Vec<_> = found.iter().map(|n| (n.e164.as_str(), n.kind, n.needs_papers)).collect();
    assert_eq!(
        found,
        [("+4930123456", NumberKind::Local, true), ("+49180123456", NumberKind::SharedCost, false)]
    );
    let search = |kind| {
        format!(
            "GET /available_phone_numbers?filter[country_code]=DE&filter[phone_number_type]={kind}&filter[limit]=1"
        )
    };
    let papers = |kind| {
        format!(
            "GET /regulatory_requirements?filter[country_code]=DE&filter[phone_number_type]={kind}&filter[action]=ordering"
        )
    };
    assert_eq!(
        asked(&carrier),
        [
            search("local"),
            papers("local"),
            search("mobile"),
            search("toll_free"),
            search("national"),
            search("shared_cost"),
            papers("shared_cost"),
        ]
    );
}

#[tokio::test]
async fn a_search_that_is_refused_says_why_and_one_that_cannot_be_asked_is_not() {
    let carrier = StandIn::answering([refused(422, "10015")]).await;
    let error = telnyx(&carrier).search(&wanted()).await.unwrap_err();
    assert!(matches!(error, CarrierError::Refused { code: 10015, .. }), "{error}");
    let carrier = StandIn::answering([]).await;
    for bad in [
        NumberSearch { country: "us".into(), ..wanted() },
        NumberSearch { area_code: Some("4x5".into()), ..wanted() },
        NumberSearch { contains: Some("*".into()), ..wanted() },
    ] {
        let error = telnyx(&carrier).search(&bad).await.unwrap_err();
        assert!(matches!(error, CarrierError::NotAskable(_)), "{error}");
    }
    let voip = NumberSearch { kind: Some(NumberKind::Voip), ..wanted() };
    assert_eq!(telnyx(&carrier).search(&voip).await.unwrap(), [], "Telnyx has no such kind");
    assert!(asked(&carrier).is_empty());
}

#[tokio::test]
async fn own_numbers_are_listed_over_all_pages_with_where_they_lead() {
    let other = json!({"id": "1293384261075731500", "phone_number": "+14155550102", "connection_id": "", "messaging_profile_id": ""});
    let going = json!({"id": "1293384261075731501", "phone_number": "+14155550103", "status": "ported-out"});
    let forwarding =
        json!({"call_forwarding_enabled": true, "forwards_to": "+14155550199", "forwarding_type": "always"});
    let carrier = StandIn::answering([
        page(&vec![number(json!({"messaging_profile_id": OTHER_PROFILE})); 250], 2),
        page(&[number(other), number(going)], 2),
        listed(&[voice(forwarding)]),
        listed(&[texts(json!(OTHER_PROFILE))]),
        listed(&[application(json!({"id": OTHER_APPLICATION, "webhook_event_url": "https://pbx/v", "webhook_event_failover_url": ""}))]),
        listed(&[profile(json!({"id": OTHER_PROFILE, "webhook_url": "https://pbx/m"}))]),
    ])
    .await;
    let numbers = telnyx(&carrier).own_numbers(usize::MAX).await.unwrap();
    assert_eq!(numbers.len(), 251);
    assert_eq!(
        settings(&numbers[0]),
        [
            ("call_forwarding", Some("always +14155550199")),
            ("connection_id", Some(OTHER_APPLICATION)),
            ("messaging_profile_id", Some(OTHER_PROFILE)),
            ("messaging_webhook_url", Some("https://pbx/m")),
            ("webhook_event_failover_url", None),
            ("webhook_event_url", Some("https://pbx/v")),
        ]
    );
    assert_eq!(numbers[0].capabilities, [Capability::Voice, Capability::Sms]);
    assert_eq!(
        (numbers[250].e164.as_str(), &numbers[250].capabilities[..]),
        ("+14155550102", &[Capability::Voice][..])
    );
    assert!(
        !numbers[250].routing.0.contains_key("call_forwarding"),
        "it was not among those that could be seen"
    );
    assert_eq!(
        asked(&carrier),
        [
            "GET /phone_numbers?page[number]=1&page[size]=250",
            "GET /phone_numbers?page[number]=2&page[size]=250",
            "GET /phone_numbers/voice?page[number]=1&page[size]=250",
            "GET /phone_numbers/messaging?page[number]=1&page[size]=250",
            "GET /call_control_applications?page[number]=1&page[size]=250",
            "GET /messaging_profiles?page[number]=1&page[size]=250",
        ]
    );
}

#[tokio::test]
async fn a_key_without_texts_still_sees_the_numbers() {
    let carrier = StandIn::answering([
        listed(&[number(json!({"messaging_profile_id": OTHER_PROFILE}))]),
        refused(403, "10010"),
        refused(403, "10010"),
        refused(403, "10010"),
        refused(403, "10010"),
    ])
    .await;
    let numbers = telnyx(&carrier).own_numbers(10).await.unwrap();
    assert_eq!(
        numbers[0].capabilities,
        [Capability::Voice, Capability::Sms],
        "a number of a profile can text"
    );
    let carrier = StandIn::answering([
        listed(&[number(json!({}))]),
        Reply::Say(500, "".into()),
        Reply::Say(500, "".into()),
    ])
    .await;
    let error = telnyx(&carrier).own_numbers(10).await.unwrap_err();
    assert!(
        matches!(error, CarrierError::Unreachable { .. }),
        "what was not learnt must not look like nothing: {error}"
    );
}

#[tokio::test]
async fn one_number_is_found_among_those_that_it_is_a_part_of() {
    let longer = number(json!({"id": "1", "phone_number": "+141555501019"}));
    let carrier = StandIn::answering([
        listed(&[longer, number(json!({}))]),
        data(voice(no_forwarding())),
        data(texts(json!(null))),
        data(application(json!({"id": OTHER_APPLICATION, "webhook_event_url": "https://pbx/v"}))),
    ])
    .await;
    let found = telnyx(&carrier).own_number(&e164()).await.unwrap().unwrap();
    assert_eq!(
        (found.id.as_str(), found.routing.0["webhook_event_url"].as_deref()),
        (NUMBER, Some("https://pbx/v"))
    );
    assert_eq!(found.routing.0["call_forwarding"], None, "switched on without a number it does nothing");
    assert_eq!(
        asked(&carrier),
        [
            "GET /phone_numbers?filter[phone_number]=14155550101&page[number]=1&page[size]=250".to_owned(),
            format!("GET /phone_numbers/{NUMBER}/voice"),
            format!("GET /phone_numbers/{NUMBER}/messaging"),
            format!("GET /call_control_applications/{OTHER_APPLICATION}"),
        ]
    );
    for gone in [listed(&[]), listed(&[number(json!({"status": "purchase-pending"}))])] {
        let carrier = StandIn::answering([gone]).await;
        assert_eq!(telnyx(&carrier).own_number(&e164()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_number_that_leads_to_a_sip_connection_has_no_addresses() {
    let carrier = StandIn::answering([
        listed(&[number(json!({}))]),
        data(voice(no_forwarding())),
        refused(404, "10005"),
        refused(404, "10005"),
    ])
    .await;
    let found = telnyx(&carrier).own_number(&e164()).await.unwrap().unwrap();
    assert_eq!(found.capabilities, [Capability::Voice]);
    assert_eq!(found.routing.0["connection_id"].as_deref(), Some(OTHER_APPLICATION));
    assert_eq!(found.routing.0["webhook_event_url"], None);
}

#[tokio::test]
async fn a_number_is_ordered_with_where_it_is_to_lead() {
    for (status, outcome) in [("success", Bought::Done), ("pending", Bought::Ordered { order: ORDER.into() })]
    {
        let carrier = StandIn::answering([data(order(status))]).await;
        assert_eq!(telnyx(&carrier).buy(&e164(), &ours(), "ws_1/num_1").await.unwrap(), outcome);
        assert_eq!(asked(&carrier), ["POST /number_orders"]);
        assert_eq!(
            body(&carrier, 0),
            json!({
                "phone_numbers": [{"phone_number": "+14155550101"}], "customer_reference": "ws_1/num_1",
                "connection_id": APPLICATION, "messaging_profile_id": PROFILE,
            })
        );
    }
    let carrier = StandIn::answering([data(order("failure"))]).await;
    assert!(matches!(telnyx(&carrier).order(ORDER).await.unwrap(), Bought::Failed { .. }));
    assert_eq!(asked(&carrier), [format!("GET /number_orders/{ORDER}")]);
}

#[tokio::test]
async fn an_order_of_unknown_outcome_is_found_by_its_reference_and_not_placed_twice() {
    let failed = json!({"id": "f", "status": "failure", "customer_reference": "ws_1/num_1"});
    let longer = json!({"id": "l", "status": "success", "customer_reference": "ws_1/num_10"});
    for reply in [Reply::Say(500, String::new()), Reply::ok("{"), Reply::Silence] {
        let carrier =
            StandIn::answering([reply, listed(&[failed.clone(), longer.clone(), order("pending")])]).await;
        let telnyx = telnyx(&carrier).with_timeout(std::time::Duration::from_millis(200));
        let error = telnyx.buy(&e164(), &ours(), "ws_1/num_1").await.unwrap_err();
        assert!(matches!(error, CarrierError::OutcomeUnknown { .. }), "{error}");
        assert_eq!(telnyx.order_of("ws_1/num_1").await.unwrap().as_deref(), Some(ORDER));
        let look = "GET /number_orders?filter[customer_reference]=ws_1/num_1&page[number]=1&page[size]=250";
        assert_eq!(asked(&carrier), ["POST /number_orders", look]);
    }
    let carrier = StandIn::answering([listed(&[])]).await;
    assert_eq!(telnyx(&carrier).order_of("ws_1/num_1").await.unwrap(), None);
}

#[tokio::test]
async fn a_number_is_moved_here_texts_first_and_read_back() {
    let carrier = StandIn::answering([
        data(texts(json!(PROFILE))),
        data(voice(no_forwarding())),
        data(number(json!({"connection_id": APPLICATION}))),
        data(here()),
        data(voice(no_forwarding())),
        data(texts(json!(PROFILE))),
        data(application(json!({}))),
        data(profile(json!({}))),
    ])
    .await;
    let now = telnyx(&carrier).route(&own(), &ours()).await.unwrap();
    assert_eq!(ours().differs(&now.routing).count(), 0, "{now:?}");
    assert_eq!(
        asked(&carrier),
        [
            format!("PATCH /phone_numbers/{NUMBER}/messaging"),
            format!("GET /phone_numbers/{NUMBER}/voice"),
            format!("PATCH /phone_numbers/{NUMBER}"),
            format!("GET /phone_numbers/{NUMBER}"),
            format!("GET /phone_numbers/{NUMBER}/voice"),
            format!("GET /phone_numbers/{NUMBER}/messaging"),
            format!("GET /call_control_applications/{APPLICATION}"),
            format!("GET /messaging_profiles/{PROFILE}"),
        ]
    );
    assert_eq!(body(&carrier, 0), json!({"messaging_profile_id": PROFILE}));
    assert_eq!(body(&carrier, 2), json!({"connection_id": APPLICATION}));
}

#[tokio::test]
async fn a_number_is_given_back_as_it_was_found() {
    let forwarding = json!({"call_forwarding_enabled": true, "forwards_to": "+14155550199", "forwarding_type": "on-failure"});
    let before = routing(&[
        ("connection_id", Some(OTHER_APPLICATION)),
        ("messaging_profile_id", None),
        ("call_forwarding", Some("on-failure +14155550199")),
        ("webhook_event_url", Some("https://pbx/v")),
    ]);
    let switched_off = json!({"call_forwarding_enabled": false, "forwards_to": "+14155550199", "forwarding_type": "on-failure"});
    let carrier = StandIn::answering([
        data(texts(json!(null))),
        data(voice(switched_off.clone())),
        data(voice(forwarding.clone())),
        data(number(json!({}))),
        data(number(json!({}))),
        data(voice(forwarding.clone())),
        data(texts(json!(null))),
        data(application(json!({"id": OTHER_APPLICATION, "webhook_event_url": "https://pbx/v"}))),
    ])
    .await;
    let now = telnyx(&carrier).route(&own(), &before).await.unwrap();
    assert_eq!(before.differs(&now.routing).count(), 0, "{now:?}");
    assert_eq!(body(&carrier, 0), json!({"messaging_profile_id": ""}));
    assert_eq!(body(&carrier, 2), json!({"call_forwarding": forwarding.clone()}));
    assert_eq!(body(&carrier, 3), json!({"connection_id": OTHER_APPLICATION}));
    asked(&carrier);
    // And the way here: what is in force is switched off, and its number kept.
    let only = routing(&[("call_forwarding", None)]);
    let carrier = StandIn::answering([
        data(voice(forwarding)),
        data(voice(switched_off.clone())),
        data(number(json!({}))),
        data(voice(switched_off)),
        data(texts(json!(null))),
        refused(404, "10005"),
    ])
    .await;
    telnyx(&carrier).route(&own(), &only).await.unwrap();
    assert_eq!(body(&carrier, 1), json!({"call_forwarding": {"call_forwarding_enabled": false}}));
    assert!(
        !asked(&carrier).contains(&format!("PATCH /phone_numbers/{NUMBER}")),
        "only what is named is set"
    );
}

#[tokio::test]
async fn a_number_that_is_slow_to_show_its_setting_is_read_again_and_one_that_refuses_it_is_told() {
    let read = |connection: &str| {
        [
            data(number(json!({"connection_id": connection}))),
            data(voice(no_forwarding())),
            data(texts(json!(null))),
            refused(404, "10005"),
        ]
    };
    let wanted = routing(&[("connection_id", Some(APPLICATION))]);
    let set = || [data(number(json!({})))];
    let carrier =
        StandIn::answering(set().into_iter().chain(read(OTHER_APPLICATION)).chain(read(APPLICATION))).await;
    let now = telnyx(&carrier).route(&own(), &wanted).await.unwrap();
    assert_eq!(now.routing.0["connection_id"].as_deref(), Some(APPLICATION));
    let never = std::iter::repeat_with(|| read(OTHER_APPLICATION)).take(3).flatten();
    let carrier = StandIn::answering(set().into_iter().chain(never)).await;
    let now = telnyx(&carrier).route(&own(), &wanted).await.unwrap();
    let differs: Vec<_> = wanted.differs(&now.routing).collect();
    assert_eq!(differs, [("connection_id", Some(APPLICATION), Some(OTHER_APPLICATION))]);
    assert!(Telnyx::setting("connection_id").contains("application"));
}

#[tokio::test]
async fn a_number_without_texts_is_moved_all_the_same() {
    let carrier = StandIn::answering([
        refused(404, "10005"),
        data(number(json!({"connection_id": APPLICATION}))),
        data(number(json!({"connection_id": APPLICATION}))),
        data(voice(no_forwarding())),
        refused(404, "10005"),
        data(application(json!({}))),
    ])
    .await;
    let wanted = routing(&[("connection_id", Some(APPLICATION)), ("messaging_profile_id", Some(PROFILE))]);
    let now = telnyx(&carrier).route(&own(), &wanted).await.unwrap();
    let differs: Vec<_> = wanted.differs(&now.routing).map(|(name, ..)| name).collect();
    assert_eq!(differs, ["messaging_profile_id"]);
}

#[tokio::test]
async fn a_number_is_released_once() {
    let carrier = StandIn::answering([
        data(number(json!({"status": "deleted"}))),
        refused(404, "10005"),
        refused(422, "10021"),
    ])
    .await;
    let telnyx = telnyx(&carrier);
    telnyx.release(&own()).await.unwrap();
    telnyx.release(&own()).await.unwrap();
    assert!(matches!(telnyx.release(&own()).await, Err(CarrierError::Refused { code: 10021, .. })));
    assert_eq!(asked(&carrier), vec![format!("DELETE /phone_numbers/{NUMBER}"); 3]);
}

pub fn wanted() -> NumberSearch {
    NumberSearch {
        kind: Some(NumberKind::Local),
        area_code: Some("415".into()),
        locality: Some("San Francisco".into()),
        region: Some("CA".into()),
        contains: Some("555".into()),
        capabilities: vec![Capability::Voice, Capability::Sms],
        limit: 20,
        ..plain("US")
    }
}

fn plain(country: &str) -> NumberSearch {
    NumberSearch {
        country: country.into(),
        kind: None,
        area_code: None,
        locality: None,
        region: None,
        contains: None,
        capabilities: vec![],
        limit: 20,
    }
}

pub fn available(number: &str) -> Value {
    let region = |kind: &str, name: &str| json!({"region_type": kind, "region_name": name});
    let place = if number.starts_with("+1") {
        json!([
            region("country_code", "US"),
            region("rate_center", "SNFC CNTRL"),
            region("state", "CA"),
            region("location", "SAN FRANCISCO")
        ])
    } else {
        json!([])
    };
    json!({
        "record_type": "available_phone_number", "phone_number": number, "best_effort": false, "quickship": true, "reservable": true,
        "region_information": place, "features": [{"name": "sms"}, {"name": "voice"}, {"name": "fax"}],
        "cost_information": {"upfront_cost": "3.21", "monthly_cost": "1.000", "currency": "USD"},
    })
}

pub fn hooks() -> OurHooks {
    let page = |name: &str| format!("https://offhook.example/hooks/telnyx/{name}").parse().unwrap();
    OurHooks {
        voice: page("voice"),
        voice_fallback: page("fallback"),
        status: page("status"),
        messages: Some(page("messages")),
    }
}

/// Where a number leads that is ours.
pub fn ours() -> Routing {
    routing(&[
        ("call_forwarding", None),
        ("connection_id", Some(APPLICATION)),
        ("messaging_profile_id", Some(PROFILE)),
        ("messaging_webhook_url", Some("https://offhook.example/hooks/telnyx/messages")),
        ("webhook_event_failover_url", Some("https://offhook.example/hooks/telnyx/fallback")),
        ("webhook_event_url", Some("https://offhook.example/hooks/telnyx/voice")),
    ])
}

pub fn routing(settings: &[(&str, Option<&str>)]) -> Routing {
    Routing(settings.iter().map(|(name, value)| ((*name).into(), value.map(Into::into))).collect())
}

/// The number before it is moved.
pub fn own() -> OwnNumber {
    OwnNumber {
        id: NUMBER.into(),
        e164: e164(),
        capabilities: vec![Capability::Voice],
        routing: routing(&[("connection_id", Some(OTHER_APPLICATION))]),
    }
}

pub fn here() -> Value {
    number(json!({"connection_id": APPLICATION, "messaging_profile_id": PROFILE}))
}

pub fn order(status: &str) -> Value {
    json!({
        "id": ORDER, "record_type": "number_order", "status": status, "customer_reference": "ws_1/num_1", "requirements_met": true,
        "phone_numbers": [{"phone_number": "+14155550101", "status": status, "requirements_status": "approved"}],
    })
}

pub fn e164() -> offhook_core::E164 {
    "+14155550101".parse().unwrap()
}

fn settings(number: &OwnNumber) -> Vec<(&str, Option<&str>)> {
    number.routing.0.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect()
}
