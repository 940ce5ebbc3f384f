//! When the call is over, or its end was ordered, nothing is begun any more.

use super::{Checker, Seen};
use crate::world::Scene;
use offhook_core::call::{Command, Input, log};

#[derive(Debug, Default)]
pub(super) struct AfterEnd {
    ordered: bool,
    over: bool,
}

impl Checker for AfterEnd {
    fn see(&mut self, _: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Fact(Input::HungUp { .. }) | Seen::Ended(_) => self.over = true,
            Seen::TookOver => (self.ordered, self.over) = (false, false),
            Seen::Order(Command::HangUp | Command::Forward { .. }) => {
                if std::mem::replace(&mut self.ordered, true) {
                    return Err("the end of the call is ordered twice".into());
                }
                if self.over {
                    return Err("the end of the call is ordered after it".into());
                }
            }
            Seen::Order(
                Command::Note(_) | Command::Timed(_) | Command::FinishReply { .. } | Command::CancelAsk { .. }
                | Command::CancelReply { .. },
            ) => {}
            Seen::Order(work) if self.over || self.ordered => {
                let work = log::summary(std::slice::from_ref(work));
                return Err(format!("after the end, the machine orders: {work}"));
            }
            _ => {}
        }
        Ok(())
    }
}
