//! What the log says while requests are answered: nobody's number, nobody's key.

use crate::house::House;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use offhook_core::entity::Role;
use serde_json::{Value, json};

const NUMBER: &str = "+14155559876";
const SECRET: &str = "sk-0123456789abcdef";

#[tokio::test]
async fn neither_numbers_nor_secrets_are_logged() {
    let house = House::sqlite().await;
    let key = house.key(Role::Owner).to_owned();

    let new = json!({ "kind": "openai", "name": "models", "secret": SECRET, "config": { "base_url": "http://127.0.0.1:9" } });
    let connection = house.post("/api/connections", new.clone()).await.id();
    house.post("/api/connections", new).await;
    house.post(&format!("/api/connections/{connection}/check"), json!({})).await;
    let line = house.connection("line").await;
    let number = json!({ "connection": line, "e164": NUMBER, "forward_to": NUMBER, "name": NUMBER });
    house.post("/api/phone-numbers", number.clone()).await.id();
    house.post("/api/phone-numbers", number).await;
    house.post("/api/phone-numbers", json!({ "connection": NUMBER, "e164": SECRET })).await;
    house.get(&format!("/api/calls?limit={NUMBER}&after={SECRET}")).await;
    house.get(&format!("/api/agents/{NUMBER}")).await;
    house.get(&format!("/{SECRET}")).await;
    let webhook = Request::post("/hooks/twilio/voice?From=%2B14155559876")
        .header("content-type", "application/x-www-form-urlencoded");
    let webhook = webhook
        .body(Body::from(
            "AccountSid=AC00000000000000000000000000000001&CallSid=CA1&From=%2B14155559876&To=%2B14155559876",
        ))
        .unwrap();
    assert_eq!(house.ask(webhook).await.status, StatusCode::FORBIDDEN);
    let twin = house.send(Method::DELETE, &format!("/api/connections/{line}"), Some(&key), None).await;
    assert!(twin.text().contains(NUMBER), "who asks is told which number it is");

    let log = crate::house::log();
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert!(
        log.contains("Request answered")
            && log.contains("/api/phone-numbers")
            && log.contains("Webhook refused")
    );
    for hidden in [NUMBER, NUMBER.trim_start_matches('+'), SECRET, key.as_str()] {
        let line = log.lines().find(|line| line.contains(hidden));
        assert_eq!(line, None, "{hidden} is in the log");
    }
}
