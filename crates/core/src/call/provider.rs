//! Which recogniser, model and voice of the plan is in use, and who comes next when one fails. It counts failures; it
//! does not know names, keys or causes beyond "may pass".

use super::speech::{Purpose, Reply, Sound};
use super::{Call, Command, EndedReason, Out, Phase, SttId, Then};
use serde::{Deserialize, Serialize};

/// A provider may fail so often for a passing reason, without finished work in between, before the next is asked.
const PASSING_FAILURES: u8 = 2;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Providers {
    stt: Chain,
    llm: Chain,
    tts: Chain,
    session: SttId,
}

/// One order of fallback.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Chain {
    current: u8,
    failures: u8,
    exhausted: bool,
}

impl Chain {
    /// The current one failed. Says whether there is one to go on with: the same, or the next.
    fn failed(&mut self, may_pass: bool, count: usize) -> bool {
        self.failures += 1;
        if may_pass && self.failures < PASSING_FAILURES {
            return true;
        }
        self.failures = 0;
        if usize::from(self.current) + 1 < count {
            self.current += 1;
            return true;
        }
        self.exhausted = true;
        false
    }

    /// The current one has finished something. That it opened or began is no proof: it may break off every time.
    fn works(&mut self) {
        self.failures = 0;
    }
}

impl Providers {
    pub(super) fn tts(&self) -> u8 {
        self.tts.current
    }

    pub(super) fn llm(&self) -> u8 {
        self.llm.current
    }

    pub(super) fn tts_left(&self) -> bool {
        !self.tts.exhausted
    }

    /// Another node may reach what this one could not.
    pub(super) fn anew(&mut self) {
        *self = Providers { session: self.session, ..Providers::default() };
    }

    pub(super) fn is_session(&self, stt: SttId) -> bool {
        self.session == stt
    }

    pub(super) fn session(&self) -> SttId {
        self.session
    }

    pub(super) fn stt_works(&mut self) {
        self.stt.works();
    }

    pub(super) fn llm_works(&mut self) {
        self.llm.works();
    }

    pub(super) fn tts_works(&mut self, voice: u8) {
        if voice == self.tts.current {
            self.tts.works();
        }
    }
}

impl Call {
    pub(super) fn open_stt(&mut self, out: &mut Out) {
        self.providers.session = self.next_stt.next();
        self.ear.new_session();
        out.push(Command::OpenStt { stt: self.providers.session, provider: self.providers.stt.current });
    }

    pub(super) fn stt_failed(&mut self, stt: SttId, may_pass: bool, out: &mut Out) {
        if !self.providers.is_session(stt) || self.providers.stt.exhausted {
            self.dropped += 1;
            return;
        }
        if self.providers.stt.failed(may_pass, self.plan.stt.len()) {
            self.open_stt(out);
        } else {
            self.give_up(out);
        }
    }

    /// The model failed on a request. Says whether another may be asked.
    pub(super) fn llm_failed(&mut self, may_pass: bool) -> bool {
        self.providers.llm.failed(may_pass, self.plan.llm.len())
    }

    /// A voice failed: what it has not spoken goes to the same one again or to the next.
    pub(super) fn tts_failed(&mut self, voice: u8, may_pass: bool, out: &mut Out) {
        if voice != self.providers.tts.current || self.providers.tts.exhausted {
            self.dropped += 1;
            return;
        }
        if !self.providers.tts.failed(may_pass, self.plan.tts.len()) {
            self.end_unspoken(out);
            match self.ending {
                // Not even the apology: the one that needs no voice.
                Some(EndedReason::ProvidersFailed) if self.replies.iter().all(|r| r.needs_voice()) => {
                    self.cut_replies(out);
                    self.say_canned(out);
                }
                // The phone still rings: it is answered with the apology instead.
                Some(_) if self.phase == Phase::Ringing => {
                    self.ending = None;
                    self.give_up(out);
                }
                // The last words cannot be said.
                Some(reason) => self.hang_up(reason, out),
                None => self.give_up(out),
            }
            return;
        }
        out.push(Command::OpenTts { voice: self.providers.tts.current });
        self.speak_unspoken(out);
    }

    /// There is no voice left: what is half spoken ends with the audio that there is.
    fn end_unspoken(&mut self, out: &mut Out) {
        for reply in self
            .replies
            .iter_mut()
            .filter(|r| r.needs_voice() && r.playing && r.synthesized_ms > 0 && !r.synthesized)
        {
            let spoken = reply.heard_text(reply.synthesized_ms).len();
            reply.end_at(spoken);
            out.push(Command::FinishReply { reply: reply.id });
        }
    }

    /// Gives what no audio was made of to the current voice, as replies of their own.
    fn speak_unspoken(&mut self, out: &mut Out) {
        let mut index = 0;
        let mut behind = false;
        while index < self.replies.len() {
            let reply = &mut self.replies[index];
            // What waits to be played behind a reply that begins anew must come behind it again.
            let again = behind && reply.playing && reply.started_at.is_none() && reply.needs_voice();
            if reply.given == 0 {
                reply.voice = self.providers.tts.current;
            }
            if reply.given == 0 || !reply.needs_voice() || (reply.synthesized && !again) {
                index += 1;
                continue;
            }
            let before = reply.id;
            let spoken = if again { 0 } else { reply.heard_text(reply.synthesized_ms).len() };
            let partly = spoken > 0 || (reply.started_at.is_some() && !again);
            let text = reply.text[spoken..].trim_start().to_string();
            if partly && text.is_empty() && reply.written {
                reply.end_at(spoken);
                out.push(Command::FinishReply { reply: before });
                index += 1;
                continue;
            }
            let mut rest = Reply::new(
                self.next_reply.next(),
                reply.purpose,
                reply.then,
                reply.ask,
                self.providers.tts(),
            );
            rest.text = text;
            rest.written = reply.written;
            rest.held = reply.held;
            let id = rest.id;
            if let Some(answer) = &mut self.answer {
                answer.reply_goes_on(before, id);
            }
            behind = true;
            self.history.goes_on(before, id, partly);
            if partly {
                reply.end_at(spoken);
                reply.then = Then::Listen;
                out.push(Command::FinishReply { reply: before });
                self.replies.insert(index + 1, rest);
                index += 1;
            } else {
                out.push(Command::CancelReply { reply: before });
                self.replies[index] = rest;
            }
            self.give(id, out);
            index += 1;
        }
        self.play_ready(out);
    }

    /// The apology that needs no voice: the last thing that can be said.
    pub(super) fn say_canned(&mut self, out: &mut Out) {
        let id = self.next_reply.next();
        let apology = self.plan.phrases.apology.clone();
        let mut reply = Reply::new(id, Purpose::Apology, Then::GiveUp, None, self.providers.tts());
        reply.sounds(Sound::Apology, &apology, self.now);
        self.replies.push_back(reply);
        self.play_ready(out);
    }

    /// Plays something that needs no voice, after what is being said.
    pub(super) fn play_sound(&mut self, purpose: Purpose, sound: Sound, out: &mut Out) {
        let id = self.next_reply.next();
        let mut reply = Reply::new(id, purpose, Then::Listen, None, self.providers.tts());
        reply.sounds(sound, "", self.now);
        self.replies.push_back(reply);
        self.play_ready(out);
    }
}
