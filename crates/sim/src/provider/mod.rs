//! The AI providers as servers on loopback, each at its real path, strict where it is strict, programmed in what they hear,
//! say and get wrong. They know nothing of the adapters that talk to them: written from the providers' documents alone.
//!
//! Speech in both directions spells itself ([`utterance`], [`heard_words`]): the recognisers read what a simulated caller
//! said from the audio they are fed, and a test reads from what the phone played which words were heard, and how far.

use agenda::Agenda;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::request::Parts;
use axum::response::Response;
use axum::serve::ListenerExt;
use program::{Dice, Moment};
use rand_chacha::ChaCha8Rng;
use records::{Entry, Records};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

mod agenda;
mod cartesia;
mod control;
mod deepgram;
mod elevenlabs;
mod listener;
mod openai;
mod program;
mod records;
mod socket;
mod spelled;
mod voice;

pub use program::{
    Delays, Dialect, Fault, FaultRate, Faults, Limits, Program, Reply, Rule, Service, ToolCall, VoiceSettings,
};
pub use records::{Closed, ClosedBy, Received, Record, Spoken};
pub use spelled::{HeardWord, LETTERS_PER_SECOND, heard_words, utterance};

/// How a [`ProviderSim`] starts.
#[derive(Clone, Debug)]
pub struct ProviderSimSettings {
    /// Where it listens; port 0 for any that is free.
    pub listen: SocketAddr,
    /// The one key that is accepted; `None` accepts any.
    pub key: Option<String>,
    /// The models the key may use; empty for any.
    pub models: Vec<String>,
    /// Decides what the faults' probabilities do.
    pub seed: u64,
    /// What the providers do.
    pub program: Program,
}

impl Default for ProviderSimSettings {
    fn default() -> Self {
        ProviderSimSettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            key: None,
            models: Vec::new(),
            seed: 0,
            program: Program::default(),
        }
    }
}

/// All the providers, on one port, until it is dropped: then every connection breaks.
pub struct ProviderSim {
    /// `http://127.0.0.1:port`, without a slash at the end; OpenAI's base is this plus `/v1`.
    pub base_url: String,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

impl ProviderSim {
    /// Listens and serves.
    pub async fn start(settings: ProviderSimSettings) -> std::io::Result<ProviderSim> {
        let listener = TcpListener::bind(settings.listen).await?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared::new(settings));
        let app = router(shared.clone());
        // Without TCP_NODELAY the first token of a stream comes 40 ms late on a kept-alive connection.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "The simulated providers stopped serving");
            }
        });
        Ok(ProviderSim { base_url, shared, server })
    }

    /// `ws://127.0.0.1:port`.
    pub fn ws_url(&self) -> String {
        self.base_url.replacen("http", "ws", 1)
    }

    /// Changes what the providers do from now on; what is being answered goes on as it began.
    pub fn program<T>(&self, change: impl FnOnce(&mut Program) -> T) -> T {
        change(&mut self.shared.program())
    }

    /// Everything that was asked so far, oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.shared.records.all()
    }

    /// Forgets the records.
    pub fn clear_records(&self) {
        self.shared.records.clear();
    }

    /// Waits until the records are as wanted and hands them out; `None` when they are not within the limit.
    pub async fn wait_for(&self, limit: Duration, wanted: impl Fn(&[Record]) -> bool) -> Option<Vec<Record>> {
        let mut changes = self.shared.records.changes();
        let satisfied = async {
            loop {
                changes.borrow_and_update();
                let records = self.records();
                if wanted(&records) {
                    return records;
                }
                if changes.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        timeout(limit, satisfied).await.ok()
    }
}

impl Drop for ProviderSim {
    fn drop(&mut self) {
        self.shared.stopped.send_replace(true);
        self.server.abort();
    }
}

/// The largest request that any of the providers takes (25 MB of audio), and its form around it.
const BODY_BYTES_MAX: usize = 26 << 20;

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .merge(openai::routes())
        .merge(deepgram::routes())
        .merge(elevenlabs::routes())
        .merge(cartesia::routes())
        .merge(control::routes())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

/// What all the providers have in common.
struct Shared {
    key: Option<String>,
    models: Vec<String>,
    program: Mutex<Program>,
    dice: Mutex<Dice>,
    records: Records,
    stopped: watch::Sender<bool>,
}

/// One request as it arrived, noted in its record.
struct Call {
    request: Parts,
    entry: Entry,
    query: Vec<(String, String)>,
    service: Service,
}

impl Shared {
    fn new(settings: ProviderSimSettings) -> Self {
        Shared {
            key: settings.key,
            models: settings.models,
            program: Mutex::new(settings.program),
            dice: Mutex::new(Dice::new(settings.seed)),
            records: Records::new(),
            stopped: watch::Sender::new(false),
        }
    }

    fn program(&self) -> MutexGuard<'_, Program> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, service: Service, request: Parts) -> Call {
        let entry = self.records.open(service, &request);
        let query = records::query_of(&request);
        Call { request, entry, query, service }
    }

    fn accepts(&self, key: &str) -> bool {
        !key.is_empty() && self.key.as_ref().is_none_or(|accepted| accepted == key)
    }

    fn draw(&self, service: Service, moment: Moment, entry: &Entry) -> Option<Fault> {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = dice.draw(&mut self.program().faults, service, moment)?;
        entry.edit(|record| record.faults.push(fault));
        Some(fault)
    }

    fn fork_dice(&self, service: Service) -> ChaCha8Rng {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).fork(service)
    }
}

/// Waits until the simulation ends.
async fn ended(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

impl Call {
    /// The first value of a parameter.
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.request.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Notes the parameters that the provider does not document.
    fn note_unknown_parameters(&self, known: &[&str]) {
        for (name, _) in self.query.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
            self.entry.oddity(format!("unknown parameter {name}"));
        }
    }

    /// Ends the request with this answer.
    fn answer(self, response: Response) -> Response {
        self.entry.edit(|record| record.status = response.status().as_u16());
        self.entry.close(ClosedBy::Provider, None);
        response
    }

    /// Ends the request with this answer, because of something that a correct client would not do.
    fn refuse(self, oddity: impl Into<String>, response: Response) -> Response {
        self.entry.oddity(oddity);
        self.answer(response)
    }
}

/// A request's parts and its whole body; an oversized or broken body is taken as empty.
async fn read(request: Request) -> (Parts, Bytes) {
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts.clone(), body);
    (parts, Bytes::from_request(request, &()).await.unwrap_or_default())
}
