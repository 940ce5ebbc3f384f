//! A head start costs no more than it may: of the answers prepared in one turn, few are thrown away.

use super::{Checker, Seen};
use crate::world::Scene;
use offhook_core::ChatMessage;
use offhook_core::call::Command;
use offhook_core::limits;

#[derive(Debug, Default)]
pub(super) struct HeadStart {
    /// The turns the model was last told of, and how many answers to the last one were begun.
    turn: usize,
    begun: u32,
}

/// Answers that the caller went on after although the turn seemed to be over.
const REOPENED: u32 = 6;

impl Checker for HeadStart {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Order(Command::Ask { messages, .. }) = seen else { return Ok(()) };
        if !matches!(messages.last(), Some(ChatMessage::User { .. })) {
            return Ok(());
        }
        let failed = scene.asks.last().is_some_and(|a| a.failed || a.node != scene.node);
        let turn = messages.iter().filter(|m| matches!(m, ChatMessage::User { .. })).count();
        if turn != self.turn || failed {
            self.turn = turn;
            self.begun = 0;
        }
        self.begun += 1;
        if self.begun > 1 + u32::from(limits::THROWN_AWAY_PER_TURN) + REOPENED {
            return Err(format!("the model is asked {} times for one turn", self.begun));
        }
        Ok(())
    }
}
