//! Who has the floor: when the caller's turn is over, what an answer prepared ahead is worth, and whether somebody who
//! talks over the agent means it. It knows words and silence, not audio.

use super::history::{PRESSED, Told, cut_at};
use super::speech::{Purpose, Reply};
use super::words::{self, Finished};
use super::{AskId, Call, CallTime, Command, EndedReason, Floor, Out, Phase, ReplyId, SttId, Then};
use crate::{ToolRequest, limits};
use serde::{Deserialize, Serialize};

/// Extra patience for every time that the turn was taken to be over and was not: this caller pauses while speaking.
const PATIENCE_PER_PAUSE_MS: u32 = 250;
/// How much of a backchannel's meaning the end of a reply has: with less than this to hear, "yes" answers it.
const ANSWERABLE_MS: u32 = 1_500;
/// Speech of at least this length that never becomes words was meant to be heard.
const MEANT_MS: u32 = 1_000;
/// Such utterances one after the other, without a word from the recogniser's session, until it is taken to be dead.
const MUTE_AFTER: u8 = 2;
/// How long after such speech the caller is asked to say it again.
const UNHEARD_MS: u32 = 2_500;
/// Silence after a key until the keys are taken as a turn.
const DTMF_PAUSE_MS: u32 = 2_000;
/// Between two fillers.
const FILLER_AGAIN_MS: u32 = 5_000;
/// A final that ends so close to words that were answered by a guess is the same utterance.
const SETTLED_WITHIN_MS: u32 = 400;
/// What the model is told when it writes the greeting.
const GREET: &str = "(The call has just been connected. Greet the caller in one or two short sentences.)";
/// What a model is told when another broke off in the middle of what the caller has heard.
const GO_ON: &str = "(The line to you broke after your last words, which the caller has heard. Go on from there without \
    repeating them.)";
/// What the model is told when the caller was to talk to a person and does not.
const BACK: &str = "(The caller is with you again, and what became of it stands above. Tell them what matters of it, and go on.)";
/// What a model is told when a tool answers after the caller has asked something else.
const NEWS: &str = "(What was still running has answered: its result is above. Tell the caller what matters of it, or nothing \
    if they know already.)";

/// The moments of one turn: the waterfall of its latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct TurnTiming {
    /// The caller's turns counted from 1.
    pub turn: u32,
    /// The caller fell silent.
    pub speech_end: CallTime,
    /// The turn was taken to be over.
    pub turn_end: CallTime,
    /// The model was asked; before `turn_end` with a head start.
    pub asked: CallTime,
    /// Its first token came.
    pub first_token: CallTime,
    /// The voice's first audio came.
    pub first_audio: CallTime,
    /// The caller began to hear it.
    pub playout: CallTime,
    /// Answers prepared for this turn and thrown away.
    pub thrown_away: u8,
}

/// What the caller is saying.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ear {
    speaking: bool,
    started_at: CallTime,
    /// When the caller last fell silent.
    stopped_at: Option<CallTime>,
    /// Settled words of this turn.
    said: String,
    /// The guess at what comes after them.
    interim: String,
    /// The guess came without saying where in the audio it ends.
    eager: bool,
    words_at: CallTime,
    /// How far the session's audio has been taken into turns, in ms of its own clock.
    covered_ms: u32,
    heard_to_ms: u32,
    /// Where the last final ended.
    settled_ms: u32,
    /// The recogniser takes the utterance to be over.
    utterance_end: bool,
    finalizing: bool,
    /// Answers thrown away in this turn.
    thrown_away: u8,
    /// No model could answer ahead.
    no_head_start: bool,
    /// Times that the turn was taken to be over and was not.
    reopened: u8,
    keys: String,
    /// Some of the keys were pressed while nothing was to be kept.
    secret: bool,
    /// Sound that never becomes words: it is not waited for.
    noise: bool,
    /// Words that were answered although the recogniser had not settled them: it will say them again.
    answered: Option<Answered>,
    /// The number of this turn's line, where it was noted before and taken back.
    line: Option<u32>,
    /// The agent was cut off for words of this turn.
    cut_off: bool,
    /// Speech without words that has not been asked about.
    unheard: bool,
    /// How often speech of which the recogniser's session has given no word was asked about.
    mute: u8,
}

/// Unsettled words that were answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answered {
    text: String,
    /// Where they ended, in ms of the session's audio.
    end_ms: u32,
}

/// A turn that is over.
struct Said {
    text: String,
    line: Option<u32>,
    secret: bool,
    thrown_away: u8,
    reopened: u8,
}

impl Ear {
    /// Something is being said, or has been and is not answered. A sound of which nothing is understood is taken for
    /// speech for `noise_ms`.
    pub(super) fn is_busy(&self, now: CallTime, noise_ms: u32) -> bool {
        self.has_words() || self.speech_until(noise_ms).is_some_and(|until| now < until)
    }

    /// How long the sound being made is taken for speech, if no more words come.
    pub(super) fn speech_until(&self, noise_ms: u32) -> Option<CallTime> {
        (self.speaking && !self.noise).then(|| self.started_at.max(self.words_at).plus_ms(noise_ms))
    }

    /// Whatever is sounding is no speech.
    pub(super) fn take_for_noise(&mut self) {
        self.noise = self.speaking;
    }

    /// The caller can be heard.
    pub(super) fn is_sounding(&self) -> bool {
        self.speaking && !self.noise
    }

    pub(super) fn has_words(&self) -> bool {
        !self.said.is_empty() || !self.interim.is_empty() || !self.keys.is_empty()
    }

    /// No sound can come any more.
    pub(super) fn silence(&mut self, now: CallTime) {
        if std::mem::take(&mut self.speaking) {
            self.stopped_at = Some(now);
        }
    }

    /// Another recogniser listens, whose clock begins anew. What the last one understood, it will not hear again.
    pub(super) fn new_session(&mut self) {
        let guess = std::mem::take(&mut self.interim);
        append(&mut self.said, &guess);
        self.eager = false;
        self.covered_ms = 0;
        self.heard_to_ms = 0;
        self.settled_ms = 0;
        self.finalizing = false;
        self.answered = None;
        self.mute = 0;
    }

    /// What of a transcript that ends at `end_ms` has not been answered; `settles`: it is a final.
    fn unanswered<'a>(&mut self, text: &'a str, end_ms: u32, settles: bool) -> &'a str {
        // Signs alone are no words.
        if !text.contains(char::is_alphanumeric) {
            return "";
        }
        let Some(answered) = &self.answered else { return text.trim() };
        let count = words::words(&answered.text).count();
        let common = count.min(words::words(text).count());
        let shared = words::shared_beginning(&answered.text, text);
        // A segment only grows; when it is settled, some of its words may turn out to be others.
        let settled = settles && end_ms <= answered.end_ms.saturating_add(SETTLED_WITHIN_MS);
        if shared < common && !settled {
            self.answered = None;
            return text.trim();
        }
        words::after_words(text, count)
    }

    fn text(&self) -> String {
        let mut text = String::with_capacity(self.said.len() + self.interim.len() + 1);
        text.push_str(&self.said);
        append(&mut text, &self.interim);
        if !self.keys.is_empty() {
            append(&mut text, &format!("{PRESSED}{})", self.keys));
        }
        text
    }

    /// The turn is over: gives what was said in it.
    fn take(&mut self) -> Said {
        let text = self.text();
        // The recogniser repeats the whole unsettled segment: what was answered of it before, and now.
        let mut answered = self.answered.take();
        if !self.interim.is_empty() {
            let mut text = answered.take().map(|a| a.text).unwrap_or_default();
            append(&mut text, &self.interim);
            answered = Some(Answered { text, end_ms: if self.eager { u32::MAX } else { self.heard_to_ms } });
        }
        let said = Said {
            text,
            line: self.line,
            secret: self.secret,
            thrown_away: self.thrown_away,
            reopened: self.reopened,
        };
        self.begin_anew();
        self.answered = answered;
        said
    }

    /// Forgets the words: they were answered, or were none.
    fn begin_anew(&mut self) {
        self.said.clear();
        self.interim.clear();
        self.keys.clear();
        self.secret = false;
        self.covered_ms = self.covered_ms.max(self.heard_to_ms);
        self.utterance_end = false;
        self.finalizing = false;
        self.thrown_away = 0;
        self.no_head_start = false;
        self.reopened = 0;
        self.unheard = false;
        self.cut_off = false;
        self.line = None;
        if !self.speaking {
            self.stopped_at = None;
        }
    }
}

fn append(text: &mut String, more: &str) {
    let more = more.trim();
    if !text.is_empty() && !more.is_empty() {
        text.push(' ');
    }
    let room = limits::TRANSCRIPT_BYTES.saturating_sub(text.len());
    text.push_str(cut_at(more, room));
}

/// The answer to a turn, from the first request to the last word; until the turn is over it is only a head start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// What the caller said, and the same reduced to its words.
    basis: String,
    normalized: String,
    /// The number of the turn's line, where it was noted before.
    line: Option<u32>,
    /// Keys in it are for the model only.
    secret: bool,
    /// It opens the call: nobody has said anything yet.
    greets: bool,
    /// Times that the turn was reopened.
    reopened: u8,
    /// The turn is over: the answer may be heard.
    released: bool,
    asking: Option<Asking>,
    /// The reply that the last request wrote, if it wrote any.
    wrote: Option<ReplyId>,
    /// The replies it consists of; tools come between them.
    replies: Vec<ReplyId>,
    /// Tools wanted by the request under way.
    requests: Vec<ToolRequest>,
    /// It waits for tools before it goes on.
    waits: bool,
    rounds: u8,
    asks: u8,
    ran_tools: bool,
    /// A model broke off in the middle of what the caller has begun to hear: the next one goes on with it.
    goes_on: bool,
    /// It tells of a tool that answered late; there may be nothing to tell.
    brings_news: bool,
    /// It tells a caller who did not get a person what became of it.
    comes_back: bool,
    next_filler_at: CallTime,
    fillers: usize,
    timing: TurnTiming,
    timed: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Asking {
    ask: AskId,
    /// When it was asked, or the last token came.
    heard_at: CallTime,
    any: bool,
    /// Something of it has been heard: asking for the same again would say it twice.
    heard: bool,
    /// The reply it writes, once it has written something.
    reply: Option<ReplyId>,
}

impl Answer {
    pub(super) fn wrote(&self) -> Option<ReplyId> {
        self.wrote
    }

    pub(super) fn reply_goes_on(&mut self, before: ReplyId, after: ReplyId) {
        if self.wrote == Some(before) {
            self.wrote = Some(after);
        }
        if self.replies.contains(&before) {
            self.replies.push(after);
        }
        if let Some(asking) = &mut self.asking
            && asking.reply == Some(before)
        {
            asking.reply = Some(after);
        }
    }
}

/// The caller makes a sound while the agent has the floor; the agent holds its tongue until it is known what it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Interruption {
    since: CallTime,
    stopped_at: Option<CallTime>,
    /// Playout was paused for it.
    paused: bool,
}

impl Call {
    // ---- the caller's voice ------------------------------------------------------------------------------------

    pub(super) fn speech_started(&mut self, out: &mut Out) {
        if self.ear.speaking || self.phase != Phase::Up {
            return;
        }
        self.active_at = self.now;
        self.ear.speaking = true;
        self.ear.noise = false;
        self.ear.started_at = self.now;
        self.ear.finalizing = false;
        self.ear.utterance_end = false;
        if let Some(interruption) = &mut self.interruption {
            interruption.stopped_at = None;
        } else if self.may_be_interrupted() {
            self.begin_interruption(out);
        }
        self.mailbox_hears(false);
    }

    pub(super) fn speech_stopped(&mut self, silence_ms: u32, out: &mut Out) {
        if !self.ear.speaking {
            return;
        }
        self.active_at = self.now;
        let stopped_at = self.now.minus_ms(silence_ms).max(self.ear.started_at);
        self.ear.speaking = false;
        self.ear.stopped_at = Some(stopped_at);
        let meant = stopped_at.since_ms(self.ear.started_at) >= MEANT_MS;
        self.ear.unheard |= !self.ear.has_words() && meant;
        // Long speech is a message even where no recogniser understands it.
        self.mailbox_hears(meant);
        if let Some(interruption) = &mut self.interruption {
            interruption.stopped_at = Some(self.now);
        }
        let unsettled =
            !self.ear.interim.is_empty() && self.finished(&self.ear.text()) != Finished::Unfinished;
        if unsettled && !std::mem::replace(&mut self.ear.finalizing, true) {
            out.push(Command::Finalize { stt: self.providers.session() });
        }
        self.start_ahead(out);
    }

    pub(super) fn interim(&mut self, stt: SttId, text: String, end_ms: u32, out: &mut Out) {
        if !self.providers.is_session(stt) || end_ms <= self.ear.covered_ms {
            self.dropped += 1;
            return;
        }
        self.ear.heard_to_ms = end_ms;
        self.ear.eager = false;
        self.recogniser_heard(&text);
        self.guessed(&text, out);
    }

    pub(super) fn final_words(&mut self, stt: SttId, text: String, end_ms: u32, end: bool, out: &mut Out) {
        if !self.providers.is_session(stt) {
            self.dropped += 1;
            return;
        }
        self.recogniser_heard(&text);
        let known =
            end_ms <= self.ear.settled_ms || (end_ms <= self.ear.covered_ms && self.ear.answered.is_none());
        if known && text.contains(char::is_alphanumeric) {
            self.dropped += 1;
            return;
        }
        self.ear.settled_ms = self.ear.settled_ms.max(end_ms);
        let text = self.ear.unanswered(&text, end_ms, true).to_string();
        self.ear.answered = None;
        self.ear.interim.clear();
        self.ear.eager = false;
        append(&mut self.ear.said, &text);
        self.ear.heard_to_ms = self.ear.heard_to_ms.max(end_ms);
        self.ear.covered_ms = self.ear.covered_ms.max(end_ms);
        self.ear.utterance_end |= end;
        self.ear.finalizing = false;
        if !text.trim().is_empty() {
            self.words_came(true, out);
        } else if !self.ear.has_words()
            && self.answer.as_ref().is_some_and(|a| !a.released && !a.basis.is_empty())
        {
            // The guess that it was prepared for turned out to be nothing.
            self.drop_answer(out);
        } else if !self.ear.has_words() && std::mem::take(&mut self.ear.cut_off) {
            // The guess that the agent was cut off for turned out to be nothing.
            self.go_on_talking(out);
        }
    }

    pub(super) fn utterance_end(&mut self, stt: SttId) {
        if self.providers.is_session(stt) {
            self.ear.utterance_end |= self.ear.has_words();
        }
    }

    pub(super) fn eager_end(&mut self, stt: SttId, text: String, out: &mut Out) {
        if !self.providers.is_session(stt) {
            self.dropped += 1;
            return;
        }
        self.ear.eager = true;
        self.recogniser_heard(&text);
        self.guessed(&text, out);
        if !self.ear.speaking || self.finished(&self.ear.text()) == Finished::Complete {
            self.start_ahead(out);
        }
    }

    fn recogniser_heard(&mut self, text: &str) {
        if text.contains(char::is_alphanumeric) {
            self.ear.mute = 0;
            self.providers.stt_works();
        }
    }

    /// The recogniser guesses what is being said.
    fn guessed(&mut self, text: &str, out: &mut Out) {
        let end_ms = self.ear.heard_to_ms;
        let new = cut_at(self.ear.unanswered(text, end_ms, false), limits::TRANSCRIPT_BYTES).to_string();
        if new.is_empty() && self.ear.interim.is_empty() {
            return;
        }
        self.ear.interim = new;
        self.words_came(false, out);
    }

    /// The recogniser has understood something.
    fn words_came(&mut self, settled: bool, out: &mut Out) {
        self.active_at = self.now;
        self.ear.words_at = self.now;
        self.ear.unheard = false;
        self.ear.noise = false;
        if self.phase != Phase::Up {
            return;
        }
        self.mailbox_hears(true);
        if self.interruption.is_none() && self.may_be_interrupted() {
            // The voice detector missed it: soft speech, or speech under the agent's own echo.
            self.begin_interruption(out);
        }
        if self.interruption.is_some() {
            self.judge_words(settled, out);
        } else {
            self.start_ahead(out);
        }
    }

    pub(super) fn dtmf(&mut self, digit: char, out: &mut Out) {
        if !matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D') || self.phase != Phase::Up {
            self.dropped += 1;
            return;
        }
        self.active_at = self.now;
        if self.mailbox_key(digit, out) || matches!(self.floor, Floor::Bridged(_)) {
            return;
        }
        self.ear.words_at = self.now;
        if self.may_be_interrupted() && !self.is_leaving() {
            self.begin_interruption(out);
            self.yield_floor(out);
        }
        if self.ear.keys.len() < limits::DTMF_DIGITS {
            self.ear.keys.push(digit);
            self.ear.secret |= self.tape.is_paused();
        }
    }

    // ---- interruption ------------------------------------------------------------------------------------------

    /// Something of the agent can be heard, or is about to be.
    fn agent_has_floor(&self) -> bool {
        self.leaving
            || self.replies.iter().any(|r| !r.held)
            || self.answer.as_ref().is_some_and(|a| a.released && self.answer_is_open())
    }

    /// A sound of the caller's stops what is being said. That the call is recorded they must hear to the end, and a machine
    /// that takes messages does not stop for anybody.
    fn may_be_interrupted(&self) -> bool {
        let announces =
            self.replies.iter().find(|r| !r.held).is_some_and(|r| r.purpose == Purpose::Announcement);
        let listens = matches!(self.floor, Floor::Agent | Floor::Reaching(_));
        listens && !announces && self.agent_has_floor()
    }

    fn mailbox_hears(&mut self, words: bool) {
        if let Floor::Mailbox(mailbox) = &mut self.floor {
            mailbox.hears(self.now, words);
        }
    }

    /// The last words are being said; only real words stop them.
    fn is_leaving(&self) -> bool {
        self.ending.is_some()
    }

    /// The caller has been talking into the last words for long enough to mean it.
    pub(super) fn may_be_stopped(&self) -> bool {
        let since = self.ear.started_at;
        let until = if self.ear.speaking { self.now } else { self.ear.stopped_at.unwrap_or(since) };
        let fresh = self.ear.speaking || until.plus_ms(self.plan.timing.final_ms) > self.now;
        let meant_ms = if self.ending == Some(EndedReason::Silence) { 0 } else { MEANT_MS };
        self.may_stay() && fresh && !self.ear.noise && until.since_ms(since) >= meant_ms
    }

    /// When the wait for a caller who talks into the goodbye is over.
    pub(super) fn leave_deadline(&self) -> Option<CallTime> {
        let timing = &self.plan.timing;
        let ear = &self.ear;
        let silent_from = ear.stopped_at.unwrap_or(ear.started_at);
        let at = if ear.speaking {
            ear.started_at.plus_ms(timing.noise_ms)
        } else {
            silent_from.plus_ms(timing.final_ms)
        };
        self.leaving.then_some(at)
    }

    /// The last words were the agent's own choice, and the caller may talk it out of leaving.
    fn may_stay(&self) -> bool {
        matches!(self.ending, Some(EndedReason::AgentHungUp | EndedReason::Silence))
    }

    fn begin_interruption(&mut self, out: &mut Out) {
        if self.interruption.is_some() {
            return;
        }
        let stopped_at = (!self.ear.speaking).then_some(self.now);
        let paused = !self.is_leaving() && self.replies.iter().any(|r| r.playing);
        self.interruption = Some(Interruption { since: self.now, stopped_at, paused });
        if paused {
            self.pause_playing();
            out.push(Command::PausePlayout);
        }
    }

    /// Media is back: what was being said goes on, unless words that came over it are to be judged first.
    pub(super) fn go_on_unless_interrupted(&mut self, out: &mut Out) {
        if !self.ear.has_words() || !self.may_be_interrupted() {
            self.go_on_playing(out);
            return;
        }
        let paused = self.replies.iter().any(|r| r.playing);
        self.interruption = Some(Interruption { since: self.now, stopped_at: Some(self.now), paused });
        self.judge_words(self.ear.interim.is_empty(), out);
    }

    fn judge_words(&mut self, settled: bool, out: &mut Out) {
        let text = self.ear.text();
        let backchannel = words::is_backchannel(&text);
        // Somebody who was taken to be gone and says "yes" is there.
        let asked_for = self.ending == Some(EndedReason::Silence);
        let takes_leave = words::is_farewell(&text) && !(asked_for && backchannel);
        let bound_to_leave = self.is_leaving() && (!self.may_stay() || takes_leave);
        if bound_to_leave {
            if settled {
                self.never_mind(out);
            }
            return;
        }
        let hum = backchannel && !asked_for && !self.awaits_answer();
        if hum {
            if settled && !self.ear.speaking {
                self.never_mind(out);
            }
            return;
        }
        self.yield_floor(out);
    }

    /// The agent has asked something and is done asking, or nearly: a "yes" answers it.
    fn awaits_answer(&self) -> bool {
        let Some(front) = self.replies.iter().find(|r| !r.held) else { return false };
        let heard = front.heard_ms(self.now);
        if matches!(front.purpose, Purpose::Filler | Purpose::Connecting) {
            return false;
        }
        words::asks(front.heard_text(heard))
            || (front.written
                && words::asks(&front.text)
                && front.synthesized
                && front.remaining_ms(self.now) < ANSWERABLE_MS)
    }

    pub(super) fn interruption_deadline(&self) -> Option<CallTime> {
        let interruption = self.interruption.as_ref()?;
        let timing = &self.plan.timing;
        Some(match interruption.stopped_at {
            Some(stopped) => stopped.max(self.ear.words_at).plus_ms(timing.cough_ms),
            None => interruption.since.max(self.ear.words_at).plus_ms(timing.noise_ms),
        })
    }

    /// Enough silence, or enough noise, to know that nothing more will come of it.
    pub(super) fn judge_silence(&mut self, out: &mut Out) {
        self.ear.take_for_noise();
        self.never_mind(out);
    }

    /// It was nothing: the agent goes on where it stopped.
    fn never_mind(&mut self, out: &mut Out) {
        let Some(interruption) = self.interruption.take() else { return };
        if self.is_leaving() {
            self.take_last_words(out);
        }
        self.ear.begin_anew();
        self.active_at = self.now;
        if interruption.paused {
            self.cut_fillers(out);
            self.go_on_playing(out);
        }
        self.play_ready(out);
        self.follow_up(out);
    }

    /// The caller means it: what they did not hear is gone.
    fn yield_floor(&mut self, out: &mut Out) {
        self.interruption = None;
        self.ending = None;
        self.leaving = false;
        if self.reopen_turn(out) {
            return;
        }
        self.ear.cut_off = !self.replies.is_empty() || self.answer_is_open();
        self.drop_answer(out);
        self.cut_replies(out);
    }

    /// Nothing of the answer has been heard or done: the caller was not finished, and their turn goes on.
    fn reopen_turn(&mut self, out: &mut Out) -> bool {
        let unheard = self
            .answer
            .as_ref()
            .is_some_and(|a| a.released && !a.timed && !a.ran_tools && !a.basis.is_empty());
        if !unheard {
            return false;
        }
        let answer = self.answer.take().expect("looked at above");
        self.forget(&answer, out);
        self.cut_replies(out);
        self.ear.line = self.history.take_back_caller();
        self.turn -= 1;
        let new_words = std::mem::take(&mut self.ear.said);
        self.ear.said = answer.basis;
        self.ear.secret |= answer.secret;
        append(&mut self.ear.said, &new_words);
        self.ear.thrown_away = answer.timing.thrown_away.saturating_add(1);
        self.ear.reopened = answer.reopened.saturating_add(1);
        if self.ear.stopped_at.is_none() && !self.ear.speaking {
            self.ear.stopped_at = Some(self.now);
        }
        true
    }

    // ---- the end of a turn -------------------------------------------------------------------------------------

    pub(super) fn turn_deadline(&self) -> Option<CallTime> {
        let ear = &self.ear;
        if self.interruption.is_some() || !ear.has_words() || self.ending.is_some() {
            return None;
        }
        let timing = &self.plan.timing;
        if !ear.keys.is_empty() {
            let over = ear.keys.ends_with('#');
            return Some(if over { ear.words_at } else { ear.words_at.plus_ms(DTMF_PAUSE_MS) });
        }
        if ear.speaking {
            // A noisy line: the voice detector hears no silence, but the recogniser has heard the end, or no more words.
            let last = ear.words_at.max(ear.started_at);
            let wait_ms = if ear.utterance_end { timing.endpoint_unfinished_ms } else { timing.noise_ms };
            return Some(last.plus_ms(wait_ms));
        }
        let silent_since = ear.stopped_at.unwrap_or(ear.words_at);
        let mut wait_ms = match self.finished(&ear.text()) {
            Finished::Complete => timing.endpoint_complete_ms,
            Finished::Unsure => timing.endpoint_unsure_ms,
            Finished::Unfinished => timing.endpoint_unfinished_ms,
        };
        wait_ms += u32::from(ear.reopened) * PATIENCE_PER_PAUSE_MS;
        if !ear.interim.is_empty() {
            wait_ms = wait_ms.max(timing.final_ms);
        }
        Some(silent_since.plus_ms(wait_ms))
    }

    pub(super) fn turn_ended(&mut self, out: &mut Out) {
        if !self.agent_talks() {
            self.keep_turn(out);
            self.nudges = 0;
            return;
        }
        let speech_end = self.ear.stopped_at.unwrap_or(self.ear.words_at);
        let ready = self.is_ready_for(&self.ear.text());
        if !ready {
            self.drop_answer(out);
        }
        let Said { text, line, secret, thrown_away, reopened } = self.ear.take();
        self.nudges = 0;
        if !ready {
            self.begin_answer(text.clone(), out);
        }
        let Some(answer) = &mut self.answer else { return };
        answer.basis = text;
        answer.line = line;
        answer.secret = secret;
        answer.reopened = reopened;
        answer.timing.speech_end = speech_end;
        answer.timing.thrown_away = answer.timing.thrown_away.max(thrown_away);
        self.release_answer(out);
    }

    /// The answer to these words has been begun ahead.
    fn is_ready_for(&self, text: &str) -> bool {
        self.answer.as_ref().is_some_and(|a| !a.released && a.normalized == words::normalized(text))
    }

    /// Prepares the answer to what has been said so far, in case that it was all; one to other words is of no use.
    fn start_ahead(&mut self, out: &mut Out) {
        let text = self.ear.text();
        let ahead = self.answer.as_ref().is_some_and(|a| !a.released && !a.basis.is_empty());
        if ahead {
            if self.is_ready_for(&text) {
                return;
            }
            self.drop_answer(out);
        }
        let allowed = self.plan.head_start
            && self.agent_talks()
            && self.phase == Phase::Up
            && self.ending.is_none()
            && self.tools.is_empty()
            && self.interruption.is_none()
            && !self.ear.no_head_start
            && self.ear.thrown_away < limits::THROWN_AWAY_PER_TURN
            && self.ear.keys.is_empty();
        if !allowed {
            return;
        }
        let likely = match self.finished(&text) {
            Finished::Complete => true,
            Finished::Unsure => !self.ear.speaking,
            Finished::Unfinished => false,
        };
        if !likely || text.is_empty() {
            return;
        }
        if self.answer.as_ref().is_some_and(|a| a.released && self.answer_is_open()) {
            return;
        }
        self.drop_answer(out);
        self.begin_answer(text, out);
    }

    fn finished(&self, text: &str) -> Finished {
        words::finished(text, &self.plan.language)
    }

    /// Something long was said and not understood.
    pub(super) fn unheard_deadline(&self) -> Option<CallTime> {
        let free =
            self.agent_talks() && !self.ear.speaking && !self.agent_has_floor() && self.ending.is_none();
        let at = self.ear.stopped_at?.plus_ms(UNHEARD_MS);
        (self.ear.unheard && free && !self.ear.has_words()).then_some(at)
    }

    pub(super) fn unheard(&mut self, out: &mut Out) {
        self.ear.begin_anew();
        self.ear.mute = self.ear.mute.saturating_add(1);
        if !self.may_nudge(out) {
            return;
        }
        if self.ear.mute >= MUTE_AFTER {
            self.stt_failed(self.providers.session(), true, out);
        }
        if self.ending.is_some() {
            return;
        }
        self.say_not_understood(out);
    }

    // ---- the answer --------------------------------------------------------------------------------------------

    /// An answer is being prepared, or waits for tools, or is being heard.
    pub(super) fn answer_is_open(&self) -> bool {
        self.answer.as_ref().is_some_and(|a| {
            a.asking.is_some() || a.waits || self.replies.iter().any(|r| a.replies.contains(&r.id))
        })
    }

    pub(super) fn begin_answer(&mut self, basis: String, out: &mut Out) {
        self.answer = Some(self.new_answer(basis));
        self.ask(out);
    }

    fn new_answer(&self, basis: String) -> Answer {
        let normalized = words::normalized(&basis);
        let timing = TurnTiming {
            turn: self.turn + 1,
            asked: self.now,
            thrown_away: self.ear.thrown_away,
            ..TurnTiming::default()
        };
        Answer {
            basis,
            normalized,
            line: None,
            secret: false,
            greets: self.phase == Phase::Ringing,
            reopened: 0,
            released: false,
            asking: None,
            wrote: None,
            replies: Vec::new(),
            requests: Vec::new(),
            waits: false,
            rounds: 0,
            asks: 0,
            ran_tools: false,
            goes_on: false,
            brings_news: false,
            comes_back: false,
            next_filler_at: CallTime::ZERO,
            fillers: 0,
            timing,
            timed: false,
        }
    }

    /// Asks the model for the (next part of the) answer.
    fn ask(&mut self, out: &mut Out) {
        let Some(answer) = &mut self.answer else { return };
        if answer.asks >= limits::ASKS_PER_ANSWER {
            self.give_up(out);
            return;
        }
        let ask = self.next_ask.next();
        answer.asks += 1;
        answer.waits = false;
        answer.requests.clear();
        answer.wrote = None;
        answer.asking = Some(Asking { ask, heard_at: self.now, any: false, heard: false, reply: None });
        let says = match answer.released {
            _ if answer.goes_on => Some(GO_ON),
            _ if answer.brings_news => Some(NEWS),
            _ if answer.comes_back => Some(BACK),
            false if !answer.basis.is_empty() => Some(answer.basis.as_str()),
            _ => None,
        };
        let told = Told {
            instructions: &self.plan.instructions,
            opening: answer.greets.then_some(GREET),
            chain: &answer.replies,
            caller_says: says,
        };
        let messages = self.history.messages(told, &self.replies, self.now);
        out.push(Command::Ask { ask, provider: self.providers.llm(), messages });
    }

    /// The turn is over: what was prepared may be heard.
    pub(super) fn release_answer(&mut self, out: &mut Out) {
        let (turn, now) = (self.turn, self.now);
        let filler_ms = self.plan.timing.filler_ms;
        let Some(answer) = &mut self.answer else { return };
        answer.released = true;
        answer.timing.turn_end = now;
        let waits_from = if answer.greets { now } else { answer.timing.speech_end };
        answer.next_filler_at = waits_from.plus_ms(filler_ms).max(now);
        self.active_at = now;
        if !answer.basis.is_empty() {
            self.turn = turn + 1;
            let line = self.history.caller_said(self.turn, now, &answer.basis, answer.line, answer.secret);
            out.push(Command::Note(line));
        }
        let replies = answer.replies.clone();
        let requests =
            if answer.asking.is_none() { std::mem::take(&mut answer.requests) } else { Vec::new() };
        for reply in self.replies.iter_mut().filter(|r| replies.contains(&r.id)) {
            reply.held = false;
        }
        self.play_ready(out);
        if !requests.is_empty() {
            self.use_tools(requests, out);
        }
    }

    /// Forgets the answer under way, if nothing of it is settled. What is being heard goes on.
    pub(super) fn drop_answer(&mut self, out: &mut Out) {
        if let Some(answer) = self.answer.take() {
            if !answer.released {
                self.ear.thrown_away = self.ear.thrown_away.saturating_add(1);
            }
            self.forget(&answer, out);
        }
    }

    fn forget(&mut self, answer: &Answer, out: &mut Out) {
        if let Some(asking) = &answer.asking {
            out.push(Command::CancelAsk { ask: asking.ask });
            if let Some(id) = asking.reply {
                self.write_no_more(id, out);
            }
        }
        let held: Vec<ReplyId> = self.replies.iter().filter(|r| r.held).map(|r| r.id).collect();
        for reply in held {
            out.push(Command::CancelReply { reply });
        }
        self.replies.retain(|r| !r.held);
    }

    pub(super) fn token(&mut self, ask: AskId, text: &str, out: &mut Out) {
        let now = self.now;
        let Some((answer, asking)) = self.answer.as_mut().and_then(|a| {
            let asking = a.asking.take_if(|x| x.ask == ask)?;
            Some((a, asking))
        }) else {
            self.dropped += 1;
            return;
        };
        let mut asking = asking;
        if text.contains(char::is_alphanumeric) {
            // A model that sends blanks only is as good as silent.
            asking.heard_at = now;
        }
        if !std::mem::replace(&mut asking.any, true) && answer.timing.first_token == CallTime::ZERO {
            answer.timing.first_token = now;
        }
        let id = match asking.reply {
            Some(id) => id,
            None if text.trim().is_empty() => {
                answer.asking = Some(asking);
                return;
            }
            None => {
                let id = self.next_reply.next();
                let purpose = if answer.greets { Purpose::Greeting } else { Purpose::Answer };
                let mut reply = Reply::new(id, purpose, Then::Listen, Some(ask), self.providers.tts());
                reply.held = !answer.released;
                answer.replies.push(id);
                answer.wrote = Some(id);
                asking.reply = Some(id);
                self.replies.push_back(reply);
                id
            }
        };
        answer.asking = Some(asking);
        let Some(reply) = self.reply_mut(id) else { return };
        if reply.write(text) {
            self.ask_done(ask, out);
            out.push(Command::CancelAsk { ask });
            return;
        }
        self.give(id, out);
    }

    pub(super) fn tool_wanted(&mut self, ask: AskId, request: ToolRequest) {
        match self.answer.as_mut().filter(|a| a.asking.as_ref().is_some_and(|x| x.ask == ask)) {
            Some(answer) if answer.requests.len() < limits::TOOLS_PER_ANSWER => {
                if let Some(asking) = &mut answer.asking {
                    asking.heard_at = self.now;
                    asking.any = true;
                }
                answer.requests.push(request);
            }
            _ => self.dropped += 1,
        }
    }

    pub(super) fn ask_done(&mut self, ask: AskId, out: &mut Out) {
        let Some(answer) = self.answer.as_mut().filter(|a| a.asking.as_ref().is_some_and(|x| x.ask == ask))
        else {
            self.dropped += 1;
            return;
        };
        let written = answer.asking.as_ref().and_then(|a| a.reply);
        if written.is_none() && answer.requests.is_empty() && answer.replies.is_empty() {
            self.model_is_speechless(out);
            return;
        }
        answer.asking = None;
        answer.goes_on = false;
        answer.brings_news = false;
        answer.comes_back = false;
        let requests = if answer.released { std::mem::take(&mut answer.requests) } else { Vec::new() };
        self.providers.llm_works();
        if let Some(id) = written {
            self.finish_writing(id, out);
        }
        if !requests.is_empty() {
            self.use_tools(requests, out);
        }
    }

    fn use_tools(&mut self, requests: Vec<ToolRequest>, out: &mut Out) {
        if let Some(answer) = &mut self.answer {
            answer.ran_tools = true;
            answer.waits = true;
            answer.rounds += 1;
            answer.next_filler_at =
                answer.next_filler_at.max(self.now.plus_ms(self.plan.timing.filler_ms / 2));
        }
        self.run_tools(requests, out);
    }

    /// Tools have answered, or none is left to wait for: the answer goes on.
    pub(super) fn tools_settled(&mut self, out: &mut Out) {
        if !self.tools.is_empty() || self.phase == Phase::Ended || !self.agent_talks() {
            return;
        }
        match &self.answer {
            Some(answer) if answer.waits && answer.rounds > limits::TOOL_ROUNDS_PER_TURN => {
                self.answer = None;
                self.say_not_understood(out);
            }
            Some(answer) if answer.waits => self.ask(out),
            _ => self.follow_up(out),
        }
    }

    /// Tells the caller what tools answered after their answer had been dropped, unless they speak themselves.
    pub(super) fn follow_up(&mut self, out: &mut Out) {
        let free = self.phase == Phase::Up
            && self.agent_talks()
            && self.ending.is_none()
            && self.tools.is_empty()
            && self.interruption.is_none()
            && !self.answer_is_open()
            && !self.ear.is_busy(self.now, self.plan.timing.noise_ms);
        if free && self.history.ends_with_tools() {
            self.answer_without_turn(self.new_answer(String::new()), out);
        } else if free && self.history.has_news() {
            self.answer_without_turn(Answer { brings_news: true, ..self.new_answer(String::new()) }, out);
        }
    }

    /// The agent was cut off for nothing: the model goes on from what its tools answered, or from what was heard.
    fn go_on_talking(&mut self, out: &mut Out) {
        self.follow_up(out);
        let free =
            self.phase == Phase::Up && self.agent_talks() && self.ending.is_none() && !self.answer_is_open();
        if free {
            self.answer_without_turn(Answer { goes_on: true, ..self.new_answer(String::new()) }, out);
        }
    }

    /// The caller is the agent's again: the model tells them what became of it, unless they are talking already.
    pub(super) fn come_back(&mut self, out: &mut Out) {
        if !self.ear.has_words() {
            self.answer_without_turn(Answer { comes_back: true, ..self.new_answer(String::new()) }, out);
        }
    }

    /// The model writes the greeting of a call that is connected already.
    pub(super) fn write_greeting(&mut self, out: &mut Out) {
        self.answer_without_turn(Answer { greets: true, ..self.new_answer(String::new()) }, out);
    }

    /// The agent waits for a tool before it goes on.
    pub(super) fn answer_waits(&self) -> bool {
        self.answer.as_ref().is_some_and(|a| a.waits)
    }

    /// Forgets what was prepared ahead.
    pub(super) fn drop_head_start(&mut self, out: &mut Out) {
        if self.phase != Phase::Ringing && self.answer.as_ref().is_some_and(|a| !a.released) {
            self.drop_answer(out);
        }
    }

    fn answer_without_turn(&mut self, answer: Answer, out: &mut Out) {
        let timing =
            TurnTiming { turn: self.turn, asked: self.now, speech_end: self.now, ..TurnTiming::default() };
        self.answer = Some(Answer { ran_tools: true, timing, ..answer });
        self.release_answer(out);
        self.ask(out);
    }

    pub(super) fn ask_failed(&mut self, ask: AskId, may_pass: bool, out: &mut Out) {
        let Some(answer) = self.answer.as_mut().filter(|a| a.asking.as_ref().is_some_and(|x| x.ask == ask))
        else {
            self.dropped += 1;
            return;
        };
        let Some(asking) = answer.asking.take() else { return };
        let released = answer.released;
        self.leave_off(&asking, out);
        if self.llm_failed(may_pass) {
            self.ask(out);
        } else if released || self.phase == Phase::Ringing {
            self.give_up(out);
        } else {
            self.no_head_start();
        }
    }

    /// The model has nothing to say and nothing to do, and the caller has heard nothing: another may have.
    fn model_is_speechless(&mut self, out: &mut Out) {
        let Some(answer) = &mut self.answer else { return };
        let (released, back) = (answer.released, answer.comes_back);
        answer.asking = None;
        if answer.brings_news {
            self.answer = None;
        } else if self.llm_failed(true) {
            self.ask(out);
        } else if released {
            self.answer = None;
            if back {
                let nobody = self.plan.phrases.nobody_there.clone();
                self.say(Purpose::Connecting, Then::Listen, &nobody, out);
            } else {
                self.say_not_understood(out);
            }
        } else if self.phase != Phase::Ringing {
            self.no_head_start();
        }
    }

    /// No model could answer ahead; when the turn is over it is tried once more.
    fn no_head_start(&mut self) {
        self.answer = None;
        self.ear.no_head_start = true;
    }

    fn say_not_understood(&mut self, out: &mut Out) {
        let sorry = self.plan.phrases.not_understood.clone();
        self.say(Purpose::NotUnderstood, Then::Listen, &sorry, out);
    }

    pub(super) fn ask_deadline(&self) -> Option<CallTime> {
        let asking = self.answer.as_ref()?.asking.as_ref()?;
        let timing = &self.plan.timing;
        Some(asking.heard_at.plus_ms(if asking.any { timing.token_ms } else { timing.first_token_ms }))
    }

    pub(super) fn ask_too_slow(&mut self, out: &mut Out) {
        let Some(ask) = self.answer.as_ref().and_then(|a| a.asking.as_ref()).map(|a| a.ask) else { return };
        out.push(Command::CancelAsk { ask });
        let last = usize::from(self.providers.llm()) + 1 >= self.plan.llm.len();
        self.ask_failed(ask, last, out);
    }

    pub(super) fn filler_deadline(&self) -> Option<CallTime> {
        let answer =
            self.answer.as_ref().filter(|a| a.released && self.ending.is_none() && self.agent_talks())?;
        let silent = self.replies.iter().all(|r| !r.playing && r.given == 0);
        let waiting = answer.asking.is_some() || answer.waits;
        // Whatever the agent has just said has filled the wait up to then.
        let silent_long = self.silent_since.plus_ms(self.plan.timing.filler_ms);
        (waiting && silent && self.interruption.is_none()).then_some(answer.next_filler_at.max(silent_long))
    }

    pub(super) fn fill(&mut self, out: &mut Out) {
        let Some(answer) = &mut self.answer else { return };
        let count = answer.fillers;
        answer.fillers += 1;
        answer.next_filler_at = self.now.plus_ms(FILLER_AGAIN_MS);
        let own = self.tools.iter().find_map(|t| t.filler.clone()).filter(|_| count == 0);
        let fillers = &self.plan.phrases.fillers;
        let shared = (!fillers.is_empty()).then(|| fillers[count % fillers.len()].clone());
        if let Some(text) = own.or(shared) {
            self.say(Purpose::Filler, Then::Listen, &text, out);
        }
    }

    /// A filler made way before it had any sound: if what it made way for comes to nothing, the wait is still to be filled.
    pub(super) fn filler_was_mute(&mut self) {
        if let Some(answer) = &mut self.answer {
            answer.next_filler_at = self.now;
        }
    }

    /// A reply has begun to be heard.
    pub(super) fn answer_heard(&mut self, id: ReplyId, first_audio: Option<CallTime>, out: &mut Out) {
        let Some(answer) = self.answer.as_mut().filter(|a| a.replies.contains(&id)) else { return };
        if let Some(asking) = answer.asking.as_mut().filter(|a| a.reply == Some(id)) {
            asking.heard = true;
        }
        if answer.timed {
            return;
        }
        answer.timed = true;
        answer.timing.first_audio = first_audio.unwrap_or(self.now);
        answer.timing.playout = self.now;
        if !answer.basis.is_empty() {
            out.push(Command::Timed(answer.timing));
        }
    }

    /// The call ends in the middle of the caller's words: they were said, so they are kept.
    pub(super) fn take_last_words(&mut self, out: &mut Out) {
        let text = self.ear.text();
        let hum = (words::is_backchannel(&text) || words::is_farewell(&text)) && self.agent_has_floor();
        if text.is_empty() || self.connected_at.is_none() || hum {
            return;
        }
        self.keep_turn(out);
    }

    /// The caller's turn is over and nobody answers it; what two people say to each other is theirs, unless it is noted.
    fn keep_turn(&mut self, out: &mut Out) {
        if matches!(&self.floor, Floor::Bridged(bridge) if !bridge.is_noted()) {
            self.ear.begin_anew();
            return;
        }
        let Said { text, line, secret, .. } = self.ear.take();
        self.turn += 1;
        let line = self.history.caller_said(self.turn, self.now, &text, line, secret);
        out.push(Command::Note(line));
    }

    /// After a node died: the request under way is asked again; of what was heard of its answer it is asked to go on.
    pub(super) fn ask_again(&mut self, out: &mut Out) {
        let Some(answer) = &mut self.answer else { return };
        if !answer.released {
            let greets = self.phase == Phase::Ringing;
            self.answer = None;
            if greets {
                self.begin_answer(String::new(), out);
            }
            return;
        }
        let Some(asking) = answer.asking.take() else { return };
        self.leave_off(&asking, out);
        self.ask(out);
    }

    /// A request came to nothing: what was heard of its answer stands, as far as whole clauses go.
    fn leave_off(&mut self, asking: &Asking, out: &mut Out) {
        let Some(answer) = &mut self.answer else { return };
        answer.requests.clear();
        answer.goes_on |= asking.heard;
        match asking.reply {
            Some(id) if asking.heard => self.write_no_more(id, out),
            Some(id) => {
                answer.replies.retain(|r| *r != id);
                self.discard_reply(id, out);
            }
            None => {}
        }
    }
}
