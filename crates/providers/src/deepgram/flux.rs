//! Flux over `/v2/listen`: transcription by a model that also tells turns, with an early guess that a turn is over.
//! It does not know what is done with a turn.

use super::dial;
use super::listen::MAX_KEYWORDS;
use crate::json::{Text, ms};
use crate::refusal::in_stream;
use crate::settings::Service;
use crate::ws::{self, Outbox, Protocol};
use crate::{AudioFormat, ProviderError, Stt, SttCommand, SttEvent, SttOptions, SttSession};
use serde::Deserialize;

/// How sure Flux must be that a turn may be over before it says so early; without a figure it never does.
const EAGER_EOT_THRESHOLD: &str = "0.5";

/// Deepgram's recogniser with turns.
pub(crate) struct Flux(pub(crate) Service);

impl Stt for Flux {
    fn name(&self) -> &'static str {
        self.0.provider
    }

    fn format(&self) -> AudioFormat {
        AudioFormat::Mulaw
    }

    fn open(&self, options: SttOptions) -> SttSession {
        let service = &self.0;
        let mut asked = vec![
            ("model", service.model.as_str()),
            ("encoding", "mulaw"),
            ("sample_rate", "8000"),
            ("eager_eot_threshold", EAGER_EOT_THRESHOLD),
        ];
        if service.model.ends_with("-multi") {
            asked.push(("language_hint", options.language.primary()));
        }
        asked.extend(options.keywords.iter().take(MAX_KEYWORDS).map(|word| ("keyterm", word.as_str())));
        let url = service.ws_url(&["v2", "listen"], &asked, &[]);
        let (commands, events) = ws::open(dial(service, url), TurnListener::new(service.provider));
        SttSession { commands, events }
    }
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    event: Option<Text<'a>>,
    #[serde(borrow)]
    transcript: Option<Text<'a>>,
    audio_window_start: Option<f64>,
    audio_window_end: Option<f64>,
}

pub(crate) struct TurnListener {
    provider: &'static str,
    /// The turn so far, as last told.
    turn: String,
    start_ms: u32,
    end_ms: u32,
    /// Words of the turn that were reported as final before its end.
    final_words: usize,
    is_ending: bool,
}

impl TurnListener {
    pub(crate) fn new(provider: &'static str) -> Self {
        TurnListener {
            provider,
            turn: String::new(),
            start_ms: 0,
            end_ms: 0,
            final_words: 0,
            is_ending: false,
        }
    }

    fn turn_info(&mut self, frame: Frame, out: &mut Outbox<SttEvent>) {
        let event = frame.event.as_deref().unwrap_or_default();
        if event == "StartOfTurn" {
            self.final_words = 0;
        }
        self.turn = frame.transcript.map(Text::into_owned).unwrap_or_default();
        self.start_ms = ms(frame.audio_window_start.unwrap_or_default());
        self.end_ms = ms(frame.audio_window_end.unwrap_or_default());
        match event {
            "StartOfTurn" | "Update" | "TurnResumed" => {
                let text = self.rest();
                if !text.is_empty() {
                    out.report(SttEvent::Interim { text, start_ms: self.start_ms, end_ms: self.end_ms });
                }
            }
            "EagerEndOfTurn" => out.report(SttEvent::EagerEnd { text: self.rest() }),
            "EndOfTurn" => {
                self.make_final(true, out);
                self.turn.clear();
                self.final_words = 0;
            }
            _ => {}
        }
    }

    /// The turn's words that are not final yet.
    fn rest(&self) -> String {
        if self.final_words == 0 {
            return self.turn.clone();
        }
        self.turn.split_whitespace().skip(self.final_words).collect::<Vec<_>>().join(" ")
    }

    fn make_final(&mut self, utterance_end: bool, out: &mut Outbox<SttEvent>) {
        let text = self.rest();
        self.final_words = self.turn.split_whitespace().count();
        out.report(SttEvent::Final { text, start_ms: self.start_ms, end_ms: self.end_ms, utterance_end });
    }
}

impl Protocol for TurnListener {
    type Command = SttCommand;
    type Event = SttEvent;

    fn opened() -> SttEvent {
        SttEvent::Opened
    }

    fn failed(error: ProviderError) -> SttEvent {
        SttEvent::Failed(error)
    }

    fn command(&mut self, command: SttCommand, out: &mut Outbox<SttEvent>) {
        match command {
            SttCommand::Audio(audio) if audio.is_empty() => {}
            SttCommand::Audio(audio) => out.send_binary(audio),
            // Flux cannot be asked: what it has said of the turn is taken as it stands.
            SttCommand::Finalize => self.make_final(false, out),
            SttCommand::Context(_) => {}
        }
    }

    fn text(&mut self, frame: &str, out: &mut Outbox<SttEvent>) -> Result<(), ProviderError> {
        let read: Frame = serde_json::from_str(frame)
            .map_err(|_| ProviderError::malformed(self.provider, "a message that is not understood"))?;
        match read.kind.as_deref().unwrap_or_default() {
            "TurnInfo" => self.turn_info(read, out),
            "Error" => return Err(in_stream(self.provider, frame.as_bytes())),
            _ => {}
        }
        Ok(())
    }

    fn is_owed(&self) -> bool {
        self.is_ending
    }

    fn farewell(&mut self, out: &mut Outbox<SttEvent>) {
        self.is_ending = true;
        out.send_text(r#"{"type":"CloseStream"}"#);
    }
}
