//! ElevenLabs voices over `multi-stream-input`: many contexts on one socket (protocols/providers.md, section 6).
//! It does not know a call: a context is one reply, in clauses.

use crate::contexts::{Contexts, Finished, Spoken, parse_name};
use crate::json::Text;
use crate::refusal::in_stream;
use crate::settings::Service;
use crate::ws::{self, Outbox, Protocol};
use crate::{AudioFormat, ProviderError, Tts, TtsCommand, TtsEvent, TtsOptions, TtsSession, http};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::{Method, RequestBuilder};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Options that belong into a context's first message; all others are query parameters.
const FIRST_MESSAGE_OPTIONS: [&str; 3] =
    ["voice_settings", "generation_config", "pronunciation_dictionary_locators"];

/// The longest inactivity that can be asked for, seconds: callers may talk for long between two replies.
const INACTIVITY_TIMEOUT_S: &str = "180";

/// A voice of ElevenLabs.
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
        let path = ["v1", "text-to-speech", &service.voice, "multi-stream-input"];
        let asked = [
            ("model_id", service.model.as_str()),
            ("output_format", "ulaw_8000"),
            ("language_code", options.language.primary()),
            ("inactivity_timeout", INACTIVITY_TIMEOUT_S),
            // Clauses are spoken as they come, not gathered to 120 characters.
            ("auto_mode", "true"),
            ("sync_alignment", "true"),
        ];
        let url = service.ws_url(&path, &asked, &FIRST_MESSAGE_OPTIONS);
        let dial = service.dial(url, service.key_header("xi-api-key", "").into_iter().collect());
        let (commands, events) = ws::open(dial, Speaker::new(service));
        TtsSession { commands, events }
    }
}

/// A list of voices: the harmless test. (A key that is limited to speech may not read its user.)
pub(crate) fn list_request(service: &Service) -> RequestBuilder {
    http::request(Method::GET, service.url(&["v1", "voices"]), service.key_header("xi-api-key", ""))
}

#[derive(Default, Serialize)]
struct Message<'a> {
    context_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flush: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close_context: Option<bool>,
    #[serde(flatten)]
    settings: Option<&'a Map<String, Value>>,
}

/// A message of the server. Two names are written in two ways, in the schema and in the examples.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    audio: Option<Text<'a>>,
    #[serde(rename = "isFinal")]
    is_final: Option<bool>,
    #[serde(rename = "is_final")]
    is_final_too: Option<bool>,
    #[serde(borrow, rename = "contextId")]
    context_id: Option<Text<'a>>,
    #[serde(borrow, rename = "context_id")]
    context_id_too: Option<Text<'a>>,
    #[serde(borrow)]
    alignment: Option<Alignment<'a>>,
    error: Option<IgnoredAny>,
}

/// When each character is spoken, in ms of this message's audio.
#[derive(Deserialize)]
struct Alignment<'a> {
    #[serde(borrow)]
    chars: Vec<Text<'a>>,
    #[serde(rename = "charStartTimesMs")]
    starts_ms: Vec<f64>,
    #[serde(rename = "charsDurationsMs", alias = "charDurationsMs")]
    durations_ms: Vec<f64>,
}

pub(crate) struct Speaker {
    provider: &'static str,
    contexts: Contexts,
    /// What a context's first message says beside its text.
    settings: Map<String, Value>,
}

impl Speaker {
    pub(crate) fn new(service: &Service) -> Self {
        let mut settings = service.options.clone();
        settings.retain(|name, value| FIRST_MESSAGE_OPTIONS.contains(&name.as_str()) && !value.is_null());
        let contexts = Contexts::new(service.provider, AudioFormat::Mulaw);
        Speaker { provider: service.provider, contexts, settings }
    }

    fn clause(&mut self, context: u32, text: &str, out: &mut Outbox<TtsEvent>) {
        let Some(reply) = self.contexts.live_mut(context) else { return };
        let name = reply.name();
        let is_first = !std::mem::replace(&mut reply.is_open, true);
        if is_first {
            out.send_json(&Message {
                context_id: &name,
                text: Some(" ".into()),
                settings: Some(&self.settings),
                ..Message::default()
            });
        }
        let ends_in_space = text.ends_with(char::is_whitespace);
        let text = if ends_in_space { text.into() } else { format!("{text} ").into() };
        // The caller waits for the first clause; what follows has its time while that one plays.
        let flush = is_first.then_some(true);
        out.send_json(&Message { context_id: &name, text: Some(text), flush, ..Message::default() });
    }

    fn audio(&mut self, context: u32, frame: &Frame, out: &mut Outbox<TtsEvent>) {
        let Some(coded) = frame.audio.as_deref().filter(|coded| !coded.is_empty()) else { return };
        let Ok(audio) = BASE64.decode(coded.as_bytes()) else {
            let error = ProviderError::malformed(self.provider, "audio that is not base64");
            return self.contexts.fail(context, error, out);
        };
        let start_ms = self.contexts.audio_ms(context);
        if let (Some(reply), Some(alignment)) = (self.contexts.live_mut(context), &frame.alignment) {
            let times = alignment.starts_ms.iter().zip(&alignment.durations_ms);
            let ends = times.map(|(start, duration)| start_ms.saturating_add((start + duration) as u32));
            let characters = alignment.chars.iter().map(|character| &**character);
            let anchors = reply.characters(characters.zip(ends));
            if !anchors.is_empty() {
                out.report(TtsEvent::Aligned { context, anchors });
            }
        }
        self.contexts.audio(context, audio.into(), out);
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
                if self.contexts.speak(context, &text, out) != Spoken::Nothing {
                    self.clause(context, &text, out);
                }
            }
            TtsCommand::Finish { context } => {
                if self.contexts.finish(context, out) == Finished::Already {
                    return;
                }
                match self.contexts.live(context).filter(|reply| reply.is_open) {
                    Some(reply) => {
                        let name = &reply.name();
                        let message = Message { context_id: name, ..Message::default() };
                        out.send_json(&Message { flush: Some(true), ..message });
                        let message = Message { context_id: name, ..Message::default() };
                        out.send_json(&Message { close_context: Some(true), ..message });
                    }
                    None => self.contexts.done(context, out),
                }
            }
            TtsCommand::Cancel { context } => {
                if let Some(reply) = self.contexts.live(context).filter(|reply| reply.is_open) {
                    let message = Message { context_id: &reply.name(), ..Message::default() };
                    out.send_json(&Message { close_context: Some(true), ..message });
                }
                self.contexts.cancel(context);
            }
        }
    }

    fn text(&mut self, frame: &str, out: &mut Outbox<TtsEvent>) -> Result<(), ProviderError> {
        let read: Frame = serde_json::from_str(frame)
            .map_err(|_| ProviderError::malformed(self.provider, "a message that is not understood"))?;
        let name = read.context_id.as_deref().or(read.context_id_too.as_deref());
        let named = name.map(parse_name);
        let Some((id, part)) = named.flatten().filter(|(id, _)| self.contexts.is_live(*id)) else {
            let is_the_session_s = read.error.is_some() && named.is_none();
            return if is_the_session_s { Err(in_stream(self.provider, frame.as_bytes())) } else { Ok(()) };
        };
        if read.error.is_some() {
            self.contexts.fail(id, in_stream(self.provider, frame.as_bytes()), out);
            return Ok(());
        }
        self.audio(id, &read, out);
        let is_final = read.is_final == Some(true) || read.is_final_too == Some(true);
        match self.contexts.live(id).filter(|reply| is_final && reply.part == part) {
            Some(reply) if reply.finished => self.contexts.done(id, out),
            Some(_) => self.contexts.next_part(id),
            None => {}
        }
        Ok(())
    }

    fn is_owed(&self) -> bool {
        self.contexts.iter().any(|reply| reply.finished || !reply.is_audible())
    }

    fn may_close(&self) -> bool {
        self.contexts.is_idle()
    }

    fn farewell(&mut self, out: &mut Outbox<TtsEvent>) {
        out.send_text(r#"{"close_socket":true}"#);
    }
}
