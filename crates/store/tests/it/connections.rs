use crate::database::{Database, hours, key, secret, twilio};
use offhook_core::entity::ConnectionStatus;
use offhook_store::{ConnectionSpec, MissingKey, Page, Scope, StoreError, Vault, VaultError};
use sea_orm::{ConnectionTrait, Statement};
use serde_json::json;
use std::sync::Arc;

on_both![
    a_connection_reads_back_without_its_secret,
    a_secret_is_sealed_in_its_row,
    a_change_based_on_an_old_revision_is_refused,
    a_try_of_what_was_changed_since_says_nothing,
    a_name_is_taken_once_in_an_organization,
    a_connection_that_a_number_needs_stays,
    secrets_survive_a_change_of_the_vault_key,
    secrets_of_a_lost_key_can_be_given_up,
    the_secret_before_signs_for_a_while,
    a_key_that_comes_while_the_store_runs_is_found,
];

async fn a_connection_reads_back_without_its_secret(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let made = db.store.create_connection(&scope, &twilio("line")).await.unwrap();
    assert_eq!(db.store.connection(&scope, &made.id).await.unwrap(), made);
    assert!(made.has_secret);
    assert_eq!((made.status, made.revision), (ConnectionStatus::Unchecked, 1));
    assert_eq!(db.store.connection_secret(&scope, &made.id).await.unwrap(), secret("the auth token"));

    let failed = Some("the carrier knows no such account");
    db.store.set_connection_status(&scope, &made.id, 1, ConnectionStatus::Error, failed).await.unwrap();
    let tried = db.store.connection(&scope, &made.id).await.unwrap();
    assert_eq!((tried.status, tried.status_reason.as_deref()), (ConnectionStatus::Error, failed));
    assert!(tried.checked_at_us.is_some());

    let bare = ConnectionSpec { secret: None, account: None, ..twilio("bare") };
    let bare = db.store.create_connection(&scope, &bare).await.unwrap();
    assert!(!bare.has_secret);
    let none = db.store.connection_secret(&scope, &bare.id).await.unwrap_err();
    assert!(matches!(none, StoreError::NotFound { what: "secret" }));

    db.store.delete_connection(&scope, &made.id).await.unwrap();
    assert_eq!(db.store.connections(&scope, &Page::first(10)).await.unwrap().rows, [bare]);
}

async fn a_secret_is_sealed_in_its_row(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let (victim, thief) =
        (twilio("victim"), ConnectionSpec { secret: Some(secret("mine")), ..twilio("thief") });
    let victim = db.store.create_connection(&scope, &victim).await.unwrap();
    let thief = db.store.create_connection(&scope, &thief).await.unwrap();
    let raw = db.raw().await;
    let row = Statement::from_string(
        raw.get_database_backend(),
        "SELECT secret FROM connection ORDER BY id LIMIT 1",
    );
    let blob: Vec<u8> = raw.query_one_raw(row).await.unwrap().unwrap().try_get("", "secret").unwrap();
    assert!(!String::from_utf8_lossy(&blob).contains("auth"), "the secret is readable in its row");

    let copied = format!(
        "UPDATE connection SET secret = (SELECT secret FROM connection WHERE id = '{}') WHERE id = '{}'",
        victim.id, thief.id
    );
    raw.execute_unprepared(&copied).await.unwrap();
    let error = db.store.connection_secret(&scope, &thief.id).await.unwrap_err();
    assert!(matches!(error, StoreError::Vault(VaultError::NotOurs { .. })), "{error:?}");
}

async fn a_change_based_on_an_old_revision_is_refused(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let made = db.store.create_connection(&scope, &twilio("line")).await.unwrap();
    let moved = ConnectionSpec { config: json!({ "edge": "dublin" }), secret: None, ..twilio("line two") };
    let changed = db.store.replace_connection(&scope, &made.id, made.revision, &moved).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.revision), ("line two", 2));
    assert_eq!(db.store.connection(&scope, &made.id).await.unwrap(), changed);
    assert_eq!(db.store.connection_secret(&scope, &made.id).await.unwrap(), secret("the auth token"));

    let late = db.store.replace_connection(&scope, &made.id, made.revision, &moved).await.unwrap_err();
    assert_eq!(late.to_string(), "this connection is taken: it was changed meanwhile and is at revision 2");
    let other_kind = ConnectionSpec { kind: "telnyx".into(), ..moved };
    let error = db.store.replace_connection(&scope, &made.id, 2, &other_kind).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");

    let changes = (0..8).map(|_| {
        let (store, scope, id) = (db.store.clone(), scope.clone(), made.id.clone());
        tokio::spawn(async move { store.replace_connection(&scope, &id, 2, &twilio("raced")).await })
    });
    let mut won = 0;
    for change in changes.collect::<Vec<_>>() {
        match change.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}"),
        }
    }
    assert_eq!(won, 1);
}

async fn a_try_of_what_was_changed_since_says_nothing(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let made = db.store.create_connection(&scope, &twilio("line")).await.unwrap();
    let changed =
        db.store.replace_connection(&scope, &made.id, made.revision, &twilio("line")).await.unwrap();
    let refused = Some("the old key was refused");
    let tried = db
        .store
        .set_connection_status(&scope, &made.id, made.revision, ConnectionStatus::Error, refused)
        .await;
    assert!(matches!(tried, Err(StoreError::Conflict { what: "connection", .. })), "{tried:?}");
    assert_eq!(db.store.connection(&scope, &made.id).await.unwrap(), changed);
}

async fn a_name_is_taken_once_in_an_organization(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let (_, elsewhere) = db.workspace("globex").await;
    let first = db.store.create_connection(&scope, &twilio("line")).await.unwrap();
    let error = db.store.create_connection(&scope, &twilio("line")).await.unwrap_err();
    assert_eq!(error.to_string(), format!("this connection name is taken: {} has it", first.id));
    db.store.create_connection(&elsewhere, &twilio("line")).await.unwrap();
    let second = db.store.create_connection(&scope, &twilio("second")).await.unwrap();
    let error = db.store.replace_connection(&scope, &second.id, 1, &twilio("line")).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { what: "connection name", .. }), "{error:?}");
}

async fn a_connection_that_a_number_needs_stays(db: Database) {
    let tenant = db.tenant("acme").await;
    let error = db.store.delete_connection(&tenant.scope, &tenant.connection.id).await.unwrap_err();
    assert_eq!(error.to_string(), "this connection is taken: +14155550100 uses it");
    db.store.delete_number(&tenant.scope, &tenant.number.id).await.unwrap();
    db.store.delete_connection(&tenant.scope, &tenant.connection.id).await.unwrap();

    let sibling = db.store.create_workspace(&tenant.scope, &hours("second")).await.unwrap();
    let sibling = db.tenant_in(sibling, "+14155550101").await;
    assert_ne!(sibling.scope, Scope::system(&tenant.workspace, "test"));
    let error = db.store.delete_connection(&tenant.scope, &sibling.connection.id).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}");
}

async fn secrets_survive_a_change_of_the_vault_key(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let id = db.store.create_connection(&scope, &twilio("line")).await.unwrap().id;
    db.store.create_connection(&scope, &ConnectionSpec { secret: None, ..twilio("bare") }).await.unwrap();
    assert_eq!(db.store.missing_keys().await.unwrap(), []);
    let forgetful = db.open_again(Vault::new(&key(2))).await;
    let missing = MissingKey { key_id: key(1).id(), connections: vec!["line".into()] };
    assert_eq!(forgetful.missing_keys().await.unwrap(), [missing]);
    let error = forgetful.connection_secret(&scope, &id).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Vault(VaultError::UnknownKey { key_id }) if *key_id == key(1).id()),
        "{error:?}"
    );

    let rotating = db.open_again(Vault::new(&key(2)).with_earlier(&key(1))).await;
    assert_eq!(rotating.missing_keys().await.unwrap(), []);
    assert_eq!(rotating.reseal_secrets().await.unwrap(), 1);
    assert_eq!(rotating.reseal_secrets().await.unwrap(), 0);
    assert_eq!(forgetful.connection_secret(&scope, &id).await.unwrap(), secret("the auth token"));
}

async fn secrets_of_a_lost_key_can_be_given_up(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let lost = db.store.create_connection(&scope, &twilio("line")).await.unwrap();
    let after = db.open_again(Vault::new(&key(2))).await;
    let kept = after.create_connection(&scope, &twilio("new line")).await.unwrap();
    assert_eq!(after.forget_secrets(&key(1).id()).await.unwrap(), ["line"]);
    assert_eq!(after.missing_keys().await.unwrap(), []);
    let bare = after.connection(&scope, &lost.id).await.unwrap();
    assert_eq!((bare.has_secret, bare.revision), (false, lost.revision + 1));
    assert_eq!(after.connection_secret(&scope, &kept.id).await.unwrap(), secret("the auth token"));
}

async fn the_secret_before_signs_for_a_while(db: Database) {
    let tenant = db.tenant("acme").await;
    let believed = async || {
        let number = &tenant.number.e164;
        let targets = db.store.numbers_for_ring("twilio", None, number).await.unwrap();
        targets[0].secrets().map(|secret| secret.expose().clone()).collect::<Vec<_>>()
    };
    let id = &tenant.connection.id;
    let first = db.store.connection_secret(&tenant.scope, id).await.unwrap();
    let spec = ConnectionSpec { secret: Some(secret("new")), ..twilio(&tenant.connection.name) };
    db.store.replace_connection(&tenant.scope, id, tenant.connection.revision, &spec).await.unwrap();
    assert_eq!(believed().await, ["new", first.expose().as_str()]);
    assert_eq!(db.store.connection_secret(&tenant.scope, id).await.unwrap(), secret("new"));
    db.store.forget_earlier_secret(&tenant.scope, id).await.unwrap();
    assert_eq!(believed().await, ["new"]);
}

async fn a_key_that_comes_while_the_store_runs_is_found(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let id = db.store.create_connection(&scope, &twilio("line")).await.unwrap().id;
    let both = || Vault::new(&key(2)).with_earlier(&key(1));
    let running = db.open_again(Vault::new(&key(1))).await.with_keys_from(Arc::new(move || Some(both())));
    assert_eq!(db.open_again(both()).await.reseal_secrets().await.unwrap(), 1);
    assert_eq!(running.connection_secret(&scope, &id).await.unwrap(), secret("the auth token"));
    let made = running.create_connection(&scope, &twilio("later")).await.unwrap().id;
    let with_new_alone = db.open_again(Vault::new(&key(2))).await;
    assert_eq!(with_new_alone.connection_secret(&scope, &made).await.unwrap(), secret("the auth token"));
}
