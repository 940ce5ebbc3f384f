//! What the API answers when it does not do what was asked: what is wrong, and the next step. It does not know routes or resources.

use crate::agent::ConfigError;
use crate::call::plan::NotReady;
use crate::connection::NotAConnection;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use offhook_carriers::CarrierError;
use offhook_providers::{Cause, ProviderError};
use offhook_store::{StoreError, VaultError};
use serde::Serialize;
use std::error::Error;
use std::fmt::Display;
use utoipa::ToSchema;

/// The media type of a problem (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";
/// When to ask again where the trouble may pass by itself.
const RETRY_AFTER_S: u32 = 1;
const NOT_THERE: &str =
    "look the id up in the list; what belongs to another workspace is not shown to this key";
const REPORT: &str = "try again; if it stays, give the `x-request-id` of this answer to whoever runs this Offhook: its log says more";

/// Why a request was not carried out (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    kind: Kind,
    detail: String,
    fix: String,
    retry_after_s: Option<u32>,
}

/// What the problems have in common, by what a program can do about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request cannot be read.
    Malformed,
    /// There is no key, or it opens nothing.
    Unauthorized,
    /// The key's role does not suffice.
    Forbidden,
    /// No such thing, or it is another workspace's.
    NotFound,
    /// The route has other methods.
    WrongMethod,
    /// Something else is there already, or it is too late.
    Conflict,
    /// The body is larger than any request needs.
    TooLarge,
    /// The body is not JSON.
    WrongType,
    /// The request can be read and cannot be carried out as it is.
    Invalid,
    /// Offhook broke.
    Internal,
    /// An outside service did not do its part.
    Outside,
    /// It may work a little later.
    Unavailable,
}

/// A problem as it is sent.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// What kind of problem it is: a name for programs.
    #[schema(example = "urn:offhook:problem:not_found")]
    r#type: String,
    /// The kind in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this request, naming the thing.
    detail: String,
    /// The next step.
    fix: String,
}

impl Kind {
    fn describe(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Kind::Malformed => (StatusCode::BAD_REQUEST, "malformed", "The request cannot be read"),
            Kind::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "An API key is needed"),
            Kind::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "The API key may not do this"),
            Kind::NotFound => (StatusCode::NOT_FOUND, "not_found", "There is no such thing"),
            Kind::WrongMethod => {
                (StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "The route has other methods")
            }
            Kind::Conflict => (StatusCode::CONFLICT, "conflict", "It does not go with what is there"),
            Kind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too large"),
            Kind::WrongType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong_type", "The body is not JSON"),
            Kind::Invalid => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request cannot be carried out")
            }
            Kind::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something broke inside Offhook")
            }
            Kind::Outside => (StatusCode::BAD_GATEWAY, "outside", "An outside service did not do its part"),
            Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not possible right now"),
        }
    }
}

impl Problem {
    /// A problem with this request, and the next step.
    pub fn new(kind: Kind, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Problem { kind, detail: detail.into(), fix: fix.into(), retry_after_s: None }
    }

    /// A problem that may be gone when the request comes again.
    pub fn passing(detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Problem { retry_after_s: Some(RETRY_AFTER_S), ..Problem::new(Kind::Unavailable, detail, fix) }
    }

    /// A value of the request that cannot be.
    pub fn invalid(field: &str, wrong: impl Display) -> Self {
        Problem::new(
            Kind::Invalid,
            format!("{field}: {wrong}"),
            format!("correct `{field}` and send the request again"),
        )
    }

    /// A failure of ours, told to the log and not to whoever asked.
    pub fn internal(error: &dyn Error) -> Self {
        tracing::error!(error = chain(error), "Request failed");
        Problem::new(Kind::Internal, "something went wrong that is not your doing", REPORT)
    }

    /// The problem, with the thing it is about named.
    #[must_use]
    pub fn about(self, what: impl Display) -> Self {
        Problem { detail: format!("{what}: {}", self.detail), ..self }
    }

    /// What is wrong.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The next step.
    pub fn fix(&self) -> &str {
        &self.fix
    }

    /// What is wrong and what to do, as one line.
    pub fn sentence(&self) -> String {
        format!("{}; {}", self.detail, self.fix)
    }

    /// Whether asking again may help without anybody's doing.
    pub fn may_pass(&self) -> bool {
        self.retry_after_s.is_some()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, slug, title) = self.kind.describe();
        let body = ProblemBody {
            r#type: format!("urn:offhook:problem:{slug}"),
            title,
            status: status.as_u16(),
            detail: self.detail,
            fix: self.fix,
        };
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.kind == Kind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Names what a request to the store was about, for its problem.
pub trait About<T> {
    /// The value, or the problem with this thing.
    fn about(self, what: impl Display) -> Result<T, Problem>;
}

impl<T, E: Into<Problem>> About<T> for Result<T, E> {
    fn about(self, what: impl Display) -> Result<T, Problem> {
        self.map_err(|error| error.into().about(what))
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match &error {
            StoreError::NotFound { .. } => Problem::new(Kind::NotFound, detail, NOT_THERE),
            StoreError::Conflict { what, holder } => {
                let detail = format!("not possible for this {what}: {holder}");
                let fix = "read what is there now, then repeat the change on it, or choose another";
                Problem::new(Kind::Conflict, detail, fix)
            }
            StoreError::Ended { .. } => {
                Problem::new(Kind::Conflict, detail, "nothing is left to do: read its record instead")
            }
            StoreError::Invalid { .. } => Problem::new(
                Kind::Invalid,
                detail,
                "correct what the detail names and send the request again",
            ),
            StoreError::Busy(_) | StoreError::Unavailable(_) => {
                tracing::error!(error = chain(&error), "Request failed: the store does not answer");
                Problem::passing("the database does not answer at the moment", "try again in a moment")
            }
            StoreError::Full(_) | StoreError::ReadOnly(_) => {
                tracing::error!(error = chain(&error), "Request failed: the store cannot write");
                let fix = "whoever runs this Offhook must make room on the disk, or allow writing to it";
                Problem::new(Kind::Unavailable, detail, fix)
            }
            StoreError::Vault(VaultError::UnknownKey { .. } | VaultError::NotOurs { .. }) => {
                tracing::error!(error = chain(&error), "Request failed: a credential does not open");
                let fix = "give Offhook the vault key it was sealed with, or paste the credential again";
                Problem::new(
                    Kind::Internal,
                    "the stored credential cannot be opened with the keys given",
                    fix,
                )
            }
            _ => Problem::internal(&error),
        }
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        let field = match error.field.as_str() {
            "config" => "config".to_owned(),
            field => format!("config.{field}"),
        };
        Problem::invalid(&field, error.wrong)
    }
}

impl From<NotAConnection> for Problem {
    fn from(error: NotAConnection) -> Self {
        Problem::invalid(&error.field, error.wrong)
    }
}

impl From<NotReady> for Problem {
    fn from(error: NotReady) -> Self {
        let detail = chain(&error);
        let fix = match error {
            NotReady::Store(error) => return error.into(),
            NotReady::Config(error) => return error.into(),
            NotReady::Stopped => "start it: set its `running` to true".to_owned(),
            NotReady::NoConnection(name) => {
                format!("make a connection named `{name}`, or name another one in the agent's settings")
            }
            NotReady::Provider { name, .. } | NotReady::Settings { name, .. } => {
                format!("correct the settings of connection `{name}`, or how the agent uses it")
            }
        };
        Problem::new(Kind::Conflict, detail, fix)
    }
}

impl From<ProviderError> for Problem {
    fn from(error: ProviderError) -> Self {
        let fix = match error.cause {
            Cause::Key => "paste the current key",
            Cause::Credit => "top up the account at the provider",
            Cause::NotAvailable => {
                "choose a model and a voice that this key may use, or widen its permissions"
            }
            Cause::RateLimited => {
                return Problem::passing(error.to_string(), "wait a moment, then try again");
            }
            Cause::Refused => "correct the connection's settings",
            Cause::TimedOut | Cause::Unreachable => "check `base_url` and the network between here and there",
            Cause::Malformed => "check that `base_url` leads to the provider and not to something else",
        };
        Problem::new(Kind::Outside, error.to_string(), fix)
    }
}

impl From<CarrierError> for Problem {
    fn from(error: CarrierError) -> Self {
        let detail = error.to_string();
        let fix = match error {
            CarrierError::WrongCredentials => {
                "paste the account's id and its current token, and set its region if it has one".to_owned()
            }
            CarrierError::WrongAccount => "give the id of the account that they belong to".to_owned(),
            CarrierError::WrongSecret => {
                "copy the whole of it from the carrier and paste it again".to_owned()
            }
            CarrierError::WrongRegion { region } => format!("set the region to {region}, with an edge of it"),
            CarrierError::MissingPermission { area } => format!("allow these credentials to use {area}"),
            CarrierError::Suspended => "settle it with the carrier".to_owned(),
            CarrierError::Closed => "connect another account".to_owned(),
            CarrierError::NotFound => {
                "check the account's id, and that the thing still exists at the carrier".to_owned()
            }
            CarrierError::CallOver => {
                return Problem::new(
                    Kind::Conflict,
                    detail,
                    "nothing is left to do: read its record instead",
                );
            }
            CarrierError::RateLimited { retry_after_s } => {
                let passing = Problem::passing(detail, "wait a moment, then try again");
                return Problem { retry_after_s: retry_after_s.or(passing.retry_after_s), ..passing };
            }
            CarrierError::Unreachable { .. } => "check the network between here and the carrier".to_owned(),
            CarrierError::OutcomeUnknown { .. } => {
                "look whether it has happened before trying again".to_owned()
            }
            CarrierError::Refused { .. } | CarrierError::NotAskable(_) => {
                "do what the detail says, then try again".to_owned()
            }
        };
        Problem::new(Kind::Outside, detail, fix)
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let detail = own_words(&rejection);
        match &rejection {
            JsonRejection::JsonDataError(_) => Problem::new(
                Kind::Invalid,
                detail,
                "correct what the detail names and send the request again; /api/openapi.json has every field",
            ),
            JsonRejection::JsonSyntaxError(_) => {
                Problem::new(Kind::Malformed, detail, "send the body as JSON (RFC 8259)")
            }
            JsonRejection::MissingJsonContentType(_) => Problem::new(
                Kind::WrongType,
                "the body is not marked as JSON",
                "send it with `content-type: application/json`",
            ),
            JsonRejection::BytesRejection(rejection)
                if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE =>
            {
                Problem::new(Kind::TooLarge, "the body is larger than this route takes", "send less")
            }
            _ => Problem::new(Kind::Malformed, "the body did not arrive whole", "send the request again"),
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let detail = format!("in the query: {}", own_words(&rejection));
        Problem::new(Kind::Malformed, detail, "correct the parameter; /api/openapi.json has all of them")
    }
}

/// What a reader says, with the place, beneath axum's sentence about it.
fn own_words(rejection: &dyn Error) -> String {
    rejection.source().map_or_else(|| rejection.to_string(), ToString::to_string)
}

/// An error and everything it came from, in a line.
pub fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offhook_core::Pii;

    #[test]
    fn a_problem_says_what_is_wrong_and_what_to_do() {
        let problem = Problem::from(StoreError::NotFound { what: "agent" }).about("agt_1");
        assert_eq!(problem.detail, "agt_1: there is no such agent");
        let config = ConfigError { field: "llm".into(), wrong: "name 1 to 8 providers".into() };
        assert_eq!(
            Problem::from(config).sentence(),
            "config.llm: name 1 to 8 providers; correct `config.llm` and send the request again"
        );
        let gone = Problem::from(NotReady::NoConnection("openai".into()));
        assert_eq!((gone.kind, gone.fix.contains("`openai`")), (Kind::Conflict, true));
    }

    #[test]
    fn a_carriers_own_words_stay_inside() {
        let detail = Pii::new("'From' +14155550123 is not valid".into());
        let refused = CarrierError::Refused { code: 21212, sentence: "Write it as E.164.".into(), detail };
        let problem = Problem::from(refused);
        assert_eq!(problem.detail, "the carrier refused (code 21212): Write it as E.164.");
    }

    #[test]
    fn only_what_may_pass_says_when_to_ask_again() {
        let asked_to_wait = Problem::from(CarrierError::RateLimited { retry_after_s: Some(30) });
        assert_eq!(asked_to_wait.into_response().headers()[header::RETRY_AFTER], "30");
        let wrong_key = ProviderError { provider: "deepgram", cause: Cause::Key, detail: String::new() };
        assert!(!Problem::from(wrong_key).may_pass());
    }
}
