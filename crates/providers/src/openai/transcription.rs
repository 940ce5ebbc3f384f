//! Transcription by REST: an utterance is cut out of the audio by our own ear, posted as a WAV file, and comes back as a final.
//! It does not know what the words mean, nor whether the caller's turn is over.

use super::{reach, request};
use crate::json::Text;
use crate::refusal::in_stream;
use crate::settings::Service;
use crate::sse::SseReader;
use crate::utterances::{self, Found, Utterances};
use crate::{
    AudioFormat, Cause, ProviderError, SESSION_QUEUE, Stt, SttCommand, SttEvent, SttOptions, SttSession, http,
};
use bytes::Bytes;
use offhook_media::g711::Law;
use offhook_media::wav::Wav;
use reqwest::multipart::{Form, Part};
use reqwest::{Method, Response};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Samples a millisecond on a telephone line.
const SAMPLES_PER_MS: u64 = 8;

/// Audio kept from before speech was noticed, ms: the first consonant is quiet.
const LEAD_IN_MS: u64 = 240;

/// Longest utterance that is posted as one, ms; longer ones are posted in pieces.
const MAX_UTTERANCE_MS: u64 = 60_000;

/// Utterances that may wait for the one that is being transcribed.
const MAX_WAITING: usize = 8;

/// Longest transcript of an utterance.
const MAX_TRANSCRIPT_BYTES: usize = 64 * 1024;

/// A recogniser behind the transcription interface.
pub(crate) struct Transcription(pub(crate) Service);

impl Stt for Transcription {
    fn name(&self) -> &'static str {
        self.0.provider
    }

    fn format(&self) -> AudioFormat {
        AudioFormat::Mulaw
    }

    fn open(&self, options: SttOptions) -> SttSession {
        let (commands_in, commands) = mpsc::channel(SESSION_QUEUE);
        let (events, events_out) = mpsc::channel(SESSION_QUEUE);
        let listener = Listener {
            service: Arc::new(self.0.clone()),
            ear: Ear::new(options.endpointing_ms),
            options: Arc::new(options),
            waiting: VecDeque::new(),
            events,
        };
        tokio::spawn(listener.run(commands));
        SttSession { commands: commands_in, events: events_out }
    }
}

struct Listener {
    service: Arc<Service>,
    options: Arc<SttOptions>,
    ear: Ear,
    waiting: VecDeque<Utterance>,
    events: mpsc::Sender<SttEvent>,
}

type Transcribing = Pin<Box<dyn Future<Output = Result<(), ProviderError>> + Send>>;

impl Listener {
    async fn run(mut self, mut commands: mpsc::Receiver<SttCommand>) {
        let gone = self.events.clone();
        tokio::select! {
            () = gone.closed() => {}
            result = self.listen(&mut commands) => {
                if let Err(error) = result {
                    let _ = gone.send(SttEvent::Failed(error)).await;
                }
            }
        }
    }

    async fn listen(&mut self, commands: &mut mpsc::Receiver<SttCommand>) -> Result<(), ProviderError> {
        let service = self.service.clone();
        let mut reaching = pin!(reach(&service));
        let (mut is_reached, mut accepting) = (false, true);
        let mut transcribing: Option<Transcribing> = None;
        loop {
            if transcribing.is_none() {
                transcribing = self.waiting.pop_front().map(|utterance| self.transcribe(utterance));
            }
            if !accepting && transcribing.is_none() {
                return Ok(());
            }
            tokio::select! {
                command = commands.recv(), if accepting => match command {
                    Some(SttCommand::Audio(audio)) => self.ear.hear(&audio, &mut self.waiting),
                    Some(SttCommand::Finalize) => self.ear.finalize(&mut self.waiting),
                    Some(SttCommand::Context(_)) => {}
                    None => {
                        accepting = false;
                        self.ear.close(&mut self.waiting);
                    }
                },
                reached = &mut reaching, if !is_reached => {
                    is_reached = true;
                    reached?;
                    let _ = self.events.send(SttEvent::Opened).await;
                }
                result = done(&mut transcribing) => {
                    transcribing = None;
                    result?;
                }
            }
            if self.waiting.len() > MAX_WAITING {
                return Err(ProviderError::timed_out(
                    self.service.provider,
                    "transcripts fall behind the speech",
                ));
            }
        }
    }

    fn transcribe(&self, utterance: Utterance) -> Transcribing {
        let (service, options, events) = (self.service.clone(), self.options.clone(), self.events.clone());
        Box::pin(async move {
            let Utterance { pcm, start_ms, end_ms, utterance_end } = utterance;
            let text = if pcm.is_empty() {
                String::new()
            } else {
                let wav = Bytes::from(Wav::mono(8_000, pcm).to_bytes());
                let transcribe = async || {
                    let form = || form(&service, &options, &wav);
                    let post =
                        || request(&service, Method::POST, &["audio", "transcriptions"]).multipart(form());
                    let response = http::ask(&service, post).await?;
                    let interim = |text| SttEvent::Interim { text, start_ms, end_ms };
                    transcript(&service, response, &events, interim).await
                };
                match transcribe().await {
                    // Nobody else has these words. Who has waited long already does not wait as long again.
                    Err(error) if error.cause.may_pass() && error.cause != Cause::TimedOut => {
                        transcribe().await?
                    }
                    result => result?,
                }
            };
            let _ = events.send(SttEvent::Final { text, start_ms, end_ms, utterance_end }).await;
            Ok(())
        })
    }
}

async fn done(transcribing: &mut Option<Transcribing>) -> Result<(), ProviderError> {
    match transcribing {
        Some(transcribing) => transcribing.await,
        None => pending().await,
    }
}

fn form(service: &Service, options: &SttOptions, wav: &Bytes) -> Form {
    let mut fields = json!({
        "model": service.model,
        "language": options.language.primary(),
        "response_format": "json",
    });
    if !options.keywords.is_empty() {
        fields["prompt"] = options.keywords.join(", ").into();
    }
    let file = Part::stream_with_length(wav.clone(), wav.len() as u64).file_name("utterance.wav");
    let mut form = Form::new().part("file", file.mime_str("audio/wav").expect("this is a media type"));
    for (name, value) in service.with_options(fields) {
        let values = if let Value::Array(values) = value { values } else { vec![value] };
        for value in values {
            form = form.text(name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
    }
    form
}

/// A transcript, or an event of one that is streamed.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    delta: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    error: Option<IgnoredAny>,
}

async fn transcript(
    service: &Service,
    mut response: Response,
    events: &mpsc::Sender<SttEvent>,
    interim: impl Fn(String) -> SttEvent,
) -> Result<String, ProviderError> {
    let provider = service.provider;
    let not_understood = || ProviderError::malformed(provider, "a transcript that is not understood");
    if !http::is_of(&response, "text/event-stream") {
        let body = http::whole(provider, &service.endpoint, response).await?;
        let frame: Frame = serde_json::from_slice(&body).map_err(|_| not_understood())?;
        let text = frame.text.ok_or_else(not_understood)?;
        return Ok(text.trim().to_owned());
    }
    let mut reader = SseReader::default();
    let mut transcript = Transcript { provider, text: String::new(), is_done: false };
    while !transcript.is_done {
        let deadline = Instant::now() + service.endpoint.idle_timeout;
        let Some(piece) = http::piece(provider, &mut response, deadline).await? else {
            return Err(ProviderError::new(provider, Cause::Unreachable, "the transcript broke off"));
        };
        let known = transcript.text.len();
        let mut understood = Ok(());
        let read = reader.push(&piece, |data| {
            if understood.is_ok() {
                understood = transcript.event(data);
            }
        });
        understood?;
        read.map_err(|error| ProviderError::malformed(provider, error.to_string()))?;
        if !transcript.is_done && transcript.text.len() > known {
            let _ = events.send(interim(transcript.text.trim().to_owned())).await;
        }
    }
    Ok(transcript.text.trim().to_owned())
}

/// A transcript that comes in pieces.
struct Transcript {
    provider: &'static str,
    text: String,
    is_done: bool,
}

impl Transcript {
    fn event(&mut self, data: &str) -> Result<(), ProviderError> {
        let malformed = |detail| ProviderError::malformed(self.provider, detail);
        if data.trim() == "[DONE]" {
            self.is_done = true;
            return Ok(());
        }
        let frame: Frame =
            serde_json::from_str(data).map_err(|_| malformed("a transcript that is not understood"))?;
        if frame.error.is_some() {
            return Err(in_stream(self.provider, data.as_bytes()));
        }
        match frame.kind.as_deref() {
            Some("transcript.text.delta") => self.text.push_str(frame.delta.as_deref().unwrap_or_default()),
            Some("transcript.text.done") => {
                self.is_done = true;
                if let Some(text) = frame.text {
                    self.text = text.into_owned();
                }
            }
            _ => {}
        }
        if self.text.len() > MAX_TRANSCRIPT_BYTES {
            return Err(malformed("the transcript does not end"));
        }
        Ok(())
    }
}

/// Speech to be transcribed; without samples there was nothing to hear.
#[derive(Debug, PartialEq, Eq)]
struct Utterance {
    pcm: Vec<i16>,
    start_ms: u32,
    end_ms: u32,
    utterance_end: bool,
}

/// Cuts utterances out of a line's audio.
struct Ear {
    utterances: Utterances,
    found: Vec<Found>,
    /// Audio that may still be needed.
    pcm: Vec<i16>,
    /// Samples of the session before `pcm`.
    before: u64,
}

impl Ear {
    fn new(endpointing_ms: u32) -> Self {
        let utterances = Utterances::new(endpointing_ms, MAX_UTTERANCE_MS);
        Ear { utterances, found: Vec::new(), pcm: Vec::new(), before: 0 }
    }

    fn hear(&mut self, audio: &[u8], waiting: &mut VecDeque<Utterance>) {
        let fed = self.pcm.len();
        Law::Mu.decode(audio, &mut self.pcm);
        self.utterances.hear(&self.pcm[fed..], &mut self.found);
        self.cut(waiting);
        if self.utterances.since_ms().is_none() && self.pcm.len() as u64 > 8 * LEAD_IN_MS * SAMPLES_PER_MS {
            self.forget(self.now() - 2 * LEAD_IN_MS * SAMPLES_PER_MS);
        }
    }

    /// Cuts off what has been spoken so far, though it may be nothing.
    fn finalize(&mut self, waiting: &mut VecDeque<Utterance>) {
        self.utterances.end(&mut self.found);
        if self.found.is_empty() {
            let now_ms = short(self.utterances.now_ms());
            waiting.push_back(Utterance {
                pcm: Vec::new(),
                start_ms: now_ms,
                end_ms: now_ms,
                utterance_end: false,
            });
        }
        self.cut(waiting);
    }

    /// The line is closed: cuts off what was being spoken.
    fn close(&mut self, waiting: &mut VecDeque<Utterance>) {
        let known = waiting.len();
        self.utterances.end(&mut self.found);
        self.cut(waiting);
        waiting.iter_mut().skip(known).for_each(|last| last.utterance_end = true);
    }

    fn cut(&mut self, waiting: &mut VecDeque<Utterance>) {
        for found in std::mem::take(&mut self.found) {
            match found {
                Found::Begins { at_ms } => self.forget(at_ms.saturating_sub(LEAD_IN_MS) * SAMPLES_PER_MS),
                Found::Ends(utterances::Utterance { has_speech, is_over, .. }) => {
                    let start = self.before;
                    let heard = std::mem::take(&mut self.pcm);
                    self.before += heard.len() as u64;
                    waiting.push_back(Utterance {
                        pcm: if has_speech { heard } else { Vec::new() },
                        start_ms: short(start / SAMPLES_PER_MS),
                        end_ms: short(self.before / SAMPLES_PER_MS),
                        utterance_end: is_over,
                    });
                }
            }
        }
    }

    fn now(&self) -> u64 {
        self.before + self.pcm.len() as u64
    }

    /// Drops audio from before a sample of the session.
    fn forget(&mut self, until: u64) {
        let drop =
            usize::try_from(until.saturating_sub(self.before)).unwrap_or(usize::MAX).min(self.pcm.len());
        self.pcm.drain(..drop);
        self.before += drop as u64;
    }
}

fn short(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}
