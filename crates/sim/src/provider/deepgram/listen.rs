//! Live transcription, `/v1/listen`: Results, SpeechStarted and UtteranceEnd as the audio fed decides them. It knows no turns.

use super::{REQUEST_ID, flag, input_format, number, seconds};
use crate::provider::agenda::Agenda;
use crate::provider::listener::{Listener, bare, transcript};
use crate::provider::program::Moment;
use crate::provider::socket::{Incoming, NOT_JSON, Outgoing, Over, Wire};
use crate::provider::spelled::HeardWord;
use crate::provider::voice::AudioFormat;
use crate::provider::{Call, Fault, Service, Shared};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// What the query asks for.
pub(super) struct Options {
    /// Without it the first audio closes the socket: a container is not recognised here.
    format: Option<AudioFormat>,
    model: String,
    interim_results: bool,
    /// Silence that ends an utterance; `None` where it is switched off.
    endpointing_ms: Option<u64>,
    utterance_end_ms: Option<u64>,
    vad_events: bool,
    /// Capitals and punctuation as spoken.
    formatted: bool,
}

impl Options {
    fn parse(call: &Call) -> Result<Options, String> {
        let interim_results = flag(call, "interim_results")?;
        let utterance_end_ms = number(call, "utterance_end_ms")?;
        if utterance_end_ms.is_some_and(|ms: u64| ms < 1_000) {
            return Err("utterance_end_ms must be at least 1000".into());
        }
        if utterance_end_ms.is_some() && !interim_results {
            return Err("utterance_end_ms needs interim_results=true".into());
        }
        if call.parameter("keyterm").is_some()
            && !call.parameter("model").is_some_and(|model| model.starts_with("nova-3"))
        {
            return Err("keyterm needs a nova-3 model".into());
        }
        if number::<u8>(call, "channels")?.is_some_and(|channels| channels != 1) {
            return Err("the simulated server hears one channel".into());
        }
        const ENDPOINTING_MS: u64 = 10;
        let endpointing_ms = match call.parameter("endpointing") {
            Some("false") => None,
            Some("true") | None => Some(ENDPOINTING_MS),
            Some(_) => number(call, "endpointing")?,
        };
        Ok(Options {
            format: input_format(call)?,
            model: call.parameter("model").unwrap_or("base-general").to_owned(),
            interim_results,
            endpointing_ms,
            utterance_end_ms,
            vad_events: flag(call, "vad_events")?,
            formatted: flag(call, "smart_format")? | flag(call, "punctuate")?,
        })
    }
}

/// An interim transcript comes about every second.
const INTERIM_MS: u64 = 1_000;

/// A segment is made final at this length even when speech goes on.
const SEGMENT_MS: u64 = 5_000;

/// Silence yields an empty final transcript every so often.
const EMPTY_MS: u64 = 5_000;

pub(super) struct Session {
    wire: Wire,
    shared: Arc<Shared>,
    options: Options,
    listener: Option<Listener>,
    agenda: Agenda<Outgoing>,
    /// Nothing is sent before what was decided earlier.
    last_due: Instant,
    silence_limit: Instant,
    fault: Option<Fault>,
    /// Stalled: it hears no more, or at least says nothing.
    mute: bool,
    speaking: bool,
    /// Where the next segment begins in the audio.
    segment_ms: u64,
    last_interim_ms: u64,
    /// The end of the last word, and of the last word after which UtteranceEnd was sent.
    last_word_end_ms: u64,
    utterance_end_ms: u64,
}

impl super::Session for Session {
    const SERVICE: Service = Service::DeepgramListen;
    const PARAMETERS: &[&str] = &[
        "model",
        "encoding",
        "sample_rate",
        "channels",
        "multichannel",
        "language",
        "interim_results",
        "endpointing",
        "utterance_end_ms",
        "vad_events",
        "smart_format",
        "punctuate",
        "numerals",
        "profanity_filter",
        "redact",
        "dictation",
        "diarize_model",
        "keyterm",
        "keywords",
        "tag",
        "mip_opt_out",
        "callback",
        "extra",
        "version",
    ];
    type Options = Options;

    fn options(call: &Call) -> Result<Options, String> {
        Options::parse(call)
    }

    fn new(wire: Wire, shared: Arc<Shared>, options: Options) -> Session {
        let now = Instant::now();
        let listener =
            options.format.map(|format| Listener::new(shared.clone(), format.encoding, format.rate_hz));
        let mut session = Session {
            wire,
            shared,
            options,
            listener,
            agenda: Agenda::new(),
            last_due: now,
            silence_limit: now,
            fault: None,
            mute: false,
            speaking: false,
            segment_ms: 0,
            last_interim_ms: 0,
            last_word_end_ms: 0,
            utterance_end_ms: 0,
        };
        session.heard_from();
        session
    }

    async fn run(mut self) {
        while self.turn().await.is_ok() {}
    }
}

impl Session {
    async fn turn(&mut self) -> Result<(), Over> {
        tokio::select! {
            outgoing = self.agenda.due() => self.wire.send(outgoing).await,
            incoming = self.wire.next() => self.take(incoming).await,
            () = sleep_until(self.silence_limit) => {
                let reason = "NET-0001: Deepgram did not receive audio data or a text message within the timeout window.";
                Err(self.wire.close(1011, reason).await)
            }
        }
    }

    async fn take(&mut self, incoming: Incoming) -> Result<(), Over> {
        match incoming {
            Incoming::Audio(bytes) if bytes.is_empty() => {
                self.wire.entry.oddity("empty binary message: closes the stream");
                self.close_stream().await
            }
            Incoming::Audio(bytes) => {
                let Some(listener) = &mut self.listener else {
                    self.wire.entry.oddity("raw audio without encoding");
                    let reason = "DATA-0000: The payload cannot be decoded as audio.";
                    return Err(self.wire.close(1008, reason).await);
                };
                listener.feed(&bytes);
                self.heard_from();
                while self.listener.as_mut().is_some_and(Listener::step) {
                    self.decide();
                }
                Ok(())
            }
            Incoming::Json(message) => match message["type"].as_str() {
                Some("KeepAlive") => {
                    // Alone it does not stand for the first audio.
                    if self.listener.as_ref().is_some_and(|listener| listener.now_ms() > 0) {
                        self.heard_from();
                    }
                    Ok(())
                }
                Some("Finalize") => {
                    self.finalize();
                    Ok(())
                }
                Some("CloseStream") => self.close_stream().await,
                _ => self.not_understood().await,
            },
            Incoming::NotJson => self.not_understood().await,
            Incoming::Gone => Err(Over),
        }
    }

    async fn not_understood(&mut self) -> Result<(), Over> {
        self.wire.entry.oddity("unknown text message");
        Err(self.wire.close(1008, "DATA-0000: The payload is neither audio nor a known message.").await)
    }

    fn heard_from(&mut self) {
        self.silence_limit =
            Instant::now() + Duration::from_millis(self.shared.program().limits.deepgram_silence_ms);
    }

    /// After each 10 ms of audio: is anything worth a message?
    fn decide(&mut self) {
        let Some(listener) = &self.listener else { return };
        let now_ms = listener.now_ms();
        let silence_ms = listener.silence_ms();
        if let Some(began_ms) = listener.speaking_since_ms().filter(|_| !self.speaking) {
            self.speech_started(began_ms);
        }
        if !self.speaking {
            if now_ms >= self.segment_ms + EMPTY_MS {
                self.results(Vec::new(), Kind::Final { speech: false, finalize: false });
            }
        } else if self.options.endpointing_ms.is_some_and(|ms| silence_ms >= ms) {
            self.end_utterance(false);
        } else if now_ms >= self.segment_ms + SEGMENT_MS {
            let words = self.take_words();
            self.results(words, Kind::Final { speech: false, finalize: false });
        } else if self.options.interim_results && now_ms >= self.last_interim_ms + INTERIM_MS {
            self.last_interim_ms = now_ms;
            let words = self.words().to_vec();
            self.results(words, Kind::Interim);
        }
        self.check_utterance_end(now_ms);
    }

    fn speech_started(&mut self, began_ms: u64) {
        self.speaking = true;
        self.segment_ms = began_ms;
        self.last_interim_ms = began_ms;
        self.fault = self.shared.draw(Service::DeepgramListen, Moment::Answer, &self.wire.entry);
        self.mute |= self.fault == Some(Fault::Stall);
        if self.options.vad_events {
            let delay_ms = self.shared.program().delays.stt_interim_ms;
            self.push(
                json!({"type": "SpeechStarted", "channel": [0, 1], "timestamp": seconds(began_ms)}),
                delay_ms,
            );
        }
    }

    fn check_utterance_end(&mut self, now_ms: u64) {
        if let Some(word) = self.words().last() {
            self.last_word_end_ms = word.end_ms;
        }
        let end_ms = self.last_word_end_ms;
        let due = self.options.utterance_end_ms.is_some_and(|limit_ms| now_ms >= end_ms + limit_ms);
        if !due || end_ms <= self.utterance_end_ms {
            return;
        }
        self.utterance_end_ms = end_ms;
        let message = json!({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": seconds(end_ms)});
        let delay_ms = self.shared.program().delays.stt_final_ms;
        self.push(message, delay_ms);
    }

    fn end_utterance(&mut self, finalize: bool) {
        // Endless: the provider never finds that the speech is over.
        if self.fault == Some(Fault::Endless) {
            return self.keep_talking();
        }
        if let Some(listener) = &mut self.listener {
            listener.end_utterance();
        }
        self.speaking = false;
        let words = self.take_words();
        let speech = !finalize && self.fault != Some(Fault::MissingSpeechFinal);
        self.results(words, Kind::Final { speech, finalize });
        self.mute |= self.fault == Some(Fault::StallMidStream);
        self.fault = None;
    }

    fn keep_talking(&mut self) {
        let now_ms = self.listener.as_ref().map_or(0, Listener::now_ms);
        if now_ms >= self.last_interim_ms + INTERIM_MS {
            self.last_interim_ms = now_ms;
            let words = self.words().to_vec();
            self.results(words, Kind::Interim);
        }
    }

    fn finalize(&mut self) {
        if self.speaking || !self.words().is_empty() {
            self.end_utterance(true);
        }
    }

    async fn close_stream(&mut self) -> Result<(), Over> {
        if self.speaking {
            self.end_utterance(false);
        }
        let heard_ms = self.listener.as_ref().map_or(0, Listener::now_ms);
        let metadata = json!({"type": "Metadata", "transaction_key": "deprecated", "request_id": REQUEST_ID,
            "sha256": "0".repeat(64), "created": "2025-11-21T09:00:00.000Z", "duration": seconds(heard_ms), "channels": 1});
        self.push(metadata, 0);
        self.agenda.push(self.last_due, Outgoing::Close(1000, String::new()));
        loop {
            let outgoing = self.agenda.due().await;
            self.wire.send(outgoing).await?;
        }
    }

    fn words(&self) -> &[HeardWord] {
        self.listener.as_ref().map_or(&[], Listener::words)
    }

    fn take_words(&mut self) -> Vec<HeardWord> {
        let words = self.listener.as_mut().map(Listener::take_words).unwrap_or_default();
        if let Some(word) = words.last() {
            self.last_word_end_ms = word.end_ms;
        }
        words
    }

    /// Decides on a Results message, and on what goes wrong with it.
    fn results(&mut self, words: Vec<HeardWord>, kind: Kind) {
        let delays = self.shared.program().delays.clone();
        let now_ms = self.listener.as_ref().map_or(0, Listener::now_ms);
        let message = self.message(&words, &kind, now_ms);
        let Kind::Final { .. } = kind else {
            return self.push(message, delays.stt_interim_ms);
        };
        // What goes wrong, goes wrong at the end of the utterance.
        let fault = self.fault.filter(|_| !self.speaking);
        match fault {
            Some(Fault::StallMidStream) => return,
            Some(Fault::Cut) => return self.push_outgoing(Outgoing::Cut, delays.stt_final_ms),
            Some(Fault::MalformedJson) => {
                self.push_outgoing(Outgoing::Text(NOT_JSON.into()), delays.stt_final_ms)
            }
            _ => {}
        }
        let empty = fault == Some(Fault::Empty);
        let late_ms = if fault == Some(Fault::Late) { delays.late_ms } else { 0 };
        let sent = if empty { self.message(&[], &kind, now_ms) } else { message.clone() };
        if !self.mute && !empty {
            self.wire.entry.heard(&self.transcript(&words));
        }
        self.push(sent, delays.stt_final_ms + late_ms);
        match fault {
            Some(Fault::Duplicate) => self.push(message, delays.stt_final_ms),
            Some(Fault::WrongOrder) => {
                let stale = self.message(&words[..words.len() / 2], &Kind::Interim, now_ms);
                self.push(stale, delays.stt_final_ms);
            }
            _ => {}
        }
        self.segment_ms = now_ms;
        self.last_interim_ms = now_ms;
    }

    fn message(&self, words: &[HeardWord], kind: &Kind, now_ms: u64) -> Value {
        const CONFIDENCE: f64 = 0.98;
        let (is_final, speech_final, from_finalize) = match *kind {
            Kind::Interim => (false, false, false),
            Kind::Final { speech, finalize } => (true, speech, finalize),
        };
        let word = |word: &HeardWord| {
            let mut entry = json!({"word": bare(&word.word), "start": seconds(word.start_ms),
                "end": seconds(word.end_ms), "confidence": CONFIDENCE});
            if self.options.formatted {
                entry["punctuated_word"] = json!(word.word);
            }
            entry
        };
        let confidence = if words.is_empty() { 0.0 } else { CONFIDENCE };
        let alternative = json!({"transcript": self.transcript(words), "confidence": confidence,
            "words": words.iter().map(word).collect::<Vec<_>>()});
        json!({"type": "Results", "channel_index": [0, 1], "duration": seconds(now_ms.saturating_sub(self.segment_ms)),
            "start": seconds(self.segment_ms), "is_final": is_final, "speech_final": speech_final,
            "from_finalize": from_finalize, "channel": {"alternatives": [alternative]},
            "metadata": {"request_id": REQUEST_ID, "model_uuid": REQUEST_ID,
                "model_info": {"name": self.options.model, "version": "sim", "arch": "sim"}}})
    }

    fn transcript(&self, words: &[HeardWord]) -> String {
        if self.options.formatted {
            return transcript(words);
        }
        words.iter().map(|word| bare(&word.word)).collect::<Vec<_>>().join(" ")
    }

    fn push(&mut self, message: Value, delay_ms: u64) {
        self.push_outgoing(Outgoing::Json(message), delay_ms);
    }

    fn push_outgoing(&mut self, outgoing: Outgoing, delay_ms: u64) {
        if self.mute {
            return;
        }
        self.last_due = self.last_due.max(Instant::now() + Duration::from_millis(delay_ms));
        self.agenda.push(self.last_due, outgoing);
    }
}

enum Kind {
    Interim,
    Final {
        /// Whether the speaker is taken to have finished.
        speech: bool,
        /// Whether the client asked for it.
        finalize: bool,
    },
}
