//! Calls as they should be: answered, understood, interrupted, ended, kept, and run again.

use crate::house::{GREETING, House, Place};
use crate::line::words;
use offhook_sim::carrier::twilio::AfterLoss;
use offhook_sim::provider::{Record, Reply, Rule, Service, ToolCall};
use serde_json::{Value, json};

on_both!(
    a_signed_call_is_answered_understood_and_hung_up,
    talking_over_the_agent_cuts_the_transcript,
    goodbye_is_never_clipped,
    ten_kinds_of_calls_replay_as_they_went,
);

const QUESTION: &str = "What are your opening hours today?";
const ANSWER: &str = "We are open from nine in the morning until five in the afternoon.";
const STORY: &str = "Our shop was founded ninety years ago by two sisters who sold bread and butter from a small wooden cart \
    near the old harbour before they rented the corner house where we still stand today.";
const FAREWELL: &str = "Thank you for calling, have a lovely day and goodbye.";

/// A model that answers what the callers here say.
fn teach(house: &House) {
    house.first.program(|program| {
        program.rules = vec![
            Rule::text("opening", ANSWER),
            Rule::text("story", STORY),
            Rule::tool("message", "take_message", json!({ "name": "Ada", "message": "Call me back" })),
            farewell("goodbye"),
        ];
    });
}

fn farewell(contains: &str) -> Rule {
    let end = ToolCall { name: "end_call".into(), arguments: json!({}) };
    Rule { contains: contains.into(), reply: Reply::ToolCalls { text: FAREWELL.into(), calls: vec![end] } }
}

/// The messages that the model was shown by each request.
fn shown(records: &[Record]) -> Vec<Vec<Value>> {
    let asked = records.iter().filter(|record| record.service == Service::Chat);
    asked.map(|record| record.body["messages"].as_array().cloned().unwrap_or_default()).collect()
}

async fn a_signed_call_is_answered_understood_and_hung_up(place: Place) {
    let house = House::open(place, json!({})).await;
    teach(&house);
    let caller = house.ring();
    caller.greeted().await;
    assert_eq!(caller.heard(), words(GREETING));
    caller.ask(QUESTION).await;
    caller.hang_up().await;

    assert_eq!(caller.heard(), words(&format!("{GREETING} {ANSWER}")));
    let kept = house.kept(&caller.call).await;
    assert_eq!(kept.ended_reason, "caller_hung_up");
    let line = |role: &str, text: &str| (role.to_owned(), text.to_owned());
    assert_eq!(kept.lines, [line("agent", GREETING), line("member", QUESTION), line("agent", ANSWER)]);
    assert_eq!(kept.record["from"], caller.call.from());
    assert_eq!(kept.record["turns"].as_array().map(Vec::len), Some(1));
    assert_eq!(house.carrier.alerts(), []);
    house.close().await;
}

async fn talking_over_the_agent_cuts_the_transcript(place: Place) {
    let house = House::open(place, json!({})).await;
    teach(&house);
    let caller = house.ring();
    caller.greeted().await;
    caller.say("Tell me the story of your shop.").await;
    let asked_ms = caller.phone.caller_last_sound_ms().unwrap();
    caller
        .until("the agent is in the middle of its story", |phone| {
            phone.agent_last_sound_ms() > Some(asked_ms) && phone.agent_sounding_ms() >= Some(3_000)
        })
        .await;
    caller.ask(QUESTION).await;
    caller.hang_up().await;

    assert!(caller.clears() > 0, "{:?}", caller.phone.history());
    let heard = caller.heard();
    let (greeting, story, answer) = (words(GREETING), words(STORY), words(ANSWER));
    assert!(heard.starts_with(&greeting) && heard.ends_with(&answer), "{heard:?}");
    let of_story = &heard[greeting.len()..heard.len() - answer.len()];
    assert!(of_story.len() < story.len(), "the story was cut: {of_story:?}");

    let kept = house.kept(&caller.call).await;
    let agent = kept.of("agent");
    assert_eq!((agent.len(), agent[0], agent[2]), (3, GREETING, ANSWER), "{agent:?}");
    let claimed = words(agent[1]);
    // The last word may have been heard in part.
    let whole = claimed.len().saturating_sub(1);
    assert!(
        claimed.len() <= of_story.len() && claimed[..whole] == of_story[..whole],
        "{claimed:?} {of_story:?}"
    );
    assert!(
        claimed.len() * 2 > of_story.len(),
        "most of what was heard is claimed: {claimed:?} {of_story:?}"
    );
    assert_eq!(kept.of("member"), ["Tell me the story of your shop.", QUESTION]);

    let requests = shown(&house.first.records());
    let last = requests.last().unwrap();
    let by_agent: Vec<&str> =
        last.iter().filter(|m| m["role"] == "assistant").filter_map(|m| m["content"].as_str()).collect();
    assert_eq!(by_agent.len(), 2, "{last:?}");
    let shown = words(by_agent[1]);
    let whole = shown.len().saturating_sub(1);
    assert!(
        shown.len() <= of_story.len() + 1 && shown[..whole] == of_story[..whole],
        "{shown:?} {of_story:?}"
    );
    house.close().await;
}

async fn goodbye_is_never_clipped(place: Place) {
    let house = House::open(place, json!({})).await;
    teach(&house);
    let caller = house.ring();
    caller.greeted().await;
    caller.say("That was all, goodbye.").await;
    caller.until_hung_up_on().await;

    assert_eq!(caller.heard(), words(&format!("{GREETING} {FAREWELL}")));
    let kept = house.kept(&caller.call).await;
    assert_eq!((kept.ended_reason.as_str(), kept.of("agent")), ("agent_hung_up", vec![GREETING, FAREWELL]));
    assert_eq!(house.carrier.alerts(), []);
    house.close().await;
}

async fn ten_kinds_of_calls_replay_as_they_went(place: Place) {
    let house = House::open(place, json!({})).await;
    teach(&house);
    let callers: Vec<_> = (0..10).map(|_| house.ring()).collect();
    let lives = callers.iter().enumerate().map(|(kind, caller)| async move {
        match kind {
            0 => caller.until("it is answered", |phone| phone.agent_sounding_ms().is_some()).await,
            1 => caller.greeted().await,
            2 => caller.say("I talk over your greeting.").await,
            3 => {
                caller.greeted().await;
                caller.phone.press("42#");
                caller.until_answered_since(caller.phone.now_ms()).await;
            }
            4 => {
                caller.greeted().await;
                caller.ask("Please take a message.").await;
            }
            5 => {
                caller.greeted().await;
                caller.say("That was all, goodbye.").await;
                return caller.until_hung_up_on().await;
            }
            6 => {
                caller.greeted().await;
                caller.say("Tell me the story of your shop.").await;
                let from_ms = caller.phone.now_ms();
                caller.until("it tells", |p| p.agent_last_sound_ms() > Some(from_ms + 1_500)).await;
                caller.ask(QUESTION).await;
            }
            7 => {
                caller.greeted().await;
                caller.call.lose_socket(AfterLoss::Action).unwrap();
                caller.ask(QUESTION).await;
            }
            _ => {
                caller.greeted().await;
                caller.ask(QUESTION).await;
                caller.ask("And what about the day after?").await;
            }
        }
        caller.hang_up().await;
    });
    futures_util::future::join_all(lives).await;
    for (kind, caller) in callers.iter().enumerate() {
        let kept = house.kept(&caller.call).await;
        let (status, said) = house.offhook(&["replay", &kept.id]).await;
        assert!(status.success() && said.contains("identical"), "kind {kind}: {said}");
        for (_, text) in &kept.lines {
            assert!(said.contains(text.as_str()), "kind {kind}: {text} is not in {said}");
        }
    }
    house.close().await;
}
