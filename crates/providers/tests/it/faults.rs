//! Every adapter against every fault of the simulated providers: what a call gets is what was said, or a failure with a name.

use crate::server::{next, patient, settings, soon};
use futures_util::future::join_all;
use offhook_core::{ChatMessage, Language, Secret};
use offhook_media::g711::Law;
use offhook_providers::{
    Cause, LlmEvent, LlmRequest, ProviderError, ProviderSettings, SttCommand, SttEvent, SttOptions,
    TtsCommand, TtsEvent, TtsOptions, llm, stt, tts,
};
use offhook_sim::provider::{
    Fault, Program, ProviderSim, ProviderSimSettings, Record, Service, heard_words, utterance,
};
use std::sync::Arc;
use std::time::Duration;

/// What is said, heard and spoken in every case.
const WORDS: &str = "Do you have a table for four tomorrow evening?";

/// What a call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Get {
    /// All the words, and their end.
    All,
    /// The first of the words, and an end.
    Some,
    /// An end without words.
    None,
    /// Neither words nor an end nor a failure: a recogniser that hears nothing cannot be told from a silent caller.
    Silence,
    /// Words for as long as anybody listens.
    Endless,
    /// A failure of this kind.
    Fail(Cause),
}

const KEY: Get = Get::Fail(Cause::Key);
const BUSY: Get = Get::Fail(Cause::RateLimited);
const GONE: Get = Get::Fail(Cause::Unreachable);
const LATE: Get = Get::Fail(Cause::TimedOut);
const ODD: Get = Get::Fail(Cause::Malformed);

const SERVICES: [(&str, Service); 8] = [
    ("openai", Service::Chat),
    ("openai", Service::Transcription),
    ("deepgram", Service::DeepgramListen),
    ("deepgram_flux", Service::DeepgramFlux),
    ("openai", Service::Speech),
    ("deepgram", Service::DeepgramSpeak),
    ("elevenlabs", Service::ElevenLabs),
    ("cartesia", Service::Cartesia),
];

#[rustfmt::skip]
const CASES: [(Option<Fault>, [Get; 8]); 14] = {
    use Get::{All, Endless, None as Nothing, Silence, Some as Part};
    [
        //                              Chat     Transcr. Listen   Flux     Speech   Aura     Eleven   Cartesia
        (None,                         [All,     All,     All,     All,     All,     All,     All,     All]),
        (Some(refuse(401, None)),      [KEY,     KEY,     KEY,     KEY,     KEY,     KEY,     KEY,     KEY]),
        (Some(refuse(429, Some(10))),  [All,     All,     All,     All,     All,     All,     All,     All]),
        (Some(refuse(429, Some(60_000))), [BUSY, BUSY,    All,     All,     BUSY,    All,     All,     All]),
        (Some(refuse(500, None)),      [GONE,    All,     GONE,    GONE,    GONE,    GONE,    GONE,    GONE]),
        (Some(Fault::Stall),           [LATE,    LATE,    Silence, Silence, LATE,    LATE,    LATE,    LATE]),
        (Some(Fault::StallMidStream),  [LATE,    LATE,    LATE,    All,     LATE,    LATE,    LATE,    LATE]),
        (Some(Fault::Cut),             [GONE,    All,     GONE,    GONE,    GONE,    GONE,    GONE,    GONE]),
        (Some(Fault::Empty),           [Nothing, Nothing, Nothing, Nothing, ODD,     ODD,     ODD,     ODD]),
        (Some(Fault::Late),            [All,     All,     All,     All,     All,     All,     All,     All]),
        (Some(Fault::Duplicate),       [All,     All,     All,     All,     All,     All,     All,     All]),
        (Some(Fault::WrongOrder),      [All,     All,     All,     All,     Part,    Part,    Part,    Part]),
        (Some(Fault::Endless),         [Endless, All,     LATE,    All,     LATE,    LATE,    LATE,    LATE]),
        (Some(Fault::MalformedJson),   [ODD,     All,     ODD,     ODD,     All,     ODD,     ODD,     ODD]),
    ]
};

#[tokio::test]
async fn whatever_a_provider_does_a_call_gets_words_or_a_named_failure() {
    let cases = CASES.into_iter().flat_map(|(fault, row)| {
        SERVICES.into_iter().zip(row).map(move |((kind, service), get)| async move {
            let case = Case::new(kind, service, fault, get).await;
            let got = match service {
                Service::Chat => case.asks().await,
                Service::Transcription | Service::DeepgramListen | Service::DeepgramFlux => {
                    case.hears().await
                }
                _ => case.speaks().await,
            };
            let verdict = case.verdict(&got);
            verdict.err().map(|wrong| format!("{service:?}, {fault:?}: {wrong}"))
        })
    });
    let wrong: Vec<String> = join_all(cases).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const fn refuse(status: u16, retry_after_ms: Option<u64>) -> Fault {
    Fault::Refuse { status, retry_after_ms }
}

/// One adapter, one fault.
struct Case {
    sim: ProviderSim,
    settings: ProviderSettings,
    service: Service,
    get: Get,
}

/// What was said, and how it ended: `None` where it did not.
#[derive(Debug)]
struct Got {
    words: String,
    end: Option<Result<(), ProviderError>>,
}

impl Case {
    async fn new(kind: &str, service: Service, fault: Option<Fault>, get: Get) -> Case {
        let mut program = Program::default();
        program.delays.late_ms = 50;
        // Ten minutes of speech that does not end are sent in a moment.
        program.voice.times_real_time = if fault == Some(Fault::Endless) { 2_000.0 } else { 0.0 };
        program.rules.push(offhook_sim::provider::Rule::text("", WORDS));
        program.faults.push(service, fault);
        let sim = ProviderSim::start(ProviderSimSettings { program, ..ProviderSimSettings::default() })
            .await
            .unwrap();
        let base_url = if kind == "openai" { format!("{}/v1", sim.base_url) } else { sim.base_url.clone() };
        let settings = settings(kind, &base_url);
        // Where an answer comes, a busy machine must not turn it into a late one.
        let settings = if get == LATE { settings } else { patient(settings) };
        Case { sim, settings, service, get }
    }

    async fn asks(&self) -> Got {
        let request = LlmRequest {
            messages: Arc::new([ChatMessage::User { text: "Hello?".into() }]),
            tools: Arc::new([]),
            max_tokens: 100,
            temperature_centi: None,
        };
        let mut reply = llm(&self.settings, key()).unwrap().ask(request);
        let mut words = String::new();
        while words.len() < ENDLESS_BYTES {
            match next(&mut reply.events).await {
                LlmEvent::Token(text) => words.push_str(&text),
                LlmEvent::Tool(tool) => panic!("nobody asked for {tool:?}"),
                LlmEvent::Done { .. } => return Got { words, end: Some(Ok(())) },
                LlmEvent::Failed(error) => return Got { words, end: Some(Err(error)) },
            }
        }
        drop(reply);
        self.record("the model is told to stop", |record| record.closed.is_some()).await;
        Got { words, end: None }
    }

    async fn hears(&self) -> Got {
        let options = SttOptions { language: Language::english(), keywords: Vec::new(), endpointing_ms: 300 };
        let ear = stt(&self.settings, key()).unwrap().open(options);
        let mut pcm = vec![0; 4_000];
        pcm.extend(utterance(WORDS, 3.0));
        pcm.resize(pcm.len() + 16_000, 0);
        for frame in pcm.chunks(160) {
            let mut coded = Vec::new();
            Law::Mu.encode(frame, &mut coded);
            // A session that has failed takes no more.
            let _ = soon("room for audio", ear.commands.send(SttCommand::Audio(coded.into()))).await;
        }
        let (mut commands, mut events) = (Some(ear.commands), ear.events);
        if self.get == Get::Silence {
            self.record("the provider falls silent", |record| record.faults == [Fault::Stall]).await;
            commands = None;
        }
        // What would end the utterance does not come: the call asks for it.
        let asks = matches!(self.get, LATE) || self.has(Fault::StallMidStream) || self.has(Fault::Endless);
        let mut interim = String::new();
        while let Some(event) = soon("a report", events.recv()).await {
            match event {
                SttEvent::Opened | SttEvent::UtteranceEnd => {}
                SttEvent::Interim { text, .. } | SttEvent::EagerEnd { text } => {
                    let is_whole = text == WORDS;
                    interim = text;
                    if let Some(commands) = commands.as_ref().filter(|_| asks && is_whole) {
                        commands.send(SttCommand::Finalize).await.unwrap();
                    }
                }
                SttEvent::Final { text, utterance_end, .. } if utterance_end || !text.is_empty() => {
                    return Got { words: text, end: Some(Ok(())) };
                }
                SttEvent::Final { .. } => {}
                SttEvent::Failed(error) => return Got { words: interim, end: Some(Err(error)) },
            }
        }
        Got { words: interim, end: None }
    }

    async fn speaks(&self) -> Got {
        let mut voice =
            tts(&self.settings, key()).unwrap().open(TtsOptions { language: Language::english() });
        for command in
            [TtsCommand::Speak { context: 1, text: format!("{WORDS} ") }, TtsCommand::Finish { context: 1 }]
        {
            let _ = soon("room for a command", voice.commands.send(command)).await;
        }
        let mut mulaw = Vec::new();
        let end = loop {
            match next(&mut voice.events).await {
                TtsEvent::Opened => {}
                TtsEvent::Audio { context, audio } => {
                    assert_eq!(context, 1);
                    mulaw.extend_from_slice(&audio);
                }
                TtsEvent::Aligned { context, anchors } => {
                    assert!(
                        context == 1 && anchors.iter().all(|anchor| anchor.bytes as usize <= WORDS.len() + 1)
                    );
                }
                TtsEvent::Done { context } => {
                    assert_eq!(context, 1);
                    break Ok(());
                }
                TtsEvent::Failed { error, .. } => break Err(error),
            }
        };
        mulaw.truncate(ENDLESS_AUDIO_BYTES);
        let mut pcm = Vec::new();
        Law::Mu.decode(&mulaw, &mut pcm);
        let words: Vec<String> = heard_words(&pcm).into_iter().map(|word| word.word).collect();
        Got { words: words.join(" "), end: Some(end) }
    }

    fn verdict(&self, got: &Got) -> Result<(), String> {
        let is_part = WORDS.starts_with(&got.words) || self.has(Fault::Endless);
        let ended = matches!(got.end, Some(Ok(())));
        let is_right = match self.get {
            Get::All => ended && got.words == WORDS,
            Get::Some => ended && !got.words.is_empty() && is_part,
            Get::None => ended && got.words.is_empty(),
            Get::Silence => got.end.is_none() && got.words.is_empty(),
            Get::Endless => got.end.is_none() && got.words.len() >= ENDLESS_BYTES,
            Get::Fail(cause) => match &got.end {
                Some(Err(error)) => is_part && (error.provider, error.cause) == (self.settings.kind(), cause),
                _ => false,
            },
        };
        let oddities: Vec<String> = self.records().into_iter().flat_map(|record| record.oddities).collect();
        match is_right {
            true if oddities.is_empty() => Ok(()),
            true => Err(format!("the provider frowns: {oddities:?}")),
            false => Err(format!("not {:?} but {got:?}", self.get)),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.records().iter().any(|record| record.faults.contains(&fault))
    }

    fn records(&self) -> Vec<Record> {
        self.sim.records().into_iter().filter(|record| record.service == self.service).collect()
    }

    async fn record(&self, what: &str, wanted: impl Fn(&Record) -> bool) {
        let service = self.service;
        let found =
            self.sim.wait_for(LIMIT, |records| records.iter().any(|r| r.service == service && wanted(r)));
        assert!(found.await.is_some(), "{what}: nothing happened");
    }
}

/// Longest wait for what a provider must notice.
const LIMIT: Duration = Duration::from_secs(10);

/// After so much of a reply nobody waits for its end.
const ENDLESS_BYTES: usize = 1_000;

/// So much of a voice is listened to.
const ENDLESS_AUDIO_BYTES: usize = 10 * 8_000;

fn key() -> Secret<String> {
    Secret::new("key".into())
}
