use crate::calls::finished;
use crate::database::{Database, node};
use offhook_core::Pii;
use offhook_core::entity::{CallEvent, CallSnapshot};
use offhook_store::{CallLease, LogBatch, LogFrom};
use std::ops::Range;

on_both![
    a_log_reads_back_byte_for_byte,
    calls_are_appended_together_and_read_apart,
    going_on_needs_the_snapshot_and_what_came_after,
    an_append_repeated_changes_nothing,
    a_node_that_lost_its_call_writes_nothing_over_the_other,
    a_node_that_lost_its_call_writes_nothing_before_the_other_either,
    more_events_than_one_statement_takes_are_all_stored,
];

fn event(seq: u32) -> CallEvent {
    CallEvent {
        seq,
        at_us: u64::from(seq) * 20_000,
        input: Pii::new(format!(r#"{{"transcript":"été {seq} \u0000","n":{seq}}}"#)),
        orders: format!("ask a{seq}"),
        digest: u64::MAX - u64::from(seq),
    }
}

fn events(range: Range<u32>) -> Vec<CallEvent> {
    range.map(event).collect()
}

fn seqs(events: &[CallEvent]) -> Vec<u32> {
    events.iter().map(|event| event.seq).collect()
}

async fn append(db: &Database, lease: &CallLease, events: &[CallEvent]) -> bool {
    db.store.append_events(&[LogBatch { lease, events }]).await.unwrap().is_empty()
}

async fn a_log_reads_back_byte_for_byte(db: Database) {
    let tenant = db.tenant("acme").await;
    let lease = db.call(&tenant, "CA1", &node("a")).await;
    assert!(append(&db, &lease, &events(0..5)).await);
    assert!(append(&db, &lease, &[]).await);
    assert!(append(&db, &lease, &events(5..6)).await);
    let log = db.store.load_log(&tenant.scope, lease.call(), LogFrom::Start).await.unwrap();
    assert_eq!(log.events, events(0..6));
    assert_eq!((log.plan, log.log_revision, log.snapshot), (tenant.ring("CA1").plan, 1, None));
}

async fn calls_are_appended_together_and_read_apart(db: Database) {
    let tenant = db.tenant("acme").await;
    let (one, two) = (db.call(&tenant, "CA1", &node("a")).await, db.call(&tenant, "CA2", &node("a")).await);
    let (first, second) = (events(0..3), events(0..2));
    let batches = [LogBatch { lease: &one, events: &first }, LogBatch { lease: &two, events: &second }];
    assert!(db.store.append_events(&batches).await.unwrap().is_empty());
    let log = async |lease: &CallLease| {
        db.store.load_log(&tenant.scope, lease.call(), LogFrom::Start).await.unwrap().events
    };
    assert_eq!((log(&one).await, log(&two).await), (first, second));
}

async fn going_on_needs_the_snapshot_and_what_came_after(db: Database) {
    let tenant = db.tenant("acme").await;
    let lease = db.call(&tenant, "CA1", &node("a")).await;
    append(&db, &lease, &events(0..10)).await;
    let tail = async || db.store.load_log(&tenant.scope, lease.call(), LogFrom::Snapshot).await.unwrap();
    let none = tail().await;
    assert_eq!((none.snapshot, none.events.len()), (None, 10));
    let snapshot = |seq| CallSnapshot { seq, state: Pii::new(format!(r#"{{"turn":{seq}}}"#)) };
    for seq in [3, 7, 5] {
        db.store.save_snapshot(&lease, &snapshot(seq)).await.unwrap();
    }
    let log = tail().await;
    assert_eq!((log.snapshot, seqs(&log.events)), (Some(snapshot(7)), vec![8, 9]));
    let whole = db.store.load_log(&tenant.scope, lease.call(), LogFrom::Start).await.unwrap();
    assert_eq!((whole.snapshot, whole.events.len()), (None, 10));
    db.store.finish_call(&lease, &finished()).await.unwrap();
    let over = tail().await;
    assert_eq!((over.snapshot, over.events.len()), (None, 10), "what ended does not go on");
}

async fn an_append_repeated_changes_nothing(db: Database) {
    let tenant = db.tenant("acme").await;
    let (one, two) = (db.call(&tenant, "CA1", &node("a")).await, db.call(&tenant, "CA2", &node("a")).await);
    append(&db, &one, &events(0..3)).await;
    assert!(append(&db, &one, &events(0..3)).await);
    let (overlapping, fresh) = (events(1..5), events(0..2));
    let batches = [LogBatch { lease: &one, events: &overlapping }, LogBatch { lease: &two, events: &fresh }];
    assert!(db.store.append_events(&batches).await.unwrap().is_empty());
    let log = db.store.load_log(&tenant.scope, one.call(), LogFrom::Start).await.unwrap();
    assert_eq!(log.events, events(0..5));
    let log = db.store.load_log(&tenant.scope, two.call(), LogFrom::Start).await.unwrap();
    assert_eq!(log.events, fresh);
}

async fn a_node_that_lost_its_call_writes_nothing_over_the_other(db: Database) {
    let tenant = db.tenant("acme").await;
    let (lost, kept) = (db.call(&tenant, "CA1", &node("a")).await, db.call(&tenant, "CA2", &node("a")).await);
    append(&db, &lost, &events(0..2)).await;
    db.clock.advance_ms(11_000);
    let taken = db.store.claim_call(&tenant.scope, lost.call(), &node("b")).await.unwrap();
    let other = CallEvent { digest: 1, orders: "hang up".into(), ..event(2) };
    append(&db, &taken, std::slice::from_ref(&other)).await;

    let (late, own) = (events(2..4), events(0..1));
    let batches = [LogBatch { lease: &lost, events: &late }, LogBatch { lease: &kept, events: &own }];
    assert_eq!(db.store.append_events(&batches).await.unwrap(), [lost.call().clone()]);
    let log = db.store.load_log(&tenant.scope, lost.call(), LogFrom::Start).await.unwrap();
    assert_eq!(log.events, [event(0), event(1), other]);
    let log = db.store.load_log(&tenant.scope, kept.call(), LogFrom::Start).await.unwrap();
    assert_eq!(log.events, own, "one lost call keeps no other from being written");
}

async fn a_node_that_lost_its_call_writes_nothing_before_the_other_either(db: Database) {
    let tenant = db.tenant("acme").await;
    let (lost, over) = (db.call(&tenant, "CA1", &node("a")).await, db.call(&tenant, "CA2", &node("a")).await);
    append(&db, &lost, &events(0..2)).await;
    db.clock.advance_ms(11_000);
    let taken = db.store.claim_call(&tenant.scope, lost.call(), &node("b")).await.unwrap();
    db.store.finish_call(&over, &finished()).await.unwrap();
    let (late, later) = (events(2..3), events(3..4));
    let batches = [&late, &later].map(|events| LogBatch { lease: &lost, events });
    let after_the_end = LogBatch { lease: &over, events: &late };
    let refused = db.store.append_events(&[&batches[..], &[after_the_end]].concat()).await.unwrap();
    assert_eq!(refused, [lost.call().clone(), over.call().clone()]);
    assert!(append(&db, &taken, &events(2..4)).await);
    let log = db.store.load_log(&tenant.scope, lost.call(), LogFrom::Start).await.unwrap();
    assert_eq!(log.events, events(0..4));
}

async fn more_events_than_one_statement_takes_are_all_stored(db: Database) {
    let tenant = db.tenant("acme").await;
    let lease = db.call(&tenant, "CA1", &node("a")).await;
    assert!(append(&db, &lease, &events(0..2_345)).await);
    let log = db.store.load_log(&tenant.scope, lease.call(), LogFrom::Start).await.unwrap();
    assert_eq!(log.events, events(0..2_345));
}
