//! Providers that fail, and callers who never hear dead air for it.

use crate::house::{GREETING, House, LIMIT, Place};
use crate::line::words;
use offhook_sim::carrier::What;
use offhook_sim::provider::{Fault, FaultRate, ProviderSim, Record, Rule, Service};
use serde_json::json;

on_both!(
    a_failing_model_is_replaced_without_dead_air,
    a_stalling_model_is_replaced_without_dead_air,
    a_stalling_voice_is_replaced_without_dead_air,
    a_call_without_any_voice_ends_with_an_apology,
    a_recogniser_that_breaks_off_is_replaced,
    a_voice_that_is_down_does_not_delay_the_greeting,
);

/// The longest silence on a line with a fault.
const DEAD_AIR_MS: u32 = 4_000;
const QUESTION: &str = "How much is your bread?";
const ANSWER: &str = "Our bread is two euros.";

fn always(sim: &ProviderSim, service: Service, fault: Fault) {
    sim.program(|program| program.faults.rates.push(FaultRate { service, fault, probability: 1.0 }));
}

async fn open(place: Place) -> House {
    let house = House::open(place, json!({})).await;
    for sim in [&house.first, &house.second] {
        sim.program(|program| program.rules = vec![Rule::text("bread", ANSWER)]);
    }
    house
}

fn asked(sim: &ProviderSim, service: Service) -> usize {
    sim.records().iter().filter(|record| record.service == service).count()
}

async fn a_failing_model_is_replaced_without_dead_air(place: Place) {
    let house = open(place).await;
    always(&house.first, Service::Chat, Fault::Refuse { status: 500, retry_after_ms: None });
    let caller = house.ring();
    caller.greeted().await;
    caller.ask(QUESTION).await;
    caller.hang_up().await;
    assert!(asked(&house.first, Service::Chat) > 0 && asked(&house.second, Service::Chat) > 0);
    assert!(caller.heard().ends_with(&words(ANSWER)), "{:?}", caller.heard());
    caller.no_silence_beyond(DEAD_AIR_MS);
    assert_eq!(house.kept(&caller.call).await.ended_reason, "caller_hung_up");
    house.close().await;
}

async fn a_stalling_model_is_replaced_without_dead_air(place: Place) {
    let house = open(place).await;
    always(&house.first, Service::Chat, Fault::Stall);
    let caller = house.ring();
    caller.greeted().await;
    caller.say(QUESTION).await;
    caller.until("the other model answers", |_| caller.heard().ends_with(&words(ANSWER))).await;
    caller.until_quiet().await;
    caller.hang_up().await;
    caller.no_silence_beyond(DEAD_AIR_MS);
    assert_eq!(house.kept(&caller.call).await.of("agent").last(), Some(&ANSWER));
    house.close().await;
}

async fn a_stalling_voice_is_replaced_without_dead_air(place: Place) {
    let house = open(place).await;
    let caller = house.ring();
    caller.greeted().await;
    always(&house.first, Service::Cartesia, Fault::Stall);
    caller.say(QUESTION).await;
    caller.until("the other voice answers", |_| caller.heard().ends_with(&words(ANSWER))).await;
    caller.until_quiet().await;
    caller.hang_up().await;
    assert!(asked(&house.second, Service::Cartesia) > 0);
    caller.no_silence_beyond(DEAD_AIR_MS);
    let kept = house.kept(&caller.call).await;
    assert_eq!(kept.of("agent").last(), Some(&ANSWER));
    house.close().await;
}

async fn a_call_without_any_voice_ends_with_an_apology(place: Place) {
    let house = open(place).await;
    let caller = house.ring();
    caller.greeted().await;
    let greeted_ms = caller.phone.agent_last_sound_ms();
    for sim in [&house.first, &house.second] {
        always(sim, Service::Cartesia, Fault::Refuse { status: 500, retry_after_ms: None });
        always(sim, Service::Cartesia, Fault::Cut);
    }
    caller.say(QUESTION).await;
    caller.until_hung_up_on().await;
    assert!(
        caller.phone.agent_last_sound_ms() > greeted_ms,
        "an apology is heard: {:#?}",
        caller.phone.history()
    );
    let by_carrier = |what: &What| matches!(what, What::CarrierSaid { .. });
    assert!(!caller.phone.history().iter().any(|event| by_carrier(&event.what)));
    caller.no_silence_beyond(DEAD_AIR_MS);
    let kept = house.kept(&caller.call).await;
    assert_eq!((kept.ended_reason.as_str(), kept.of("agent")[0]), ("providers_failed", GREETING));
    house.close().await;
}

async fn a_recogniser_that_breaks_off_is_replaced(place: Place) {
    let house = open(place).await;
    let caller = house.ring();
    caller.greeted().await;
    house.first.program(|program| program.faults.push(Service::DeepgramListen, Fault::Cut));
    caller.ask("Well, good morning to you.").await;
    caller.ask(QUESTION).await;
    caller.hang_up().await;
    assert!(caller.heard().ends_with(&words(ANSWER)), "{:?}", caller.heard());
    caller.no_silence_beyond(DEAD_AIR_MS);
    house.close().await;
}

/// It was spoken when the server started; what is not known beforehand, another voice speaks.
async fn a_voice_that_is_down_does_not_delay_the_greeting(place: Place) {
    let house = open(Place { rehearses: true, ..place }).await;
    let spoken = |record: &Record| {
        let text: String = record.spoken.iter().map(|piece| piece.text.as_str()).collect();
        text.matches(GREETING).count()
    };
    let rehearsed = |records: &[Record]| records.iter().any(|r| spoken(r) == 1 && r.closed.is_some());
    assert!(house.first.wait_for(LIMIT, rehearsed).await.is_some(), "the greeting was not spoken ahead");
    always(&house.first, Service::Cartesia, Fault::Refuse { status: 503, retry_after_ms: None });
    let caller = house.ring();
    caller.greeted().await;
    let greeted_by = |sim: &ProviderSim| sim.records().iter().map(spoken).sum::<usize>();
    assert_eq!((greeted_by(&house.first), greeted_by(&house.second)), (1, 0), "spoken once, before the call");
    caller.ask(QUESTION).await;
    caller.hang_up().await;
    assert_eq!(caller.heard(), words(&format!("{GREETING} {ANSWER}")));
    house.close().await;
}
