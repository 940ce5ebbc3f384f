//! Taking a message: the greeting, the tone, what the caller says until they are done, a word of thanks. It knows what
//! ends a message, not where its audio is kept.

use super::speech::Sound;
use super::{Call, CallTime, EndedReason, Floor, Out, Phase, Purpose, Recording, Then};
use serde::{Deserialize, Serialize};

/// The caller talks to a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Mailbox {
    stage: Stage,
    /// When the caller could last be heard, or could begin to talk.
    heard_at: CallTime,
    /// The caller has said something after the tone.
    said: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Greeting,
    Tone,
    Message { since: CallTime },
}

impl Mailbox {
    /// The caller makes a sound, or stops; `words`: something was said.
    pub(super) fn hears(&mut self, now: CallTime, words: bool) {
        self.heard_at = now;
        self.said |= words && matches!(self.stage, Stage::Message { .. });
    }

    /// Why a call ended that ends now.
    pub(super) fn done(&self) -> EndedReason {
        if self.said { EndedReason::VoicemailLeft } else { EndedReason::VoicemailEmpty }
    }
}

impl Call {
    /// Whether what the caller says now is a message for a person.
    pub fn takes_message(&self) -> bool {
        matches!(&self.floor, Floor::Mailbox(mailbox) if matches!(mailbox.stage, Stage::Message { .. }))
    }

    /// The caller can leave a message; where nothing may be kept, they hear that nobody is there.
    pub(super) fn begin_voicemail(&mut self, out: &mut Out) {
        self.ending = None;
        if self.plan.recording == Recording::Never {
            let nobody = self.plan.phrases.nobody_there.clone();
            self.say_last(Purpose::Closed, EndedReason::NobodyReached, &nobody, out);
            return;
        }
        self.drop_answer(out);
        if self.interruption.take().is_some() {
            self.make_way(out);
        }
        self.floor = Floor::Mailbox(Mailbox { stage: Stage::Greeting, heard_at: self.now, said: false });
        let voicemail = self.plan.voicemail.clone();
        if let Some(name) = voicemail.greeting_audio {
            self.play_sound(Purpose::Voicemail, Sound::Recorded(name), out);
        } else {
            self.say(Purpose::Voicemail, Then::Listen, &voicemail.greeting, out);
        }
    }

    /// `#` goes past the greeting, and ends the message. Says whether the caller talks to the machine at all.
    pub(super) fn mailbox_key(&mut self, digit: char, out: &mut Out) -> bool {
        let Floor::Mailbox(mailbox) = &mut self.floor else { return false };
        mailbox.hears(self.now, false);
        match mailbox.stage {
            Stage::Greeting if digit == '#' => self.cut_replies(out),
            Stage::Message { .. } if digit == '#' => self.message_ends(out),
            _ => {}
        }
        true
    }

    /// When the next step is due.
    pub(super) fn mailbox_deadline(&self) -> Option<CallTime> {
        let Floor::Mailbox(mailbox) = &self.floor else { return None };
        let voicemail = &self.plan.voicemail;
        match mailbox.stage {
            Stage::Greeting | Stage::Tone => {
                (self.phase == Phase::Up && self.replies.is_empty()).then_some(self.now)
            }
            Stage::Message { since } => {
                let longest = since.plus_ms(voicemail.longest_ms);
                let silence = mailbox.heard_at.plus_ms(voicemail.silence_ms);
                Some(if self.ear.is_sounding() { longest } else { longest.min(silence) })
            }
        }
    }

    pub(super) fn mailbox_goes_on(&mut self, out: &mut Out) {
        let now = self.now;
        let Floor::Mailbox(mailbox) = &mut self.floor else { return };
        match mailbox.stage {
            Stage::Greeting => {
                mailbox.stage = Stage::Tone;
                self.play_sound(Purpose::Voicemail, Sound::Beep, out);
            }
            Stage::Tone => {
                // What was said into the greeting is no message.
                self.take_last_words(out);
                if let Floor::Mailbox(mailbox) = &mut self.floor {
                    *mailbox = Mailbox { stage: Stage::Message { since: now }, heard_at: now, said: false };
                }
                self.tape_message(true, out);
            }
            Stage::Message { .. } => self.message_ends(out),
        }
    }

    /// The message is over, and the caller still there.
    fn message_ends(&mut self, out: &mut Out) {
        self.take_last_words(out);
        let Floor::Mailbox(mailbox) = std::mem::replace(&mut self.floor, Floor::Agent) else { return };
        self.tape_message(false, out);
        let words = match mailbox.done() {
            EndedReason::VoicemailLeft => self.plan.voicemail.thanks.clone(),
            _ => self.plan.phrases.goodbye.clone(),
        };
        self.say_last(Purpose::Voicemail, mailbox.done(), &words, out);
    }

    /// The message breaks off, because a person takes the call.
    pub(super) fn stop_message(&mut self, out: &mut Out) {
        if matches!(self.floor, Floor::Mailbox(_)) {
            self.take_last_words(out);
            self.floor = Floor::Agent;
            self.tape_message(false, out);
        }
    }
}
