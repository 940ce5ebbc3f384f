//! Speech by REST: one request a clause, in order, the next one asked for while the first still plays.
//! It knows no words' times: how far a reply is spoken follows from the ends of its clauses.

use super::{reach, request};
use crate::contexts::{Contexts, Finished, Spoken};
use crate::settings::Service;
use crate::ws::{Outbox, has_room};
use crate::{
    AudioFormat, Cause, ProviderError, SESSION_QUEUE, Tts, TtsCommand, TtsEvent, TtsOptions, TtsSession, http,
};
use bytes::Bytes;
use offhook_media::g711::Law;
use offhook_media::resample::Resampler;
use reqwest::{Method, Response};
use serde_json::json;
use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Rate of the interface's `pcm`, Hz: signed 16-bit little-endian, one channel, no header.
const PCM_RATE_HZ: u32 = 24_000;

/// Rate of a telephone line, Hz.
const LINE_RATE_HZ: u32 = 8_000;

/// Longest clause the interface takes.
const MAX_CLAUSE_CHARS: usize = 4_096;

/// Clauses that are asked for at once: the one that plays and the next.
const ASKED_AT_ONCE: usize = 2;

/// A voice behind the speech interface.
pub(crate) struct Speech(pub(crate) Service);

impl Tts for Speech {
    fn name(&self) -> &'static str {
        self.0.provider
    }

    fn format(&self) -> AudioFormat {
        AudioFormat::Mulaw
    }

    fn open(&self, _options: TtsOptions) -> TtsSession {
        let (commands_in, commands) = mpsc::channel(SESSION_QUEUE);
        let (events, events_out) = mpsc::channel(SESSION_QUEUE);
        let speaker = Speaker {
            contexts: Contexts::new(self.0.provider, AudioFormat::Mulaw),
            service: Arc::new(self.0.clone()),
            clauses: VecDeque::new(),
            out: Outbox::new(),
        };
        tokio::spawn(speaker.run(commands, events));
        TtsSession { commands: commands_in, events: events_out }
    }
}

struct Speaker {
    service: Arc<Service>,
    contexts: Contexts,
    /// In the order in which they are spoken.
    clauses: VecDeque<Clause>,
    out: Outbox<TtsEvent>,
}

impl Speaker {
    async fn run(mut self, mut commands: mpsc::Receiver<TtsCommand>, events: mpsc::Sender<TtsEvent>) {
        let service = self.service.clone();
        let mut reaching = pin!(reach(&service));
        let (mut is_reached, mut accepting) = (false, true);
        loop {
            self.out.deliver(&events);
            let consumer_is_slow = self.out.is_full();
            if !accepting && !consumer_is_slow && self.clauses.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                () = events.closed() => return,
                () = has_room(&events), if consumer_is_slow => {}
                command = commands.recv(), if accepting => match command {
                    Some(command) => self.command(command),
                    None => accepting = false,
                },
                reached = &mut reaching, if !is_reached => {
                    is_reached = true;
                    if let Err(error) = reached {
                        self.out.report(TtsEvent::Failed { context: None, error });
                        return self.out.deliver_all(&events).await;
                    }
                    self.out.report(TtsEvent::Opened);
                }
                step = next_step(&mut self.clauses), if !consumer_is_slow && !self.clauses.is_empty() => {
                    self.take(step);
                }
            }
        }
    }

    fn command(&mut self, command: TtsCommand) {
        match command {
            TtsCommand::Speak { context, text } => self.speak(context, &text),
            TtsCommand::Finish { context } => {
                if self.contexts.finish(context, &mut self.out) == Finished::Speaking {
                    self.end_if_spoken(context);
                }
            }
            TtsCommand::Cancel { context } => {
                self.contexts.cancel(context);
                self.drop_clauses(context);
            }
        }
    }

    fn speak(&mut self, context: u32, text: &str) {
        let is_silent = text.trim().is_empty();
        if self.contexts.speak(context, text, &mut self.out) == Spoken::Nothing || is_silent {
            return;
        }
        if text.chars().count() > MAX_CLAUSE_CHARS {
            let error = ProviderError::new(self.service.provider, Cause::Refused, "a clause is too long");
            return self.fail(context, error);
        }
        let end_bytes = self.contexts.live(context).map_or(0, |reply| reply.text.len());
        let state = ClauseState::Waiting(text.trim().to_owned());
        let service = self.service.clone();
        self.clauses.push_back(Clause { context, end_bytes, service, state, converter: Converter::new() });
        self.ask_ahead();
    }

    fn ask_ahead(&mut self) {
        for clause in self.clauses.iter_mut().take(ASKED_AT_ONCE) {
            if let ClauseState::Waiting(text) = &mut clause.state {
                let asking = ask(self.service.clone(), std::mem::take(text));
                clause.state = ClauseState::Asked(Box::pin(asking));
            }
        }
    }

    fn take(&mut self, step: Step) {
        let Some(front) = self.clauses.front_mut() else { return };
        let (context, end_bytes) = (front.context, front.end_bytes);
        match step {
            Step::Piece(pcm) => {
                let is_file = !front.converter.has_begun && pcm.starts_with(b"RIFF");
                if is_file {
                    let detail = "a WAV file where bare PCM was asked for";
                    return self.fail(context, ProviderError::malformed(self.service.provider, detail));
                }
                let audio = front.converter.push(&pcm);
                self.contexts.audio(context, audio, &mut self.out);
                if !self.contexts.is_live(context) {
                    self.drop_clauses(context);
                }
            }
            Step::End => {
                let rest = front.converter.flush();
                self.clauses.pop_front();
                self.contexts.audio(context, rest, &mut self.out);
                if !self.contexts.delivered(context, end_bytes, &mut self.out) {
                    return self.drop_clauses(context);
                }
                self.ask_ahead();
                self.end_if_spoken(context);
            }
            Step::Failed(error) => self.fail(context, error),
        }
    }

    fn end_if_spoken(&mut self, context: u32) {
        let waits = self.clauses.iter().any(|clause| clause.context == context);
        if !waits && self.contexts.live(context).is_some_and(|reply| reply.finished) {
            self.contexts.done(context, &mut self.out);
        }
    }

    fn fail(&mut self, context: u32, error: ProviderError) {
        self.contexts.fail(context, error, &mut self.out);
        self.drop_clauses(context);
    }

    /// Dropping a clause closes its connection, and so ends the provider's work on it.
    fn drop_clauses(&mut self, context: u32) {
        self.clauses.retain(|clause| clause.context != context);
        self.ask_ahead();
    }
}

/// One request, from the text that waits to the audio that comes.
struct Clause {
    context: u32,
    /// Where it ends in the reply's text.
    end_bytes: usize,
    service: Arc<Service>,
    state: ClauseState,
    converter: Converter,
}

enum ClauseState {
    Waiting(String),
    Asked(Pin<Box<dyn Future<Output = Result<Response, ProviderError>> + Send>>),
    Playing(Response),
    Broken(ProviderError),
}

/// What comes next of the clause that plays.
enum Step {
    Piece(Bytes),
    End,
    Failed(ProviderError),
}

/// Waits for the first clause, and meanwhile brings the second as far as its answer's head. Nothing is lost where this is
/// dropped half way.
async fn next_step(clauses: &mut VecDeque<Clause>) -> Step {
    let mut clauses = clauses.iter_mut();
    let Some(first) = clauses.next() else { return pending().await };
    let Some(second) = clauses.next() else { return first.step().await };
    tokio::select! {
        biased;
        step = first.step() => step,
        step = async { second.prepare().await; pending().await } => step,
    }
}

impl Clause {
    async fn prepare(&mut self) {
        if let ClauseState::Asked(asking) = &mut self.state {
            self.state = match asking.await {
                Ok(response) => ClauseState::Playing(response),
                Err(error) => ClauseState::Broken(error),
            };
        }
    }

    async fn step(&mut self) -> Step {
        self.prepare().await;
        match &mut self.state {
            ClauseState::Playing(response) => {
                let deadline = Instant::now() + self.service.endpoint.idle_timeout;
                match http::piece(self.service.provider, response, deadline).await {
                    Ok(Some(piece)) => Step::Piece(piece),
                    Ok(None) => Step::End,
                    Err(error) => Step::Failed(error),
                }
            }
            ClauseState::Broken(error) => Step::Failed(error.clone()),
            ClauseState::Waiting(_) | ClauseState::Asked(_) => pending().await,
        }
    }
}

async fn ask(service: Arc<Service>, text: String) -> Result<Response, ProviderError> {
    let body = service.with_options(json!({
        "model": service.model,
        "voice": service.voice,
        "input": text,
        "response_format": "pcm",
    }));
    let post = || request(&service, Method::POST, &["audio", "speech"]).json(&body);
    let response = http::ask(&service, post).await?;
    if http::is_of(&response, "application/json") || http::is_of(&response, "text/") {
        return Err(ProviderError::malformed(service.provider, "an answer that is not audio"));
    }
    Ok(response)
}

/// Makes line audio of the interface's PCM, however its bytes are cut.
struct Converter {
    resampler: Resampler,
    /// The first byte of a sample whose second has not come.
    odd: Option<u8>,
    has_begun: bool,
    pcm: Vec<i16>,
    line_pcm: Vec<i16>,
}

impl Converter {
    fn new() -> Self {
        let resampler = Resampler::new(PCM_RATE_HZ, LINE_RATE_HZ).expect("24 to 8 kHz is a plain ratio");
        Converter { resampler, odd: None, has_begun: false, pcm: Vec::new(), line_pcm: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8]) -> Bytes {
        self.has_begun |= !bytes.is_empty();
        self.pcm.clear();
        let mut rest = bytes;
        if let (Some(low), [high, after @ ..]) = (self.odd, rest) {
            self.pcm.push(i16::from_le_bytes([low, *high]));
            self.odd = None;
            rest = after;
        }
        let (samples, odd) = rest.as_chunks::<2>();
        self.pcm.extend(samples.iter().map(|sample| i16::from_le_bytes(*sample)));
        self.odd = self.odd.or(odd.first().copied());
        self.resampler.push(&self.pcm, &mut self.line_pcm);
        self.coded()
    }

    /// What the resampler still holds back at the end of a clause.
    fn flush(&mut self) -> Bytes {
        if self.has_begun {
            self.resampler.flush(&mut self.line_pcm);
        }
        self.coded()
    }

    fn coded(&mut self) -> Bytes {
        let mut coded = Vec::with_capacity(self.line_pcm.len());
        Law::Mu.encode(&self.line_pcm, &mut coded);
        self.line_pcm.clear();
        coded.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn audio_is_the_same_however_it_is_cut(
            pcm in prop::collection::vec(any::<u8>(), 0..2_000),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = converted(&[&pcm]);
            let (head, tail) = pcm.split_at(cut.index(pcm.len() + 1));
            prop_assert_eq!(&whole, &converted(&[head, tail]));
            prop_assert!(whole.len().abs_diff(pcm.len() / 6) <= 16, "{} of {}", whole.len(), pcm.len());
        }
    }

    fn converted(pieces: &[&[u8]]) -> Vec<u8> {
        let mut converter = Converter::new();
        let mut audio: Vec<u8> = pieces.iter().flat_map(|piece| converter.push(piece)).collect();
        audio.extend(converter.flush());
        audio
    }
}
