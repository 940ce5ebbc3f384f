//! The customer of a simulated Telnyx: takes webhooks, hands its media sockets to the test, and asks the API.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{any, get};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use offhook_sim::carrier::Pickup;
use offhook_sim::carrier::telnyx::{
    CallOrder, ForSale, OwnedApplication, OwnedNumber, OwnedProfile, SimCall, TelnyxSettings, TelnyxSim,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};

use crate::customer::LIMIT;

pub const NUMBER: &str = "+14155550101";
pub const CALLER: &str = "+14155550199";
pub const HUMAN: &str = "+14155550177";
pub const APPLICATION: &str = "2345678901234567890";
pub const VOICE_PROFILE: &str = "1293384261075731499";

/// A webhook as it arrived.
#[derive(Clone, Debug)]
pub struct Told {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub json: Value,
}

impl Told {
    pub fn event(&self) -> &str {
        self.json["data"]["event_type"].as_str().unwrap_or_default()
    }

    pub fn id(&self) -> &str {
        self.json["data"]["id"].as_str().unwrap()
    }

    pub fn payload(&self) -> &Value {
        &self.json["data"]["payload"]
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn control_id(&self) -> &str {
        self.payload()["call_control_id"].as_str().unwrap()
    }
}

#[derive(Default)]
struct Seen {
    told: Vec<Told>,
    statuses: BTreeMap<String, VecDeque<StatusCode>>,
}

#[derive(Clone)]
pub struct Customer {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    changed: watch::Sender<()>,
    opened: mpsc::UnboundedSender<Media>,
    sockets: Arc<AsyncMutex<mpsc::UnboundedReceiver<Media>>>,
}

/// A media socket, from the server's side.
pub struct Media {
    socket: WebSocket,
    pub headers: HeaderMap,
    pub uri: Uri,
}

impl Media {
    /// The next message of this event; others are passed over.
    pub async fn next(&mut self, event: &str) -> Value {
        let waiting = async {
            loop {
                match self.socket.recv().await {
                    Some(Ok(Message::Text(text))) => {
                        let message: Value = serde_json::from_str(&text).unwrap();
                        if message["event"] == event {
                            return message;
                        }
                    }
                    Some(Ok(_)) => {}
                    other => panic!("no {event}: the socket ended with {other:?}"),
                }
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("no {event} in time"))
    }

    /// The audio of the next message.
    pub async fn audio(&mut self) -> Vec<u8> {
        let message = self.next("media").await;
        STANDARD.decode(message["media"]["payload"].as_str().unwrap()).unwrap()
    }

    pub async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::Text(text.into())).await.unwrap();
    }

    pub async fn play(&mut self, coded: &[u8]) {
        self.send(json!({"event": "media", "media": {"payload": STANDARD.encode(coded)}})).await;
    }

    pub async fn mark(&mut self, name: &str) {
        self.send(json!({"event": "mark", "mark": {"name": name}})).await;
    }

    /// Waits until the other side has closed or broken the socket: whether it did so in order.
    pub async fn until_closed(&mut self) -> bool {
        let waiting = async {
            loop {
                match self.socket.recv().await {
                    Some(Ok(Message::Close(_))) => return true,
                    None | Some(Err(_)) => return false,
                    Some(Ok(_)) => {}
                }
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.expect("the socket stays open")
    }

    pub async fn close(mut self) {
        self.socket.send(Message::Close(None)).await.unwrap();
        self.until_closed().await;
    }
}

impl Customer {
    pub async fn open() -> Customer {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (opened, sockets) = mpsc::unbounded_channel();
        let customer = Customer {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            changed: watch::Sender::new(()),
            opened,
            sockets: Arc::new(AsyncMutex::new(sockets)),
        };
        let router = Router::new()
            .route("/media/{*path}", get(media))
            .fallback(any(webhook))
            .with_state(customer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        customer
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn media_url(&self, path: &str) -> String {
        format!("ws://{}/media/{path}", self.address)
    }

    /// How the next webhooks at a path are answered, one after the other; then all are taken.
    pub fn answer(&self, path: &str, statuses: &[u16]) {
        let statuses = statuses.iter().map(|status| StatusCode::from_u16(*status).unwrap()).collect();
        self.seen.lock().unwrap().statuses.insert(path.into(), statuses);
    }

    pub fn told(&self, event: &str) -> Vec<Told> {
        self.seen.lock().unwrap().told.iter().filter(|told| told.event() == event).cloned().collect()
    }

    pub fn all_told(&self) -> Vec<Told> {
        self.seen.lock().unwrap().told.clone()
    }

    /// Waits until so many webhooks of a type have arrived, and returns the last of these.
    pub async fn until_told(&self, event: &str, times: usize) -> Told {
        self.until(event, |told| told.get(times - 1).cloned()).await
    }

    /// Waits for the first webhook of a type about a call.
    pub async fn until_told_of(&self, call: &SimCall, event: &str) -> Told {
        let is_it = |told: &&Told| told.control_id() == call.control_id();
        self.until(event, |told| told.iter().find(is_it).cloned()).await
    }

    async fn until(&self, event: &str, find: impl Fn(&[Told]) -> Option<Told>) -> Told {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            loop {
                if let Some(told) = find(&self.told(event)) {
                    return told;
                }
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.unwrap_or_else(|_| {
            let told: Vec<_> = self.all_told().iter().map(|told| told.json["data"].clone()).collect();
            panic!("{event} was not told as expected; told were {told:#?}")
        })
    }

    pub async fn next_media(&self) -> Media {
        let mut sockets = self.sockets.lock().await;
        tokio::time::timeout(LIMIT, sockets.recv()).await.expect("no media socket is opened").unwrap()
    }
}

async fn webhook(State(customer): State<Customer>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    let path = uri.path().to_owned();
    let json = serde_json::from_slice(&body).unwrap();
    let status = {
        let mut seen = customer.seen.lock().unwrap();
        seen.told.push(Told { path: path.clone(), headers, body, json });
        seen.statuses.get_mut(&path).and_then(VecDeque::pop_front).unwrap_or(StatusCode::OK)
    };
    customer.changed.send_replace(());
    if status == StatusCode::REQUEST_TIMEOUT {
        // Stands for a server that does not answer within the limit of its application.
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    status
}

async fn media(
    State(customer): State<Customer>,
    Path(path): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Response {
    if path == "refuse" {
        return axum::response::IntoResponse::into_response(StatusCode::FORBIDDEN);
    }
    upgrade.on_upgrade(async move |socket| {
        let _ = customer.opened.send(Media { socket, headers, uri });
    })
}

/// Asks the API as its key's owner.
pub struct Api {
    http: reqwest::Client,
    base: String,
    pub key: String,
}

impl Api {
    pub fn of(sim: &TelnyxSim) -> Api {
        let key = TelnyxSettings::default().api_key.expose().clone();
        Api { http: reqwest::Client::new(), base: sim.base_url(), key }
    }

    pub async fn try_ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::Result<(u16, Value)> {
        let url = format!("{}{path}", self.base);
        let mut request = self.http.request(method, url).bearer_auth(&self.key).timeout(LIMIT);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.json().await.unwrap_or_default()))
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.try_ask(Method::GET, path, None).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.try_ask(Method::POST, path, Some(body)).await.unwrap()
    }

    pub async fn patch(&self, path: &str, body: Value) -> (u16, Value) {
        self.try_ask(Method::PATCH, path, Some(body)).await.unwrap()
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.try_ask(Method::DELETE, path, None).await.unwrap()
    }

    /// Commands a call, which must be accepted.
    pub async fn command(&self, call: &SimCall, name: &str, body: Value) {
        let (status, answer) = self.try_command(call, name, body).await;
        assert_eq!((status, &answer["data"]["result"]), (200, &json!("ok")), "{name}: {answer}");
    }

    pub async fn try_command(&self, call: &SimCall, name: &str, body: Value) -> (u16, Value) {
        self.post(&format!("/calls/{}/actions/{name}", call.control_id()), body).await
    }
}

/// The code of the first error of an answer.
pub fn code((status, body): (u16, Value)) -> (u16, String) {
    (status, body["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
}

pub fn settings(customer: &Customer) -> TelnyxSettings {
    let mut application = OwnedApplication::new(APPLICATION, "ours", customer.url("/voice"));
    application.webhook_event_failover_url = customer.url("/failover");
    application.outbound_voice_profile = Some(VOICE_PROFILE.into());
    TelnyxSettings {
        numbers: vec![OwnedNumber::new(NUMBER, APPLICATION)],
        applications: vec![application],
        voice_profiles: vec![OwnedProfile { id: VOICE_PROFILE.into(), name: "office".into() }],
        for_sale: (10..15)
            .map(|n| ForSale::local(format!("+141555502{n}"), "San Francisco", "CA"))
            .chain([ForSale::local("+12125550210", "New York", "NY")])
            .collect(),
        order_takes_ms: 10,
        say_ms_per_character: 1,
        play_ms: 20,
        callee: Pickup::Answers { after_ms: 10 },
        ..TelnyxSettings::default()
    }
}

pub async fn start(settings: TelnyxSettings) -> TelnyxSim {
    TelnyxSim::start("127.0.0.1:0".parse().unwrap(), settings).await.unwrap()
}

pub async fn open() -> (TelnyxSim, Customer, Api) {
    let customer = Customer::open().await;
    let sim = start(settings(&customer)).await;
    let api = Api::of(&sim);
    (sim, customer, api)
}

pub fn ring(sim: &TelnyxSim) -> SimCall {
    sim.call(CallOrder::new(NUMBER, CALLER)).unwrap()
}
