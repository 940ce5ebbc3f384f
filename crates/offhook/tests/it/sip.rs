//! Calls over SIP with real telephones: answered, understood, interrupted, ended from either side, and kept.

use crate::house::{GREETING, House, Kept, LIMIT, Place};
use crate::line::words;
use crate::pbx::{PASSWORD, Pbx};
use crate::softphone::{Act, Softphone, Wire, free_port};
use offhook_sim::provider::{Reply, Rule, ToolCall};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::time::Instant;

const NUMBER: &str = "+15550100077";
const QUESTION: &str = "What are your opening hours today?";
const ANSWER: &str = "We are open from nine in the morning until five in the afternoon.";
const STORY: &str = "Our shop was founded ninety years ago by two sisters who sold bread and butter from a small wooden cart \
    near the old harbour before they rented the corner house where we still stand today.";
const FAREWELL: &str = "Thank you for calling, have a lovely day and goodbye.";

/// A caller who asks, is told a story, talks over it, and says goodbye. The pauses are as long as what the agent says in them.
const CALLER: [Act; 9] = [
    Act::Wait(4_000),
    Act::Say(QUESTION),
    Act::Wait(8_000),
    Act::Say("Tell me the story of your shop."),
    Act::Wait(5_000),
    Act::Say(QUESTION),
    Act::Wait(8_000),
    Act::Say("Alright, goodbye."),
    Act::Wait(20_000),
];

/// An installation that listens for SIP, with a trunk to the telephone and a number on it.
struct Line {
    house: House,
    at: SocketAddr,
}

impl Line {
    async fn open(wire: Wire, trunk: Value) -> Line {
        let (sip, rtp) = (free_port(), free_port());
        let at = SocketAddr::from(([127, 0, 0, 1], sip));
        let rtp = 40_000 + (rtp % 200) * 100;
        let mut place = Place::sqlite();
        let setting = match wire {
            Wire::Udp => "OFFHOOK_SIP_UDP",
            Wire::Tcp => "OFFHOOK_SIP_TCP",
            Wire::Tls => "OFFHOOK_SIP_TLS",
        };
        place.environment.push((setting, at.to_string()));
        place.environment.push(("OFFHOOK_SIP_RTP_PORTS", format!("{rtp}-{}", rtp + 99)));
        let house = House::open(place, json!({})).await;
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
        let connection = json!({ "kind": "sip", "name": "trunk", "secret": PASSWORD, "config": trunk });
        let connection = house.create("/api/connections", connection).await;
        let agent = house.item("/api/agents", |_| true).await["id"].clone();
        let number = json!({ "connection": connection["id"], "e164": NUMBER, "inbound_agent": agent });
        house.create("/api/phone-numbers", number).await;
        Line { house, at }
    }

    /// Waits until the log of the only call has told this.
    async fn until_facts(&self, what: &str, told: impl Fn(&[Value]) -> bool) {
        let deadline = Instant::now() + LIMIT;
        let mut facts = Vec::new();
        while !told(&facts) {
            assert!(Instant::now() < deadline, "{what}: {facts:?}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            if let [call] = self.house.calls().await.as_slice() {
                let log = self.house.get(&format!("/api/calls/{}/log", call["id"].as_str().unwrap())).await;
                facts =
                    log["events"].as_array().unwrap().iter().map(|event| event["input"].clone()).collect();
            }
        }
    }

    /// What is kept of the only call, once it is over.
    async fn kept(&self) -> Kept {
        let deadline = Instant::now() + LIMIT;
        loop {
            let calls = self.house.calls().await;
            if let [call] = calls.as_slice()
                && call["ended_reason"].is_string()
            {
                return self.house.kept_as(call["id"].as_str().unwrap()).await;
            }
            assert!(Instant::now() < deadline, "no call came to its end: {calls:?}; {}", self.house.log());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// A whole call: greeting heard, one turn answered, a story cut short by the caller, goodbye by the agent.
async fn a_whole_call(wire: Wire, codecs: &str, trunk: Value) {
    let line = Line::open(wire, trunk).await;
    let mut phone = Softphone::open(wire, codecs, &CALLER).await;
    phone.dial(NUMBER, line.at, wire).await;
    phone.until("Call established").await;
    phone.until_over().await;
    let kept = line.kept().await;
    is_the_whole_call(&phone, &kept);
    line.house.close().await;
}

fn is_the_whole_call(phone: &Softphone, kept: &Kept) {
    let heard = phone.heard_words().join(" ");
    for said in [GREETING, ANSWER, FAREWELL] {
        assert!(heard.contains(said), "`{said}` was not heard: {heard}");
    }
    assert_eq!(kept.ended_reason, "agent_hung_up", "{:?}", kept.lines);
    let asked = kept.of("member");
    assert_eq!(asked, [QUESTION, "Tell me the story of your shop.", QUESTION, "Alright, goodbye."]);
    let story = kept.of("agent").into_iter().find(|text| text.starts_with("Our shop")).unwrap_or_default();
    assert!(!story.is_empty() && story.len() < STORY.len(), "the story was not cut short: {story}");
    assert!(!words(&heard).contains(&"today.".to_owned()), "the story was told to its end: {heard}");
}

fn trunk() -> Value {
    json!({ "domain": "127.0.0.1", "allowed": ["127.0.0.1"], "options_s": 0 })
}

fn with(mut trunk: Value, more: Value) -> Value {
    trunk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    trunk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_on_a_udp_trunk_has_a_whole_call() {
    a_whole_call(Wire::Udp, "pcmu", trunk()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_on_a_tcp_trunk_speaks_a_law() {
    a_whole_call(Wire::Tcp, "pcma", with(trunk(), json!({ "transport": "tcp" }))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_on_a_tls_trunk_is_encrypted_both_ways() {
    a_whole_call(Wire::Tls, "pcmu", with(trunk(), json!({ "transport": "tls", "srtp": "required" }))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_of_a_pbx_calls_the_extension_that_we_registered() {
    let pbx = Pbx::start().await;
    let registrar = json!({
        "domain": "127.0.0.1", "port": pbx.address.port(), "register": true, "username": "77", "realm": "pbx",
        "options_s": 0, "numbers": [NUMBER],
    });
    let line = Line::open(Wire::Udp, registrar).await;
    pbx.until_registered("77").await;
    let mut phone = Softphone::open(Wire::Udp, "pcmu", &CALLER).await;
    phone.dial("77", pbx.address, Wire::Udp).await;
    phone.until("Call established").await;
    phone.until_over().await;
    is_the_whole_call(&phone, &line.kept().await);
    line.house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_on_a_trunk_presses_keys_and_hangs_up() {
    let line = Line::open(Wire::Udp, trunk()).await;
    let mut phone = Softphone::open(Wire::Udp, "pcmu", &[Act::Wait(60_000)]).await;
    phone.dial(NUMBER, line.at, Wire::Udp).await;
    phone.until("Call established").await;
    line.until_facts("the greeting was heard", |facts| {
        facts.iter().any(|fact| fact["is"] == "played" && fact["done"] == true)
    })
    .await;
    phone.press("42#").await;
    line.until_facts("three keys arrived, each once", |facts| {
        let keys: String = facts
            .iter()
            .filter(|fact| fact["is"] == "dtmf")
            .filter_map(|fact| fact["digit"].as_str())
            .collect();
        keys == "42#"
    })
    .await;
    phone.hang_up().await;
    phone.until_over().await;
    let kept = line.kept().await;
    assert_eq!(kept.ended_reason, "caller_hung_up");
    assert_eq!(kept.of("agent").first(), Some(&GREETING), "what is said to keys may follow");
    line.house.close().await;
}
