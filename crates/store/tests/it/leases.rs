use crate::calls::finished;
use crate::database::{Database, node};
use offhook_core::Pii;
use offhook_core::entity::CallSnapshot;
use offhook_store::{CallLease, NODE_SILENT_MS, Node, StoreError};

on_both![
    a_call_is_driven_by_one_node_until_its_lease_expires,
    a_node_that_comes_back_has_its_calls_when_the_one_before_is_dead,
    nodes_that_claim_at_once_get_different_calls,
    renewal_names_what_the_node_still_has,
    what_a_node_does_not_drive_expires,
    a_released_call_can_be_claimed_at_once,
    a_call_that_is_over_is_claimed_by_nobody,
];

fn ids(leases: &[CallLease]) -> Vec<String> {
    leases.iter().map(|lease| lease.call().to_string()).collect()
}

async fn a_call_is_driven_by_one_node_until_its_lease_expires(db: Database) {
    let tenant = db.tenant("acme").await;
    let lost = db.call(&tenant, "CA1", &node("a")).await;
    let error = db.store.claim_call(&tenant.scope, lost.call(), &node("b")).await.unwrap_err();
    assert_eq!(error.to_string(), "this call is taken: node a drives it");
    assert!(db.store.claim_expired(&node("b"), 10).await.unwrap().is_empty());

    db.clock.advance_ms(11_000);
    let lease = db.store.claim_call(&tenant.scope, lost.call(), &node("b")).await.unwrap();
    assert_eq!((lease.call(), lease.node(), lease.scope()), (lost.call(), "b", &tenant.scope));
    let snapshot = CallSnapshot { seq: 1, state: Pii::new("{}".into()) };
    for refused in [
        db.store.finish_call(&lost, &finished()).await.map(|_| ()),
        db.store.call_answered(&lost, 1).await,
        db.store.save_snapshot(&lost, &snapshot).await,
    ] {
        assert!(
            matches!(&refused, Err(StoreError::Conflict { what: "call", holder }) if holder == "node b drives it"),
            "{refused:?}"
        );
    }
    db.store.finish_call(&lease, &finished()).await.unwrap();
}

/// The process that comes after [`node`], under its name.
fn next(name: &str) -> Node {
    Node { incarnation: format!("{name} 2"), ..node(name) }
}

async fn a_node_that_comes_back_has_its_calls_when_the_one_before_is_dead(db: Database) {
    let tenant = db.tenant("acme").await;
    let (before, after) = (node("a"), next("a"));
    db.store.node_seen(&before).await.unwrap();
    let one = db.call(&tenant, "CA1", &before).await;
    let two = db.call(&tenant, "CA2", &before).await;
    db.store.node_seen(&after).await.unwrap();
    let error = db.store.claim_call(&tenant.scope, one.call(), &after).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "the one before lives: {error:?}");
    assert!(db.store.claim_left(&after, &[], 10).await.unwrap().is_empty());

    db.clock.advance_ms(i64::from(NODE_SILENT_MS) + 1);
    db.store.node_seen(&after).await.unwrap();
    let claimed = db.store.claim_call(&tenant.scope, one.call(), &after).await.unwrap();
    let left = db.store.claim_left(&after, &[one.call().clone()], 10).await.unwrap();
    assert_eq!(ids(&left), ids(std::slice::from_ref(&two)));
    db.store.node_seen(&before).await.unwrap();
    for (lost, had) in [(&one, &claimed), (&two, &left[0])] {
        let error = db.store.call_answered(lost, 1).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}");
        db.store.call_answered(had, 1).await.unwrap();
    }
    assert!(db.store.renew_leases(&before, &[one.call().clone()]).await.unwrap().is_empty());
}

async fn nodes_that_claim_at_once_get_different_calls(db: Database) {
    let tenant = db.tenant("acme").await;
    let mut all = Vec::new();
    for i in 0..12 {
        all.push(db.call(&tenant, &format!("CA{i}"), &node("dead")).await.call().to_string());
    }
    db.clock.advance_ms(20_000);
    let (store, again) = (db.store.clone(), db.store.clone());
    let one = tokio::spawn(async move { store.claim_expired(&node("one"), 6).await.unwrap() });
    let two = tokio::spawn(async move { again.claim_expired(&node("two"), 6).await.unwrap() });
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert!(one.iter().all(|lease| lease.scope().workspace() == &tenant.workspace.id));
    let one_leases = one.clone();
    let mut claimed = [ids(&one), ids(&two)].concat();
    claimed.extend(ids(&db.store.claim_expired(&node("three"), 12).await.unwrap()));
    claimed.sort();
    assert_eq!(claimed, all);
    let kept = db
        .store
        .renew_leases(&node("one"), &one_leases.iter().map(|lease| lease.call().clone()).collect::<Vec<_>>())
        .await
        .unwrap();
    assert_eq!(kept.len(), one.len());
}

async fn renewal_names_what_the_node_still_has(db: Database) {
    let tenant = db.tenant("acme").await;
    let kept = db.call(&tenant, "CA1", &node("a")).await;
    let lost = db.call(&tenant, "CA2", &node("a")).await;
    let over = db.call(&tenant, "CA3", &node("a")).await;
    db.store.finish_call(&over, &finished()).await.unwrap();
    db.clock.advance_ms(9_000);
    let driven = [kept.call().clone(), lost.call().clone(), over.call().clone()];
    assert_eq!(db.store.renew_leases(&node("a"), &driven).await.unwrap().len(), 2);
    db.clock.advance_ms(9_000);
    assert!(db.store.claim_expired(&node("b"), 10).await.unwrap().is_empty(), "renewed leases hold");
    db.clock.advance_ms(2_000);
    db.store.claim_call(&tenant.scope, lost.call(), &node("b")).await.unwrap();
    assert_eq!(db.store.renew_leases(&node("a"), &driven).await.unwrap(), [kept.call().clone()]);
}

async fn what_a_node_does_not_drive_expires(db: Database) {
    let tenant = db.tenant("acme").await;
    let left = db.call(&tenant, "CA1", &node("a")).await;
    db.clock.advance_ms(9_000);
    assert!(db.store.renew_leases(&node("a"), &[]).await.unwrap().is_empty());
    assert_eq!(ids(&db.store.claim_left(&node("a"), &[], 10).await.unwrap()), [left.call().to_string()]);
    assert!(db.store.claim_left(&node("b"), &[], 10).await.unwrap().is_empty());
    assert!(db.store.claim_left(&node("a"), &[left.call().clone()], 10).await.unwrap().is_empty());
    db.clock.advance_ms(9_000);
    assert_eq!(ids(&db.store.claim_expired(&node("a"), 10).await.unwrap()), [left.call().to_string()]);
}

async fn a_released_call_can_be_claimed_at_once(db: Database) {
    let tenant = db.tenant("acme").await;
    let lease = db.call(&tenant, "CA1", &node("a")).await;
    db.store.release_call(&lease).await.unwrap();
    let claimed = db.store.claim_expired(&node("b"), 10).await.unwrap();
    assert_eq!(ids(&claimed), [lease.call().to_string()]);
    db.store.release_call(&lease).await.unwrap();
    let error = db.store.claim_call(&tenant.scope, lease.call(), &node("c")).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "a lost lease releases nothing: {error:?}");
}

async fn a_call_that_is_over_is_claimed_by_nobody(db: Database) {
    let tenant = db.tenant("acme").await;
    let lease = db.call(&tenant, "CA1", &node("a")).await;
    db.store.finish_call(&lease, &finished()).await.unwrap();
    db.clock.advance_ms(20_000);
    assert!(db.store.claim_expired(&node("b"), 10).await.unwrap().is_empty());
    let error = db.store.claim_call(&tenant.scope, lease.call(), &node("a")).await.unwrap_err();
    assert!(matches!(error, StoreError::Ended { what: "call" }), "{error:?}");
}
