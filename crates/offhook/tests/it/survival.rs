//! Calls outlive the process that drives them and a database that does not answer.

use crate::house::{GREETING, House, LIMIT, NUMBER, Place};
use crate::line::{Caller, words};
use offhook_sim::carrier::twilio::AfterLoss;
use offhook_sim::carrier::{Phone, What};
use offhook_sim::provider::{Record, Rule, Service};
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection};
use serde_json::json;

on_both!(
    kill_minus_nine_and_the_call_goes_on,
    another_node_goes_on_with_the_call_of_a_dead_one,
    what_a_killed_process_was_saying_is_said_to_the_end,
    a_tool_that_a_killed_process_has_used_is_not_used_again,
    a_process_that_is_replaced_leaves_its_call_to_the_next,
    a_process_that_stops_takes_no_call_and_ends_its_own,
    a_second_process_of_the_same_name_takes_no_live_call,
    a_lost_socket_is_opened_again_whatever_the_carrier_does,
    a_call_whose_media_never_opens_ends_soon,
    a_call_that_cannot_be_gone_on_with_ends_with_an_apology,
    a_call_whose_process_died_before_its_first_line_begins_anew,
    a_call_goes_on_without_its_number_and_its_token,
    a_caller_at_a_server_without_its_database_hears_an_apology,
    a_locked_database_does_not_stop_a_call,
    a_call_that_rings_at_a_locked_database_is_answered,
);

/// Longer than it takes a process to look for calls that another has left.
const LOOKS_MS: u64 = 7_000;
/// How long the database is locked.
const LOCKED_MS: u64 = 5_000;
/// How long a caller is held by a process that stops.
const HELD_MS: u64 = 1_500;
/// How long nobody can answer while somebody rings: a caller who hears it ring longer has a right to an apology.
const RINGING_MS: u64 = 3_000;

async fn kill_minus_nine_and_the_call_goes_on(place: Place) {
    let mut house = House::open(place, json!({})).await;
    house.first.program(|program| {
        program.rules =
            vec![Rule::text("bread", "Our bread is two euros."), Rule::text("milk", "Our milk is one euro.")];
    });
    let caller = house.ring();
    caller.greeted().await;
    caller.ask("How much is your bread?").await;
    let id = house.id_of(&caller.call).await;
    let before = caller.heard();

    house.kill_and_start("one").await;
    connected_again(&caller).await;
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

async fn another_node_goes_on_with_the_call_of_a_dead_one(place: Place) {
    let mut house = House::open(place, json!({})).await;
    house.first.program(|program| program.rules = vec![Rule::text("bread", "Our bread is two euros.")]);
    let caller = house.ring();
    caller.greeted().await;
    house.kill_and_start("two").await;
    connected_again(&caller).await;
    caller.ask("How much is your bread?").await;
    caller.hang_up().await;
    assert!(caller.heard().ends_with(&words("Our bread is two euros.")), "{:?}", caller.heard());
    assert_eq!(house.kept(&caller.call).await.of("member"), ["How much is your bread?"]);
    house.close().await;
}

/// Waits until the carrier has opened a second media socket.
async fn connected_again(caller: &Caller) {
    let opened = |what: &What| matches!(what, What::StreamOpened { .. });
    let again = |phone: &Phone| phone.history().iter().filter(|event| opened(&event.what)).count() == 2;
    caller.until("the carrier opens a media socket to the new process", again).await;
}

async fn what_a_killed_process_was_saying_is_said_to_the_end(place: Place) {
    const STORY: &str = "Our shop was founded ninety years ago by two sisters who sold bread and butter from a small \
        wooden cart near the old harbour before they rented this corner house.";
    let mut house = House::open(place, json!({})).await;
    house.first.program(|program| program.rules = vec![Rule::text("story", STORY)]);
    let caller = house.ring();
    caller.greeted().await;
    caller.say("Tell me the story of your shop.").await;
    caller.until("it tells", |_| caller.heard().iter().any(|word| word == "bread")).await;
    house.kill_and_start("one").await;
    connected_again(&caller).await;
    caller.until("it is told to the end", |_| caller.heard().ends_with(&words("this corner house."))).await;
    caller.until_quiet().await;
    caller.hang_up().await;

    let heard = caller.heard();
    let missed: Vec<_> = words(STORY).into_iter().filter(|word| !heard.contains(word)).collect();
    assert!(missed.is_empty(), "{missed:?} was never heard: {heard:?}");
    let kept = house.kept(&caller.call).await;
    assert_eq!(
        (kept.of("member"), kept.ended_reason.as_str()),
        (vec!["Tell me the story of your shop."], "caller_hung_up")
    );
    assert!(
        kept.of("agent").last().is_some_and(|line| line.ends_with("this corner house.")),
        "{:?}",
        kept.lines
    );
    house.close().await;
}

async fn a_tool_that_a_killed_process_has_used_is_not_used_again(place: Place) {
    let mut house = House::open(place, json!({})).await;
    let message = json!({ "name": "Ada", "message": "Call me back" });
    house.first.program(|program| {
        program.rules = vec![
            Rule::tool("write this down", "take_message", message),
            Rule::text("kept", "It is written down."),
            Rule::text("unknown", "I do not know whether it was written down."),
        ];
    });
    let caller = house.ring();
    caller.greeted().await;
    caller.say("Please write this down for me.").await;
    let last_from = |record: &Record| {
        let last = record.body["messages"].as_array().and_then(|all| all.last()).cloned();
        last.map(|last| last["role"].as_str().unwrap_or_default().to_owned())
    };
    let told = |records: &[Record]| records.iter().any(|record| last_from(record).as_deref() == Some("tool"));
    let before = house.first.wait_for(LIMIT, told).await.expect("the model is told what came of it").len();
    house.kill_and_start("one").await;
    connected_again(&caller).await;
    caller.until_quiet().await;
    caller
        .until("the next process says what came of it", |_| caller.heard().ends_with(&words("written down.")))
        .await;
    caller.hang_up().await;

    let asked = house.first.records();
    let again: Vec<_> = asked[before..].iter().filter(|r| last_from(r).as_deref() == Some("user")).collect();
    assert!(again.is_empty(), "the model was asked to use it once more: {again:#?}");
    let kept = house.kept(&caller.call).await;
    let used = kept.record["tool_calls"].as_array().unwrap();
    assert!(used.len() == 1 && used[0]["arguments"].as_str().unwrap().contains("Call me back"), "{used:?}");
    house.close().await;
}

async fn a_process_that_is_replaced_leaves_its_call_to_the_next(place: Place) {
    let mut house = House::open(place, json!({})).await;
    house.first.program(|program| program.rules = vec![Rule::text("bread", "Our bread is two euros.")]);
    let caller = house.ring();
    caller.greeted().await;
    house.replace().await;
    connected_again(&caller).await;
    caller.ask("How much is your bread?").await;
    caller.hang_up().await;
    assert!(caller.heard().ends_with(&words("Our bread is two euros.")), "{:?}", caller.heard());
    let kept = house.kept(&caller.call).await;
    assert_eq!((kept.of("member"), house.calls().await.len()), (vec!["How much is your bread?"], 1));
    house.close().await;
}

async fn a_process_that_stops_takes_no_call_and_ends_its_own(place: Place) {
    let mut house = House::open(place, json!({})).await;
    let caller = house.ring();
    caller.greeted().await;
    house.ask_to_stop().await;
    let late = house.ring();
    late.until_ms(HELD_MS).await;
    let hooks = house.carrier.webhooks();
    let answered = |page: &str, status: u16| {
        hooks.iter().any(|hook| hook.url.ends_with(page) && hook.status == Some(status))
    };
    assert!(answered("voice", 503) && answered("voice-fallback", 200), "who rings now is held: {hooks:#?}");
    assert_eq!(house.calls().await.len(), 1, "and is no call of the process that stops");
    caller.hang_up().await;
    house.start_again().await;
    late.greeted().await;
    late.hang_up().await;
    assert_eq!(house.kept(&caller.call).await.ended_reason, "caller_hung_up");
    house.kept(&late.call).await;
    house.close().await;
}

/// As in a restart whose old process takes its time.
async fn a_second_process_of_the_same_name_takes_no_live_call(place: Place) {
    let house = House::open(place, json!({})).await;
    house.first.program(|program| program.rules = vec![Rule::text("bread", "Our bread is two euros.")]);
    let caller = house.ring();
    caller.greeted().await;
    let beside = house.start_beside().await;
    caller.until_ms(caller.phone.now_ms() + LOOKS_MS).await;
    caller.ask("How much is your bread?").await;
    caller.hang_up().await;
    assert!(caller.heard().ends_with(&words("Our bread is two euros.")), "{:?}", caller.heard());
    let opened = |what: &What| matches!(what, What::StreamOpened { .. });
    let sockets = caller.phone.history().iter().filter(|event| opened(&event.what)).count();
    assert_eq!((sockets, house.kept(&caller.call).await.ended_reason.as_str()), (1, "caller_hung_up"));
    assert!(!house.log().contains("letting go"), "the call stayed where it was");
    beside.end().await;
    house.close().await;
}

async fn a_lost_socket_is_opened_again_whatever_the_carrier_does(place: Place) {
    let house = House::open(place, json!({})).await;
    house.first.program(|program| program.rules = vec![Rule::text("bread", "Our bread is two euros.")]);
    for then in [AfterLoss::Action, AfterLoss::NextVerb, AfterLoss::Nothing] {
        let caller = house.ring();
        caller.greeted().await;
        caller.call.lose_socket(then).unwrap();
        connected_again(&caller).await;
        caller.ask("How much is your bread?").await;
        caller.hang_up().await;
        assert_eq!(caller.heard(), words(&format!("{GREETING} Our bread is two euros.")), "{then:?}");
        assert_eq!(house.kept(&caller.call).await.ended_reason, "caller_hung_up", "{then:?}");
    }
    house.close().await;
}

async fn a_call_whose_media_never_opens_ends_soon(place: Place) {
    let house = House::open(place, json!({})).await;
    house.door.lets_sockets_through(false);
    let caller = house.ring();
    caller.until_hung_up_on().await;
    let apology = |what: &What| matches!(what, What::CarrierSaid { text } if text.contains("sorry"));
    assert!(caller.phone.history().iter().any(|event| apology(&event.what)), "{:#?}", caller.phone.history());
    assert_eq!(house.kept(&caller.call).await.ended_reason, "never_connected");
    assert!(house.log().contains("let WebSockets pass"), "the log says what to do");
    let asked = house.carrier.webhooks().into_iter().filter(|hook| hook.url.ends_with("media-over")).count();
    assert!(asked <= 4, "it is not tried for ever: {asked}");
    house.close().await;
}

async fn a_call_that_cannot_be_gone_on_with_ends_with_an_apology(place: Place) {
    let mut house = House::open(place, json!({})).await;
    let caller = house.ring();
    caller.greeted().await;
    house.kill().await;
    let database = sea_orm::Database::connect(house.place.url()).await.unwrap();
    let damaged = database.execute_unprepared("UPDATE call_snapshot SET state = 'damaged'").await.unwrap();
    assert_eq!(damaged.rows_affected(), 1);
    database.close().await.unwrap();
    house.start("one").await;
    caller.until_hung_up_on().await;
    let apology = |what: &What| matches!(what, What::CarrierSaid { text } if text.contains("sorry"));
    assert!(caller.phone.history().iter().any(|event| apology(&event.what)), "{:#?}", caller.phone.history());
    let kept = house.kept(&caller.call).await;
    assert_eq!((kept.ended_reason.as_str(), kept.lines.len()), ("media_lost", 0), "it does not stay open");
    house.close().await;
}

async fn a_call_whose_process_died_before_its_first_line_begins_anew(place: Place) {
    let mut house = House::open(place, json!({})).await;
    house.first.program(|program| program.rules = vec![Rule::text("bread", "Our bread is two euros.")]);
    let caller = house.ring();
    let opened = |what: &What| matches!(what, What::StreamOpened { .. });
    caller.until("it is answered", |phone| phone.history().iter().any(|event| opened(&event.what))).await;
    house.kill_and_start("one").await;
    connected_again(&caller).await;
    caller.until_quiet().await;
    caller.ask("How much is your bread?").await;
    caller.hang_up().await;
    let kept = house.kept(&caller.call).await;
    assert_eq!(kept.of("agent"), [GREETING, "Our bread is two euros."]);
    let (status, said) = house.offhook(&["replay", &kept.id]).await;
    assert!(status.success() && said.contains("identical"), "{said}");
    house.close().await;
}

async fn a_call_goes_on_without_its_number_and_its_token(place: Place) {
    let house = House::open(place, json!({})).await;
    house.first.program(|program| program.rules = vec![Rule::text("bread", "Our bread is two euros.")]);
    let caller = house.ring();
    caller.greeted().await;
    let phone = house.item("/api/connections", |connection| connection["name"] == "phone").await;
    let number = house.item("/api/phone-numbers", |number| number["e164"] == NUMBER).await;
    house
        .change(
            &format!("/api/connections/{}", phone["id"].as_str().unwrap()),
            json!({
                "revision": phone["revision"], "secret": "another token of the same account",
            }),
        )
        .await;
    house.delete(&format!("/api/phone-numbers/{}", number["id"].as_str().unwrap())).await;
    caller.call.lose_socket(AfterLoss::Action).unwrap();
    connected_again(&caller).await;
    caller.ask("How much is your bread?").await;
    caller.hang_up().await;
    assert_eq!(caller.heard(), words(&format!("{GREETING} Our bread is two euros.")));
    assert_eq!(house.kept(&caller.call).await.ended_reason, "caller_hung_up");
    house.close().await;
}

async fn a_caller_at_a_server_without_its_database_hears_an_apology(place: Place) {
    let house = House::open(place, json!({})).await;
    house.place.cut_off(true).await;
    let caller = house.ring();
    caller.until_hung_up_on().await;
    let apology = |what: &What| matches!(what, What::CarrierSaid { text } if text.contains("sorry"));
    assert!(caller.phone.history().iter().any(|event| apology(&event.what)), "{:#?}", caller.phone.history());
    house.place.cut_off(false).await;
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

async fn a_call_that_rings_at_a_locked_database_is_answered(place: Place) {
    let house = House::open(place, json!({})).await;
    let lock = lock(&house.place).await;
    let caller = house.ring();
    caller.until_ms(RINGING_MS).await;
    lock.execute_unprepared("ROLLBACK").await.unwrap();
    lock.close().await.unwrap();
    caller.greeted().await;
    caller.hang_up().await;
    assert_eq!(caller.heard(), words(GREETING));
    house.kept(&caller.call).await;
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
