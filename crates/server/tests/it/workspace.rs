//! The workspace over the API.

use crate::house::House;
use axum::http::StatusCode;
use expect_test::expect;
use serde_json::json;

on_both!(a_workspace_is_read_and_changed);

async fn a_workspace_is_read_and_changed(house: House) {
    house.get("/api/workspace").await.check(&expect![[r#"
        200 OK
        {
          "created_at": "<time>",
          "id": "wsp_…",
          "name": "Main",
          "organization": "org_…",
          "revision": 1,
          "time_zone": "UTC"
        }
    "#]]);
    let move_to = |zone: &str| json!({ "time_zone": zone, "revision": 1 });
    let changed = house.patch("/api/workspace", move_to("Europe/Berlin")).await.json();
    assert_eq!(
        (&changed["name"], &changed["time_zone"], &changed["revision"]),
        (&json!("Main"), &json!("Europe/Berlin"), &json!(2))
    );
    assert_eq!(house.patch("/api/workspace", move_to("Asia/Tokyo")).await.status, StatusCode::CONFLICT);
    assert_eq!(house.get("/api/workspace").await.json(), changed);
    let hours = house.patch("/api/workspace", json!({ "business_hours": { "foo": [1] } })).await;
    assert_eq!(hours.status, StatusCode::UNPROCESSABLE_ENTITY, "nothing is taken that nothing reads");
    house.patch("/api/workspace", json!({ "time_zone": "Europe/Atlantis" })).await.check(&expect![[r#"
        422 Unprocessable Entity
        {
          "detail": "time_zone: no such time zone: write an IANA name such as Europe/Berlin",
          "fix": "correct `time_zone` and send the request again",
          "status": 422,
          "title": "The request cannot be carried out",
          "type": "urn:offhook:problem:invalid"
        }
    "#]]);
}
