//! Cartesia speech over `/tts/websocket`: many contexts on one socket, each continued text by text. It knows no call.

use super::program::{Limits, Moment};
use super::records::credential_of;
use super::socket::{Incoming, NOT_JSON, Outgoing, Over, Wire};
use super::spelled::HeardWord;
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
    Router::new().route("/tts/websocket", get(tts))
}

async fn tts(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, _) = read(request).await;
    let call = shared.call(Service::Cartesia, parts);
    if let Err((status, problem)) = admit(&call, &shared) {
        return call.refuse(problem, (status, Json(json!({"error": problem}))).into_response());
    }
    if let Some(Fault::Refuse { status, .. }) = shared.draw(Service::Cartesia, Moment::Opening, &call.entry) {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return call
            .answer((status, Json(json!({"error": "The simulated server refuses."}))).into_response());
    }
    call.note_unknown_parameters(&["api_key", "cartesia_version", "access_token"]);
    let serving = shared.clone();
    socket::serve(call, shared, move |wire| Session::new(wire, serving).run()).await
}

fn admit(call: &Call, shared: &Shared) -> Result<(), (StatusCode, &'static str)> {
    let accepted = credential_of(&call.request).is_some_and(|given| {
        let form = match given.form.as_str() {
            "x-api-key" | "api_key" => true,
            "Bearer" => given.key.starts_with("sk_car_"),
            _ => false,
        };
        form && shared.accepts(&given.key)
    });
    if !accepted {
        return Err((StatusCode::UNAUTHORIZED, "key missing, wrong, or in the wrong form"));
    }
    let version = call.header("cartesia-version").or(call.parameter("cartesia_version")).unwrap_or_default();
    let digits = |text: &str| text.chars().all(|character| character.is_ascii_digit());
    if version.len() != 10 || !version.split('-').all(digits) {
        return Err((StatusCode::BAD_REQUEST, "Cartesia-Version is missing or not a date"));
    }
    Ok(())
}

struct Session {
    wire: Wire,
    voice: Voice,
    limits: Limits,
    /// All that ever were: the id of one that is over must not come again.
    contexts: BTreeMap<String, Context>,
    /// Whose delivery is whose.
    deliveries: BTreeMap<usize, String>,
    idle_limit: Instant,
}

/// One agent turn: texts that are spoken as one.
struct Context {
    /// Fields that must not change.
    fixed: Value,
    format: AudioFormat,
    timestamps: bool,
    buffer_delay: Duration,
    /// Text that waits for more.
    text: String,
    parts: BTreeMap<usize, Part>,
    unstarted: BTreeSet<usize>,
    unfinished: BTreeSet<usize>,
    audio_ms: u64,
    busy_until: Instant,
    flush_id: u64,
    /// Flushes that were asked for, each with the delivery after which it is done.
    flushes: Vec<(u64, Option<usize>)>,
    phase: Phase,
    /// When all audio so far was sent.
    quiet_since: Option<Instant>,
}

/// What one delivery is of its context.
#[derive(Clone, Copy)]
struct Part {
    /// Where it begins in the context's audio.
    start_ms: u64,
    flush_id: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// More text may come.
    Open,
    /// The last text is there, or it was cancelled; audio may still come.
    Complete,
    /// `done` was sent.
    Over,
}

impl Session {
    fn new(wire: Wire, shared: Arc<Shared>) -> Session {
        let limits = shared.program().limits.clone();
        Session {
            wire,
            voice: Voice::new(Service::Cartesia, shared),
            idle_limit: Instant::now() + Duration::from_millis(limits.cartesia_idle_ms),
            limits,
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
            () = sleep_until(self.idle_limit) => Err(self.wire.close(1000, "idle for too long").await),
        }
    }

    async fn take(&mut self, incoming: Incoming) -> Result<(), Over> {
        self.idle_limit = Instant::now() + Duration::from_millis(self.limits.cartesia_idle_ms);
        let message = match incoming {
            Incoming::Json(message) => message,
            Incoming::Audio(_) | Incoming::NotJson => {
                return self.fail(None, 400, "the message is not a JSON object").await;
            }
            Incoming::Gone => return Err(Over),
        };
        let Some(id) = message["context_id"].as_str().map(str::to_owned) else {
            return self.fail(None, 400, "context_id is missing").await;
        };
        if let Some(name) = unknown_name(&message) {
            self.wire.entry.oddity(format!("unknown field {name}"));
        }
        if message["cancel"] == true {
            return self.cancel(&id).await;
        }
        let request = match Generation::parse(&message) {
            Ok(request) => request,
            Err(problem) => return self.fail(Some(&id), 400, &problem).await,
        };
        if let Err((status, problem)) = self.open(&id, &request) {
            return self.fail(Some(&id), status, problem).await;
        }
        self.add(&id, &request).await
    }

    async fn fail(&mut self, id: Option<&str>, status: u16, problem: &str) -> Result<(), Over> {
        self.wire.entry.oddity(format!("error {status}: {problem}"));
        if let Some(context) = id.and_then(|id| self.contexts.get_mut(id)) {
            context.phase = Phase::Over;
        }
        let error =
            json!({"type": "error", "context_id": id, "error": problem, "status_code": status, "done": true});
        self.wire.json(error).await
    }

    /// Finds the context of a request, or makes it.
    fn open(&mut self, id: &str, request: &Generation) -> Result<(), (u16, &'static str)> {
        if let Some(context) = self.contexts.get(id) {
            let lifetime = Duration::from_millis(self.limits.cartesia_context_ms);
            let expired = context.quiet_since.is_some_and(|since| since + lifetime <= Instant::now());
            return match context.phase {
                Phase::Open if expired => Err((400, "the context has expired")),
                Phase::Open if context.fixed != request.fixed => {
                    Err((400, "only transcript, continue and duration may change within a context"))
                }
                Phase::Open => Ok(()),
                Phase::Complete | Phase::Over => {
                    Err((400, "the context is over: its id cannot be used again"))
                }
            };
        }
        let in_flight = self.contexts.values().filter(|context| context.phase != Phase::Over).count();
        if self.limits.cartesia_contexts > 0 && in_flight >= self.limits.cartesia_contexts {
            return Err((429, "too many contexts in flight"));
        }
        let context = Context {
            fixed: request.fixed.clone(),
            format: request.format,
            timestamps: request.timestamps,
            buffer_delay: request.buffer_delay,
            text: String::new(),
            parts: BTreeMap::new(),
            unstarted: BTreeSet::new(),
            unfinished: BTreeSet::new(),
            audio_ms: 0,
            busy_until: Instant::now(),
            flush_id: 1,
            flushes: Vec::new(),
            phase: Phase::Open,
            quiet_since: None,
        };
        self.contexts.insert(id.to_owned(), context);
        Ok(())
    }

    async fn add(&mut self, id: &str, request: &Generation) -> Result<(), Over> {
        let Some(context) = self.contexts.get_mut(id) else { return Ok(()) };
        context.text.push_str(&request.transcript);
        if !request.goes_on {
            context.phase = Phase::Complete;
        }
        if request.flush || !request.goes_on {
            self.speak(id, true);
        } else if ends_sentence(&context.text) || context.buffer_delay.is_zero() {
            self.speak(id, false);
        } else {
            self.voice.wake(Instant::now() + context.buffer_delay, id);
        }
        let Some(context) = self.contexts.get_mut(id) else { return Ok(()) };
        if request.flush {
            context.flushes.push((context.flush_id, context.unfinished.last().copied()));
            context.flush_id += 1;
        }
        self.report(id).await
    }

    /// Speaks the text that waits: all of it, or as far as its words are known to be whole.
    fn speak(&mut self, id: &str, all: bool) {
        let Some(context) = self.contexts.get_mut(id) else { return };
        let end = if all { context.text.len() } else { context.text.rfind(' ').map_or(0, |space| space + 1) };
        let rest = context.text.split_off(end);
        let text = std::mem::replace(&mut context.text, rest);
        if text.trim().is_empty() {
            return;
        }
        let request = Text { context: id, text: &text, format: context.format };
        let (delivery, ends, audio_ms) = self.voice.speak(&request, context.busy_until, &self.wire.entry);
        context.busy_until = ends;
        context.quiet_since = None;
        context.parts.insert(delivery, Part { start_ms: context.audio_ms, flush_id: context.flush_id });
        context.audio_ms += audio_ms;
        context.unstarted.insert(delivery);
        context.unfinished.insert(delivery);
        self.deliveries.insert(delivery, id.to_owned());
    }

    /// Stops what has not begun; what has begun is sent to its end.
    async fn cancel(&mut self, id: &str) -> Result<(), Over> {
        let Some(context) = self.contexts.get_mut(id).filter(|context| context.phase != Phase::Over) else {
            self.wire.entry.oddity(format!("cancels context {id}, which is not in flight"));
            return Ok(());
        };
        context.phase = Phase::Complete;
        context.text.clear();
        context.flushes.clear();
        for delivery in &context.unfinished {
            self.wire.entry.cancelled(*delivery);
        }
        let unstarted = std::mem::take(&mut context.unstarted);
        context.unfinished.retain(|delivery| !unstarted.contains(delivery));
        self.voice.discard(&unstarted);
        self.report(id).await
    }

    async fn send(&mut self, due: Due) -> Result<(), Over> {
        let (delivery, piece) = match due {
            Due::Piece(delivery, piece) => (delivery, piece),
            Due::Send(outgoing) => return self.wire.send(outgoing).await,
            Due::Wake(id) => {
                self.speak(&id, false);
                return Ok(());
            }
        };
        let Some(id) = self.deliveries.get(&delivery).cloned() else { return Ok(()) };
        match piece {
            Piece::Audio(chunk) => self.send_chunk(&id, delivery, &chunk).await,
            Piece::NotJson => self.wire.send(Outgoing::Text(NOT_JSON.into())).await,
            Piece::Cut => self.wire.send(Outgoing::Cut).await,
            Piece::Done => {
                let Some(context) = self.contexts.get_mut(&id) else { return Ok(()) };
                if context.phase == Phase::Over {
                    return self.wire.json(done(&id)).await;
                }
                context.unstarted.remove(&delivery);
                context.unfinished.remove(&delivery);
                if context.unfinished.is_empty() {
                    context.quiet_since = Some(Instant::now());
                }
                self.report(&id).await
            }
        }
    }

    async fn send_chunk(&mut self, id: &str, delivery: usize, chunk: &Chunk) -> Result<(), Over> {
        let Some(context) = self.contexts.get_mut(id) else { return Ok(()) };
        let Some(Part { start_ms, flush_id }) = context.parts.get(&delivery).copied() else { return Ok(()) };
        context.unstarted.remove(&delivery);
        self.wire.entry.edit(|record| record.audio_bytes_out += chunk.bytes.len() as u64);
        self.wire.entry.spoke(delivery, chunk.to_ms);
        let message = json!({"type": "chunk", "context_id": id, "data": STANDARD.encode(&chunk.bytes), "done": false,
            "status_code": 206, "step_time": 12.3, "flush_id": flush_id});
        let timed = context.timestamps && !chunk.words.is_empty();
        self.wire.json(message).await?;
        if !timed {
            return Ok(());
        }
        let seconds = |ms: u64| (start_ms + ms) as f64 / 1_000.0;
        let words = |of: fn(&HeardWord) -> Value| chunk.words.iter().map(of).collect::<Value>();
        let times = |of: fn(&HeardWord) -> u64| {
            chunk.words.iter().map(|word| json!(seconds(of(word)))).collect::<Value>()
        };
        let timestamps = json!({"words": words(|word| json!(word.word)), "start": times(|word| word.start_ms),
            "end": times(|word| word.end_ms)});
        self.wire
            .json(json!({"type": "timestamps", "context_id": id, "done": false, "status_code": 206,
                "word_timestamps": timestamps}))
            .await
    }

    /// Says which flushes are done, and whether the context is.
    async fn report(&mut self, id: &str) -> Result<(), Over> {
        let Some(context) = self.contexts.get_mut(id) else { return Ok(()) };
        let first_unfinished = context.unfinished.first().copied();
        let is_done = |after: Option<usize>| match (after, first_unfinished) {
            (Some(after), Some(first)) => after < first,
            _ => true,
        };
        let done_flushes: Vec<u64> = context
            .flushes
            .extract_if(.., |(_, after)| is_done(*after))
            .map(|(flush_id, _)| flush_id)
            .collect();
        let over = context.phase == Phase::Complete && context.unfinished.is_empty();
        if over {
            context.phase = Phase::Over;
        }
        for flush_id in done_flushes {
            let message = json!({"type": "flush_done", "context_id": id, "flush_id": flush_id, "flush_done": true,
                "done": false, "status_code": 206});
            self.wire.json(message).await?;
        }
        if over { self.wire.json(done(id)).await } else { Ok(()) }
    }
}

fn done(id: &str) -> Value {
    json!({"type": "done", "context_id": id, "done": true, "status_code": 200})
}

fn ends_sentence(text: &str) -> bool {
    text.trim_end().ends_with(['.', '?', '!'])
}

/// One request to speak.
struct Generation {
    fixed: Value,
    format: AudioFormat,
    timestamps: bool,
    buffer_delay: Duration,
    transcript: String,
    goes_on: bool,
    flush: bool,
}

/// Fields that may change within a context.
const CHANGING: [&str; 4] = ["transcript", "continue", "duration", "flush"];

impl Generation {
    fn parse(message: &Value) -> Result<Generation, String> {
        let text = |pointer: &str| {
            message
                .pointer(pointer)
                .and_then(Value::as_str)
                .ok_or_else(|| format!("{} is missing", &pointer[1..]))
        };
        text("/model_id")?;
        text("/voice/mode")?;
        text("/voice/id")?;
        let transcript = text("/transcript")?.to_owned();
        if text("/output_format/container")? != "raw" {
            return Err("over a socket output_format.container must be raw".into());
        }
        let encoding = match text("/output_format/encoding")? {
            "pcm_s16le" => Encoding::Linear16,
            "pcm_f32le" => Encoding::Float32,
            "pcm_mulaw" => Encoding::Mulaw,
            "pcm_alaw" => Encoding::Alaw,
            other => return Err(format!("output_format.encoding {other} is unknown")),
        };
        let rate_hz = message["output_format"]["sample_rate"].as_u64().unwrap_or_default() as u32;
        if ![8_000, 16_000, 22_050, 24_000, 44_100, 48_000].contains(&rate_hz) {
            return Err("output_format.sample_rate is missing or unknown".into());
        }
        let buffer_delay_ms = message["max_buffer_delay_ms"].as_u64().unwrap_or_default();
        if buffer_delay_ms > 1_000 {
            return Err("max_buffer_delay_ms must be at most 1000".into());
        }
        let goes_on = message["continue"] == true;
        let flush = message["flush"] == true;
        if transcript.is_empty() && goes_on && !flush {
            return Err("an empty transcript must end or flush the context".into());
        }
        let mut fixed = message.clone();
        if let Some(fields) = fixed.as_object_mut() {
            fields.retain(|name, _| !CHANGING.contains(&name.as_str()));
        }
        Ok(Generation {
            fixed,
            format: AudioFormat { encoding, rate_hz },
            timestamps: message["add_timestamps"] == true,
            buffer_delay: Duration::from_millis(buffer_delay_ms),
            transcript,
            goes_on,
            flush,
        })
    }
}

fn unknown_name(message: &Value) -> Option<&String> {
    const NAMES: [&str; 17] = [
        "model_id",
        "transcript",
        "voice",
        "language",
        "context_id",
        "continue",
        "duration",
        "output_format",
        "add_timestamps",
        "add_phoneme_timestamps",
        "use_normalized_timestamps",
        "max_buffer_delay_ms",
        "generation_config",
        "flush",
        "cancel",
        "speed",
        "pronunciation_dict_id",
    ];
    message.as_object()?.keys().find(|name| !NAMES.contains(&name.as_str()))
}
