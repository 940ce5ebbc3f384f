//! The agent never hangs up on its own words: the last thing it says is heard to its end before it orders the end of the call,
//! unless somebody else ends it or the longest duration is long over.

use super::{Checker, Seen};
use crate::world::Scene;
use offhook_core::call::{CallTime, Command, Input};

/// The core's limit for last words after the longest duration.
const LAST_WORDS_MS: u32 = 20_000;

#[derive(Debug, Default)]
pub(super) struct Goodbye {
    ordered: bool,
    media: bool,
    connected_at: Option<CallTime>,
    hung_up: bool,
}

impl Checker for Goodbye {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Fact(Input::Connected) => {
                self.media = true;
                self.connected_at.get_or_insert(scene.now);
            }
            Seen::Fact(Input::MediaLost | Input::HungUp { .. }) => self.media = false,
            Seen::Fact(Input::HangUpOrdered) => self.ordered = true,
            Seen::Order(Command::HangUp | Command::Forward { .. }) => {
                let longest_ms = scene.options.plan.max_duration_ms + LAST_WORDS_MS;
                let too_long = self.connected_at.is_some_and(|at| scene.now >= at.plus_ms(longest_ms));
                let again = std::mem::replace(&mut self.hung_up, true);
                if self.ordered || !self.media || too_long || again || scene.over_at.is_some() {
                    return Ok(());
                }
                if !scene.line_is_idle() {
                    return Err("the agent hangs up while it can be heard".into());
                }
                let last = scene.speeches.iter().filter(|s| {
                    s.node == scene.node && (s.cancelled_at.is_none() || s.is_heard_out())
                });
                match last.max_by_key(|s| s.reply) {
                    Some(last) if !last.is_heard_out() => {
                        return Err(format!(
                            "the agent hangs up, but of its last words only {} of {} ms were heard: {:?}",
                            last.heard_to_ms, last.made_ms, last.text
                        ));
                    }
                    None if scene.node == 0 && scene.faults.voice.is_none() => return Err("the agent hangs up without a word".into()),
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }
}
