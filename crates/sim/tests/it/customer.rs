//! The customer of a simulated carrier: answers webhooks with prepared documents and speaks on media sockets in simple ways.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use offhook_media::g711::{Law, MU_LAW_SILENCE};
use serde_json::{Value, json};
use tokio::sync::watch;
use url::form_urlencoded;

pub const LIMIT: Duration = Duration::from_secs(10);

/// A 1 kHz tone at a third of full scale: every frame of it is sound.
pub fn tone(ms: u64) -> Vec<i16> {
    (0..ms * 8).map(|n| [0, 7_600, 10_700, 7_600, 0, -7_600, -10_700, -7_600][n as usize % 8]).collect()
}

#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub url: String,
    pub headers: HeaderMap,
    pub params: Vec<(String, String)>,
    pub body: Bytes,
}

impl Asked {
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

#[derive(Clone)]
pub struct Prepared {
    pub status: StatusCode,
    pub header: (&'static str, String),
    pub body: String,
    pub after: Duration,
}

#[derive(Default)]
struct Seen {
    asked: Vec<Asked>,
    messages: Vec<Value>,
    answers: BTreeMap<String, VecDeque<Prepared>>,
}

#[derive(Clone)]
pub struct Customer {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    changed: watch::Sender<()>,
}

impl Customer {
    pub async fn open() -> Customer {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let customer = Customer {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            changed: watch::Sender::new(()),
        };
        let router = Router::new()
            .route("/media/{manner}", get(media))
            .fallback(any(webhook))
            .with_state(customer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        customer
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A document that connects a stream of this manner, with more verbs behind.
    pub fn stream(&self, manner: &str, connect: &str, then: &str) -> String {
        let url = format!("ws://{}/media/{manner}", self.address);
        let status = self.url("/stream-status");
        format!(
            r#"<Response><Connect {connect}><Stream url="{url}" statusCallback="{status}"><Parameter name="ticket" value="t1"/></Stream></Connect>{then}</Response>"#
        )
    }

    /// Prepares the next answer at a path; the last one prepared stays.
    pub fn answer(&self, path: &str, twiml: impl Into<String>) {
        let header = ("content-type", "text/xml".to_owned());
        self.prepare(
            path,
            Prepared { status: StatusCode::OK, header, body: twiml.into(), after: Duration::ZERO },
        );
    }

    pub fn prepare(&self, path: &str, answer: Prepared) {
        self.seen.lock().unwrap().answers.entry(path.into()).or_default().push_back(answer);
    }

    pub fn asked(&self, path: &str) -> Vec<Asked> {
        self.seen.lock().unwrap().asked.iter().filter(|asked| asked.path == path).cloned().collect()
    }

    /// Messages that arrived on media sockets.
    pub fn messages(&self, event: &str) -> Vec<Value> {
        self.seen
            .lock()
            .unwrap()
            .messages
            .iter()
            .filter(|message| message["event"] == event)
            .cloned()
            .collect()
    }

    /// Waits until a path was asked so often.
    pub async fn until_asked(&self, path: &str, times: usize) -> Vec<Asked> {
        self.until(&format!("{path} asked {times} times"), || self.asked(path).len() >= times).await;
        self.asked(path)
    }

    pub async fn until_message(&self, event: &str, times: usize) -> Vec<Value> {
        self.until(&format!("{times} {event} messages"), || self.messages(event).len() >= times).await;
        self.messages(event)
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !condition() {
                changed.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(LIMIT, waiting).await.is_err() {
            let seen = self.seen.lock().unwrap();
            let asked: Vec<_> = seen.asked.iter().map(|asked| (&asked.path, &asked.params)).collect();
            panic!("not in time: {what}; asked were {asked:?}");
        }
    }

    fn saw(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
        self.changed.send_replace(());
    }
}

async fn webhook(
    State(customer): State<Customer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let query = uri.query().unwrap_or_default().as_bytes();
    let encoded: &[u8] = if method == Method::POST { &body } else { query };
    let asked = Asked {
        path: uri.path().into(),
        url: customer.url(uri.path_and_query().map_or("/", |path| path.as_str())),
        params: form_urlencoded::parse(encoded).into_owned().collect(),
        method,
        headers,
        body: body.clone(),
    };
    let mut prepared = None;
    customer.saw(|seen| {
        if let Some(answers) = seen.answers.get_mut(&asked.path) {
            prepared = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        }
        seen.asked.push(asked);
    });
    let Some(prepared) = prepared else { return StatusCode::NO_CONTENT.into_response() };
    tokio::time::sleep(prepared.after).await;
    (prepared.status, [prepared.header], prepared.body).into_response()
}

async fn media(
    State(customer): State<Customer>,
    Path(manner): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Response {
    if manner == "refuse" {
        return StatusCode::FORBIDDEN.into_response();
    }
    let url = format!("ws://{}{}", customer.address, uri.path());
    customer.saw(|seen| {
        let (params, body) = (Vec::new(), Bytes::new());
        seen.asked.push(Asked { method: Method::GET, path: "/media".into(), url, headers, params, body });
    });
    upgrade.on_upgrade(move |socket| speak(customer, manner, socket))
}

async fn speak(customer: Customer, manner: String, mut socket: WebSocket) {
    let mut heard_speech = false;
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Text(text) = message else { continue };
        let message: Value = serde_json::from_str(&text).unwrap();
        let sid = message["streamSid"].clone();
        let mut replies = Vec::new();
        match (manner.as_str(), message["event"].as_str().unwrap()) {
            ("echo", "media") => {
                let payload = message["media"]["payload"].clone();
                replies.push(json!({"event": "media", "streamSid": sid, "media": {"payload": payload}}));
            }
            ("greet" | "interruptible", "start") => {
                replies.push(media_message(&sid, 1_000));
                replies.push(json!({"event": "mark", "streamSid": sid, "mark": {"name": "greeting"}}));
            }
            ("interruptible", "media") => {
                let payload = STANDARD.decode(message["media"]["payload"].as_str().unwrap()).unwrap();
                if payload.iter().any(|byte| *byte != MU_LAW_SILENCE) && !heard_speech {
                    heard_speech = true;
                    replies.push(json!({"event": "clear", "streamSid": sid}));
                }
            }
            ("receptionist", "start") => replies.push(media_message(&sid, 300)),
            ("receptionist", "media") => {
                let payload = STANDARD.decode(message["media"]["payload"].as_str().unwrap()).unwrap();
                let sound = payload.iter().any(|byte| *byte != MU_LAW_SILENCE);
                if heard_speech && !sound {
                    replies.push(media_message(&sid, 300));
                }
                heard_speech = sound;
            }
            ("close", "start") => {
                customer.saw(|seen| seen.messages.push(message));
                socket.send(Message::Close(None)).await.unwrap();
                continue;
            }
            ("vanish", "start") => {
                customer.saw(|seen| seen.messages.push(message));
                return;
            }
            ("garbage", "start") => {
                let good = media_message(&sid, 20).to_string();
                let wrong = [
                    "not json".to_owned(),
                    json!({"event": "media", "media": {"payload": "AAAA"}}).to_string(),
                    json!({"event": "media", "streamSid": sid, "media": {"payload": "%%%"}}).to_string(),
                    json!({"event": "media", "streamSid": sid}).to_string(),
                    json!({"event": "Mark", "streamSid": sid, "mark": {"name": "x"}}).to_string(),
                    json!({"event": "media", "streamSid": sid, "media": {"payload": STANDARD.encode("RIFF")}}).to_string(),
                ];
                for text in wrong.into_iter().chain([good]) {
                    socket.send(Message::Text(text.into())).await.unwrap();
                }
                socket.send(Message::Binary(Bytes::from_static(b"x"))).await.unwrap();
                replies.push(json!({"event": "mark", "streamSid": sid, "mark": {"name": "still here"}}));
            }
            _ => {}
        }
        customer.saw(|seen| seen.messages.push(message));
        for reply in replies {
            if socket.send(Message::Text(reply.to_string().into())).await.is_err() {
                return;
            }
        }
    }
}

fn media_message(sid: &Value, ms: u64) -> Value {
    let mut coded = Vec::new();
    Law::Mu.encode(&tone(ms), &mut coded);
    json!({"event": "media", "streamSid": sid, "media": {"payload": STANDARD.encode(coded)}})
}
