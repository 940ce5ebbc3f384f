//! The client of Twilio's REST API: its hosts, credentials, lists and refusals. What is asked of it stands in the files beside this one.
//! It keeps nothing between requests and makes no second attempt at what changes something.

use super::errors::sentence_or_link;
use crate::http::{Harm, REQUEST_TIMEOUT, RETRY_PAUSE, body_of, broken};
use crate::{Area, CarrierError};
use offhook_core::{Pii, Secret};
use reqwest::{Client, RequestBuilder, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;
use url::{Position, Url};

/// The most pages of one list that are read.
pub const MAX_PAGES: usize = 50;

const VERSION: &str = "2010-04-01";
pub(super) const REGIONS: [&str; 3] = ["us1", "ie1", "au1"];
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

/// The hosts of Twilio's products. Where the base URL is not Twilio's own, all are behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Api,
    Messaging,
    Monitor,
    Trunking,
}

impl Host {
    fn label(self) -> &'static str {
        match self {
            Host::Api => "api",
            Host::Messaging => "messaging",
            Host::Monitor => "monitor",
            Host::Trunking => "trunking",
        }
    }
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

impl Credentials {
    /// Whether they have the shape of credentials: what was pasted in half has not.
    pub(super) fn could_be(&self) -> bool {
        match self {
            Credentials::AuthToken(token) => {
                let token = token.expose();
                token.len() >= 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit())
            }
            Credentials::ApiKey { sid, secret } => is_api_key(sid) && !secret.expose().is_empty(),
        }
    }
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

    /// Waits less or more than ten seconds for each answer.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(super) fn account(&self) -> &str {
        &self.account
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Whether the base URL is Twilio's own: `api.twilio.com`, `api.dublin.ie1.twilio.com`.
    fn is_at_twilio(&self) -> bool {
        self.base.host_str().is_some_and(|host| host.starts_with("api.") && host.ends_with(".twilio.com"))
    }

    /// The same account in another of Twilio's regions, if it is at Twilio and not in that region already.
    pub(super) fn in_region(&self, region: &str) -> Option<Twilio> {
        let host = match region {
            "us1" => "api.twilio.com",
            "ie1" => "api.dublin.ie1.twilio.com",
            "au1" => "api.sydney.au1.twilio.com",
            _ => return None,
        };
        let here = self.base.host_str().filter(|_| self.is_at_twilio())?;
        if here == host || here.contains(&format!(".{region}.")) {
            return None;
        }
        let mut there = self.clone();
        there.base.set_host(Some(host)).ok()?;
        Some(there)
    }

    /// A page of the account's API.
    pub(super) fn endpoint(&self, below_accounts: &[&str]) -> Url {
        let mut url = self.on(Host::Api, &[VERSION, "Accounts"]);
        url.path_segments_mut().expect("an http URL has a path").extend(below_accounts);
        url
    }

    /// A page of one of the products.
    pub(super) fn on(&self, host: Host, path: &[&str]) -> Url {
        let mut url = self.base_of(host);
        url.path_segments_mut().expect("an http URL has a path").pop_if_empty().extend(path);
        url
    }

    fn base_of(&self, host: Host) -> Url {
        let mut url = self.base.clone();
        if self.is_at_twilio() {
            let elsewhere = self.base.host_str().map(|own| own.replacen("api", host.label(), 1));
            url.set_host(elsewhere.as_deref()).expect("another label makes another host");
        }
        url
    }

    /// The next page of a list. It must be Twilio's, and only its path is believed: our credentials go nowhere else.
    fn page_url(&self, host: Host, next: &str) -> Option<Url> {
        let base = self.base_of(host);
        let next = base.join(next).ok()?;
        let named = next.host_str()?;
        let believed = base.host_str() == Some(named) || named.ends_with(".twilio.com");
        let below = &next[Position::BeforePath..Position::AfterQuery];
        let version = below.split('/').nth(1)?;
        if !believed || !(version == VERSION || version == "v1") {
            return None;
        }
        format!("{}{below}", base.as_str().trim_end_matches('/')).parse().ok()
    }

    /// The entries of a list, over all its pages, but no more than `most`.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        area: Area,
        host: Host,
        first: Url,
        key: &str,
        most: usize,
    ) -> Result<Vec<T>, CarrierError> {
        let mut entries = Vec::new();
        let mut url = first;
        for _ in 0..MAX_PAGES {
            let mut page: Page = self.read(area, url).await?;
            let listed = page.lists.remove(key).unwrap_or(Value::Array(vec![]));
            let listed: Vec<T> = serde_json::from_value(listed).map_err(|_| Harm::None.unreadable())?;
            entries.extend(listed);
            let next = page.next_page_uri.or(page.meta.and_then(|meta| meta.next_page_url));
            match next.filter(|next| !next.is_empty() && entries.len() < most) {
                Some(next) => url = self.page_url(host, &next).ok_or_else(|| Harm::None.unreadable())?,
                None => break,
            }
        }
        entries.truncate(most);
        Ok(entries)
    }

    /// Asks what changes nothing; once more if nobody answers.
    pub(super) async fn read<T: DeserializeOwned>(&self, area: Area, url: Url) -> Result<T, CarrierError> {
        let attempt = || self.send(self.http.get(url.clone()), area, Harm::None);
        let mut answer = attempt().await;
        if matches!(answer, Err(CarrierError::Unreachable { .. })) {
            tokio::time::sleep(RETRY_PAUSE).await;
            answer = attempt().await;
        }
        serde_json::from_slice(&answer?).map_err(|_| Harm::None.unreadable())
    }

    pub(super) async fn change(
        &self,
        area: Area,
        url: Url,
        form: &[(&str, Cow<'_, str>)],
    ) -> Result<Vec<u8>, CarrierError> {
        self.send(self.http.post(url).form(form), area, Harm::Possible).await
    }

    pub(super) async fn delete(&self, area: Area, url: Url) -> Result<(), CarrierError> {
        self.send(self.http.delete(url), area, Harm::Possible).await.map(drop)
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
            CarrierError::Refused {
                code,
                sentence: sentence_or_link(code),
                detail: Pii::new(problem.message),
            }
        }
    }
}

/// A time as requests write it, to the second.
pub(super) fn utc_second(at_us: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(at_us).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// One page of a list: the API names the next one beside the entries, the other products below `meta`.
#[derive(Deserialize)]
struct Page {
    next_page_uri: Option<String>,
    meta: Option<Meta>,
    #[serde(flatten)]
    lists: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Meta {
    next_page_url: Option<String>,
}

#[derive(Default, Deserialize)]
struct Problem {
    code: Option<u32>,
    #[serde(default)]
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static HTTP: LazyLock<Client> = LazyLock::new(|| {
        // Another test of this binary may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::new()
    });

    fn account(base: &str) -> Twilio {
        let token = Credentials::AuthToken(Secret::new("0123456789abcdef".into()));
        Twilio::new(HTTP.clone(), base.parse().unwrap(), "AC1", token).unwrap()
    }

    #[test]
    fn each_product_has_its_host_where_the_account_is() {
        let at = |base: &str| account(base).on(Host::Trunking, &["v1", "Trunks"]).to_string();
        assert_eq!(at("https://api.twilio.com"), "https://trunking.twilio.com/v1/Trunks");
        assert_eq!(
            at("https://api.dublin.ie1.twilio.com"),
            "https://trunking.dublin.ie1.twilio.com/v1/Trunks"
        );
        assert_eq!(at("http://127.0.0.1:9/sim/"), "http://127.0.0.1:9/sim/v1/Trunks");
        assert_eq!(
            at("https://api.twilio.com.evil.example"),
            "https://api.twilio.com.evil.example/v1/Trunks"
        );
    }

    #[test]
    fn only_twilio_is_asked_in_other_regions() {
        let host =
            |base: &str, region: &str| account(base).in_region(region).map(|there| there.base.to_string());
        assert_eq!(host("https://api.twilio.com", "ie1").unwrap(), "https://api.dublin.ie1.twilio.com/");
        assert_eq!(host("https://api.sydney.au1.twilio.com", "us1").unwrap(), "https://api.twilio.com/");
        for (base, region) in [
            ("https://api.twilio.com", "us1"),
            ("https://api.ashburn.us1.twilio.com", "us1"),
            ("https://api.dublin.ie1.twilio.com", "ie1"),
            ("http://127.0.0.1:9", "ie1"),
            ("https://proxy.example", "ie1"),
        ] {
            assert_eq!(host(base, region), None, "{base} {region}");
        }
    }

    proptest! {
        #[test]
        fn the_next_page_is_where_the_list_is(
            next in r"(https?:)?(//)?([a-z@:.]{0,12}(evil\.example|api\.twilio\.com)?)/(2010-04-01|v1|v2)?[a-z0-9@:/?&=.%\\-]{0,20}|.{0,30}",
        ) {
            for base in ["https://api.twilio.com", "http://127.0.0.1:9/sim"] {
                if let Some(page) = account(base).page_url(Host::Monitor, &next) {
                    let home = account(base).on(Host::Monitor, &[]);
                    prop_assert_eq!(page.origin(), home.origin());
                    prop_assert_eq!((page.username(), page.password()), ("", None));
                }
            }
        }
    }

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
}
