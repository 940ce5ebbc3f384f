//! What every recogniser double does with audio: finds where someone speaks, and which words. It knows no provider's messages.

use super::Shared;
use super::spelled::{Ear, HeardWord, LETTERS_PER_SECOND};
use super::voice::Encoding;
use std::sync::Arc;

/// Hears one stream of audio in steps of 10 ms; between two steps its owner decides what is worth a message.
pub(super) struct Listener {
    shared: Arc<Shared>,
    encoding: Encoding,
    rate_hz: u32,
    ear: Ear,
    /// Audio that does not fill a step.
    waiting: Vec<i16>,
    half_sample: Vec<u8>,
    speaking_since_ms: Option<u64>,
    /// Words of a scripted utterance, in place of what the audio spells.
    script: Vec<HeardWord>,
    words: Vec<HeardWord>,
}

const STEP_MS: u32 = 10;

impl Listener {
    pub fn new(shared: Arc<Shared>, encoding: Encoding, rate_hz: u32) -> Self {
        Listener {
            shared,
            encoding,
            rate_hz,
            ear: Ear::new(rate_hz),
            waiting: Vec::new(),
            half_sample: Vec::new(),
            speaking_since_ms: None,
            script: Vec::new(),
            words: Vec::new(),
        }
    }

    /// Takes audio as it came; [`step`](Self::step) then hears it.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.half_sample.extend_from_slice(bytes);
        let whole = self.half_sample.len() - self.half_sample.len() % self.encoding.sample_bytes();
        self.encoding.decode(&self.half_sample[..whole], &mut self.waiting);
        self.half_sample.drain(..whole);
    }

    /// Hears the next 10 ms; false when less than that is there.
    pub fn step(&mut self) -> bool {
        let samples = (self.rate_hz * STEP_MS / 1_000) as usize;
        if self.waiting.len() < samples {
            return false;
        }
        self.ear.hear(&self.waiting[..samples]);
        self.waiting.drain(..samples);
        if self.speaking_since_ms.is_none() && self.silence_ms() == 0 {
            self.begin();
        }
        self.collect();
        true
    }

    /// How much was heard.
    pub fn now_ms(&self) -> u64 {
        self.ear.now_ms()
    }

    /// When the present utterance began, if one is going on.
    pub fn speaking_since_ms(&self) -> Option<u64> {
        self.speaking_since_ms
    }

    /// How long it has been silent, as far as a detector can tell: it lags behind by the window it looks through.
    pub fn silence_ms(&self) -> u64 {
        const LAG_MS: u64 = 15;
        self.ear.voiced_ms().map_or(u64::MAX, |voiced| self.now_ms().saturating_sub(voiced + LAG_MS))
    }

    /// The words so far that were not taken yet.
    pub fn words(&self) -> &[HeardWord] {
        &self.words
    }

    /// Hands out the words so far.
    pub fn take_words(&mut self) -> Vec<HeardWord> {
        std::mem::take(&mut self.words)
    }

    /// Ends the utterance: what was cut off in the middle of a word is a word too.
    pub fn end_utterance(&mut self) {
        self.ear.end_word();
        self.collect();
        self.words.append(&mut self.script);
        self.speaking_since_ms = None;
    }

    fn begin(&mut self) {
        let began_ms = self.ear.voiced_ms().unwrap_or_default();
        self.speaking_since_ms = Some(began_ms);
        let line = self.shared.program().hears.pop_front();
        let mut start_ms = began_ms;
        for word in line.iter().flat_map(|line| line.split_whitespace()) {
            let end_ms = start_ms + ((word.len() + 1) as f64 / LETTERS_PER_SECOND * 1_000.0) as u64;
            self.script.push(HeardWord { word: word.to_owned(), start_ms, end_ms, complete: true });
            start_ms = end_ms;
        }
    }

    fn collect(&mut self) {
        let spelled = self.ear.take_words();
        let now_ms = self.now_ms();
        let spoken = self.script.iter().take_while(|word| word.end_ms <= now_ms).count();
        self.words.extend(self.script.drain(..spoken));
        self.words.extend(spelled);
    }
}

/// The words as a transcript.
pub(super) fn transcript(words: &[HeardWord]) -> String {
    words.iter().map(|word| word.word.as_str()).collect::<Vec<_>>().join(" ")
}

/// A word without capitals and punctuation, as recognisers write it unless told otherwise.
pub(super) fn bare(word: &str) -> String {
    word.trim_matches(|character: char| character.is_ascii_punctuation() || "—–…“”‘’".contains(character))
        .to_lowercase()
}
