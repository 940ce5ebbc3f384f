//! The voices: text becomes audio faster than it is spoken, and some of them tell how far they are. They do not know
//! whether anybody listens.

use super::options::{Anchors, Condition};
use super::scene::{Span, Speech};
use super::{Event, Fact, World};
use offhook_core::call::{Anchor, CallTime, Input, ReplyId};

/// A breath after a clause.
const BREATH_MS: u32 = 90;
/// A voice that breaks off does so after so much audio.
const BREAKS_OFF_MS: u32 = 200;
/// How much longer than usual a slow voice takes to begin.
const SLOW_MS: u32 = 1_500;

/// The voice in use.
#[derive(Debug, Default)]
pub(super) struct Voice {
    /// Connections opened so far; what a dead one had begun is never finished.
    session: u32,
    number: u8,
    dead: bool,
}

impl World<'_> {
    pub(super) fn open_tts(&mut self, voice: u8) {
        self.voice.session += 1;
        self.voice.number = voice;
        self.voice.dead = false;
        if self.scene.options.providers.tts[usize::from(voice)] == Condition::Dead {
            let at = self.scene.now.plus_ms(self.dice.between(20, 200));
            self.agenda.plan(at, Event::VoiceFails(self.voice.session));
        }
    }

    pub(super) fn new_speech(&mut self, reply: ReplyId) {
        self.scene.speeches.push(Speech {
            node: self.scene.node,
            reply,
            text: String::new(),
            spans: Vec::new(),
            planned_ms: 0,
            made_ms: 0,
            finished: false,
            complete: false,
            cancelled_at: None,
            plays: 0,
            played_as: 0,
            resumes: 0,
            heard_to_ms: 0,
            heard_ms: 0,
            first_heard_at: None,
            last_heard_at: CallTime::ZERO,
            ask: None,
            canned: false,
            filler: false,
            apology: false,
            last_words: false,
            told_ms: 0,
            session: self.voice.session,
            anchored: 0,
            stalled: false,
            mute: false,
            working: false,
        });
    }

    pub(super) fn speak(&mut self, reply: ReplyId, text: &str) {
        let at = match self.scene.speech(reply) {
            Some(at) => at,
            None => {
                self.new_speech(reply);
                self.scene.speeches.len() - 1
            }
        };
        if self.scene.speeches[at].text.is_empty() {
            self.scene.speeches[at].ask = self.author_of(text);
            self.know_phrase(at, text);
            let (stalls, fails) = (self.scene.options.voice.stalls, self.scene.options.voice.fails);
            let mute = self.scene.options.voice.mute;
            if self.fault(mute) {
                self.scene.speeches[at].mute = true;
                self.scene.faults.voice = Some(self.scene.now);
            } else if self.fault(stalls) {
                self.scene.speeches[at].stalled = true;
                self.scene.faults.voice = Some(self.scene.now);
            } else if self.fault(fails) {
                let when = self.scene.now.plus_ms(self.dice.between(0, 3_000));
                self.agenda.plan(when, Event::VoiceFails(self.voice.session));
            }
        }
        let ms_per_byte = self.scene.options.voice.ms_per_byte;
        let uneven = self.scene.options.voice.anchors == Anchors::Words;
        let base = self.scene.speeches[at].text.len();
        let mut clock = self.scene.speeches[at].planned_ms;
        let mut byte = 0;
        for word in spoken_pieces(text) {
            let length = word.len() as u32;
            let trimmed = word.trim_end();
            let stretch = if uneven { self.dice.between(70, 130) } else { 100 };
            let word_ms = length * ms_per_byte * stretch / 100;
            byte += word.len();
            if !trimmed.is_empty() {
                let end_byte = base + byte - (word.len() - trimmed.len());
                self.scene.speeches[at].spans.push(Span { end_ms: clock + word_ms, end_byte });
            }
            clock += word_ms;
        }
        let speech = &mut self.scene.speeches[at];
        speech.text.push_str(text);
        speech.planned_ms = clock + BREATH_MS;
        if !std::mem::replace(&mut speech.working, true) {
            let mut wait_ms = self.scene.options.voice.first_ms;
            if speech.made_ms > 0 {
                wait_ms /= 2;
            }
            let slow = self.scene.options.voice.slow;
            if self.fault(slow) {
                self.scene.faults.voice = Some(self.scene.now);
                wait_ms += SLOW_MS;
            }
            self.agenda.plan(self.scene.now.plus_ms(wait_ms), Event::Voice(at));
        }
    }

    fn know_phrase(&mut self, at: usize, text: &str) {
        let phrases = self.plan_phrases();
        let filler = phrases.fillers.iter().any(|f| f == text) || text == super::words::TOOL_FILLER;
        let apology = phrases.apology == text;
        let last_words = apology || phrases.goodbye == text;
        let speech = &mut self.scene.speeches[at];
        (speech.filler, speech.apology, speech.last_words) = (filler, apology, last_words);
    }

    pub(super) fn finish_reply(&mut self, reply: ReplyId) {
        let Some(at) = self.scene.speech(reply) else { return };
        let broken = self.voice.dead || self.scene.speeches[at].session != self.voice.session;
        let speech = &mut self.scene.speeches[at];
        speech.finished = true;
        if broken || speech.mute || (!speech.working && !speech.stalled) {
            speech.complete = true;
            let ms = speech.made_ms;
            if !broken {
                self.deliver(Fact::Ours, Input::Synthesized { reply, ms, done: true });
            }
            self.run_line();
        }
    }

    pub(super) fn cancel_reply(&mut self, reply: ReplyId) {
        if let Some(at) = self.scene.speech(reply) {
            self.cancel_on_line(at);
        }
    }

    /// A voice makes the next piece of audio.
    pub(super) fn voice_works(&mut self, at: usize) {
        let session = self.voice.session;
        let dead = self.voice.dead;
        let speech = &mut self.scene.speeches[at];
        if speech.node != self.scene.node || speech.cancelled_at.is_some() {
            return;
        }
        if speech.session != session || dead || speech.stalled || speech.mute {
            return;
        }
        let options = &self.scene.options.voice;
        let breaks_off =
            self.scene.options.providers.tts[usize::from(self.voice.number)] == Condition::BreaksOff;
        if breaks_off && speech.made_ms > 0 {
            self.voice_fails(session);
            return;
        }
        let left_ms = speech.planned_ms - speech.made_ms;
        let most_ms = if breaks_off { BREAKS_OFF_MS } else { options.chunk_ms };
        let chunk_ms = most_ms.min(left_ms);
        speech.made_ms += chunk_ms;
        let done = speech.made_ms == speech.planned_ms;
        let (reply, ms) = (speech.reply, speech.made_ms);
        if done {
            speech.working = false;
            speech.complete = speech.finished;
        } else {
            let next_ms = (chunk_ms * 10 / options.speed).max(1);
            self.agenda.plan(self.scene.now.plus_ms(next_ms), Event::Voice(at));
        }
        let anchors = anchors(speech, options.anchors);
        let complete = speech.complete;
        let told = speech.told_ms == 0 || complete || ms >= speech.told_ms + options.told_every_ms;
        if told {
            speech.told_ms = ms;
        }
        if !anchors.is_empty() {
            self.deliver(Fact::Ours, Input::Aligned { reply, anchors });
        }
        self.run_line();
        if told {
            self.deliver(Fact::Ours, Input::Synthesized { reply, ms, done: complete });
        }
    }

    pub(super) fn voice_fails(&mut self, session: u32) {
        if session == self.voice.session && !std::mem::replace(&mut self.voice.dead, true) {
            self.scene.faults.voice = Some(self.scene.now);
            let may_pass = self.dice.happens(600);
            let voice = self.voice.number;
            let late = self.scene.options.voice.late_audio;
            for at in 0..self.scene.speeches.len() {
                let speech = &self.scene.speeches[at];
                if speech.session == session && !speech.complete && self.fault(late) {
                    let speech = &self.scene.speeches[at];
                    let fact =
                        Input::Synthesized { reply: speech.reply, ms: speech.made_ms + 400, done: false };
                    let ms = self.dice.between(1, 1_500);
                    self.plan_fact(self.scene.now.plus_ms(ms), fact);
                }
            }
            self.deliver(Fact::Ours, Input::TtsFailed { voice, may_pass });
        }
    }
}

/// A text in the pieces that are spoken one after the other: words, and characters where words are not spaced.
fn spoken_pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(char::is_whitespace).flat_map(|word| {
        let unspaced = |c: char| c >= '\u{2e80}';
        let mut rest = word;
        std::iter::from_fn(move || {
            let first = rest.chars().next()?;
            let end =
                if unspaced(first) { first.len_utf8() } else { rest.find(unspaced).unwrap_or(rest.len()) };
            let (piece, after) = rest.split_at(end);
            rest = after;
            Some(piece)
        })
    })
}

fn anchors(speech: &mut Speech, kind: Anchors) -> Vec<Anchor> {
    let known = speech.spans.partition_point(|s| s.end_ms <= speech.made_ms);
    let new = &speech.spans[speech.anchored.min(known)..known];
    let anchor = |s: &Span| Anchor { ms: s.end_ms, bytes: s.end_byte as u32 };
    let anchors = match kind {
        Anchors::Words => new.iter().map(anchor).collect(),
        Anchors::Clauses => {
            let ends = |s: &&Span| speech.text[..s.end_byte].ends_with(['.', ',', '?', '!']);
            new.iter().filter(ends).map(anchor).collect()
        }
        Anchors::Nothing => Vec::new(),
    };
    speech.anchored = known;
    anchors
}
