use crate::database::{Database, Tenant, node};
use offhook_core::Pii;
use offhook_core::entity::{CallStatus, MessageRole, UsageKind};
use offhook_store::{
    Begun, CallFilter, Finished, FinishedCall, NewMessage, NewToolCall, NewUsage, Page, StoreError,
};
use serde_json::json;

on_both![
    a_carrier_that_asks_again_finds_the_same_call,
    many_requests_at_once_begin_one_call,
    a_call_runs_from_ring_to_record,
    a_call_is_finished_once,
    words_with_a_zero_character_are_stored,
    a_long_transcript_is_stored_whole,
    a_live_call_is_listed_until_it_ends,
];

pub fn finished() -> FinishedCall {
    FinishedCall {
        ended_reason: "caller_hung_up".into(),
        ended_at_us: 1_800_000_100_000_000,
        outcome: Some("message_taken".into()),
        summary: Some(Pii::new("Wants to be called back.".into())),
        collected: Pii::new(json!({ "name": "Ada" })),
        messages: vec![
            message(1, MessageRole::Agent, "We are open from nine to five.", Some("We are open")),
            message(1, MessageRole::Member, "Do you open Sunday? 🙂", None),
        ],
        tool_calls: vec![NewToolCall {
            turn: 1,
            name: "take_message".into(),
            arguments: Pii::new(r#"{"text":"call back"}"#.into()),
            result: Some(Pii::new("noted".into())),
            error: None,
            started_at_us: 1_800_000_050_000_000,
            ended_at_us: Some(1_800_000_050_100_000),
        }],
        usage: vec![NewUsage {
            at_us: 1_800_000_100_000_000,
            kind: UsageKind::Second,
            provider: "twilio".into(),
            quantity: 42,
            unit_price_micros: 142,
            currency: "USD".into(),
        }],
    }
}

pub fn message(turn: u32, role: MessageRole, text: &str, heard: Option<&str>) -> NewMessage {
    NewMessage {
        turn,
        role,
        text: Pii::new(text.into()),
        heard: heard.map(|heard| Pii::new(heard.into())),
        at_us: 1_800_000_010_000_000,
        timing: json!({ "gap_ms": 412 }),
    }
}

async fn a_carrier_that_asks_again_finds_the_same_call(db: Database) {
    let tenant = db.tenant("acme").await;
    let lease = db.call(&tenant, "CA1", &node("a")).await;
    let again = db.store.begin_call(&tenant.scope, &tenant.ring("CA1"), &node("b")).await.unwrap();
    let Begun::Existing(call) = again else { panic!("the call began twice") };
    assert_eq!((&call.id, call.node.as_deref()), (lease.call(), Some("a")));
    assert_eq!(call, db.store.call(&tenant.scope, lease.call()).await.unwrap());
    let found = db.store.call_of_carrier(&tenant.scope, &tenant.connection.id, "CA1").await.unwrap();
    assert_eq!(found, call);
    assert_eq!(db.store.calls(&tenant.scope, CallFilter::All, &Page::first(9)).await.unwrap().rows, [call]);
}

async fn many_requests_at_once_begin_one_call(db: Database) {
    let tenant = db.tenant("acme").await;
    let requests = (0..16).map(|_| {
        let (store, scope, ring) = (db.store.clone(), tenant.scope.clone(), tenant.ring("CA1"));
        tokio::spawn(async move { store.begin_call(&scope, &ring, &node("a")).await.unwrap() })
    });
    let (mut begun, mut ids) = (0, Vec::new());
    for request in requests.collect::<Vec<_>>() {
        match request.await.unwrap() {
            Begun::New(lease) => {
                begun += 1;
                ids.push(lease.call().clone());
            }
            Begun::Existing(call) => ids.push(call.id),
        }
    }
    ids.dedup();
    assert_eq!((begun, ids.len()), (1, 1));
    assert_eq!(db.store.conversations(&tenant.scope, &Page::first(9)).await.unwrap().rows.len(), 1);
}

async fn a_call_runs_from_ring_to_record(db: Database) {
    let tenant = db.tenant("acme").await;
    let lease = db.call(&tenant, "CA1", &node("a")).await;
    let id = lease.call().clone();
    let ringing = db.store.call(&tenant.scope, &id).await.unwrap();
    assert_eq!((ringing.status, ringing.answered_at_us), (CallStatus::Ringing, None));
    assert_eq!(ringing.from.expose(), "+14155550199");
    db.store.call_answered(&lease, 7).await.unwrap();
    db.store.call_answered(&lease, 9).await.unwrap();
    let answered = db.store.call(&tenant.scope, &id).await.unwrap();
    assert_eq!((answered.status, answered.answered_at_us), (CallStatus::Answered, Some(7)));
    let open = db.store.conversation(&tenant.scope, &id).await.unwrap();
    assert_eq!((open.phone_number, open.ended_at_us), (Some(tenant.number.id.clone()), None));

    let finished = finished();
    assert_eq!(db.store.finish_call(&lease, &finished).await.unwrap(), Finished::Now);
    let ended = db.store.call(&tenant.scope, &id).await.unwrap();
    assert_eq!((ended.status, ended.ended_at_us), (CallStatus::Ended, Some(finished.ended_at_us)));
    assert_eq!((ended.ended_reason.as_deref(), ended.lease_expires_at_us), (Some("caller_hung_up"), None));
    let closed = db.store.conversation(&tenant.scope, &id).await.unwrap();
    assert_eq!((closed.summary, closed.collected), (finished.summary, finished.collected));
    assert_eq!((closed.outcome, closed.ended_at_us), (finished.outcome, Some(finished.ended_at_us)));
    assert_eq!(closed.agent_version, Some(tenant.agent.current.clone()));

    let messages = db.store.messages(&tenant.scope, &id).await.unwrap();
    for ((stored, given), seq) in messages.iter().zip(&finished.messages).zip(0..) {
        assert_eq!(
            (stored.seq, stored.turn, stored.role, stored.at_us),
            (seq, given.turn, given.role, given.at_us)
        );
        assert_eq!((&stored.text, &stored.heard), (&given.text, &given.heard));
        assert_eq!((&stored.timing, &stored.conversation), (&given.timing, &id));
    }
    assert_eq!(messages.len(), 2);
    let tool_call = db.store.tool_calls(&tenant.scope, &id).await.unwrap().remove(0);
    let given = &finished.tool_calls[0];
    assert_eq!((&tool_call.name, &tool_call.arguments), (&given.name, &given.arguments));
    assert_eq!((&tool_call.result, &tool_call.error), (&given.result, &given.error));
    assert_eq!((tool_call.started_at_us, tool_call.ended_at_us), (given.started_at_us, given.ended_at_us));
    let usage = db.store.usage(&tenant.scope, &id).await.unwrap().remove(0);
    assert_eq!((usage.kind, usage.quantity, usage.unit_price_micros), (UsageKind::Second, 42, 142));
    assert_eq!((usage.currency.as_str(), usage.conversation), ("USD", Some(id)));
}

async fn a_call_is_finished_once(db: Database) {
    let tenant = db.tenant("acme").await;
    let lease = db.call(&tenant, "CA1", &node("a")).await;
    assert_eq!(db.store.finish_call(&lease, &finished()).await.unwrap(), Finished::Now);
    let other = FinishedCall { ended_reason: "silence".into(), ..finished() };
    assert_eq!(db.store.finish_call(&lease, &other).await.unwrap(), Finished::Before);
    let call = db.store.call(&tenant.scope, lease.call()).await.unwrap();
    assert_eq!(call.ended_reason.as_deref(), Some("caller_hung_up"));
    assert_eq!(db.store.messages(&tenant.scope, lease.call()).await.unwrap().len(), 2);
    assert!(matches!(db.store.call_answered(&lease, 1).await, Err(StoreError::Ended { what: "call" })));
    let again = db.store.begin_call(&tenant.scope, &tenant.ring("CA1"), &node("a")).await.unwrap();
    assert!(matches!(again, Begun::Existing(call) if call.status == CallStatus::Ended));
}

async fn words_with_a_zero_character_are_stored(db: Database) {
    let tenant = db.tenant("acme").await;
    let mut ring = tenant.ring("CA1");
    ring.from = Pii::new("anony\0mous".into());
    let Begun::New(lease) = db.store.begin_call(&tenant.scope, &ring, &node("a")).await.unwrap() else {
        panic!("the call began before");
    };
    let mut finished = finished();
    finished.messages[0].text = Pii::new("so\0 what".into());
    finished.tool_calls[0].error = Some("bad\0".into());
    db.store.finish_call(&lease, &finished).await.unwrap();
    let said = db.store.messages(&tenant.scope, lease.call()).await.unwrap().remove(0);
    assert_eq!(said.text.expose(), "so\u{fffd} what");
}

async fn a_long_transcript_is_stored_whole(db: Database) {
    let tenant = db.tenant("acme").await;
    let lease = db.call(&tenant, "CA1", &node("a")).await;
    let messages = (0..2_500).map(|turn| message(turn, MessageRole::Member, "yes", None)).collect();
    db.store.finish_call(&lease, &FinishedCall { messages, ..finished() }).await.unwrap();
    let stored = db.store.messages(&tenant.scope, lease.call()).await.unwrap();
    assert!(stored.iter().zip(0..).all(|(message, seq)| message.seq == seq && message.turn == seq));
    assert_eq!(stored.len(), 2_500);
}

async fn a_live_call_is_listed_until_it_ends(db: Database) {
    let tenant: Tenant = db.tenant("acme").await;
    let one = db.call(&tenant, "CA1", &node("a")).await;
    let two = db.call(&tenant, "CA2", &node("a")).await;
    let live = async || {
        let listed = db.store.calls(&tenant.scope, CallFilter::Live, &Page::first(9)).await.unwrap();
        listed.rows.into_iter().map(|call| call.id).collect::<Vec<_>>()
    };
    assert_eq!(live().await, [two.call().clone(), one.call().clone()]);
    db.store.release_call(&two).await.unwrap();
    db.store.finish_call(&one, &finished()).await.unwrap();
    assert_eq!(live().await, [two.call().clone()]);
}
