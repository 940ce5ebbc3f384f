//! The agent never hangs up on its own words: the last thing it says is heard to its end before it orders the end of the call,
//! unless somebody else ends it, and it is a goodbye: its own, where the model that ends the call wrote one, or the plan's.

use super::{Checker, Seen};
use crate::world::{Scene, Speech};
use offhook_core::call::{Command, Input};

/// The core's limit for last words.
const LAST_WORDS_MS: u32 = 20_000;

#[derive(Debug, Default)]
pub(super) struct Goodbye {
    ordered: bool,
    media: bool,
    hung_up: bool,
}

impl Checker for Goodbye {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Fact(Input::Connected) => self.media = true,
            Seen::Fact(Input::MediaLost | Input::HungUp { .. }) => self.media = false,
            Seen::Fact(Input::HangUpOrdered) => self.ordered = true,
            Seen::Order(Command::HangUp | Command::Forward { .. }) => {
                // Last words that take longer than that are none.
                let too_long = scene.speeches.iter().filter(|s| s.node == scene.node && s.last_words).any(|s| {
                    s.first_heard_at.is_some_and(|at| scene.now >= at.plus_ms(LAST_WORDS_MS))
                });
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
                let exact = scene.node == 0 && scene.faults.voice.is_none();
                let heard = scene.speeches.iter().filter(|s| s.node == scene.node).max_by_key(|s| s.played_as);
                match last.max_by_key(|s| s.reply) {
                    Some(last) if !last.is_heard_out() => {
                        return Err(format!(
                            "the agent hangs up, but of its last words only {} of {} ms were heard: {:?}",
                            last.heard_to_ms, last.made_ms, last.text
                        ));
                    }
                    None if exact => return Err("the agent hangs up without a word".into()),
                    _ => {}
                }
                if let Some(heard) = heard
                    && exact
                    && !is_goodbye(scene, heard)
                {
                    return Err(format!("the agent hangs up without a goodbye, after {:?}", heard.text));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn is_goodbye(scene: &Scene, last: &Speech) -> bool {
    let ends = |ask: usize| scene.asks[ask].tools.iter().any(|t| t.name == "hang_up");
    last.last_words || last.ask.is_some_and(ends)
}
