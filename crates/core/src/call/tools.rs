//! Tools in flight: each is run once, whatever interrupts it, and each gets one result. What a tool does is not known here.

use super::{AbilityKind, Call, CallTime, Command, EndedReason, Out, Purpose, Then, ToolId};
use crate::{ToolRequest, limits};
use serde::{Deserialize, Serialize};

/// What the model is told when a node died while a tool ran: it must not guess, and it must not run it again.
const OUTCOME_UNKNOWN: &str = "error: the outcome is unknown, because our connection broke while this ran. Do not run it \
    again without asking the caller.";
const ONE_TRANSFER: &str = "error: the caller is being connected to somebody already";
const TIMED_OUT: &str = "error: this took too long. It may still take effect.";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct InFlight {
    tool: ToolId,
    overdue_at: CallTime,
    pub(super) filler: Option<String>,
}

impl Call {
    /// Runs what the model asked for in one answer, after what it said in it.
    pub(super) fn run_tools(&mut self, requests: Vec<ToolRequest>, out: &mut Out) {
        let plan = self.plan.clone();
        let reply = self.answer.as_ref().and_then(|a| a.wrote());
        let numbered: Vec<(ToolId, ToolRequest)> =
            requests.into_iter().map(|request| (self.next_tool.next(), request)).collect();
        self.history.tools_begin(self.turn, self.now, reply, numbered.iter().cloned());
        let mut hangs_up = false;
        let mut transfer = None;
        for (tool, request) in numbered {
            let ability = plan.abilities.iter().find(|a| a.spec.name == request.name);
            let result = match ability.map(|a| a.kind) {
                None => Some(format!("error: there is no tool named {}", request.name)),
                Some(_) if request.arguments.len() > limits::TOOL_ARGUMENT_BYTES => {
                    Some("error: the arguments are too long".into())
                }
                Some(_) if !is_json_object(&request.arguments) => {
                    Some("error: the arguments are not a JSON object".into())
                }
                Some(AbilityKind::HangUp) => {
                    hangs_up = true;
                    Some("ok".into())
                }
                Some(AbilityKind::SendDtmf) => Some(self.send_dtmf(&request.arguments, out)),
                Some(AbilityKind::Recording) => Some(self.recording_wanted(&request.arguments, out)),
                Some(AbilityKind::Transfer) if transfer.is_some() => Some(ONE_TRANSFER.into()),
                Some(AbilityKind::Transfer) => match self.transfer_wanted(&request.arguments) {
                    Ok(wanted) => {
                        transfer = Some((tool, wanted));
                        continue;
                    }
                    Err(why) => Some(why),
                },
                Some(AbilityKind::External) => None,
            };
            match (result, ability) {
                (Some(result), _) => {
                    self.history.tool_result(tool, &result);
                }
                (None, None) => {}
                (None, Some(ability)) => {
                    let overdue_at = self.now.plus_ms(ability.timeout_ms);
                    self.tools.push(InFlight { tool, overdue_at, filler: ability.filler.clone() });
                    out.push(Command::RunTool { tool, name: request.name, arguments: request.arguments });
                }
            }
        }
        if let Some((tool, wanted)) = transfer {
            self.begin_transfer(tool, wanted, out);
        } else if hangs_up {
            self.leave(out);
        } else {
            self.tools_settled(out);
        }
    }

    /// The agent decided to end the call: after its own words, or after a goodbye if it has none.
    fn leave(&mut self, out: &mut Out) {
        if self.interruption.take().is_some() {
            // From here on only real words stop the agent.
            self.go_on_playing(out);
        }
        let spoken = self.answer.as_ref().and_then(|a| a.wrote());
        let last_words = self.replies.iter_mut().rev().find(|r| Some(r.id) == spoken);
        match last_words {
            Some(reply) => {
                reply.then = Then::HangUp;
                reply.purpose = Purpose::Goodbye;
                self.ending = Some(EndedReason::AgentHungUp);
                self.answer = None;
                // It may have waited for a sound of the caller's.
                self.play_ready(out);
            }
            // Its words may have been heard to the end already, a moment ago.
            None if spoken.is_some() => self.hang_up(EndedReason::AgentHungUp, out),
            None => self.say_goodbye(EndedReason::AgentHungUp, out),
        }
    }

    fn send_dtmf(&mut self, arguments: &str, out: &mut Out) -> String {
        #[derive(Deserialize)]
        struct Arguments {
            digits: String,
        }
        let Ok(Arguments { digits }) = serde_json::from_str(arguments) else {
            return "error: `digits` is missing".into();
        };
        let valid = !digits.is_empty()
            && digits.len() <= limits::DTMF_DIGITS
            && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'*' | b'#' | b'w'));
        if !valid {
            return "error: digits are 0-9, *, # and w for a pause, 64 at most".into();
        }
        out.push(Command::SendDtmf { digits });
        "ok".into()
    }

    pub(super) fn tool_done(&mut self, tool: ToolId, result: String, out: &mut Out) {
        if self.tools.iter().any(|t| t.tool == tool) {
            self.active_at = self.now;
        }
        self.keep_result(tool, result);
        self.tools_settled(out);
    }

    /// Keeps a result if its tool still waits for one.
    pub(super) fn keep_result(&mut self, tool: ToolId, result: String) {
        let Some(index) = self.tools.iter().position(|t| t.tool == tool) else {
            self.dropped += 1;
            return;
        };
        self.tools.remove(index);
        self.history.tool_result(tool, &result);
    }

    pub(super) fn tool_deadline(&self) -> Option<CallTime> {
        self.tools.iter().map(|t| t.overdue_at).min()
    }

    pub(super) fn expire_tools(&mut self) {
        while let Some(tool) = self.tools.iter().find(|t| t.overdue_at <= self.now).map(|t| t.tool) {
            self.keep_result(tool, TIMED_OUT.into());
        }
    }

    pub(super) fn tools_overdue(&mut self, out: &mut Out) {
        self.expire_tools();
        self.tools_settled(out);
    }

    /// Nobody will report on what a dead node had begun.
    pub(super) fn forget_tools_of_dead_node(&mut self, out: &mut Out) {
        for tool in std::mem::take(&mut self.tools) {
            self.history.tool_result(tool.tool, OUTCOME_UNKNOWN);
        }
        self.tools_settled(out);
    }
}

fn is_json_object(text: &str) -> bool {
    text.trim().is_empty() || serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
}
