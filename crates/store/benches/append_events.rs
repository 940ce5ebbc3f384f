//! How many log events a second the store takes: `scripts/with-postgres cargo bench -p offhook-store`. Set `OFFHOOK_POSTGRES_DURABLE=1` for a
//! PostgreSQL that waits for its disk, as one in service does.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock, and where the database is")]

use offhook_core::Pii;
use offhook_core::entity::{CallEvent, Direction};
use offhook_store::{
    Begun, CallLease, ConnectionSpec, LogBatch, NewCall, Node, Scope, Store, StoreOptions, Vault, VaultKey,
    WorkspaceSpec, system_environment,
};
use serde_json::json;
use std::time::{Duration, Instant};

const MEASURED_FOR: Duration = Duration::from_secs(2);
/// Calls written together, events of each: one call alone; a busy node that gathers for a moment; a large one.
const SHAPES: &[(usize, u32)] = &[(1, 1), (1, 10), (1, 100), (20, 5), (150, 5)];

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    measure("sqlite", &format!("sqlite://{}", folder.path().join("bench.db").display())).await;
    match std::env::var("OFFHOOK_TEST_POSTGRES") {
        Ok(url) => measure("postgres", &url).await,
        Err(_) => println!("postgres: not measured, OFFHOOK_TEST_POSTGRES is not set"),
    }
}

async fn measure(name: &str, url: &str) {
    let vault = Vault::new(&VaultKey::new([1; 32]));
    let options = StoreOptions { vault, environment: system_environment() };
    let store = Store::open(url, options).await.expect("the store opens");
    let leases = calls(&store, 150).await;
    let mut seq = 0;
    for (calls, events_each) in SHAPES {
        let (mut appends, mut slowest) = (0, Duration::ZERO);
        let (began, cpu_before_ms) = (Instant::now(), cpu_ms());
        while began.elapsed() < MEASURED_FOR {
            let events: Vec<_> = (seq..seq + events_each).map(event).collect();
            seq += events_each;
            let batches: Vec<_> =
                leases[..*calls].iter().map(|lease| LogBatch { lease, events: &events }).collect();
            let one = Instant::now();
            let refused = store.append_events(&batches).await.expect("the events are stored");
            assert!(refused.is_empty());
            slowest = slowest.max(one.elapsed());
            appends += 1;
        }
        let (seconds, cpu_ms) = (began.elapsed().as_secs_f64(), cpu_ms() - cpu_before_ms);
        let events = appends as f64 * f64::from(*events_each) * *calls as f64;
        println!(
            "{name}: {calls:>3} calls x {events_each:>3} events: {:>9.0} events/s, {:>6.0} appends/s, mean {:>6.2} ms, slowest {:>6.1} ms, {:>5.1} µs of CPU an event",
            events / seconds,
            appends as f64 / seconds,
            seconds * 1e3 / appends as f64,
            slowest.as_secs_f64() * 1e3,
            cpu_ms * 1e3 / events,
        );
    }
}

/// What this process has used so far; PostgreSQL's own share is not in it. Linux only; 0 elsewhere.
fn cpu_ms() -> f64 {
    const MS_PER_TICK: f64 = 10.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: f64 =
        after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks * MS_PER_TICK
}

async fn calls(store: &Store, count: usize) -> Vec<CallLease> {
    let spec = WorkspaceSpec { name: "bench".into(), time_zone: "UTC".into(), business_hours: json!({}) };
    let (_, workspace) =
        store.create_organization("bench", &spec).await.expect("an organization can be made");
    let scope = Scope::system(&workspace, "bench");
    let line = ConnectionSpec {
        kind: "twilio".into(),
        name: "line".into(),
        account: None,
        config: json!({}),
        secret: None,
    };
    let connection = store.create_connection(&scope, &line).await.expect("a connection can be made").id;
    let node = Node::new("bench".into(), 600_000, &*system_environment());
    let mut leases = Vec::new();
    let began = Instant::now();
    for i in 0..count {
        let new = NewCall {
            connection: connection.clone(),
            carrier_call: format!("CA{i}"),
            phone_number: None,
            agent_version: None,
            direction: Direction::Inbound,
            from: Pii::new("+14155550199".into()),
            to: Pii::new("+14155550100".into()),
            forwarded_from: None,
            plan: "{}".into(),
            log_revision: 1,
        };
        match store.begin_call(&scope, &new, &node).await.expect("a call can begin") {
            Begun::New(lease) => leases.push(lease),
            Begun::Existing(call) => panic!("the call was begun before: {}", call.id),
        }
    }
    println!("begin_call: mean {:.2} ms", began.elapsed().as_secs_f64() * 1e3 / count as f64);
    leases
}

/// About as long as an interim transcript.
fn event(seq: u32) -> CallEvent {
    CallEvent {
        seq,
        at_us: u64::from(seq) * 20_000,
        input: Pii::new(format!(
            r#"{{"input":{{"interim":{{"stt":3,"text":"I would like to change my appointment on thursday to","n":{seq}}}}}}}"#
        )),
        orders: "ask a7 head start, stop ask a6".into(),
        digest: 0x9e37_79b9_7f4a_7c15 ^ u64::from(seq),
    }
}
