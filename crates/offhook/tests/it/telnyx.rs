//! Calls over Telnyx: answered, understood, interrupted, ended from either side, and outliving whatever breaks on the way.

use crate::house::{GREETING, House, LIMIT, Place};
use crate::line::{Caller, words};
use offhook_sim::carrier::Pickup;
use offhook_sim::carrier::telnyx::{
    AfterLoss, ByteOrder, CallOrder, Codec, Delivery, HangupCause, HangupSource, Manners, OwnedApplication,
    OwnedNumber, Signing, SimCall, TelnyxSettings, TelnyxSim,
};
use offhook_sim::carrier::{Phone, What};
use offhook_sim::provider::{Reply, Rule, ToolCall};
use serde_json::{Value, json};

on_both!(
    a_call_is_answered_understood_and_hung_up,
    talking_over_the_agent_cuts_it_and_its_goodbye_ends_the_call,
    kill_minus_nine_and_the_call_goes_on,
    a_process_that_is_replaced_leaves_its_call_to_the_next,
);

const NUMBER: &str = "+15550100088";
/// Answered by nobody of ours, and leading to another phone.
const FORWARDED: &str = "+15550100089";
const OTHER_PHONE: &str = "+15550100090";
/// Answered by nobody, and leading nowhere.
const NOBODY: &str = "+15550100091";
const APPLICATION: &str = "2345678901234567890";
const QUESTION: &str = "What are your opening hours today?";
const ANSWER: &str = "We are open from nine in the morning until five in the afternoon.";
const STORY: &str = "Our shop was founded ninety years ago by two sisters who sold bread and butter from a small wooden cart \
    near the old harbour before they rented the corner house where we still stand today.";
const FAREWELL: &str = "Thank you for calling, have a lovely day and goodbye.";

/// An installation with a Telnyx account.
struct Line {
    house: House,
    carrier: TelnyxSim,
}

impl Line {
    async fn open(place: Place) -> Line {
        Line::of(place, json!({}), TelnyxSettings::default()).await
    }

    async fn of(place: Place, config: Value, settings: TelnyxSettings) -> Line {
        let house = House::open(place, json!({})).await;
        let hook = format!("http://{}/hooks/telnyx/voice", house.door.address);
        let carrier = TelnyxSettings {
            numbers: [NUMBER, FORWARDED, NOBODY].map(|number| OwnedNumber::new(number, APPLICATION)).into(),
            applications: vec![OwnedApplication::new(APPLICATION, "offhook", hook)],
            say_ms_per_character: 1,
            ..settings
        };
        let carrier = TelnyxSim::start(([127, 0, 0, 1], 0).into(), carrier).await.unwrap();
        let mut config = config;
        config["public_key"] = carrier.public_key().into();
        config["api_base"] = carrier.base_url().into();
        let key = TelnyxSettings::default().api_key;
        let connection =
            json!({ "kind": "telnyx", "name": "telnyx", "secret": key.expose(), "config": config });
        let connection = house.create("/api/connections", connection).await["id"].clone();
        let agent = house.item("/api/agents", |_| true).await["id"].clone();
        for (number, agent, forward) in [
            (NUMBER, agent, Value::Null),
            (FORWARDED, Value::Null, OTHER_PHONE.into()),
            (NOBODY, Value::Null, Value::Null),
        ] {
            let number = json!({ "connection": connection, "e164": number, "inbound_agent": agent, "forward_to": forward });
            house.create("/api/phone-numbers", number).await;
        }
        let end = ToolCall { name: "end_call".into(), arguments: json!({}) };
        house.first.program(|program| {
            program.rules = vec![
                Rule::text("opening", ANSWER),
                Rule::text("story", STORY),
                Rule {
                    contains: "goodbye".into(),
                    reply: Reply::ToolCalls { text: FAREWELL.into(), calls: vec![end] },
                },
            ];
        });
        Line { house, carrier }
    }

    /// Somebody rings.
    fn ring(&self) -> Caller<SimCall> {
        self.ring_as(CallOrder::new(NUMBER, "+15550101234"))
    }

    fn ring_as(&self, order: CallOrder) -> Caller<SimCall> {
        let call = self.carrier.call(order).unwrap();
        Caller { phone: call.phone(), call }
    }

    /// How often a command was given for a call and taken.
    fn commanded(&self, caller: &Caller<SimCall>, command: &str) -> usize {
        let path = format!("/calls/{}/actions/{command}", caller.call.control_id());
        let path = path.replace(':', "%3A");
        let taken = |path_of: &str| path_of.replace(':', "%3A") == path;
        let requests = self.carrier.requests();
        requests.iter().filter(|request| taken(&request.path) && request.status == Some(200)).count()
    }

    /// What the first delivery of a webhook about a call was answered with.
    async fn answered_to(&self, caller: &Caller<SimCall>, event_type: &str) -> Option<u16> {
        for nth in 0.. {
            let told = self.carrier.until_webhook(LIMIT, event_type, nth).await.unwrap();
            if told.payload()["call_control_id"] == caller.call.control_id() {
                return told.status;
            }
        }
        None
    }

    async fn close(self) {
        self.house.close().await;
    }
}

impl Caller<SimCall> {
    async fn hang_up(&self) {
        self.phone.hang_up();
        let end = self.call.until_over(LIMIT).await.unwrap();
        assert_eq!((end.cause, end.source), (HangupCause::NormalClearing, HangupSource::Caller));
    }

    async fn until_hung_up_on(&self) {
        self.until_agent_hangs_up().await;
        let end = self.call.until_over(LIMIT).await.unwrap();
        assert_eq!((end.cause, end.source), (HangupCause::NormalClearing, HangupSource::Callee));
    }

    /// Waits until the carrier has opened so many media sockets.
    async fn until_sockets(&self, sockets: usize) {
        let opened = |what: &What| matches!(what, What::StreamOpened { .. });
        let all =
            |phone: &Phone| phone.history().iter().filter(|event| opened(&event.what)).count() >= sockets;
        self.until("the carrier opens a media socket", all).await;
    }
}

async fn a_call_is_answered_understood_and_hung_up(place: Place) {
    let line = Line::open(place).await;
    let caller = line.ring();
    caller.greeted().await;
    assert_eq!(caller.heard(), words(GREETING));
    caller.ask(QUESTION).await;
    caller.hang_up().await;

    assert_eq!(caller.heard(), words(&format!("{GREETING} {ANSWER}")));
    let kept = line.house.kept(&caller.call).await;
    assert_eq!(kept.ended_reason, "caller_hung_up");
    let said = |role: &str, text: &str| (role.to_owned(), text.to_owned());
    assert_eq!(kept.lines, [said("agent", GREETING), said("member", QUESTION), said("agent", ANSWER)]);
    assert_eq!(kept.record["from"], caller.call.from());
    let requests = line.carrier.requests();
    let stream = requests.iter().find(|request| request.path.ends_with("streaming_start")).unwrap();
    let asked = ["stream_codec", "stream_bidirectional_codec", "stream_bidirectional_sampling_rate"];
    assert_eq!(asked.map(|name| stream.body[name].clone()), [json!("L16"), json!("L16"), json!(16_000)]);
    line.close().await;
}

async fn talking_over_the_agent_cuts_it_and_its_goodbye_ends_the_call(place: Place) {
    let line = Line::open(place).await;
    let caller = line.ring();
    caller.greeted().await;
    caller.say("Tell me the story of your shop.").await;
    let asked_ms = caller.phone.caller_last_sound_ms().unwrap();
    caller
        .until("the agent is in the middle of its story", |phone| {
            phone.agent_last_sound_ms() > Some(asked_ms) && phone.agent_sounding_ms() >= Some(3_000)
        })
        .await;
    caller.ask(QUESTION).await;
    caller.say("Alright, goodbye.").await;
    caller.until_hung_up_on().await;

    assert!(caller.clears() > 0, "{:?}", caller.phone.history());
    let heard = caller.heard();
    assert!(heard.ends_with(&words(FAREWELL)), "the goodbye is heard to its end: {heard:?}");
    let kept = line.house.kept(&caller.call).await;
    assert_eq!(kept.ended_reason, "agent_hung_up");
    let story = kept.of("agent")[1];
    assert!(STORY.starts_with(story) && story.len() < STORY.len(), "{story}");
    line.close().await;
}

async fn kill_minus_nine_and_the_call_goes_on(place: Place) {
    let mut line = Line::open(place).await;
    let caller = line.ring();
    caller.greeted().await;
    caller.ask(QUESTION).await;
    let before = caller.heard();
    line.house.kill_and_start("one").await;
    caller.until_sockets(2).await;
    caller.ask("And the story of your shop?").await;
    caller.hang_up().await;

    assert!(
        caller.heard().starts_with(&before) && caller.heard().ends_with(&words(STORY)),
        "{:?}",
        caller.heard()
    );
    let kept = line.house.kept(&caller.call).await;
    assert_eq!((kept.ended_reason.as_str(), line.house.calls().await.len()), ("caller_hung_up", 1));
    assert_eq!(kept.of("member"), [QUESTION, "And the story of your shop?"]);
    assert_eq!(kept.of("agent"), [GREETING, ANSWER, STORY]);
    line.close().await;
}

async fn a_process_that_is_replaced_leaves_its_call_to_the_next(place: Place) {
    let mut line = Line::open(place).await;
    let caller = line.ring();
    caller.greeted().await;
    caller.ask(QUESTION).await;
    line.house.replace().await;
    caller.until_sockets(2).await;
    caller.ask("And the story of your shop?").await;
    caller.hang_up().await;
    let kept = line.house.kept(&caller.call).await;
    assert_eq!(kept.ended_reason, "caller_hung_up");
    assert_eq!(kept.of("agent"), [GREETING, ANSWER, STORY]);
    line.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_rings_at_a_process_that_stops_is_no_call_of_its_own_nor_left_ringing() {
    let mut line = Line::open(Place::sqlite()).await;
    let open = line.ring();
    open.greeted().await;
    line.house.ask_to_stop().await;
    let (late, told) = loop {
        let late = line.ring();
        match line.answered_to(&late, "call.initiated").await {
            Some(204) => late.phone.hang_up(),
            told => break (late, told),
        }
    };
    assert_eq!(told, Some(503), "another process may answer it");
    assert_eq!(late.call.until_over(LIMIT).await.unwrap().cause, HangupCause::UserBusy);
    open.phone.hang_up();
    line.house.start_again().await;
    let next = line.ring();
    next.greeted().await;
    next.hang_up().await;
    line.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_goes_on_with_the_call_of_a_dead_one() {
    let mut line = Line::open(Place::sqlite()).await;
    let caller = line.ring();
    caller.greeted().await;
    line.house.kill_and_start("two").await;
    caller.until_sockets(2).await;
    caller.ask(QUESTION).await;
    caller.hang_up().await;
    let kept = line.house.kept(&caller.call).await;
    assert_eq!((kept.of("member"), kept.of("agent")), (vec![QUESTION], vec![GREETING, ANSWER]));
    line.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_codec_the_account_has_both_sides_are_understood() {
    let line = Line::open(Place::sqlite()).await;
    for codec in [Codec::Pcmu, Codec::Pcma] {
        let manners = Some(Manners { codec: Some(codec), swap_every: 7, ..Manners::default() });
        let caller = line.ring_as(CallOrder { manners, ..CallOrder::new(NUMBER, "+15550101234") });
        caller.greeted().await;
        caller.ask(QUESTION).await;
        caller.hang_up().await;
        assert_eq!(caller.heard(), words(&format!("{GREETING} {ANSWER}")), "{codec:?}");
        assert_eq!(line.house.kept(&caller.call).await.of("member"), [QUESTION], "{codec:?}");
    }
    line.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_order_that_was_heard_once_is_spoken_from_the_first_word_on() {
    let manners = Manners { byte_order: ByteOrder::Big, ..Manners::default() };
    let settings = TelnyxSettings { manners, ..TelnyxSettings::default() };
    let line = Line::of(Place::sqlite(), json!({}), settings).await;
    let first = line.ring();
    first.until_sockets(1).await;
    first.until_ms(4_000).await;
    first.ask(QUESTION).await;
    first.hang_up().await;
    assert!(first.heard().ends_with(&words(ANSWER)), "{:?}", first.heard());
    let second = line.ring();
    second.greeted().await;
    second.ask(QUESTION).await;
    second.hang_up().await;
    assert_eq!(second.heard(), words(&format!("{GREETING} {ANSWER}")));
    line.close().await;

    let known = Line::of(
        Place::sqlite(),
        json!({ "byte_order": "be" }),
        TelnyxSettings { manners, ..TelnyxSettings::default() },
    )
    .await;
    let caller = known.ring();
    caller.greeted().await;
    caller.hang_up().await;
    assert_eq!(caller.heard(), words(GREETING));
    known.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_that_come_twice_late_or_in_another_order_change_nothing() {
    let line = Line::open(Place::sqlite()).await;
    for delivery in [Delivery::Duplicated, Delivery::Reordered, Delivery::LateMs(700)] {
        let caller =
            line.ring_as(CallOrder { delivery: Some(delivery), ..CallOrder::new(NUMBER, "+15550101234") });
        caller.greeted().await;
        caller.ask(QUESTION).await;
        assert!(line.carrier.repeat_last_webhook("call.initiated").await);
        assert!(line.carrier.repeat_last_webhook("call.answered").await);
        caller.ask(QUESTION).await;
        caller.hang_up().await;
        assert_eq!(caller.heard(), words(&format!("{GREETING} {ANSWER} {ANSWER}")), "{delivery:?}");
        let kept = line.house.kept(&caller.call).await;
        assert_eq!(kept.of("member"), [QUESTION, QUESTION], "{delivery:?}");
        assert_eq!(line.commanded(&caller, "streaming_start"), 1, "{delivery:?}");
    }
    assert_eq!(line.house.calls().await.len(), 3);
    line.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_socket_is_opened_again_whatever_the_carrier_tells() {
    let line = Line::open(Place::sqlite()).await;
    for told in [AfterLoss::Failed, AfterLoss::Stopped, AfterLoss::Nothing] {
        let caller = line.ring();
        caller.greeted().await;
        caller.say("Tell me the story of your shop.").await;
        caller.until("it tells", |_| caller.heard().iter().any(|word| word == "sisters")).await;
        caller.call.lose_socket(told).unwrap();
        caller.until_sockets(2).await;
        caller
            .until("it is told to the end", |_| caller.heard().ends_with(&words("still stand today.")))
            .await;
        caller.until_quiet().await;
        caller.ask(QUESTION).await;
        caller.hang_up().await;
        let heard = caller.heard();
        let missed: Vec<_> = words(STORY).into_iter().filter(|word| !heard.contains(word)).collect();
        assert!(missed.is_empty() && heard.ends_with(&words(ANSWER)), "{told:?}: {missed:?} of {heard:?}");
        let kept = line.house.kept(&caller.call).await;
        assert_eq!(
            (kept.of("agent"), kept.ended_reason.as_str()),
            (vec![GREETING, STORY, ANSWER], "caller_hung_up")
        );
        assert_eq!(line.commanded(&caller, "streaming_start"), 2, "{told:?}");
    }
    line.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_nobody_answers_is_led_on_or_turned_away() {
    let line = Line::open(Place::sqlite()).await;
    let nobody = line.ring_as(CallOrder::new(NOBODY, "+15550101234"));
    assert_eq!(nobody.call.until_over(LIMIT).await.unwrap().cause, HangupCause::CallRejected);

    let forwarded = line.ring_as(CallOrder::new(FORWARDED, "+15550101234"));
    let other = line.carrier.until_called(LIMIT, OTHER_PHONE, 0).await.unwrap();
    other
        .until_state(LIMIT, |state| state >= offhook_sim::carrier::telnyx::CallState::Answered)
        .await
        .unwrap();
    forwarded.hang_up().await;

    line.carrier.callee(OTHER_PHONE, Pickup::Busy { after_ms: 100 });
    let refused = line.ring_as(CallOrder::new(FORWARDED, "+15550101234"));
    refused.until_agent_hangs_up().await;

    let agent = line.house.item("/api/agents", |_| true).await["id"].as_str().unwrap().to_owned();
    line.house.change(&format!("/api/agents/{agent}"), json!({ "config": { "max_open_calls": 1 } })).await;
    let first = line.ring();
    first.until_sockets(1).await;
    let second = line.ring();
    assert_eq!(second.call.until_over(LIMIT).await.unwrap().cause, HangupCause::UserBusy);
    first.hang_up().await;
    line.house
        .change(&format!("/api/agents/{agent}"), json!({ "config": { "tts": [{ "connection": "none" }] } }))
        .await;
    let unlucky = line.ring();
    unlucky.until_agent_hangs_up().await;
    let apology = |what: &What| matches!(what, What::CarrierSaid { text } if text.contains("sorry"));
    assert!(
        unlucky.phone.history().iter().any(|event| apology(&event.what)),
        "{:#?}",
        unlucky.phone.history()
    );
    line.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_account_has_not_signed_or_signed_long_ago_is_refused() {
    let line = Line::open(Place::sqlite()).await;
    for signing in [Signing::WrongKey, Signing::StaleTimestamp, Signing::Unsigned, Signing::TamperedBody] {
        let order = CallOrder { signing: Some(signing), ..CallOrder::new(NUMBER, "+15550101234") };
        let caller = line.ring_as(order);
        let told = line.answered_to(&caller, "call.initiated").await;
        assert_eq!(told, Some(403), "{signing:?}");
        caller.phone.hang_up();
    }
    assert_eq!(line.house.calls().await.len(), 0);
    line.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_go_both_ways() {
    let line = Line::open(Place::sqlite()).await;
    let caller = line.ring();
    caller.greeted().await;
    caller.phone.press("1");
    caller.ask(QUESTION).await;
    caller.hang_up().await;
    let kept = line.house.kept(&caller.call).await;
    let log = line.house.get(&format!("/api/calls/{}/log", kept.id)).await;
    let pressed = log["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["input"].to_string().contains("dtmf"))
        .count();
    assert_eq!(pressed, 1, "{log}");
    line.close().await;
}
