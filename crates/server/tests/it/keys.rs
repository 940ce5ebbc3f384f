//! API keys over the API: shown once, never above the one that makes them.

use crate::house::House;
use axum::http::{Method, StatusCode};
use expect_test::expect;
use offhook_core::entity::Role;
use serde_json::json;

on_both!(a_key_is_shown_once_and_listed_by_its_beginning);

async fn a_key_is_shown_once_and_listed_by_its_beginning(house: House) {
    let made = house.post("/api/keys", json!({ "name": "reporting", "role": "viewer" })).await;
    let key = made.json()["key"].as_str().unwrap().to_owned();
    assert!(key.starts_with(made.json()["prefix"].as_str().unwrap()));
    let listed = house.get("/api/keys?limit=1").await;
    assert!(!listed.text().contains(&key));
    let mut shown = made.json();
    shown.as_object_mut().unwrap().remove("key");
    assert_eq!(listed.json()["items"], json!([shown]));
    house.delete(&format!("/api/keys/{}", made.id())).await;
    assert!(house.get("/api/keys?limit=1").await.json()["items"][0]["revoked_at"].is_string());
}

#[tokio::test]
async fn a_key_cannot_make_one_that_may_do_more() {
    let house = House::sqlite().await;
    let new = json!({ "name": "climb", "role": "owner" });
    house.send(Method::POST, "/api/keys", Some(house.key(Role::Admin)), Some(new)).await.check(&expect![[
        r#"
        403 Forbidden
        {
          "detail": "role: a key of role admin cannot make one of role owner",
          "fix": "use a key of that role to make it",
          "status": 403,
          "title": "The API key may not do this",
          "type": "urn:offhook:problem:forbidden"
        }
    "#
    ]]);
    let new = json!({ "name": "climb", "role": "emperor" });
    house.post("/api/keys", new).await.check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "role: unknown variant `emperor`, expected one of `viewer`, `operator`, `editor`, `admin`, `owner` at line 1 column 32",
          "fix": "correct what the detail names and send the request again; /api/openapi.json has every field",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
}

#[tokio::test]
async fn a_key_cannot_revoke_one_that_may_do_more_nor_the_last_owners() {
    let house = House::sqlite().await;
    let keys = house.get("/api/keys").await.json();
    let id = |role: &str| {
        let keys = keys["items"].as_array().unwrap();
        keys.iter().find(|key| key["role"] == role).unwrap()["id"].as_str().unwrap().to_owned()
    };
    let owner = format!("/api/keys/{}", id("owner"));
    let revoke =
        async |path: String| house.send(Method::DELETE, &path, Some(house.key(Role::Admin)), None).await;
    revoke(owner.clone()).await.check(&expect![[r#"
        403 Forbidden
        {
          "detail": "key_…: a key of role admin cannot revoke one of role owner",
          "fix": "use a key of that role to revoke it",
          "status": 403,
          "title": "The API key may not do this",
          "type": "urn:offhook:problem:forbidden"
        }
    "#]]);
    house.delete(&owner).await.check(&expect![[r#"
        409 Conflict
        {
          "detail": "key_…: not possible for this API key: it is the last owner's key: make another first",
          "fix": "read what is there now, then repeat the change on it, or choose another",
          "status": 409,
          "title": "It does not go with what is there",
          "type": "urn:offhook:problem:conflict"
        }
    "#]]);
    assert_eq!(revoke(format!("/api/keys/{}", id("viewer"))).await.status, StatusCode::NO_CONTENT);
    assert_eq!(revoke(format!("/api/keys/{}", id("admin"))).await.status, StatusCode::NO_CONTENT);
}
