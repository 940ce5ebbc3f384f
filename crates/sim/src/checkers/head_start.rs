//! A head start costs no more than it may: of the answers begun before a turn is over few are thrown away, and a caller who goes
//! on after all does not make the model be asked without end.

use super::{Checker, Seen, said};
use crate::world::Scene;
use offhook_core::call::{Command, Speaker};
use offhook_core::limits;

/// Times that a turn which was over may be gone on with before its answer is heard.
const REOPENED: u32 = 12;

#[derive(Debug, Default)]
pub(super) struct HeadStart {
    /// How many turns the model was last told of.
    turn: usize,
    /// Answers begun to the last of them.
    begun: u32,
    /// Those of them that the turn did not end with.
    thrown_away: u32,
    /// The last turn that was over.
    noted: String,
    /// The words of an answer begun ahead.
    ahead: Option<String>,
}

impl Checker for HeadStart {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            // What the log lost was not thrown away.
            Seen::TookOver => *self = HeadStart::default(),
            Seen::Order(Command::Note(line))
                if line.speaker == Speaker::Caller =>
            {
                self.ahead.take_if(|ahead| *ahead == line.text);
                self.noted.clone_from(&line.text);
            }
            Seen::Order(Command::Ask { messages, .. }) => {
                let Some(text) = messages.last().and_then(said) else { return Ok(()) };
                let failed = scene.asks.last().is_some_and(|a| a.failed || a.node != scene.node);
                let turn = messages.iter().filter(|m| said(m).is_some()).count();
                if turn != self.turn {
                    *self = HeadStart { turn, noted: std::mem::take(&mut self.noted), ..HeadStart::default() };
                }
                let ahead = (text != self.noted).then(|| text.to_string());
                let before = std::mem::replace(&mut self.ahead, ahead);
                // One that failed was not thrown away, and what is asked in its place is no new beginning.
                self.begun += u32::from(!failed);
                self.thrown_away += u32::from(before.is_some() && !failed);
            }
            _ => return Ok(()),
        }
        let most = u32::from(limits::THROWN_AWAY_PER_TURN);
        // A recogniser that takes words back makes a turn begin again.
        if self.thrown_away > most && scene.faults.hearing.is_none() {
            return Err(format!("{} answers begun ahead of one turn were thrown away", self.thrown_away));
        }
        if self.begun > most + REOPENED {
            return Err(format!("the model is asked {} times for one turn", self.begun));
        }
        Ok(())
    }
}
