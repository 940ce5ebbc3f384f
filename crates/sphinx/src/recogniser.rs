//! Words of a grammar, with a judgement whether they were really said. It does not know where an utterance begins or
//! ends.
//!
//! A grammar alone turns any speech into one of its sentences. So a second decoder hears the same sound with no grammar
//! but "any phones in any order", and the confidence is how far the words fall behind that.

use crate::decoder::{Decoder, Path};
use crate::{Error, Model, dictionary, grammar};

/// What the recogniser is fed, in samples a second. Telephone audio is to be resampled from 8 kHz first.
pub const SAMPLE_RATE_HZ: u32 = 16_000;

/// Words to trust have at least this confidence. With the grammar of a receptionist's questions at telephone band it
/// keeps 37 of 37 sentences spoken by Flite and 101 of 148 by four voices of espeak-ng, and lets 5 of 160 pass that are
/// not in the grammar, 60 of them spoken by a human.
pub const TRUSTED: f32 = 0.65;

/// By how much the words may fall behind free phones, per frame, until the confidence is zero.
const HOPELESS: f32 = 56.0;

/// What an utterance may fall behind in all without loss of confidence: a consonant lost on the line must not condemn a
/// "yes", which has no other.
const ALLOWANCE: f32 = 500.0;

/// What was recognised in an utterance.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// The words, in lower case.
    pub text: String,
    /// From 0 to 1: whether they were said, rather than something the grammar does not have. See [`TRUSTED`].
    pub confidence: f32,
}

/// Listens to one voice with one grammar at a time. It takes 30 ms and 20 MB to make one, and a tenth of a core while
/// it listens.
///
/// The order of calls is `start`, then `feed` and `partial` as often as wanted, then `finish`; calls out of order do
/// nothing. [`Recogniser::set_grammar`] and [`Recogniser::forget_voice`] drop an utterance that was begun.
pub struct Recogniser {
    words: Decoder,
    phones: Decoder,
}

impl Recogniser {
    /// Loads the model and compiles a JSGF grammar: lower-case words of the dictionary, no imports, no quoted tokens.
    ///
    /// # Errors
    /// [`Error::Grammar`] and [`Error::UnknownWords`] for the grammar, [`Error::Load`] for the model.
    pub fn new(model: &Model, jsgf: &str) -> Result<Self, Error> {
        grammar::words(jsgf)?;
        let mut phones = Decoder::load(model)?;
        for phone in grammar::PHONES {
            phones.teach(phone, [phone].into_iter())?;
        }
        phones.use_grammar(&grammar::any_phones())?;
        let mut recogniser = Recogniser { words: Decoder::load(model)?, phones };
        recogniser.set_grammar(jsgf)?;
        Ok(recogniser)
    }

    /// Listens with another grammar from now on. It takes 0.5 to 20 ms.
    ///
    /// # Errors
    /// [`Error::Grammar`] and [`Error::UnknownWords`]; the former grammar then stays.
    pub fn set_grammar(&mut self, jsgf: &str) -> Result<(), Error> {
        let words = grammar::words(jsgf)?;
        self.end();
        for word in &words {
            self.words.teach(word, dictionary::pronunciations(word))?;
        }
        self.words.use_grammar(jsgf)
    }

    /// Drops what was learnt about the channel: another caller is to be heard.
    pub fn forget_voice(&mut self) {
        self.end();
        self.words.forget_voice();
        self.phones.forget_voice();
    }

    /// Begins an utterance; one that was begun before is dropped.
    pub fn start(&mut self) {
        self.end();
        self.words.start();
        self.phones.start();
    }

    /// Hears the next samples at [`SAMPLE_RATE_HZ`].
    pub fn feed(&mut self, samples: &[i16]) {
        self.words.feed(samples);
        self.phones.feed(samples);
    }

    /// The words so far, which may still change. `None` before the first word.
    pub fn partial(&mut self) -> Option<Hypothesis> {
        judge(self.words.path(), &self.phones.path())
    }

    /// Ends the utterance. `None` when nothing of the grammar was heard.
    pub fn finish(&mut self) -> Option<Hypothesis> {
        if self.end() { self.partial() } else { None }
    }

    fn end(&mut self) -> bool {
        let words = self.words.end();
        self.phones.end() && words
    }
}

fn judge(words: Path, phones: &Path) -> Option<Hypothesis> {
    if words.words.is_empty() {
        return None;
    }
    // The paths may end at different frames while the utterance goes on, so they are compared per frame; silence is
    // the same in both, so the difference is spread over the words alone.
    let mean = |path: &Path| path.score / path.frames.max(1) as f32;
    let behind = (mean(phones) - mean(&words)) * words.frames as f32 - ALLOWANCE;
    let lead = -behind.max(0.0) / words.word_frames.max(1) as f32;
    Some(Hypothesis { text: words.words, confidence: (1.0 + lead / HOPELESS).clamp(0.0, 1.0) })
}
