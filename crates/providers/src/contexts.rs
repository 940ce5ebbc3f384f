//! The replies that one voice session is speaking: their text, how much audio came, how far it is spoken, which are dead.
//! It does not know how a provider is asked for them.

use crate::ws::Outbox;
use crate::{AudioFormat, Cause, ProviderError, TtsEvent};
use bytes::Bytes;
use offhook_core::call::Anchor;
use std::collections::BTreeSet;
use tokio::time::Instant;

/// Replies in the making at once.
const MAX_LIVE: usize = 16;

/// Text of one reply.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Audio of one reply. More than this is a voice that does not stop.
const MAX_AUDIO_MS: u64 = 10 * 60 * 1_000;

/// How far ahead a spoken word is looked for in the text: what lies between was said in other words ("10" as "ten").
const LOOKAHEAD_BYTES: usize = 96;

/// How far ahead a spoken character is looked for.
const CHAR_LOOKAHEAD_BYTES: usize = 16;

/// The replies of one session.
#[derive(Debug)]
pub(crate) struct Contexts {
    provider: &'static str,
    bytes_per_ms: u64,
    live: Vec<Context>,
    dead: BTreeSet<u32>,
}

/// One reply.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) id: u32,
    /// All clauses so far, joined.
    pub(crate) text: String,
    /// No more clauses will come.
    pub(crate) finished: bool,
    /// Which of the provider's contexts speaks it: a provider may end one before the reply's text is complete.
    pub(crate) part: u32,
    /// Where, ms of the reply's audio, that part begins.
    pub(crate) part_start_ms: u32,
    /// The provider has been told of that part.
    pub(crate) is_open: bool,
    /// The provider has been told that this part will have no more text: what comes behind it is another part's.
    pub(crate) is_ending: bool,
    /// Bytes of the text that the provider was asked for.
    pub(crate) asked: usize,
    /// When the part was last asked for a text, or heard.
    pub(crate) touched: Instant,
    audio_bytes: u64,
    /// Where, in bytes of the text and of the audio, the last piece ended that was delivered whole.
    delivered: (usize, u64),
    /// Bytes of the text that are known to be spoken.
    spoken: usize,
    /// Where, ms, the last anchor lies.
    anchored_ms: u32,
}

/// What became of a clause.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// The first clause of a reply.
    First,
    /// A later one.
    More,
    /// Nothing to say, or nothing to say it for.
    Nothing,
}

/// What became of the end of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    /// The rest is to be spoken.
    Speaking,
    /// There was no text, or the reply is dead: what has to be said about it is said.
    Already,
}

impl Contexts {
    pub(crate) fn new(provider: &'static str, format: AudioFormat) -> Self {
        let bytes_per_ms = match format {
            AudioFormat::Mulaw => 8,
            AudioFormat::Linear16 { rate_hz } => u64::from(rate_hz) * 2 / 1_000,
        };
        Contexts { provider, bytes_per_ms, live: Vec::new(), dead: BTreeSet::new() }
    }

    pub(crate) fn live_mut(&mut self, id: u32) -> Option<&mut Context> {
        self.live.iter_mut().find(|context| context.id == id)
    }

    pub(crate) fn live(&self, id: u32) -> Option<&Context> {
        self.live.iter().find(|context| context.id == id)
    }

    pub(crate) fn is_live(&self, id: u32) -> bool {
        self.live(id).is_some()
    }

    /// Whether no reply is in the making.
    pub(crate) fn is_idle(&self) -> bool {
        self.live.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Context> {
        self.live.iter()
    }

    /// Takes a clause.
    pub(crate) fn speak(&mut self, id: u32, text: &str, out: &mut Outbox<TtsEvent>) -> Spoken {
        if text.is_empty() || self.dead.contains(&id) {
            return Spoken::Nothing;
        }
        let is_first = !self.is_live(id);
        if is_first && self.live.len() >= MAX_LIVE {
            self.refuse(id, "too many replies at once", out);
            return Spoken::Nothing;
        }
        if is_first {
            self.live.push(Context {
                id,
                text: String::new(),
                finished: false,
                part: 0,
                part_start_ms: 0,
                is_open: false,
                is_ending: false,
                asked: 0,
                touched: Instant::now(),
                audio_bytes: 0,
                delivered: (0, 0),
                spoken: 0,
                anchored_ms: 0,
            });
        }
        let Some(context) = self.live_mut(id).filter(|context| !context.finished) else {
            return Spoken::Nothing;
        };
        if context.text.len() + text.len() > MAX_TEXT_BYTES {
            self.refuse(id, "too much text for one reply", out);
            return Spoken::Nothing;
        }
        context.text.push_str(text);
        if is_first { Spoken::First } else { Spoken::More }
    }

    /// Takes the end of a reply's text.
    pub(crate) fn finish(&mut self, id: u32, out: &mut Outbox<TtsEvent>) -> Finished {
        match self.live_mut(id) {
            Some(context) if !context.finished => {
                context.finished = true;
                Finished::Speaking
            }
            Some(_) => Finished::Already,
            None => {
                if self.dead.insert(id) {
                    out.report(TtsEvent::Done { context: id });
                }
                Finished::Already
            }
        }
    }

    /// Drops a reply; says whether it was alive.
    pub(crate) fn cancel(&mut self, id: u32) -> bool {
        let before = self.live.len();
        self.live.retain(|context| context.id != id);
        self.dead.insert(id);
        self.live.len() < before
    }

    /// Takes audio; that of a dead reply is dropped.
    pub(crate) fn audio(&mut self, id: u32, audio: Bytes, out: &mut Outbox<TtsEvent>) {
        let max_bytes = MAX_AUDIO_MS * self.bytes_per_ms;
        let Some(context) = self.live_mut(id) else { return };
        if audio.is_empty() {
            return;
        }
        context.audio_bytes += audio.len() as u64;
        if context.audio_bytes > max_bytes {
            let endless = ProviderError::malformed(self.provider, "a reply's audio does not end");
            return self.fail(id, endless, out);
        }
        out.report(TtsEvent::Audio { context: id, audio });
    }

    /// Milliseconds of audio a reply has had.
    pub(crate) fn audio_ms(&self, id: u32) -> u32 {
        self.live(id).map_or(0, |context| (context.audio_bytes / self.bytes_per_ms) as u32)
    }

    /// The provider has ended a part: what comes next of the reply is spoken as another.
    pub(crate) fn next_part(&mut self, id: u32) {
        let start_ms = self.audio_ms(id);
        if let Some(context) = self.live_mut(id) {
            context.part += 1;
            context.part_start_ms = start_ms;
            context.is_open = false;
            context.is_ending = false;
        }
    }

    /// The audio of a reply's text has come as far as byte `end_bytes`. Says whether the reply lives on: words of which
    /// there is no audio were not spoken, whatever the provider says.
    pub(crate) fn delivered(&mut self, id: u32, end_bytes: usize, out: &mut Outbox<TtsEvent>) -> bool {
        let ms = self.audio_ms(id);
        let Some(context) = self.live_mut(id) else { return false };
        let (from_bytes, from_audio_bytes) =
            std::mem::replace(&mut context.delivered, (end_bytes, context.audio_bytes));
        let piece = context.text.get(from_bytes..end_bytes).unwrap_or_default();
        if has_words(piece) && context.audio_bytes == from_audio_bytes {
            self.fail(id, ProviderError::malformed(self.provider, "words without audio"), out);
            return false;
        }
        if let Some(anchor) = context.reach(end_bytes, ms) {
            out.report(TtsEvent::Aligned { context: id, anchors: vec![anchor] });
        }
        true
    }

    /// All of a reply's audio has come.
    pub(crate) fn done(&mut self, id: u32, out: &mut Outbox<TtsEvent>) {
        let all = self.live(id).map_or(0, |context| context.text.len());
        if self.delivered(id, all, out) {
            self.cancel(id);
            out.report(TtsEvent::Done { context: id });
        }
    }

    /// A reply cannot be spoken.
    pub(crate) fn fail(&mut self, id: u32, error: ProviderError, out: &mut Outbox<TtsEvent>) {
        if self.cancel(id) {
            out.report(TtsEvent::Failed { context: Some(id), error });
        }
    }

    fn refuse(&mut self, id: u32, why: &str, out: &mut Outbox<TtsEvent>) {
        self.cancel(id);
        let error = ProviderError::new(self.provider, Cause::Refused, why);
        out.report(TtsEvent::Failed { context: Some(id), error });
    }
}

impl Context {
    /// Whether any audio has come.
    pub(crate) fn is_audible(&self) -> bool {
        self.audio_bytes > 0
    }

    /// Whether all words up to byte `end_bytes` are known to be spoken.
    pub(crate) fn is_spoken(&self, end_bytes: usize) -> bool {
        !has_words(self.text.get(self.spoken..end_bytes).unwrap_or_default())
    }

    /// The name of the reply's present part, unique within the session.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.id, self.part)
    }

    /// The text up to byte `bytes` is spoken at `ms`. Says nothing where that is known already.
    pub(crate) fn reach(&mut self, bytes: usize, ms: u32) -> Option<Anchor> {
        self.anchored_ms = self.anchored_ms.max(ms);
        if bytes <= self.spoken {
            return None;
        }
        self.spoken = bytes;
        Some(Anchor { ms: self.anchored_ms, bytes: bytes as u32 })
    }

    /// The next spoken word ends at `end_ms`.
    pub(crate) fn word(&mut self, word: &str, end_ms: u32) -> Option<Anchor> {
        let word = word.trim();
        let ahead = self.ahead(LOOKAHEAD_BYTES);
        let begins_a_word = |at: usize| {
            let before = ahead[..at].chars().next_back();
            before.is_none_or(|c| !c.is_ascii_alphanumeric())
        };
        if word.is_empty() {
            return None;
        }
        let (at, _) = ahead.match_indices(word).find(|(at, _)| begins_a_word(*at))?;
        self.reach(self.spoken + at + word.len(), end_ms)
    }

    /// Finds the next spoken character and returns the offset after it.
    fn character(&self, from: usize, character: &str) -> Option<usize> {
        let ahead = window(&self.text, from, CHAR_LOOKAHEAD_BYTES);
        let at = ahead.find(character)?;
        // White space may be added or swallowed by the provider: it is never worth a jump.
        let is_space = character.trim().is_empty();
        (at == 0 || !is_space).then_some(from + at + character.len())
    }

    /// Characters with the moments at which they are spoken, as anchors at the ends of words.
    pub(crate) fn characters<'a>(&mut self, spoken: impl Iterator<Item = (&'a str, u32)>) -> Vec<Anchor> {
        let mut anchors = Vec::new();
        let mut word_end: Option<(usize, u32)> = None;
        let mut at = self.spoken;
        for (character, end_ms) in spoken {
            let is_space = character.trim().is_empty();
            if is_space && let Some((bytes, ms)) = word_end.take() {
                anchors.extend(self.reach(bytes, ms));
            }
            if let Some(next) = self.character(at, character) {
                at = next;
                if !is_space {
                    word_end = Some((at, end_ms));
                }
            }
        }
        if let Some((bytes, ms)) = word_end {
            anchors.extend(self.reach(bytes, ms));
        }
        anchors
    }

    fn ahead(&self, limit: usize) -> &str {
        window(&self.text, self.spoken, limit)
    }
}

/// Whether a text has anything in it that can be heard.
pub(crate) fn has_words(text: &str) -> bool {
    text.contains(char::is_alphanumeric)
}

/// The reply and the part that a name means.
pub(crate) fn parse_name(name: &str) -> Option<(u32, u32)> {
    let (id, part) = name.split_once('-')?;
    Some((id.parse().ok()?, part.parse().ok()?))
}

/// At most `limit` bytes of the text, whole characters.
fn window(text: &str, from: usize, limit: usize) -> &str {
    let rest = text.get(from..).unwrap_or_default();
    &rest[..rest.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn context(text: &str) -> Context {
        let mut contexts = Contexts::new("test", AudioFormat::Mulaw);
        contexts.speak(1, text, &mut Outbox::new());
        contexts.live.pop().unwrap_or_else(|| panic!("{text:?} makes no context"))
    }

    #[test]
    fn words_without_audio_are_not_spoken() {
        let ends = |text: &str, audio: &'static [u8], first_clause_bytes: Option<usize>| {
            let (mut contexts, mut out) = (Contexts::new("test", AudioFormat::Mulaw), Outbox::new());
            contexts.speak(1, text, &mut out);
            contexts.audio(1, Bytes::from_static(audio), &mut out);
            if let Some(end_bytes) = first_clause_bytes {
                contexts.delivered(1, end_bytes, &mut out);
            }
            contexts.done(1, &mut out);
            out.take_events().filter(|event| !matches!(event, TtsEvent::Aligned { .. })).last()
        };
        let failed = |event: Option<TtsEvent>| matches!(event, Some(TtsEvent::Failed { context: Some(1), error }) if error.cause == Cause::Malformed);
        assert!(failed(ends("Hello.", b"", None)));
        assert!(failed(ends("八点。", b"", None)));
        assert!(failed(ends("7", b"", None)));
        assert!(failed(ends("Hello. Bye.", b"audio", Some(7))), "the second clause is not spoken");
        assert_eq!(ends("Hello.", b"audio", None), Some(TtsEvent::Done { context: 1 }));
        assert_eq!(ends("Hello. …", b"audio", Some(7)), Some(TtsEvent::Done { context: 1 }));
        assert_eq!(ends(" … ", b"", None), Some(TtsEvent::Done { context: 1 }), "nothing to be heard");
    }

    #[test]
    fn words_are_found_although_some_are_said_differently() {
        let text = "Sure, we have 10 tables at eight. Is that a plan?";
        let mut reply = context(text);
        let spoken = ["Sure,", "we", "have", "ten", "tables", "at", "eight."];
        let anchors =
            spoken.iter().enumerate().filter_map(|(i, word)| reply.word(word, 100 * (i as u32 + 1)));
        let heard: Vec<_> = anchors.map(|anchor| (anchor.ms, &text[..anchor.bytes as usize])).collect();
        assert_eq!(heard[2], (300, "Sure, we have"));
        assert_eq!(heard[3], (500, "Sure, we have 10 tables"));
        assert_eq!(heard[5], (700, "Sure, we have 10 tables at eight."));
        assert_eq!(reply.word("a", 800).unwrap().bytes, 43, "not the letter within `that`");
    }

    #[test]
    fn languages_without_spaces_are_followed_too() {
        let mut reply = context("八点有空位。");
        assert_eq!(reply.word("八点", 300).unwrap().bytes, 6);
        assert_eq!(reply.word("有空位", 700).unwrap().bytes, 15);
    }

    #[test]
    fn characters_become_words() {
        let mut reply = context("Sure, at eight.");
        let spoken = [" ", "S", "u", "r", "e", ",", " ", "a", "t", " "];
        let anchors = reply.characters(spoken.iter().enumerate().map(|(i, c)| (*c, 10 * i as u32)));
        assert_eq!(anchors, [Anchor { ms: 50, bytes: 5 }, Anchor { ms: 80, bytes: 8 }]);
        let rest = reply.characters([("e", 1), ("i", 2), ("g", 3), ("h", 4), ("t", 5), (".", 6)].into_iter());
        assert_eq!(rest, [Anchor { ms: 80, bytes: 15 }], "time does not run backwards");
    }

    proptest! {
        #[test]
        fn anchors_ascend_and_cut_whole_characters(
            text in "\\PC{1,80}",
            words in prop::collection::vec(("\\PC{0,6}", any::<u32>()), 0..40),
        ) {
            let mut reply = context(&text);
            let mut anchors: Vec<_> = words.iter().filter_map(|(word, ms)| reply.word(word, *ms)).collect();
            anchors.extend(reply.characters(words.iter().map(|(word, ms)| (word.as_str(), *ms))));
            prop_assert!(anchors.windows(2).all(|w| w[0].ms <= w[1].ms && w[0].bytes <= w[1].bytes));
            prop_assert!(anchors.iter().all(|anchor| text.is_char_boundary(anchor.bytes as usize)));
        }
    }
}
