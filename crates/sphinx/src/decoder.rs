//! One decoder of PocketSphinx behind safe calls: words taught, a grammar, audio in, the best path out.
//! It does not know what a path is worth: `recogniser` compares two of them.
#![allow(unsafe_code, reason = "calls a C library; every unsafe block says why it holds")]

use crate::{Error, Model, ffi};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_int};
use std::ptr::{self, NonNull};
use std::sync::Once;

/// The cepstral mean of telephone speech at 8 kHz doubled to 16 kHz (300-3,400 Hz, sixty sentences of three voices).
/// From PocketSphinx's own start value, which is of wide-band speech, the first sentence of a call is mostly misheard.
const TELEPHONE_MEAN: &CStr = c"43,35,-27,33,-8,-20,21,-22,3,9,-21,12,-4";

const GRAMMAR_NAME: &CStr = c"grammar";

/// A decoder with its configuration.
pub(crate) struct Decoder {
    decoder: NonNull<ffi::Decoder>,
    config: NonNull<ffi::Config>,
    taught: BTreeSet<String>,
    listening: bool,
}

// SAFETY: a decoder has no thread-local and no shared mutable state (the library's globals are the log callback, set
// once, and a random generator that only dithering uses, which is off); this value alone owns the pointers.
unsafe impl Send for Decoder {}

/// The best path through the grammar for what has been heard.
#[derive(Debug, Default)]
pub(crate) struct Path {
    /// Words with a space between; fillers are left out.
    pub words: String,
    /// Logarithmic likelihood of the sound along the path.
    pub score: f32,
    /// Length of the path, in frames of 10 ms.
    pub frames: u32,
    /// How much of it is words.
    pub word_frames: u32,
}

impl Decoder {
    pub fn load(model: &Model) -> Result<Self, Error> {
        silence_log();
        let unusable = || Error::Load(model.folder().to_owned());
        let folder = CString::new(model.folder().as_os_str().as_encoded_bytes()).map_err(|_| unusable())?;
        // SAFETY: no defaults are given; the result is checked.
        let config = NonNull::new(unsafe { ffi::ps_config_init(ptr::null()) }).ok_or_else(unusable)?;
        // SAFETY: `config` is alive; names and values are C strings, which are copied.
        unsafe {
            ffi::ps_config_set_str(config.as_ptr(), c"hmm".as_ptr(), folder.as_ptr());
            // Its lattice takes minutes for the phones in any order, and posteriors say nothing outside the grammar.
            ffi::ps_config_set_bool(config.as_ptr(), c"bestpath".as_ptr(), 0);
            // Scores are relative to the best of the computed ones; only with all computed can two decoders be compared.
            ffi::ps_config_set_bool(config.as_ptr(), c"compallsen".as_ptr(), 1);
        }
        // SAFETY: `config` is alive; the decoder keeps a reference of its own to it.
        let Some(decoder) = NonNull::new(unsafe { ffi::ps_init(config.as_ptr()) }) else {
            // SAFETY: nobody else holds `config`.
            unsafe { ffi::ps_config_free(config.as_ptr()) };
            return Err(unusable());
        };
        let mut decoder = Decoder { decoder, config, taught: BTreeSet::new(), listening: false };
        decoder.forget_voice();
        Ok(decoder)
    }

    /// Adds a word with its pronunciations, of which the second is named `word(2)`. A known word is left as it is.
    pub fn teach<'a>(
        &mut self,
        word: &str,
        pronunciations: impl Iterator<Item = &'a str>,
    ) -> Result<(), Error> {
        if !self.taught.insert(word.to_owned()) {
            return Ok(());
        }
        for (index, phones) in pronunciations.enumerate() {
            let name = if index == 0 { word.to_owned() } else { format!("{word}({})", index + 1) };
            let (Ok(name), Ok(phones)) = (CString::new(name), CString::new(phones)) else {
                return Err(Error::Engine("learn a word"));
            };
            // SAFETY: the decoder is alive and not in an utterance; both are C strings, which are copied.
            if unsafe { ffi::ps_add_word(self.decoder.as_ptr(), name.as_ptr(), phones.as_ptr(), 0) } < 0 {
                return Err(Error::Engine("learn a word"));
            }
        }
        Ok(())
    }

    /// Compiles and uses a grammar whose words have all been taught.
    pub fn use_grammar(&mut self, jsgf: &str) -> Result<(), Error> {
        let jsgf = CString::new(jsgf).map_err(|_| Error::Grammar("it contains a zero byte"))?;
        // SAFETY: the decoder is alive and not in an utterance; both are C strings, which are copied.
        unsafe {
            if ffi::ps_add_jsgf_string(self.decoder.as_ptr(), GRAMMAR_NAME.as_ptr(), jsgf.as_ptr()) != 0 {
                return Err(Error::Grammar("PocketSphinx did not compile it"));
            }
            if ffi::ps_activate_search(self.decoder.as_ptr(), GRAMMAR_NAME.as_ptr()) != 0 {
                return Err(Error::Engine("use a grammar"));
            }
        }
        Ok(())
    }

    pub fn forget_voice(&mut self) {
        // SAFETY: the decoder is alive and not in an utterance; the mean is a C string, which is read at once.
        unsafe {
            ffi::ps_start_stream(self.decoder.as_ptr());
            ffi::ps_set_cmn(self.decoder.as_ptr(), TELEPHONE_MEAN.as_ptr());
        }
    }

    pub fn start(&mut self) {
        if !self.listening {
            // SAFETY: the decoder is alive, has a grammar and is not in an utterance.
            self.listening = unsafe { ffi::ps_start_utt(self.decoder.as_ptr()) } == 0;
        }
    }

    pub fn feed(&mut self, samples: &[i16]) {
        if self.listening && !samples.is_empty() {
            // SAFETY: the decoder is in an utterance, and reads no more than the samples given.
            unsafe { ffi::ps_process_raw(self.decoder.as_ptr(), samples.as_ptr(), samples.len(), 0, 0) };
        }
    }

    /// Ends the utterance; whether there was one.
    pub fn end(&mut self) -> bool {
        // SAFETY: the decoder is in an utterance when it is asked to end it.
        std::mem::take(&mut self.listening) && unsafe { ffi::ps_end_utt(self.decoder.as_ptr()) } == 0
    }

    /// The best path of the utterance so far, or of the last one; empty when none leads through the grammar.
    pub fn path(&mut self) -> Path {
        let mut path = Path::default();
        // SAFETY: the decoder is alive and changes nothing while the iterator runs, which frees itself at its end;
        // each word is read before the next step.
        unsafe {
            let mut segment = ffi::ps_seg_iter(self.decoder.as_ptr());
            while !segment.is_null() {
                let (mut start, mut end, mut acoustic): (c_int, c_int, i32) = (0, 0, 0);
                ffi::ps_seg_frames(segment, &mut start, &mut end);
                ffi::ps_seg_prob(segment, &mut acoustic, &mut 0, &mut 0);
                let word = CStr::from_ptr(ffi::ps_seg_word(segment)).to_string_lossy();
                path.add(&word, u32::try_from(end - start + 1).unwrap_or(0), acoustic as f32);
                segment = ffi::ps_seg_next(segment);
            }
        }
        path
    }
}

impl Path {
    fn add(&mut self, word: &str, frames: u32, score: f32) {
        self.score += score;
        self.frames += frames;
        // Silence and noise are `<sil>` and `[NOISE]`; the steps between words are `(NULL)`.
        if word.starts_with(['<', '[', '(']) {
            return;
        }
        self.word_frames += frames;
        if !self.words.is_empty() {
            self.words.push(' ');
        }
        self.words.push_str(word.split_once('(').map_or(word, |(word, _variant)| word));
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: both are alive and owned by this value; the decoder gives back its own reference to the configuration.
        unsafe {
            ffi::ps_free(self.decoder.as_ptr());
            ffi::ps_config_free(self.config.as_ptr());
        }
    }
}

fn silence_log() {
    static ONCE: Once = Once::new();
    // SAFETY: a null callback is how PocketSphinx is told to log nothing.
    ONCE.call_once(|| unsafe { ffi::err_set_callback(ptr::null(), ptr::null_mut()) });
}
