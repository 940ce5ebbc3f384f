//! Aura voices over `/v1/speak`: text in, bare audio out, in the order of the text.
//! The socket knows no contexts; which reply audio belongs to follows from the order of flushes.

use super::dial;
use crate::contexts::{Contexts, Finished, Spoken};
use crate::json::Text;
use crate::refusal::in_stream;
use crate::settings::Service;
use crate::ws::{self, Outbox, Protocol};
use crate::{AudioFormat, ProviderError, Tts, TtsCommand, TtsEvent, TtsOptions, TtsSession};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Deepgram takes 20 flushes in this time and ignores the rest.
const FLUSH_WINDOW: Duration = Duration::from_secs(60);

/// Flushes of that number which may be spent on single clauses; the others are kept for the ends of replies.
const CLAUSE_FLUSHES: usize = 12;

/// A voice of Deepgram.
pub(crate) struct Speak(pub(crate) Service);

impl Tts for Speak {
    fn name(&self) -> &'static str {
        self.0.provider
    }

    fn format(&self) -> AudioFormat {
        AudioFormat::Mulaw
    }

    fn open(&self, _options: TtsOptions) -> TtsSession {
        let service = &self.0;
        // Deepgram's voices are its models, each of one language.
        let voice = if service.voice.is_empty() { &service.model } else { &service.voice };
        let asked = [("model", voice.as_str()), ("encoding", "mulaw"), ("sample_rate", "8000")];
        let url = service.ws_url(&["v1", "speak"], &asked, &[]);
        let (commands, events) = ws::open(dial(service, url), Speaker::new(service.provider));
        TtsSession { commands, events }
    }
}

#[derive(Serialize)]
struct SpeakMessage<'a> {
    r#type: &'static str,
    text: &'a str,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    code: Option<Text<'a>>,
}

pub(crate) struct Speaker {
    provider: &'static str,
    contexts: Contexts,
    /// The reply whose text was sent since the last flush.
    unflushed: Option<u32>,
    /// Flushed text whose audio is not complete yet.
    pieces: VecDeque<Piece>,
    /// Clears that were not confirmed yet: until then, all that comes is old.
    clearing: u32,
    /// When flushes were sent, within the last window.
    flushes: VecDeque<Instant>,
}

/// Text between two flushes.
struct Piece {
    context: u32,
    /// Where it ends in the reply's text.
    end_bytes: usize,
}

impl Speaker {
    pub(crate) fn new(provider: &'static str) -> Self {
        Speaker {
            provider,
            contexts: Contexts::new(provider, AudioFormat::Mulaw),
            unflushed: None,
            pieces: VecDeque::new(),
            clearing: 0,
            flushes: VecDeque::new(),
        }
    }

    /// Has everything spoken that waits.
    fn flush(&mut self, out: &mut Outbox<TtsEvent>) {
        let Some(context) = self.unflushed.take() else { return };
        let end_bytes = self.contexts.live(context).map_or(0, |reply| reply.text.len());
        self.pieces.push_back(Piece { context, end_bytes });
        self.flushes.push_back(Instant::now());
        out.send_text(r#"{"type":"Flush"}"#);
    }

    /// Has a clause spoken at once if nothing else is, and if flushes can be spared.
    fn flush_clause(&mut self, out: &mut Outbox<TtsEvent>) {
        self.flushes.retain(|at| at.elapsed() < FLUSH_WINDOW);
        if self.pieces.is_empty() && self.flushes.len() < CLAUSE_FLUSHES {
            self.flush(out);
        }
    }

    fn cancel(&mut self, context: u32, out: &mut Outbox<TtsEvent>) {
        if !self.contexts.cancel(context) {
            return;
        }
        let waiting = self.pieces.iter().map(|piece| piece.context).chain(self.unflushed);
        let (mut of_the_dead, mut of_the_living) = (0, 0);
        for id in waiting {
            *(if self.contexts.is_live(id) { &mut of_the_living } else { &mut of_the_dead }) += 1;
        }
        if of_the_dead == 0 {
            return;
        }
        if of_the_living == 0 {
            self.pieces.clear();
            self.unflushed = None;
            self.clearing += 1;
            out.send_text(r#"{"type":"Clear"}"#);
        } else if self.unflushed == Some(context) {
            // A clear would take another reply's words with it: this one is spoken to its end, and dropped here.
            self.flush(out);
        }
    }

    fn flushed(&mut self, out: &mut Outbox<TtsEvent>) {
        let Some(Piece { context, end_bytes }) = self.pieces.pop_front() else { return };
        self.contexts.delivered(context, end_bytes, out);
        if self.unflushed.is_some() {
            self.flush_clause(out);
        }
        self.end_if_spoken(context, out);
    }

    fn end_if_spoken(&mut self, context: u32, out: &mut Outbox<TtsEvent>) {
        let waits =
            self.unflushed == Some(context) || self.pieces.iter().any(|piece| piece.context == context);
        if !waits && self.contexts.live(context).is_some_and(|reply| reply.finished) {
            self.contexts.done(context, out);
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
                if self.unflushed.is_some_and(|other| other != context) {
                    self.flush(out);
                }
                if self.contexts.speak(context, &text, out) != Spoken::Nothing {
                    out.send_json(&SpeakMessage { r#type: "Speak", text: &text });
                    self.unflushed = Some(context);
                    self.flush_clause(out);
                }
            }
            TtsCommand::Finish { context } => {
                if self.contexts.finish(context, out) == Finished::Speaking {
                    if self.unflushed == Some(context) {
                        self.flush(out);
                    }
                    self.end_if_spoken(context, out);
                }
            }
            TtsCommand::Cancel { context } => self.cancel(context, out),
        }
    }

    fn text(&mut self, frame: &str, out: &mut Outbox<TtsEvent>) -> Result<(), ProviderError> {
        let read: Frame = serde_json::from_str(frame)
            .map_err(|_| ProviderError::malformed(self.provider, "a message that is not understood"))?;
        match read.kind.as_deref().unwrap_or_default() {
            "Flushed" if self.clearing == 0 => self.flushed(out),
            "Cleared" => self.clearing = self.clearing.saturating_sub(1),
            "Warning" => {
                let code = read.code.as_deref().unwrap_or_default();
                tracing::warn!(provider = self.provider, code, "Voice provider warns");
            }
            "Error" => return Err(in_stream(self.provider, frame.as_bytes())),
            _ => {}
        }
        Ok(())
    }

    fn binary(&mut self, audio: Bytes, out: &mut Outbox<TtsEvent>) -> Result<(), ProviderError> {
        if self.clearing > 0 {
            return Ok(());
        }
        let speaking = self.pieces.front().map(|piece| piece.context).or(self.unflushed);
        if let Some(context) = speaking {
            self.contexts.audio(context, audio, out);
        }
        Ok(())
    }

    fn is_owed(&self) -> bool {
        !self.pieces.is_empty() || self.clearing > 0
    }

    fn may_close(&self) -> bool {
        self.contexts.is_idle() && !self.is_owed()
    }

    fn farewell(&mut self, out: &mut Outbox<TtsEvent>) {
        out.send_text(r#"{"type":"Close"}"#);
    }
}
