//! A database of its own for each test, on SQLite and on PostgreSQL, with a clock that the test turns.

use offhook_core::entity::{Agent, Capability, Connection, Direction, PhoneNumber, Workspace};
use offhook_core::{E164, Pii, Secret};
use offhook_store::{
    AgentSpec, Begun, CallLease, ConnectionSpec, Environment, NewCall, Node, NumberSpec, Scope, Store,
    StoreOptions, Vault, VaultKey, WorkspaceSpec, system_environment,
};
use sea_orm::{ConnectionTrait, DatabaseConnection};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;

/// Runs each test on both databases, as `NAME::sqlite` and `NAME::postgres`.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            #[tokio::test]
            async fn sqlite() {
                super::$test(crate::database::Database::sqlite().await).await;
            }

            #[tokio::test]
            async fn postgres() {
                if let Some(database) = crate::database::Database::postgres().await {
                    super::$test(database).await;
                }
            }
        }
    )*};
}

/// The store under test.
pub struct Database {
    pub store: Store,
    pub url: String,
    pub clock: Arc<Clock>,
    folder: Option<TempDir>,
}

/// A clock that goes on by a millisecond whenever it is read, so that ids sort as they are made, and otherwise stands.
pub struct Clock(AtomicI64);

/// A workspace with one of everything that a call needs.
pub struct Tenant {
    pub workspace: Workspace,
    pub scope: Scope,
    pub connection: Connection,
    pub agent: Agent,
    pub number: PhoneNumber,
}

impl Database {
    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let url = format!("sqlite://{}", folder.path().join("offhook.db").display());
        Database::open(url, Some(folder)).await
    }

    /// `None` where PostgreSQL was switched off by hand.
    pub async fn postgres() -> Option<Self> {
        let Some(server) = setting("OFFHOOK_TEST_POSTGRES") else {
            assert!(
                setting("OFFHOOK_TEST_SQLITE_ONLY").is_some_and(|only| only == "1"),
                "no PostgreSQL to test on: run `scripts/with-postgres cargo test -p offhook-store`, or set OFFHOOK_TEST_SQLITE_ONLY=1"
            );
            return None;
        };
        let mut bytes = [0; 8];
        system_environment().fill(&mut bytes);
        let name = format!("test_{:016x}", u64::from_le_bytes(bytes));
        let admin = sea_orm::Database::connect(&server).await.expect("the server answers");
        admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.expect("a database can be made");
        admin.close().await.expect("the connection can be closed");
        let (host, _) = server.rsplit_once('/').expect("the address ends in a database's name");
        Some(Database::open(format!("{host}/{name}"), None).await)
    }

    async fn open(url: String, folder: Option<TempDir>) -> Self {
        let clock = Arc::new(Clock::default());
        let store = Store::open(&url, options(&clock, Vault::new(&key(1)))).await.expect("the store opens");
        Database { store, url, clock, folder }
    }

    /// The same database opened once more, as another process would.
    pub async fn open_again(&self, vault: Vault) -> Store {
        Store::open(&self.url, options(&self.clock, vault)).await.expect("the store opens again")
    }

    /// A connection past the store.
    pub async fn raw(&self) -> DatabaseConnection {
        sea_orm::Database::connect(&self.url).await.expect("the database answers")
    }

    /// Lets go of the file and leaves it in its folder.
    pub async fn close(self) -> TempDir {
        self.store.close().await.expect("the store closes");
        self.folder.expect("only SQLite has a file")
    }

    pub fn is_sqlite(&self) -> bool {
        self.folder.is_some()
    }

    /// A workspace of its own organization.
    pub async fn workspace(&self, organization: &str) -> (Workspace, Scope) {
        let (_, workspace) = self.store.create_organization(organization, &hours("main")).await.unwrap();
        let scope = Scope::system(&workspace, "test");
        (workspace, scope)
    }

    /// A tenant of its own organization.
    pub async fn tenant(&self, organization: &str) -> Tenant {
        let (workspace, _) = self.workspace(organization).await;
        self.tenant_in(workspace, "+14155550100").await
    }

    /// A tenant in this workspace.
    pub async fn tenant_in(&self, workspace: Workspace, e164: &str) -> Tenant {
        let scope = Scope::system(&workspace, "test");
        let connection =
            self.store.create_connection(&scope, &twilio(&format!("line of {e164}"))).await.unwrap();
        let agent = self.store.create_agent(&scope, &receptionist("reception")).await.unwrap();
        let number = self.store.create_number(&scope, &number(&connection, &agent, e164)).await.unwrap();
        Tenant { workspace, scope, connection, agent, number }
    }

    /// A call that has begun.
    pub async fn call(&self, tenant: &Tenant, carrier_call: &str, node: &Node) -> CallLease {
        match self.store.begin_call(&tenant.scope, &tenant.ring(carrier_call), node).await.unwrap() {
            Begun::New(lease) => lease,
            Begun::Existing(call) => panic!("the call was begun before: {call:?}"),
        }
    }
}

impl Tenant {
    pub fn ring(&self, carrier_call: &str) -> NewCall {
        NewCall {
            connection: self.connection.id.clone(),
            carrier_call: carrier_call.into(),
            phone_number: Some(self.number.id.clone()),
            agent_version: Some(self.agent.current.clone()),
            direction: Direction::Inbound,
            from: Pii::new("+14155550199".into()),
            to: Pii::new(self.number.e164.to_string()),
            forwarded_from: Some(Pii::new("+14155550123".into())),
            plan: r#"{"greeting":"hello"}"#.into(),
            log_revision: 1,
        }
    }
}

impl Clock {
    pub fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms * 1_000, Ordering::Relaxed);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock(AtomicI64::new(1_800_000_000_000_000))
    }
}

impl Environment for Clock {
    fn now_us(&self) -> i64 {
        self.0.fetch_add(1_000, Ordering::Relaxed)
    }

    fn fill(&self, bytes: &mut [u8]) {
        system_environment().fill(bytes);
    }
}

#[allow(clippy::disallowed_methods, reason = "where the databases are is not a setting of the product")]
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub fn options(clock: &Arc<Clock>, vault: Vault) -> StoreOptions {
    StoreOptions { vault, environment: clock.clone() }
}

pub fn key(seed: u8) -> VaultKey {
    VaultKey::new([seed; 32])
}

pub fn node(name: &str) -> Node {
    Node { name: name.into(), incarnation: format!("{name} 1"), lease_ms: 10_000 }
}

pub fn hours(name: &str) -> WorkspaceSpec {
    WorkspaceSpec {
        name: name.into(),
        time_zone: "Europe/Berlin".into(),
        business_hours: json!({ "weekly": { "monday": [["09:00", "17:00"]] } }),
    }
}

pub fn twilio(name: &str) -> ConnectionSpec {
    ConnectionSpec {
        kind: "twilio".into(),
        name: name.into(),
        account: Some("AC1".into()),
        config: json!({ "edge": "frankfurt" }),
        secret: Some(secret("the auth token")),
    }
}

pub fn receptionist(name: &str) -> AgentSpec {
    AgentSpec { name: name.into(), running: true, config: json!({ "instructions": "Be kind." }) }
}

pub fn number(connection: &Connection, agent: &Agent, e164: &str) -> NumberSpec {
    NumberSpec {
        connection: connection.id.clone(),
        e164: e164.parse::<E164>().unwrap(),
        name: format!("line {e164}"),
        capabilities: vec![Capability::Voice, Capability::Sms],
        settings: json!({ "in_hours": "agent", "off_hours": "voicemail" }),
        forward_to: Some("+4930123456".parse().unwrap()),
        inbound_agent: Some(agent.id.clone()),
    }
}

pub fn secret(text: &str) -> Secret<String> {
    Secret::new(text.into())
}
