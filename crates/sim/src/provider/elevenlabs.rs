//! ElevenLabs speech over `multi-stream-input`: many contexts on one socket, audio with the times of its characters.
//! It knows no call.

use super::program::{Moment, Program};
use super::records::credential_of;
use super::socket::{Incoming, NOT_JSON, Outgoing, Over, Wire};
use super::voice::{AudioFormat, Chunk, Due, Encoding, Piece, Text, Voice};
use super::{Call, Fault, Service, Shared, read, socket};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/text-to-speech/{voice_id}/multi-stream-input", get(multi_stream_input))
        .route("/v1/user", get(account))
        .route("/v1/voices", get(account))
}

async fn account(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, _) = read(request).await;
    let call = shared.call(Service::Account, parts);
    if let Some(refusal) = refused(&call, &shared) {
        return call.answer(refusal);
    }
    match credential_of(&call.request) {
        Some(credential) if credential.form == "xi-api-key" && shared.accepts(&credential.key) => {
            let voice = json!({"voice_id": "sim", "name": "Sim"});
            call.answer(Json(json!({"user_id": "sim", "voices": [voice]})).into_response())
        }
        _ => {
            call.refuse("key refused", error(StatusCode::UNAUTHORIZED, "invalid_api_key", "Invalid API key"))
        }
    }
}

/// The refusal that was drawn for a request. The key is looked at later: a socket's may come in its first message.
fn refused(call: &Call, shared: &Shared) -> Option<Response> {
    let Some(Fault::Refuse { status, .. }) = shared.draw(call.service, Moment::Opening, &call.entry) else {
        return None;
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Some(error(status, "refused", "The simulated server refuses."))
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({"detail": {"status": code, "message": message}}))).into_response()
}

async fn multi_stream_input(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, _) = read(request).await;
    let call = shared.call(Service::ElevenLabs, parts);
    if let Some(refusal) = refused(&call, &shared) {
        return call.answer(refusal);
    }
    call.note_unknown_parameters(&PARAMETERS);
    let options = Options::parse(&call, &shared.program());
    match options {
        Ok(options) => {
            let key = credential_of(&call.request).map(|credential| (credential.form, credential.key));
            let serving = shared.clone();
            socket::serve(call, shared, move |wire| Session::new(wire, serving, options, key).run()).await
        }
        Err(problem) => {
            let response = error(StatusCode::BAD_REQUEST, "invalid_parameters", &problem);
            call.refuse(problem, response)
        }
    }
}

const PARAMETERS: [&str; 12] = [
    "model_id",
    "output_format",
    "language_code",
    "inactivity_timeout",
    "auto_mode",
    "sync_alignment",
    "apply_text_normalization",
    "enable_ssml_parsing",
    "enable_logging",
    "seed",
    "authorization",
    "single_use_token",
];

/// What the query asks for.
struct Options {
    format: AudioFormat,
    auto_mode: bool,
    inactivity: Duration,
}

impl Options {
    fn parse(call: &Call, program: &Program) -> Result<Options, String> {
        const INACTIVITY_MAX_S: u64 = 180;
        let inactivity = match call.parameter("inactivity_timeout").map(str::parse) {
            None => Duration::from_millis(program.limits.elevenlabs_inactivity_ms),
            Some(Ok(seconds)) if seconds <= INACTIVITY_MAX_S => Duration::from_secs(seconds),
            Some(_) => return Err("inactivity_timeout must be a number of at most 180".into()),
        };
        if call.parameter("model_id") == Some("eleven_v3") {
            return Err("eleven_v3 is not available over sockets".into());
        }
        let format =
            match call.parameter("output_format").and_then(|format| format.split_once('_')) {
                Some(("ulaw", "8000")) => AudioFormat { encoding: Encoding::Mulaw, rate_hz: 8_000 },
                Some(("alaw", "8000")) => AudioFormat { encoding: Encoding::Alaw, rate_hz: 8_000 },
                Some(("pcm", rate @ ("8000" | "16000" | "22050" | "24000" | "44100"))) => {
                    AudioFormat { encoding: Encoding::Linear16, rate_hz: rate.parse().unwrap_or(24_000) }
                }
                _ => return Err(
                    "output_format is unknown, or the simulated server cannot make it (mp3 is the default)"
                        .into(),
                ),
            };
        Ok(Options { format, auto_mode: call.parameter("auto_mode") == Some("true"), inactivity })
    }
}

/// How many characters must be there before the first, second, … audio of a context, unless told otherwise.
const CHUNK_LENGTH_SCHEDULE: [u64; 4] = [120, 160, 250, 290];

struct Session {
    wire: Wire,
    shared: Arc<Shared>,
    voice: Voice,
    options: Options,
    /// The form of the key and the key, until it was checked.
    key: Option<(String, String)>,
    admitted: bool,
    contexts: BTreeMap<String, Context>,
    /// Contexts by the number of their deliveries.
    deliveries: BTreeMap<usize, String>,
    silence_limit: Instant,
}

struct Context {
    text: String,
    schedule: Vec<u64>,
    /// How many times audio was generated.
    generations: usize,
    /// Deliveries of which not all was sent.
    unfinished: BTreeSet<usize>,
    busy_until: Instant,
    closing: bool,
}

impl Session {
    fn new(wire: Wire, shared: Arc<Shared>, options: Options, key: Option<(String, String)>) -> Session {
        Session {
            wire,
            voice: Voice::new(Service::ElevenLabs, shared.clone()),
            shared,
            silence_limit: Instant::now() + options.inactivity,
            options,
            key,
            admitted: false,
            contexts: BTreeMap::new(),
            deliveries: BTreeMap::new(),
        }
    }

    async fn run(mut self) {
        while self.step().await.is_ok() {}
    }

    async fn step(&mut self) -> Result<(), Over> {
        tokio::select! {
            due = self.voice.due() => self.send(due).await,
            incoming = self.wire.next() => self.take(incoming).await,
            () = sleep_until(self.silence_limit) => {
                let message = format!(
                    "Have not received a new text input within the timeout of {} seconds. Streaming input terminated.",
                    self.options.inactivity.as_secs()
                );
                Err(self.fail("input_timeout_exceeded", &message).await)
            }
        }
    }

    async fn fail(&mut self, code: &str, message: &str) -> Over {
        let error = json!({"message": message, "error": code, "code": 1008});
        if self.wire.json(error).await.is_err() {
            return Over;
        }
        self.wire.close(1008, message.get(..REASON_MAX).unwrap_or(message)).await
    }

    async fn take(&mut self, incoming: Incoming) -> Result<(), Over> {
        let message = match incoming {
            Incoming::Json(message) => message,
            Incoming::Audio(_) | Incoming::NotJson => {
                self.wire.entry.oddity("a message that is not JSON");
                return Err(self.fail("invalid_message", "Message could not be parsed as JSON.").await);
            }
            Incoming::Gone => return Err(Over),
        };
        if !self.admitted {
            self.admit(&message).await?;
        }
        if let Some(name) = unknown_name(&message) {
            self.wire.entry.oddity(format!("unknown field {name}"));
        }
        if message["close_socket"] == true {
            for id in self.contexts.keys().cloned().collect::<Vec<_>>() {
                self.close_context(&id);
            }
            let ends =
                self.contexts.values().map(|context| context.busy_until).fold(Instant::now(), Instant::max);
            self.voice.push(ends, Outgoing::Close(1000, String::new()));
            return Ok(());
        }
        self.hear(&message).await
    }

    /// The key may also come in the first message.
    async fn admit(&mut self, message: &Value) -> Result<(), Over> {
        let said = ["xi_api_key", "xi-api-key", "authorization"]
            .into_iter()
            .find_map(|name| Some((name.to_owned(), message[name].as_str()?.to_owned())));
        let key = self.key.take().or(said);
        let accepted = key.as_ref().is_some_and(|(form, key)| {
            ["xi-api-key", "xi_api_key", "authorization", "Bearer"].contains(&form.as_str())
                && self.shared.accepts(key)
        });
        if accepted {
            self.admitted = true;
            return Ok(());
        }
        self.wire.entry.oddity(format!(
            "key refused, {}",
            key.map_or("missing".into(), |(form, _)| format!("given as {form}"))
        ));
        Err(self.fail("invalid_api_key", "You must be authenticated to use this endpoint.").await)
    }

    async fn hear(&mut self, message: &Value) -> Result<(), Over> {
        let id = message["context_id"].as_str().unwrap_or("default").to_owned();
        self.silence_limit = Instant::now() + self.options.inactivity;
        if message["close_context"] == true {
            if self.contexts.contains_key(&id) {
                self.close_context(&id);
            } else {
                self.wire.entry.oddity(format!("closes unknown context {id}"));
            }
            return Ok(());
        }
        let settings = ["voice_settings", "generation_config", "pronunciation_dictionary_locators"];
        let has_settings = settings.iter().any(|name| !message[name].is_null());
        if !self.contexts.contains_key(&id) {
            self.open_context(&id, message);
        } else if has_settings {
            self.wire.entry.oddity(format!("settings after the first message of context {id}"));
        }
        let Some(context) = self.contexts.get_mut(&id) else { return Ok(()) };
        if context.closing {
            self.wire.entry.oddity(format!("text for closed context {id}"));
            return Ok(());
        }
        let text = message["text"].as_str().unwrap_or_default();
        if !text.is_empty() && !text.ends_with(' ') {
            self.wire.entry.oddity("text does not end with a space");
        }
        if !text.trim().is_empty() || !context.text.is_empty() {
            context.text.push_str(text);
        }
        let place = context.generations.min(context.schedule.len() - 1);
        let enough = context.text.chars().count() as u64 >= context.schedule[place];
        if enough || message["flush"] == true || self.options.auto_mode {
            self.speak(&id);
        }
        Ok(())
    }

    fn open_context(&mut self, id: &str, message: &Value) {
        if message["text"].as_str() != Some(" ") {
            self.wire.entry.oddity(format!("context {id} does not begin with a single space"));
        }
        let wanted = message["generation_config"]["chunk_length_schedule"].as_array();
        let mut schedule: Vec<u64> = wanted.into_iter().flatten().filter_map(Value::as_u64).collect();
        if schedule.iter().any(|length| !(50..=500).contains(length)) {
            self.wire.entry.oddity("chunk_length_schedule outside of 50 to 500");
        }
        if schedule.is_empty() {
            schedule = CHUNK_LENGTH_SCHEDULE.to_vec();
        }
        let context = Context {
            text: String::new(),
            schedule,
            generations: 0,
            unfinished: BTreeSet::new(),
            busy_until: Instant::now(),
            closing: false,
        };
        self.contexts.insert(id.to_owned(), context);
    }

    fn speak(&mut self, id: &str) {
        let Some(context) = self.contexts.get_mut(id) else { return };
        let text = std::mem::take(&mut context.text);
        if text.trim().is_empty() {
            return;
        }
        let (delivery, ends, _) = self.voice.speak(
            &Text { context: id, text: &text, format: self.options.format },
            context.busy_until,
            &self.wire.entry,
        );
        context.busy_until = ends;
        context.generations += 1;
        context.unfinished.insert(delivery);
        self.deliveries.insert(delivery, id.to_owned());
    }

    /// What was generated is still sent: who interrupts must ignore it.
    fn close_context(&mut self, id: &str) {
        self.speak(id);
        let Some(context) = self.contexts.get_mut(id).filter(|context| !context.closing) else { return };
        context.closing = true;
        for delivery in &context.unfinished {
            self.wire.entry.cancelled(*delivery);
        }
        if context.unfinished.is_empty() {
            self.contexts.remove(id);
            self.voice.push(Instant::now(), Outgoing::Json(is_final(id)));
        }
    }

    async fn send(&mut self, due: Due) -> Result<(), Over> {
        match due {
            Due::Send(outgoing) => self.wire.send(outgoing).await,
            Due::Wake(_) => Ok(()),
            Due::Piece(delivery, Piece::Audio(chunk)) => {
                self.wire.entry.edit(|record| record.audio_bytes_out += chunk.bytes.len() as u64);
                self.wire.entry.spoke(delivery, chunk.to_ms);
                self.wire.json(audio(&chunk, self.deliveries.get(&delivery))).await
            }
            Due::Piece(_, Piece::NotJson) => self.wire.send(Outgoing::Text(NOT_JSON.into())).await,
            Due::Piece(_, Piece::Cut) => self.wire.send(Outgoing::Cut).await,
            Due::Piece(delivery, Piece::Done) => self.finish(delivery).await,
        }
    }

    /// The last delivery of a closed context ends it.
    async fn finish(&mut self, delivery: usize) -> Result<(), Over> {
        let Some(id) = self.deliveries.get(&delivery) else { return Ok(()) };
        if let Some(context) = self.contexts.get_mut(id) {
            context.unfinished.remove(&delivery);
            if !context.closing || !context.unfinished.is_empty() {
                return Ok(());
            }
            self.contexts.remove(id);
        }
        self.wire.json(is_final(id)).await
    }
}

fn is_final(context: &str) -> Value {
    json!({"audio": null, "isFinal": true, "contextId": context})
}

/// The longest reason that fits a close frame.
const REASON_MAX: usize = 120;

fn audio(chunk: &Chunk, context: Option<&String>) -> Value {
    let alignment = json!({
        "chars": chunk.characters.iter().map(|spoken| spoken.character.to_string()).collect::<Vec<_>>(),
        "charStartTimesMs": chunk.characters.iter().map(|spoken| spoken.start_ms - chunk.from_ms).collect::<Vec<_>>(),
        "charsDurationsMs": chunk.characters.iter().map(|spoken| spoken.end_ms - spoken.start_ms).collect::<Vec<_>>(),
    });
    json!({"audio": STANDARD.encode(&chunk.bytes), "isFinal": null, "contextId": context,
        "alignment": alignment, "normalizedAlignment": alignment})
}

fn unknown_name(message: &Value) -> Option<&String> {
    const NAMES: [&str; 13] = [
        "text",
        "context_id",
        "voice_settings",
        "generation_config",
        "pronunciation_dictionary_locators",
        "flush",
        "close_context",
        "close_socket",
        "xi_api_key",
        "xi-api-key",
        "authorization",
        "try_trigger_generation",
        "contextId",
    ];
    message.as_object()?.keys().find(|name| !NAMES.contains(&name.as_str()))
}
