//! The ledger of what the agent says: asked, written, synthesized, played, heard. History, transcript and billing read
//! only this. It knows marks and milliseconds, not why something is said.

use super::{Anchor, AskId, Call, CallTime, Command, Out, Phase, ReplyId, words};
use crate::limits;
use serde::{Deserialize, Serialize};

/// Why the agent speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The first message.
    Greeting,
    /// An answer to what the caller said.
    Answer,
    /// Something to hear while an answer takes long. Not shown to the model.
    Filler,
    /// "Are you still there?"
    Nudge,
    /// "I did not catch that."
    NotUnderstood,
    /// The last words of the call.
    Goodbye,
    /// Something broke.
    Apology,
    /// That the call is recorded.
    Announcement,
    /// Something to hear before and while somebody is rung. Not shown to the model.
    Connecting,
    /// What is said around the message that a caller leaves.
    Voicemail,
    /// Why nobody answers.
    Closed,
}

/// What follows when a reply has been heard to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Then {
    Listen,
    /// The call may be recorded: the caller knows.
    Record,
    HangUp,
    GiveUp,
}

/// Where a reply's audio comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Sound {
    Voice,
    /// The apology that needs no provider.
    Apology,
    /// The tone after which a message is recorded.
    Beep,
    /// A greeting that was recorded once.
    Recorded(String),
}

/// Without any anchor, speech is taken to be this slow: the estimate of what was heard must never run ahead of the voice.
const SLOWEST_BYTES_PER_SECOND: u64 = 9;

/// How long the voice is believed to go on sounding without a mark: marks come every 400 ms.
const WITHOUT_MARK_MS: u32 = 800;

/// One thing the agent says, from its first written word to the last heard one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) id: ReplyId,
    pub(super) purpose: Purpose,
    pub(super) then: Then,
    /// Which request writes it; `None` for fixed sentences.
    pub(super) ask: Option<AskId>,
    /// Which voice speaks it.
    pub(super) voice: u8,
    /// It is prepared ahead of the end of the caller's turn and may not be heard yet.
    pub(super) held: bool,
    sound: Sound,
    /// The voice was told that the text is complete.
    pub(super) finished: bool,
    /// When it was told so.
    finished_at: CallTime,
    /// Everything written so far.
    pub(super) text: String,
    /// No more will be written.
    pub(super) written: bool,
    /// How much of the text the voice was given, in bytes.
    pub(super) given: usize,
    /// When the voice was given the first clause.
    pub(super) given_at: Option<CallTime>,
    pub(super) synthesized_ms: u32,
    pub(super) synthesized: bool,
    pub(super) first_audio_at: Option<CallTime>,
    anchors: Vec<Anchor>,
    /// It may be heard as soon as there is something: the order to play was given.
    pub(super) playing: bool,
    /// When its first sample was played.
    pub(super) started_at: Option<CallTime>,
    played_ms: u32,
    played_at: CallTime,
    pub(super) paused: bool,
    /// When it was taken to be about to be heard, for the guard against lost marks.
    pub(super) expected_at: Option<CallTime>,
}

impl Reply {
    pub(super) fn new(id: ReplyId, purpose: Purpose, then: Then, ask: Option<AskId>, voice: u8) -> Self {
        Reply {
            id,
            purpose,
            then,
            ask,
            voice,
            held: false,
            sound: Sound::Voice,
            finished: false,
            finished_at: CallTime::ZERO,
            text: String::new(),
            written: false,
            given: 0,
            given_at: None,
            synthesized_ms: 0,
            synthesized: false,
            first_audio_at: None,
            anchors: Vec::new(),
            playing: false,
            started_at: None,
            played_ms: 0,
            played_at: CallTime::ZERO,
            paused: false,
            expected_at: None,
        }
    }

    /// Adds written text, without signs that a voice would read out; says whether the limit is reached.
    pub(super) fn write(&mut self, text: &str) -> bool {
        let speakable = text
            .chars()
            .filter(|c| !matches!(c, '*' | '#' | '`' | '_' | '~') && (!c.is_control() || *c == '\n'));
        let start = self.text.is_empty();
        self.text.extend(speakable.skip_while(|c| start && c.is_whitespace()));
        self.text.len() >= limits::REPLY_BYTES
    }

    /// The next clause that is ready for the voice.
    pub(super) fn next_clause(&mut self) -> Option<String> {
        let rest = &self.text[self.given..];
        // A sentence that is all there sounds best whole.
        let whole = (self.written && self.ask.is_none()).then_some(rest.len());
        let end = whole
            .or_else(|| words::clause_end(rest, self.given == 0))
            .or(self.written.then_some(rest.len()))?;
        if rest[..end].trim().is_empty() {
            if self.written {
                self.given = self.text.len();
            }
            return None;
        }
        let clause = rest[..end].to_string();
        self.given += end;
        Some(clause)
    }

    pub(super) fn synthesized(&mut self, at: CallTime, ms: u32, done: bool) {
        if ms > self.synthesized_ms {
            self.first_audio_at.get_or_insert(at);
            if self.started_at.is_some() && !self.paused && self.heard_ms(at) == self.synthesized_ms {
                // The voice had run dry: the wait for this audio was silence.
                self.played_ms = self.synthesized_ms;
                self.played_at = at;
            }
            self.synthesized_ms = ms;
        }
        self.synthesized |= done && self.written;
    }

    /// Takes what the voice says of its progress; nonsense (going backwards, beyond the text) is left out.
    pub(super) fn align(&mut self, anchors: &[Anchor]) {
        for anchor in anchors {
            let last = self.anchors.last().copied().unwrap_or_default();
            let fits =
                anchor.ms >= last.ms && anchor.bytes >= last.bytes && anchor.bytes as usize <= self.given;
            if fits && self.anchors.len() < limits::ANCHORS_PER_REPLY {
                self.anchors.push(*anchor);
            }
        }
    }

    /// A mark came back: the first `ms` have been played.
    pub(super) fn played(&mut self, at: CallTime, ms: u32) {
        self.started_at.get_or_insert(at);
        self.played_ms = self.played_ms.max(ms.min(self.synthesized_ms));
        self.played_at = at;
    }

    /// How much has been heard at `at`: the last mark, and the clock since while sound is there.
    pub(super) fn heard_ms(&self, at: CallTime) -> u32 {
        if self.started_at.is_none() {
            return 0;
        }
        if self.paused {
            return self.played_ms;
        }
        let since = at.since_ms(self.played_at).min(WITHOUT_MARK_MS);
        self.played_ms.saturating_add(since).min(self.synthesized_ms)
    }

    /// Stops the clock of what is heard.
    pub(super) fn pause(&mut self, at: CallTime) {
        self.played_ms = self.heard_ms(at);
        self.paused = true;
    }

    /// Starts it again; returns where playing goes on.
    pub(super) fn unpause(&mut self, at: CallTime) -> u32 {
        self.paused = false;
        self.played_at = at;
        self.played_ms
    }

    /// When the last mark came back.
    fn played_at(&self) -> CallTime {
        self.played_at
    }

    /// How much the marks have not accounted for.
    fn unplayed_ms(&self) -> u32 {
        self.synthesized_ms - self.played_ms
    }

    /// The voice broke off: the reply ends with what it has spoken.
    pub(super) fn end_at(&mut self, bytes: usize) {
        self.anchors.retain(|a| a.bytes as usize <= bytes);
        self.text.truncate(bytes);
        self.given = bytes;
        self.written = true;
        self.finished = true;
        self.synthesized = true;
    }

    /// Somebody must speak it.
    pub(super) fn needs_voice(&self) -> bool {
        self.sound == Sound::Voice
    }

    /// The call ends when it has been heard.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.then, Then::HangUp | Then::GiveUp)
    }

    /// Makes it something whose audio is at hand.
    pub(super) fn sounds(&mut self, sound: Sound, text: &str, now: CallTime) {
        self.write(text);
        self.given = self.text.len();
        self.given_at = Some(now);
        self.written = true;
        self.finished = true;
        self.sound = sound;
    }

    /// How much more there is to hear, as far as known.
    pub(super) fn remaining_ms(&self, at: CallTime) -> u32 {
        self.synthesized_ms - self.heard_ms(at).min(self.synthesized_ms)
    }

    /// The text of which the voice had given audio by `ms`, in bytes; never more than was spoken.
    fn bytes_at(&self, ms: u32) -> usize {
        let zero = Anchor::default();
        let after = self.anchors.partition_point(|a| a.ms <= ms);
        let before = if after == 0 { zero } else { self.anchors[after - 1] };
        let end = self.synthesized.then_some(Anchor { ms: self.synthesized_ms, bytes: self.given as u32 });
        let next = self.anchors.get(after).copied().or(end.filter(|e| e.ms > before.ms));
        let passed = u64::from(ms - before.ms);
        let more = match next {
            Some(next) => {
                passed * u64::from(next.bytes.saturating_sub(before.bytes))
                    / u64::from((next.ms - before.ms).max(1))
            }
            None => passed * SLOWEST_BYTES_PER_SECOND / 1_000,
        };
        (before.bytes as usize + more as usize).min(self.given)
    }

    /// The words heard when `ms` had been played: whole words only.
    pub(super) fn heard_text(&self, ms: u32) -> &str {
        if self.synthesized && ms >= self.synthesized_ms && self.synthesized_ms > 0 {
            return self.text[..self.given].trim_end();
        }
        let mut end = self.bytes_at(ms);
        while end > 0 && !(end == self.given || words::ends_word(&self.text, end)) {
            end -= 1;
        }
        self.text[..end].trim_end()
    }

    /// When the clause that is being heard will end, as far as its audio is there.
    pub(super) fn clause_ends_at(&self, now: CallTime) -> Option<CallTime> {
        let heard_ms = self.heard_ms(now);
        let heard = self.heard_text(heard_ms).len();
        let ends = |ms: &u32| {
            let text = self.heard_text(*ms);
            text.len() > heard && words::ends_clause(text)
        };
        (heard_ms..self.synthesized_ms)
            .step_by(CLAUSE_STEP_MS)
            .find(ends)
            .map(|ms| now.plus_ms(ms - heard_ms))
    }

    /// The text that had not been heard when `ms` had been played.
    pub(super) fn unheard_text(&self, ms: u32) -> &str {
        self.text[self.heard_text(ms).len()..].trim()
    }
}

/// The end of a clause is looked for in such steps.
const CLAUSE_STEP_MS: usize = 100;

/// A mark may come so much later than expected.
const MARK_LATE_MS: u32 = 3_000;

/// Audio that is at hand may take so long to begin, or to go on.
const SOUND_LATE_MS: u32 = 10_000;

impl Call {
    /// Says a fixed sentence after what is being said.
    pub(super) fn say(&mut self, purpose: Purpose, then: Then, text: &str, out: &mut Out) {
        if !self.providers.tts_left() {
            return;
        }
        let id = self.next_reply.next();
        let mut reply = Reply::new(id, purpose, then, None, self.providers.tts());
        reply.write(text);
        let waiting = self.replies.iter().position(|r| !r.playing && r.given == 0);
        let place = waiting.filter(|_| purpose == Purpose::Filler).unwrap_or(self.replies.len());
        self.replies.insert(place, reply);
        self.finish_writing(id, out);
        self.play_ready(out);
    }

    pub(super) fn reply_mut(&mut self, id: ReplyId) -> Option<&mut Reply> {
        self.replies.iter_mut().find(|r| r.id == id)
    }

    /// Gives the voice every clause that is ready.
    pub(super) fn give(&mut self, id: ReplyId, out: &mut Out) {
        let now = self.now;
        let Some(reply) = self.replies.iter_mut().find(|r| r.id == id) else { return };
        let before = reply.given;
        while let Some(text) = reply.next_clause() {
            reply.given_at.get_or_insert(now);
            out.push(Command::Speak { reply: id, voice: reply.voice, text, fixed: reply.ask.is_none() });
        }
        if reply.written && !reply.finished && reply.given == reply.text.len() {
            reply.finished = true;
            reply.finished_at = now;
            out.push(Command::FinishReply { reply: id });
        }
        let answers = reply.purpose == Purpose::Answer;
        if before == 0 && reply.given > 0 {
            // A filler that has no sound yet would only be in the way.
            let mute = |r: &Reply| answers && r.purpose == Purpose::Filler && r.synthesized_ms == 0;
            while let Some(filler) = self.replies.iter().find(|r| mute(r)).map(|r| r.id) {
                self.discard_reply(filler, out);
                self.filler_was_mute();
            }
            self.play_ready(out);
        }
    }

    /// A reply's text is complete.
    pub(super) fn finish_writing(&mut self, id: ReplyId, out: &mut Out) {
        let Some(reply) = self.reply_mut(id) else { return };
        reply.written = true;
        if reply.text.trim().is_empty() {
            self.discard_reply(id, out);
            return;
        }
        self.give(id, out);
    }

    /// Whoever wrote it broke off: it ends with the last clause that the voice was given.
    pub(super) fn write_no_more(&mut self, id: ReplyId, out: &mut Out) {
        if let Some(reply) = self.reply_mut(id) {
            reply.text.truncate(reply.given);
        }
        self.finish_writing(id, out);
    }

    /// Orders to play what may be heard and has been given to the voice.
    pub(super) fn play_ready(&mut self, out: &mut Out) {
        if self.phase != Phase::Up || self.interruption.as_ref().is_some_and(|_| self.ending.is_none()) {
            return;
        }
        for reply in &mut self.replies {
            if reply.held || (reply.given == 0 && !reply.playing && reply.needs_voice()) {
                // Nothing may overtake it.
                break;
            }
            if !std::mem::replace(&mut reply.playing, true) {
                reply.expected_at = Some(self.now);
                if !reply.text.is_empty() {
                    self.history.agent_begins(self.turn, self.now, Some(reply.id), reply.purpose);
                }
                let id = reply.id;
                out.push(match &reply.sound {
                    Sound::Voice => Command::Play { reply: id },
                    Sound::Apology => Command::PlayCanned { reply: id },
                    Sound::Beep => Command::Beep { reply: id },
                    Sound::Recorded(name) => Command::PlayAudio { reply: id, name: name.clone() },
                });
            }
        }
    }

    pub(super) fn synthesized(&mut self, id: ReplyId, ms: u32, done: bool, out: &mut Out) {
        let now = self.now;
        let Some(reply) = self.reply_mut(id).filter(|r| !r.synthesized) else {
            self.dropped += 1;
            return;
        };
        let mute = done && reply.written && ms.max(reply.synthesized_ms) == 0;
        if mute && reply.text[..reply.given].contains(char::is_alphanumeric) {
            // Words that make no sound: nobody will have heard them.
            let voice = reply.voice;
            self.tts_failed(voice, true, out);
            return;
        }
        reply.synthesized(now, ms, done);
        // A fixed sentence may come from kept audio, without any voice.
        let (voice, spoken) = (reply.voice, reply.synthesized && ms > 0 && reply.ask.is_some());
        if spoken {
            self.providers.tts_works(voice);
        }
    }

    pub(super) fn played(&mut self, id: ReplyId, ms: u32, done: bool, out: &mut Out) {
        let now = self.now;
        let Some(reply) = self.replies.iter_mut().find(|r| r.id == id && r.playing) else {
            self.dropped += 1;
            return;
        };
        self.active_at = now;
        if reply.paused {
            // Marks that were on their way when playout was paused.
            return;
        }
        let begins = reply.started_at.is_none();
        let first_audio = reply.first_audio_at;
        reply.played(now, ms);
        if begins {
            self.answer_heard(id, first_audio, out);
        }
        if done {
            self.heard_out(id, out);
        }
    }

    /// A reply has been heard to its end.
    fn heard_out(&mut self, id: ReplyId, out: &mut Out) {
        let Some(index) = self.replies.iter().position(|r| r.id == id) else { return };
        self.silent_since = self.now;
        // Whatever was before it in the queue has been played too.
        for reply in self.replies.drain(..=index).collect::<Vec<_>>() {
            let cut = reply.paused;
            let heard = if cut {
                reply.heard_text(reply.heard_ms(self.now))
            } else {
                reply.text[..reply.given].trim_end()
            };
            if let Some(line) = self.history.settle(reply.id, heard, cut) {
                out.push(Command::Note(line));
            }
            if reply.then == Then::Record && !cut {
                self.announced(out);
            }
            if reply.id == id {
                match reply.then {
                    Then::Listen | Then::Record => {}
                    // Somebody who talks into the goodbye may have one more thing.
                    Then::HangUp if self.may_be_stopped() => self.leaving = true,
                    Then::HangUp => self.hang_up(super::EndedReason::AgentHungUp, out),
                    Then::GiveUp => self.fall_back(out),
                }
            }
        }
        if let Some(front) = self.replies.front_mut().filter(|r| r.playing && r.started_at.is_none()) {
            front.expected_at = Some(self.now);
        }
        self.play_ready(out);
        if self.replies.is_empty() {
            self.follow_up(out);
        }
    }

    /// Drops a reply of which nothing can have been heard.
    pub(super) fn discard_reply(&mut self, id: ReplyId, out: &mut Out) {
        if let Some(index) = self.replies.iter().position(|r| r.id == id) {
            self.replies.remove(index);
            let _ = self.history.settle(id, "", false);
            out.push(Command::CancelReply { reply: id });
        }
    }

    /// Stops everything that is being said: what was heard stays, the rest is gone.
    pub(super) fn cut_replies(&mut self, out: &mut Out) {
        let now = self.now;
        for reply in std::mem::take(&mut self.replies) {
            let heard = reply.heard_text(reply.heard_ms(now));
            if let Some(line) =
                self.history.settle(reply.id, heard, heard.len() < reply.text.trim_end().len())
            {
                out.push(Command::Note(line));
            }
            out.push(Command::CancelReply { reply: reply.id });
        }
    }

    /// There is no voice left: what needs one is not said.
    pub(super) fn cut_spoken(&mut self, out: &mut Out) {
        let (spoken, sounds) = std::mem::take(&mut self.replies).into_iter().partition(Reply::needs_voice);
        self.replies = spoken;
        self.cut_replies(out);
        self.replies = sounds;
        self.play_ready(out);
    }

    /// What filled a wait that was interrupted has filled it.
    pub(super) fn cut_fillers(&mut self, out: &mut Out) {
        let now = self.now;
        let paused = |r: &Reply| r.purpose == Purpose::Filler && r.paused;
        while let Some(filler) = self.replies.iter().position(paused).and_then(|at| self.replies.remove(at)) {
            let heard = filler.heard_text(filler.heard_ms(now));
            if let Some(line) = self.history.settle(filler.id, heard, true) {
                out.push(Command::Note(line));
            }
            out.push(Command::CancelReply { reply: filler.id });
        }
    }

    /// Makes way for last words: what is being heard is heard out, unless it was stopped for the caller.
    pub(super) fn make_way(&mut self, out: &mut Out) {
        if self.replies.iter().any(|r| r.paused) {
            self.cut_replies(out);
        } else {
            self.drop_unheard(out);
        }
    }

    /// Drops what has not begun to be heard, but for the last words.
    pub(super) fn drop_unheard_before_goodbye(&mut self, out: &mut Out) {
        let waits = |r: &&Reply| r.started_at.is_none() && !r.is_last();
        while let Some(id) = self.replies.iter().find(waits).map(|r| r.id) {
            self.discard_reply(id, out);
        }
    }

    /// Cuts what is being heard, but for the last words.
    pub(super) fn cut_before_goodbye(&mut self, out: &mut Out) {
        let now = self.now;
        while let Some(at) = self.replies.iter().position(|r| !r.is_last()) {
            let Some(reply) = self.replies.remove(at) else { return };
            let heard = reply.heard_text(reply.heard_ms(now));
            let cut = heard.len() < reply.text.trim_end().len();
            if let Some(line) = self.history.settle(reply.id, heard, cut) {
                out.push(Command::Note(line));
            }
            out.push(Command::CancelReply { reply: reply.id });
        }
        if let Some(goodbye) = self.replies.front_mut() {
            goodbye.expected_at = Some(now);
        }
        self.play_ready(out);
    }

    /// Drops what has not begun to be heard.
    fn drop_unheard(&mut self, out: &mut Out) {
        let unheard: Vec<ReplyId> =
            self.replies.iter().filter(|r| r.started_at.is_none()).map(|r| r.id).collect();
        for id in unheard {
            self.discard_reply(id, out);
        }
    }

    pub(super) fn pause_playing(&mut self) {
        let now = self.now;
        for reply in self.replies.iter_mut().filter(|r| r.playing && !r.paused) {
            reply.pause(now);
        }
    }

    /// Goes on with everything that was being played.
    pub(super) fn go_on_playing(&mut self, out: &mut Out) {
        let now = self.now;
        for reply in self.replies.iter_mut().filter(|r| r.playing && r.paused) {
            let from_ms = reply.unpause(now);
            reply.expected_at = Some(now);
            out.push(Command::ResumePlayout { reply: reply.id, from_ms });
        }
    }

    /// When the voice is too slow: with its first audio, or in the middle.
    pub(super) fn voice_deadline(&self) -> Option<CallTime> {
        if !self.providers.tts_left() {
            return None;
        }
        let waits = |r: &&Reply| r.given_at.is_some() && !r.synthesized && r.needs_voice();
        let reply = self.replies.iter().find(waits)?;
        let patience = self.plan.timing.first_audio_ms;
        let silent_from = match reply.first_audio_at {
            None => reply.given_at?,
            Some(_) if !reply.finished => return None,
            // A voice that was kept waiting for the text is not late with what it made of it.
            Some(audio) => audio.plus_ms(reply.synthesized_ms).max(reply.finished_at),
        };
        Some(silent_from.plus_ms(patience))
    }

    /// When a mark is overdue, and what it would say is taken for granted.
    pub(super) fn mark_deadline(&self) -> Option<CallTime> {
        let reply = self.replies.front().filter(|r| r.playing && !r.paused)?;
        let from =
            reply.started_at.map(|_| reply.played_at()).or(reply.expected_at.max(reply.first_audio_at))?;
        if !reply.synthesized {
            // Audio that is at hand, and whose maker has no other guard.
            return (!reply.needs_voice()).then(|| from.plus_ms(SOUND_LATE_MS));
        }
        Some(from.plus_ms(reply.unplayed_ms().saturating_add(MARK_LATE_MS)))
    }

    pub(super) fn mark_overdue(&mut self, out: &mut Out) {
        if let Some(reply) = self.replies.front_mut() {
            if reply.then == Then::Record {
                // Nothing proves that the caller has heard it.
                reply.then = Then::Listen;
            }
            let id = reply.id;
            // So that nothing waits behind it where it is played.
            out.push(Command::CancelReply { reply: id });
            self.heard_out(id, out);
        }
    }

    /// After a node died: says what of each reply had not been heard, as replies of their own.
    pub(super) fn speak_again(&mut self, out: &mut Out) {
        let now = self.now;
        for before in std::mem::take(&mut self.replies) {
            let heard_ms = before.heard_ms(now);
            if before.held {
                continue;
            }
            if matches!(before.sound, Sound::Recorded(_) | Sound::Beep) {
                // Where it broke off nobody knows: from its beginning.
                self.play_sound(before.purpose, before.sound, out);
                continue;
            }
            let rest = before.unheard_text(heard_ms).to_string();
            if rest.is_empty() || !before.needs_voice() {
                if let Some(line) = self.history.settle(before.id, before.heard_text(heard_ms), false) {
                    out.push(Command::Note(line));
                }
                match before.then {
                    // That an announcement must have been heard by now proves nothing: the call stays unrecorded.
                    Then::Listen | Then::Record => continue,
                    Then::HangUp | Then::GiveUp => {}
                }
            }
            let id = self.next_reply.next();
            let mut reply = Reply::new(id, before.purpose, before.then, before.ask, self.providers.tts());
            reply.text = if rest.is_empty() { self.plan.phrases.goodbye.clone() } else { rest };
            reply.written = before.written;
            let heard = before.heard_text(heard_ms);
            self.history.goes_on(before.id, id, !heard.is_empty());
            if let Some(line) = self.history.settle(before.id, heard, true) {
                out.push(Command::Note(line));
            }
            if let Some(answer) = &mut self.answer {
                answer.reply_goes_on(before.id, id);
            }
            self.replies.push_back(reply);
            self.give(id, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: CallTime = CallTime::from_ms(1_000);

    fn reply(text: &str, ms: u32) -> Reply {
        let mut reply = Reply::new(ReplyId(1), Purpose::Answer, Then::Listen, None, 0);
        reply.write(text);
        reply.written = true;
        while reply.next_clause().is_some() {}
        reply.synthesized(SECOND, ms, true);
        reply
    }

    #[test]
    fn only_whole_words_that_were_played_were_heard() {
        let mut reply = reply("We are open from nine to five.", 3_000);
        assert_eq!(reply.heard_ms(CallTime::from_ms(9_000)), 0, "nothing before the first mark");
        reply.played(SECOND, 0);
        assert_eq!(reply.heard_ms(CallTime::from_ms(2_450)), 800, "not for long without a mark");
        reply.played(CallTime::from_ms(2_000), 1_000);
        assert_eq!(reply.heard_ms(CallTime::from_ms(2_450)), 1_450);
        assert_eq!(reply.heard_text(1_450), "We are open");
        assert_eq!(reply.unheard_text(1_450), "from nine to five.");
        assert_eq!(reply.heard_text(3_000), "We are open from nine to five.");
        reply.pause(CallTime::from_ms(2_000));
        assert_eq!(reply.heard_ms(CallTime::from_ms(5_000)), 1_000);
        assert_eq!(reply.unpause(CallTime::from_ms(5_000)), 1_000);
        assert_eq!(reply.heard_ms(CallTime::from_ms(5_500)), 1_500);
        reply.played(CallTime::from_ms(7_000), 2_900);
        assert_eq!(reply.heard_ms(CallTime::from_ms(60_000)), 3_000, "never more than there is");
    }

    #[test]
    fn anchors_beat_estimates_and_nonsense_is_ignored() {
        let mut reply = reply("Yes. We have a table.", 2_000);
        reply.align(&[
            Anchor { ms: 1_500, bytes: 4 },
            Anchor { ms: 1_400, bytes: 9 },
            Anchor { ms: 1_600, bytes: 900 },
        ]);
        assert_eq!(reply.heard_text(1_400), "");
        assert_eq!(reply.heard_text(1_500), "Yes.");
        assert_eq!(reply.heard_text(1_999), "Yes. We have a");
    }

    #[test]
    fn a_language_without_spaces_is_heard_character_by_character() {
        let mut reply = reply("八点有空位。明天也有。", 3_000);
        reply.align(&[Anchor { ms: 2_000, bytes: 18 }]);
        assert_eq!(reply.heard_text(1_000), "八点有");
        assert_eq!(reply.heard_text(2_900), "八点有空位。明天也有");
    }

    #[test]
    fn a_reply_that_breaks_off_forgets_what_was_told_of_the_rest() {
        let mut reply = reply("八点有空位。", 400);
        reply.synthesized = false;
        reply.align(&[Anchor { ms: 300, bytes: 6 }]);
        reply.end_at(reply.heard_text(200).len());
        assert_eq!((reply.heard_text(350), reply.heard_text(400)), ("", "八"));
    }

    #[test]
    fn without_anchors_the_estimate_stays_behind_the_voice() {
        let mut reply = reply("One two three four five six seven", 1_500);
        reply.synthesized = false;
        assert_eq!(reply.heard_text(1_500), "One two three");
    }

    #[test]
    fn signs_that_would_be_read_out_are_left_out() {
        let mut reply = reply("", 0);
        reply.write("  **Sure**, `we` have\u{7} it.");
        assert_eq!(reply.text, "Sure, we have it.");
    }
}
