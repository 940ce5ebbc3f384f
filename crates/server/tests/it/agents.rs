//! Agents over the API: settings, versions, and whether one could take a call.

use crate::house::House;
use axum::http::StatusCode;
use expect_test::expect;
use serde_json::{Value, json};

on_both!(
    other_settings_are_a_new_version_and_an_old_one_can_be_gone_back_to,
    a_list_goes_on_where_the_page_before_ended
);

async fn other_settings_are_a_new_version_and_an_old_one_can_be_gone_back_to(house: House) {
    let made = house
        .post("/api/agents", json!({ "name": "Reception", "config": { "instructions": "Be kind." } }))
        .await;
    made.check(&expect![[r#"
        201 Created
        {
          "config": {
            "instructions": "Be kind."
          },
          "created_at": "<time>",
          "current": "agv_…",
          "id": "agt_…",
          "name": "Reception",
          "revision": 1,
          "running": true,
          "updated_at": "<time>",
          "version": 1
        }
    "#]]);
    let path = format!("/api/agents/{}", made.id());
    let renamed = house.patch(&path, json!({ "name": "Front desk", "running": false })).await.json();
    assert_eq!(
        (&renamed["version"], &renamed["revision"], &renamed["config"]),
        (&json!(1), &json!(2), &json!({ "instructions": "Be kind." }))
    );
    let late = house.patch(&path, json!({ "name": "Late", "revision": 1 })).await;
    assert_eq!(late.status, StatusCode::CONFLICT, "a change of the name alone is one too");

    let curt = json!({ "config": { "instructions": "Be curt.", "language": "de" }, "revision": 2 });
    let changed = house.patch(&path, curt.clone()).await.json();
    assert_eq!((&changed["version"], &changed["config"]["language"]), (&json!(2), &json!("de")));
    assert_eq!(house.get(&path).await.json(), changed);
    house.patch(&path, curt).await.check(&expect![[r#"
        409 Conflict
        {
          "detail": "agt_…: not possible for this agent: it was changed meanwhile and is at revision 3",
          "fix": "read what is there now, then repeat the change on it, or choose another",
          "status": 409,
          "title": "It does not go with what is there",
          "type": "urn:offhook:problem:conflict"
        }
    "#]]);

    let versions = house.get(&format!("{path}/versions")).await.json()["items"].clone();
    let first = versions[1]["id"].as_str().unwrap();
    assert_eq!((&versions[0]["number"], &versions[1]["number"]), (&json!(2), &json!(1)));
    let back = house.post(&format!("{path}/versions/{first}/restore"), json!({})).await.json();
    assert_eq!(
        (&back["version"], &back["config"], &back["running"]),
        (&json!(3), &json!({ "instructions": "Be kind." }), &json!(false))
    );

    let other = house.agent("Other").await;
    let answer = house.post(&format!("/api/agents/{other}/versions/{first}/restore"), json!({})).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "a version belongs to its agent");
    assert_eq!(house.delete(&path).await.status, StatusCode::NO_CONTENT);
}

async fn a_list_goes_on_where_the_page_before_ended(house: House) {
    for name in ["a", "b", "c"] {
        house.agent(name).await;
    }
    let first = house.get("/api/agents?limit=2").await.json();
    let next = first["next"].as_str().unwrap();
    let second = house.get(&format!("/api/agents?limit=2&after={next}")).await.json();
    let names = |page: &Value| {
        page["items"].as_array().unwrap().iter().map(|a| a["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((names(&first), names(&second)), (vec![json!("c"), json!("b")], vec![json!("a")]));
    assert_eq!(second["next"], Value::Null);
}

#[tokio::test]
async fn an_agent_that_could_not_take_a_call_is_told_what_is_missing() {
    let house = House::sqlite().await;
    let config = json!({ "llm": [{ "connection": "models" }], "stt": [{ "connection": "ears" }], "tts": [{ "connection": "voice" }] });
    let agent = house.post("/api/agents", json!({ "name": "Reception", "config": config })).await.id();
    let check = format!("/api/agents/{agent}/check");
    house.post(&check, json!({})).await.check(&expect![[r#"
        409 Conflict
        {
          "detail": "agt_…: the agent uses a connection named `ears`, and there is none",
          "fix": "make a connection named `ears`, or name another one in the agent's settings",
          "status": 409,
          "title": "It does not go with what is there",
          "type": "urn:offhook:problem:conflict"
        }
    "#]]);
    for (kind, name) in [("openai", "models"), ("deepgram", "ears"), ("deepgram_flux", "voice")] {
        let new = json!({ "kind": kind, "name": name, "secret": "key" });
        house.post("/api/connections", new).await.id();
    }
    house.post(&check, json!({})).await.check(&expect![[r#"
        409 Conflict
        {
          "detail": "agt_…: connection `voice` cannot be used: deepgram_flux does not offer text to speech",
          "fix": "correct the settings of connection `voice`, or how the agent uses it",
          "status": 409,
          "title": "It does not go with what is there",
          "type": "urn:offhook:problem:conflict"
        }
    "#]]);
    let better = json!({ "config": { "llm": [{ "connection": "models" }], "stt": [{ "connection": "ears" }], "tts": [{ "connection": "models" }] } });
    house.patch(&format!("/api/agents/{agent}"), better).await.id();
    assert_eq!(house.post(&check, json!({})).await.status, StatusCode::NO_CONTENT);
    house.patch(&format!("/api/agents/{agent}"), json!({ "running": false })).await.id();
    house.post(&check, json!({})).await.check(&expect![[r#"
        409 Conflict
        {
          "detail": "agt_…: the agent is stopped",
          "fix": "start it: set its `running` to true",
          "status": 409,
          "title": "It does not go with what is there",
          "type": "urn:offhook:problem:conflict"
        }
    "#]]);
}
