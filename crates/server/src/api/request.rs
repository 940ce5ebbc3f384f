//! The parts of a request, parsed: ids, queries, bodies, and the small values inside of them. It does not know resources.

use crate::problem::{Kind, Problem};
use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::request::Parts;
use offhook_core::NotAnId;
use offhook_store::PAGE_ROWS_MAX;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use std::str::FromStr;
use utoipa::{IntoParams, PartialSchema, ToSchema};

/// Rows of a page when the request does not say.
const PAGE_ROWS: u32 = 50;
/// A cursor is an id.
const CURSOR_CHARS: usize = 64;
const NAME_CHARS: usize = 200;

/// The `{id}` of a route. What is no id of that kind is not found.
#[derive(Debug)]
pub struct Id<T>(pub T);

impl<S: Send + Sync, T: FromStr<Err = NotAnId>> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Id(parse(&path(parts, state).await?, "id")?))
    }
}

/// The `{id}` and the `{version}` of a route.
#[derive(Debug)]
pub struct Ids<T, V>(pub T, pub V);

impl<S: Send + Sync, T: FromStr<Err = NotAnId>, V: FromStr<Err = NotAnId>> FromRequestParts<S> for Ids<T, V> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = path(parts, state).await?;
        Ok(Ids(parse(&path, "id")?, parse(&path, "version")?))
    }
}

async fn path<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<RawPathParams, Problem> {
    RawPathParams::from_request_parts(parts, state).await.map_err(|_| no_id("the path is no UTF-8"))
}

fn parse<T: FromStr<Err = NotAnId>>(path: &RawPathParams, name: &str) -> Result<T, Problem> {
    let text = path.iter().find(|(n, _)| *n == name).map_or("", |(_, text)| text);
    text.parse().map_err(|error: NotAnId| no_id(error.to_string()))
}

fn no_id(why: impl Into<String>) -> Problem {
    Problem::new(Kind::NotFound, why, "take the id from the list")
}

/// The query of a request.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(params) = Query::from_request_parts(parts, state).await?;
        Ok(Params(params))
    }
}

/// The JSON body of a request.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Json(body) = Json::from_request(request, state).await?;
        Ok(Body(body))
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// How many rows, 50 if it is not said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
}

impl Paging {
    /// The page of the store.
    pub fn page(self) -> Result<offhook_store::Page, Problem> {
        let wrong = |detail: String, fix: &str| Err(Problem::new(Kind::Malformed, detail, fix));
        let limit = self.limit.unwrap_or(PAGE_ROWS);
        if !(1..=PAGE_ROWS_MAX).contains(&limit) {
            return wrong(
                format!("limit: {limit} rows are no page"),
                &format!("ask for 1 to {PAGE_ROWS_MAX} rows"),
            );
        }
        let is_cursor = |text: &String| {
            text.len() <= CURSOR_CHARS && text.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
        };
        if self.after.as_ref().is_some_and(|after| !is_cursor(after)) {
            return wrong("after: this is no cursor".into(), "give the `next` of the page before, unchanged");
        }
        Ok(offhook_store::Page { after: self.after, limit })
    }
}

/// A name: 1 to 200 characters in one line, without space around them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let text = text.trim();
        let length = text.chars().count();
        match (1..=NAME_CHARS).contains(&length) && !text.chars().any(char::is_control) {
            true => Ok(Name(text.to_owned())),
            false => Err(format!("this takes 1 to {NAME_CHARS} characters in one line")),
        }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl PartialSchema for Name {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("1 to 200 characters in one line"))
            .min_length(Some(1))
            .max_length(Some(NAME_CHARS))
            .into()
    }
}

impl ToSchema for Name {}

/// Reads a field that may be left out (unchanged), `null` (cleared) or set; with `#[serde(default)]`.
pub fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    field: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(field).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line_with_something_in_it() {
        let name = |text: &str| Name::try_from(text.to_owned()).map(String::from);
        assert_eq!(name("  Front desk ").as_deref(), Ok("Front desk"));
        for bad in ["", "   ", "two\nlines", "zero\0", &"x".repeat(201)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn left_out_and_null_are_different() {
        #[derive(Deserialize)]
        struct Change {
            #[serde(default, deserialize_with = "given")]
            agent: Option<Option<u8>>,
        }
        let agent = |text| serde_json::from_str::<Change>(text).unwrap().agent;
        assert_eq!(
            [agent("{}"), agent(r#"{"agent":null}"#), agent(r#"{"agent":1}"#)],
            [None, Some(None), Some(Some(1))]
        );
    }
}
