//! Requests to the customer's server as Twilio makes them: signed, with its timeouts, its one retry and its redirects.
//! It does not know what a call is: it is given parameters and hands back what was answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use offhook_core::Secret;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::Serializer;

use super::{Proxy, random_hex, sign};

/// No webhook of a call may take longer, retries included.
const TOTAL_LIMIT_MS: u64 = 15_000;
const DEFAULT_CONNECT_MS: u64 = 5_000;
const MAX_REDIRECTS: usize = 10;
/// A longer document is refused (error 11750).
const MAX_ANSWER_BYTES: usize = 64 * 1024;
const MAX_RECORDS: usize = 10_000;
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
const WRONG_TOKEN: &str = "ffffffffffffffffffffffffffffffff";

/// How the requests of a call are signed: only `Right` may be accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signing {
    /// As documented.
    #[default]
    Right,
    /// With another account's token.
    WrongToken,
    /// Without the header.
    Unsigned,
    /// Rightly, but a parameter is added afterwards.
    TamperedBody,
}

/// How a request is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum HttpMethod {
    /// Parameters in the query.
    #[serde(rename = "GET")]
    Get,
    /// Parameters as a form.
    #[default]
    #[serde(rename = "POST")]
    Post,
}

impl HttpMethod {
    pub(super) fn parse(name: &str) -> Option<HttpMethod> {
        match name {
            "GET" => Some(HttpMethod::Get),
            "POST" => Some(HttpMethod::Post),
            _ => None,
        }
    }
}

/// What a webhook is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookKind {
    /// Asks what to do with a call.
    Voice,
    /// Tells a call's status.
    Status,
    /// Tells a media stream's status.
    Stream,
    /// Tells what happens in a conference.
    Conference,
    /// A JSON event outside of calls.
    Event,
}

/// One webhook as it was sent, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct WebhookRecord {
    /// What it was about.
    pub kind: WebhookKind,
    /// The configured URL.
    pub url: String,
    /// How it was sent.
    pub method: HttpMethod,
    /// The parameters.
    pub params: Vec<(String, String)>,
    /// The value of `I-Twilio-Idempotency-Token`, the same on every retry.
    pub idempotency_token: String,
    /// Requests made, without those after a redirect.
    pub attempts: u32,
    /// The HTTP status of the last answer.
    pub status: Option<u16>,
    /// The error it ended in, such as 11200.
    pub error_code: Option<u32>,
    /// From the first request to the whole answer.
    pub took_ms: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) kind: WebhookKind,
    pub(super) url: String,
    pub(super) method: HttpMethod,
    pub(super) params: Vec<(String, String)>,
    pub(super) signing: Signing,
}

/// A whole answer with a status of 2xx.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) content_type: String,
    pub(super) body: String,
    /// Where it came from after redirects: relative URLs in it start here.
    pub(super) url: String,
}

/// Why a webhook brought nothing, as the debugger would show it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct WebhookFailure {
    /// Twilio's error code.
    pub code: u32,
    /// What happened, in words.
    pub message: String,
}

impl WebhookFailure {
    fn new(code: u32, message: impl Into<String>) -> WebhookFailure {
        WebhookFailure { code, message: message.into() }
    }
}

/// Sends webhooks and keeps what was sent.
pub(super) struct Webhooks {
    http: reqwest::Client,
    token: Secret<String>,
    signs_default_port: bool,
    proxy: Option<Proxy>,
    sent: Mutex<Sent>,
}

#[derive(Default)]
struct Sent {
    records: VecDeque<WebhookRecord>,
    last: BTreeMap<WebhookKind, (Request, String)>,
}

impl Webhooks {
    pub(super) fn new(
        token: Secret<String>,
        signs_default_port: bool,
        proxy: Option<Proxy>,
    ) -> Result<Webhooks, reqwest::Error> {
        let http = client(DEFAULT_CONNECT_MS)?;
        Ok(Webhooks { http, token, signs_default_port, proxy, sent: Mutex::default() })
    }

    /// Where a request to this URL arrives.
    pub(super) fn arrives_at(&self, url: &str) -> String {
        self.proxy.as_ref().map_or_else(|| url.to_owned(), |proxy| proxy.passes_on(url))
    }

    /// Sends a webhook: the whole answer, or why there is none.
    pub(super) async fn send(&self, request: Request) -> Result<Reply, WebhookFailure> {
        self.send_as(request, random_hex()).await
    }

    /// Sends the last webhook of its kind once more, as a retry whose first answer was lost.
    pub(super) async fn repeat_last(&self, kind: WebhookKind) -> Option<Result<Reply, WebhookFailure>> {
        let (request, idempotency_token) = self.lock().last.get(&kind).cloned()?;
        Some(self.send_as(request, idempotency_token).await)
    }

    /// Posts JSON whose hash is in the signed URL.
    pub(super) async fn send_json(
        &self,
        url: &str,
        body: &str,
        signing: Signing,
    ) -> Result<u16, WebhookFailure> {
        let url = sign::url_with_body_hash(url, body.as_bytes());
        let sent_body = if signing == Signing::TamperedBody { format!("{body} ") } else { body.to_owned() };
        let mut request =
            self.http.post(self.arrives_at(&url)).header(CONTENT_TYPE, "application/json").body(sent_body);
        if let Some(signature) = self.signature(&url, &[], signing) {
            request = request.header("X-Twilio-Signature", signature);
        }
        let sending = request.timeout(Duration::from_millis(TOTAL_LIMIT_MS)).send();
        let answer = sending.await.map_err(|error| WebhookFailure::new(11200, error.to_string()))?;
        Ok(answer.status().as_u16())
    }

    pub(super) fn records(&self) -> Vec<WebhookRecord> {
        self.lock().records.iter().cloned().collect()
    }

    /// The signature of a URL with the parameters posted to it, if it is to be signed at all.
    pub(super) fn signature(
        &self,
        url: &str,
        params: &[(String, String)],
        signing: Signing,
    ) -> Option<String> {
        let url = url.split('#').next().unwrap_or(url);
        let url = if self.signs_default_port { sign::with_default_port(url) } else { url.to_owned() };
        match signing {
            Signing::Right | Signing::TamperedBody => {
                Some(sign::signature(self.token.expose(), &url, params))
            }
            Signing::WrongToken => Some(sign::signature(WRONG_TOKEN, &url, params)),
            Signing::Unsigned => None,
        }
    }

    async fn send_as(&self, request: Request, idempotency_token: String) -> Result<Reply, WebhookFailure> {
        let manners = Manners::of(&request.url);
        self.lock().last.insert(request.kind, (request.clone(), idempotency_token.clone()));
        let started = Instant::now();
        let mut log = Attempts::default();
        let attempts = self.attempts(&request, &idempotency_token, &manners, &mut log);
        let outcome = tokio::time::timeout(Duration::from_millis(manners.total_ms), attempts).await;
        let outcome = outcome.unwrap_or_else(|_| Err(WebhookFailure::new(11200, "the total time is over")));
        let record = WebhookRecord {
            kind: request.kind,
            url: request.url,
            method: request.method,
            params: request.params,
            idempotency_token,
            attempts: log.count,
            status: log.status,
            error_code: outcome.as_ref().err().map(|failure| failure.code),
            took_ms: started.elapsed().as_millis() as u64,
        };
        let mut sent = self.lock();
        if sent.records.len() == MAX_RECORDS {
            sent.records.pop_front();
        }
        sent.records.push_back(record);
        outcome
    }

    /// Tries until there is an answer, or until the URL's policy allows no more.
    async fn attempts(
        &self,
        request: &Request,
        idempotency_token: &str,
        manners: &Manners,
        log: &mut Attempts,
    ) -> Result<Reply, WebhookFailure> {
        let own_client = (manners.connect_ms != DEFAULT_CONNECT_MS).then(|| client(manners.connect_ms));
        let http = match own_client.transpose() {
            Ok(own) => own.unwrap_or_else(|| self.http.clone()),
            Err(error) => return Err(WebhookFailure::new(11200, error.to_string())),
        };
        loop {
            log.count += 1;
            let exchange = self.exchange(&http, request, idempotency_token, log);
            let answer = tokio::time::timeout(Duration::from_millis(manners.read_ms), exchange).await;
            let silence = || Err((Trouble::Read, WebhookFailure::new(11200, "no whole answer in time")));
            match answer.unwrap_or_else(|_| silence()) {
                Ok(reply) => return Ok(reply),
                Err((trouble, _)) if log.count <= manners.retries && manners.retries_on(trouble) => {}
                Err((_, failure)) => return Err(failure),
            }
        }
    }

    /// One request with its redirects: only the first carries the parameters of a POST.
    async fn exchange(
        &self,
        http: &reqwest::Client,
        request: &Request,
        idempotency_token: &str,
        log: &mut Attempts,
    ) -> Result<Reply, (Trouble, WebhookFailure)> {
        let invalid = |_| (Trouble::Other, WebhookFailure::new(11100, "the URL is not valid"));
        let mut url = request.url.split('#').next().unwrap_or_default().to_owned();
        if request.method == HttpMethod::Get {
            url = with_query(&url, &request.params);
        }
        for redirects in 0..=MAX_REDIRECTS {
            let posts = request.method == HttpMethod::Post && redirects == 0;
            let params = if posts { request.params.as_slice() } else { &[] };
            let asked = Url::parse(&url).map_err(invalid)?;
            let target = Url::parse(&self.arrives_at(&url)).map_err(invalid)?;
            let mut builder = if posts {
                let mut form = Serializer::new(String::new());
                form.extend_pairs(params);
                if request.signing == Signing::TamperedBody {
                    form.append_pair("Tampered", "1");
                }
                http.post(target).header(CONTENT_TYPE, FORM).body(form.finish())
            } else {
                http.get(target)
            };
            if let Some(signature) = self.signature(&url, params, request.signing) {
                builder = builder.header("X-Twilio-Signature", signature);
            }
            let sending = builder.header("I-Twilio-Idempotency-Token", idempotency_token).send();
            let answer = sending.await.map_err(not_reached)?;
            log.status = Some(answer.status().as_u16());
            if !answer.status().is_redirection() {
                return read(answer, url).await;
            }
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            url = asked.join(location.unwrap_or_default()).map_err(invalid)?.into();
        }
        Err((Trouble::Other, WebhookFailure::new(11215, "too many redirects")))
    }

    fn lock(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What one webhook cost so far, readable also when its time is over.
#[derive(Default)]
struct Attempts {
    count: u32,
    status: Option<u16>,
}

/// What a retry policy distinguishes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Connect,
    Read,
    Status4xx,
    Status5xx,
    Other,
}

/// How one URL is to be asked: Twilio's defaults, or what the fragment of the URL says instead.
struct Manners {
    connect_ms: u64,
    read_ms: u64,
    total_ms: u64,
    retries: u32,
    policy: String,
}

impl Manners {
    fn of(url: &str) -> Manners {
        let mut manners = Manners {
            connect_ms: DEFAULT_CONNECT_MS,
            read_ms: TOTAL_LIMIT_MS,
            total_ms: TOTAL_LIMIT_MS,
            retries: 1,
            policy: "ct".into(),
        };
        let fragment = url.split_once('#').map_or("", |(_, fragment)| fragment);
        for (name, value) in fragment.split('&').filter_map(|pair| pair.split_once('=')) {
            let number = value.parse().unwrap_or(0);
            match name {
                "ct" => manners.connect_ms = number.clamp(100, 10_000),
                "rt" => manners.read_ms = number.clamp(100, TOTAL_LIMIT_MS),
                "tt" => manners.total_ms = number.clamp(100, TOTAL_LIMIT_MS),
                "rc" => manners.retries = number.min(5) as u32,
                "rp" => manners.policy = value.to_owned(),
                _ => {}
            }
        }
        manners
    }

    fn retries_on(&self, trouble: Trouble) -> bool {
        let name = match trouble {
            Trouble::Connect => "ct",
            Trouble::Read => "rt",
            Trouble::Status4xx => "4xx",
            Trouble::Status5xx => "5xx",
            Trouble::Other => return false,
        };
        self.policy.split(',').any(|covered| covered == name || covered == "all")
    }
}

fn client(connect_ms: u64) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .user_agent("TwilioProxy/1.1")
        .connect_timeout(Duration::from_millis(connect_ms))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
}

fn with_query(url: &str, params: &[(String, String)]) -> String {
    if params.is_empty() {
        return url.to_owned();
    }
    let query = Serializer::new(String::new()).extend_pairs(params).finish();
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{query}")
}

fn not_reached(error: reqwest::Error) -> (Trouble, WebhookFailure) {
    match error.is_connect() {
        true => (Trouble::Connect, WebhookFailure::new(11205, format!("cannot connect: {error}"))),
        false => (Trouble::Read, WebhookFailure::new(11200, format!("no answer: {error}"))),
    }
}

async fn read(mut answer: reqwest::Response, url: String) -> Result<Reply, (Trouble, WebhookFailure)> {
    let status = answer.status();
    if !status.is_success() {
        let trouble = if status.is_server_error() { Trouble::Status5xx } else { Trouble::Status4xx };
        return Err((trouble, WebhookFailure::new(11200, format!("the answer was {status}"))));
    }
    let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(not_reached)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER_BYTES {
            return Err((Trouble::Other, WebhookFailure::new(11750, "the answer is larger than 64 KB")));
        }
    }
    Ok(Reply { content_type, body: String::from_utf8_lossy(&body).into_owned(), url })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fragment_of_a_url_overrides_the_defaults() {
        let plain = Manners::of("https://h.example/voice");
        assert_eq!((plain.connect_ms, plain.read_ms, plain.retries), (5_000, 15_000, 1));
        assert!(plain.retries_on(Trouble::Connect) && !plain.retries_on(Trouble::Read));
        let own = Manners::of("https://h.example/voice#ct=20&rt=4000&rc=9&rp=rt,5xx");
        assert_eq!((own.connect_ms, own.read_ms, own.retries), (100, 4_000, 5));
        assert!(own.retries_on(Trouble::Status5xx) && !own.retries_on(Trouble::Connect));
    }

    #[test]
    fn a_get_carries_its_parameters_behind_those_of_the_url() {
        let params = [("To".to_owned(), "+1555".to_owned())];
        assert_eq!(with_query("https://h.example/x?y=1", &params), "https://h.example/x?y=1&To=%2B1555");
    }
}
