//! A server with one workspace and a key of each role, asked as a client asks it.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use expect_test::Expect;
use jiff::Timestamp;
use offhook_core::call::log::LOG_REVISION;
use offhook_core::entity::{Direction, Role, Workspace};
use offhook_core::{AgentId, AgentVersionId, ConnectionId, ConversationId, Pii};
use offhook_server::agent::AgentConfig;
use offhook_server::app::App;
use offhook_server::call::driver::Surroundings;
use offhook_server::call::recorder::Recorder;
use offhook_server::call::registry::{Handle, Letter, MAILBOX, Registry, Whose};
use offhook_server::live::Live;
use offhook_server::router::{self, Stopping};
use offhook_server::speech::{Phrasebook, Recording};
use offhook_server::telemetry::{self, LogFormat};
use offhook_server::trunks::Trunks;
use offhook_store::{
    AgentSpec, Begun, CallLease, ConnectionSpec, Environment, NewCall, Node, Scope, Store, StoreOptions,
    Vault, VaultKey, WorkspaceSpec, system_environment,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tower::ServiceExt;
use tracing_subscriber::EnvFilter;

/// Runs each test on both databases, as `NAME::sqlite` and `NAME::postgres`.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            #[tokio::test]
            async fn sqlite() {
                super::$test(crate::house::House::sqlite().await).await;
            }

            #[tokio::test]
            async fn postgres() {
                if let Some(house) = crate::house::House::postgres().await {
                    super::$test(house).await;
                }
            }
        }
    )*};
}

/// Caller and callee of every call here.
pub const CALLER: &str = "+14155550199";
pub const CALLED: &str = "+14155550100";

/// The longest wait for anything that is expected.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A server.
pub struct House {
    pub app: Arc<App>,
    pub stopping: Stopping,
    pub workspace: Workspace,
    keys: BTreeMap<Role, String>,
    router: Router,
    folder: Option<TempDir>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A clock that goes on by a millisecond whenever it is read, so that ids sort as they are made.
struct Clock(AtomicI64);

impl Environment for Clock {
    fn now_us(&self) -> i64 {
        self.0.fetch_add(1_000, Ordering::Relaxed)
    }

    fn fill(&self, bytes: &mut [u8]) {
        system_environment().fill(bytes);
    }
}

/// What every test of the process has logged. One for all: a subscriber of one thread misses what others register.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Pen;

impl io::Write for Pen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Everything that was logged so far, whichever test did it.
pub fn log() -> String {
    String::from_utf8(LOG.lock().unwrap().clone()).unwrap()
}

/// Waits until something comes true.
pub async fn until(condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, met).await.expect("it comes true in time");
}

fn keep_a_log() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let log = telemetry::log(LogFormat::Json, EnvFilter::new("trace"), || Pen);
        tracing::subscriber::set_global_default(log).unwrap();
    });
}

impl House {
    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("offhook.db").display());
        House::open(&url, Some(folder)).await
    }

    /// `None` where there is no server: the store's own tests insist on one. All tests share its database, each with an
    /// organization of its own.
    #[allow(clippy::disallowed_methods, reason = "scripts/with-postgres names its server so")]
    pub async fn postgres() -> Option<Self> {
        let url = std::env::var("OFFHOOK_TEST_POSTGRES").ok()?;
        Some(House::open(&url, None).await)
    }

    async fn open(url: &str, folder: Option<TempDir>) -> Self {
        keep_a_log();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let environment: Arc<dyn Environment> = Arc::new(Clock(AtomicI64::new(1_800_000_000_000_000)));
        let options =
            StoreOptions { vault: Vault::new(&VaultKey::new([7; 32])), environment: environment.clone() };
        let store = Store::open(url, options).await.unwrap();
        let spec = WorkspaceSpec { name: "Main".into(), time_zone: "UTC".into(), business_hours: json!({}) };
        let (_, workspace) = store.create_organization("Ada's", &spec).await.unwrap();
        let registry = Arc::new(Registry::default());
        let (recorder, _) = Recorder::start(store.clone(), registry.clone());
        let app = Arc::new(App {
            around: Surroundings { registry, recorder, live: Live::default() },
            http: reqwest::Client::new(),
            public_url: "https://offhook.example".parse().unwrap(),
            node: Node::new(workspace.id.to_string(), 30_000, &*environment),
            phrases: Arc::new(Phrasebook::default()),
            rehearses: false,
            telnyx: Arc::default(),
            trunks: Trunks::default(),
            canned_apology: Arc::new(Recording::of_samples(&[], 8_000)),
            environment,
            store,
        });
        let stopping = Stopping::default();
        let router = router::router(app.clone(), stopping.clone());
        let mut house = House { app, stopping, workspace, keys: BTreeMap::new(), router, folder };
        house.keys = house.keys_of(&house.scope()).await;
        house
    }

    /// A file beside the database, where that is one.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.as_ref().expect("only SQLite has files").path().join(name)
    }

    /// A scope for what a test prepares past the API.
    pub fn scope(&self) -> Scope {
        Scope::system(&self.workspace, "test")
    }

    async fn keys_of(&self, scope: &Scope) -> BTreeMap<Role, String> {
        let mut keys = BTreeMap::new();
        for role in Role::ALL {
            let (_, key) = self.app.store.create_api_key(scope, role.as_str(), *role).await.unwrap();
            keys.insert(*role, key.expose().clone());
        }
        keys
    }

    /// The key of a role.
    pub fn key(&self, role: Role) -> &str {
        &self.keys[&role]
    }

    /// An owner's key of another organization in the same database.
    pub async fn stranger(&self) -> String {
        let spec =
            WorkspaceSpec { name: "Theirs".into(), time_zone: "UTC".into(), business_hours: json!({}) };
        let (_, workspace) = self.app.store.create_organization("Bob's", &spec).await.unwrap();
        self.keys_of(&Scope::system(&workspace, "test")).await.remove(&Role::Owner).unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Some(self.key(Role::Owner)), None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, Some(self.key(Role::Owner)), None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(self.key(Role::Owner)), Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, Some(self.key(Role::Owner)), Some(body)).await
    }

    pub async fn send(&self, method: Method, path: &str, key: Option<&str>, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.ask(request.body(body).unwrap()).await
    }

    /// Sends any request, and reads the whole answer.
    pub async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// The answer's body as it comes.
    pub async fn stream(&self, path: &str) -> axum::body::BodyDataStream {
        let request =
            Request::get(path).header(header::AUTHORIZATION, format!("Bearer {}", self.key(Role::Viewer)));
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().into_data_stream()
    }

    /// A Twilio connection, as `con_…`.
    pub async fn connection(&self, name: &str) -> String {
        let body = json!({ "kind": "twilio", "name": name, "account": "AC00000000000000000000000000000001", "secret": "the auth token" });
        self.post("/api/connections", body).await.id()
    }

    /// An agent that needs no account, as `agt_…`.
    pub async fn agent(&self, name: &str) -> String {
        self.post("/api/agents", json!({ "name": name, "config": { "instructions": "Be kind." } })).await.id()
    }

    /// A call that rings, and the right to write its record.
    pub async fn call(&self) -> Arc<CallLease> {
        let (store, scope) = (&self.app.store, self.scope());
        let spec = ConnectionSpec {
            kind: "twilio".into(),
            name: format!("line {}", self.app.ticket().expose()),
            account: Some("AC00000000000000000000000000000001".into()),
            config: json!({}),
            secret: None,
        };
        let connection = store.create_connection(&scope, &spec).await.unwrap();
        let new = NewCall {
            connection: connection.id,
            carrier_call: format!("CA{}", self.app.ticket().expose()),
            phone_number: None,
            agent_version: Some(self.version().await),
            direction: Direction::Inbound,
            from: Pii::new(CALLER.into()),
            to: Pii::new(CALLED.into()),
            forwarded_from: None,
            plan: serde_json::to_string(&AgentConfig::default().plan()).unwrap(),
            log_revision: LOG_REVISION,
        };
        match store.begin_call(&scope, &new, &self.app.node).await.unwrap() {
            Begun::New(lease) => Arc::new(lease),
            Begun::Existing(call) => panic!("{call:?}"),
        }
    }

    async fn version(&self) -> AgentVersionId {
        let name = format!("agent {}", self.app.ticket().expose());
        let spec = AgentSpec { name, running: true, config: json!({}) };
        self.app.store.create_agent(&self.scope(), &spec).await.unwrap().current
    }

    /// Puts a call among those that this node drives; what its driver is told comes out.
    pub fn drive(&self, call: &ConversationId) -> mpsc::Receiver<Letter> {
        let (mailbox, letters) = mpsc::channel(MAILBOX);
        const ULID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
        let whose = Whose {
            id: call.clone(),
            connection: ConnectionId::from_ulid(ULID),
            carrier_call: call.to_string(),
            agent: AgentId::from_ulid(ULID),
            tokens: vec![],
            forward_to: None,
        };
        self.app.around.registry.add(Arc::new(Handle::new(whose, mailbox))).unwrap();
        letters
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The id of what was made or read.
    pub fn id(&self) -> String {
        assert!(self.status.is_success(), "{}", self.text());
        self.json()["id"].as_str().unwrap().to_owned()
    }

    /// Compares status and body with what is expected; ids and times differ from run to run and are left out.
    pub fn check(&self, expected: &Expect) {
        let body = match self.body.is_empty() {
            true => String::new(),
            false => format!("\n{}", serde_json::to_string_pretty(&tidy(self.json())).unwrap()),
        };
        expected.assert_eq(&format!("{}{body}\n", self.status));
    }
}

/// A body without what differs from run to run.
pub fn tidy(value: Value) -> Value {
    match value {
        Value::String(text) if text.parse::<Timestamp>().is_ok() => "<time>".into(),
        Value::String(text) => without_ids(&text).into(),
        Value::Array(items) => items.into_iter().map(tidy).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, tidy(value))).collect(),
        value => value,
    }
}

/// `agt_01ARZ3NDEKTSV4RRFFQ69G5FAV` becomes `agt_…`, wherever it stands.
fn without_ids(text: &str) -> String {
    const ULID: usize = 26;
    let mut parts = text.split('_');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let ulid = part.bytes().take_while(u8::is_ascii_alphanumeric).count() >= ULID;
        out.push('_');
        out.push_str(if ulid { "…" } else { "" });
        out.push_str(if ulid { &part[ULID..] } else { part });
    }
    out
}
