use crate::database::Database;
use offhook_core::entity::WebhookAnswer;

on_both![a_repeated_webhook_gets_the_first_answer, an_answer_is_forgotten_when_its_time_is_over];

fn answer(body: &str) -> WebhookAnswer {
    WebhookAnswer { status: 200, content_type: "text/xml".into(), body: body.into() }
}

async fn a_repeated_webhook_gets_the_first_answer(db: Database) {
    let tenant = db.tenant("acme").await;
    let (scope, connection) = (&tenant.scope, &tenant.connection.id);
    assert_eq!(db.store.webhook_answer(scope, connection, "key").await.unwrap(), None);
    let tries = (0..8).map(|i| {
        let (store, scope, connection) = (db.store.clone(), scope.clone(), connection.clone());
        tokio::spawn(async move {
            store
                .keep_webhook_answer(&scope, &connection, "key", &answer(&i.to_string()), 60_000)
                .await
                .unwrap()
        })
    });
    let mut kept = Vec::new();
    for attempt in tries.collect::<Vec<_>>() {
        kept.push(attempt.await.unwrap().body);
    }
    kept.dedup();
    assert_eq!(kept.len(), 1);
    let stored = db.store.webhook_answer(scope, connection, "key").await.unwrap();
    assert_eq!(stored, Some(answer(&kept[0])));
    assert_eq!(db.store.webhook_answer(scope, connection, "another key").await.unwrap(), None);
}

async fn an_answer_is_forgotten_when_its_time_is_over(db: Database) {
    let tenant = db.tenant("acme").await;
    let (scope, connection) = (&tenant.scope, &tenant.connection.id);
    let keep = async |key, body| {
        db.store.keep_webhook_answer(scope, connection, key, &answer(body), 1_000).await.unwrap().body
    };
    keep("a", "first").await;
    keep("b", "first").await;
    db.clock.advance_ms(2_000);
    assert_eq!(db.store.webhook_answer(scope, connection, "a").await.unwrap(), None);
    assert_eq!(keep("a", "second").await, "second");
    assert_eq!(db.store.forget_webhook_answers().await.unwrap(), 1, "only b is out of date");
    assert_eq!(db.store.webhook_answer(scope, connection, "a").await.unwrap(), Some(answer("second")));
}
