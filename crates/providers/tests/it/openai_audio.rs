//! Speech and transcription by REST.

use crate::server::{Exchange, Server, next, patient, settings, settings_with, soon};
use offhook_core::{Language, Secret};
use offhook_media::g711::Law;
use offhook_media::wav::Wav;
use offhook_providers::{
    Cause, SttCommand, SttEvent, SttOptions, SttSession, TtsCommand, TtsEvent, TtsOptions, TtsSession, stt,
    tts,
};
use serde_json::{Value, json};

#[tokio::test]
async fn clauses_are_spoken_in_order_and_the_next_is_asked_for_early() {
    let server = Server::start().await;
    let mut voice = voice(&server).await;
    for text in ["Sure. ", "At eight. ", "Or nine?"] {
        say(&voice, TtsCommand::Speak { context: 1, text: text.into() }).await;
    }
    say(&voice, TtsCommand::Finish { context: 1 }).await;
    let mut asked = [server.request().await, server.request().await];
    asked.sort_by_key(|asked| asked.json()["input"] != "Sure.");
    let [mut first, mut second] = asked;
    assert_eq!(first.line, "POST /audio/speech HTTP/1.1");
    assert_eq!(
        first.json(),
        json!({ "model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Sure.", "response_format": "pcm" })
    );
    assert_eq!(second.json()["input"], "At eight.");

    second.stream("audio/pcm").await;
    second.say(&[0; 4_800]).await;
    drop(second);
    first.stream("audio/pcm").await;
    let pcm: Vec<u8> = [4_000i16.to_le_bytes(); 2_400].concat();
    first.say(&pcm[..1_001]).await;
    first.say(&pcm[1_001..]).await;
    drop(first);
    let (audio, event) = audio_until_other(&mut voice).await;
    assert!((800..=816).contains(&audio.len()), "100 ms and the resampler's delay, not {}", audio.len());
    assert!((Law::Mu.decode_sample(audio[400]) - 4_000).abs() < 200);
    assert!(
        matches!(event, TtsEvent::Aligned { context: 1, anchors } if (anchors[0].ms, anchors[0].bytes) == (101, 6))
    );
    let (audio, event) = audio_until_other(&mut voice).await;
    assert!((800..=816).contains(&audio.len()), "{}", audio.len());
    assert!(
        matches!(event, TtsEvent::Aligned { anchors, .. } if (anchors[0].ms, anchors[0].bytes) == (203, 16))
    );
    let third = server.request().await;
    assert_eq!(third.json()["input"], "Or nine?");
    third.answer(200, "audio/pcm", &"\0".repeat(480)).await;
    let (_, event) = audio_until_other(&mut voice).await;
    assert!(matches!(event, TtsEvent::Aligned { anchors, .. } if anchors[0].bytes == 24));
    assert_eq!(next(&mut voice.events).await, TtsEvent::Done { context: 1 });
}

#[tokio::test]
async fn cancelled_reply_is_not_paid_for() {
    let server = Server::start().await;
    let mut voice = voice(&server).await;
    say(&voice, TtsCommand::Speak { context: 1, text: "A long story.".into() }).await;
    let mut asked = server.request().await;
    asked.stream("audio/pcm").await;
    asked.say(&[0; 960]).await;
    assert!(matches!(next(&mut voice.events).await, TtsEvent::Audio { context: 1, .. }));
    say(&voice, TtsCommand::Cancel { context: 1 }).await;
    asked.closed().await;
    say(&voice, TtsCommand::Speak { context: 2, text: "Yes?".into() }).await;
    let mut asked = server.request().await;
    asked.stream("audio/pcm").await;
    asked.say(&[0; 960]).await;
    assert!(matches!(next(&mut voice.events).await, TtsEvent::Audio { context: 2, .. }));
    drop(voice);
    asked.closed().await;
}

#[tokio::test]
async fn what_is_no_bare_pcm_costs_the_reply() {
    let cases = [
        (200, "audio/wav", "RIFF\0\0\0\0WAVE", Cause::Malformed),
        (200, "application/json", "{}", Cause::Malformed),
        (200, "audio/pcm", "", Cause::Malformed),
        (404, "application/json", r#"{"error":{"message":"no such voice"}}"#, Cause::NotAvailable),
        (500, "text/html", "<html>", Cause::Unreachable),
    ];
    let server = Server::start().await;
    let mut voice = voice(&server).await;
    for (context, (status, content_type, body, cause)) in (1..).zip(cases) {
        say(&voice, TtsCommand::Speak { context, text: "Hello.".into() }).await;
        server.request().await.answer(status, content_type, body).await;
        let event = next(&mut voice.events).await;
        assert!(
            matches!(&event, TtsEvent::Failed { context: Some(c), error } if (*c, error.cause) == (context, cause)),
            "{event:?}"
        );
    }
    say(&voice, TtsCommand::Speak { context: 9, text: "x".repeat(5_000) }).await;
    assert!(
        matches!(next(&mut voice.events).await, TtsEvent::Failed { context: Some(9), .. }),
        "the session lives on"
    );
}

#[tokio::test]
async fn nobody_to_be_reached_is_told_before_anything_is_said() {
    let server = Server::start().await;
    let settings = patient(settings("openai", &server.url));
    drop(server);
    let key = || Secret::new("key".into());
    let mut voice = tts(&settings, key()).unwrap().open(TtsOptions { language: Language::english() });
    let event = next(&mut voice.events).await;
    assert!(
        matches!(&event, TtsEvent::Failed { context: None, error } if error.cause == Cause::Unreachable),
        "{event:?}"
    );
    assert_eq!(soon("the end", voice.events.recv()).await, None);
    let options = SttOptions { language: Language::english(), keywords: Vec::new(), endpointing_ms: 400 };
    let mut ear = stt(&settings, key()).unwrap().open(options);
    let event = next(&mut ear.events).await;
    assert!(matches!(&event, SttEvent::Failed(error) if error.cause == Cause::Unreachable), "{event:?}");
    assert_eq!(soon("the end", ear.events.recv()).await, None);
}

#[tokio::test]
async fn utterance_is_cut_out_posted_and_comes_back_as_a_final() {
    let server = Server::start().await;
    let mut ear = ear(&server, Value::Null).await;
    feed(&ear, &silence(600)).await;
    feed(&ear, &vowels(900)).await;
    feed(&ear, &silence(900)).await;
    let asked = server.request().await;
    assert_eq!(asked.line, "POST /audio/transcriptions HTTP/1.1");
    let (fields, wav) = form(&asked);
    assert_eq!(
        fields,
        ["language=en", "model=gpt-4o-mini-transcribe", "prompt=Offhook, Zoë", "response_format=json"]
    );
    assert_eq!((wav.rate_hz, wav.channels), (8_000, 1));
    let length_ms = wav.samples.len() / 8;
    assert!((900..1_700).contains(&length_ms), "{length_ms} ms");
    asked.answer(200, "application/json", r#"{"text":" Hello there. ","usage":{"type":"tokens"}}"#).await;
    let event = next(&mut ear.events).await;
    let SttEvent::Final { text, start_ms, end_ms, utterance_end: true } = event else { panic!("{event:?}") };
    assert_eq!(text, "Hello there.");
    assert!(
        (300..700).contains(&start_ms) && end_ms as usize == start_ms as usize + length_ms,
        "{start_ms} to {end_ms}"
    );
}

#[tokio::test]
async fn finalize_posts_what_was_said_so_far_and_nothing_where_nothing_was() {
    let server = Server::start().await;
    let mut ear = ear(&server, Value::Null).await;
    feed(&ear, &silence(300)).await;
    ear.commands.send(SttCommand::Finalize).await.unwrap();
    assert!(
        matches!(next(&mut ear.events).await, SttEvent::Final { text, utterance_end: false, .. } if text.is_empty())
    );
    feed(&ear, &vowels(900)).await;
    ear.commands.send(SttCommand::Finalize).await.unwrap();
    server.request().await.answer(200, "application/json", r#"{"text":"Hello"}"#).await;
    assert!(
        matches!(next(&mut ear.events).await, SttEvent::Final { text, utterance_end: false, .. } if text == "Hello")
    );
    feed(&ear, &silence(900)).await;
    let asked_again =
        async { server.request().await.answer(200, "application/json", r#"{"text":""}"#).await };
    // A remainder of sound may be posted or not; the end is told either way.
    let told = tokio::select! { event = next(&mut ear.events) => event, () = asked_again => next(&mut ear.events).await };
    assert!(matches!(told, SttEvent::Final { utterance_end: true, .. }), "{told:?}");
}

#[tokio::test]
async fn streamed_transcripts_give_interims() {
    let server = Server::start().await;
    let mut ear = ear(&server, json!({ "stream": true })).await;
    feed(&ear, &vowels(900)).await;
    ear.commands.send(SttCommand::Finalize).await.unwrap();
    let mut asked = server.request().await;
    assert!(form(&asked).0.contains(&"stream=true".to_string()));
    asked.stream("text/event-stream").await;
    asked.say(b"data: {\"type\":\"transcript.text.delta\",\"delta\":\"Hello \"}\n\n").await;
    assert!(matches!(next(&mut ear.events).await, SttEvent::Interim { text, .. } if text == "Hello"));
    asked.say(b"data: {\"type\":\"transcript.text.delta\",\"delta\":\"there\"}\n\n").await;
    assert!(matches!(next(&mut ear.events).await, SttEvent::Interim { text, .. } if text == "Hello there"));
    asked.say(b"data: {\"type\":\"transcript.text.done\",\"text\":\"Hello there.\"}\n\n").await;
    assert!(matches!(next(&mut ear.events).await, SttEvent::Final { text, .. } if text == "Hello there."));
}

#[tokio::test]
async fn utterance_whose_post_fails_is_posted_again_before_the_next() {
    let server = Server::start().await;
    let mut ear = ear(&server, Value::Null).await;
    let mut lengths = Vec::new();
    for ms in [900, 1_500] {
        feed(&ear, &vowels(ms)).await;
        ear.commands.send(SttCommand::Finalize).await.unwrap();
    }
    for (status, body) in
        [(503, ""), (200, r#"{"text":"First."}"#), (200, "not JSON"), (200, r#"{"text":"Second."}"#)]
    {
        let asked = server.request().await;
        lengths.push(form(&asked).1.samples.len());
        asked.answer(status, "application/json", body).await;
    }
    assert!(lengths[0] == lengths[1] && lengths[1] < lengths[2] && lengths[2] == lengths[3], "{lengths:?}");
    for words in ["First.", "Second."] {
        assert!(matches!(next(&mut ear.events).await, SttEvent::Final { text, .. } if text == words));
    }
}

#[tokio::test]
async fn failed_transcription_ends_the_session() {
    for (status, body, cause) in [
        (401, "{}", Cause::Key),
        (500, "{}", Cause::Unreachable),
        (200, "{\"words\":[]}", Cause::Malformed),
        (200, "not JSON", Cause::Malformed),
    ] {
        let server = Server::start().await;
        let mut ear = ear(&server, Value::Null).await;
        feed(&ear, &vowels(900)).await;
        ear.commands.send(SttCommand::Finalize).await.unwrap();
        // What may pass is tried once more.
        for _ in 0..1 + usize::from(cause.may_pass()) {
            server.request().await.answer(status, "application/json", body).await;
        }
        assert!(
            matches!(next(&mut ear.events).await, SttEvent::Failed(error) if error.cause == cause),
            "{status} {body}"
        );
        assert_eq!(soon("the end", ear.events.recv()).await, None);
    }
}

async fn voice(server: &Server) -> TtsSession {
    let voice = tts(&patient(settings("openai", &server.url)), Secret::new("key".into())).unwrap();
    let mut session = voice.open(TtsOptions { language: Language::english() });
    reached(server).await;
    assert_eq!(next(&mut session.events).await, TtsEvent::Opened);
    session
}

async fn ear(server: &Server, options: Value) -> SttSession {
    let settings = patient(settings_with("openai", &server.url, options));
    let keywords = vec!["Offhook".into(), "Zoë".into()];
    let options = SttOptions { language: Language::english(), keywords, endpointing_ms: 400 };
    let mut session = stt(&settings, Secret::new("key".into())).unwrap().open(options);
    reached(server).await;
    assert_eq!(next(&mut session.events).await, SttEvent::Opened);
    session
}

/// A session begins with a connection. Not every server knows what it is asked for there.
async fn reached(server: &Server) {
    let asked = server.request().await;
    assert_eq!(asked.line, "HEAD /models HTTP/1.1");
    asked.answer(404, "application/json", "").await;
}

async fn say(voice: &TtsSession, command: TtsCommand) {
    voice.commands.send(command).await.unwrap();
}

/// Audio of the voice, and what it reported next.
async fn audio_until_other(voice: &mut TtsSession) -> (Vec<u8>, TtsEvent) {
    let mut heard = Vec::new();
    loop {
        match next(&mut voice.events).await {
            TtsEvent::Audio { audio, .. } => heard.extend(audio),
            other => return (heard, other),
        }
    }
}

async fn feed(ear: &SttSession, pcm: &[i16]) {
    for frame in pcm.chunks(160) {
        let mut coded = Vec::new();
        Law::Mu.encode(frame, &mut coded);
        soon("room for audio", ear.commands.send(SttCommand::Audio(coded.into()))).await.unwrap();
    }
}

fn silence(ms: usize) -> Vec<i16> {
    vec![0; ms * 8]
}

/// A voice that says "ah-eh-ah-eh": softened pulses at a gliding pitch, through three resonances, in syllables that swell.
fn vowels(ms: usize) -> Vec<i16> {
    const SYLLABLE: usize = 1_440;
    const FORMANTS_HZ: [[f32; 3]; 2] = [[730.0, 1_090.0, 2_440.0], [530.0, 1_840.0, 2_480.0]];
    let (mut phase, mut tilt, mut mouth) = (0.0f32, 0.0f32, [[0.0f32; 2]; 3]);
    let sound = |n: usize| {
        phase += (120.0 + 15.0 * (n as f32 / 3_000.0).sin()) / 8_000.0;
        tilt = 0.9 * tilt + if phase >= 1.0 { 1.0 } else { -0.02 };
        phase = phase.fract();
        let mut sample = tilt;
        for (state, hz) in mouth.iter_mut().zip(FORMANTS_HZ[n / SYLLABLE % 2]) {
            let radius = 0.965f32;
            let turn = 2.0 * radius * (std::f32::consts::TAU * hz / 8_000.0).cos();
            sample = sample * (1.0 - turn + radius * radius) + turn * state[0] - radius * radius * state[1];
            *state = [sample, state[0]];
        }
        let swell = ((n % SYLLABLE) as f32 / SYLLABLE as f32 * std::f32::consts::PI).sin().sqrt();
        sample * swell
    };
    let samples: Vec<f32> = (0..ms * 8).map(sound).collect();
    let loudest = samples.iter().fold(f32::EPSILON, |loudest, sample| loudest.max(sample.abs()));
    samples.iter().map(|sample| (sample / loudest * 16_000.0) as i16).collect()
}

/// The text fields of a posted form, sorted, and its file.
fn form(asked: &Exchange) -> (Vec<String>, Wav) {
    let boundary = asked.headers["content-type"].split_once("boundary=").unwrap().1;
    let delimiter = format!("--{boundary}");
    let at: Vec<usize> = asked
        .body
        .windows(delimiter.len())
        .enumerate()
        .filter(|(_, w)| *w == delimiter.as_bytes())
        .map(|(at, _)| at)
        .collect();
    let (mut fields, mut wav) = (Vec::new(), None);
    for range in at.windows(2) {
        let part = &asked.body[range[0] + delimiter.len() + 2..range[1] - 2];
        let end = part.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let (head, body) = (String::from_utf8_lossy(&part[..end]), &part[end + 4..]);
        if head.contains("filename=\"utterance.wav\"") {
            wav = Some(Wav::parse(body).unwrap());
        } else {
            let name = head.split("name=\"").nth(1).unwrap().split('"').next().unwrap();
            fields.push(format!("{name}={}", String::from_utf8_lossy(body)));
        }
    }
    fields.sort();
    (fields, wav.unwrap())
}
