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
