//! Phone numbers over the API: E.164 at the edge, one agent for each.

use crate::house::House;
use axum::http::StatusCode;
use expect_test::expect;
use serde_json::{Value, json};

on_both!(a_number_is_added_given_to_an_agent_and_removed, a_number_cannot_be_added_twice);

async fn a_number_is_added_given_to_an_agent_and_removed(house: House) {
    let (connection, agent) = (house.connection("line").await, house.agent("Reception").await);
    let made =
        house.post("/api/phone-numbers", json!({ "connection": connection, "e164": "+14155550100" })).await;
    made.check(&expect![[r#"
        201 Created
        {
          "capabilities": [
            "voice"
          ],
          "checked_at": null,
          "connection": "con_…",
          "created_at": "<time>",
          "e164": "+14155550100",
          "forward_to": null,
          "id": "num_…",
          "inbound_agent": null,
          "name": "+14155550100",
          "operation": null,
          "previous": null,
          "revision": 1,
          "source": "byo",
          "status": "inactive",
          "status_reason": null,
          "updated_at": "<time>"
        }
    "#]]);
    let path = format!("/api/phone-numbers/{}", made.id());
    let given =
        house.patch(&path, json!({ "inbound_agent": agent, "forward_to": "+4930123456" })).await.json();
    assert_eq!((&given["inbound_agent"], &given["status"]), (&json!(agent), &json!("active")));
    house.delete(&format!("/api/agents/{agent}")).await.check(&expect![[r#"
        409 Conflict
        {
          "detail": "agt_…: not possible for this agent: it answers +14155550100",
          "fix": "read what is there now, then repeat the change on it, or choose another",
          "status": 409,
          "title": "It does not go with what is there",
          "type": "urn:offhook:problem:conflict"
        }
    "#]]);

    let left_alone = house.patch(&path, json!({ "name": "Front desk" })).await.json();
    assert_eq!(
        (&left_alone["inbound_agent"], &left_alone["forward_to"]),
        (&json!(agent), &json!("+4930123456"))
    );
    let taken_away = house.patch(&path, json!({ "inbound_agent": null, "forward_to": null })).await.json();
    assert_eq!((&taken_away["inbound_agent"], &taken_away["status"]), (&Value::Null, &json!("inactive")));
    assert_eq!(house.get(&path).await.json(), taken_away);
    assert_eq!(house.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(house.get("/api/phone-numbers").await.json(), json!({ "items": [], "next": null }));
}

async fn a_number_cannot_be_added_twice(house: House) {
    let connection = house.connection("line").await;
    let new = json!({ "connection": connection, "e164": "+14155550100", "name": "Front desk" });
    assert_eq!(house.post("/api/phone-numbers", new.clone()).await.status, StatusCode::CREATED);
    house.post("/api/phone-numbers", new).await.check(&expect![[r#"
        409 Conflict
        {
          "detail": "+14155550100: not possible for this phone number: `Front desk` (num_…) has it",
          "fix": "read what is there now, then repeat the change on it, or choose another",
          "status": 409,
          "title": "It does not go with what is there",
          "type": "urn:offhook:problem:conflict"
        }
    "#]]);
}

#[tokio::test]
async fn what_is_no_number_is_told_how_one_is_written() {
    let house = House::sqlite().await;
    let connection = house.connection("line").await;
    let new = json!({ "connection": connection, "e164": "(415) 555-0100" });
    house.post("/api/phone-numbers", new).await.check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "e164: a telephone number is written in E.164, as +14155550123: a plus, then 2 to 15 digits that do not begin with 0 at line 1 column 71",
          "fix": "correct what the detail names and send the request again; /api/openapi.json has every field",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
    let new = json!({ "connection": "the line", "e164": "+14155550100" });
    house.post("/api/phone-numbers", new).await.check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "connection: this is not a connection's id: it begins with `con_`, then 26 letters and digits at line 1 column 24",
          "fix": "correct what the detail names and send the request again; /api/openapi.json has every field",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
    let new = json!({ "connection": "con_01ARZ3NDEKTSV4RRFFQ69G5FAV", "e164": "+14155550100" });
    house.post("/api/phone-numbers", new).await.check(&expect![[r#"
        404 Not Found
        {
          "detail": "con_…: there is no such connection",
          "fix": "look the id up in the list; what belongs to another workspace is not shown to this key",
          "status": 404,
          "title": "There is no such thing",
          "type": "urn:offhook:problem:not_found"
        }
    "#]]);
}

#[tokio::test]
async fn what_a_number_cannot_be_is_refused() {
    let house = House::sqlite().await;
    let line = house.connection("line").await;
    let models = house.post("/api/connections", json!({ "kind": "openai", "name": "models" })).await.id();
    let new = json!({ "connection": models, "e164": "+14155550100" });
    house.post("/api/phone-numbers", new).await.check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "+14155550100: this phone number cannot be stored: a number is reached through a carrier, and connection `models` is of kind openai",
          "fix": "correct what the detail names and send the request again",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
    let new = json!({ "connection": line, "e164": "+14155550100", "capabilities": [] });
    house.post("/api/phone-numbers", new).await.check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "capabilities: a number carries at least one thing: name it, or leave the field out",
          "fix": "correct `capabilities` and send the request again",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
    let number =
        house.post("/api/phone-numbers", json!({ "connection": line, "e164": "+14155550100" })).await;
    let path = format!("/api/phone-numbers/{}", number.id());
    for wrong in [json!({ "connection": models }), json!({ "capabilities": [] }), json!({ "settings": {} })] {
        let answer = house.patch(&path, wrong).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text());
    }
}
