//! What is answered when a request cannot be carried out, by kind.

use crate::house::House;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use expect_test::expect;
use offhook_core::entity::Role;
use offhook_server::router::BODY_BYTES;
use serde_json::json;

on_both!(a_taken_name_is_a_conflict_that_names_its_holder, a_change_on_an_old_revision_is_refused);

fn raw(house: &House, content_type: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post("/api/agents")
        .header(header::AUTHORIZATION, format!("Bearer {}", house.key(Role::Owner)))
        .header(header::CONTENT_TYPE, content_type)
        .body(body.into())
        .unwrap()
}

#[tokio::test]
async fn an_unknown_route_leads_to_the_document() {
    let house = House::sqlite().await;
    let answer = house.get("/api/agent?token=hush").await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
    answer.check(&expect![[r#"
        404 Not Found
        {
          "detail": "there is no GET /api/agent",
          "fix": "GET /api/openapi.json lists every route",
          "status": 404,
          "title": "There is no such thing",
          "type": "urn:offhook:problem:not_found"
        }
    "#]]);
}

#[tokio::test]
async fn a_wrong_method_names_the_right_ones() {
    let house = House::sqlite().await;
    let answer = house.send(Method::PUT, "/api/agents", Some(house.key(Role::Owner)), None).await;
    assert_eq!(answer.headers[header::ALLOW], "GET,HEAD,POST");
    answer.check(&expect![[r#"
        405 Method Not Allowed
        {
          "detail": "/api/agents has no PUT",
          "fix": "the `allow` header of this answer lists its methods",
          "status": 405,
          "title": "The route has other methods",
          "type": "urn:offhook:problem:wrong_method"
        }
    "#]]);
}

#[tokio::test]
async fn a_request_without_a_key_is_told_where_keys_come_from() {
    let house = House::sqlite().await;
    let answer = house.send(Method::GET, "/api/agents", None, None).await;
    assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
    answer.check(&expect![[r#"
        401 Unauthorized
        {
          "detail": "the request has no API key",
          "fix": "send `authorization: Bearer ohk_…`; keys are made at POST /api/keys, the first is printed when Offhook first starts",
          "status": 401,
          "title": "An API key is needed",
          "type": "urn:offhook:problem:unauthorized"
        }
    "#]]);
    let answer = house.send(Method::GET, "/api/agents", Some("ohk_nobodys"), None).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(!answer.text().contains("nobodys"), "{}", answer.text());
}

#[tokio::test]
async fn broken_json_is_told_where_it_breaks() {
    let house = House::sqlite().await;
    house.ask(raw(&house, "application/json", r#"{"name": "x", "config": {"#)).await.check(&expect![[r#"
        400 Bad Request
        {
          "detail": "config.?: EOF while parsing an object at line 1 column 25",
          "fix": "send the body as JSON (RFC 8259)",
          "status": 400,
          "title": "The request cannot be read",
          "type": "urn:offhook:problem:malformed"
        }
    "#]]);
    house.ask(raw(&house, "text/plain", "{}")).await.check(&expect![[r#"
        415 Unsupported Media Type
        {
          "detail": "the body is not marked as JSON",
          "fix": "send it with `content-type: application/json`",
          "status": 415,
          "title": "The body is not JSON",
          "type": "urn:offhook:problem:wrong_type"
        }
    "#]]);
    house.ask(raw(&house, "application/json", "")).await.check(&expect![[r#"
        400 Bad Request
        {
          "detail": "EOF while parsing a value at line 1 column 0",
          "fix": "send the body as JSON (RFC 8259)",
          "status": 400,
          "title": "The request cannot be read",
          "type": "urn:offhook:problem:malformed"
        }
    "#]]);
}

#[tokio::test]
async fn a_wrong_field_is_named() {
    let house = House::sqlite().await;
    house.post("/api/agents", json!({ "name": "x", "config": {}, "colour": "red" })).await.check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "colour: unknown field `colour`, expected one of `name`, `running`, `config` at line 1 column 9",
          "fix": "correct what the detail names and send the request again; /api/openapi.json has every field",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
    house.post("/api/agents", json!({ "name": "two\nlines", "config": {} })).await.check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "name: this takes 1 to 200 characters in one line at line 1 column 33",
          "fix": "correct what the detail names and send the request again; /api/openapi.json has every field",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
    house.post("/api/agents", json!({ "name": "x", "config": { "llm": [] } })).await.check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "config.llm: name 1 to 8 providers, first choice first",
          "fix": "correct `config.llm` and send the request again",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
    house
        .post("/api/agents", json!({ "name": "x", "config": { "timing": { "nudge_ms": "long" } } }))
        .await
        .check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "config: invalid type: string \"long\", expected u32",
          "fix": "correct `config` and send the request again",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read() {
    let house = House::sqlite().await;
    house.ask(raw(&house, "application/json", vec![b' '; BODY_BYTES + 1])).await.check(&expect![[r#"
        413 Payload Too Large
        {
          "detail": "the body is larger than this route takes",
          "fix": "send less",
          "status": 413,
          "title": "The body is too large",
          "type": "urn:offhook:problem:too_large"
        }
    "#]]);
}

#[tokio::test]
async fn a_page_that_cannot_be_is_refused() {
    let house = House::sqlite().await;
    house.get("/api/agents?limit=201").await.check(&expect![[r#"
        400 Bad Request
        {
          "detail": "limit: 201 rows are no page",
          "fix": "ask for 1 to 200 rows",
          "status": 400,
          "title": "The request cannot be read",
          "type": "urn:offhook:problem:malformed"
        }
    "#]]);
    house.get("/api/agents?limit=many").await.check(&expect![[r#"
        400 Bad Request
        {
          "detail": "in the query: limit: invalid digit found in string",
          "fix": "correct the parameter; /api/openapi.json has all of them",
          "status": 400,
          "title": "The request cannot be read",
          "type": "urn:offhook:problem:malformed"
        }
    "#]]);
    house.get("/api/agents?after=%00").await.check(&expect![[r#"
        400 Bad Request
        {
          "detail": "after: this is no cursor",
          "fix": "give the `next` of the page before, unchanged",
          "status": 400,
          "title": "The request cannot be read",
          "type": "urn:offhook:problem:malformed"
        }
    "#]]);
}

#[tokio::test]
async fn an_id_of_another_kind_is_not_found() {
    let house = House::sqlite().await;
    house.get("/api/agents/con_01ARZ3NDEKTSV4RRFFQ69G5FAV").await.check(&expect![[r#"
        404 Not Found
        {
          "detail": "this is not an agent's id: it begins with `agt_`, then 26 letters and digits",
          "fix": "take the id from the list",
          "status": 404,
          "title": "There is no such thing",
          "type": "urn:offhook:problem:not_found"
        }
    "#]]);
    house.get("/api/agents/agt_01ARZ3NDEKTSV4RRFFQ69G5FAV").await.check(&expect![[r#"
        404 Not Found
        {
          "detail": "agt_…: there is no such agent",
          "fix": "look the id up in the list; what belongs to another workspace is not shown to this key",
          "status": 404,
          "title": "There is no such thing",
          "type": "urn:offhook:problem:not_found"
        }
    "#]]);
}

async fn a_taken_name_is_a_conflict_that_names_its_holder(house: House) {
    house.agent("Reception").await;
    let twin = json!({ "name": " Reception ", "config": {} });
    house.post("/api/agents", twin).await.check(&expect![[r#"
        409 Conflict
        {
          "detail": "not possible for this agent name: agt_… has it",
          "fix": "read what is there now, then repeat the change on it, or choose another",
          "status": 409,
          "title": "It does not go with what is there",
          "type": "urn:offhook:problem:conflict"
        }
    "#]]);
}

async fn a_change_on_an_old_revision_is_refused(house: House) {
    let path = format!("/api/connections/{}", house.connection("line").await);
    assert_eq!(house.patch(&path, json!({ "name": "a", "revision": 1 })).await.status, StatusCode::OK);
    house.patch(&path, json!({ "name": "b", "revision": 1 })).await.check(&expect![[r#"
        409 Conflict
        {
          "detail": "con_…: not possible for this connection: it was changed meanwhile and is at revision 2",
          "fix": "read what is there now, then repeat the change on it, or choose another",
          "status": 409,
          "title": "It does not go with what is there",
          "type": "urn:offhook:problem:conflict"
        }
    "#]]);
}

#[tokio::test]
async fn a_store_that_is_gone_is_a_reason_to_come_again() {
    let house = House::sqlite().await;
    house.app.store.clone().close().await.unwrap();
    let answer = house.get("/api/agents").await;
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    answer.check(&expect![[r#"
        503 Service Unavailable
        {
          "detail": "the database does not answer at the moment",
          "fix": "try again in a moment",
          "status": 503,
          "title": "Not possible right now",
          "type": "urn:offhook:problem:unavailable"
        }
    "#]]);
    assert_eq!(house.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(house.get("/healthz").await.status, StatusCode::OK, "the process is well");
}
