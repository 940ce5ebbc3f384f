//! Connections over the API: made, changed, tried out, and their secrets never seen again.

use crate::house::House;
use axum::http::StatusCode;
use expect_test::expect;
use offhook_sim::carrier::twilio::{AccountStatus, RestFaults, TwilioSettings, TwilioSim};
use offhook_sim::provider::{ProviderSim, ProviderSimSettings};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

on_both!(a_connection_is_made_changed_listed_and_removed, a_secret_goes_in_and_never_comes_out);

async fn a_connection_is_made_changed_listed_and_removed(house: House) {
    let new = json!({
        "kind": "twilio", "name": "Main line", "account": "AC00000000000000000000000000000001", "secret": "the auth token",
        "config": { "api_base": "http://127.0.0.1:9/one" },
    });
    let made = house.post("/api/connections", new).await;
    made.check(&expect![[r#"
        201 Created
        {
          "account": "AC00000000000000000000000000000001",
          "checked_at": "<time>",
          "config": {
            "api_base": "http://127.0.0.1:9/one"
          },
          "created_at": "<time>",
          "id": "con_…",
          "kind": "twilio",
          "name": "Main line",
          "revision": 1,
          "secret": "••••",
          "status": "error",
          "status_reason": "the carrier cannot be reached: it did not answer; check the network between here and the carrier",
          "updated_at": "<time>"
        }
    "#]]);
    let path = format!("/api/connections/{}", made.id());
    let changed =
        house.patch(&path, json!({ "name": "Second line", "config": { "api_base": "http://127.0.0.1:9" }, "secret": "the other token" })).await;
    changed.check(&expect![[r#"
        200 OK
        {
          "account": "AC00000000000000000000000000000001",
          "checked_at": "<time>",
          "config": {
            "api_base": "http://127.0.0.1:9"
          },
          "created_at": "<time>",
          "id": "con_…",
          "kind": "twilio",
          "name": "Second line",
          "revision": 2,
          "secret": "••••",
          "status": "error",
          "status_reason": "the carrier cannot be reached: it did not answer; check the network between here and the carrier",
          "updated_at": "<time>"
        }
    "#]]);
    assert_eq!(house.get(&path).await.json(), changed.json());
    assert_eq!(house.get("/api/connections").await.json()["items"], json!([changed.json()]));

    house.post("/api/phone-numbers", json!({ "connection": made.id(), "e164": "+14155550100" })).await.id();
    house.delete(&path).await.check(&expect![[r#"
        409 Conflict
        {
          "detail": "con_…: these lines would go offline: +14155550100",
          "fix": "if that is wanted, delete it with `?take_offline=true`: their webhooks are given back first",
          "status": 409,
          "title": "It does not go with what is there",
          "type": "urn:offhook:problem:conflict"
        }
    "#]]);
    let number = house.get("/api/phone-numbers").await.json()["items"][0]["id"].as_str().unwrap().to_owned();
    house.delete(&format!("/api/phone-numbers/{number}")).await;
    assert_eq!(house.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(house.get(&path).await.status, StatusCode::NOT_FOUND);
}

async fn a_secret_goes_in_and_never_comes_out(house: House) {
    const FIRST: &str = "0123456789abcdef-first";
    const SECOND: &str = "fedcba9876543210-second";
    let new = json!({ "kind": "openai", "name": "models", "secret": FIRST, "config": { "base_url": "http://127.0.0.1:9" } });
    let made = house.post("/api/connections", new.clone()).await;
    let path = format!("/api/connections/{}", made.id());
    let seen = [
        made,
        house.post("/api/connections", new).await,
        house.patch(&path, json!({ "secret": SECOND })).await,
        house.patch(&path, json!({ "secret": SECOND, "revision": 1 })).await,
        house.post(&format!("{path}/check"), json!({})).await,
        house.get(&path).await,
        house.get("/api/connections").await,
    ];
    for answer in seen {
        let (text, headers) = (answer.text(), format!("{:?}", answer.headers));
        for secret in [FIRST, SECOND, "first", "second", "cdef"] {
            assert!(!text.contains(secret) && !headers.contains(secret), "{answer:?}");
        }
    }
    let id = path.rsplit('/').next().unwrap().parse().unwrap();
    let kept = house.app.store.connection_secret(&house.scope(), &id).await.unwrap();
    assert_eq!(kept.expose(), SECOND);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_before_they_are_stored() {
    let house = House::sqlite().await;
    let wrong = |kind: &str, config: Value| json!({ "kind": kind, "name": "x", "account": "AC00000000000000000000000000000001", "config": config });
    house.post("/api/connections", wrong("carrier-pigeon", json!({}))).await.check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "kind: `carrier-pigeon` is neither a carrier nor a provider",
          "fix": "correct `kind` and send the request again",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
    house.post("/api/connections", wrong("twilio", json!({ "region": "ie1" }))).await.check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "config: region and edge are given together or not at all",
          "fix": "correct `config` and send the request again",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
    house.post("/api/connections", wrong("deepgram", json!({ "modle": "nova-3" }))).await.check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "config: unknown field `modle`, expected one of `base_url`, `model`, `voice`, `headers`, `options`, `connect_timeout_ms`, `first_byte_timeout_ms`, `idle_timeout_ms`",
          "fix": "correct `config` and send the request again",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
    house.post("/api/connections", json!({ "kind": "twilio", "name": "x" })).await.check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "account: a carrier's connection needs the id of the account there",
          "fix": "correct `account` and send the request again",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
    assert_eq!(house.get("/api/connections").await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_secret_does_not_follow_a_connection_to_another_host() {
    let house = House::sqlite().await;
    let elsewhere = ProviderSim::start(ProviderSimSettings::default()).await.unwrap();
    let thief = json!({ "base_url": format!("{}/v1", elsewhere.base_url) });
    let new = json!({ "kind": "openai", "name": "models", "secret": "sk-right" });
    let path = format!("/api/connections/{}", house.post("/api/connections", new).await.id());
    house.patch(&path, json!({ "config": thief })).await.check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "con_…: secret: the connection would lead to another host, and the secret was given for the one before: send it again with the change",
          "fix": "correct `secret` and send the request again",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
    assert_eq!(house.get(&path).await.json()["config"], json!({}));
    let moved = house.patch(&path, json!({ "config": thief, "secret": "sk-other" })).await;
    assert_eq!(moved.status, StatusCode::OK);
    let same_host = json!({ "base_url": format!("{}/v2", elsewhere.base_url), "model": "m" });
    assert_eq!(house.patch(&path, json!({ "config": same_host })).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_api_key_does_not_follow_a_connection_to_another_host_beside_a_new_token() {
    let house = House::sqlite().await;
    let settings = TwilioSettings::default();
    let (account, token) = (settings.account_sid.clone(), settings.auth_token.expose().clone());
    let carrier = TwilioSim::start((Ipv4Addr::LOCALHOST, 0).into(), settings).await.unwrap();
    let elsewhere =
        TwilioSim::start((Ipv4Addr::LOCALHOST, 0).into(), TwilioSettings::default()).await.unwrap();
    let new = json!({
        "kind": "twilio", "name": "line", "account": account, "secret": token, "config": { "api_base": carrier.base_url() },
        "api_key": { "sid": "SK00000000000000000000000000000001", "secret": "the key's own" },
    });
    let path = format!("/api/connections/{}", house.post("/api/connections", new).await.id());
    let thief = json!({ "config": { "api_base": elsewhere.base_url() }, "secret": token });
    assert_eq!(house.patch(&path, thief).await.status, StatusCode::OK);
    let id = path.rsplit('/').next().unwrap().parse().unwrap();
    let kept = house.app.store.connection_secret(&house.scope(), &id).await.unwrap();
    assert_eq!(kept.expose(), &token, "the key went along");
    assert!(
        elsewhere
            .requests()
            .iter()
            .all(|request| request.user.as_deref().is_none_or(|user| !user.starts_with("SK")))
    );
}

#[tokio::test]
async fn a_carrier_is_tried_out_and_says_exactly_what_is_wrong() {
    let house = House::sqlite().await;
    let settings = TwilioSettings::default();
    let (account, token) = (settings.account_sid.clone(), settings.auth_token.expose().clone());
    let carrier = TwilioSim::start((Ipv4Addr::LOCALHOST, 0).into(), settings).await.unwrap();
    let new = json!({
        "kind": "twilio", "name": "line", "account": account, "secret": "cut off", "config": { "api_base": carrier.base_url() },
    });
    let path = format!("/api/connections/{}", house.post("/api/connections", new).await.id());
    let check = async || {
        let answer = house.post(&format!("{path}/check"), json!({})).await.json();
        (answer["status"].as_str().unwrap_or_default().to_owned(), answer["status_reason"].clone())
    };
    let (status, reason) = check().await;
    assert_eq!(status, "error");
    expect!["the secret is not formed as the carrier's secrets are: a part of it may be missing; copy the whole of it from the carrier and paste it again"].assert_eq(reason.as_str().unwrap());
    house.patch(&path, json!({ "secret": "feedfacefeedfacefeedfacefeedface" })).await;
    let (_, reason) = check().await;
    expect!["the carrier does not accept these credentials; paste the account's id and its current token, and set its region if it has one"].assert_eq(reason.as_str().unwrap());

    house.patch(&path, json!({ "secret": token })).await;
    assert_eq!(check().await, ("active".into(), Value::Null));
    assert_ne!(house.get(&path).await.json()["checked_at"], Value::Null);

    carrier.account_status(AccountStatus::Suspended);
    expect!["the carrier has suspended the account; settle it with the carrier"]
        .assert_eq(check().await.1.as_str().unwrap());
    carrier.account_status(AccountStatus::Active);

    carrier.rest_faults(RestFaults { too_many_requests: 9, ..RestFaults::default() });
    house.post(&format!("{path}/check"), json!({})).await.check(&expect![[r#"
        503 Service Unavailable
        {
          "detail": "con_…: the carrier asks for fewer requests",
          "fix": "wait a moment, then try again",
          "status": 503,
          "title": "Not possible right now",
          "type": "urn:offhook:problem:unavailable"
        }
    "#]]);
    let kept = house.get(&path).await.json();
    assert_eq!(kept["status"], "error", "what cannot be found out changes nothing");

    drop(carrier);
    let (status, reason) = check().await;
    assert_eq!(status, "error");
    assert!(reason.as_str().unwrap().starts_with("the carrier cannot be reached"), "{reason}");
}

#[tokio::test]
async fn a_provider_is_tried_out_with_its_key() {
    let house = House::sqlite().await;
    let settings = ProviderSimSettings { key: Some("sk-right".into()), ..ProviderSimSettings::default() };
    let providers = ProviderSim::start(settings).await.unwrap();
    let config = json!({ "base_url": format!("{}/v1", providers.base_url) });
    let new = json!({ "kind": "openai", "name": "models", "secret": "sk-wrong", "config": config });
    let path = format!("/api/connections/{}", house.post("/api/connections", new).await.id());
    let checked = house.post(&format!("{path}/check"), json!({})).await.json();
    assert_eq!(checked["status"], "error");
    expect!["openai: the key was refused: HTTP 401, invalid_api_key; paste the current key"]
        .assert_eq(checked["status_reason"].as_str().unwrap());
    house.patch(&path, json!({ "secret": "sk-right" })).await;
    assert_eq!(house.post(&format!("{path}/check"), json!({})).await.json()["status"], "active");
}
