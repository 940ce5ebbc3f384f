//! The client of Telnyx's REST API, version 2: its key, lists and refusals. What is asked of it stands in the files beside this one.
//! It keeps nothing between requests; a second attempt is made only of what changes nothing, or carries a `command_id`.

use super::errors::sentence;
use crate::http::{Harm, REQUEST_TIMEOUT, RETRY_PAUSE, body_of, broken};
use crate::{Area, CarrierError};
use offhook_core::{Pii, Secret};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// The most entries of a page of a list.
pub const MAX_PAGE_SIZE: usize = 250;
/// The most pages of one list that are read.
pub const MAX_PAGES: usize = 50;
/// When the requests of this second are used up, this header tells for how many seconds.
const RATE_RESET: &str = "x-ratelimit-reset";

/// One account at Telnyx. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telnyx {
    http: Client,
    base: Url,
    key: Secret<String>,
    timeout: Duration,
}

/// Why these cannot lead to an account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAccount {
    /// A base URL of another kind.
    #[error("the carrier's base URL begins with https:// or http://")]
    NotHttp,
    /// A key that could not travel in a header, or none.
    #[error("an API key is one word of letters, digits and signs, such as KEY0123ABCD_xyz")]
    NotAKey,
}

/// The base URL of the API.
pub fn api_host() -> Url {
    "https://api.telnyx.com/v2/".parse().expect("it is a URL")
}

impl Telnyx {
    /// An account behind a base URL: that of [`api_host`], or a stand-in's. Blanks around the key are dropped.
    pub fn new(http: Client, base: Url, key: &Secret<String>) -> Result<Self, NotAnAccount> {
        if !matches!(base.scheme(), "https" | "http") {
            return Err(NotAnAccount::NotHttp);
        }
        let key = key.expose().trim();
        // Without a key Telnyx may say "not found", which would be misunderstood.
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NotAnAccount::NotAKey);
        }
        Ok(Telnyx { http, base, key: Secret::new(key.to_owned()), timeout: REQUEST_TIMEOUT })
    }

    /// Waits less or more than 10 seconds for each answer.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A page of the API; the parts are encoded, so that none of them can lead elsewhere.
    pub(super) fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http URL has a path").pop_if_empty().extend(path);
        url
    }

    /// The entries of a list, over all its pages, but no more than `most`.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        area: Area,
        url: &Url,
        most: usize,
    ) -> Result<Vec<T>, CarrierError> {
        let size = most.clamp(1, MAX_PAGE_SIZE);
        let mut entries = Vec::new();
        for number in 1..=MAX_PAGES {
            let mut url = url.clone();
            url.query_pairs_mut()
                .append_pair("page[number]", &number.to_string())
                .append_pair("page[size]", &size.to_string());
            let page: Page<T> = self.get(area, &url).await?;
            let came = page.data.len();
            entries.extend(page.data);
            let more = page.meta.and_then(|meta| meta.total_pages).is_none_or(|pages| number < pages);
            if !more || came < size || entries.len() >= most {
                break;
            }
        }
        entries.truncate(most);
        Ok(entries)
    }

    /// One thing.
    pub(super) async fn read<T: DeserializeOwned>(&self, area: Area, url: &Url) -> Result<T, CarrierError> {
        let answer: Answer<T> = self.get(area, url).await?;
        Ok(answer.data)
    }

    /// Asks what changes nothing; once more if nobody answers.
    pub(super) async fn get<T: DeserializeOwned>(&self, area: Area, url: &Url) -> Result<T, CarrierError> {
        let attempt = || self.send(self.http.get(url.clone()), area, Harm::None);
        let mut answer = attempt().await;
        if matches!(answer, Err(CarrierError::Unreachable { .. })) {
            tokio::time::sleep(RETRY_PAUSE).await;
            answer = attempt().await;
        }
        serde_json::from_slice(&answer?).map_err(|_| Harm::None.unreadable())
    }

    /// Changes something, once, and reads what it is then.
    pub(super) async fn change<T: DeserializeOwned>(
        &self,
        area: Area,
        method: Method,
        url: Url,
        body: &Value,
    ) -> Result<T, CarrierError> {
        let answer = self.send(self.http.request(method, url).json(body), area, Harm::Possible).await?;
        let answer: Answer<T> = serde_json::from_slice(&answer).map_err(|_| Harm::Possible.unreadable())?;
        Ok(answer.data)
    }

    /// Gives a command that carries a `command_id`: it is given once more if its outcome is unknown, for a repeat is ignored.
    pub(super) async fn command(&self, area: Area, url: Url, body: &Value) -> Result<(), CarrierError> {
        let attempt = || self.change::<IgnoredAny>(area, Method::POST, url.clone(), body);
        let mut outcome = attempt().await;
        if matches!(outcome, Err(CarrierError::Unreachable { .. } | CarrierError::OutcomeUnknown { .. })) {
            tokio::time::sleep(RETRY_PAUSE).await;
            outcome = attempt().await;
        }
        outcome.map(drop)
    }

    pub(super) async fn delete(&self, area: Area, url: Url) -> Result<(), CarrierError> {
        self.send(self.http.delete(url), area, Harm::Possible).await.map(drop)
    }

    async fn send(&self, request: RequestBuilder, area: Area, harm: Harm) -> Result<Vec<u8>, CarrierError> {
        let request = request.bearer_auth(self.key.expose()).timeout(self.timeout);
        let response = request.send().await.map_err(|e| broken(&e, harm))?;
        let status = response.status();
        let retry_after_s = retry_after_s(response.headers());
        let body = body_of(response, harm).await;
        if status.is_success() {
            return body;
        }
        let problems: Problems =
            body.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
        let problem = problems.errors.into_iter().next().unwrap_or_default();
        Err(refusal(status, problem, retry_after_s, area, harm))
    }
}

fn retry_after_s(headers: &HeaderMap) -> Option<u32> {
    let seconds = |value: &reqwest::header::HeaderValue| value.to_str().ok()?.trim().parse().ok();
    headers.get(RETRY_AFTER).and_then(seconds).or_else(|| headers.get(RATE_RESET).and_then(seconds))
}

fn refusal(
    status: StatusCode,
    problem: Problem,
    retry_after_s: Option<u32>,
    area: Area,
    harm: Harm,
) -> CarrierError {
    if let Some(state) = account_state(&problem) {
        return state;
    }
    match (problem.code.0, status.as_u16()) {
        // The code comes with other meanings too, such as a kind of encryption that is not offered.
        (Some(90103), _) | (_, 429) => CarrierError::RateLimited { retry_after_s },
        (Some(10009), _) | (_, 401) => CarrierError::WrongCredentials,
        (Some(10010), _) | (None, 403) => CarrierError::MissingPermission { area },
        (Some(10005 | 10006), _) | (None, 404) => CarrierError::NotFound,
        (Some(90015 | 90018), _) => CarrierError::CallOver,
        (_, status @ (408 | 500..)) => harm.error(format!("HTTP status {status}")),
        (code, status) => {
            let code = code.unwrap_or(status.into());
            let sentence = match sentence(code) {
                Some(sentence) => sentence.into(),
                None => format!("see https://developers.telnyx.com/docs/overview/errors/{code}").into(),
            };
            CarrierError::Refused { code, sentence, detail: Pii::new(problem.words()) }
        }
    }
}

/// The codes of a stopped account are not among our facts, so its title is read.
fn account_state(problem: &Problem) -> Option<CarrierError> {
    let title = problem.title.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| title.contains(word));
    if !title.contains("account") {
        None
    } else if says(&["closed", "deleted", "cancelled", "canceled"]) {
        Some(CarrierError::Closed)
    } else if says(&["inactive", "blocked", "suspended", "disabled"]) {
        Some(CarrierError::Suspended)
    } else {
        None
    }
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Page<T> {
    // Without the bound that serde would guess.
    #[serde(bound = "T: DeserializeOwned")]
    data: Vec<T>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    total_pages: Option<usize>,
}

#[derive(Default, Deserialize)]
struct Problems {
    #[serde(default)]
    errors: Vec<Problem>,
}

#[derive(Default, Deserialize)]
struct Problem {
    #[serde(default)]
    code: Code,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    source: Option<Source>,
}

#[derive(Deserialize)]
struct Source {
    pointer: Option<String>,
    parameter: Option<String>,
}

impl Problem {
    /// Telnyx's own words, with the place in the request where they say it.
    fn words(self) -> String {
        let place = self.source.and_then(|source| source.pointer.or(source.parameter));
        let detail = self.detail.filter(|detail| !detail.is_empty()).unwrap_or(self.title);
        match place {
            Some(place) => format!("{detail} ({place})"),
            None => detail,
        }
    }
}

/// The code of an error, written as a text; a number is taken too.
#[derive(Clone, Copy, Default)]
pub(super) struct Code(pub(super) Option<u32>);

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = Value::deserialize(deserializer)?;
        let number = code.as_u64().and_then(|number| number.try_into().ok());
        Ok(Code(number.or_else(|| code.as_str()?.parse().ok())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_cannot_be_one_is_not_tried() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let with = |base: &str, key: &str| {
            Telnyx::new(Client::new(), base.parse().unwrap(), &Secret::new(key.into())).err()
        };
        assert_eq!(with("https://api.telnyx.com/v2", " KEY01_a-b.c\n"), None);
        for key in ["", " \n", "KEY 01", "KEY01\u{7f}", "schlüssel"] {
            assert_eq!(with("https://api.telnyx.com/v2", key), Some(NotAnAccount::NotAKey), "{key:?}");
        }
        assert_eq!(with("ftp://api.telnyx.com", "KEY01"), Some(NotAnAccount::NotHttp));
    }

    #[test]
    fn a_refusal_is_sorted_by_what_can_be_done() {
        let sorted = |status: u16, code: &str, title: &str| {
            let body = format!(
                r#"{{"errors":[{{"code":{code},"title":"{title}","detail":"why","source":{{"pointer":"/to"}}}}]}}"#
            );
            let problems: Problems = serde_json::from_str(&body).unwrap();
            let problem = problems.errors.into_iter().next().unwrap();
            refusal(StatusCode::from_u16(status).unwrap(), problem, Some(3), Area::Voice, Harm::Possible)
        };
        assert!(matches!(sorted(401, r#""10009""#, ""), CarrierError::WrongCredentials));
        assert!(matches!(
            sorted(403, r#""10010""#, ""),
            CarrierError::MissingPermission { area: Area::Voice }
        ));
        assert!(matches!(sorted(403, r#""20012""#, "Account inactive"), CarrierError::Suspended));
        assert!(matches!(sorted(403, r#""20012""#, "Account closed"), CarrierError::Closed));
        assert!(matches!(sorted(404, r#""10005""#, ""), CarrierError::NotFound));
        assert!(matches!(sorted(422, r#""90018""#, ""), CarrierError::CallOver));
        assert!(matches!(sorted(422, "90015", ""), CarrierError::CallOver));
        assert!(matches!(
            sorted(429, r#""10011""#, ""),
            CarrierError::RateLimited { retry_after_s: Some(3) }
        ));
        assert!(matches!(sorted(403, r#""90103""#, ""), CarrierError::RateLimited { .. }));
        assert!(matches!(sorted(503, r#""10007""#, ""), CarrierError::OutcomeUnknown { .. }));
        assert!(matches!(sorted(408, r#""10008""#, ""), CarrierError::OutcomeUnknown { .. }));
        let CarrierError::Refused { code, detail, .. } = sorted(422, r#""10016""#, "Phone number") else {
            panic!()
        };
        assert_eq!((code, detail.expose().as_str()), (10016, "why (/to)"));
        // Telnyx gives this code to a request that asks for too much of a call, too.
        assert!(matches!(sorted(422, r#""10011""#, ""), CarrierError::Refused { code: 10011, .. }));
    }
}
