//! A filler is heard while something is awaited, and not after it: "one moment, please" behind the answer is nonsense.

use super::{Checker, Seen};
use crate::world::Scene;
use offhook_core::call::CallTime;

/// An answer may arrive while the filler is on its way to the caller.
const ON_ITS_WAY_MS: u32 = 1_500;

#[derive(Debug, Default)]
pub(super) struct Filler {
    awaited_at: CallTime,
}

impl Checker for Filler {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Heard { speech, from_ms: 0, .. } if scene.speeches[*speech].filler => {
                let filler = &scene.speeches[*speech];
                let answered = scene.speeches.iter().filter(|s| s.ask.is_some() && s.first_heard_at.is_some());
                let late = answered.filter(|s| s.reply < filler.reply && s.node == filler.node).any(|s| {
                    s.ask == scene.asks.len().checked_sub(1) && s.heard_to_ms > 0
                });
                if late && self.awaited_at.plus_ms(ON_ITS_WAY_MS) < scene.now {
                    return Err(format!("reply {} fills a wait that is over", filler.reply.0));
                }
            }
            Seen::Fact(_) => {
                let asking = scene.asks.last().is_some_and(|a| !a.over && a.node == scene.node);
                let running = scene.tools.iter().any(|t| t.result.is_none() && t.node == scene.node);
                if asking || running {
                    self.awaited_at = scene.now;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
