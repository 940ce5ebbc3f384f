//! The OpenAPI 3.1 document of the API, as far as it does not follow from the handlers: who may use a route, and what a refusal looks like.

use crate::auth::role_for;
use crate::problem::{PROBLEM_JSON, ProblemBody};
use axum::http::{Method, StatusCode};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{OpenApi, openapi};

const KEY: &str = "api_key";

/// Where the document begins; the routes add to it.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Offhook",
        description = "The software that answers the phone: connections, numbers, agents, and what was said on calls."
    ),
    components(schemas(ProblemBody))
)]
pub struct Document;

/// Says of every operation which role it takes and how it refuses.
///
/// # Panics
/// When a route has no role in [`crate::auth::ROUTES`]: nobody could use it, so that is a bug.
pub fn complete(mut document: openapi::OpenApi) -> openapi::OpenApi {
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            let role = role_for(&method, path).unwrap_or_else(|| panic!("{method} {path} has no role"));
            // OpenAPI 3.1 wants each answer described; what it holds says its schema.
            for (status, response) in &mut operation.responses.responses {
                let reason = status
                    .parse()
                    .ok()
                    .and_then(|status| StatusCode::from_u16(status).ok()?.canonical_reason());
                if let RefOr::T(response) = response {
                    response.description = reason.unwrap_or(status).into();
                }
            }
            operation.security = Some(vec![SecurityRequirement::new(KEY, [role.as_str()])]);
            let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            let refusal = ResponseBuilder::new()
                .description("What is wrong, and the next step")
                .content(PROBLEM_JSON, problem);
            operation.responses.responses.insert("default".into(), refusal.build().into());
        }
    }
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key, `ohk_…`. Each operation names the least role that may use it."));
    let components = document.components.get_or_insert_default();
    components.security_schemes.insert(KEY.into(), SecurityScheme::Http(scheme.build()).into());
    document
}

/// The operations of one path.
pub fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let PathItem { get, post, put, patch, delete, .. } = item;
    [
        (Method::GET, get),
        (Method::POST, post),
        (Method::PUT, put),
        (Method::PATCH, patch),
        (Method::DELETE, delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}
