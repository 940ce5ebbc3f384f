use crate::database::{Database, Tenant, receptionist};
use offhook_store::{AgentSpec, Page, StoreError};
use serde_json::json;
use std::collections::BTreeSet;

on_both![
    a_save_adds_a_version_and_keeps_the_earlier,
    of_two_who_save_at_once_one_is_refused,
    an_agent_that_answers_a_number_stays,
    running_agents_that_answer_a_number_are_found,
];

async fn a_save_adds_a_version_and_keeps_the_earlier(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let made = db.store.create_agent(&scope, &receptionist("reception")).await.unwrap();
    assert_eq!(db.store.agent(&scope, &made.id).await.unwrap(), made);
    let firm = AgentSpec { config: json!({ "instructions": "Be firm." }), ..receptionist("reception") };
    let saved = db.store.save_agent(&scope, &made.id, 1, &firm).await.unwrap();
    assert_eq!(saved.version, 2);
    let renamed = AgentSpec { name: "front desk".into(), running: false, ..firm.clone() };
    let renamed = db.store.save_agent(&scope, &made.id, 2, &renamed).await.unwrap();
    assert_eq!((renamed.version, &renamed.current), (2, &saved.current), "a name is no new version");
    let late =
        db.store.save_agent(&scope, &made.id, saved.revision, &receptionist("late")).await.unwrap_err();
    assert_eq!(late.to_string(), "this agent is taken: it was changed meanwhile and is at revision 3");
    assert_eq!(db.store.agent(&scope, &made.id).await.unwrap(), renamed);
    assert!(!renamed.running);

    let versions = db.store.agent_versions(&scope, &made.id, &Page::first(10)).await.unwrap().rows;
    assert_eq!(versions.iter().map(|version| version.number).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(db.store.agent_version(&scope, &made.current).await.unwrap(), versions[1]);
    assert_eq!((&versions[0].config, &versions[0].id), (&firm.config, &saved.current));
    let error = db.store.create_agent(&scope, &receptionist("front desk")).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { what: "agent name", .. }), "{error:?}");
}

async fn of_two_who_save_at_once_one_is_refused(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let agent = db.store.create_agent(&scope, &receptionist("reception")).await.unwrap();
    let saves = (0..8).map(|i| {
        let (store, scope, id) = (db.store.clone(), scope.clone(), agent.id.clone());
        let spec =
            AgentSpec { config: json!({ "instructions": format!("Be {i}.") }), ..receptionist("reception") };
        tokio::spawn(async move { store.save_agent(&scope, &id, 1, &spec).await })
    });
    let mut saved = 0;
    for save in saves.collect::<Vec<_>>() {
        match save.await.unwrap() {
            Ok(_) => saved += 1,
            Err(error) => assert_eq!(
                error.to_string(),
                "this agent is taken: it was changed meanwhile and is at revision 2"
            ),
        }
    }
    assert_eq!(saved, 1);
    let versions = db.store.agent_versions(&scope, &agent.id, &Page::first(10)).await.unwrap().rows;
    assert_eq!(versions.len(), 2);
}

async fn an_agent_that_answers_a_number_stays(db: Database) {
    let tenant = db.tenant("acme").await;
    let error = db.store.delete_agent(&tenant.scope, &tenant.agent.id).await.unwrap_err();
    assert_eq!(error.to_string(), "this agent is taken: it answers +14155550100");
    db.store.delete_number(&tenant.scope, &tenant.number.id).await.unwrap();
    db.store.delete_agent(&tenant.scope, &tenant.agent.id).await.unwrap();
    let gone = db.store.agent_version(&tenant.scope, &tenant.agent.current).await.unwrap_err();
    assert!(matches!(gone, StoreError::NotFound { .. }), "{gone:?}");
}

async fn running_agents_that_answer_a_number_are_found(db: Database) {
    let (first, second) = (db.tenant("acme").await, db.tenant("bolt").await);
    db.store.create_agent(&first.scope, &receptionist("without a number")).await.unwrap();
    let stopped = AgentSpec { running: false, ..receptionist(&second.agent.name) };
    let found = || async {
        let found = db.store.answering_agents(10).await.unwrap();
        found.into_iter().map(|(scope, agent)| (scope.workspace().clone(), agent.id)).collect::<BTreeSet<_>>()
    };
    let of = |tenant: &Tenant| (tenant.scope.workspace().clone(), tenant.agent.id.clone());
    assert_eq!(found().await, BTreeSet::from([of(&first), of(&second)]));
    assert_eq!(db.store.answering_agents(1).await.unwrap().len(), 1);
    db.store.save_agent(&second.scope, &second.agent.id, 1, &stopped).await.unwrap();
    assert_eq!(found().await, BTreeSet::from([of(&first)]));
}
