//! Cartesia voices: what is asked, how audio finds its reply, and what is dropped.

use crate::server::{Server, Socket, next, patient, settings, settings_with};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use offhook_core::call::Anchor;
use offhook_core::{Language, Secret};
use offhook_providers::{Cause, ProviderSettings, TtsCommand, TtsEvent, TtsOptions, TtsSession, tts};
use serde_json::{Value, json};

#[tokio::test]
async fn clauses_of_a_reply_are_one_context_from_first_to_done() {
    let (mut voice, mut provider) = call().await;
    assert_eq!(provider.uri, "/tts/websocket");
    assert_eq!(provider.headers["x-api-key"], "key");
    assert_eq!(provider.headers["cartesia-version"], "2025-04-16");

    speak(&voice, 7, "Sure, we have ").await;
    speak(&voice, 7, "a table. ").await;
    say(&voice, TtsCommand::Finish { context: 7 }).await;
    let first = provider.json().await;
    assert_eq!(
        first,
        json!({
            "model_id": "sonic-3", "transcript": "Sure, we have ", "language": "en", "context_id": "7-0", "continue": true,
            "voice": { "mode": "id", "id": "694f9389-aac1-45b6-b726-9d9369183238" },
            "output_format": { "container": "raw", "encoding": "pcm_mulaw", "sample_rate": 8000 },
            "add_timestamps": true, "max_buffer_delay_ms": 0,
        })
    );
    assert_eq!(provider.json().await["transcript"], "a table. ");
    let last = provider.json().await;
    assert_eq!((&last["transcript"], &last["continue"]), (&json!(""), &json!(false)));

    provider.say(words("7-0", &["Sure,", "we", "have"], &[0.3, 0.5, 0.7])).await;
    provider.say(chunk("7-0", &[1; 8_000])).await;
    provider.say(words("7-0", &["a", "table."], &[0.9, 1.2])).await;
    provider.say(chunk("7-0", &[2; 2_000])).await;
    provider
        .say(json!({ "type": "flush_done", "context_id": "7-0", "flush_id": 1, "flush_done": true }))
        .await;
    provider.say(json!({ "type": "done", "context_id": "7-0", "done": true, "status_code": 200 })).await;
    let at = |ms, bytes| Anchor { ms, bytes };
    assert_eq!(
        next(&mut voice.events).await,
        TtsEvent::Aligned { context: 7, anchors: vec![at(300, 5), at(500, 8), at(700, 13)] }
    );
    assert_eq!(next(&mut voice.events).await, TtsEvent::Audio { context: 7, audio: vec![1; 8_000].into() });
    assert_eq!(
        next(&mut voice.events).await,
        TtsEvent::Aligned { context: 7, anchors: vec![at(900, 15), at(1_200, 22)] }
    );
    assert_eq!(next(&mut voice.events).await, TtsEvent::Audio { context: 7, audio: vec![2; 2_000].into() });
    assert_eq!(next(&mut voice.events).await, TtsEvent::Aligned { context: 7, anchors: vec![at(1_250, 23)] });
    assert_eq!(next(&mut voice.events).await, TtsEvent::Done { context: 7 });
}

#[tokio::test]
async fn late_audio_of_a_cancelled_reply_is_dropped() {
    let (mut voice, mut provider) = call().await;
    speak(&voice, 1, "One. ").await;
    provider.json().await;
    say(&voice, TtsCommand::Cancel { context: 1 }).await;
    assert_eq!(provider.json().await, json!({ "context_id": "1-0", "cancel": true }));
    speak(&voice, 1, "Not again. ").await;
    speak(&voice, 2, "Two. ").await;
    assert_eq!(provider.json().await["context_id"], "2-0", "a dead reply is not spoken again");
    provider.say(chunk("1-0", &[1; 80])).await;
    provider.say(json!({ "type": "error", "context_id": "1-0", "status_code": 400, "done": true, "error": "gone" })).await;
    provider.say(json!({ "type": "done", "context_id": "1-0", "done": true })).await;
    provider.say(chunk("9-0", &[9; 80])).await;
    provider.say(chunk("nonsense", &[9; 80])).await;
    provider.say(chunk("2-0", &[2; 80])).await;
    assert_eq!(next(&mut voice.events).await, TtsEvent::Audio { context: 2, audio: vec![2; 80].into() });
}

#[tokio::test]
async fn context_that_ends_before_its_reply_is_followed_by_another() {
    let (mut voice, mut provider) = call().await;
    speak(&voice, 1, "One moment. ").await;
    assert_eq!(provider.json().await["context_id"], "1-0");
    provider.say(chunk("1-0", &[1; 800])).await;
    provider.say(json!({ "type": "done", "context_id": "1-0", "done": true })).await;
    assert!(matches!(next(&mut voice.events).await, TtsEvent::Audio { context: 1, .. }));
    let anchors = vec![Anchor { ms: 100, bytes: 12 }];
    assert_eq!(next(&mut voice.events).await, TtsEvent::Aligned { context: 1, anchors });
    // The socket is one line: an answer to what was said later proves that `done` was read.
    speak(&voice, 2, "Marker. ").await;
    provider.json().await;
    provider.say(chunk("2-0", &[0; 8])).await;
    assert!(matches!(next(&mut voice.events).await, TtsEvent::Audio { context: 2, .. }));

    speak(&voice, 1, "Here it is. ").await;
    assert_eq!(provider.json().await["context_id"], "1-1");
    provider.say(words("1-1", &["Here"], &[0.2])).await;
    let anchors = vec![Anchor { ms: 300, bytes: 16 }];
    assert_eq!(
        next(&mut voice.events).await,
        TtsEvent::Aligned { context: 1, anchors },
        "times go on, not back"
    );
}

#[tokio::test]
async fn broken_answers_cost_one_reply_or_the_session() {
    let (mut voice, mut provider) = call().await;
    for context in 1..=3 {
        speak(&voice, context, "Hello. ").await;
        provider.json().await;
    }
    let mut bad = chunk("1-0", &[]);
    bad["data"] = json!("not base64!");
    provider.say(bad).await;
    assert_eq!(failed(&mut voice).await, (Some(1), Cause::Malformed));
    provider.say(json!({ "type": "error", "context_id": "2-0", "status_code": 429, "error": "too many contexts in flight" })).await;
    assert_eq!(failed(&mut voice).await, (Some(2), Cause::RateLimited));
    provider.say(json!({ "type": "poem", "context_id": "3-0" })).await;
    provider.say(json!({ "type": "chunk", "context_id": "3-0", "data": null })).await;
    provider.say_text("{\"type\":\"chunk\",").await;
    assert_eq!(failed(&mut voice).await, (None, Cause::Malformed));
    assert_eq!(voice.events.recv().await, None, "a dead session ends");
}

#[tokio::test]
async fn audio_that_does_not_end_is_ended() {
    let (mut voice, mut provider) = call().await;
    speak(&voice, 1, "Hello. ").await;
    provider.json().await;
    let endless = chunk("1-0", &vec![0; 500_000]);
    let heard = async {
        loop {
            if let TtsEvent::Failed { context, error } = next(&mut voice.events).await {
                return (context, error.cause);
            }
        }
    };
    let flood = async {
        for _ in 0..12 {
            provider.say(endless.clone()).await;
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        failure = heard => assert_eq!(failure, (Some(1), Cause::Malformed)),
        () = flood => {}
    }
}

#[tokio::test]
async fn cancel_is_sent_though_nobody_takes_the_audio() {
    let (voice, mut provider) = call().await;
    speak(&voice, 1, "Hello. ").await;
    provider.json().await;
    for _ in 0..2 * offhook_providers::SESSION_QUEUE {
        provider.say(chunk("1-0", &[0; 160])).await;
    }
    say(&voice, TtsCommand::Cancel { context: 1 }).await;
    assert_eq!(provider.json().await["cancel"], true);
}

#[tokio::test]
async fn reply_without_words_is_done_at_once() {
    let (mut voice, _provider) = call().await;
    say(&voice, TtsCommand::Finish { context: 4 }).await;
    assert_eq!(next(&mut voice.events).await, TtsEvent::Done { context: 4 });
}

#[tokio::test]
async fn settings_change_what_is_asked() {
    let server = Server::start().await;
    let options = json!({ "generation_config": { "speed": 1.2 }, "max_buffer_delay_ms": null });
    let voice = open(&settings_with("cartesia", &server.url, options));
    let mut provider = server.socket().await;
    speak(&voice, 1, "Hello. ").await;
    let asked = provider.json().await;
    assert_eq!(asked["generation_config"]["speed"], 1.2);
    assert_eq!(asked.get("max_buffer_delay_ms"), None);
}

async fn call() -> (TtsSession, Socket) {
    let server = Server::start().await;
    let mut voice = open(&patient(settings("cartesia", &server.url)));
    let provider = server.socket().await;
    assert_eq!(next(&mut voice.events).await, TtsEvent::Opened);
    (voice, provider)
}

fn open(settings: &ProviderSettings) -> TtsSession {
    tts(settings, Secret::new("key".into())).unwrap().open(TtsOptions { language: Language::english() })
}

async fn speak(voice: &TtsSession, context: u32, text: &str) {
    say(voice, TtsCommand::Speak { context, text: text.into() }).await;
}

async fn say(voice: &TtsSession, command: TtsCommand) {
    voice.commands.send(command).await.unwrap();
}

async fn failed(voice: &mut TtsSession) -> (Option<u32>, Cause) {
    match next(&mut voice.events).await {
        TtsEvent::Failed { context, error } => (context, error.cause),
        other => panic!("no failure: {other:?}"),
    }
}

fn chunk(context: &str, audio: &[u8]) -> Value {
    json!({ "type": "chunk", "context_id": context, "data": BASE64.encode(audio), "done": false, "status_code": 206, "step_time": 12.3 })
}

fn words(context: &str, words: &[&str], ends: &[f64]) -> Value {
    let starts: Vec<f64> = ends.iter().map(|end| end - 0.1).collect();
    json!({ "type": "timestamps", "context_id": context, "done": false, "status_code": 206,
        "word_timestamps": { "words": words, "start": starts, "end": ends } })
}
