//! Deepgram: live transcription, Flux turns, Aura voices.

use crate::server::{Server, Socket, next, patient, settings, settings_with, soon};
use offhook_core::call::Anchor;
use offhook_core::{Language, Secret};
use offhook_providers::{
    AudioFormat, Cause, SttCommand, SttEvent, SttOptions, SttSession, TtsCommand, TtsEvent, TtsOptions,
    TtsSession, stt, tts,
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn live_transcription_is_asked_for_as_telephone_audio() {
    let (ear, mut provider) = listen("deepgram", json!({ "mip_opt_out": true })).await;
    assert!(provider.uri.starts_with("/v1/listen?"), "{}", provider.uri);
    assert_eq!(provider.headers["authorization"], "Token key");
    let asked = [
        ("model", "nova-3"),
        ("encoding", "mulaw"),
        ("sample_rate", "8000"),
        ("language", "en-US"),
        ("interim_results", "true"),
        ("endpointing", "300"),
        ("utterance_end_ms", "1000"),
        ("smart_format", "true"),
        ("punctuate", "true"),
        ("mip_opt_out", "true"),
    ];
    for (name, value) in asked {
        assert_eq!(provider.query(name), [value], "{name}");
    }
    assert_eq!(provider.query("keyterm"), ["Offhook", "Zoë & Co"]);
    assert!(provider.query("vad_events").is_empty());

    let audio = [
        SttCommand::Audio(vec![1; 160].into()),
        SttCommand::Audio(Vec::new().into()),
        SttCommand::Audio(vec![2; 160].into()),
    ];
    for command in audio {
        ear.commands.send(command).await.unwrap();
    }
    ear.commands.send(SttCommand::Context(std::sync::Arc::new([]))).await.unwrap();
    ear.commands.send(SttCommand::Finalize).await.unwrap();
    assert_eq!(provider.audio().await, [1; 160]);
    assert_eq!(provider.audio().await, [2; 160], "an empty frame would have ended the stream");
    assert_eq!(provider.json().await, json!({ "type": "Finalize" }));
    drop(ear);
    assert_eq!(provider.closed().await, [r#"{"type":"CloseStream"}"#]);
}

#[tokio::test]
async fn segments_become_interims_finals_and_ends() {
    let (mut ear, mut provider) = listen("deepgram", Value::Null).await;
    provider.say(results("", 0.0, "")).await;
    provider.say(results("table", 1.0, "")).await;
    provider.say(results("", 1.0, "is_final")).await;
    provider.say(results("Table for two", 1.0, "is_final")).await;
    provider.say(json!({ "type": "SpeechStarted", "channel": [0, 1], "timestamp": 9.54 })).await;
    provider.say(results("tonight.", 2.0, "is_final speech_final")).await;
    provider.say(json!({ "type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 2.5 })).await;
    provider.say(results("", 3.0, "is_final speech_final")).await;
    provider.say(results("Hello?", 4.0, "is_final")).await;
    provider.say(json!({ "type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 4.5 })).await;
    provider.say(results("", 5.0, "is_final from_finalize")).await;
    provider.say(json!({ "type": "Metadata", "request_id": "x", "channels": 1 })).await;
    let interim =
        |text: &str, start_ms| SttEvent::Interim { text: text.into(), start_ms, end_ms: start_ms + 500 };
    let last = |text: &str, start_ms, utterance_end| SttEvent::Final {
        text: text.into(),
        start_ms,
        end_ms: start_ms + 500,
        utterance_end,
    };
    let expected = [
        interim("table", 1_000),
        last("Table for two", 1_000, false),
        last("tonight.", 2_000, true),
        last("Hello?", 4_000, false),
        SttEvent::UtteranceEnd,
        last("", 5_000, false),
    ];
    for event in expected {
        assert_eq!(next(&mut ear.events).await, event);
    }
    drop(ear.commands);
    assert_eq!(provider.json().await, json!({ "type": "CloseStream" }));
    provider.say(results("bye", 6.0, "is_final")).await;
    provider.close(1000, "").await;
    assert_eq!(next(&mut ear.events).await, last("bye", 6_000, false), "the last words are still heard");
    assert_eq!(soon("the end", ear.events.recv()).await, None);
}

#[tokio::test]
async fn line_without_audio_is_kept_open() {
    let (mut ear, mut provider) = listen("deepgram", Value::Null).await;
    let first = soon("a keep-alive", provider.message()).await;
    assert!(
        matches!(first, Some(Message::Binary(silence)) if silence.len() == 160),
        "keep-alives alone do not hold the line"
    );
    assert_eq!(provider.json().await, json!({ "type": "KeepAlive" }));
    provider.say(results("Hello?", 1.0, "is_final")).await;
    let SttEvent::Final { start_ms, .. } = next(&mut ear.events).await else { panic!() };
    assert_eq!(start_ms, 980, "the silence was not the caller's");
}

#[tokio::test]
async fn refused_upgrades_and_close_codes_are_named() {
    let cases = [
        ("401 Unauthorized", "INVALID_AUTH", Cause::Key),
        ("402 Payment Required", "ASR_PAYMENT_REQUIRED", Cause::Credit),
        ("403 Forbidden", "INSUFFICIENT_PERMISSIONS", Cause::NotAvailable),
        ("429 Too Many Requests", "TOO_MANY_REQUESTS", Cause::RateLimited),
        ("503 Service Unavailable", "BUSY", Cause::Unreachable),
    ];
    for (status, code, cause) in cases {
        let server = Server::start().await;
        let mut ear = open("deepgram", &server.url, Value::Null);
        let mut asked = server.request().await;
        asked
            .say(format!("HTTP/1.1 {status}\r\ndg-error: {code}\r\ncontent-length: 0\r\n\r\n").as_bytes())
            .await;
        let SttEvent::Failed(error) = next(&mut ear.events).await else { panic!() };
        assert_eq!(error.cause, cause, "{error}");
        assert!(error.detail.contains(code), "{error}");
    }
    for (code, reason, cause) in [
        (1011, "NET-0001", Cause::Unreachable),
        (1008, "DATA-0000", Cause::Refused),
        (1008, "INVALID_AUTH", Cause::Key),
    ] {
        let (mut ear, mut provider) = listen("deepgram", Value::Null).await;
        provider.close(code, reason).await;
        let SttEvent::Failed(error) = next(&mut ear.events).await else { panic!() };
        assert_eq!((error.cause, error.detail), (cause, format!("closed with {code} {reason}")));
    }
}

#[tokio::test]
async fn finals_that_were_asked_for_and_do_not_come_are_missed() {
    let server = Server::start().await;
    let mut ear = open("deepgram", &server.url, Value::Null);
    let mut provider = server.socket().await;
    assert_eq!(next(&mut ear.events).await, SttEvent::Opened);
    provider.say(results("table", 1.0, "")).await;
    assert!(matches!(next(&mut ear.events).await, SttEvent::Interim { .. }));
    ear.commands.send(SttCommand::Finalize).await.unwrap();
    // The provider reads on, and so answers pings: only the final is missing.
    let reading = async { while provider.message().await.is_some() {} };
    let ((), event) = tokio::join!(reading, next(&mut ear.events));
    assert!(matches!(event, SttEvent::Failed(error) if error.cause == Cause::TimedOut));
}

#[tokio::test]
async fn flux_tells_turns_and_early_guesses() {
    let (mut ear, mut provider) = listen("deepgram_flux", json!({ "eot_threshold": 0.8 })).await;
    assert!(provider.uri.starts_with("/v2/listen?"), "{}", provider.uri);
    for (name, value) in [
        ("model", "flux-general-en"),
        ("encoding", "mulaw"),
        ("sample_rate", "8000"),
        ("eager_eot_threshold", "0.5"),
        ("eot_threshold", "0.8"),
    ] {
        assert_eq!(provider.query(name), [value], "{name}");
    }
    provider.say(json!({ "type": "Connected", "request_id": "x", "sequence_id": 0 })).await;
    for (event, text) in [
        ("StartOfTurn", "do"),
        ("Update", "do you"),
        ("EagerEndOfTurn", "do you open"),
        ("TurnResumed", "do you open"),
        ("Update", "do you open on"),
    ] {
        provider.say(turn(event, text)).await;
    }
    let interim = |text: &str| SttEvent::Interim { text: text.into(), start_ms: 500, end_ms: 1_500 };
    let last = |text: &str, utterance_end| SttEvent::Final {
        text: text.into(),
        start_ms: 500,
        end_ms: 1_500,
        utterance_end,
    };
    let told = [
        interim("do"),
        interim("do you"),
        SttEvent::EagerEnd { text: "do you open".into() },
        interim("do you open"),
        interim("do you open on"),
    ];
    for event in told {
        assert_eq!(next(&mut ear.events).await, event);
    }
    ear.commands.send(SttCommand::Finalize).await.unwrap();
    assert_eq!(next(&mut ear.events).await, last("do you open on", false));
    provider.say(turn("Update", "Do you open on Sunday")).await;
    provider.say(turn("EagerEndOfTurn", "Do you open on Sunday")).await;
    provider.say(turn("EndOfTurn", "Do you open on Sunday?")).await;
    assert_eq!(next(&mut ear.events).await, interim("Sunday"));
    assert_eq!(next(&mut ear.events).await, SttEvent::EagerEnd { text: "Sunday".into() });
    assert_eq!(next(&mut ear.events).await, last("Sunday?", true));
    provider.say(turn("StartOfTurn", "or Monday")).await;
    assert_eq!(next(&mut ear.events).await, interim("or Monday"));
    provider.say(json!({ "type": "Error", "code": "INTERNAL_SERVER_ERROR", "description": "x" })).await;
    assert!(
        matches!(next(&mut ear.events).await, SttEvent::Failed(error) if error.cause == Cause::Unreachable)
    );
}

#[tokio::test]
async fn aura_speaks_clauses_in_order_and_says_how_far() {
    let (mut voice, mut provider) = speak_session().await;
    assert!(provider.uri.starts_with("/v1/speak?"), "{}", provider.uri);
    for (name, value) in [("model", "aura-2-thalia-en"), ("encoding", "mulaw"), ("sample_rate", "8000")] {
        assert_eq!(provider.query(name), [value], "{name}");
    }
    speak(&voice, 1, "Sure. ").await;
    assert_eq!(provider.json().await, json!({ "type": "Speak", "text": "Sure. " }));
    assert_eq!(provider.json().await, json!({ "type": "Flush" }), "the first clause is not kept waiting");
    speak(&voice, 1, "At eight. ").await;
    speak(&voice, 1, "Or nine?").await;
    say(&voice, TtsCommand::Finish { context: 1 }).await;
    assert_eq!(provider.json().await, json!({ "type": "Speak", "text": "At eight. " }));
    assert_eq!(provider.json().await, json!({ "type": "Speak", "text": "Or nine?" }));
    assert_eq!(
        provider.json().await,
        json!({ "type": "Flush" }),
        "flushes are not wasted while something plays"
    );
    speak(&voice, 2, "Bye.").await;
    say(&voice, TtsCommand::Finish { context: 2 }).await;

    provider.say(json!({ "type": "Metadata", "request_id": "x" })).await;
    provider.say_audio(&[1; 800]).await;
    provider.say(json!({ "type": "Flushed", "sequence_id": 0 })).await;
    provider.say_audio(&[2; 1_600]).await;
    provider.say(json!({ "type": "Flushed", "sequence_id": 1 })).await;
    provider.say_audio(&[3; 400]).await;
    provider.say(json!({ "type": "Flushed", "sequence_id": 2 })).await;
    let audio =
        |context, sample, length: usize| TtsEvent::Audio { context, audio: vec![sample; length].into() };
    let aligned = |context, ms, bytes| TtsEvent::Aligned { context, anchors: vec![Anchor { ms, bytes }] };
    let expected = [
        audio(1, 1, 800),
        aligned(1, 100, 6),
        audio(1, 2, 1_600),
        aligned(1, 300, 24),
        TtsEvent::Done { context: 1 },
        audio(2, 3, 400),
        aligned(2, 50, 4),
        TtsEvent::Done { context: 2 },
    ];
    for event in expected {
        assert_eq!(next(&mut voice.events).await, event);
    }
}

#[tokio::test]
async fn aura_drops_everything_between_clear_and_cleared() {
    let (mut voice, mut provider) = speak_session().await;
    speak(&voice, 1, "One. ").await;
    provider.json().await;
    provider.json().await;
    say(&voice, TtsCommand::Cancel { context: 1 }).await;
    assert_eq!(provider.json().await, json!({ "type": "Clear" }));
    speak(&voice, 2, "Two.").await;
    assert_eq!(provider.json().await, json!({ "type": "Speak", "text": "Two." }));
    provider.say_audio(&[1; 80]).await;
    provider.say(json!({ "type": "Flushed", "sequence_id": 0 })).await;
    provider.say_audio(&[1; 80]).await;
    provider.say(json!({ "type": "Cleared", "sequence_id": 1 })).await;
    provider.say_audio(&[2; 80]).await;
    assert_eq!(next(&mut voice.events).await, TtsEvent::Audio { context: 2, audio: vec![2; 80].into() });
}

#[tokio::test]
async fn aura_does_not_clear_another_reply_s_words() {
    let (mut voice, mut provider) = speak_session().await;
    speak(&voice, 1, "One.").await;
    say(&voice, TtsCommand::Finish { context: 1 }).await;
    speak(&voice, 2, "Two.").await;
    say(&voice, TtsCommand::Cancel { context: 2 }).await;
    let said: Vec<Value> =
        [provider.json().await, provider.json().await, provider.json().await, provider.json().await].into();
    assert_eq!(
        said.iter().map(|message| message["type"].as_str().unwrap()).collect::<Vec<_>>(),
        ["Speak", "Flush", "Speak", "Flush"]
    );
    provider.say_audio(&[1; 80]).await;
    provider.say(json!({ "type": "Flushed", "sequence_id": 0 })).await;
    provider.say_audio(&[2; 80]).await;
    provider.say(json!({ "type": "Flushed", "sequence_id": 1 })).await;
    speak(&voice, 3, "Three.").await;
    provider.json().await;
    provider.say_audio(&[3; 80]).await;
    let mut contexts = Vec::new();
    while contexts.last() != Some(&3) {
        if let TtsEvent::Audio { context, .. } = next(&mut voice.events).await {
            contexts.push(context);
        }
    }
    assert_eq!(contexts, [1, 3]);
}

fn open(kind: &str, base_url: &str, options: Value) -> SttSession {
    open_with(&settings_with(kind, base_url, options))
}

fn open_with(settings: &offhook_providers::ProviderSettings) -> SttSession {
    let ear = stt(settings, Secret::new("key".into())).unwrap();
    assert_eq!(ear.format(), AudioFormat::Mulaw);
    let keywords = vec!["Offhook".into(), "Zoë & Co".into()];
    ear.open(SttOptions { language: Language::english(), keywords, endpointing_ms: 300 })
}

async fn listen(kind: &str, options: Value) -> (SttSession, Socket) {
    let server = Server::start().await;
    let mut ear = open_with(&patient(settings_with(kind, &server.url, options)));
    let provider = server.socket().await;
    assert_eq!(next(&mut ear.events).await, SttEvent::Opened);
    (ear, provider)
}

async fn speak_session() -> (TtsSession, Socket) {
    let server = Server::start().await;
    let voice = tts(&patient(settings("deepgram", &server.url)), Secret::new("key".into())).unwrap();
    let mut session = voice.open(TtsOptions { language: Language::english() });
    let provider = server.socket().await;
    assert_eq!(next(&mut session.events).await, TtsEvent::Opened);
    (session, provider)
}

async fn speak(voice: &TtsSession, context: u32, text: &str) {
    say(voice, TtsCommand::Speak { context, text: text.into() }).await;
}

async fn say(voice: &TtsSession, command: TtsCommand) {
    soon("room for a command", voice.commands.send(command)).await.unwrap();
}

/// Results for half a second from `start` s, with these of its flags set.
fn results(transcript: &str, start: f64, flags: &str) -> Value {
    let has = |flag: &str| flags.split(' ').any(|set| set == flag);
    json!({ "type": "Results", "channel_index": [0, 1], "duration": 0.5, "start": start, "is_final": has("is_final"),
        "speech_final": has("speech_final"), "from_finalize": has("from_finalize"),
        "channel": { "alternatives": [{ "transcript": transcript, "confidence": 0.98, "words": [] }] },
        "metadata": { "request_id": "x" } })
}

fn turn(event: &str, transcript: &str) -> Value {
    json!({ "type": "TurnInfo", "event": event, "turn_index": 0, "transcript": transcript, "words": [], "end_of_turn_confidence": 0.5,
        "audio_window_start": 0.5, "audio_window_end": 1.5, "sequence_id": 1 })
}
