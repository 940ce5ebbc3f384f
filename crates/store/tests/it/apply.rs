use crate::database::{Database, receptionist, secret, twilio};
use offhook_core::entity::Capability;
use offhook_store::{Apply, Change, ConnectionSpec, Declaration, DeclaredNumber, Page, StoreError};
use serde_json::json;

on_both![
    a_declaration_applied_twice_changes_nothing_the_second_time,
    a_dry_run_tells_the_truth_and_writes_nothing,
    a_declaration_with_one_mistake_is_not_applied_at_all,
    a_new_secret_replaces_the_old_one,
];

fn declaration() -> Declaration {
    Declaration {
        connections: vec![twilio("line")],
        agents: vec![receptionist("reception"), receptionist("night")],
        numbers: vec![DeclaredNumber {
            connection: "line".into(),
            e164: "+15550100002".parse().unwrap(),
            name: "bench".into(),
            capabilities: vec![Capability::Voice],
            settings: json!({}),
            forward_to: None,
            inbound_agent: Some("reception".into()),
        }],
    }
}

async fn changes(
    db: &Database,
    scope: &offhook_store::Scope,
    declaration: &Declaration,
    apply: Apply,
) -> Vec<Change> {
    let applied = db.store.apply(scope, declaration, apply).await.unwrap();
    applied.into_iter().map(|applied| applied.change).collect()
}

async fn a_declaration_applied_twice_changes_nothing_the_second_time(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let mut declaration = declaration();
    assert_eq!(changes(&db, &scope, &declaration, Apply::Write).await, [Change::Created; 4]);
    assert_eq!(changes(&db, &scope, &declaration, Apply::Write).await, [Change::Unchanged; 4]);
    declaration.agents[1].config = json!({ "instructions": "Be brief." });
    declaration.numbers[0].inbound_agent = Some("night".into());
    let expected = [Change::Unchanged, Change::Unchanged, Change::Changed, Change::Changed];
    assert_eq!(changes(&db, &scope, &declaration, Apply::Write).await, expected);
    assert_eq!(changes(&db, &scope, &declaration, Apply::Write).await, [Change::Unchanged; 4]);
    let number = &db.store.numbers(&scope, &Page::first(2)).await.unwrap().rows[0];
    let agent = db.store.agent(&scope, number.inbound_agent.as_ref().unwrap()).await.unwrap();
    assert_eq!((agent.name.as_str(), agent.version), ("night", 2));
}

async fn a_dry_run_tells_the_truth_and_writes_nothing(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    assert_eq!(changes(&db, &scope, &declaration(), Apply::DryRun).await, [Change::Created; 4]);
    assert!(db.store.agents(&scope, &Page::first(1)).await.unwrap().rows.is_empty());
    assert!(db.store.audit_events(&scope, &Page::first(1)).await.unwrap().rows.is_empty());
    assert_eq!(changes(&db, &scope, &declaration(), Apply::Write).await, [Change::Created; 4]);
}

async fn a_declaration_with_one_mistake_is_not_applied_at_all(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let mut mistaken = declaration();
    mistaken.numbers[0].inbound_agent = Some("recption".into());
    let error = db.store.apply(&scope, &mistaken, Apply::Write).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "this phone number cannot be stored: +15550100002 names agent `recption`, which is neither declared nor there"
    );
    assert!(db.store.connections(&scope, &Page::first(1)).await.unwrap().rows.is_empty());
    let mut doubled = declaration();
    doubled.numbers[0].connection = "lin".into();
    let error = db.store.apply(&scope, &doubled, Apply::Write).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
}

async fn a_new_secret_replaces_the_old_one(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let declare = |text: Option<&str>| Declaration {
        connections: vec![ConnectionSpec { secret: text.map(secret), ..twilio("line") }],
        ..Declaration::default()
    };
    assert_eq!(changes(&db, &scope, &declare(Some("old")), Apply::Write).await, [Change::Created]);
    assert_eq!(changes(&db, &scope, &declare(None), Apply::Write).await, [Change::Unchanged]);
    assert_eq!(changes(&db, &scope, &declare(Some("new")), Apply::Write).await, [Change::Changed]);
    let id = db.store.connections(&scope, &Page::first(1)).await.unwrap().rows[0].id.clone();
    assert_eq!(db.store.connection_secret(&scope, &id).await.unwrap(), secret("new"));
}
