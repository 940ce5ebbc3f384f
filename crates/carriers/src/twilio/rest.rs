//! Twilio's REST API, version 2010-04-01: tests a connection and steers calls that run.
//! It keeps nothing between requests and makes no second attempt where one could ring a phone twice.

use super::errors::sentence;
use super::twiml::{Answer, Tones, Verb};
use super::webhook::{address, answered_by, call_status, direction, rfc_2822_us};
use crate::{Area, CallRecord, CarrierError, Verdict};
use offhook_core::{Pii, Secret};
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::time::Duration;
use url::Url;

/// How long one request may take in all.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before a harmless request is made once more.
pub const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The largest answer that is read; a page of calls is about 130 KiB.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// The most characters of a document that travels by REST.
pub const MAX_DOCUMENT_CHARS: usize = 4000;
/// The most pages of one list that are read, of [`PAGE_SIZE`] calls each.
pub const MAX_PAGES: usize = 20;
/// How many calls are asked for at once.
pub const PAGE_SIZE: usize = 50;

const VERSION: &str = "2010-04-01";
const STATUS_EVENTS: [&str; 4] = ["initiated", "ringing", "answered", "completed"];
const REGIONS: [&str; 3] = ["us1", "ie1", "au1"];
const EDGES: [&str; 8] =
    ["ashburn", "dublin", "frankfurt", "sao-paulo", "singapore", "sydney", "tokyo", "umatilla"];

/// Whether this can be the id of an account: `AC` and 32 hexadecimal digits.
pub fn is_account(id: &str) -> bool {
    let digits = id.strip_prefix("AC").unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether this can be the id of an API key: `SK` and 32 hexadecimal digits.
pub fn is_api_key(id: &str) -> bool {
    let digits = id.strip_prefix("SK").unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// One account at Twilio.
#[derive(Clone, Debug)]
pub struct Twilio {
    http: Client,
    base: Url,
    account: String,
    credentials: Credentials,
    timeout: Duration,
}

/// What proves that the account is the user's.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// The account's auth token.
    AuthToken(Secret<String>),
    /// An API key; a standard one sees everything but the account itself.
    ApiKey {
        /// Its id.
        sid: String,
        /// Its secret.
        secret: Secret<String>,
    },
}

/// What a live call shall do from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steer {
    /// Ask this page.
    Ask(Url),
    /// Do this.
    Do(Answer),
}

/// A call to be made.
#[derive(Clone, Debug)]
pub struct NewCall {
    /// Whom to ring: a number, `sip:…` or `client:…`.
    pub to: Pii<String>,
    /// Who is seen to ring.
    pub from: Pii<String>,
    /// What to do once somebody picks up.
    pub then: Steer,
    /// The page to tell of every change of status.
    pub status_callback: Option<Url>,
    /// Keys to press once somebody picks up.
    pub tones: Option<Tones>,
    /// Seconds to let it ring; the carrier's default is 60.
    pub ring_timeout_s: Option<u16>,
    /// Seconds after which the call is cut.
    pub time_limit_s: Option<u32>,
}

/// Which calls to list; all that are given must hold.
#[derive(Clone, Debug, Default)]
pub struct CallFilter {
    /// Who was rung.
    pub to: Option<Pii<String>>,
    /// Who rang.
    pub from: Option<Pii<String>>,
    /// Calls that started no earlier, µs since 1970 UTC, and those that wait to start.
    pub started_from_us: Option<i64>,
}

/// Why a host cannot be the carrier's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAHost {
    /// With one of them, requests may be routed to another region, where the credentials do not exist.
    #[error("region and edge are given together or not at all")]
    RegionWithoutEdge,
    /// Not one of the documented regions.
    #[error("the region is one of us1, ie1 and au1")]
    UnknownRegion,
    /// Not one of the documented edges.
    #[error(
        "the edge is one of ashburn, dublin, frankfurt, sao-paulo, singapore, sydney, tokyo and umatilla"
    )]
    UnknownEdge,
    /// A base URL of another kind.
    #[error("the carrier's base URL begins with https:// or http://")]
    NotHttp,
}

/// The base URL of the API in a region; without region and edge that of `us1`.
pub fn api_host(region: Option<&str>, edge: Option<&str>) -> Result<Url, NotAHost> {
    let host = match (region, edge) {
        (None, None) => "https://api.twilio.com".to_owned(),
        (Some(region), Some(_)) if !REGIONS.contains(&region) => return Err(NotAHost::UnknownRegion),
        (Some(_), Some(edge)) if !EDGES.contains(&edge) => return Err(NotAHost::UnknownEdge),
        (Some(region), Some(edge)) => format!("https://api.{edge}.{region}.twilio.com"),
        _ => return Err(NotAHost::RegionWithoutEdge),
    };
    Ok(host.parse().expect("a host of known words is a URL"))
}

impl Twilio {
    /// An account behind a base URL: that of [`api_host`], or a stand-in's.
    pub fn new(http: Client, base: Url, account: &str, credentials: Credentials) -> Result<Self, NotAHost> {
        if !matches!(base.scheme(), "https" | "http") {
            return Err(NotAHost::NotHttp);
        }
        Ok(Twilio { http, base, account: account.to_owned(), credentials, timeout: REQUEST_TIMEOUT })
    }

    /// Waits less or more than [`REQUEST_TIMEOUT`] for each answer.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Tries what Offhook needs, changing nothing. An error means that the test itself could not be made.
    pub async fn check(&self) -> Result<Verdict, CarrierError> {
        match self.check_areas().await {
            Ok(trial) => Ok(Verdict::Ok { trial }),
            Err(CarrierError::Unreachable { .. }) => Ok(Verdict::Unreachable),
            Err(CarrierError::WrongCredentials | CarrierError::NotFound) => Ok(Verdict::WrongCredentials),
            Err(CarrierError::Suspended) => Ok(Verdict::Suspended),
            Err(CarrierError::Closed) => Ok(Verdict::Closed),
            Err(CarrierError::MissingPermission { area }) => Ok(Verdict::MissingPermission(area)),
            Err(other) => Err(other),
        }
    }

    async fn check_areas(&self) -> Result<Option<bool>, CarrierError> {
        let mut trial = None;
        // A standard API key may not see the account, right as it is.
        if let Credentials::AuthToken(_) = self.credentials {
            let account: AccountResource =
                self.read(Area::Account, self.endpoint(&[&format!("{}.json", self.account)])).await?;
            match account.status.as_str() {
                "suspended" => return Err(CarrierError::Suspended),
                "closed" => return Err(CarrierError::Closed),
                _ => trial = Some(account.kind == "Trial"),
            }
        }
        for (area, list) in [
            (Area::Numbers, "IncomingPhoneNumbers.json"),
            (Area::Voice, "Calls.json"),
            (Area::Messages, "Messages.json"),
        ] {
            let mut url = self.endpoint(&[&self.account, list]);
            url.query_pairs_mut().append_pair("PageSize", "1");
            self.read::<serde::de::IgnoredAny>(area, url).await?;
        }
        Ok(trial)
    }

    /// Ends a call at whatever point it is; that it is over already is no error.
    pub async fn hang_up(&self, carrier_call: &str) -> Result<(), CarrierError> {
        let form = [("Status", Cow::from("completed"))];
        let mut result = self.change(self.call_url(carrier_call), &form).await;
        if matches!(result, Err(CarrierError::Unreachable { .. } | CarrierError::OutcomeUnknown { .. })) {
            tokio::time::sleep(RETRY_PAUSE).await;
            result = self.change(self.call_url(carrier_call), &form).await;
        }
        match result {
            Ok(_) | Err(CarrierError::CallOver) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a live call do something else; this also ends its media stream.
    pub async fn steer(&self, carrier_call: &str, to: &Steer) -> Result<(), CarrierError> {
        self.change(self.call_url(carrier_call), &[steering(to)?]).await.map(drop)
    }

    /// Presses keys in a live call, then goes on with `then`: without it the call would end.
    pub async fn press(&self, carrier_call: &str, tones: &Tones, then: &[Verb]) -> Result<(), CarrierError> {
        let verbs = std::iter::once(Verb::PlayTones(tones.clone())).chain(then.iter().cloned()).collect();
        self.steer(carrier_call, &Steer::Do(Answer::Run(verbs))).await
    }

    /// The call as the carrier remembers it.
    pub async fn call(&self, carrier_call: &str) -> Result<CallRecord, CarrierError> {
        let call: CallResource = self.read(Area::Voice, self.call_url(carrier_call)).await?;
        call.record().ok_or_else(|| unreadable(Harm::None))
    }

    /// Calls of the account, newest first: the way to learn whether a call was made when its outcome is unknown.
    pub async fn calls(&self, filter: &CallFilter) -> Result<Vec<CallRecord>, CarrierError> {
        let mut url = self.endpoint(&[&self.account, "Calls.json"]);
        let since = filter.started_from_us.map(utc_date);
        let given = [
            ("To", filter.to.as_ref().map(|to| to.expose().as_str())),
            ("From", filter.from.as_ref().map(|from| from.expose().as_str())),
            // The name has the sign in it: `StartTime>=2026-11-21`, "on or after this date".
            ("StartTime>", since.as_deref()),
        ];
        url.query_pairs_mut().append_pair("PageSize", &PAGE_SIZE.to_string());
        url.query_pairs_mut()
            .extend_pairs(given.into_iter().filter_map(|(name, value)| Some((name, value?))));

        let mut calls = Vec::new();
        for _ in 0..MAX_PAGES {
            let page: CallPage = self.read(Area::Voice, url.clone()).await?;
            for call in page.calls {
                let record = call.record().ok_or_else(|| unreadable(Harm::None))?;
                if record.started_us.zip(filter.started_from_us).is_none_or(|(at, from)| at >= from) {
                    calls.push(record);
                }
            }
            match page.next_page_uri {
                Some(next) => url = self.page_url(&next).ok_or_else(|| unreadable(Harm::None))?,
                None => break,
            }
        }
        Ok(calls)
    }

    /// Rings somebody. Twilio knows no idempotency key: after [`CarrierError::OutcomeUnknown`] look with [`Twilio::calls`].
    pub async fn dial(&self, call: &NewCall) -> Result<CallRecord, CarrierError> {
        let mut form = vec![
            ("To", Cow::from(call.to.expose())),
            ("From", Cow::from(call.from.expose())),
            steering(&call.then)?,
        ];
        if let Some(page) = &call.status_callback {
            form.push(("StatusCallback", page.as_str().into()));
            form.extend(STATUS_EVENTS.map(|event| ("StatusCallbackEvent", event.into())));
        }
        form.extend(call.tones.iter().map(|tones| ("SendDigits", tones.as_str().into())));
        form.extend(call.ring_timeout_s.map(|s| ("Timeout", s.to_string().into())));
        form.extend(call.time_limit_s.map(|s| ("TimeLimit", s.to_string().into())));
        let body = self.change(self.endpoint(&[&self.account, "Calls.json"]), &form).await?;
        let call: Option<CallResource> = serde_json::from_slice(&body).ok();
        call.and_then(CallResource::record).ok_or_else(|| unreadable(Harm::Possible))
    }

    fn call_url(&self, carrier_call: &str) -> Url {
        self.endpoint(&[&self.account, "Calls", &format!("{carrier_call}.json")])
    }

    fn endpoint(&self, below_accounts: &[&str]) -> Url {
        let mut url = self.base.clone();
        let mut path = url.path_segments_mut().expect("an http URL has a path");
        path.pop_if_empty().extend([VERSION, "Accounts"]).extend(below_accounts);
        drop(path);
        url
    }

    /// The next page of a list, which must stay in this API: our credentials go nowhere else.
    fn page_url(&self, uri: &str) -> Option<Url> {
        let path = uri.strip_prefix('/').filter(|path| path.starts_with(VERSION))?;
        format!("{}/{path}", self.base.as_str().trim_end_matches('/')).parse().ok()
    }

    async fn read<T: DeserializeOwned>(&self, area: Area, url: Url) -> Result<T, CarrierError> {
        let attempt = || self.send(self.http.get(url.clone()), area, Harm::None);
        let mut answer = attempt().await;
        if matches!(answer, Err(CarrierError::Unreachable { .. })) {
            tokio::time::sleep(RETRY_PAUSE).await;
            answer = attempt().await;
        }
        serde_json::from_slice(&answer?).map_err(|_| unreadable(Harm::None))
    }

    async fn change(&self, url: Url, form: &[(&str, Cow<'_, str>)]) -> Result<Vec<u8>, CarrierError> {
        self.send(self.http.post(url).form(form), Area::Voice, Harm::Possible).await
    }

    async fn send(&self, request: RequestBuilder, area: Area, harm: Harm) -> Result<Vec<u8>, CarrierError> {
        let request = match &self.credentials {
            Credentials::AuthToken(token) => request.basic_auth(&self.account, Some(token.expose())),
            Credentials::ApiKey { sid, secret } => request.basic_auth(sid, Some(secret.expose())),
        };
        let response = request.timeout(self.timeout).send().await.map_err(|e| broken(&e, harm))?;
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after_s = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = body_of(response, harm).await;
        if status.is_success() {
            return body;
        }
        let problem = body.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
        Err(refusal(status, problem, retry_after_s, area, harm))
    }
}

/// Whether a request that got no answer may have changed something.
#[derive(Clone, Copy)]
enum Harm {
    None,
    Possible,
}

impl Harm {
    fn error(self, cause: impl Into<Cow<'static, str>>) -> CarrierError {
        let cause = cause.into();
        match self {
            Harm::None => CarrierError::Unreachable { cause },
            Harm::Possible => CarrierError::OutcomeUnknown { cause },
        }
    }
}

fn broken(error: &reqwest::Error, harm: Harm) -> CarrierError {
    if error.is_connect() {
        Harm::None.error("no connection")
    } else if error.is_builder() {
        Harm::None.error("the request could not be built")
    } else if error.is_timeout() {
        harm.error("no answer in time")
    } else {
        harm.error("the connection broke")
    }
}

fn unreadable(harm: Harm) -> CarrierError {
    harm.error("its answer cannot be read")
}

async fn body_of(mut response: Response, harm: Harm) -> Result<Vec<u8>, CarrierError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| broken(&e, harm))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(harm.error("its answer is too large"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn refusal(
    status: StatusCode,
    problem: Problem,
    retry_after_s: Option<u32>,
    area: Area,
    harm: Harm,
) -> CarrierError {
    match (problem.code, status.as_u16()) {
        (Some(70051), _) => CarrierError::MissingPermission { area },
        (Some(20003), _) | (None, 401) => CarrierError::WrongCredentials,
        (Some(20429), _) | (_, 429) => CarrierError::RateLimited { retry_after_s },
        (Some(20404), _) | (None, 404) => CarrierError::NotFound,
        (Some(21220), _) => CarrierError::CallOver,
        (_, 500..) => harm.error(format!("HTTP status {}", status.as_u16())),
        (code, status) => {
            let code = code.unwrap_or(status.into());
            let sentence = match sentence(code) {
                Some(sentence) => sentence.into(),
                None => format!("see https://www.twilio.com/docs/errors/{code}").into(),
            };
            CarrierError::Refused { code, sentence, detail: Pii::new(problem.message) }
        }
    }
}

fn steering(to: &Steer) -> Result<(&'static str, Cow<'_, str>), CarrierError> {
    match to {
        Steer::Ask(page) => Ok(("Url", page.as_str().into())),
        Steer::Do(answer) => {
            let document = answer.render();
            if document.chars().count() > MAX_DOCUMENT_CHARS {
                return Err(CarrierError::NotAskable(
                    "an answer sent to a live call has at most 4,000 characters",
                ));
            }
            Ok(("Twiml", document.into()))
        }
    }
}

fn utc_date(at_us: i64) -> String {
    jiff::Timestamp::from_microsecond(at_us)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%d")
        .to_string()
}

#[derive(Default, Deserialize)]
struct Problem {
    code: Option<u32>,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct AccountResource {
    status: String,
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Deserialize)]
struct CallPage {
    calls: Vec<CallResource>,
    next_page_uri: Option<String>,
}

#[derive(Deserialize)]
struct CallResource {
    sid: String,
    from: Option<String>,
    to: Option<String>,
    status: String,
    direction: Option<String>,
    start_time: Option<String>,
    end_time: Option<String>,
    duration: Option<String>,
    answered_by: Option<String>,
}

impl CallResource {
    /// Nothing if the status is none that is documented.
    fn record(self) -> Option<CallRecord> {
        Some(CallRecord {
            from: address(self.from.as_deref().unwrap_or_default()),
            to: address(self.to.as_deref().unwrap_or_default()),
            direction: direction(self.direction.as_deref().unwrap_or_default()),
            status: call_status(&self.status)?,
            started_us: self.start_time.as_deref().and_then(rfc_2822_us),
            ended_us: self.end_time.as_deref().and_then(rfc_2822_us),
            duration_s: self.duration.and_then(|s| s.parse().ok()),
            answered_by: self.answered_by.as_deref().map(answered_by),
            carrier_call: self.sid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_and_edge_go_together() {
        let host = |region, edge| api_host(region, edge).map(String::from);
        assert_eq!(host(None, None).unwrap(), "https://api.twilio.com/");
        assert_eq!(host(Some("ie1"), Some("dublin")).unwrap(), "https://api.dublin.ie1.twilio.com/");
        assert_eq!(host(Some("ie1"), None), Err(NotAHost::RegionWithoutEdge));
        assert_eq!(host(None, Some("dublin")), Err(NotAHost::RegionWithoutEdge));
        assert_eq!(host(Some("evil.example/"), Some("dublin")), Err(NotAHost::UnknownRegion));
        assert_eq!(host(Some("ie1"), Some("paris")), Err(NotAHost::UnknownEdge));
    }

    #[test]
    fn a_document_for_a_live_call_is_short() {
        let say = |length| {
            Steer::Do(Answer::Run(vec![Verb::Say(super::super::Speech::new(&"a".repeat(length)).unwrap())]))
        };
        assert!(steering(&say(3_900)).is_ok());
        assert!(matches!(steering(&say(4_000)), Err(CarrierError::NotAskable(_))));
    }
}
