//! Webhooks as Telnyx sends them: in their envelope, signed, to the failover URL and again where nobody answers.
//! It does not know what a call is: it is given events and keeps what came of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::super::network::Proxy;
use super::sign::Signer;
use super::{new_uuid, timestamp};

const MAX_RECORDS: usize = 10_000;
/// How long an application without a limit of its own is waited for.
pub(super) const DEFAULT_LIMIT: Duration = Duration::from_secs(10);
/// When an event that nobody took is sent again: three attempts about two seconds apart are claimed.
pub(super) const DEFAULT_RETRIES_MS: [u64; 2] = [2_000, 2_000];
/// How long an event is held back so that the one behind it can overtake it.
const OVERTAKING: Duration = Duration::from_millis(250);
/// Twice the age at which a signature is to be refused.
const STALE_S: i64 = 600;

/// How webhooks are signed: only `Right` may be accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signing {
    /// As documented.
    #[default]
    Right,
    /// With the key of another account.
    WrongKey,
    /// Rightly, ten minutes ago.
    StaleTimestamp,
    /// Without the two headers.
    Unsigned,
    /// Rightly, but a byte is added to the body afterwards.
    TamperedBody,
}

/// How webhooks arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// One after the other: the next one when the one before was taken or refused.
    #[default]
    InOrder,
    /// Each at once, whatever becomes of those before.
    AtOnce,
    /// Each twice, at the same moment.
    Duplicated,
    /// Each behind the one that follows it, where one follows soon.
    Reordered,
    /// Each so much later, milliseconds.
    LateMs(u64),
    /// Never.
    Lost,
}

/// One request of a webhook, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct WebhookRecord {
    /// Such as `call.initiated`.
    pub event_type: String,
    /// The event's id, the same in every attempt and duplicate.
    pub event_id: String,
    /// Where it was sent.
    pub url: String,
    /// Which attempt this was, from 1.
    pub attempt: u32,
    /// The HTTP status of the answer; nothing where none came in time.
    pub status: Option<u16>,
    /// The whole body.
    pub body: Value,
}

impl WebhookRecord {
    /// What the event tells: `data.payload`.
    pub fn payload(&self) -> &Value {
        &self.body["data"]["payload"]
    }
}

/// Where the events of an application go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) url: String,
    pub(super) failover: Option<String>,
    pub(super) limit: Duration,
    pub(super) retries_ms: Vec<u64>,
    /// `webhook_api_version` is "2"; the older envelope is another.
    pub(super) is_v2: bool,
}

impl Target {
    /// A plain address.
    pub(super) fn new(url: &str) -> Target {
        Target {
            url: url.to_owned(),
            failover: None,
            limit: DEFAULT_LIMIT,
            retries_ms: DEFAULT_RETRIES_MS.to_vec(),
            is_v2: true,
        }
    }
}

/// Something to tell.
#[derive(Clone, Debug)]
pub(super) struct Event {
    event_type: String,
    id: String,
    occurred_at: Timestamp,
    payload: Value,
    target: Target,
    signing: Signing,
}

impl Event {
    pub(super) fn new(event_type: &str, payload: Value, target: Target, signing: Signing) -> Event {
        Event {
            event_type: event_type.to_owned(),
            id: new_uuid(),
            occurred_at: Timestamp::now(),
            payload,
            target,
            signing,
        }
    }

    fn body(&self, url: &str, attempt: u32) -> Value {
        let mut data = json!({
            "record_type": "event",
            "event_type": self.event_type,
            "id": self.id,
            "occurred_at": timestamp(self.occurred_at),
            "payload": self.payload,
        });
        if self.target.is_v2 {
            return json!({"data": data, "meta": {"attempt": attempt, "delivered_to": url}});
        }
        // Version 1 has neither the envelope nor the dots; beyond that no document shows it any more.
        data["event_type"] = self.event_type.replace('.', "_").into();
        data
    }
}

/// Sends webhooks and keeps what was sent.
pub(super) struct Webhooks {
    http: reqwest::Client,
    signer: Signer,
    stranger: Signer,
    proxy: Option<Proxy>,
    sent: Mutex<Sent>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Sent {
    records: VecDeque<WebhookRecord>,
    last: BTreeMap<String, Event>,
}

impl Webhooks {
    pub(super) fn new(proxy: Option<Proxy>) -> Result<Webhooks, reqwest::Error> {
        let http = reqwest::Client::builder()
            .user_agent("telnyx-webhooks")
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Webhooks {
            http,
            signer: Signer::from_seed(rand::random()),
            stranger: Signer::from_seed(rand::random()),
            proxy,
            sent: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    pub(super) fn public_key(&self) -> String {
        self.signer.public_key()
    }

    /// Where a request to this URL arrives.
    pub(super) fn arrives_at(&self, url: &str) -> String {
        self.proxy.as_ref().map_or_else(|| url.to_owned(), |proxy| proxy.passes_on(url))
    }

    pub(super) fn records(&self) -> Vec<WebhookRecord> {
        self.lock().records.iter().cloned().collect()
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A queue whose events are delivered in one way, until its sender is dropped.
    pub(super) fn queue(self: &Arc<Self>, delivery: Delivery) -> mpsc::UnboundedSender<Event> {
        let (sender, events) = mpsc::unbounded_channel();
        tokio::spawn(self.clone().run(delivery, events));
        sender
    }

    /// Sends the last event of a type once more, as one whose first answer was lost.
    pub(super) async fn repeat_last(self: &Arc<Self>, event_type: &str) -> bool {
        let event = self.lock().last.get(event_type).cloned();
        let Some(event) = event else { return false };
        self.deliver(event).await;
        true
    }

    async fn run(self: Arc<Self>, delivery: Delivery, mut events: mpsc::UnboundedReceiver<Event>) {
        while let Some(event) = events.recv().await {
            match delivery {
                Delivery::InOrder => self.deliver(event).await,
                Delivery::AtOnce => {
                    let webhooks = self.clone();
                    tokio::spawn(async move { webhooks.deliver(event).await });
                }
                Delivery::Lost => {}
                Delivery::LateMs(ms) => {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    self.deliver(event).await;
                }
                Delivery::Duplicated => {
                    tokio::join!(self.deliver(event.clone()), self.deliver(event));
                }
                Delivery::Reordered => {
                    if let Ok(Some(next)) = tokio::time::timeout(OVERTAKING, events.recv()).await {
                        self.deliver(next).await;
                    }
                    self.deliver(event).await;
                }
            }
        }
    }

    /// Sends an event; where nobody takes it, it is sent again later while others overtake it.
    async fn deliver(self: &Arc<Self>, event: Event) {
        self.lock().last.insert(event.event_type.clone(), event.clone());
        let mut attempt = 0;
        if self.try_all(&event, &mut attempt).await {
            return;
        }
        let webhooks = self.clone();
        tokio::spawn(async move {
            for ms in &event.target.retries_ms {
                tokio::time::sleep(Duration::from_millis(*ms)).await;
                if webhooks.try_all(&event, &mut attempt).await {
                    return;
                }
            }
        });
    }

    /// One round: the URL, then the failover URL.
    async fn try_all(&self, event: &Event, attempt: &mut u32) -> bool {
        for url in std::iter::once(&event.target.url).chain(&event.target.failover) {
            *attempt += 1;
            if self.send(event, url, *attempt).await {
                return true;
            }
        }
        false
    }

    async fn send(&self, event: &Event, url: &str, attempt: u32) -> bool {
        let body = event.body(url, attempt);
        let text = body.to_string();
        let now_s = Timestamp::now().as_second();
        let timestamp_s = if event.signing == Signing::StaleTimestamp { now_s - STALE_S } else { now_s };
        let signer = if event.signing == Signing::WrongKey { &self.stranger } else { &self.signer };
        let mut request = self.http.post(self.arrives_at(url)).header(CONTENT_TYPE, "application/json");
        if event.signing != Signing::Unsigned {
            request = request
                .header("Telnyx-Timestamp", timestamp_s.to_string())
                .header("Telnyx-Signature-Ed25519", signer.sign(timestamp_s, text.as_bytes()));
        }
        let sent = if event.signing == Signing::TamperedBody { format!("{text} ") } else { text };
        let answer = request.body(sent).timeout(event.target.limit).send().await;
        let status = answer.ok().map(|answer| answer.status());
        self.keep(WebhookRecord {
            event_type: event.event_type.clone(),
            event_id: event.id.clone(),
            url: url.to_owned(),
            attempt,
            status: status.map(|status| status.as_u16()),
            body,
        });
        status.is_some_and(|status| status.is_success())
    }

    fn keep(&self, record: WebhookRecord) {
        let mut sent = self.lock();
        if sent.records.len() == MAX_RECORDS {
            sent.records.pop_front();
        }
        sent.records.push_back(record);
        drop(sent);
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
