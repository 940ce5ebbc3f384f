//! One installation: the `offhook` command as a child process behind a door, a simulated carrier, simulated providers.

use crate::door::Door;
use crate::line::{Caller, Leg};
use offhook_core::Secret;
use offhook_sim::carrier::twilio::{CallOrder, OwnedNumber, TwilioSettings, TwilioSim};
use offhook_sim::provider::{ProviderSim, ProviderSimSettings};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Instant;

/// Runs each test on both databases, as `NAME::sqlite` and `NAME::postgres`.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::$test(crate::house::Place::sqlite()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                if let Some(place) = crate::house::Place::postgres().await {
                    super::$test(place).await;
                }
            }
        }
    )*};
}

/// The longest wait for anything that is expected.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The number that is called.
pub const NUMBER: &str = "+15550100002";
/// What the agent says first.
pub const GREETING: &str = "Hello, this is the corner shop.";
/// The carrier's account and what it signs with.
pub const ACCOUNT: &str = "AC00000000000000000000000000000001";
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Where an installation keeps its data.
pub struct Place {
    pub folder: TempDir,
    /// Empty: SQLite in the folder.
    pub database: String,
    /// Whether agents' fixed sentences are spoken before anybody rings. Most tests want voices that have not spoken yet.
    pub rehearses: bool,
    /// More settings, as environment variables.
    pub environment: Vec<(&'static str, String)>,
}

impl Place {
    pub fn sqlite() -> Place {
        Place::on(String::new())
    }

    /// A new database on the server that `scripts/with-postgres` names; `None` where PostgreSQL was switched off by hand.
    #[allow(clippy::disallowed_methods, reason = "where the databases are is not a setting of the product")]
    pub async fn postgres() -> Option<Place> {
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        let Ok(server) = std::env::var("OFFHOOK_TEST_POSTGRES") else {
            assert!(
                std::env::var("OFFHOOK_TEST_SQLITE_ONLY").is_ok_and(|only| only == "1"),
                "no PostgreSQL to test on: run `scripts/with-postgres cargo test -p offhook`, or set OFFHOOK_TEST_SQLITE_ONLY=1"
            );
            return None;
        };
        let name = format!("ring3_{}_{}", std::process::id(), DATABASES.fetch_add(1, Ordering::Relaxed));
        let admin = sea_orm::Database::connect(&server).await.unwrap();
        admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
        admin.close().await.unwrap();
        let (host, _) = server.rsplit_once('/').unwrap();
        let database = format!("{host}/{name}");
        Some(Place::on(database))
    }

    fn on(database: String) -> Place {
        let folder = tempfile::tempdir().unwrap();
        Place { folder, database, rehearses: false, environment: Vec::new() }
    }

    pub fn is_sqlite(&self) -> bool {
        self.database.is_empty()
    }

    /// The database's address, as a library wants it.
    pub fn url(&self) -> String {
        match self.is_sqlite() {
            true => format!("sqlite://{}", self.folder.path().join("offhook.db").display()),
            false => self.database.clone(),
        }
    }

    /// Takes the database away from the process, and gives it back.
    pub async fn cut_off(&self, away: bool) {
        if self.is_sqlite() {
            let (here, there) = (self.folder.path().join("offhook.db"), self.folder.path().join("away.db"));
            let (from, to) = if away { (here, there) } else { (there, here) };
            return std::fs::rename(from, to).unwrap();
        }
        let (server, name) = self.database.rsplit_once('/').unwrap();
        let admin = sea_orm::Database::connect(format!("{server}/postgres")).await.unwrap();
        admin
            .execute_unprepared(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {}", !away))
            .await
            .unwrap();
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        admin.execute_unprepared(&end).await.unwrap();
        admin.close().await.unwrap();
    }

    /// The command on this installation.
    pub fn offhook(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
        command.args(arguments).arg("--data").arg(self.folder.path());
        command
            .env("OFFHOOK_DEMO_ENABLED", "false")
            .env("OFFHOOK_LOG_LEVEL", "info")
            .env("OFFHOOK_SERVER_DRAIN_S", "5")
            .env("OFFHOOK_SERVER_REHEARSE", self.rehearses.to_string())
            .env("OFFHOOK_SERVER_DATABASE", &self.database)
            .envs(self.environment.iter().cloned())
            .kill_on_drop(true);
        command
    }
}

/// The installation with everything around it.
pub struct House {
    pub place: Place,
    pub door: Door,
    pub carrier: TwilioSim,
    /// The providers that are tried first.
    pub first: ProviderSim,
    /// And second.
    pub second: ProviderSim,
    server: Server,
    key: String,
    http: reqwest::Client,
    callers: AtomicU32,
}

/// The child process.
struct Server {
    child: Child,
    log: Arc<Mutex<String>>,
    /// Kept open, or the child could not print any more.
    _stdout: Lines<BufReader<ChildStdout>>,
}

/// A finished call as the API tells it.
pub struct Kept {
    pub id: String,
    pub ended_reason: String,
    /// Role and text of each line.
    pub lines: Vec<(String, String)>,
    pub record: Value,
}

impl Kept {
    /// The lines of one side.
    pub fn of(&self, role: &str) -> Vec<&str> {
        self.lines.iter().filter(|(of, _)| of == role).map(|(_, text)| text.as_str()).collect()
    }
}

impl House {
    /// An installation whose agent is changed by `settings` where it says so.
    pub async fn open(place: Place, settings: Value) -> House {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (first, second) = (providers().await, providers().await);
        let door = Door::open().await;
        let hook = |path: &str| format!("http://{}/hooks/twilio/{path}", door.address);
        let number = OwnedNumber {
            voice_fallback_url: hook("voice-fallback"),
            status_callback: hook("status"),
            ..OwnedNumber::new(NUMBER, hook("voice"))
        };
        let twilio = TwilioSettings {
            account_sid: ACCOUNT.into(),
            auth_token: Secret::new(TOKEN.into()),
            numbers: vec![number],
            say_ms_per_character: 1,
            ..TwilioSettings::default()
        };
        let carrier = TwilioSim::start(([127, 0, 0, 1], 0).into(), twilio).await.unwrap();
        let declared = declared(&carrier.base_url(), [&first.base_url, &second.base_url], settings);
        std::fs::write(place.folder.path().join("declared.json"), declared.to_string()).unwrap();
        let (server, key) = Server::start(&place, &door, "one").await;
        let key = key.expect("the first start shows a key");
        let http = reqwest::Client::new();
        House { place, door, carrier, first, second, server, key, http, callers: AtomicU32::new(1) }
    }

    /// Somebody rings.
    pub fn ring(&self) -> Caller {
        let from = format!("+1555010{:04}", 1_000 + self.callers.fetch_add(1, Ordering::Relaxed));
        Caller::of(self.carrier.call(CallOrder::new(NUMBER, from)).unwrap())
    }

    /// What the API answers; anything but 200 fails the test.
    pub async fn get(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.door.address);
        let answer = self.http.get(url).bearer_auth(&self.key).timeout(LIMIT).send().await.unwrap();
        let status = answer.status();
        let body = answer.text().await.unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The first that the API lists of a kind and that fits.
    pub async fn item(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let listed = self.get(path).await;
        listed["items"].as_array().unwrap().iter().find(|item| fits(item)).unwrap().clone()
    }

    /// Makes something by the API.
    pub async fn create(&self, path: &str, what: Value) -> Value {
        let url = format!("http://{}{path}", self.door.address);
        let answer = self.http.post(&url).bearer_auth(&self.key).json(&what).send().await.unwrap();
        answer.error_for_status().unwrap().json().await.unwrap()
    }

    /// Changes something by the API.
    pub async fn change(&self, path: &str, change: Value) {
        let url = format!("http://{}{path}", self.door.address);
        let asked = self.http.patch(&url).bearer_auth(&self.key).json(&change);
        asked.send().await.unwrap().error_for_status().unwrap();
    }

    /// Removes something by the API.
    pub async fn delete(&self, path: &str) {
        let url = format!("http://{}{path}", self.door.address);
        self.http.delete(&url).bearer_auth(&self.key).send().await.unwrap().error_for_status().unwrap();
    }

    /// Asks the API to do something; false if it was not answered, as by a process that was killed. A refusal fails the test.
    pub async fn try_post(&self, path: String, body: Value) -> bool {
        let url = format!("http://{}{path}", self.door.address);
        done(self.http.post(url).bearer_auth(&self.key).json(&body)).await
    }

    /// The same for what is removed.
    pub async fn try_delete(&self, path: String) -> bool {
        done(self.http.delete(format!("http://{}{path}", self.door.address)).bearer_auth(&self.key)).await
    }

    /// The calls that the API lists.
    pub async fn calls(&self) -> Vec<Value> {
        self.get("/api/calls?limit=100").await["items"].as_array().unwrap().clone()
    }

    /// The id of a call that has at least begun.
    pub async fn id_of(&self, call: &impl Leg) -> String {
        let rows = self.calls().await;
        let row = rows.iter().find(|row| row["carrier_call"] == call.carrier_call());
        row.unwrap_or_else(|| panic!("{} is not among {rows:?}", call.carrier_call()))["id"]
            .as_str()
            .unwrap()
            .into()
    }

    /// What is kept of a call that is over.
    pub async fn kept(&self, call: &impl Leg) -> Kept {
        self.kept_as(&self.id_of(call).await).await
    }

    /// What is kept of the call with an id, once it is over.
    pub async fn kept_as(&self, id: &str) -> Kept {
        let deadline = Instant::now() + LIMIT;
        let record = loop {
            let record = self.get(&format!("/api/calls/{id}")).await;
            if record["ended_reason"].is_string() {
                break record;
            }
            assert!(Instant::now() < deadline, "the call's end was not written: {record}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let messages = self.get(&format!("/api/conversations/{id}/messages")).await;
        let text = |message: &Value, field: &str| message[field].as_str().unwrap().to_owned();
        let lines = messages["items"].as_array().unwrap().iter().map(|m| (text(m, "role"), text(m, "text")));
        let ended_reason = record["ended_reason"].as_str().unwrap().into();
        Kept { id: id.into(), ended_reason, lines: lines.collect(), record }
    }

    /// Runs another command on the same installation.
    pub async fn offhook(&self, arguments: &[&str]) -> (ExitStatus, String) {
        let run = self.place.offhook(arguments).output();
        let output = tokio::time::timeout(LIMIT, run).await.expect("the command ends").unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&text).into_owned())
    }

    /// Kills the process without a word, and starts one of this name on the same data.
    pub async fn kill_and_start(&mut self, node: &str) {
        self.kill().await;
        self.start(node).await;
    }

    /// Kills the process without a word.
    pub async fn kill(&mut self) {
        self.door.leads_to(None);
        self.server.child.kill().await.unwrap();
    }

    /// Starts a process of this name on the same data, after one that was killed.
    pub async fn start(&mut self, node: &str) {
        let (server, key) = Server::start(&self.place, &self.door, node).await;
        assert_eq!(key, None, "a key is shown once");
        self.server = server;
    }

    /// Asks the process to stop while calls are open, and starts another on the same data when it has.
    pub async fn replace(&mut self) {
        self.server.stop().await;
        let (server, _) = Server::start(&self.place, &self.door, "two").await;
        self.server = server;
    }

    /// Asks the process to stop, and does not wait for it.
    pub async fn ask_to_stop(&self) {
        self.server.ask_to_stop().await;
    }

    /// Waits until the process that was asked to stop has stopped, and starts another on the same data.
    pub async fn start_again(&mut self) {
        self.server.until_stopped().await;
        let (server, _) = Server::start(&self.place, &self.door, "one").await;
        self.server = server;
    }

    /// Starts another process of the same name on the same data, to which the door does not lead.
    pub async fn start_beside(&self) -> Beside {
        let (address, server) = (self.door.behind(), Server::start(&self.place, &self.door, "one").await.0);
        self.door.leads_to(address);
        Beside(server)
    }

    /// What the process has logged.
    pub fn log(&self) -> String {
        self.server.log.lock().unwrap().clone()
    }

    /// The process lives and nothing in it has panicked.
    pub fn is_well(&mut self) {
        assert_eq!(self.server.child.try_wait().unwrap(), None, "the server is gone");
        assert!(!self.log().contains("panicked"), "something panicked");
        assert!(!self.log().contains("call machine broke"), "a call machine broke");
    }

    /// Everything was well to the end, and the process stops when it is asked.
    pub async fn close(mut self) {
        self.is_well();
        self.server.stop().await;
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("---- the server's log\n{}", self.log());
            println!("---- the carrier's alerts\n{:?}", self.carrier.alerts());
        }
    }
}

async fn done(request: reqwest::RequestBuilder) -> bool {
    let Ok(answer) = request.timeout(LIMIT).send().await else { return false };
    let status = answer.status();
    assert!(status.is_success(), "{status}: {}", answer.text().await.unwrap_or_default());
    true
}

/// A process beside the one that the door leads to.
pub struct Beside(Server);

impl Beside {
    /// Stops it.
    pub async fn end(mut self) {
        self.0.stop().await;
    }
}

impl Server {
    /// Asks the process to stop, as a service manager does, and waits until it has.
    async fn stop(&mut self) {
        self.ask_to_stop().await;
        self.until_stopped().await;
    }

    async fn ask_to_stop(&self) {
        let pid = self.child.id().unwrap().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
    }

    async fn until_stopped(&mut self) {
        let ended = tokio::time::timeout(LIMIT, self.child.wait()).await;
        assert!(ended.expect("the server stops when asked").unwrap().success());
    }

    /// Starts the command, waits until it is ready and opens the door to it. Hands out the API key if one was shown.
    async fn start(place: &Place, door: &Door, node: &str) -> (Server, Option<String>) {
        let declared: PathBuf = place.folder.path().join("declared.json");
        let mut child = place
            .offhook(&["serve", "--listen", "127.0.0.1:0", "--apply", declared.to_str().unwrap()])
            .env("OFFHOOK_SERVER_NODE", node)
            .env("OFFHOOK_SERVER_PUBLIC_URL", format!("http://{}", door.address))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = keep(child.stderr.take().unwrap());
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut key = None;
        let ready = async {
            while let Some(line) = stdout.next_line().await.unwrap() {
                if let Some(shown) = line.strip_prefix("API key, shown this once: ") {
                    key = Some(shown.to_owned());
                }
                if let Some(address) = line.strip_prefix("ready http://") {
                    return address.parse().unwrap();
                }
            }
            panic!("the server did not get ready: {}", log.lock().unwrap());
        };
        let address = tokio::time::timeout(LIMIT, ready).await.expect("the server gets ready in time");
        door.leads_to(Some(address));
        (Server { child, log, _stdout: stdout }, key)
    }
}

fn keep(stderr: impl AsyncRead + Send + Unpin + 'static) -> Arc<Mutex<String>> {
    let kept = Arc::<Mutex<String>>::default();
    let log = kept.clone();
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    kept
}

async fn providers() -> ProviderSim {
    ProviderSim::start(ProviderSimSettings::default()).await.unwrap()
}

/// Everything that the command is told by a file.
fn declared(carrier: &str, providers: [&str; 2], settings: Value) -> Value {
    let mut connections =
        vec![json!({ "name": "phone", "kind": "twilio", "account": ACCOUNT, "secret": TOKEN,
        "config": { "api_base": carrier } })];
    for (base, place) in providers.into_iter().zip(["first", "second"]) {
        let mut add = |kind: &str, name: &str, config: Value| {
            connections.push(
                json!({ "name": format!("{place} {name}"), "kind": kind, "secret": "k", "config": config }),
            );
        };
        add("deepgram", "ear", json!({ "base_url": base }));
        add("openai", "model", json!({ "base_url": format!("{base}/v1"), "model": "gpt" }));
        add("cartesia", "voice", json!({ "base_url": base }));
    }
    let both = |name: &str| json!([{ "connection": format!("first {name}") }, { "connection": format!("second {name}") }]);
    let mut config = json!({
        "instructions": "You answer the phone of a corner shop.",
        "first_message": GREETING,
        "stt": both("ear"), "llm": both("model"), "tts": both("voice"),
        "abilities": [{ "kind": "end_call" }, { "kind": "take_message" }],
    });
    for (name, value) in settings.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    json!({ "connections": connections, "agents": [{ "name": "Shop", "config": config }],
        "numbers": [{ "number": NUMBER, "connection": "phone", "agent": "Shop" }] })
}
