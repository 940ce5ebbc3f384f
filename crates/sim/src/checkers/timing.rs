//! The waterfall of a turn runs downhill: speech ends, the turn ends, the model answers, the voice speaks, the caller hears; and
//! every turn is timed once.

use super::{Checker, Seen};
use crate::world::Scene;
use offhook_core::call::{CallTime, Command};

#[derive(Debug, Default)]
pub(super) struct Timing {
    turn: u32,
}

impl Checker for Timing {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::TookOver => self.turn = 0,
            Seen::Order(Command::Timed(t)) => {
                let downhill = |moments: &[CallTime]| moments.is_sorted();
                let answered = downhill(&[t.asked, t.first_token, t.first_audio.max(t.first_token), t.playout]);
                if !answered || !downhill(&[t.speech_end, t.turn_end, t.playout]) || t.playout != scene.now {
                    return Err(format!("the times of turn {} make no sense: {t:?}", t.turn));
                }
                if t.turn <= self.turn {
                    return Err(format!("turn {} is timed after turn {}", t.turn, self.turn));
                }
                self.turn = t.turn;
            }
            _ => {}
        }
        Ok(())
    }
}
