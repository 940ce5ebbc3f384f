use crate::calls::finished;
use crate::database::{Database, Tenant, node};
use offhook_core::Pii;
use offhook_core::entity::{Leg, LegRole};
use offhook_store::StoreError;

on_both![
    a_leg_is_kept_as_far_as_it_has_come,
    a_leg_can_end_after_its_call,
    only_who_drives_a_call_keeps_its_legs,
    a_number_that_passed_the_call_on_is_kept,
];

fn rung(tenant: &Tenant, number: u32) -> Leg {
    Leg {
        number,
        role: LegRole::Human,
        connection: tenant.connection.id.clone(),
        carrier_call: None,
        to: Pii::new("+14155550142".into()),
        dialled_at_us: 1_800_000_000_000_000,
        answered_at_us: None,
        bridged_at_us: None,
        at_carrier: false,
        ended_at_us: None,
        outcome: None,
    }
}

async fn a_leg_is_kept_as_far_as_it_has_come(db: Database) {
    let tenant = db.tenant("acme").await;
    let lease = db.call(&tenant, "CA1", &node("a")).await;
    // Two that the carrier has not named yet are no conflict.
    let (first, second) = (rung(&tenant, 1), rung(&tenant, 2));
    db.store.keep_leg(&lease, &second).await.unwrap();
    db.store.keep_leg(&lease, &first).await.unwrap();
    assert_eq!(db.store.legs(&tenant.scope, lease.call()).await.unwrap(), [first.clone(), second.clone()]);
    let further = Leg {
        carrier_call: Some("CA2".into()),
        answered_at_us: Some(1_800_000_004_000_000),
        bridged_at_us: Some(1_800_000_009_000_000),
        at_carrier: true,
        ended_at_us: Some(1_800_000_060_000_000),
        outcome: Some("hung_up".into()),
        ..first
    };
    db.store.keep_leg(&lease, &further).await.unwrap();
    assert_eq!(db.store.legs(&tenant.scope, lease.call()).await.unwrap(), [further, second.clone()]);
    let same_name = Leg { carrier_call: Some("CA2".into()), ..second };
    assert!(db.store.keep_leg(&lease, &same_name).await.is_err(), "one leg of the carrier's is one leg here");
}

async fn a_leg_can_end_after_its_call(db: Database) {
    let tenant = db.tenant("acme").await;
    let lease = db.call(&tenant, "CA1", &node("a")).await;
    let leg = rung(&tenant, 1);
    db.store.keep_leg(&lease, &leg).await.unwrap();
    db.store.finish_call(&lease, &finished()).await.unwrap();
    let ended = Leg { ended_at_us: Some(1_800_000_100_000_000), outcome: Some("hung_up".into()), ..leg };
    db.store.keep_leg(&lease, &ended).await.unwrap();
    assert_eq!(db.store.legs(&tenant.scope, lease.call()).await.unwrap(), [ended]);
}

async fn only_who_drives_a_call_keeps_its_legs(db: Database) {
    let tenant = db.tenant("acme").await;
    let lost = db.call(&tenant, "CA1", &node("a")).await;
    db.clock.advance_ms(11_000);
    let lease = db.store.claim_call(&tenant.scope, lost.call(), &node("b")).await.unwrap();
    let refused = db.store.keep_leg(&lost, &rung(&tenant, 1)).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    db.store.keep_leg(&lease, &rung(&tenant, 1)).await.unwrap();
}

async fn a_number_that_passed_the_call_on_is_kept(db: Database) {
    let tenant = db.tenant("acme").await;
    let lease = db.call(&tenant, "CA1", &node("a")).await;
    let call = db.store.call(&tenant.scope, lease.call()).await.unwrap();
    assert_eq!(call.forwarded_from.map(Pii::into_inner).as_deref(), Some("+14155550123"));
}
