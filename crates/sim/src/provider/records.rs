//! What was asked of the providers and what became of it: one record for each request and each socket.
//! Keys are not kept, only the form in which they came.

use super::program::{Fault, Service};
use axum::http::request::Parts;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;

/// One request, or one socket from its opening to its end.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Counts from 1 in the order of arrival.
    pub id: u64,
    /// Who was asked.
    pub service: Service,
    /// The HTTP method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query's parameters in their order; one may come several times.
    pub query: Vec<(String, String)>,
    /// The headers, names in lower case, without the key.
    pub headers: BTreeMap<String, String>,
    /// How the key came: `Bearer`, `Token`, or the name of its header or parameter.
    pub credential: Option<String>,
    /// The body of a request: JSON as it is, a form as an object of its text fields.
    pub body: Value,
    /// The HTTP status that was answered; 101 for a socket.
    pub status: u16,
    /// When it came, in milliseconds since the providers started.
    pub opened_ms: u64,
    /// When and how it ended; `None` while it lasts.
    pub closed: Option<Closed>,
    /// The JSON messages that came over the socket.
    pub received: Vec<Received>,
    /// Audio that came, in bytes.
    pub audio_bytes_in: u64,
    /// Audio that was sent, in bytes.
    pub audio_bytes_out: u64,
    /// The final transcripts that were sent, in order.
    pub heard: Vec<String>,
    /// The texts that were spoken, in order.
    pub spoken: Vec<Spoken>,
    /// What the model said so far.
    pub reply: String,
    /// What the provider would frown at, whether or not it refused.
    pub oddities: Vec<String>,
    /// What was made to go wrong.
    pub faults: Vec<Fault>,
}

/// The end of a request or a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Closed {
    /// When, in milliseconds since the providers started.
    pub at_ms: u64,
    /// By whom.
    pub by: ClosedBy,
    /// The close code that the provider sent on a socket.
    pub code: Option<u16>,
}

/// Who ended a request or a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosedBy {
    /// The client: it went away before the answer was complete, or closed the socket.
    Client,
    /// The provider: the answer is complete, or refused, or the socket was closed with a code.
    Provider,
    /// A fault broke the connection.
    Fault,
}

/// One JSON message from the client.
#[derive(Clone, Debug, Serialize)]
pub struct Received {
    /// When, in milliseconds since the providers started.
    pub at_ms: u64,
    /// As it came.
    pub message: Value,
}

/// One text that a voice spoke.
#[derive(Clone, Debug, Serialize)]
pub struct Spoken {
    /// The client's context; empty where the provider has none.
    pub context: String,
    /// What was spoken.
    pub text: String,
    /// How much audio that is.
    pub audio_ms: u64,
    /// How much of it was sent.
    pub sent_ms: u64,
    /// When the client gave it up, in milliseconds since the providers started.
    pub cancelled_at_ms: Option<u64>,
}

/// Older records are dropped beyond this many.
const RECORDS_KEPT: usize = 20_000;

/// Further messages of one socket are not kept beyond this many.
const MESSAGES_KEPT: usize = 5_000;

/// Headers whose value is a key.
const KEY_HEADERS: [&str; 3] = ["authorization", "xi-api-key", "x-api-key"];

/// Query parameters whose value is a key.
const KEY_PARAMETERS: [&str; 3] = ["api_key", "token", "authorization"];

/// All records, for writers and readers at once.
#[derive(Clone)]
pub(super) struct Records(Arc<Inner>);

struct Inner {
    started: Instant,
    kept: Mutex<Kept>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    records: VecDeque<Record>,
    last_id: u64,
}

impl Records {
    pub fn new() -> Self {
        let changes = watch::Sender::new(0);
        Records(Arc::new(Inner { started: Instant::now(), kept: Mutex::default(), changes }))
    }

    pub fn open(&self, service: Service, request: &Parts) -> Entry {
        let shown = |name: &str| !KEY_HEADERS.contains(&name);
        let header = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let opened_ms = self.now_ms();
        let id = self.edit(|kept| {
            kept.last_id += 1;
            if kept.records.len() == RECORDS_KEPT {
                kept.records.pop_front();
            }
            kept.records.push_back(Record {
                id: kept.last_id,
                service,
                method: request.method.to_string(),
                path: request.uri.path().to_owned(),
                query: query_of(request)
                    .into_iter()
                    .filter(|(name, _)| !KEY_PARAMETERS.contains(&name.as_str()))
                    .collect(),
                headers: request
                    .headers
                    .iter()
                    .filter(|(name, _)| shown(name.as_str()))
                    .map(header)
                    .collect(),
                credential: credential_of(request).map(|credential| credential.form),
                body: Value::Null,
                status: 0,
                opened_ms,
                closed: None,
                received: Vec::new(),
                audio_bytes_in: 0,
                audio_bytes_out: 0,
                heard: Vec::new(),
                spoken: Vec::new(),
                reply: String::new(),
                oddities: Vec::new(),
                faults: Vec::new(),
            });
            kept.last_id
        });
        Entry { records: self.clone(), id }
    }

    pub fn all(&self) -> Vec<Record> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).records.iter().cloned().collect()
    }

    pub fn clear(&self) {
        self.edit(|kept| kept.records.clear());
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn edit<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
        let result = change(&mut self.0.kept.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changes.send_modify(|count| *count += 1);
        result
    }

    fn now_ms(&self) -> u64 {
        self.0.started.elapsed().as_millis() as u64
    }
}

/// The pen for one record. Dropped without a word on the end, the client has gone away.
pub(super) struct Entry {
    records: Records,
    id: u64,
}

impl Entry {
    pub fn edit(&self, change: impl FnOnce(&mut Record)) {
        self.records.edit(|kept| {
            let index = kept.records.binary_search_by_key(&self.id, |record| record.id);
            if let Ok(index) = index {
                change(&mut kept.records[index]);
            }
        });
    }

    pub fn oddity(&self, what: impl Into<String>) {
        self.edit(|record| record.oddities.push(what.into()));
    }

    pub fn received(&self, message: Value) {
        let at_ms = self.records.now_ms();
        self.edit(|record| {
            if record.received.len() < MESSAGES_KEPT {
                record.received.push(Received { at_ms, message });
            }
        });
    }

    pub fn heard(&self, transcript: &str) {
        if !transcript.is_empty() {
            self.edit(|record| record.heard.push(transcript.to_owned()));
        }
    }

    pub fn speaks(&self, context: &str, text: &str, audio_ms: u64) -> usize {
        let mut place = 0;
        self.edit(|record| {
            place = record.spoken.len();
            let (context, text) = (context.to_owned(), text.to_owned());
            record.spoken.push(Spoken { context, text, audio_ms, sent_ms: 0, cancelled_at_ms: None });
        });
        place
    }

    pub fn spoke(&self, place: usize, sent_ms: u64) {
        self.edit(|record| record.spoken[place].sent_ms = sent_ms);
    }

    pub fn cancelled(&self, place: usize) {
        let at_ms = self.records.now_ms();
        self.edit(|record| {
            record.spoken[place].cancelled_at_ms.get_or_insert(at_ms);
        });
    }

    pub fn close(&self, by: ClosedBy, code: Option<u16>) {
        let at_ms = self.records.now_ms();
        self.edit(|record| {
            record.closed.get_or_insert(Closed { at_ms, by, code });
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.close(ClosedBy::Client, None);
    }
}

/// A key as the client showed it.
pub(super) struct Credential {
    /// The scheme of `Authorization`, or the name of the header or parameter.
    pub form: String,
    pub key: String,
}

/// The key of a request, wherever it is; the first form found.
pub(super) fn credential_of(request: &Parts) -> Option<Credential> {
    let header =
        |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(value) = header("authorization") {
        let (scheme, key) = value.split_once(' ').unwrap_or(("", &value));
        return Some(Credential { form: scheme.to_owned(), key: key.to_owned() });
    }
    if let Some((name, key)) = KEY_HEADERS.iter().find_map(|name| Some((*name, header(name)?))) {
        return Some(Credential { form: name.to_owned(), key });
    }
    let mut query = query_of(request).into_iter();
    let (form, key) = query.find(|(name, _)| KEY_PARAMETERS.contains(&name.as_str()))?;
    Some(Credential { form, key })
}

/// The query's parameters, decoded.
pub(super) fn query_of(request: &Parts) -> Vec<(String, String)> {
    url::form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}
