//! What holds for every session, whatever the provider: limits of waiting, garbage, farewell, harmless tests.

use crate::server::{Server, next, patient, settings, soon};
use offhook_core::{Language, Secret};
use offhook_providers::{
    Cause, ProviderError, SttEvent, SttOptions, SttSession, TtsCommand, TtsEvent, TtsOptions, TtsSession,
    check, stt, tts,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const VOICES: [&str; 3] = ["deepgram", "elevenlabs", "cartesia"];
const EARS: [&str; 2] = ["deepgram", "deepgram_flux"];

#[tokio::test]
async fn server_that_does_not_upgrade_is_given_up() {
    for kind in VOICES {
        let server = Server::start().await;
        let mut voice = voice(kind, &server.url);
        let asked = server.request().await;
        assert_eq!(voice_failure(&mut voice).await.cause, Cause::TimedOut, "{kind}");
        drop(asked);
    }
}

#[tokio::test]
async fn server_that_falls_silent_is_given_up() {
    for kind in EARS {
        let server = Server::start().await;
        let mut ear = ear(kind, &server.url);
        // Upgraded and never read again: not even pings are answered.
        let provider = server.socket().await;
        assert_eq!(next(&mut ear.events).await, SttEvent::Opened);
        assert_eq!(ear_failure(&mut ear).await.cause, Cause::TimedOut, "{kind}");
        drop(provider);
    }
    for kind in VOICES {
        let server = Server::start().await;
        let mut voice = voice(kind, &server.url);
        let mut provider = server.socket().await;
        assert_eq!(next(&mut voice.events).await, TtsEvent::Opened);
        voice.commands.send(TtsCommand::Speak { context: 1, text: "Hello. ".into() }).await.unwrap();
        // It reads, but does not speak.
        let reading = async { while provider.message().await.is_some() {} };
        let ((), failure) = tokio::join!(reading, voice_failure(&mut voice));
        assert_eq!(failure.cause, Cause::TimedOut, "{kind}");
    }
}

#[tokio::test]
async fn connection_that_breaks_is_unreachable() {
    for kind in EARS {
        let server = Server::start().await;
        let mut ear = ear(kind, &server.url);
        drop(server.socket().await);
        assert_eq!(next(&mut ear.events).await, SttEvent::Opened);
        assert_eq!(ear_failure(&mut ear).await.cause, Cause::Unreachable, "{kind}");
        assert_eq!(soon("the end", ear.events.recv()).await, None);
    }
    let server = Server::start().await;
    let url = server.url.clone();
    drop(server);
    for kind in VOICES {
        assert_eq!(voice_failure(&mut voice(kind, &url)).await.cause, Cause::Unreachable, "{kind}");
    }
}

#[tokio::test]
async fn garbage_is_malformed_and_nothing_worse() {
    let frames = ["", "null", "[]", "{", "\u{0}", r#"{"type":7}"#, r#"{"type":"Results","channel":7}"#];
    for kind in EARS {
        for frame in frames {
            let server = Server::start().await;
            let mut ear = ear(kind, &server.url);
            let mut provider = server.socket().await;
            provider.say_audio(&[0, 159, 146]).await;
            provider.say_text(frame).await;
            provider.say_text("no JSON at all").await;
            assert_eq!(next(&mut ear.events).await, SttEvent::Opened);
            assert_eq!(ear_failure(&mut ear).await.cause, Cause::Malformed, "{kind} {frame}");
        }
    }
    for kind in VOICES {
        let server = Server::start().await;
        let mut voice = voice(kind, &server.url);
        let mut provider = server.socket().await;
        provider.say_audio(&[0; 160]).await;
        provider.say(json!({ "type": "chunk", "contextId": "1-0", "context_id": "1-0", "data": "AAAA", "audio": "AAAA" })).await;
        provider.say_text("no JSON at all").await;
        assert_eq!(next(&mut voice.events).await, TtsEvent::Opened, "{kind}");
        assert_eq!(
            voice_failure(&mut voice).await.cause,
            Cause::Malformed,
            "{kind}: audio nobody asked for is dropped"
        );
    }
}

#[tokio::test]
async fn frame_that_is_too_long_is_malformed() {
    let server = Server::start().await;
    let mut ear = ear("deepgram", &server.url);
    let mut provider = server.socket().await;
    let flood = async {
        provider.say_text(&"x".repeat(3 << 20)).await;
        std::future::pending::<()>().await
    };
    assert_eq!(next(&mut ear.events).await, SttEvent::Opened);
    tokio::select! {
        error = ear_failure(&mut ear) => assert_eq!(error.cause, Cause::Malformed),
        () = flood => {}
    }
}

#[tokio::test]
async fn dropping_a_session_says_goodbye() {
    let cases = [("deepgram", r#"{"type":"Close"}"#), ("elevenlabs", r#"{"close_socket":true}"#)];
    for (kind, goodbye) in cases {
        let server = Server::start().await;
        let mut voice = voice(kind, &server.url);
        let mut provider = server.socket().await;
        assert_eq!(next(&mut voice.events).await, TtsEvent::Opened);
        drop(voice);
        assert_eq!(provider.closed().await, [goodbye], "{kind}");
    }
    let server = Server::start().await;
    let voice = voice("cartesia", &server.url);
    let mut connecting = server.request().await;
    drop(voice);
    connecting.closed().await;
}

#[tokio::test]
async fn finished_voice_without_commands_ends() {
    for kind in VOICES {
        let server = Server::start().await;
        let settings = patient(settings(kind, &server.url));
        let options = TtsOptions { language: Language::english() };
        let mut voice = tts(&settings, Secret::new("key".into())).unwrap().open(options);
        let _provider = server.socket().await;
        assert_eq!(next(&mut voice.events).await, TtsEvent::Opened);
        drop(voice.commands);
        assert_eq!(soon("the end", voice.events.recv()).await, None, "{kind}");
    }
}

#[tokio::test]
async fn idle_voice_that_is_hung_up_on_is_called_again_but_not_for_ever() {
    for kind in VOICES {
        let server = Server::start().await;
        let mut voice = voice(kind, &server.url);
        let mut provider = server.socket().await;
        assert_eq!(next(&mut voice.events).await, TtsEvent::Opened);
        provider.close(1000, "idle").await;
        let mut provider = server.socket().await;
        voice.commands.send(TtsCommand::Speak { context: 1, text: "Still here. ".into() }).await.unwrap();
        assert!(provider.message().await.is_some(), "{kind} speaks on the new connection");
        voice.commands.send(TtsCommand::Cancel { context: 1 }).await.unwrap();
        let failure = async {
            provider.close(1011, "again").await;
            voice_failure(&mut voice).await
        };
        let error = failure.await;
        assert_eq!(error.cause, Cause::Unreachable, "{kind}");
    }
}

#[tokio::test]
async fn tls_is_spoken_where_the_address_says_so() {
    let server = Server::start().await;
    let url = server.url.replace("http:", "https:");
    for kind in ["cartesia", "openai"] {
        let settings = patient(settings(kind, &url));
        let checking = tokio::spawn(async move { check(&settings, Secret::new("key".into())).await });
        let session = (kind == "cartesia").then(|| voice(kind, &url));
        let mut streams = Vec::new();
        for _ in 0..1 + usize::from(session.is_some()) {
            streams.push(server.connection().await);
            let stream = streams.last_mut().unwrap();
            let mut hello = [0; 3];
            soon("a client hello", stream.read_exact(&mut hello)).await.unwrap();
            assert_eq!(hello[..2], [22, 3], "{kind}");
            stream.write_all(b"HTTP/1.1 400 This is no TLS\r\n\r\n").await.unwrap();
        }
        let error = soon("the result", checking).await.unwrap().unwrap_err();
        assert!(error.cause == Cause::Unreachable && error.detail.starts_with("TLS: "), "{error}");
        if let Some(mut session) = session {
            assert!(voice_failure(&mut session).await.detail.starts_with("TLS: "));
        }
    }
}

#[tokio::test]
async fn connections_are_tested_without_speech() {
    let cases = [
        ("openai", "GET /models HTTP/1.1", "authorization", "Bearer key"),
        ("deepgram", "GET /v1/projects HTTP/1.1", "authorization", "Token key"),
        ("deepgram_flux", "GET /v1/projects HTTP/1.1", "authorization", "Token key"),
        ("elevenlabs", "GET /v1/voices HTTP/1.1", "xi-api-key", "key"),
        ("cartesia", "GET /voices?limit=1 HTTP/1.1", "x-api-key", "key"),
    ];
    for (kind, line, header, value) in cases {
        for (status, expected) in [(200, None), (401, Some(Cause::Key)), (500, Some(Cause::Unreachable))] {
            let server = Server::start().await;
            let settings = patient(settings(kind, &server.url));
            let checking = tokio::spawn(async move { check(&settings, Secret::new("key".into())).await });
            let asked = server.request().await;
            assert_eq!((asked.line.as_str(), asked.headers[header].as_str()), (line, value), "{kind}");
            asked.answer(status, "application/json", "{}").await;
            let result = soon("the result", checking).await.unwrap();
            assert_eq!(result.err().map(|error| error.cause), expected, "{kind} {status}");
        }
    }
}

fn voice(kind: &str, base_url: &str) -> TtsSession {
    let voice = tts(&settings(kind, base_url), Secret::new("key".into())).unwrap();
    voice.open(TtsOptions { language: Language::english() })
}

fn ear(kind: &str, base_url: &str) -> SttSession {
    let ear = stt(&settings(kind, base_url), Secret::new("key".into())).unwrap();
    ear.open(SttOptions { language: Language::english(), keywords: Vec::new(), endpointing_ms: 300 })
}

async fn voice_failure(voice: &mut TtsSession) -> ProviderError {
    match next(&mut voice.events).await {
        TtsEvent::Failed { context: None, error } => error,
        other => panic!("no failure: {other:?}"),
    }
}

async fn ear_failure(ear: &mut SttSession) -> ProviderError {
    match next(&mut ear.events).await {
        SttEvent::Failed(error) => error,
        other => panic!("no failure: {other:?}"),
    }
}
