//! Calls outlive the process that drives them and a database that does not answer.

use crate::house::{GREETING, House, Place};
use crate::line::words;
use offhook_sim::carrier::What;
use offhook_sim::provider::{Rule, Service};
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection};
use serde_json::json;

on_both!(kill_minus_nine_and_the_call_goes_on, a_locked_database_does_not_stop_a_call);

/// How long the database is locked.
const LOCKED_MS: u64 = 5_000;

async fn kill_minus_nine_and_the_call_goes_on(place: Place) {
    let mut house = House::open(place, json!({})).await;
    house.first.program(|program| {
        program.rules = vec![Rule::text("bread", "Our bread is two euros."), Rule::text("milk", "Our milk is one euro.")];
    });
    let caller = house.ring();
    caller.greeted().await;
    caller.ask("How much is your bread?").await;
    let id = house.id_of(&caller.call).await;
    let before = caller.heard();

    house.kill_and_start_again().await;
    let streams = |what: &What| matches!(what, What::StreamOpened { .. });
    caller
        .until("the carrier opens a media socket to the new process", |phone| {
            phone.history().iter().filter(|event| streams(&event.what)).count() == 2
        })
        .await;
    caller.ask("And how much is your milk?").await;
    caller.hang_up().await;

    assert!(house.log().contains("taken up again"), "the new process took the call up");
    assert!(caller.heard().starts_with(&before) && caller.heard().ends_with(&words("Our milk is one euro.")));
    let kept = house.kept(&caller.call).await;
    assert_eq!((kept.id.clone(), house.calls().await.len()), (id, 1));
    assert_eq!(kept.ended_reason, "caller_hung_up");
    assert_eq!(kept.of("member"), ["How much is your bread?", "And how much is your milk?"]);
    assert_eq!(&kept.of("agent")[..2], [GREETING, "Our bread is two euros."]);
    assert_eq!(kept.of("agent").last(), Some(&"Our milk is one euro."));
    let records = house.first.records();
    let last = records.iter().rfind(|record| record.service == Service::Chat).unwrap().body.to_string();
    assert!(last.contains("How much is your bread?") && last.contains("Our bread is two euros."), "{last}");
    house.close().await;
}

async fn a_locked_database_does_not_stop_a_call(place: Place) {
    let house = House::open(place, json!({})).await;
    house.first.program(|program| program.rules = vec![Rule::text("bread", "Our bread is two euros.")]);
    let caller = house.ring();
    caller.greeted().await;

    let lock = lock(&house.place).await;
    let locked_ms = caller.phone.now_ms();
    caller.ask("How much is your bread?").await;
    assert_eq!(caller.heard(), words(&format!("{GREETING} Our bread is two euros.")));
    caller.until_ms(locked_ms + LOCKED_MS).await;
    lock.execute_unprepared("ROLLBACK").await.unwrap();
    lock.close().await.unwrap();

    caller.hang_up().await;
    let kept = house.kept(&caller.call).await;
    assert_eq!(kept.ended_reason, "caller_hung_up");
    assert_eq!(kept.of("member"), ["How much is your bread?"]);
    assert_eq!(kept.of("agent"), [GREETING, "Our bread is two euros."]);
    let (status, said) = house.offhook(&["replay", &kept.id]).await;
    assert!(status.success() && said.contains("identical"), "no line of the log is missing: {said}");
    house.close().await;
}

/// Another process that holds what every call writes to.
async fn lock(place: &Place) -> DatabaseConnection {
    let mut options = ConnectOptions::new(place.url());
    options.max_connections(1);
    let database = sea_orm::Database::connect(options).await.unwrap();
    if place.is_sqlite() {
        database.execute_unprepared("PRAGMA busy_timeout = 10000").await.unwrap();
        database.execute_unprepared("BEGIN EXCLUSIVE").await.unwrap();
    } else {
        database.execute_unprepared("BEGIN").await.unwrap();
        let tables = "call, call_event, call_snapshot, conversation, message, usage";
        database.execute_unprepared(&format!("LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")).await.unwrap();
    }
    database
}
