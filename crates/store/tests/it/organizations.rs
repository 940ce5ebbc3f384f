use crate::database::{Database, hours, secret};
use offhook_core::entity::Role;
use offhook_store::{Page, Scope, StoreError, WorkspaceSpec};
use serde_json::json;

on_both![
    the_first_owner_is_made_once,
    a_key_opens_its_workspace_until_it_is_revoked,
    the_last_owners_key_stays,
    a_workspace_reads_back_as_it_was_set,
    a_key_remembers_its_last_use_to_the_minute,
    what_was_changed_stands_in_the_audit_log,
];

async fn the_first_owner_is_made_once(db: Database) {
    let spec = hours("main");
    let (one, two) = tokio::join!(db.store.create_first("acme", &spec), db.store.create_first("acme", &spec));
    let mut made: Vec<_> = [one.unwrap(), two.unwrap()].into_iter().flatten().collect();
    assert_eq!(made.len(), 1);
    let first = made.remove(0);
    let scope = db.store.scope_for_api_key(&first.key).await.unwrap();
    assert_eq!(scope.workspace(), &first.workspace.id);
    assert_eq!(scope.organization(), &first.organization.id);
    assert_eq!(scope.role(), Role::Owner);
    assert_eq!(first.api_key.prefix, first.key.expose()[..12]);
    assert_eq!(db.store.workspaces(&Page::first(10)).await.unwrap().rows, [first.workspace]);
}

async fn a_key_opens_its_workspace_until_it_is_revoked(db: Database) {
    let (workspace, scope) = db.workspace("acme").await;
    let (kept, _) = db.store.create_api_key(&scope, "kept", Role::Viewer).await.unwrap();
    let (key, text) = db.store.create_api_key(&scope, "lost", Role::Editor).await.unwrap();
    let opened = db.store.scope_for_api_key(&text).await.unwrap();
    assert_eq!((opened.workspace(), opened.role()), (&workspace.id, Role::Editor));
    assert_eq!(opened.actor().to_string(), format!("api_key {}", key.id));

    db.store.revoke_api_key(&scope, &key.id).await.unwrap();
    db.store.revoke_api_key(&scope, &key.id).await.unwrap();
    let mut wrong = text.expose().clone();
    wrong.pop();
    for refused in [text, secret(&wrong), secret("ohk_"), secret("")] {
        let error = db.store.scope_for_api_key(&refused).await.unwrap_err();
        assert!(matches!(error, StoreError::NotFound { what: "API key" }), "{error:?}");
    }
    let keys = db.store.api_keys(&scope, &Page::first(10)).await.unwrap().rows;
    assert_eq!(keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["lost", "kept"]);
    assert!(keys[0].revoked_at_us.is_some());
    assert_eq!(keys[1], kept);
}

async fn the_last_owners_key_stays(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    db.store.create_api_key(&scope, "admin", Role::Admin).await.unwrap();
    let mut owners = Vec::new();
    for name in ["one", "two"] {
        owners.push(db.store.create_api_key(&scope, name, Role::Owner).await.unwrap().0.id);
    }
    let revokes = owners.iter().map(|id| {
        let (store, scope, id) = (db.store.clone(), scope.clone(), id.clone());
        tokio::spawn(async move { store.revoke_api_key(&scope, &id).await })
    });
    let mut revoked = 0;
    for revoke in revokes.collect::<Vec<_>>() {
        match revoke.await.unwrap() {
            Ok(()) => revoked += 1,
            Err(error) => assert!(matches!(error, StoreError::Conflict { what: "API key", .. }), "{error:?}"),
        }
    }
    assert_eq!(revoked, 1);
}

async fn a_workspace_reads_back_as_it_was_set(db: Database) {
    let (workspace, scope) = db.workspace("acme").await;
    assert_eq!(db.store.workspace(&scope).await.unwrap(), workspace);
    let spec = WorkspaceSpec {
        name: "München".into(),
        time_zone: "Asia/Tokyo".into(),
        business_hours: json!({ "holidays": ["2027-01-01"], "weekly": {} }),
    };
    let set = db.store.replace_workspace(&scope, workspace.revision, &spec).await.unwrap();
    assert_eq!(db.store.workspace(&scope).await.unwrap(), set);
    let late = db.store.replace_workspace(&scope, workspace.revision, &hours("late")).await.unwrap_err();
    assert_eq!(late.to_string(), "this workspace is taken: it was changed meanwhile and is at revision 2");
    assert_eq!((set.name, set.business_hours), (spec.name, spec.business_hours));
    let second = db.store.create_workspace(&scope, &hours("second")).await.unwrap();
    assert_eq!(second.organization, workspace.organization);
    assert_eq!(db.store.workspace(&Scope::system(&second, "test")).await.unwrap(), second);
}

async fn a_key_remembers_its_last_use_to_the_minute(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let (_, text) = db.store.create_api_key(&scope, "key", Role::Viewer).await.unwrap();
    let last_used = async || {
        db.store.scope_for_api_key(&text).await.unwrap();
        db.store.api_keys(&scope, &Page::first(1)).await.unwrap().rows[0].last_used_at_us.unwrap()
    };
    let first = last_used().await;
    assert_eq!(last_used().await, first);
    db.clock.advance_ms(61_000);
    assert!(last_used().await > first + 60_000_000);
}

async fn what_was_changed_stands_in_the_audit_log(db: Database) {
    let tenant = db.tenant("acme").await;
    db.store.delete_number(&tenant.scope, &tenant.number.id).await.unwrap();
    let events = db.store.audit_events(&tenant.scope, &Page::first(10)).await.unwrap().rows;
    let actions: Vec<_> = events.iter().map(|event| event.action.as_str()).collect();
    let expected = ["phone_number.delete", "phone_number.create", "agent.create", "connection.create"];
    assert_eq!(actions, expected);
    assert_eq!(events[0].actor, "job test");
    assert_eq!(events[0].target, tenant.number.id.as_str());
    assert!(!format!("{events:?}").contains("auth token"), "a secret stands in the audit log");
}
