use crate::database::{Database, hours, number, secret, twilio};
use offhook_core::entity::NumberStatus;
use offhook_store::{ConnectionSpec, NumberSpec, Page, StoreError};
use sea_orm::ConnectionTrait;

on_both![
    a_number_reads_back_as_it_was_set,
    a_number_is_taken_once_and_its_holder_is_named,
    a_change_based_on_an_old_revision_is_refused,
    a_number_is_reached_through_a_carrier_only,
    a_ring_finds_every_claim_to_its_number,
    a_claim_that_cannot_be_read_does_not_stop_the_others,
];

async fn a_number_reads_back_as_it_was_set(db: Database) {
    let tenant = db.tenant("acme").await;
    assert_eq!(db.store.number(&tenant.scope, &tenant.number.id).await.unwrap(), tenant.number);
    assert_eq!(tenant.number.status, NumberStatus::Active);
    let bare = NumberSpec {
        forward_to: None,
        inbound_agent: None,
        ..number(&tenant.connection, &tenant.agent, "+4930999")
    };
    let bare = db.store.create_number(&tenant.scope, &bare).await.unwrap();
    assert_eq!(bare.status, NumberStatus::Inactive);
    let listed = db.store.numbers(&tenant.scope, &Page::first(10)).await.unwrap().rows;
    assert_eq!(listed, [bare.clone(), tenant.number.clone()]);
}

async fn a_number_is_taken_once_and_its_holder_is_named(db: Database) {
    let tenant = db.tenant("acme").await;
    let spec = number(&tenant.connection, &tenant.agent, "+14155550100");
    let error = db.store.create_number(&tenant.scope, &spec).await.unwrap_err();
    let id = &tenant.number.id;
    assert_eq!(
        error.to_string(),
        format!(
            "this phone number is taken: `line +14155550100` ({id}) has it, and agent `reception` answers it"
        )
    );

    let sibling = db.store.create_workspace(&tenant.scope, &hours("second")).await.unwrap();
    let sibling = db.tenant_in(sibling, "+14155550101").await;
    let spec = NumberSpec { inbound_agent: None, ..spec };
    let error = db.store.create_number(&sibling.scope, &spec).await.unwrap_err();
    assert_eq!(error.to_string(), "this phone number is taken: workspace `main` has it");
    let error = db.store.replace_number(&sibling.scope, &sibling.number.id, 1, &spec).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}");
}

async fn a_change_based_on_an_old_revision_is_refused(db: Database) {
    let tenant = db.tenant("acme").await;
    let spec =
        NumberSpec { name: "front desk".into(), ..number(&tenant.connection, &tenant.agent, "+14155550100") };
    let changed = db.store.replace_number(&tenant.scope, &tenant.number.id, 1, &spec).await.unwrap();
    assert_eq!(db.store.number(&tenant.scope, &tenant.number.id).await.unwrap(), changed);
    assert_eq!((changed.name.as_str(), changed.revision), ("front desk", 2));
    let error = db.store.replace_number(&tenant.scope, &tenant.number.id, 1, &spec).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { what: "phone number", .. }), "{error:?}");
}

async fn a_number_is_reached_through_a_carrier_only(db: Database) {
    let tenant = db.tenant("acme").await;
    let models = ConnectionSpec { kind: "openai".into(), ..twilio("models") };
    let models = db.store.create_connection(&tenant.scope, &models).await.unwrap();
    let spec = number(&models, &tenant.agent, "+14155550100");
    for refused in [
        db.store.create_number(&tenant.scope, &spec).await,
        db.store.replace_number(&tenant.scope, &tenant.number.id, 1, &spec).await,
    ] {
        assert!(
            matches!(&refused, Err(StoreError::Invalid { what: "phone number", reason }) if reason.contains("`models`")),
            "{refused:?}"
        );
    }
}

async fn a_ring_finds_every_claim_to_its_number(db: Database) {
    let owner = db.tenant("owner").await;
    let squatter = db.tenant("squatter").await;
    let e164 = &owner.number.e164;
    let targets = db.store.numbers_for_ring("twilio", Some("AC1"), e164).await.unwrap();
    let claims: Vec<_> = targets.iter().map(|target| &target.number).collect();
    assert_eq!(claims, [&owner.number, &squatter.number]);
    assert_eq!(targets[0].connection, owner.connection);
    assert_eq!(targets[0].secret, Some(secret("the auth token")));
    assert_eq!(targets[0].scope.workspace(), &owner.workspace.id);
    assert_eq!(targets[0].scope.organization(), &owner.workspace.organization);

    let spec = ConnectionSpec { account: Some("AC2".into()), ..twilio("other account") };
    let other = db.store.create_connection(&owner.scope, &spec).await.unwrap();
    let there =
        db.store.create_number(&owner.scope, &number(&other, &owner.agent, e164.as_str())).await.unwrap();
    let targets = db.store.numbers_for_ring("twilio", Some("AC2"), e164).await.unwrap();
    assert_eq!(targets.iter().map(|target| &target.number.id).collect::<Vec<_>>(), [&there.id]);
    assert_eq!(db.store.numbers_for_ring("twilio", None, e164).await.unwrap().len(), 3);
    assert!(db.store.numbers_for_ring("telnyx", None, e164).await.unwrap().is_empty());
    assert!(db.store.numbers_for_ring("twilio", Some("AC3"), e164).await.unwrap().is_empty());
}

async fn a_claim_that_cannot_be_read_does_not_stop_the_others(db: Database) {
    let broken = db.tenant("broken").await;
    let well = db.tenant("well").await;
    let elsewhere =
        format!("UPDATE connection SET secret_key_id = 'lost' WHERE id = '{}'", broken.connection.id);
    db.raw().await.execute_unprepared(&elsewhere).await.unwrap();
    let targets = db.store.numbers_for_ring("twilio", Some("AC1"), &well.number.e164).await.unwrap();
    assert_eq!(targets.iter().map(|target| &target.number.id).collect::<Vec<_>>(), [&well.number.id]);
}
