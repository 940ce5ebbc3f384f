//! Flux, `/v2/listen`: the recogniser that finds turns by itself, from how long it has been silent. It knows no call.

use super::{REQUEST_ID, input_format, number, seconds};
use crate::provider::agenda::Agenda;
use crate::provider::listener::{Listener, transcript};
use crate::provider::program::Moment;
use crate::provider::socket::{Incoming, NOT_JSON, Outgoing, Over, Wire};
use crate::provider::spelled::HeardWord;
use crate::provider::{Call, Fault, Service, Shared};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What the query asks for.
pub(super) struct Options {
    listener: crate::provider::voice::AudioFormat,
    thresholds: Thresholds,
    multilingual: bool,
}

#[derive(Clone, Copy)]
struct Thresholds {
    end: f64,
    eager: Option<f64>,
    timeout_ms: u64,
}

const END_THRESHOLD: f64 = 0.7;
const END_TIMEOUT_MS: u64 = 5_000;

impl Options {
    fn parse(call: &Call) -> Result<Options, String> {
        let model = call.parameter("model").ok_or("model is required")?;
        if !["flux-general-en", "flux-general-multi"].contains(&model) {
            return Err(format!("{model} is not a Flux model"));
        }
        let multilingual = model == "flux-general-multi";
        if call.parameter("language_hint").is_some() && !multilingual {
            return Err("language_hint needs flux-general-multi".into());
        }
        let thresholds = Thresholds {
            end: number(call, "eot_threshold")?.unwrap_or(END_THRESHOLD),
            eager: number(call, "eager_eot_threshold")?,
            timeout_ms: number(call, "eot_timeout_ms")?.unwrap_or(END_TIMEOUT_MS),
        };
        thresholds.check()?;
        let listener = input_format(call)?.ok_or("the simulated server needs encoding and sample_rate")?;
        Ok(Options { listener, thresholds, multilingual })
    }
}

impl Thresholds {
    fn check(&self) -> Result<(), String> {
        let valid = |threshold: f64| (0.0..=1.0).contains(&threshold);
        if !valid(self.end) || self.eager.is_some_and(|eager| !valid(eager) || eager > self.end) {
            return Err("thresholds must lie between 0 and 1, the eager one not above the other".into());
        }
        Ok(())
    }

    /// These, changed as a Configure message asks.
    fn configured(mut self, wanted: &Value) -> Result<Thresholds, String> {
        if let Some(end) = wanted["eot_threshold"].as_f64() {
            self.end = end;
        }
        if let Some(eager) = wanted["eager_eot_threshold"].as_f64() {
            self.eager = Some(eager);
        }
        if let Some(timeout_ms) = wanted["eot_timeout_ms"].as_u64() {
            self.timeout_ms = timeout_ms;
        }
        self.check().map(|()| self)
    }
}

/// Between two updates, in milliseconds of audio.
const UPDATE_MS: u64 = 240;

pub(super) struct Session {
    wire: Wire,
    shared: Arc<Shared>,
    thresholds: Thresholds,
    multilingual: bool,
    listener: Listener,
    agenda: Agenda<Outgoing>,
    last_due: Instant,
    sequence_id: u64,
    fault: Option<Fault>,
    mute: bool,
    turn: Option<Turn>,
    turn_index: u64,
    last_turn_end_ms: u64,
}

/// The turn that is going on.
struct Turn {
    words: Vec<HeardWord>,
    began_ms: u64,
    last_update_ms: u64,
    /// Whether an early end was announced that may have to be taken back.
    eager: bool,
}

impl super::Session for Session {
    const SERVICE: Service = Service::DeepgramFlux;
    const PARAMETERS: &[&str] = &[
        "model",
        "encoding",
        "sample_rate",
        "eot_threshold",
        "eager_eot_threshold",
        "eot_timeout_ms",
        "keyterm",
        "language_hint",
        "numerals",
        "redact",
        "tag",
        "mip_opt_out",
    ];
    type Options = Options;

    fn options(call: &Call) -> Result<Options, String> {
        Options::parse(call)
    }

    fn new(wire: Wire, shared: Arc<Shared>, options: Options) -> Session {
        let Options { listener, thresholds, multilingual } = options;
        Session {
            wire,
            listener: Listener::new(shared.clone(), listener.encoding, listener.rate_hz),
            shared,
            thresholds,
            multilingual,
            agenda: Agenda::new(),
            last_due: Instant::now(),
            sequence_id: 0,
            fault: None,
            mute: false,
            turn: None,
            turn_index: 0,
            last_turn_end_ms: 0,
        }
    }

    async fn run(mut self) {
        self.push(json!({"type": "Connected", "request_id": REQUEST_ID}), 0);
        while self.step().await.is_ok() {}
    }
}

impl Session {
    async fn step(&mut self) -> Result<(), Over> {
        tokio::select! {
            outgoing = self.agenda.due() => self.wire.send(outgoing).await,
            incoming = self.wire.next() => self.take(incoming).await,
        }
    }

    async fn take(&mut self, incoming: Incoming) -> Result<(), Over> {
        match incoming {
            Incoming::Audio(bytes) => {
                self.listener.feed(&bytes);
                while self.listener.step() {
                    self.decide();
                }
                Ok(())
            }
            Incoming::Json(message) => match message["type"].as_str() {
                Some("Configure") => {
                    self.configure(&message);
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
        let description = "Could not deserialize the last text message: it is not a valid client message.";
        self.sequence_id += 1;
        let error = json!({"type": "Error", "sequence_id": self.sequence_id, "code": "UNPARSABLE_CLIENT_MESSAGE",
            "description": description});
        self.wire.json(error).await?;
        Err(self.wire.close(1008, "UNPARSABLE_CLIENT_MESSAGE").await)
    }

    fn configure(&mut self, message: &Value) {
        let hints = message["language_hints"].as_array().is_some_and(|hints| !hints.is_empty());
        let wanted = if hints && !self.multilingual {
            Err("language_hints need flux-general-multi".to_owned())
        } else {
            self.thresholds.configured(&message["thresholds"])
        };
        let answer = match wanted {
            Ok(thresholds) => {
                self.thresholds = thresholds;
                json!({"type": "ConfigureSuccess", "request_id": REQUEST_ID,
                    "thresholds": {"eot_threshold": thresholds.end, "eager_eot_threshold": thresholds.eager,
                        "eot_timeout_ms": thresholds.timeout_ms},
                    "keyterms": message["keyterms"], "language_hints": message["language_hints"]})
            }
            Err(problem) => {
                self.wire.entry.oddity(format!("configuration refused: {problem}"));
                json!({"type": "ConfigureFailure", "request_id": REQUEST_ID, "error_code": "INVALID_CONFIGURATION",
                    "description": problem})
            }
        };
        self.push(answer, 0);
    }

    async fn close_stream(&mut self) -> Result<(), Over> {
        self.listener.end_utterance();
        self.grow_turn();
        if self.turn.is_some() {
            self.end_turn(1.0);
        }
        self.agenda.push(self.last_due, Outgoing::Close(1000, String::new()));
        loop {
            let outgoing = self.agenda.due().await;
            self.wire.send(outgoing).await?;
        }
    }

    /// After each 10 ms of audio: is anything worth a message?
    fn decide(&mut self) {
        self.grow_turn();
        let now_ms = self.listener.now_ms();
        let silence_ms = self.listener.silence_ms();
        let confidence = self.confidence(silence_ms);
        let thresholds = self.thresholds;
        let endless = self.fault == Some(Fault::Endless);
        let Some(turn) = &mut self.turn else {
            // A cough is no turn: without words the utterance is simply over.
            if self.listener.speaking_since_ms().is_some() && confidence >= thresholds.end {
                self.listener.end_utterance();
                self.grow_turn();
            }
            return;
        };
        if turn.eager && silence_ms == 0 {
            turn.eager = false;
            self.turn_info("TurnResumed", confidence);
        } else if !endless && (confidence >= thresholds.end || silence_ms >= thresholds.timeout_ms) {
            self.listener.end_utterance();
            self.grow_turn();
            self.end_turn(confidence);
        } else if !turn.eager && thresholds.eager.is_some_and(|eager| confidence >= eager) {
            turn.eager = true;
            self.turn_info("EagerEndOfTurn", confidence);
        } else if now_ms >= turn.last_update_ms + UPDATE_MS {
            turn.last_update_ms = now_ms;
            self.turn_info("Update", confidence);
        }
    }

    /// Silence makes the model surer, in proportion.
    fn confidence(&self, silence_ms: u64) -> f64 {
        let turn_end_ms = self.shared.program().limits.flux_turn_end_ms.max(1);
        (END_THRESHOLD * silence_ms.min(turn_end_ms * 2) as f64 / turn_end_ms as f64).min(0.99)
    }

    /// Adds the words that were heard; the first of them begins a turn.
    fn grow_turn(&mut self) {
        let words = self.listener.take_words();
        if words.is_empty() {
            return;
        }
        let now_ms = self.listener.now_ms();
        match &mut self.turn {
            Some(turn) => turn.words.extend(words),
            None => {
                let began_ms = words[0].start_ms;
                self.turn = Some(Turn { words, began_ms, last_update_ms: now_ms, eager: false });
                self.fault = self.shared.draw(Service::DeepgramFlux, Moment::Answer, &self.wire.entry);
                self.mute |= self.fault == Some(Fault::Stall);
                self.turn_info("StartOfTurn", 0.0);
            }
        }
    }

    fn end_turn(&mut self, confidence: f64) {
        let delays = self.shared.program().delays.clone();
        let fault = self.fault.take();
        let mut late_ms = 0;
        match fault {
            Some(Fault::StallMidStream) => self.mute = true,
            Some(Fault::Cut) => self.push_outgoing(Outgoing::Cut, delays.stt_final_ms),
            Some(Fault::MalformedJson) => {
                self.push_outgoing(Outgoing::Text(NOT_JSON.into()), delays.stt_final_ms)
            }
            Some(Fault::Late) => late_ms = delays.late_ms,
            Some(Fault::Empty) => {
                if let Some(turn) = &mut self.turn {
                    turn.words.clear();
                }
            }
            _ => {}
        }
        let words = self.turn.as_ref().map(|turn| turn.words.clone()).unwrap_or_default();
        if !self.mute {
            self.wire.entry.heard(&transcript(&words));
        }
        let repeated = if fault == Some(Fault::Duplicate) { 2 } else { 1 };
        for _ in 0..repeated {
            let message = self.message("EndOfTurn", confidence);
            self.push(message, delays.stt_final_ms + late_ms);
        }
        if fault == Some(Fault::WrongOrder) {
            let message = self.message("Update", 0.0);
            self.push(message, delays.stt_final_ms);
        }
        self.turn = None;
        self.turn_index += 1;
        self.last_turn_end_ms = self.listener.now_ms();
    }

    fn turn_info(&mut self, event: &str, confidence: f64) {
        let delay_ms = self.shared.program().delays.stt_interim_ms;
        let message = self.message(event, confidence);
        self.push(message, delay_ms);
    }

    fn message(&self, event: &str, confidence: f64) -> Value {
        let words = self.turn.as_ref().map_or(&[][..], |turn| &turn.words);
        let began_ms =
            self.turn.as_ref().map_or(self.last_turn_end_ms, |turn| turn.began_ms.max(self.last_turn_end_ms));
        let word = |word: &HeardWord| json!({"word": word.word, "confidence": 0.98});
        let mut message = json!({"type": "TurnInfo", "request_id": REQUEST_ID, "event": event,
            "turn_index": self.turn_index, "audio_window_start": seconds(began_ms),
            "audio_window_end": seconds(self.listener.now_ms()), "transcript": transcript(words),
            "words": words.iter().map(word).collect::<Vec<_>>(), "end_of_turn_confidence": confidence});
        if self.multilingual {
            message["languages"] = json!(["en"]);
        }
        message
    }

    fn push(&mut self, mut message: Value, delay_ms: u64) {
        message["sequence_id"] = json!(self.sequence_id);
        self.sequence_id += 1;
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
