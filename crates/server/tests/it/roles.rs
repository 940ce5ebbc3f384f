//! Who may do what: every route with every role, and nothing of another workspace's.

use crate::house::House;
use axum::http::{Method, StatusCode};
use offhook_core::entity::Role;
use offhook_server::auth::ROUTES;
use serde_json::json;

on_both!(nothing_of_another_organization_can_be_reached);

const NOBODYS: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

/// A path of this route whose ids are well formed and nobody's.
fn path(route: &str) -> String {
    let prefix = ["agents", "connections", "phone-numbers", "keys"]
        .into_iter()
        .zip(["agt", "con", "num", "key"])
        .find(|(resource, _)| route.starts_with(&format!("/api/{resource}")))
        .map_or("cnv", |(_, prefix)| prefix);
    route.replace("{id}", &format!("{prefix}_{NOBODYS}")).replace("{version}", &format!("agv_{NOBODYS}"))
}

#[tokio::test]
async fn every_route_takes_its_role_and_no_less() {
    let house = House::sqlite().await;
    // Otherwise the streams among them would not end.
    house.stopping.closing.cancel();
    for (method, route, least) in ROUTES {
        for role in Role::ALL {
            let answer = house.send(method.clone(), &path(route), Some(house.key(*role)), None).await;
            let forbidden = answer.status == StatusCode::FORBIDDEN;
            assert_eq!(forbidden, role < least, "{method} {route} as {role}: {}", answer.text());
        }
        let unknown = house.send(method.clone(), &path(route), None, None).await.status;
        assert_eq!(unknown, StatusCode::UNAUTHORIZED, "{method} {route}");
    }
}

#[tokio::test]
async fn who_may_do_what_is_as_the_specification_says() {
    let least = |method: Method, route: &str| offhook_server::auth::role_for(&method, route).unwrap();
    for (method, route, role) in ROUTES {
        let reads = *method == Method::GET;
        let secret = route.starts_with("/api/keys");
        assert_eq!(reads && !secret, *role == Role::Viewer, "{method} {route}: viewers read, and only read");
    }
    assert_eq!(least(Method::POST, "/api/calls/{id}/hang-up"), Role::Operator);
    assert_eq!(least(Method::PATCH, "/api/agents/{id}"), Role::Editor);
    assert_eq!(least(Method::PATCH, "/api/phone-numbers/{id}"), Role::Editor);
    assert_eq!(least(Method::PATCH, "/api/connections/{id}"), Role::Admin);
    assert_eq!(least(Method::POST, "/api/keys"), Role::Admin);
}

#[tokio::test]
async fn a_revoked_key_opens_nothing() {
    let house = House::sqlite().await;
    let made = house.post("/api/keys", json!({ "name": "once", "role": "viewer" })).await;
    let key = made.json()["key"].as_str().unwrap().to_owned();
    let read = async || house.send(Method::GET, "/api/agents", Some(&key), None).await.status;
    assert_eq!(read().await, StatusCode::OK);
    assert_eq!(house.delete(&format!("/api/keys/{}", made.id())).await.status, StatusCode::NO_CONTENT);
    assert_eq!(read().await, StatusCode::UNAUTHORIZED);
}

async fn nothing_of_another_organization_can_be_reached(house: House) {
    let stranger = house.stranger().await;
    let (connection, agent) = (house.connection("line").await, house.agent("Reception").await);
    let number = json!({ "connection": connection, "e164": "+14155550100", "inbound_agent": agent });
    let number = house.post("/api/phone-numbers", number).await.id();
    let call = house.call().await.call().to_string();
    let version =
        house.get(&format!("/api/agents/{agent}")).await.json()["current"].as_str().unwrap().to_owned();
    let key = house.post("/api/keys", json!({ "name": "k", "role": "viewer" })).await.id();
    let ids = [("connections", &connection), ("agents", &agent), ("phone-numbers", &number), ("keys", &key)];
    for (method, route, _) in ROUTES.iter().filter(|(_, route, _)| route.contains("{id}")) {
        let id = ids.iter().find(|(resource, _)| route.contains(resource)).map_or(&call, |(_, id)| id);
        let path = route.replace("{id}", id).replace("{version}", &version);
        let body = match *route {
            "/api/connections/{id}/sip-trunk" => Some(json!({ "numbers": ["+14155550100"] })),
            route => (*method == Method::PATCH || route.ends_with("/release")).then(|| json!({})),
        };
        let answer = house.send(method.clone(), &path, Some(&stranger), body).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {route}: {}", answer.text());
    }
    for route in ["connections", "agents", "phone-numbers", "calls", "conversations"] {
        let answer = house.send(Method::GET, &format!("/api/{route}"), Some(&stranger), None).await;
        assert_eq!(answer.json()["items"], json!([]), "{route}");
    }
    let theirs = house.send(
        Method::POST,
        "/api/agents",
        Some(&stranger),
        Some(json!({ "name": "Reception", "config": {} })),
    );
    let theirs = theirs.await.id();
    for wrong in [
        json!({ "connection": connection, "e164": "+14155550101" }),
        json!({ "connection": connection, "e164": "+14155550101", "inbound_agent": theirs }),
    ] {
        let answer = house.send(Method::POST, "/api/phone-numbers", Some(&stranger), Some(wrong)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text());
    }
    let answer =
        house.patch(&format!("/api/phone-numbers/{number}"), json!({ "inbound_agent": theirs })).await;
    assert_eq!(
        answer.status,
        StatusCode::NOT_FOUND,
        "a number cannot be given to another organization's agent"
    );
}
