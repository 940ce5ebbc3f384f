//! The offline recogniser: finds utterances in the caller's audio and recognises each with a grammar of what the scripted
//! receptionist expects. It does not know a call; open dictation is beyond it, and it says `[unclear]` rather than guess.

use super::grammar::grammar;
use super::script::Script;
use super::{NAME, UNCLEAR, brain};
use crate::utterances::{Found, Utterance, Utterances};
use crate::{
    AudioFormat, Cause, ProviderError, SESSION_QUEUE, Stt, SttCommand, SttEvent, SttOptions, SttSession,
};
use offhook_core::ChatMessage;
use offhook_media::LINE_RATE_HZ;
use offhook_media::resample::Resampler;
use offhook_sphinx::{Hypothesis, Model, Recogniser, SAMPLE_RATE_HZ, TRUSTED};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// PocketSphinx with the model of American English that the program carries.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where the model is unpacked, 6.6 MB.
    pub cache: PathBuf,
}

/// Audio kept from before speech is noticed: the first consonant is quieter than what notices it.
const PRE_ROLL_MS: u64 = 240;

/// How often the words so far are looked at.
const INTERIM_MS: u64 = 240;

/// The shortest silence that ends an utterance, whatever is asked for: within words there are pauses of this length.
const LEAST_ENDPOINTING_MS: u32 = 200;

/// Sound shorter than this is a cough or a click, and not worth a "sorry?".
const LEAST_SPEECH_MS: u64 = 240;

/// After so long an utterance is cut: a radio in the background does not end.
const MAX_UTTERANCE_MS: u64 = 20_000;

/// Recognisers kept loaded between calls, 20 MB each.
const KEPT: usize = 4;

impl Stt for Listener {
    fn name(&self) -> &'static str {
        NAME
    }

    fn format(&self) -> AudioFormat {
        AudioFormat::Linear16 { rate_hz: LINE_RATE_HZ }
    }

    fn open(&self, options: SttOptions) -> SttSession {
        let (commands, received) = mpsc::channel(SESSION_QUEUE);
        let (report, events) = mpsc::channel(SESSION_QUEUE);
        let cache = self.cache.clone();
        // A thread of its own: recognition is steady work for as long as the caller speaks.
        let thread = std::thread::Builder::new().name("offline-stt".into());
        let failed = report.clone();
        let spawned = thread.spawn(move || {
            if let Err(error) = listen(&cache, &options, received, &report) {
                let _ = report.blocking_send(SttEvent::Failed(error));
            }
        });
        if let Err(error) = spawned {
            let _ = failed.try_send(SttEvent::Failed(broken(Cause::Unreachable, error.to_string())));
        }
        SttSession { commands, events }
    }
}

fn listen(
    cache: &std::path::Path,
    options: &SttOptions,
    mut received: mpsc::Receiver<SttCommand>,
    report: &mpsc::Sender<SttEvent>,
) -> Result<(), ProviderError> {
    let recogniser = Loan::take(cache).map_err(|error| broken(Cause::Unreachable, error.to_string()))?;
    let mut ear = Ear::new(recogniser, options.endpointing_ms)?;
    let mut events = vec![SttEvent::Opened];
    loop {
        for event in events.drain(..) {
            if report.blocking_send(event).is_err() {
                return Ok(());
            }
        }
        match received.blocking_recv() {
            Some(SttCommand::Audio(audio)) => {
                let pcm: Vec<i16> =
                    audio.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
                ear.hear(&pcm, &mut events);
            }
            Some(SttCommand::Finalize) => ear.finalize(&mut events),
            Some(SttCommand::Context(messages)) => ear.expect(&messages),
            None => return Ok(()),
        }
    }
}

fn broken(cause: Cause, detail: String) -> ProviderError {
    ProviderError { provider: NAME, cause, detail }
}

/// One caller's audio, as it becomes words.
struct Ear {
    recogniser: Loan,
    utterances: Utterances,
    found: Vec<Found>,
    wide: Resampler,
    /// The last audio that was heard, at the recogniser's rate.
    recent: Vec<i16>,
    looked_at_ms: u64,
    interim: String,
    /// The grammar to use from the next utterance on.
    next_grammar: Option<String>,
}

impl Ear {
    fn new(recogniser: Loan, endpointing_ms: u32) -> Result<Self, ProviderError> {
        let wide = Resampler::new(LINE_RATE_HZ, SAMPLE_RATE_HZ)
            .map_err(|error| broken(Cause::Refused, error.to_string()))?;
        Ok(Ear {
            recogniser,
            utterances: Utterances::new(endpointing_ms.max(LEAST_ENDPOINTING_MS), MAX_UTTERANCE_MS),
            found: vec![],
            wide,
            recent: vec![],
            looked_at_ms: 0,
            interim: String::new(),
            next_grammar: None,
        })
    }

    fn expect(&mut self, messages: &[ChatMessage]) {
        let (script, expects) = brain::expects(messages);
        self.next_grammar = Some(grammar(&script, expects));
        if self.utterances.since_ms().is_none() {
            self.use_next_grammar();
        }
    }

    fn hear(&mut self, pcm: &[i16], events: &mut Vec<SttEvent>) {
        for frame in pcm.chunks(offhook_media::FRAME_SAMPLES) {
            let before = self.recent.len();
            self.wide.push(frame, &mut self.recent);
            if self.utterances.since_ms().is_some() {
                self.recogniser.feed(&self.recent[before..]);
            }
            self.utterances.hear(frame, &mut self.found);
            self.take(events);
            self.forget_old();
            self.look(events);
        }
    }

    fn take(&mut self, events: &mut Vec<SttEvent>) {
        for found in std::mem::take(&mut self.found) {
            match found {
                Found::Begins { .. } => self.begin(),
                Found::Ends(utterance) => self.end(utterance, events),
            }
        }
    }

    fn begin(&mut self) {
        self.use_next_grammar();
        self.recogniser.start();
        self.recogniser.feed(&self.recent);
        self.looked_at_ms = self.utterances.now_ms();
        self.interim.clear();
    }

    /// Keeps no more than the pre-roll.
    fn forget_old(&mut self) {
        let kept = (u64::from(SAMPLE_RATE_HZ) * PRE_ROLL_MS / 1_000) as usize;
        if self.recent.len() > 4 * kept {
            self.recent.drain(..self.recent.len() - kept);
        }
    }

    fn look(&mut self, events: &mut Vec<SttEvent>) {
        let now_ms = self.utterances.now_ms();
        let Some(start_ms) = self.utterances.since_ms() else { return };
        if now_ms < self.looked_at_ms + INTERIM_MS {
            return;
        }
        self.looked_at_ms = now_ms;
        if let Some(text) = self.recogniser.partial().and_then(trusted).filter(|text| *text != self.interim) {
            self.interim.clone_from(&text);
            events.push(SttEvent::Interim { text, start_ms: short(start_ms), end_ms: short(now_ms) });
        }
    }

    fn finalize(&mut self, events: &mut Vec<SttEvent>) {
        self.utterances.end(&mut self.found);
        if !self.found.is_empty() {
            return self.take(events);
        }
        let now = short(self.utterances.now_ms());
        events.push(SttEvent::Final {
            text: String::new(),
            start_ms: now,
            end_ms: now,
            utterance_end: false,
        });
    }

    fn end(&mut self, utterance: Utterance, events: &mut Vec<SttEvent>) {
        let Utterance { start_ms, end_ms, has_speech, is_over } = utterance;
        let words = self.recogniser.finish().and_then(trusted).filter(|_| has_speech);
        let is_unclear = has_speech && end_ms - start_ms >= LEAST_SPEECH_MS;
        let text = words.unwrap_or_else(|| if is_unclear { UNCLEAR.to_owned() } else { String::new() });
        // What was heard is used up: the next utterance does not begin with it.
        self.recent.clear();
        let (start_ms, end_ms) = (short(start_ms), short(end_ms));
        events.push(SttEvent::Final { text, start_ms, end_ms, utterance_end: is_over });
        self.use_next_grammar();
    }

    fn use_next_grammar(&mut self) {
        let Some(grammar) = self.next_grammar.take() else { return };
        if let Err(error) = self.recogniser.set_grammar(&grammar) {
            tracing::warn!(%error, "The recogniser keeps its former grammar");
        }
    }
}

fn trusted(heard: Hypothesis) -> Option<String> {
    (heard.confidence >= TRUSTED).then_some(heard.text)
}

fn short(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}

/// A recogniser that goes back to the shelf after use: loading one takes longer than a greeting may wait.
struct Loan(Option<Recogniser>);

static SHELF: Mutex<Vec<Recogniser>> = Mutex::new(Vec::new());

impl Loan {
    fn take(cache: &std::path::Path) -> Result<Self, offhook_sphinx::Error> {
        let script = Script { business: String::new(), hours: None, questions: vec![], messages: vec![] };
        let any_question = grammar(&script, brain::Expects::Question);
        let kept = SHELF.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut recogniser) = kept {
            recogniser.set_grammar(&any_question)?;
            return Ok(Loan(Some(recogniser)));
        }
        let model = Model::unpack(cache)?;
        Ok(Loan(Some(Recogniser::new(&model, &any_question)?)))
    }
}

impl std::ops::Deref for Loan {
    type Target = Recogniser;

    fn deref(&self) -> &Recogniser {
        self.0.as_ref().expect("only drop takes it")
    }
}

impl std::ops::DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut Recogniser {
        self.0.as_mut().expect("only drop takes it")
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let Some(mut recogniser) = self.0.take() else { return };
        recogniser.forget_voice();
        let mut shelf = SHELF.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.len() < KEPT {
            shelf.push(recogniser);
        }
    }
}
