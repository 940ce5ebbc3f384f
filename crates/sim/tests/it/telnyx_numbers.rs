//! The API of the simulated Telnyx beside calls: who may ask, what is refused, numbers and orders, and trouble on demand.

use offhook_sim::carrier::telnyx::{ApiKey, Area, OrderOutcome, RateLimit, Trouble};
use reqwest::Method;
use serde_json::{Value, json};

use crate::customer::LIMIT;
use crate::telnyx_customer::{
    APPLICATION, Api, Customer, NUMBER, VOICE_PROFILE, code, open, settings, start,
};

#[tokio::test]
async fn a_number_is_found_bought_and_led_here() {
    let customer = Customer::open().await;
    let mut settings = settings(&customer);
    settings.order_webhook_url = Some(customer.url("/orders"));
    settings.numbers_lag_ms = 300;
    let sim = start(settings).await;
    let api = Api::of(&sim);
    let found = api.get("/available_phone_numbers?filter[country_code]=US&filter[national_destination_code]=415&filter[features][]=voice&filter[features][]=sms&filter[limit]=2").await;
    assert_eq!((found.0, found.1["data"].as_array().unwrap().len()), (200, 2), "{found:?}");
    let wanted = found.1["data"][0]["phone_number"].clone();

    let order = json!({"phone_numbers": [{"phone_number": wanted}], "connection_id": APPLICATION, "customer_reference": "num_1"});
    let (status, ordered) = api.post("/number_orders", order.clone()).await;
    assert_eq!((status, &ordered["data"]["status"]), (200, &json!("pending")));
    let id = ordered["data"]["id"].as_str().unwrap().to_owned();
    assert_eq!(code(api.post("/number_orders", order).await), (422, "10002".into()));

    let told = customer.until_told("number_order.complete", 1).await;
    assert_eq!((told.path.as_str(), &told.payload()["status"]), ("/orders", &json!("success")));
    let (_, shown) = api.get(&format!("/number_orders/{id}")).await;
    assert_eq!(shown["data"]["phone_numbers"][0]["status"], "success");
    let (_, listed) = api.get("/number_orders?filter[customer_reference]=num_1").await;
    assert_eq!(listed["data"][0]["id"], id.as_str());

    let mine =
        format!("/phone_numbers?filter[phone_number]={}", wanted.as_str().unwrap().replace('+', "%2B"));
    assert_eq!(api.get(&mine).await.1["data"], json!([]), "it is shown late");
    let number = until_listed(&api, &mine).await;
    assert_eq!((&number["connection_id"], &number["status"]), (&json!(APPLICATION), &json!("active")));
    let id = number["id"].as_str().unwrap();
    assert!(id.parse::<u64>().unwrap() > 1 << 53);
    let (status, gone) = api.delete(&format!("/phone_numbers/{id}")).await;
    assert_eq!((status, &gone["data"]["status"]), (200, &json!("deleted")));
    assert_eq!(code(api.get(&format!("/phone_numbers/{id}")).await), (404, "10005".into()));
}

async fn until_listed(api: &Api, path: &str) -> Value {
    let asking = async {
        loop {
            let (_, listed) = api.get(path).await;
            if let Some(number) = listed["data"].get(0) {
                return number.clone();
            }
        }
    };
    tokio::time::timeout(LIMIT, asking).await.expect("it is never shown")
}

#[tokio::test]
async fn who_may_not_ask_is_told_in_one_of_three_ways() {
    let customer = Customer::open().await;
    let mut settings = settings(&customer);
    let key = "KEY_narrow".to_owned();
    settings.keys = vec![ApiKey {
        key: offhook_core::Secret::new(key.clone()),
        lacks: vec![Area::Balance, Area::Orders],
    }];
    let sim = start(settings).await;
    let mut api = Api::of(&sim);
    assert_eq!(api.get("/balance").await.1["data"]["currency"], "USD");
    let without = reqwest::Client::new().get(format!("{}/balance", sim.base_url())).send().await.unwrap();
    assert_eq!(without.status(), 404);
    assert_eq!(without.json::<Value>().await.unwrap()["errors"][0]["code"], "10005");

    sim.deny(&[Area::Messaging]);
    assert_eq!(code(api.get("/messaging_profiles?page[size]=1").await), (403, "10010".into()));
    assert_eq!(api.get("/call_control_applications?page[size]=1").await.0, 200);
    sim.deny(&[]);
    assert_eq!(api.get("/messaging_profiles?page[size]=1").await.0, 200);

    api.key = key;
    assert_eq!(code(api.get("/balance").await), (403, "10010".into()));
    assert_eq!(code(api.get("/number_orders").await), (403, "10010".into()));
    assert_eq!(api.get("/phone_numbers?page[size]=1").await.0, 200);
    assert_eq!(api.get("/outbound_voice_profiles?page[size]=1").await.1["data"][0]["id"], VOICE_PROFILE);
    api.key = "KEY_wrong".into();
    assert_eq!(code(api.get("/balance").await), (401, "10009".into()));
}

#[tokio::test]
async fn what_the_documents_do_not_name_is_refused() {
    let (sim, _customer, api) = open().await;
    for (path, status, expected) in [
        ("/phone_numbers?filter[number]=1", 400, "10015"),
        ("/phone_numbers?page[size]=251", 422, "10033"),
        ("/phone_numbers?page[size]=many", 422, "10026"),
        ("/balance?x=1", 400, "10015"),
        ("/available_phone_numbers?filter[best_effort]=perhaps", 422, "10026"),
        ("/phone_numbers/1", 404, "10005"),
        ("/nothing", 404, "10005"),
    ] {
        assert_eq!(code(api.get(path).await), (status, expected.into()), "{path}");
    }
    let number = api.get("/phone_numbers").await.1["data"][0]["id"].as_str().unwrap().to_owned();
    for (body, status, expected) in [
        (json!({"connection": "x"}), 400, "10015"),
        (json!({"connection_id": 2345678901234567890_u64}), 422, "10026"),
        (json!({"connection_id": "1"}), 422, "10017"),
        (json!({"tags": "x"}), 422, "10026"),
    ] {
        let answer = api.patch(&format!("/phone_numbers/{number}"), body).await;
        assert_eq!(code(answer), (status, expected.into()));
    }
    let form = reqwest::Client::new()
        .post(format!("{}/number_orders", sim.base_url()))
        .bearer_auth(&api.key)
        .form(&[("phone_numbers", "+14155550210")])
        .send();
    assert_eq!(form.await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_number_is_led_elsewhere_and_back() {
    let customer = Customer::open().await;
    let mut settings = settings(&customer);
    settings.connections = vec![("1111111111111111111".into(), "their trunk".into())];
    settings.numbers[0].connection = Some("1111111111111111111".into());
    let sim = start(settings).await;
    let api = Api::of(&sim);
    let (_, listed) = api.get("/phone_numbers?filter[phone_number]=%2B14155550101").await;
    let number = &listed["data"][0];
    assert_eq!(
        (&number["phone_number"], &number["connection_name"]),
        (&json!(NUMBER), &json!("their trunk"))
    );
    let path = format!("/phone_numbers/{}", number["id"].as_str().unwrap());

    let (status, profile) =
        api.post("/messaging_profiles", json!({"name": "ours", "whitelisted_destinations": ["US"]})).await;
    assert_eq!(status, 200);
    let profile = profile["data"]["id"].as_str().unwrap();
    let messaging = format!("{path}/messaging");
    let read = async |field: &str| api.get(&path).await.1["data"][field].clone();

    api.patch(&path, json!({"connection_id": APPLICATION, "tags": ["offhook"]})).await;
    assert_eq!(
        (read("connection_id").await, read("connection_name").await),
        (json!(APPLICATION), json!("ours"))
    );
    api.patch(&messaging, json!({"messaging_profile_id": profile})).await;
    assert_eq!(read("messaging_profile_name").await, "ours");
    api.patch(&messaging, json!({})).await;
    api.patch(&messaging, json!({"messaging_profile_id": null})).await;
    assert_eq!(api.get(&messaging).await.1["data"]["messaging_profile_id"], profile, "omitted and null keep");
    api.patch(&messaging, json!({"messaging_profile_id": ""})).await;
    assert_eq!(read("messaging_profile_id").await, Value::Null, "empty detaches");
    api.patch(&path, json!({"connection_id": "1111111111111111111"})).await;
    assert_eq!(
        (read("connection_id").await, read("tags").await),
        (json!("1111111111111111111"), json!(["offhook"]))
    );
    api.patch(&path, json!({"connection_id": null})).await;
    assert_eq!((read("connection_id").await, sim.leads_to(NUMBER)), (Value::Null, Some(None)));

    let screening =
        json!({"inbound_call_screening": "flag_calls", "call_forwarding": {"forwards_to": "+14155550111"}});
    let (_, voice) = api.patch(&format!("{path}/voice"), screening).await;
    assert_eq!(voice["data"]["call_forwarding"]["forwarding_type"], "always", "objects are changed by field");
    assert_eq!(read("inbound_call_screening").await, "flag_calls");
}

#[tokio::test]
async fn applications_are_made_found_changed_and_deleted() {
    let (sim, customer, api) = open().await;
    let order = json!({
        "application_name": "offhook con_1", "webhook_event_url": customer.url("/voice"), "webhook_api_version": "2",
        "first_command_timeout": true, "outbound": {"outbound_voice_profile_id": VOICE_PROFILE},
    });
    let (status, made) = api.post("/call_control_applications", order.clone()).await;
    assert_eq!((status, &made["data"]["outbound"]["channel_limit"]), (201, &Value::Null));
    let id = made["data"]["id"].as_str().unwrap();
    assert_eq!(code(api.post("/call_control_applications", order.clone()).await), (409, "10012".into()));
    let (_, found) = api.get("/call_control_applications?filter[application_name][contains]=con_1").await;
    assert_eq!((found["data"].as_array().unwrap().len(), &found["data"][0]["id"]), (1, &json!(id)));

    let path = format!("/call_control_applications/{id}");
    assert_eq!(code(api.patch(&path, json!({"active": false})).await), (422, "10004".into()));
    assert_eq!(api.patch(&path, order.clone()).await.0, 200, "its own name is not taken");
    let mut wrong = order;
    wrong["webhook_event_url"] = "offhook.example".into();
    assert_eq!(code(api.patch(&path, wrong.clone()).await), (422, "10003".into()));
    wrong["webhook_event_url"] = "https://offhook.example".into();
    wrong["outbound"]["outbound_voice_profile_id"] = "1".into();
    assert_eq!(code(api.patch(&path, wrong).await), (422, "10017".into()));

    sim.lead(NUMBER, Some(id));
    assert_eq!(api.delete(&path).await.0, 200);
    assert_eq!((sim.leads_to(NUMBER), api.get(&path).await.0), (Some(None), 404));
}

#[tokio::test]
async fn orders_fail_or_wait_for_documents_as_asked() {
    let (sim, _customer, api) = open().await;
    let order = |number: &str| json!({"phone_numbers": [{"phone_number": number}]});
    sim.orders_end(OrderOutcome::WaitsForRequirements);
    let (_, waiting) = api.post("/number_orders", order("+12125550210")).await;
    assert_eq!(waiting["data"]["phone_numbers"][0]["requirements_status"], "requirement-info-pending");
    sim.orders_end(OrderOutcome::Failure);
    let (_, failing) = api.post("/number_orders", order("+14155550210")).await;
    let path = format!("/number_orders/{}", failing["data"]["id"].as_str().unwrap());
    let asking = async { while api.get(&path).await.1["data"]["status"] != "failure" {} };
    tokio::time::timeout(LIMIT, asking).await.expect("it never fails");
    assert_eq!((sim.leads_to("+14155550210"), sim.leads_to("+12125550210")), (None, None));
    let (_, listed) = api.get("/number_orders?filter[status]=pending").await;
    assert_eq!(listed["data"][0]["id"], waiting["data"]["id"]);
    for (wanted, expected) in
        [(order("12"), "10016"), (json!({"phone_numbers": []}), "10004"), (json!({}), "10004")]
    {
        assert_eq!(code(api.post("/number_orders", wanted).await), (422, expected.into()));
    }
    sim.orders_end(OrderOutcome::Success);
    api.post("/number_orders", order("+14155550210")).await;
    until_listed(&api, "/phone_numbers?filter[phone_number]=%2B14155550210").await;
}

#[tokio::test]
async fn each_trouble_strikes_the_request_it_was_meant_for() {
    let (sim, _customer, api) = open().await;
    let taken = |sim: &offhook_sim::carrier::telnyx::TelnyxSim| sim.leads_to(NUMBER).flatten().is_none();
    let number = api.get("/phone_numbers").await.1["data"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/phone_numbers/{number}");
    for (trouble, status, done) in [
        (Trouble::ServerError, Some((500, "10007")), false),
        (Trouble::TooManyRequests, Some((429, "10011")), false),
        (Trouble::Cut, None, false),
        (Trouble::DoneThenCut, None, true),
        (Trouble::DoneThenServerError, Some((500, "10007")), true),
    ] {
        sim.lead(NUMBER, Some(APPLICATION));
        sim.trouble_next(trouble);
        let answer = api.try_ask(Method::PATCH, &path, Some(json!({"connection_id": ""}))).await;
        let expected = status.map(|(status, code)| (status, code.to_owned()));
        assert_eq!(answer.ok().map(code), expected, "{trouble:?}");
        assert_eq!(taken(&sim), done, "{trouble:?}");
        let record = sim.requests().pop().unwrap();
        assert_eq!((record.trouble, record.status), (Some(trouble), status.map(|(status, _)| status)));
    }
    for (trouble, done) in [(Trouble::NeverAnswers, false), (Trouble::DoneThenSilent, true)] {
        sim.lead(NUMBER, Some(APPLICATION));
        let number = sim.requests().len() + 2;
        sim.trouble_at(number, trouble);
        assert_eq!(api.get("/balance").await.0, 200, "the one before is served");
        let asking = api.try_ask(Method::PATCH, &path, Some(json!({"connection_id": ""})));
        assert!(tokio::time::timeout(std::time::Duration::from_millis(200), asking).await.is_err());
        assert_eq!(taken(&sim), done, "{trouble:?}");
    }
    let last = sim.requests().pop().unwrap();
    assert_eq!(
        (last.method.as_str(), last.path.as_str(), last.body),
        ("PATCH", path.as_str(), json!({"connection_id": ""}))
    );
    assert_eq!(last.number, sim.requests().len());
}

#[tokio::test]
async fn more_requests_than_the_limit_are_refused_until_the_window_is_over() {
    let customer = Customer::open().await;
    let mut settings = settings(&customer);
    settings.rate_limit = RateLimit { requests: 2, window_s: 1 };
    let sim = start(settings).await;
    let ask = async || {
        let url = format!("{}/balance", sim.base_url());
        let key = Api::of(&sim).key;
        reqwest::Client::new().get(url).bearer_auth(key).send().await.unwrap()
    };
    for left in ["1", "0"] {
        let answer = ask().await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["x-ratelimit-remaining"]),
            (200, &left.parse().unwrap())
        );
    }
    let refused = ask().await;
    assert_eq!(refused.status(), 429);
    assert_eq!(
        (&refused.headers()["x-ratelimit-limit"], &refused.headers()["x-ratelimit-reset"]),
        (&"2".parse().unwrap(), &"1".parse().unwrap())
    );
    assert_eq!(refused.json::<Value>().await.unwrap()["errors"][0]["code"], "10011");
    let asking = async { while ask().await.status() != 200 {} };
    tokio::time::timeout(LIMIT, asking).await.expect("the window never ends");
}

#[tokio::test]
async fn filters_find_what_they_are_documented_to_find() {
    let customer = Customer::open().await;
    let mut settings = settings(&customer);
    settings.number_filter_takes_plus = false;
    let sim = start(settings).await;
    let api = Api::of(&sim);
    let count = async |path: &str| {
        let (status, found) = api.get(path).await;
        assert_eq!(status, 200, "{path}: {found}");
        found["data"].as_array().unwrap().len()
    };
    for (filter, found) in [
        ("filter[phone_number]=14155550101", 1),
        ("filter[phone_number]=4155550", 1),
        ("filter[phone_number]=%2B14155550101", 0),
        ("filter[phone_number]=415-555", 0),
        ("filter[connection_id]=1", 0),
        ("filter[without_tags]=true", 1),
        ("filter[voice.connection_name][contains]=our", 1),
    ] {
        assert_eq!(count(&format!("/phone_numbers?{filter}")).await, found, "{filter}");
    }
    assert_eq!(code(api.get("/phone_numbers?filter[phone_number]=41").await), (400, "10015".into()));
    for (filter, found) in [
        ("filter[national_destination_code]=212", 1),
        ("filter[locality]=san%20francisco", 5),
        ("filter[phone_number][starts_with]=415", 5),
        ("filter[national_destination_code]=415&filter[phone_number][starts_with]=415", 0),
        ("filter[national_destination_code]=415&filter[phone_number][starts_with]=555", 5),
        ("filter[phone_number][ends_with]=0212", 1),
        ("filter[features]=voice,fax", 0),
        ("filter[country_code]=GB", 0),
    ] {
        assert_eq!(count(&format!("/available_phone_numbers?{filter}")).await, found, "{filter}");
    }
}
