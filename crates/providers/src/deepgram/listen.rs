//! Live transcription over `/v1/listen`: audio in, segments out, put together into utterances.
//! It does not know when a caller's turn is over; it passes on what Deepgram takes for the end of an utterance.

use super::dial;
use crate::json::{Text, ms};
use crate::refusal::in_stream;
use crate::settings::Service;
use crate::ws::{self, Outbox, Protocol};
use crate::{AudioFormat, ProviderError, Stt, SttCommand, SttEvent, SttOptions, SttSession};
use bytes::Bytes;
use offhook_media::g711::MU_LAW_SILENCE;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;

/// Words to listen for that are passed on.
pub(super) const MAX_KEYWORDS: usize = 100;

/// Deepgram closes a connection that is silent for 10 s, and advises one message every 3 to 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// The shortest gap between words that `UtteranceEnd` can be asked for, ms.
const UTTERANCE_END_MS: &str = "1000";

/// Silence that stands in for the first audio, ms: keep-alives alone do not hold a connection open.
const LEAD_MS: u32 = 20;

/// Deepgram's recogniser.
pub(crate) struct Listen(pub(crate) Service);

impl Stt for Listen {
    fn name(&self) -> &'static str {
        self.0.provider
    }

    fn format(&self) -> AudioFormat {
        AudioFormat::Mulaw
    }

    fn open(&self, options: SttOptions) -> SttSession {
        let service = &self.0;
        let endpointing = options.endpointing_ms.to_string();
        let mut asked = vec![
            ("model", service.model.as_str()),
            ("encoding", "mulaw"),
            ("sample_rate", "8000"),
            ("channels", "1"),
            ("language", options.language.as_str()),
            ("interim_results", "true"),
            ("endpointing", &endpointing),
            ("utterance_end_ms", UTTERANCE_END_MS),
            ("smart_format", "true"),
            ("punctuate", "true"),
        ];
        let keywords = if service.model.starts_with("nova-3") { "keyterm" } else { "keywords" };
        asked.extend(options.keywords.iter().take(MAX_KEYWORDS).map(|word| (keywords, word.as_str())));
        let url = service.ws_url(&["v1", "listen"], &asked, &[]);
        let (commands, events) = ws::open(dial(service, url), Listener::new(service.provider));
        SttSession { commands, events }
    }
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    start: Option<f64>,
    duration: Option<f64>,
    #[serde(default)]
    is_final: bool,
    #[serde(default)]
    speech_final: bool,
    #[serde(default)]
    from_finalize: bool,
    /// An object in results, an array of numbers in the other messages.
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Channel<'a> {
    #[serde(borrow, default)]
    alternatives: Vec<Alternative<'a>>,
}

#[derive(Deserialize)]
struct Alternative<'a> {
    #[serde(borrow)]
    transcript: Option<Text<'a>>,
}

pub(crate) struct Listener {
    provider: &'static str,
    /// Audio that Deepgram had before the caller's, ms.
    lead_ms: u32,
    is_fed: bool,
    /// Words have been reported since the last end of an utterance.
    has_words: bool,
    /// The last words are not final yet.
    is_interim: bool,
    /// They were asked to be made final.
    is_finalizing: bool,
    is_ending: bool,
}

impl Listener {
    pub(crate) fn new(provider: &'static str) -> Self {
        Listener {
            provider,
            lead_ms: 0,
            is_fed: false,
            has_words: false,
            is_interim: false,
            is_finalizing: false,
            is_ending: false,
        }
    }

    fn results(&mut self, frame: &Frame, out: &mut Outbox<SttEvent>) -> Result<(), ProviderError> {
        let channel = frame.channel.map(|channel| serde_json::from_str::<Channel>(channel.get())).transpose();
        let channel = channel.map_err(|_| self.not_understood())?;
        let best = channel.and_then(|channel| channel.alternatives.into_iter().next());
        let text = best.and_then(|best| best.transcript).map(Text::into_owned).unwrap_or_default();
        let start = frame.start.unwrap_or_default();
        let start_ms = ms(start).saturating_sub(self.lead_ms);
        let end_ms = ms(start + frame.duration.unwrap_or_default()).saturating_sub(self.lead_ms);
        self.has_words |= !text.is_empty();
        if !frame.is_final {
            if !text.is_empty() {
                self.is_interim = true;
                out.report(SttEvent::Interim { text, start_ms, end_ms });
            }
            return Ok(());
        }
        self.is_interim = false;
        self.is_finalizing = false;
        let utterance_end = frame.speech_final && self.has_words;
        // Silence gives empty finals all the time; they are news only where somebody waits for one.
        if !text.is_empty() || utterance_end || frame.from_finalize {
            out.report(SttEvent::Final { text, start_ms, end_ms, utterance_end });
        }
        self.has_words &= !utterance_end;
        Ok(())
    }

    fn not_understood(&self) -> ProviderError {
        ProviderError::malformed(self.provider, "a message that is not understood")
    }
}

impl Protocol for Listener {
    type Command = SttCommand;
    type Event = SttEvent;

    const KEEP_ALIVE: Option<Duration> = Some(KEEP_ALIVE);

    fn opened() -> SttEvent {
        SttEvent::Opened
    }

    fn failed(error: ProviderError) -> SttEvent {
        SttEvent::Failed(error)
    }

    fn command(&mut self, command: SttCommand, out: &mut Outbox<SttEvent>) {
        match command {
            // An empty frame would end the stream.
            SttCommand::Audio(audio) if audio.is_empty() => {}
            SttCommand::Audio(audio) => {
                self.is_fed = true;
                out.send_binary(audio);
            }
            SttCommand::Finalize => {
                self.is_finalizing |= self.is_interim;
                out.send_text(r#"{"type":"Finalize"}"#);
            }
            SttCommand::Context(_) => {}
        }
    }

    fn text(&mut self, frame: &str, out: &mut Outbox<SttEvent>) -> Result<(), ProviderError> {
        let read: Frame = serde_json::from_str(frame).map_err(|_| self.not_understood())?;
        match read.kind.as_deref().unwrap_or_default() {
            "Results" => self.results(&read, out)?,
            // Noise can keep `speech_final` away; this does not come without words.
            "UtteranceEnd" if std::mem::take(&mut self.has_words) => out.report(SttEvent::UtteranceEnd),
            "Error" => return Err(in_stream(self.provider, frame.as_bytes())),
            _ => {}
        }
        Ok(())
    }

    fn is_owed(&self) -> bool {
        self.is_finalizing || self.is_ending
    }

    fn keep_alive(&mut self, out: &mut Outbox<SttEvent>) {
        if !std::mem::replace(&mut self.is_fed, true) {
            self.lead_ms = LEAD_MS;
            out.send_binary(Bytes::from_static(&[MU_LAW_SILENCE; 8 * LEAD_MS as usize]));
        }
        out.send_text(r#"{"type":"KeepAlive"}"#);
    }

    fn farewell(&mut self, out: &mut Outbox<SttEvent>) {
        self.is_ending = true;
        out.send_text(r#"{"type":"CloseStream"}"#);
    }
}
