//! Adapters against simulated providers that do nothing wrong: every manner of a chat stream, and replies that follow each other.

use crate::server::{next, patient, settings, soon};
use offhook_core::{ChatMessage, Language, Secret, ToolRequest, ToolSpec};
use offhook_media::g711::Law;
use offhook_providers::{LlmEvent, LlmRequest, ProviderSettings, TtsCommand, TtsEvent, TtsOptions, llm, tts};
use offhook_sim::provider::{
    Dialect, Program, ProviderSim, ProviderSimSettings, Reply, Rule, ToolCall, heard_words,
};
use serde_json::json;
use std::sync::Arc;

#[tokio::test]
async fn reply_is_the_same_in_every_dialect() {
    let plain = Dialect::default;
    let all = Dialect {
        split_bytes: Some(3),
        missing_index: true,
        whole_tool_call: true,
        usage_on_every_chunk: true,
        crlf: true,
        comments: true,
        stop_with_tool_calls: true,
        reasoning_content: true,
        obfuscation: true,
        no_done: true,
    };
    let dialects = [
        plain(),
        Dialect { split_bytes: Some(2), ..plain() },
        Dialect { missing_index: true, ..plain() },
        Dialect { whole_tool_call: true, ..plain() },
        Dialect { usage_on_every_chunk: true, ..plain() },
        Dialect { crlf: true, comments: true, ..plain() },
        Dialect { stop_with_tool_calls: true, no_done: true, ..plain() },
        Dialect { reasoning_content: true, obfuscation: true, ..plain() },
        all,
    ];
    for dialect in dialects {
        let calls = ["find_slots", "find_table"].map(|name| ToolCall {
            name: name.into(),
            arguments: json!({ "day": "Grüß Gott", "people": 2 }),
        });
        let reply = Reply::ToolCalls { text: "Zoë, one moment — please.".into(), calls: calls.into() };
        let rules = vec![Rule { contains: String::new(), reply }];
        let sim = start(Program { rules, dialect: dialect.clone(), ..Program::default() }).await;
        let spec = |name: &str| ToolSpec {
            name: name.into(),
            description: "Finds what is free.".into(),
            parameters: r#"{"type":"object","properties":{}}"#.into(),
        };
        let request = LlmRequest {
            messages: Arc::new([ChatMessage::User { text: "Hello?".into() }]),
            tools: Arc::new([spec("find_slots"), spec("find_table")]),
            max_tokens: 100,
            temperature_centi: Some(40),
        };
        let settings = patient(settings("openai", &format!("{}/v1", sim.base_url)));
        let mut reply = llm(&settings, key()).unwrap().ask(request);
        let (mut text, mut tools, mut is_counted) = (String::new(), Vec::new(), false);
        while let Some(event) = soon("the reply's end", reply.events.recv()).await {
            match event {
                LlmEvent::Token(token) => text.push_str(&token),
                LlmEvent::Tool(tool) => tools.push(tool),
                LlmEvent::Done { usage, cut_off } => is_counted = usage.is_some() && !cut_off,
                LlmEvent::Failed(error) => panic!("{dialect:?}: {error}"),
            }
        }
        let arguments = json!({ "day": "Grüß Gott", "people": 2 }).to_string();
        let called = |id: &str, name: &str| ToolRequest {
            id: id.into(),
            name: name.into(),
            arguments: arguments.clone(),
        };
        assert_eq!(text, "Zoë, one moment — please.", "{dialect:?}");
        assert_eq!(tools, [called("call_1", "find_slots"), called("call_2", "find_table")], "{dialect:?}");
        assert!(is_counted, "{dialect:?}");
        assert_eq!(oddities(&sim), [] as [String; 0]);
    }
}

#[tokio::test]
async fn reply_that_follows_a_cancelled_one_is_heard_alone_and_whole() {
    for kind in ["openai", "deepgram", "elevenlabs", "cartesia"] {
        let mut program = Program::default();
        program.voice.times_real_time = 10.0;
        program.voice.late_chunks = 3;
        let sim = start(program).await;
        let base_url = if kind == "openai" { format!("{}/v1", sim.base_url) } else { sim.base_url.clone() };
        let mut voice = open(&patient(settings(kind, &base_url)));
        let commands = voice.commands.clone();
        let say = async |command| soon("room for a command", commands.send(command)).await.unwrap();
        let speak = |context, text: &str| TtsCommand::Speak { context, text: text.into() };
        say(speak(1, "There is a great deal to be said about this, and it takes a while. ")).await;
        while !matches!(next(&mut voice.events).await, TtsEvent::Audio { context: 1, .. }) {}
        say(TtsCommand::Cancel { context: 1 }).await;
        for clause in ["Yes, we ", "have one. ", "At seven or at eight?"] {
            say(speak(2, clause)).await;
        }
        say(TtsCommand::Finish { context: 2 }).await;
        let (mut mulaw, mut spoken_bytes) = (Vec::new(), 0);
        loop {
            match next(&mut voice.events).await {
                // What had been reported when the reply was cancelled.
                TtsEvent::Audio { context: 1, .. } | TtsEvent::Aligned { context: 1, .. } => {
                    assert!(mulaw.is_empty(), "{kind}");
                }
                TtsEvent::Audio { context: 2, audio } => mulaw.extend_from_slice(&audio),
                TtsEvent::Aligned { context: 2, anchors } => spoken_bytes = anchors.last().unwrap().bytes,
                TtsEvent::Done { context: 2 } => break,
                other => panic!("{kind}: {other:?}"),
            }
        }
        let mut pcm = Vec::new();
        Law::Mu.decode(&mulaw, &mut pcm);
        let heard: Vec<String> = heard_words(&pcm).into_iter().map(|word| word.word).collect();
        assert_eq!(heard.join(" "), "Yes, we have one. At seven or at eight?", "{kind}");
        assert_eq!(spoken_bytes as usize, "Yes, we have one. At seven or at eight?".len(), "{kind}");
        assert_eq!(oddities(&sim), [] as [String; 0], "{kind}");
    }
}

async fn start(program: Program) -> ProviderSim {
    ProviderSim::start(ProviderSimSettings { program, ..ProviderSimSettings::default() }).await.unwrap()
}

fn open(settings: &ProviderSettings) -> offhook_providers::TtsSession {
    tts(settings, key()).unwrap().open(TtsOptions { language: Language::english() })
}

fn oddities(sim: &ProviderSim) -> Vec<String> {
    sim.records().into_iter().flat_map(|record| record.oddities).collect()
}

fn key() -> Secret<String> {
    Secret::new("key".into())
}
