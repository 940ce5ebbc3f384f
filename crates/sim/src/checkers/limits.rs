//! Limits hold: length of replies, size of what a model is shown, rounds of tools, duration of the call.

use super::{Checker, Seen, said};
use crate::world::Scene;
use offhook_core::call::{CallTime, Command, Input, Phrases};
use offhook_core::{ChatMessage, limits};

/// One clause may carry a reply over its limit.
const ONE_CLAUSE: usize = 300;
/// What is being said, last words and the end itself may take so long after the longest duration.
const LAST_WORDS_MS: u32 = 30_000;

/// Times that the agent asks into silence before it says goodbye, and once more where the model had nothing to say.
const NUDGES: u32 = 2 + 1;

#[derive(Debug, Default)]
pub(super) struct Limits {
    connected_at: Option<CallTime>,
    ended: bool,
    /// What the agent has asked since the caller's last word.
    questions: u32,
}

impl Checker for Limits {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Fact(Input::Connected) => {
                self.connected_at.get_or_insert(scene.now);
            }
            Seen::Order(Command::HangUp | Command::Forward { .. }) | Seen::Ended(_) => self.ended = true,
            Seen::Handled if !self.ended && scene.over_at.is_none() && scene.media => {
                let longest_ms = scene.options.plan.max_duration_ms + LAST_WORDS_MS;
                if self.connected_at.is_some_and(|at| scene.now > at.plus_ms(longest_ms)) {
                    return Err("the longest duration is over, but the call is not".into());
                }
            }
            Seen::Fact(Input::Final { text, .. } | Input::Interim { text, .. } | Input::EagerEnd { text, .. })
                if !text.is_empty() =>
            {
                self.questions = 0;
            }
            Seen::Fact(Input::Dtmf { .. }) => self.questions = 0,
            Seen::Order(Command::Speak { reply, text, .. }) => {
                let phrases = Phrases::default();
                self.questions += u32::from([phrases.nudge, phrases.not_understood].contains(text));
                if self.questions > NUDGES && scene.faults.voice.is_none() && scene.node == 0 {
                    return Err(format!("the agent asks {} times into silence", self.questions));
                }
                let before = scene.speech(*reply).map_or(0, |at| scene.speeches[at].text.len());
                let length = before + text.len();
                if length > limits::REPLY_BYTES + ONE_CLAUSE {
                    return Err(format!("reply {} has {length} bytes", reply.0));
                }
            }
            Seen::Order(Command::Ask { messages, .. }) => {
                let turn = messages.iter().rposition(|m| said(m).is_some());
                let rounds = messages[turn.unwrap_or_default()..]
                    .iter()
                    .filter(|m| matches!(m, ChatMessage::Agent { tools, .. } if !tools.is_empty()))
                    .count();
                if rounds > usize::from(limits::TOOL_ROUNDS_PER_TURN) {
                    return Err(format!("the model is asked after {rounds} rounds of tools"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
