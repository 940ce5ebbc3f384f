//! ElevenLabs voices: what is asked, both spellings of its names, and characters that become words.

use crate::server::{Server, Socket, next, patient, settings_with};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use offhook_core::call::Anchor;
use offhook_core::{Language, Secret};
use offhook_providers::{Cause, TtsCommand, TtsEvent, TtsOptions, TtsSession, tts};
use serde_json::{Value, json};

#[tokio::test]
async fn reply_is_asked_clause_by_clause_and_aligned_by_character() {
    let (mut voice, mut provider) = call().await;
    assert!(
        provider.uri.starts_with("/v1/text-to-speech/JBFqnCBsd6RMkjVDRZzb/multi-stream-input?"),
        "{}",
        provider.uri
    );
    assert_eq!(provider.headers["xi-api-key"], "key");
    for (name, value) in [
        ("output_format", "ulaw_8000"),
        ("model_id", "eleven_flash_v2_5"),
        ("auto_mode", "true"),
        ("seed", "4"),
    ] {
        assert_eq!(provider.query(name), [value], "{name}");
    }
    assert!(provider.query("voice_settings").is_empty());

    speak(&voice, 7, "Sure, we").await;
    speak(&voice, 7, " do. ").await;
    say(&voice, TtsCommand::Finish { context: 7 }).await;
    assert_eq!(
        provider.json().await,
        json!({ "context_id": "7-0", "text": " ", "voice_settings": { "stability": 0.5 } })
    );
    assert_eq!(provider.json().await, json!({ "context_id": "7-0", "text": "Sure, we ", "flush": true }));
    assert_eq!(provider.json().await, json!({ "context_id": "7-0", "text": " do. " }));
    assert_eq!(provider.json().await, json!({ "context_id": "7-0", "flush": true }));
    assert_eq!(provider.json().await, json!({ "context_id": "7-0", "close_context": true }));

    provider.say(audio("contextId", "7-0", &[1; 800], " Sure, we ")).await;
    let at = |ms, bytes| Anchor { ms, bytes };
    assert_eq!(
        next(&mut voice.events).await,
        TtsEvent::Aligned { context: 7, anchors: vec![at(60, 5), at(90, 8)] }
    );
    assert_eq!(next(&mut voice.events).await, TtsEvent::Audio { context: 7, audio: vec![1; 800].into() });
    provider.say(audio("context_id", "7-0", &[2; 400], "do. ")).await;
    assert_eq!(next(&mut voice.events).await, TtsEvent::Aligned { context: 7, anchors: vec![at(130, 12)] });
    assert_eq!(next(&mut voice.events).await, TtsEvent::Audio { context: 7, audio: vec![2; 400].into() });
    provider.say(json!({ "contextId": "7-0", "isFinal": true, "audio": null })).await;
    assert_eq!(next(&mut voice.events).await, TtsEvent::Aligned { context: 7, anchors: vec![at(150, 13)] });
    assert_eq!(next(&mut voice.events).await, TtsEvent::Done { context: 7 });
}

#[tokio::test]
async fn the_end_is_understood_in_both_spellings() {
    for end in [
        json!({ "context_id": "1-0", "is_final": true }),
        json!({ "contextId": "1-0", "isFinal": true, "is_final": true }),
    ] {
        let (mut voice, mut provider) = call().await;
        speak(&voice, 1, "Hi. ").await;
        say(&voice, TtsCommand::Finish { context: 1 }).await;
        for _ in 0..4 {
            provider.json().await;
        }
        provider.say(audio("contextId", "1-0", &[1; 80], "")).await;
        provider.say(end).await;
        assert!(matches!(next(&mut voice.events).await, TtsEvent::Audio { .. }));
        assert!(matches!(next(&mut voice.events).await, TtsEvent::Aligned { .. }));
        assert_eq!(next(&mut voice.events).await, TtsEvent::Done { context: 1 });
    }
}

#[tokio::test]
async fn cancelled_reply_is_closed_and_its_late_audio_dropped() {
    let (mut voice, mut provider) = call().await;
    speak(&voice, 1, "One. ").await;
    provider.json().await;
    provider.json().await;
    say(&voice, TtsCommand::Cancel { context: 1 }).await;
    assert_eq!(provider.json().await, json!({ "context_id": "1-0", "close_context": true }));
    speak(&voice, 2, "Two. ").await;
    provider.say(audio("contextId", "1-0", &[1; 80], "One.")).await;
    provider.say(json!({ "contextId": "1-0", "isFinal": true })).await;
    provider.say(audio("contextId", "2-0", &[2; 80], "")).await;
    assert_eq!(provider.json().await["context_id"], "2-0");
    assert_eq!(next(&mut voice.events).await, TtsEvent::Audio { context: 2, audio: vec![2; 80].into() });
}

#[tokio::test]
async fn errors_end_what_they_are_about() {
    let (mut voice, mut provider) = call().await;
    speak(&voice, 1, "One. ").await;
    provider.json().await;
    provider.say(json!({ "contextId": "1-0", "error": "quota_exceeded", "message": "x" })).await;
    assert!(
        matches!(next(&mut voice.events).await, TtsEvent::Failed { context: Some(1), error } if error.cause == Cause::Credit)
    );
    provider.say(json!({ "error": "invalid_api_key", "message": "x", "code": 1008 })).await;
    assert!(
        matches!(next(&mut voice.events).await, TtsEvent::Failed { context: None, error } if error.cause == Cause::Key)
    );
}

async fn call() -> (TtsSession, Socket) {
    let server = Server::start().await;
    let options = json!({ "voice_settings": { "stability": 0.5 }, "seed": 4 });
    let settings = patient(settings_with("elevenlabs", &server.url, options));
    let voice = tts(&settings, Secret::new("key".into())).unwrap();
    let mut session = voice.open(TtsOptions { language: Language::english() });
    let provider = server.socket().await;
    assert_eq!(next(&mut session.events).await, TtsEvent::Opened);
    (session, provider)
}

async fn speak(voice: &TtsSession, context: u32, text: &str) {
    say(voice, TtsCommand::Speak { context, text: text.into() }).await;
}

async fn say(voice: &TtsSession, command: TtsCommand) {
    voice.commands.send(command).await.unwrap();
}

/// Audio in which each character takes 10 ms.
fn audio(spelling: &str, context: &str, audio: &[u8], text: &str) -> Value {
    let chars: Vec<String> = text.chars().map(String::from).collect();
    let starts: Vec<usize> = (0..chars.len()).map(|i| 10 * i).collect();
    let alignment =
        json!({ "chars": chars, "charStartTimesMs": starts, "charDurationsMs": vec![10; chars.len()] });
    json!({ spelling: context, "audio": BASE64.encode(audio), "isFinal": null, "alignment": alignment, "normalizedAlignment": null })
}
