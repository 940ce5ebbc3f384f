//! The providers of one agent, ready to use, and the audio of its fixed sentences. It does not know calls.

use bytes::Bytes;
use offhook_core::Language;
use offhook_core::call::Anchor;
use offhook_media::coding::{Coding, Transcoder};
use offhook_providers::{Llm, Stt, Tts};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Providers in the order in which they are tried, and what they are told.
pub struct Speech {
    /// Recognisers.
    pub stt: Vec<Arc<dyn Stt>>,
    /// Language models.
    pub llm: Vec<Arc<dyn Llm>>,
    /// Voices.
    pub tts: Vec<Arc<dyn Tts>>,
    /// What identifies each voice's sound: provider, model, voice, language.
    pub voice_keys: Vec<String>,
    /// What is spoken.
    pub language: Language,
    /// Words to listen for.
    pub keywords: Vec<String>,
    /// Silence after which a recogniser may call an utterance ended, ms.
    pub endpointing_ms: u32,
    /// Longest reply, in tokens.
    pub max_tokens: u32,
    /// Hundredths of the models' temperature.
    pub temperature_centi: Option<u16>,
    /// Fixed sentences already spoken once.
    pub phrases: Arc<Phrasebook>,
    /// The apology that needs no provider.
    pub canned_apology: Arc<Recording>,
}

impl fmt::Debug for Speech {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Speech").field("voices", &self.voice_keys).finish_non_exhaustive()
    }
}

/// Audio that is kept as it was made, and in every coding that a line has wanted it in.
pub struct Recording {
    made: Coding,
    audio: Bytes,
    transcoded: Mutex<Vec<(Coding, Bytes)>>,
}

impl Recording {
    /// What was made in a coding.
    pub fn new(made: Coding, audio: Bytes) -> Self {
        Recording { made, audio, transcoded: Mutex::default() }
    }

    /// Samples that were made at a rate.
    pub fn of_samples(samples: &[i16], rate_hz: u32) -> Self {
        let made = Coding::Linear { rate_hz };
        let mut audio = Vec::with_capacity(samples.len() * made.bytes_per_sample());
        made.encode(samples, &mut audio);
        Recording::new(made, audio.into())
    }

    /// How long it sounds, milliseconds.
    pub fn ms(&self) -> usize {
        self.audio.len() / self.made.bytes_per_ms()
    }

    /// The audio as a line wants it. It is brought there once for all calls; empty where there is no way to that coding.
    pub fn coded(&self, coding: Coding) -> Bytes {
        if coding == self.made {
            return self.audio.clone();
        }
        let mut transcoded = locked(&self.transcoded);
        if let Some((_, audio)) = transcoded.iter().find(|(of, _)| *of == coding) {
            return audio.clone();
        }
        let audio = Transcoder::new(self.made, coding).map(|mut transcoder| {
            let mut audio = transcoder.push(&self.audio).to_vec();
            audio.extend_from_slice(transcoder.flush());
            Bytes::from(audio)
        });
        let audio = audio.unwrap_or_default();
        transcoded.push((coding, audio.clone()));
        audio
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("made", &self.made).field("ms", &self.ms()).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sentence as audio.
#[derive(Debug)]
pub struct Spoken {
    /// The audio, as its voice made it.
    pub recording: Recording,
    /// How far the text is spoken at moments of the audio.
    pub anchors: Vec<Anchor>,
}

/// How much speech the phrasebook keeps: half an hour, 14 MB in µ-law, four times as much in wideband.
const PHRASEBOOK_MS: usize = 30 * 60_000;
/// Nor is one sentence kept that is longer than this.
const PHRASE_MS: usize = PHRASEBOOK_MS / 16;

/// Greetings and other fixed sentences, kept as audio: the second caller hears them at once.
#[derive(Debug, Default)]
pub struct Phrasebook {
    inner: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    by_key: HashMap<(String, String), Arc<Spoken>>,
    oldest_first: VecDeque<(String, String)>,
    ms: usize,
}

impl Phrasebook {
    /// A sentence in a voice, if it was spoken before.
    pub fn find(&self, voice_key: &str, text: &str) -> Option<Arc<Spoken>> {
        locked(&self.inner).by_key.get(&(voice_key.to_owned(), text.to_owned())).cloned()
    }

    /// Keeps a sentence that can be heard; the oldest make room.
    pub fn keep(&self, voice_key: &str, text: &str, spoken: Spoken) {
        let key = (voice_key.to_owned(), text.to_owned());
        let mut pages = locked(&self.inner);
        let ms = spoken.recording.ms();
        if ms == 0 || ms > PHRASE_MS || pages.by_key.contains_key(&key) {
            return;
        }
        pages.ms += ms;
        pages.by_key.insert(key.clone(), Arc::new(spoken));
        pages.oldest_first.push_back(key);
        while pages.ms > PHRASEBOOK_MS {
            let Some(oldest) = pages.oldest_first.pop_front() else { break };
            if let Some(gone) = pages.by_key.remove(&oldest) {
                pages.ms -= gone.recording.ms();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(ms: usize) -> Spoken {
        let recording = Recording::new(Coding::MU_LAW, vec![0; ms * Coding::MU_LAW.bytes_per_ms()].into());
        Spoken { recording, anchors: vec![] }
    }

    #[test]
    fn the_oldest_sentences_make_room() {
        let book = Phrasebook::default();
        for i in 0..20 {
            book.keep("v", &format!("{i}"), spoken(PHRASE_MS));
        }
        assert!(book.find("v", "3").is_none() && book.find("v", "4").is_some());
        assert!(book.find("other voice", "19").is_none());
        book.keep("v", "silence", spoken(0));
        assert!(book.find("v", "silence").is_none(), "it would be silent for every later caller");
    }

    #[test]
    fn a_recording_sounds_as_long_on_every_line_and_is_brought_there_once() {
        let recording = Recording::of_samples(&[0; 24_000], 24_000);
        for coding in [Coding::MU_LAW, Coding::A_LAW, Coding::WIDE] {
            let audio = recording.coded(coding);
            let ms = audio.len() / coding.bytes_per_ms();
            assert!((1_000..=1_002).contains(&ms), "{coding:?}: {ms}");
            assert_eq!(audio.as_ptr(), recording.coded(coding).as_ptr(), "{coding:?}");
        }
        let plain = spoken(20).recording;
        assert_eq!(plain.coded(Coding::MU_LAW).as_ptr(), plain.audio.as_ptr(), "nothing is copied");
    }
}
