//! Cartesia voices over `/tts/websocket`: many contexts on one socket (protocols/providers.md, section 7).
//! It does not know a call: a context is one reply, in clauses.

use crate::contexts::{Contexts, Finished, Spoken, parse_name};
use crate::json::{Text, ms};
use crate::refusal::in_stream;
use crate::settings::Service;
use crate::ws::{self, Dial, Outbox, Protocol};
use crate::{AudioFormat, ProviderError, Tts, TtsCommand, TtsEvent, TtsOptions, TtsSession, http};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::RequestBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// The interface's date, sent with every request.
const VERSION: &str = "2025-04-16";

/// A context dies 1 s after its last audio; past this, the next clause opens another.
const CONTEXT_LIFE: Duration = Duration::from_millis(800);

/// A voice of Cartesia.
pub(crate) struct Voice(pub(crate) Service);

impl Tts for Voice {
    fn name(&self) -> &'static str {
        self.0.provider
    }

    fn format(&self) -> AudioFormat {
        AudioFormat::Mulaw
    }

    fn open(&self, options: TtsOptions) -> TtsSession {
        let service = &self.0;
        let dial = Dial {
            provider: service.provider,
            endpoint: service.endpoint.clone(),
            url: service.ws_url(&["tts", "websocket"], &[], &service.option_names()),
            headers: headers(service),
        };
        let (commands, events) = ws::open(dial, Speaker::new(service, options.language.primary()));
        TtsSession { commands, events }
    }
}

/// A list of voices: the harmless test.
pub(crate) fn list_request(service: &Service) -> RequestBuilder {
    let request = http::client().get(service.url(&["voices"])).query(&[("limit", "1")]);
    headers(service).into_iter().fold(request, |request, (name, value)| request.header(name, value))
}

fn headers(service: &Service) -> Vec<(&'static str, String)> {
    service.key_header("x-api-key", "").into_iter().chain([("cartesia-version", VERSION.into())]).collect()
}

#[derive(Serialize)]
struct Generation<'a> {
    context_id: &'a str,
    transcript: &'a str,
    r#continue: bool,
    #[serde(flatten)]
    manner: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct Cancel<'a> {
    context_id: &'a str,
    cancel: bool,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    context_id: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<Text<'a>>,
    #[serde(borrow)]
    word_timestamps: Option<WordTimestamps<'a>>,
}

#[derive(Deserialize)]
struct WordTimestamps<'a> {
    #[serde(borrow)]
    words: Vec<Text<'a>>,
    end: Vec<f64>,
}

pub(crate) struct Speaker {
    provider: &'static str,
    contexts: Contexts,
    /// What is the same in every request of a session.
    manner: Map<String, Value>,
    /// When audio last came, whichever reply's.
    audible: Option<Instant>,
}

impl Speaker {
    pub(crate) fn new(service: &Service, language: &str) -> Self {
        let manner = service.with_options(json!({
            "model_id": service.model,
            "voice": { "mode": "id", "id": service.voice },
            "language": language,
            "output_format": { "container": "raw", "encoding": "pcm_mulaw", "sample_rate": 8_000 },
            "add_timestamps": true,
            // Clauses come whole: nothing is gained by waiting for more.
            "max_buffer_delay_ms": 0,
        }));
        let contexts = Contexts::new(service.provider, AudioFormat::Mulaw);
        Speaker { provider: service.provider, contexts, manner, audible: None }
    }

    fn generate(&mut self, context: u32, transcript: &str, more: bool, out: &mut Outbox<TtsEvent>) {
        let Some(context) = self.contexts.live_mut(context) else { return };
        context.is_open = true;
        out.send_json(&Generation {
            context_id: &context.name(),
            transcript,
            r#continue: more,
            manner: &self.manner,
        });
    }

    /// The reply was heard, and then nothing for so long that its context is taken for dead.
    fn is_stale(&self, context: u32) -> bool {
        let has_begun = self.contexts.live(context).is_some_and(|context| context.is_audible());
        has_begun && self.audible.is_some_and(|at| at.elapsed() > CONTEXT_LIFE)
    }

    fn align(&mut self, context: u32, times: &WordTimestamps, out: &mut Outbox<TtsEvent>) {
        let Some(reply) = self.contexts.live_mut(context) else { return };
        let start_ms = reply.part_start_ms;
        let words = times.words.iter().zip(&times.end);
        let anchors: Vec<_> =
            words.filter_map(|(word, end)| reply.word(word, start_ms.saturating_add(ms(*end)))).collect();
        if !anchors.is_empty() {
            out.report(TtsEvent::Aligned { context, anchors });
        }
    }
}

impl Protocol for Speaker {
    type Command = TtsCommand;
    type Event = TtsEvent;

    fn opened() -> TtsEvent {
        TtsEvent::Opened
    }

    fn failed(error: ProviderError) -> TtsEvent {
        TtsEvent::Failed { context: None, error }
    }

    fn command(&mut self, command: TtsCommand, out: &mut Outbox<TtsEvent>) {
        match command {
            TtsCommand::Speak { context, text } => {
                if self.is_stale(context) {
                    self.contexts.next_part(context);
                }
                if self.contexts.speak(context, &text, out) != Spoken::Nothing {
                    self.generate(context, &text, true, out);
                }
            }
            TtsCommand::Finish { context } => {
                if self.contexts.finish(context, out) == Finished::Already {
                    return;
                }
                if self.contexts.live(context).is_some_and(|reply| reply.is_open) {
                    self.generate(context, "", false, out);
                } else {
                    self.contexts.done(context, out);
                }
            }
            TtsCommand::Cancel { context } => {
                if let Some(reply) = self.contexts.live(context).filter(|reply| reply.is_open) {
                    out.send_json(&Cancel { context_id: &reply.name(), cancel: true });
                }
                self.contexts.cancel(context);
            }
        }
    }

    fn text(&mut self, frame: &str, out: &mut Outbox<TtsEvent>) -> Result<(), ProviderError> {
        let read: Frame = serde_json::from_str(frame)
            .map_err(|_| ProviderError::malformed(self.provider, "a message that is not understood"))?;
        let named = read.context_id.as_deref().map(parse_name);
        let live = named.flatten().filter(|(id, _)| self.contexts.is_live(*id));
        match (read.kind.as_deref().unwrap_or_default(), live) {
            ("chunk", Some((id, _))) => {
                let audio = BASE64.decode(read.data.as_deref().unwrap_or_default().as_bytes());
                match audio {
                    Ok(audio) => {
                        self.audible = Some(Instant::now());
                        self.contexts.audio(id, audio.into(), out);
                    }
                    Err(_) => {
                        let error = ProviderError::malformed(self.provider, "audio that is not base64");
                        self.contexts.fail(id, error, out);
                    }
                }
            }
            ("timestamps", Some((id, _))) => {
                if let Some(times) = &read.word_timestamps {
                    self.align(id, times, out);
                }
            }
            ("done", Some((id, part))) => match self.contexts.live(id) {
                Some(reply) if reply.part != part => {}
                Some(reply) if reply.finished => self.contexts.done(id, out),
                _ => self.contexts.next_part(id),
            },
            ("error", Some((id, _))) => {
                // An end that came too late for its context changes nothing: everything was spoken.
                if self.contexts.live(id).is_some_and(|reply| reply.finished) && self.is_stale(id) {
                    self.contexts.done(id, out);
                } else {
                    self.contexts.fail(id, in_stream(self.provider, frame.as_bytes()), out);
                }
            }
            ("error", None) if named.is_none() => return Err(in_stream(self.provider, frame.as_bytes())),
            _ => {}
        }
        Ok(())
    }

    fn is_owed(&self) -> bool {
        self.contexts.iter().any(|reply| reply.finished || !reply.is_audible())
    }

    fn may_close(&self) -> bool {
        self.contexts.is_idle()
    }

    fn farewell(&mut self, _out: &mut Outbox<TtsEvent>) {}
}
