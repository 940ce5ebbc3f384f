//! The OpenAPI document: equal to the one in the repository, and true.

use crate::house::House;
use axum::http::Method;
use offhook_core::entity::Role;
use offhook_server::api::document;
use offhook_server::auth::ROUTES;
use offhook_server::router;
use std::collections::BTreeSet;
use std::path::Path;

/// Where the document lies for whoever generates a client from it.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../api/openapi.json");

#[test]
#[allow(clippy::disallowed_methods, reason = "whoever changes the API says so to this test")]
fn the_document_in_the_repository_is_the_servers() {
    let generated = document::complete(router::api().into_openapi()).to_pretty_json().unwrap() + "\n";
    if std::env::var("UPDATE_OPENAPI").is_ok_and(|update| update == "1") {
        std::fs::create_dir_all(Path::new(FILE).parent().unwrap()).unwrap();
        std::fs::write(FILE, &generated).unwrap();
    }
    let kept = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        kept == generated,
        "api/openapi.json is not what the code says: run this test with UPDATE_OPENAPI=1"
    );
}

#[test]
fn every_role_is_for_a_route_that_is_there() {
    let mut document = router::api().into_openapi();
    let mut served = BTreeSet::new();
    for (path, item) in &mut document.paths.paths {
        served.extend(document::operations(item).map(|(method, _)| (method.to_string(), path.clone())));
    }
    let named: BTreeSet<_> =
        ROUTES.iter().map(|(method, path, _)| (method.to_string(), path.to_string())).collect();
    assert_eq!(served, named);
}

#[tokio::test]
async fn the_document_is_served_to_everybody() {
    let house = House::sqlite().await;
    let document = house.send(Method::GET, "/api/openapi.json", None, None).await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let change = &document["paths"]["/api/agents/{id}"]["patch"];
    assert_eq!(change["security"][0]["api_key"][0], Role::Editor.as_str());
    assert_eq!(
        change["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"],
        "#/components/schemas/Problem"
    );
    assert_eq!(
        document["components"]["schemas"]["Connection"]["properties"]["status"]["enum"][0],
        "unchecked"
    );
}
