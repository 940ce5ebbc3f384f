//! The providers of one agent, ready to use, and the audio of its fixed sentences. It does not know calls.

use bytes::Bytes;
use offhook_core::Language;
use offhook_core::call::Anchor;
use offhook_providers::{Llm, Stt, Tts};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// The apology that needs no provider: µ-law, 8 kHz.
    pub canned_apology: Bytes,
}

impl std::fmt::Debug for Speech {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Speech").field("voices", &self.voice_keys).finish_non_exhaustive()
    }
}

/// Audio of a sentence.
#[derive(Debug)]
pub struct Spoken {
    /// µ-law, 8 kHz.
    pub mulaw: Bytes,
    /// How far the text is spoken at moments of the audio.
    pub anchors: Vec<Anchor>,
}

/// How much audio the phrasebook keeps: about half an hour.
const PHRASEBOOK_BYTES: usize = 16 * 1024 * 1024;

/// Greetings and other fixed sentences, kept as audio: the second caller hears them at once.
#[derive(Debug, Default)]
pub struct Phrasebook {
    inner: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    by_key: HashMap<(String, String), Arc<Spoken>>,
    oldest_first: VecDeque<(String, String)>,
    bytes: usize,
}

impl Phrasebook {
    /// A sentence in a voice, if it was spoken before.
    pub fn find(&self, voice_key: &str, text: &str) -> Option<Arc<Spoken>> {
        let pages = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        pages.by_key.get(&(voice_key.to_owned(), text.to_owned())).cloned()
    }

    /// Keeps a sentence that can be heard; the oldest make room.
    pub fn keep(&self, voice_key: &str, text: &str, spoken: Spoken) {
        let key = (voice_key.to_owned(), text.to_owned());
        let mut pages = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = spoken.mulaw.len();
        if bytes == 0 || bytes > PHRASEBOOK_BYTES / 16 || pages.by_key.contains_key(&key) {
            return;
        }
        pages.bytes += bytes;
        pages.by_key.insert(key.clone(), Arc::new(spoken));
        pages.oldest_first.push_back(key);
        while pages.bytes > PHRASEBOOK_BYTES {
            let Some(oldest) = pages.oldest_first.pop_front() else { break };
            if let Some(gone) = pages.by_key.remove(&oldest) {
                pages.bytes -= gone.mulaw.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_sentences_make_room() {
        let book = Phrasebook::default();
        let size = PHRASEBOOK_BYTES / 16;
        for i in 0..20 {
            book.keep("v", &format!("{i}"), Spoken { mulaw: vec![0; size].into(), anchors: vec![] });
        }
        assert!(book.find("v", "3").is_none() && book.find("v", "4").is_some());
        assert!(book.find("other voice", "19").is_none());
        book.keep("v", "silence", Spoken { mulaw: Bytes::new(), anchors: vec![] });
        assert!(book.find("v", "silence").is_none(), "it would be silent for every later caller");
    }
}
