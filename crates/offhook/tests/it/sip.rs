//! Calls over SIP with real telephones: answered, understood, interrupted, ended from either side, and kept.

use crate::house::{GREETING, House, Kept, LIMIT, Place};
use crate::line::{spoken, words};
use crate::pbx::{PASSWORD, Pbx};
use crate::softphone::{Act, Softphone, Wire, free_port};
use offhook_media::coding::Coding;
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
    assert_eq!(kept.of("agent")[0], GREETING);
    line.house.close().await;
}

/// What sipp plays into its call: packets with their moments, as a capture that was never on a wire.
struct Capture {
    file: Vec<u8>,
    at_ms: u32,
    sequence: u16,
}

impl Capture {
    fn new() -> Capture {
        // A capture file of Ethernet frames, with times in µs.
        let head: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1];
        Capture { file: head.iter().flat_map(|word| word.to_le_bytes()).collect(), at_ms: 0, sequence: 1 }
    }

    /// Twenty ms of µ-law.
    fn audio(&mut self, mulaw: &[u8]) {
        self.rtp(0, self.at_ms * 8, false, mulaw);
        self.at_ms += 20;
    }

    /// A key of 100 ms and its three ends (RFC 4733).
    fn key(&mut self, event: u8) {
        let began = self.at_ms * 8;
        for frame in 1..=8_u16 {
            let (end, duration) = (frame > 5, frame.min(5) * 160);
            let [high, low] = duration.to_be_bytes();
            self.rtp(101, began, frame == 1, &[event, if end { 0x8a } else { 0x0a }, high, low]);
            self.at_ms += 20;
        }
    }

    fn rtp(&mut self, payload_type: u8, timestamp: u32, marker: bool, payload: &[u8]) {
        let mut packet = vec![0x80, payload_type | if marker { 0x80 } else { 0 }];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(0x0ff4_00c4_u32.to_be_bytes());
        packet.extend(payload);
        self.sequence += 1;
        let udp_length = 8 + packet.len() as u16;
        let mut frame = [[0; 12].as_slice(), &[8, 0]].concat();
        frame.extend([0x45, 0]);
        frame.extend((20 + udp_length).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
        frame.extend([40_000_u16, 40_002, udp_length, 0].iter().flat_map(|word| word.to_be_bytes()));
        frame.extend(packet);
        let length = frame.len() as u32;
        let head = [self.at_ms / 1_000, self.at_ms % 1_000 * 1_000, length, length];
        self.file.extend(head.iter().flat_map(|word| word.to_le_bytes()));
        self.file.extend(frame);
    }

    fn speech(&mut self, samples: &[i16]) {
        let mut mulaw = Vec::new();
        Coding::MU_LAW.encode(samples, &mut mulaw);
        mulaw.chunks_exact(160).for_each(|frame| self.audio(frame));
    }

    fn silence(&mut self, ms: usize) {
        self.speech(&vec![0; ms * 8]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sipp_on_a_trunk_asks_presses_keys_and_hangs_up() {
    let line = Line::open(Wire::Udp, trunk()).await;
    let folder = tempfile::tempdir().unwrap();
    let mut capture = Capture::new();
    capture.silence(4_000);
    capture.speech(&spoken(QUESTION));
    capture.silence(6_500);
    for event in [1, 2, 11] {
        capture.key(event);
        capture.silence(200);
    }
    capture.silence(1_500);
    std::fs::write(folder.path().join("caller.pcap"), &capture.file).unwrap();
    let scenario = include_str!("../sipp/caller.xml")
        .replace("[rtpstream_audio_port]", "[media_port]")
        .replace("rtp_stream=\"speech.ul,-1,0,PCMU/8000\"", "play_pcap_audio=\"caller.pcap\"");
    std::fs::write(folder.path().join("caller.xml"), scenario).unwrap();
    let lasts_ms = (capture.at_ms + 500).to_string();
    let sipp = tokio::process::Command::new("sipp")
        .arg(line.at.to_string())
        .args([
            "-sf",
            "caller.xml",
            "-s",
            NUMBER,
            "-i",
            "127.0.0.1",
            "-mi",
            "127.0.0.1",
            "-m",
            "1",
            "-nostdin",
        ])
        .args(["-p", &free_port().to_string(), "-mp", &free_port().to_string(), "-d", &lasts_ms])
        .current_dir(folder.path())
        .output();
    let sipp = tokio::time::timeout(LIMIT, sipp)
        .await
        .expect("sipp ends")
        .expect("sipp runs: `make setup` installs it");
    assert!(sipp.status.success(), "{}", String::from_utf8_lossy(&sipp.stdout));
    let kept = line.kept().await;
    assert_eq!(kept.ended_reason, "caller_hung_up");
    assert_eq!(kept.of("agent")[..2], [GREETING, ANSWER]);
    assert_eq!(kept.of("member")[0], QUESTION);
    line.until_facts("three keys arrived, each once", |facts| {
        let keys: String = facts
            .iter()
            .filter(|fact| fact["is"] == "dtmf")
            .filter_map(|fact| fact["digit"].as_str())
            .collect();
        keys == "12#"
    })
    .await;
    line.house.close().await;
}
