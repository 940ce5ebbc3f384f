//! A stranger's scope, tried on every function that takes one. The functions are read from the sources: one without a case here fails.

use crate::calls::finished;
use crate::database::{Database, Tenant, hours, node, number, receptionist, secret, twilio};
use offhook_core::entity::{ApiKey, CallEvent, ConnectionStatus, OperationKind, Role};
use offhook_core::provisioning::{Provisioning, Task};
use offhook_core::{AgentId, ConnectionId, ConversationId, OperationId, Pii};
use offhook_store::{
    AgentSpec, Apply, CallFilter, ConnectionSpec, Declaration, DeclaredNumber, LineNumber, LogBatch, LogFrom,
    NewCall, NewLine, NewOperation, NumberSpec, Page, Scope, Store, StoreError,
};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::Pin;

on_both![a_stranger_sees_and_changes_nothing, a_sibling_workspace_shares_only_what_is_the_organizations,];

/// Functions without a scope: each says in its documentation that it is the system's own, or takes a lease, which is as good.
const WITHOUT_SCOPE: &[&str] = &[
    "answering_agents",
    "append_events",
    "call_answered",
    "claim_expired",
    "close",
    "connections_of_kind",
    "create_first",
    "create_organization",
    "finish_call",
    "forget_secrets",
    "missing_keys",
    "note_connection",
    "numbers_behind",
    "numbers_for_ring",
    "open",
    "open_existing",
    "ping",
    "release_call",
    "claim_left",
    "claim_operations",
    "claim_unchecked",
    "hold_operation",
    "keep_leg",
    "save_operation",
    "node_seen",
    "renew_leases",
    "reseal_secrets",
    "save_snapshot",
    "scope_for_api_key",
    "workspaces",
];

/// What a stranger must get.
#[derive(Clone, Copy, PartialEq)]
enum Expect {
    /// Nothing but `NotFound`.
    NotFound,
    /// Something of its own, or nothing.
    Own,
}
use Expect::{NotFound, Own};

/// Whose the rows are: a sibling workspace may touch what is the organization's.
#[derive(Clone, Copy, PartialEq)]
enum Rows {
    Workspace,
    Organization,
}
use Rows::{Organization, Workspace};

/// Somebody else's things, and a scope that is not theirs.
struct Trespass {
    store: Store,
    intruder: Scope,
    own: Tenant,
    victim: Victim,
}

struct Victim {
    tenant: Tenant,
    key: ApiKey,
    call: ConversationId,
    operation: OperationId,
}

type Attempt<'a> = Pin<Box<dyn Future<Output = Result<String, StoreError>> + 'a>>;
type Case = (&'static str, Rows, Expect, for<'a> fn(&'a Trespass) -> Attempt<'a>);

macro_rules! cases {
    ($(($function:ident, $rows:expr, $expect:expr): |$t:ident| $call:expr;)*) => {
        &[$((stringify!($function), $rows, $expect, {
            fn attempt<'a>($t: &'a Trespass) -> Attempt<'a> {
                Box::pin(async move { shown($call.await) })
            }
            attempt
        }),)*]
    };
}

fn shown<T: Debug>(result: Result<T, StoreError>) -> Result<String, StoreError> {
    result.map(|seen| format!("{seen:?}"))
}

const CASES: &[Case] = cases! {
    (agent, Workspace, NotFound): |t| t.store.agent(&t.intruder, &t.victim.tenant.agent.id);
    (agent_version, Workspace, NotFound): |t| t.store.agent_version(&t.intruder, &t.victim.tenant.agent.current);
    (agent_versions, Workspace, NotFound): |t| t.store.agent_versions(&t.intruder, &t.victim.tenant.agent.id, &page());
    (agents, Workspace, Own): |t| t.store.agents(&t.intruder, &page());
    (api_key, Workspace, NotFound): |t| t.store.api_key(&t.intruder, &t.victim.key.id);
    (api_keys, Workspace, Own): |t| t.store.api_keys(&t.intruder, &page());
    (apply, Organization, Own): |t| t.store.apply(&t.intruder, &same_names(&t.victim.tenant), Apply::Write);
    (audit_events, Workspace, Own): |t| t.store.audit_events(&t.intruder, &page());
    (begin_call, Workspace, NotFound): |t| begin(t, t.victim.tenant.ring("CA new"));
    (begin_call, Workspace, NotFound): |t| begin(t, t.victim.tenant.ring("CA victim"));
    (begin_call, Workspace, NotFound): |t| begin(t, NewCall {
        phone_number: Some(t.victim.tenant.number.id.clone()), ..t.own.ring("CA 1")
    });
    (begin_call, Workspace, NotFound): |t| begin(t, NewCall {
        agent_version: Some(t.victim.tenant.agent.current.clone()), ..t.own.ring("CA 2")
    });
    (begin_operation, Workspace, NotFound): |t| begin_operation(t, Some(&t.victim.tenant.agent.id), None);
    (begin_operation, Workspace, NotFound): |t| begin_operation(t, None, None);
    (begin_operation, Organization, NotFound): |t| begin_operation(t, None, Some(&t.victim.tenant.connection.id));
    (call, Workspace, NotFound): |t| t.store.call(&t.intruder, &t.victim.call);
    (call_of_carrier, Workspace, NotFound): |t| {
        t.store.call_of_carrier(&t.intruder, &t.victim.tenant.connection.id, "CA victim")
    };
    (calls, Workspace, Own): |t| t.store.calls(&t.intruder, CallFilter::All, &page());
    (calls, Workspace, Own): |t| t.store.calls(&t.intruder, CallFilter::Live, &page());
    (claim_call, Workspace, NotFound): |t| claim(t);
    (connection, Organization, NotFound): |t| t.store.connection(&t.intruder, &t.victim.tenant.connection.id);
    (connection_secret, Organization, NotFound): |t| {
        t.store.connection_secret(&t.intruder, &t.victim.tenant.connection.id)
    };
    (forget_earlier_secret, Organization, NotFound): |t| {
        t.store.forget_earlier_secret(&t.intruder, &t.victim.tenant.connection.id)
    };
    (connections, Organization, Own): |t| t.store.connections(&t.intruder, &page());
    (conversation, Workspace, NotFound): |t| t.store.conversation(&t.intruder, &t.victim.call);
    (conversations, Workspace, Own): |t| t.store.conversations(&t.intruder, &page());
    (create_agent, Workspace, Own): |t| create_agent(t);
    (create_api_key, Workspace, Own): |t| t.store.create_api_key(&t.intruder, "key", Role::Owner);
    (create_connection, Organization, Own): |t| create_connection(t);
    (create_number, Organization, NotFound): |t| create_number(t, NumberSpec {
        connection: t.victim.tenant.connection.id.clone(), ..own_number(t, "+4930111")
    });
    (create_number, Workspace, NotFound): |t| create_number(t, NumberSpec {
        inbound_agent: Some(t.victim.tenant.agent.id.clone()), ..own_number(t, "+4930222")
    });
    (create_workspace, Organization, Own): |t| create_workspace(t);
    (delete_agent, Workspace, NotFound): |t| t.store.delete_agent(&t.intruder, &t.victim.tenant.agent.id);
    (delete_connection, Organization, NotFound): |t| {
        t.store.delete_connection(&t.intruder, &t.victim.tenant.connection.id)
    };
    (delete_number, Workspace, NotFound): |t| t.store.delete_number(&t.intruder, &t.victim.tenant.number.id);
    (held_numbers, Organization, NotFound): |t| {
        t.store.held_numbers(&t.intruder, &t.victim.tenant.connection.id)
    };
    (load_log, Workspace, NotFound): |t| t.store.load_log(&t.intruder, &t.victim.call, LogFrom::Start);
    (load_log, Workspace, NotFound): |t| t.store.load_log(&t.intruder, &t.victim.call, LogFrom::Snapshot);
    (legs, Workspace, NotFound): |t| t.store.legs(&t.intruder, &t.victim.call);
    (messages, Workspace, NotFound): |t| t.store.messages(&t.intruder, &t.victim.call);
    (number, Workspace, NotFound): |t| t.store.number(&t.intruder, &t.victim.tenant.number.id);
    (number_checked, Workspace, NotFound): |t| {
        t.store.number_checked(&t.intruder, &t.victim.tenant.number.id, Some("mine"))
    };
    (numbers, Workspace, Own): |t| t.store.numbers(&t.intruder, &page());
    (numbers_of_agent, Workspace, NotFound): |t| {
        t.store.numbers_of_agent(&t.intruder, &t.victim.tenant.agent.id)
    };
    (numbers_of_connection, Organization, NotFound): |t| {
        t.store.numbers_of_connection(&t.intruder, &t.victim.tenant.connection.id)
    };
    (operation, Workspace, NotFound): |t| t.store.operation(&t.intruder, &t.victim.operation);
    (operation_steps, Workspace, NotFound): |t| t.store.operation_steps(&t.intruder, &t.victim.operation);
    (operations, Workspace, Own): |t| t.store.operations(&t.intruder, None, &page());
    (operations, Workspace, NotFound): |t| operations_of_agent(t);
    (replace_connection, Organization, NotFound): |t| replace_connection(t);
    (replace_number, Workspace, NotFound): |t| replace_number(t);
    (revoke_api_key, Workspace, NotFound): |t| t.store.revoke_api_key(&t.intruder, &t.victim.key.id);
    (save_agent, Workspace, NotFound): |t| save_agent(t);
    (replace_workspace, Workspace, Own): |t| replace_workspace(t);
    (set_connection_status, Organization, NotFound): |t| {
        t.store.set_connection_status(
            &t.intruder, &t.victim.tenant.connection.id, 1, ConnectionStatus::Error, Some("mine"),
        )
    };
    (tool_calls, Workspace, NotFound): |t| t.store.tool_calls(&t.intruder, &t.victim.call);
    (usage, Workspace, NotFound): |t| t.store.usage(&t.intruder, &t.victim.call);
    (workspace, Workspace, Own): |t| t.store.workspace(&t.intruder);
};

#[test]
fn every_function_of_the_store_has_a_case() {
    let (mut scoped, mut others) = (BTreeSet::new(), BTreeSet::new());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = std::fs::read_to_string(path).unwrap();
        for function in source.split("    pub async fn ").skip(1) {
            let (signature, _) = function.split_once('{').unwrap();
            let name = signature.split('(').next().unwrap().to_owned();
            if signature.contains("scope: &Scope") {
                scoped.insert(name)
            } else {
                others.insert(name)
            };
        }
    }
    let cases: BTreeSet<String> = CASES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(cases, scoped, "cases on the left, functions that take a scope on the right");
    let known: BTreeSet<String> = WITHOUT_SCOPE.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(known, others, "known on the left, functions without a scope on the right");
}

async fn a_stranger_sees_and_changes_nothing(db: Database) {
    let victim = victim(&db).await;
    let own = db.tenant("intruder").await;
    let trespass = Trespass { store: db.store.clone(), intruder: own.scope.clone(), own, victim };
    try_all(&trespass, |_| true).await;
}

async fn a_sibling_workspace_shares_only_what_is_the_organizations(db: Database) {
    let victim = victim(&db).await;
    let sibling = db.store.create_workspace(&victim.tenant.scope, &hours("sibling")).await.unwrap();
    let own = db.tenant_in(sibling, "+14155550101").await;
    let trespass = Trespass { store: db.store.clone(), intruder: own.scope.clone(), own, victim };
    try_all(&trespass, |rows| rows == Workspace).await;
    let shared = trespass.store.connection(&trespass.intruder, &trespass.victim.tenant.connection.id).await;
    assert_eq!(shared.unwrap(), trespass.victim.tenant.connection);
}

async fn try_all(trespass: &Trespass, applies: impl Fn(Rows) -> bool) {
    let before = everything(trespass).await;
    let ids = trespass.victim.ids();
    for (function, _, expect, attempt) in CASES.iter().filter(|(_, rows, ..)| applies(*rows)) {
        match (attempt(trespass).await, expect) {
            (Err(StoreError::NotFound { .. }), NotFound) => {}
            (Ok(seen), Own) => {
                let theirs = ids.iter().find(|id| seen.contains(id.as_str()));
                assert!(theirs.is_none(), "{function} shows {theirs:?}: {seen}");
            }
            (other, _) => panic!("{function} answered a stranger with {other:?}"),
        }
        assert_eq!(everything(trespass).await, before, "{function} changed another's rows");
    }
}

async fn victim(db: &Database) -> Victim {
    let tenant = db.tenant("victim").await;
    let (key, _) = db.store.create_api_key(&tenant.scope, "theirs", Role::Owner).await.unwrap();
    let lease = db.call(&tenant, "CA victim", &node("a")).await;
    let event =
        CallEvent { seq: 0, at_us: 0, input: Pii::new("{}".into()), orders: String::new(), digest: 0 };
    db.store.append_events(&[LogBatch { lease: &lease, events: &[event] }]).await.unwrap();
    db.store.finish_call(&lease, &finished()).await.unwrap();
    let live = db.call(&tenant, "CA live", &node("a")).await;
    db.store.release_call(&live).await.unwrap();
    let stop = NewOperation {
        kind: OperationKind::Stop,
        agent: Some(tenant.agent.id.clone()),
        connection: None,
        lines: vec![],
    };
    let (operation, _) = db.store.begin_operation(&tenant.scope, &stop, &node("a")).await.unwrap();
    Victim { call: live.call().clone(), key, tenant, operation: operation.id }
}

impl Victim {
    fn ids(&self) -> Vec<String> {
        let tenant = &self.tenant;
        vec![
            tenant.workspace.id.to_string(),
            tenant.connection.id.to_string(),
            tenant.agent.id.to_string(),
            tenant.number.id.to_string(),
            self.key.id.to_string(),
            self.call.to_string(),
            self.operation.to_string(),
        ]
    }
}

/// All that the victim can see.
async fn everything(t: &Trespass) -> String {
    let (store, scope) = (&t.store, &t.victim.tenant.scope);
    let mut all = format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        store.workspace(scope).await.unwrap(),
        store.connection(scope, &t.victim.tenant.connection.id).await.unwrap(),
        store.agents(scope, &page()).await.unwrap(),
        store.numbers(scope, &page()).await.unwrap(),
        store.api_keys(scope, &page()).await.unwrap(),
        store.conversations(scope, &page()).await.unwrap(),
        store.audit_events(scope, &page()).await.unwrap(),
        store.operations(scope, None, &page()).await.unwrap(),
    );
    let calls = store.calls(scope, CallFilter::All, &page()).await.unwrap();
    for call in &calls.rows {
        let messages = store.messages(scope, &call.id).await.unwrap();
        let log = store.load_log(scope, &call.id, LogFrom::Start).await.unwrap();
        all.push_str(&format!("{call:?} {messages:?} {log:?}"));
    }
    all
}

fn page() -> Page {
    Page::first(100)
}

fn own_number(t: &Trespass, e164: &str) -> NumberSpec {
    number(&t.own.connection, &t.own.agent, e164)
}

fn same_names(theirs: &Tenant) -> Declaration {
    Declaration {
        connections: vec![ConnectionSpec { secret: Some(secret("mine")), ..twilio(&theirs.connection.name) }],
        agents: vec![AgentSpec { config: json!("mine"), ..receptionist(&theirs.agent.name) }],
        numbers: vec![DeclaredNumber {
            connection: theirs.connection.name.clone(),
            e164: theirs.number.e164.clone(),
            name: "mine".into(),
            capabilities: Vec::new(),
            settings: json!({}),
            forward_to: None,
            inbound_agent: None,
        }],
    }
}

async fn begin(t: &Trespass, new: NewCall) -> Result<impl Debug + use<>, StoreError> {
    t.store.begin_call(&t.intruder, &new, &node("mine")).await
}

async fn begin_operation(
    t: &Trespass,
    agent: Option<&AgentId>,
    connection: Option<&ConnectionId>,
) -> Result<impl Debug + use<>, StoreError> {
    let number = LineNumber::Known(t.victim.tenant.number.id.clone());
    let new = NewOperation {
        kind: if connection.is_some() { OperationKind::Disconnect } else { OperationKind::Start },
        agent: agent.cloned(),
        connection: connection.cloned(),
        lines: vec![NewLine { number, machine: Provisioning::new(Task::Release) }],
    };
    t.store.begin_operation(&t.intruder, &new, &node("mine")).await
}

async fn operations_of_agent(t: &Trespass) -> Result<impl Debug + use<>, StoreError> {
    t.store.operations(&t.intruder, Some(&t.victim.tenant.agent.id), &page()).await
}

async fn claim(t: &Trespass) -> Result<impl Debug + use<>, StoreError> {
    t.store.claim_call(&t.intruder, &t.victim.call, &node("mine")).await
}

async fn create_agent(t: &Trespass) -> Result<impl Debug + use<>, StoreError> {
    t.store.create_agent(&t.intruder, &receptionist("mine")).await
}

async fn create_connection(t: &Trespass) -> Result<impl Debug + use<>, StoreError> {
    t.store.create_connection(&t.intruder, &twilio("mine")).await
}

async fn create_number(t: &Trespass, spec: NumberSpec) -> Result<impl Debug + use<>, StoreError> {
    t.store.create_number(&t.intruder, &spec).await
}

async fn create_workspace(t: &Trespass) -> Result<impl Debug + use<>, StoreError> {
    t.store.create_workspace(&t.intruder, &hours("mine")).await
}

async fn replace_workspace(t: &Trespass) -> Result<impl Debug + use<>, StoreError> {
    t.store.replace_workspace(&t.intruder, 1, &hours("mine")).await
}

async fn replace_connection(t: &Trespass) -> Result<impl Debug + use<>, StoreError> {
    t.store.replace_connection(&t.intruder, &t.victim.tenant.connection.id, 1, &twilio("stolen")).await
}

async fn replace_number(t: &Trespass) -> Result<impl Debug + use<>, StoreError> {
    t.store.replace_number(&t.intruder, &t.victim.tenant.number.id, 1, &own_number(t, "+4930333")).await
}

async fn save_agent(t: &Trespass) -> Result<impl Debug + use<>, StoreError> {
    t.store.save_agent(&t.intruder, &t.victim.tenant.agent.id, 1, &receptionist("stolen")).await
}
