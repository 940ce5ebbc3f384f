//! Speech, `/v1/speak`: text is collected until a Flush, audio comes as bare binary messages. It knows one voice at a time.

use super::{REQUEST_ID, number};
use crate::provider::program::Limits;
use crate::provider::socket::{Incoming, NOT_JSON, Outgoing, Over, Wire};
use crate::provider::voice::{AudioFormat, Due, Encoding, Piece, Text, Voice};
use crate::provider::{Call, Service, Shared};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What the query asks for.
pub(super) struct Options {
    model: String,
    format: AudioFormat,
}

impl Options {
    fn parse(call: &Call) -> Result<Options, String> {
        const RATE_HZ: u32 = 24_000;
        let (encoding, rates): (_, &[u32]) = match call.parameter("encoding") {
            None | Some("linear16") => (Encoding::Linear16, &[8_000, 16_000, 24_000, 32_000, 48_000]),
            Some("mulaw") => (Encoding::Mulaw, &[8_000, 16_000]),
            Some("alaw") => (Encoding::Alaw, &[8_000, 16_000]),
            Some(other) => return Err(format!("encoding {other} is not supported when streaming")),
        };
        let rate_hz = number(call, "sample_rate")?.unwrap_or(RATE_HZ);
        if !rates.contains(&rate_hz) {
            return Err(format!("sample_rate {rate_hz} does not fit the encoding"));
        }
        let model = call.parameter("model").unwrap_or("aura-asteria-en").to_owned();
        Ok(Options { model, format: AudioFormat { encoding, rate_hz } })
    }
}

/// The most characters that one message or one Flush may have.
const CHARACTERS_MAX: usize = 2_000;

/// Flushes are counted over this time.
const FLUSH_WINDOW: Duration = Duration::from_secs(60);

pub(super) struct Session {
    wire: Wire,
    voice: Voice,
    limits: Limits,
    model: String,
    format: AudioFormat,
    text: String,
    /// Deliveries of which something may still be to send.
    deliveries: Vec<usize>,
    busy_until: Instant,
    flushes: VecDeque<Instant>,
    flushed: u64,
    cleared: u64,
    closing: bool,
}

impl super::Session for Session {
    const SERVICE: Service = Service::DeepgramSpeak;
    const PARAMETERS: &[&str] = &["model", "encoding", "sample_rate", "speed", "mip_opt_out", "tag"];
    type Options = Options;

    fn options(call: &Call) -> Result<Options, String> {
        Options::parse(call)
    }

    fn new(wire: Wire, shared: Arc<Shared>, options: Options) -> Session {
        let limits = shared.program().limits.clone();
        Session {
            wire,
            voice: Voice::new(Service::DeepgramSpeak, shared),
            limits,
            model: options.model,
            format: options.format,
            text: String::new(),
            deliveries: Vec::new(),
            busy_until: Instant::now(),
            flushes: VecDeque::new(),
            flushed: 0,
            cleared: 0,
            closing: false,
        }
    }

    async fn run(mut self) {
        let metadata = json!({"type": "Metadata", "request_id": REQUEST_ID, "model_name": self.model,
            "model_version": "sim", "model_uuid": REQUEST_ID});
        self.voice.push(Instant::now(), Outgoing::Json(metadata));
        while self.step().await.is_ok() {}
    }
}

impl Session {
    async fn step(&mut self) -> Result<(), Over> {
        tokio::select! {
            due = self.voice.due() => self.send(due).await,
            incoming = self.wire.next(), if !self.closing => self.take(incoming).await,
        }
    }

    async fn send(&mut self, due: Due) -> Result<(), Over> {
        let outgoing = match due {
            Due::Send(outgoing) => outgoing,
            Due::Piece(delivery, Piece::Audio(chunk)) => {
                self.wire.entry.spoke(delivery, chunk.to_ms);
                Outgoing::Audio(chunk.bytes)
            }
            Due::Piece(_, Piece::NotJson) => Outgoing::Text(NOT_JSON.into()),
            Due::Piece(_, Piece::Cut) => Outgoing::Cut,
            Due::Wake(_) => return Ok(()),
            Due::Piece(_, Piece::Done) => {
                self.flushed += 1;
                Outgoing::Json(json!({"type": "Flushed", "sequence_id": self.flushed - 1}))
            }
        };
        self.wire.send(outgoing).await
    }

    async fn take(&mut self, incoming: Incoming) -> Result<(), Over> {
        let message = match incoming {
            Incoming::Json(message) => message,
            Incoming::Audio(_) | Incoming::NotJson => return self.not_understood().await,
            Incoming::Gone => return Err(Over),
        };
        match message["type"].as_str() {
            Some("Speak") => self.add(message["text"].as_str()).await,
            Some("Flush") => {
                self.flush();
                Ok(())
            }
            Some("Clear") => {
                self.clear();
                Ok(())
            }
            Some("Close") => {
                if !self.text.is_empty() {
                    self.speak();
                }
                self.voice.push(self.busy_until.max(Instant::now()), Outgoing::Close(1000, String::new()));
                self.closing = true;
                Ok(())
            }
            _ => self.not_understood().await,
        }
    }

    async fn not_understood(&mut self) -> Result<(), Over> {
        self.wire.entry.oddity("unknown message");
        Err(self
            .wire
            .close(1003, "MESSAGE-0000: The message is not one of Speak, Flush, Clear and Close.")
            .await)
    }

    async fn add(&mut self, text: Option<&str>) -> Result<(), Over> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            self.wire.entry.oddity("Speak without text");
            return Err(self.wire.close(1008, "DATA-0000: The text is empty or missing.").await);
        };
        self.text.push_str(text);
        if self.text.chars().count() > CHARACTERS_MAX {
            self.wire.entry.oddity("too many characters before a Flush");
            return Err(self.wire.close(1008, "DATA-0001: The text is longer than 2000 characters.").await);
        }
        Ok(())
    }

    fn flush(&mut self) {
        let now = Instant::now();
        while self.flushes.front().is_some_and(|at| *at + FLUSH_WINDOW <= now) {
            self.flushes.pop_front();
        }
        self.flushes.push_back(now);
        if self.flushes.len() > self.limits.deepgram_flushes {
            self.wire.entry.oddity("more flushes than allowed");
            let warning = json!({"type": "Warning", "code": "EXCESSIVE_FLUSH",
                "description": "Flush was sent more often than allowed; it is ignored."});
            return self.voice.push(now, Outgoing::Json(warning));
        }
        self.speak();
    }

    fn speak(&mut self) {
        let text = std::mem::take(&mut self.text);
        let (delivery, ends, _) = self.voice.speak(
            &Text { context: "", text: &text, format: self.format },
            self.busy_until,
            &self.wire.entry,
        );
        self.deliveries.push(delivery);
        self.busy_until = ends;
    }

    fn clear(&mut self) {
        self.text.clear();
        let last_late = self.voice.cancel(&self.deliveries, &self.wire.entry);
        self.deliveries.clear();
        self.busy_until = last_late;
        let cleared = json!({"type": "Cleared", "sequence_id": self.cleared});
        self.cleared += 1;
        self.voice.push(last_late, Outgoing::Json(cleared));
    }
}
