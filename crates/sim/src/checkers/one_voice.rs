//! One voice at a time: a reply is played once, in its order, never after it was cancelled, and never into a dead line.

use super::{Checker, Seen};
use crate::world::Scene;
use offhook_core::call::{Command, Input};

/// How much of a reply may be heard again or out of its order while all marks come: they are on their way for so long.
const MARKS_ON_THEIR_WAY_MS: u32 = 700;
/// The same where marks are lost or late.
const MARKS_MISSING_MS: u32 = 6_000;

#[derive(Debug, Default)]
pub(super) struct OneVoice {
    last: Option<usize>,
    /// The machine has been told that media flows.
    media: bool,
}

impl Checker for OneVoice {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Fact(Input::Connected) => self.media = true,
            Seen::Fact(Input::MediaLost | Input::HungUp { .. }) | Seen::TookOver => self.media = false,
            Seen::Order(Command::PlayCanned { reply }) if !self.media => {
                return Err(format!("reply {} is to be played while media is down", reply.0));
            }
            Seen::Order(Command::Play { reply } | Command::ResumePlayout { reply, .. }) => {
                let Some(speech) = scene.speech(*reply).map(|at| &scene.speeches[at]) else {
                    return Err(format!("reply {} is to be played, but no voice was given it", reply.0));
                };
                if speech.cancelled_at.is_some() {
                    return Err(format!("reply {} is to be played after it was cancelled", reply.0));
                }
                if !self.media {
                    return Err(format!("reply {} is to be played while media is down", reply.0));
                }
                if matches!(seen, Seen::Order(Command::Play { .. })) && speech.plays > 0 {
                    return Err(format!("reply {} is to be played a second time", reply.0));
                }
            }
            Seen::Heard { speech, .. } => {
                let line = &scene.options.line;
                let exact = line.marks_lost + line.marks_late == 0;
                let again_ms = if exact { MARKS_ON_THEIR_WAY_MS } else { MARKS_MISSING_MS };
                let heard = &scene.speeches[*speech];
                let last = self.last.replace(*speech).map(|last| &scene.speeches[last]);
                let later = last.filter(|last| (last.node, last.reply) > (heard.node, heard.reply));
                if later.is_some_and(|later| !later.filler && later.heard_ms > again_ms) {
                    return Err(format!("reply {} goes on after a later one was heard", heard.reply.0));
                }
                if heard.cancelled_at.is_some_and(|at| at < scene.now) {
                    return Err(format!("reply {} is heard after it was cancelled", heard.reply.0));
                }
                let pauses = heard.resumes + 1;
                if heard.heard_ms > heard.heard_to_ms + again_ms * pauses {
                    return Err(format!("reply {} is heard twice", heard.reply.0));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
