//! One voice at a time: a reply is played once, in its order, never after it was cancelled, and never into a dead line.

use super::{Checker, Seen};
use crate::world::Scene;
use offhook_core::call::{Command, Input, ReplyId};

/// How much of a reply may be heard again or out of its order while all marks come: they are on their way for so long.
const MARKS_ON_THEIR_WAY_MS: u32 = 700;
/// The same where marks are lost or late.
const MARKS_MISSING_MS: u32 = 6_000;

#[derive(Debug, Default)]
pub(super) struct OneVoice {
    last: Option<usize>,
    /// The machine has been told that media flows.
    media: bool,
    /// Ordered to be played, and not heard out or cancelled.
    playing: Vec<ReplyId>,
    /// Silenced, and neither gone on with nor cancelled.
    paused: Vec<ReplyId>,
}

impl Checker for OneVoice {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Fact(Input::Connected) => self.media = true,
            Seen::Fact(Input::MediaLost | Input::HungUp { .. }) => self.media = false,
            Seen::TookOver => *self = OneVoice::default(),
            Seen::Fact(Input::Played { reply, done: true, .. }) | Seen::Order(Command::CancelReply { reply }) => {
                self.playing.retain(|r| r != reply);
                self.paused.retain(|r| r != reply);
            }
            Seen::Order(Command::PausePlayout) => {
                // One that was heard out is forgotten, though its last mark may have been lost.
                let goes_on = |r: &ReplyId| scene.speech(*r).is_some_and(|at| !scene.speeches[at].is_heard_out());
                self.playing.retain(goes_on);
                self.paused.clone_from(&self.playing);
            }
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
                if matches!(seen, Seen::Order(Command::ResumePlayout { .. })) {
                    self.paused.retain(|r| r != reply);
                    return Ok(());
                }
                if speech.plays > 0 {
                    return Err(format!("reply {} is to be played a second time", reply.0));
                }
                if !self.paused.is_empty() {
                    return Err(format!("reply {} is to be played while {:?} are paused", reply.0, self.paused));
                }
                self.playing.push(*reply);
            }
            Seen::Heard { speech, .. } => {
                let line = &scene.options.line;
                let exact = line.marks_lost + line.marks_late == 0;
                let again_ms = if exact { MARKS_ON_THEIR_WAY_MS } else { MARKS_MISSING_MS } + scene.options.node.stall_ms;
                let heard = &scene.speeches[*speech];
                let last = self.last.replace(*speech).map(|last| &scene.speeches[last]);
                let later = last.filter(|last| last.played_as > heard.played_as);
                if later.is_some_and(|later| later.heard_ms > again_ms) {
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
