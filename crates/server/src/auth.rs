//! Who asks, and whether they may: an API key becomes a `Scope`, and each route names the least role that may use it.
//! It does not know what a route does.

use crate::app::App;
use crate::problem::{Kind, Problem};
use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use offhook_core::Secret;
use offhook_core::entity::Role::{self, Admin, Editor, Operator, Viewer};
use offhook_store::{Scope, StoreError};
use std::sync::Arc;

/// Every route of the API that asks for a key, and the least role that may use it. A route that is missing here is closed to everybody.
pub const ROUTES: &[(Method, &str, Role)] = &[
    (Method::GET, "/api/workspace", Viewer),
    (Method::PATCH, "/api/workspace", Admin),
    (Method::GET, "/api/keys", Admin),
    (Method::POST, "/api/keys", Admin),
    (Method::DELETE, "/api/keys/{id}", Admin),
    (Method::GET, "/api/connections", Viewer),
    (Method::POST, "/api/connections", Admin),
    (Method::GET, "/api/connections/{id}", Viewer),
    (Method::PATCH, "/api/connections/{id}", Admin),
    (Method::DELETE, "/api/connections/{id}", Admin),
    (Method::DELETE, "/api/connections/{id}/earlier-secret", Admin),
    (Method::POST, "/api/connections/{id}/sip-trunk", Admin),
    (Method::DELETE, "/api/connections/{id}/sip-trunk", Admin),
    (Method::POST, "/api/connections/{id}/check", Admin),
    (Method::GET, "/api/phone-numbers", Viewer),
    (Method::POST, "/api/phone-numbers", Editor),
    (Method::GET, "/api/phone-numbers/{id}", Viewer),
    (Method::PATCH, "/api/phone-numbers/{id}", Editor),
    (Method::DELETE, "/api/phone-numbers/{id}", Editor),
    (Method::POST, "/api/phone-numbers/{id}/release", Admin),
    (Method::POST, "/api/phone-numbers/{id}/check", Editor),
    (Method::POST, "/api/phone-numbers/{id}/take-back", Editor),
    (Method::GET, "/api/phone-numbers/{id}/qr", Viewer),
    (Method::GET, "/api/connections/{id}/numbers", Viewer),
    (Method::GET, "/api/telephony/available-numbers", Viewer),
    (Method::POST, "/api/telephony/managed/purchase-number", Editor),
    (Method::POST, "/api/telephony/byop/import-number", Editor),
    (Method::GET, "/api/telephony/operations", Viewer),
    (Method::GET, "/api/telephony/operations/{id}", Viewer),
    (Method::GET, "/api/agents", Viewer),
    (Method::POST, "/api/agents", Editor),
    (Method::GET, "/api/agents/{id}", Viewer),
    (Method::PATCH, "/api/agents/{id}", Editor),
    (Method::DELETE, "/api/agents/{id}", Editor),
    (Method::POST, "/api/agents/{id}/check", Editor),
    (Method::POST, "/api/agents/{id}/start", Editor),
    (Method::POST, "/api/agents/{id}/stop", Editor),
    (Method::GET, "/api/agents/{id}/log", Viewer),
    (Method::GET, "/api/agents/{id}/versions", Viewer),
    (Method::POST, "/api/agents/{id}/versions/{version}/restore", Editor),
    (Method::GET, "/api/conversations", Viewer),
    (Method::GET, "/api/conversations/{id}", Viewer),
    (Method::GET, "/api/conversations/{id}/messages", Viewer),
    (Method::GET, "/api/calls", Viewer),
    (Method::GET, "/api/calls/{id}", Viewer),
    (Method::GET, "/api/calls/{id}/log", Viewer),
    (Method::GET, "/api/calls/{id}/events", Viewer),
    (Method::POST, "/api/calls/{id}/hang-up", Operator),
    (Method::GET, "/api/live", Viewer),
];

/// How a key travels.
const SCHEME: &str = "Bearer ";
const SEND_A_KEY: &str = "send `authorization: Bearer ohk_…`; keys are made at POST /api/keys, the first is printed when Offhook first starts";

/// Whoever asks: their key is good and their role suffices for the route. As a handler's argument it is the only way to a [`Scope`].
#[derive(Debug)]
pub struct Caller(pub Scope);

/// The least role that may use a route, if it is one.
pub fn role_for(method: &Method, route: &str) -> Option<Role> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    ROUTES.iter().find(|(m, path, _)| m == method && *path == route).map(|(.., role)| *role)
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let scope =
            app.store.scope_for_api_key(&key(&parts.headers)?).await.map_err(|error| match error {
                StoreError::NotFound { .. } => {
                    Problem::new(Kind::Unauthorized, "this API key is unknown or was revoked", SEND_A_KEY)
                }
                error => error.into(),
            })?;
        let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        match role_for(&parts.method, route) {
            Some(least) if scope.role() >= least => Ok(Caller(scope)),
            Some(least) => Err(Problem::new(
                Kind::Forbidden,
                format!(
                    "this API key is {}, and {} {route} takes {} or more",
                    article(scope.role()),
                    parts.method,
                    article(least)
                ),
                format!("use a key of role {least}; an admin makes one at POST /api/keys"),
            )),
            None => Err(Problem::new(
                Kind::Forbidden,
                format!("{route} is closed to everybody"),
                "use another route",
            )),
        }
    }
}

fn key(headers: &HeaderMap) -> Result<Secret<String>, Problem> {
    let missing = || Problem::new(Kind::Unauthorized, "the request has no API key", SEND_A_KEY);
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?.to_str().map_err(|_| missing())?;
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(SCHEME) => Ok(Secret::new(key.trim().to_owned())),
        _ => Err(missing()),
    }
}

fn article(role: Role) -> String {
    let vowel = matches!(role, Role::Operator | Role::Editor | Role::Admin | Role::Owner);
    format!("{} {role}'s", if vowel { "an" } else { "a" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_asks_for_its_role_whatever_way_it_is_read() {
        assert_eq!(role_for(&Method::HEAD, "/api/agents"), Some(Viewer));
        assert_eq!(role_for(&Method::POST, "/api/agents"), Some(Editor));
        assert_eq!(role_for(&Method::PUT, "/api/agents"), None);
    }

    #[test]
    fn a_key_is_a_bearer_token_and_never_shown() {
        let headers = |value: &str| HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        let read = key(&headers("bearer  ohk_0123456789 ")).unwrap();
        assert_eq!((read.expose().as_str(), format!("{read:?}")), ("ohk_0123456789", "[secret]".into()));
        for bad in ["ohk_0123456789", "Basic b2hrXw==", "Bearer", ""] {
            let problem = key(&headers(bad)).unwrap_err();
            assert!(!problem.sentence().contains("0123456789"), "{bad}");
        }
    }
}
