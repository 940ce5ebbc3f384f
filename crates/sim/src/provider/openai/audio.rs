//! Transcription of whole files and speech in one stream. It knows nothing of turns: one request, one answer.

use super::{Refusal, Stream, admit, check_model, check_names, halves, parse_json};
use crate::provider::listener::transcript;
use crate::provider::spelled::Ear;
use crate::provider::voice::{AudioFormat, Delivery, Encoding, Piece};
use crate::provider::{Fault, Service, Shared, read};
use axum::body::Bytes;
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::response::{IntoResponse, Response};
use offhook_media::wav::Wav;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Answers with what the file spells, or with the next scripted line.
pub(super) async fn transcribe(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, bytes) = read(request).await;
    let call = shared.call(Service::Transcription, parts.clone());
    call.entry.edit(|record| record.audio_bytes_in = bytes.len() as u64);
    let form = read_form(Request::from_parts(parts, bytes.into())).await;
    if let Ok(form) = &form {
        call.entry.edit(|record| record.body = Value::Object(form.fields.clone()));
    }
    let (call, fault) = match admit(call, &shared).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal,
    };
    let heard = form.and_then(|form| form.check(&shared).map(|pcm| (form, pcm)));
    let (form, wav) = match heard {
        Ok(heard) => heard,
        Err(refusal) => return call.refuse(refusal.oddity(), refusal.into_response()),
    };

    let (line, delays) = {
        let mut program = shared.program();
        (program.hears.pop_front(), program.delays.clone())
    };
    let seconds = wav.duration_ms() as f64 / 1_000.0;
    let mut text = line.unwrap_or_else(|| {
        let mut ear = Ear::new(wav.rate_hz);
        ear.hear(&wav.into_mono());
        ear.end_word();
        transcript(&ear.take_words())
    });
    if fault == Some(Fault::Empty) {
        text.clear();
    }
    call.entry.heard(&text);
    let late_ms = if fault == Some(Fault::Late) { delays.late_ms } else { 0 };
    let delay = Duration::from_millis(delays.stt_final_ms + late_ms);
    let (content_type, mut pieces) = form.answer(&text, seconds);
    if fault == Some(Fault::Duplicate) {
        pieces.extend(pieces.last().cloned());
    }
    Stream::answer(call, &shared, content_type, move |stream, call| async move {
        stream.wait(delay).await?;
        stream.send_all(pieces, fault, &call).await
    })
}

fn usage(seconds: f64) -> Value {
    json!({"type": "duration", "seconds": seconds.ceil()})
}

struct Form {
    fields: Map<String, Value>,
    file: Option<(String, Bytes)>,
}

async fn read_form(request: Request) -> Result<Form, Refusal> {
    let mut multipart = Multipart::from_request(request, &())
        .await
        .map_err(|error| Refusal::new(format!("Could not parse multipart form: {error}")))?;
    let mut form = Form { fields: Map::new(), file: None };
    while let Some(field) = multipart.next_field().await.map_err(|error| Refusal::new(error.to_string()))? {
        let name = field.name().unwrap_or_default().to_owned();
        let file_name = field.file_name().map(str::to_owned);
        let bytes = field.bytes().await.map_err(|error| Refusal::new(error.to_string()))?;
        match file_name {
            Some(file_name) if name == "file" => form.file = Some((file_name, bytes)),
            _ => {
                form.fields.insert(name, String::from_utf8_lossy(&bytes).into());
            }
        }
    }
    Ok(form)
}

impl Form {
    const FIELDS: [&str; 13] = [
        "model",
        "language",
        "prompt",
        "keywords",
        "keywords[]",
        "response_format",
        "temperature",
        "timestamp_granularities",
        "timestamp_granularities[]",
        "include",
        "include[]",
        "chunking_strategy",
        "stream",
    ];

    fn text(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The transcript in the form that was asked for, in the pieces in which it is sent.
    fn answer(&self, text: &str, seconds: f64) -> (&'static str, Vec<String>) {
        if self.text("stream").eq_ignore_ascii_case("true") {
            let words =
                text.split_inclusive(' ').map(|word| json!({"type": "transcript.text.delta", "delta": word}));
            let done = json!({"type": "transcript.text.done", "text": text, "usage": usage(seconds)});
            return (
                "text/event-stream",
                words.chain([done]).map(|event| format!("data: {event}\n\n")).collect(),
            );
        }
        let body = match self.text("response_format") {
            "text" => return ("text/plain; charset=utf-8", halves(&format!("{text}\n"))),
            "verbose_json" => {
                let segment = json!({"id": 0, "start": 0.0, "end": seconds, "text": text});
                json!({"task": "transcribe", "language": "english", "duration": seconds, "text": text,
                    "segments": [segment], "usage": usage(seconds)})
            }
            _ => json!({"text": text, "usage": usage(seconds)}),
        };
        ("application/json", halves(&body.to_string()))
    }

    fn check(&self, shared: &Shared) -> Result<Wav, Refusal> {
        if let Some(name) = self.fields.keys().find(|name| !Self::FIELDS.contains(&name.as_str())) {
            return Err(Refusal::new(format!("Unrecognized request argument supplied: {name}")));
        }
        let Some((file_name, bytes)) = &self.file else { return Err(Refusal::missing("file")) };
        if self.text("model").is_empty() {
            return Err(Refusal::missing("model"));
        }
        check_model(self.text("model"), shared)?;
        if self.text("language").len() > 3 {
            return Err(Refusal::invalid("language", "expected an ISO-639-1 code"));
        }
        if !["", "json", "text", "verbose_json"].contains(&self.text("response_format")) {
            return Err(Refusal::invalid(
                "response_format",
                "the simulated server knows json, text and verbose_json",
            ));
        }
        if !file_name.ends_with(".wav") {
            return Err(Refusal::invalid(
                "file",
                "the simulated server reads .wav; the name's ending decides",
            ));
        }
        Wav::parse(bytes).map_err(|_| Refusal::new("Audio file might be corrupted or unsupported"))
    }
}

/// Speaks the input as raw samples, or as a WAV file.
pub(super) async fn speak(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, bytes) = read(request).await;
    let call = shared.call(Service::Speech, parts);
    let parsed = parse_json(&call, &bytes);
    if let Ok(body) = &parsed {
        call.entry.edit(|record| record.body = body.clone());
    }
    let (call, fault) = match admit(call, &shared).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal,
    };
    let input = parsed.and_then(|body| check_speech(&body, &shared).map(|()| body));
    let body = match input {
        Ok(body) => body,
        Err(refusal) => return call.refuse(refusal.oddity(), refusal.into_response()),
    };

    let text = body["input"].as_str().unwrap_or_default();
    let (delivery, delay_ms) = {
        let program = shared.program();
        (Delivery::of(text, SPEECH_FORMAT, &program, fault), program.delays.first_audio_ms)
    };
    let place = call.entry.speaks("", text, delivery.audio_ms);
    let wav = body["response_format"] == "wav";
    let content_type = if wav { "audio/wav" } else { "audio/pcm" };
    Stream::answer(call, &shared, content_type, move |stream, call| async move {
        stream.wait(Duration::from_millis(delay_ms)).await?;
        let began = Instant::now();
        if wav {
            // The length of a stream is not known when its header is sent.
            let mut header = Wav::mono(SPEECH_FORMAT.rate_hz, Vec::new()).to_bytes();
            let data_length = header.len() - 4;
            header[data_length..].fill(0xFF);
            stream.send(header).await?;
        }
        for (after, piece) in delivery.pieces {
            stream.wait((began + after).saturating_duration_since(Instant::now())).await?;
            match piece {
                Piece::Audio(chunk) => {
                    call.entry.edit(|record| record.audio_bytes_out += chunk.bytes.len() as u64);
                    call.entry.spoke(place, chunk.to_ms);
                    stream.send(chunk.bytes).await?;
                }
                Piece::Cut => return stream.cut(&call).await,
                Piece::Done => return Ok(()),
                Piece::NotJson => {}
            }
        }
        stream.stall().await
    })
}

/// `pcm` is 24 kHz, 16 bits, little end first, mono, without a header.
const SPEECH_FORMAT: AudioFormat = AudioFormat { encoding: Encoding::Linear16, rate_hz: 24_000 };

/// The longest input, in characters.
const INPUT_MAX: usize = 4_096;

fn check_speech(body: &Value, shared: &Shared) -> Result<(), Refusal> {
    check_names(
        body,
        &["model", "voice", "input", "instructions", "response_format", "speed", "stream_format"],
    )?;
    let model = body["model"].as_str().ok_or_else(|| Refusal::missing("model"))?;
    check_model(model, shared)?;
    let input = body["input"].as_str().ok_or_else(|| Refusal::missing("input"))?;
    if !(body["voice"].is_string() || body["voice"].is_object()) {
        return Err(Refusal::missing("voice"));
    }
    if input.is_empty() || input.chars().count() > INPUT_MAX {
        return Err(Refusal::invalid("input", "expected a string with 1 to 4096 characters"));
    }
    if body["speed"].as_f64().is_some_and(|speed| !(0.25..=4.0).contains(&speed)) {
        return Err(Refusal::invalid("speed", "expected a number from 0.25 to 4.0"));
    }
    if !matches!(body["response_format"].as_str(), Some("pcm" | "wav")) {
        return Err(Refusal::invalid(
            "response_format",
            "the simulated server speaks pcm and wav, the default is mp3",
        ));
    }
    match body["stream_format"].as_str() {
        None | Some("audio") => Ok(()),
        Some(_) => Err(Refusal::invalid("stream_format", "the simulated server streams audio only")),
    }
}
