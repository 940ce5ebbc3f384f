//! Every call ends once, for a reason that fits what happened.

use super::{Checker, Seen};
use crate::world::Scene;
use offhook_core::call::{Command, EndedReason, Input};

#[derive(Debug, Default)]
pub(super) struct Liveness {
    ended: Option<EndedReason>,
    /// The same on a node that died.
    before: Option<EndedReason>,
    ordered: bool,
    hang_up_ordered: bool,
    /// Media had never flowed when the end was ordered.
    never_connected: bool,
    forwarded: bool,
}

impl Checker for Liveness {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Fact(Input::HangUpOrdered) => self.ordered = true,
            Seen::Order(Command::HangUp) => {
                self.hang_up_ordered = true;
                self.never_connected |= !scene.connected;
            }
            Seen::Order(Command::Forward { .. }) => self.forwarded = true,
            Seen::TookOver => (self.ended, self.before) = (None, self.ended),
            Seen::Ended(reason) => {
                if let Some(before) = self.ended.replace(*reason) {
                    return Err(format!("the call ended twice: {before:?}, then {reason:?}"));
                }
                if !self.fits(scene, *reason) {
                    return Err(format!("the call is said to have ended by {reason:?}"));
                }
            }
            Seen::Over { ended, .. } if ended.is_none() || *ended != self.ended.or(self.before) => {
                return Err(format!("the call is over, ended by {ended:?}, but {:?} was seen", self.ended));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Liveness {
    fn fits(&self, scene: &Scene, reason: EndedReason) -> bool {
        let longest_ms = u64::from(scene.options.plan.max_duration_ms);
        match reason {
            EndedReason::CallerHungUp => scene.caller_left_at.is_some(),
            EndedReason::AgentHungUp | EndedReason::Silence | EndedReason::ProvidersFailed => self.hang_up_ordered,
            EndedReason::MaxDuration => self.hang_up_ordered && scene.now.as_ms() >= longest_ms,
            EndedReason::Forwarded => self.forwarded,
            EndedReason::MediaLost => scene.connected && !scene.media && self.hang_up_ordered,
            EndedReason::NeverConnected => self.never_connected || scene.node > 0,
            EndedReason::Ordered => self.ordered,
            EndedReason::CarrierHungUp => scene.over_at.is_some(),
            // Nobody is rung and no message is taken in these calls.
            EndedReason::Transferred
            | EndedReason::TakenOver
            | EndedReason::VoicemailLeft
            | EndedReason::VoicemailEmpty
            | EndedReason::MessageTold
            | EndedReason::NobodyReached
            | EndedReason::MembersTalked => false,
            // The machine never says so of itself.
            EndedReason::OffhookFailed => false,
        }
    }
}
