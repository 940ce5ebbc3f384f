//! What a call has used and how fast it was, beside the machine and folded from the same facts and orders: so a node that goes on
//! with a call knows also what was done before. It does not know where it is kept.

use offhook_core::Pii;
use offhook_core::call::{AskId, CallTime, Command, Input, ToolId, TurnTiming};
use offhook_providers::TokenUsage;
use serde::{Deserialize, Serialize};

/// How results that are errors begin.
const ERROR: &str = "error:";
/// The result of a tool whose process died.
const UNKNOWN: &str = "error: the process died while this ran: whether it was done is not known";
/// The result of a tool that had not answered when the call was over.
const UNANSWERED: &str = "error: it did not answer before the call was over";

/// A use of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolUse {
    /// The tool's name.
    pub name: String,
    /// What the model asked for.
    pub arguments: Pii<String>,
    /// What came back, also when it is an error.
    pub result: Pii<String>,
    /// In which turn.
    pub turn: u32,
    /// When, µs into the call.
    pub from_us: u64,
    /// Until when.
    pub to_us: u64,
}

impl ToolUse {
    /// Whether what came back is an error.
    pub fn failed(&self) -> bool {
        self.result.expose().starts_with(ERROR)
    }
}

/// Tokens of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Which model of the plan.
    pub model: u8,
    /// Tokens read.
    pub read: u64,
    /// Tokens written.
    pub written: u64,
}

/// What a call has used. Told of every fact and then of the orders that followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Uses of tools that have answered.
    pub uses: Vec<ToolUse>,
    /// The moments of each turn.
    pub timings: Vec<TurnTiming>,
    /// Tokens by model. They are no facts of the call: those since the last snapshot are lost with a process.
    pub tokens: Vec<Tokens>,
    /// Characters by voice, in the plan's order.
    pub characters: Vec<(u8, u64)>,
    /// Model requests begun, and thrown away before they were done.
    pub asked: u32,
    /// Of those.
    pub cancelled: u32,
    under_way: Vec<(ToolId, ToolUse)>,
    asking: Vec<AskId>,
}

impl Ledger {
    /// A fact comes in.
    pub fn fact(&mut self, at: CallTime, fact: &Input) {
        match fact {
            Input::ToolDone { tool, result } => {
                if let Some(place) = self.under_way.iter().position(|(id, _)| id == tool) {
                    let (_, used) = self.under_way.remove(place);
                    self.uses.push(ToolUse { result: Pii::new(result.clone()), to_us: at.as_us(), ..used });
                }
            }
            Input::AskDone { ask } | Input::AskFailed { ask, .. } => self.asking.retain(|open| open != ask),
            _ => {}
        }
    }

    /// And orders go out.
    pub fn orders(&mut self, at: CallTime, orders: &[Command]) {
        for order in orders {
            match order {
                Command::RunTool { tool, name, arguments } => {
                    let used = ToolUse {
                        name: name.clone(),
                        arguments: Pii::new(arguments.clone()),
                        result: Pii::new(UNANSWERED.into()),
                        turn: self.timings.last().map_or(1, |timing| timing.turn + 1),
                        from_us: at.as_us(),
                        to_us: at.as_us(),
                    };
                    self.under_way.push((*tool, used));
                }
                Command::Timed(timing) => self.timings.push(*timing),
                Command::Ask { ask, .. } => {
                    self.asked += 1;
                    self.asking.push(*ask);
                }
                Command::CancelAsk { ask } => {
                    let open = self.asking.len();
                    self.asking.retain(|other| other != ask);
                    self.cancelled += (open - self.asking.len()) as u32;
                }
                Command::Speak { voice, text, .. } => {
                    let characters = text.chars().count() as u64;
                    match self.characters.iter_mut().find(|(of, _)| of == voice) {
                        Some((_, sum)) => *sum += characters,
                        None => self.characters.push((*voice, characters)),
                    }
                }
                _ => {}
            }
        }
    }

    /// A model's request has cost so much.
    pub fn cost(&mut self, model: u8, usage: TokenUsage) {
        let at = self.tokens.iter().position(|tokens| tokens.model == model).unwrap_or_else(|| {
            self.tokens.push(Tokens { model, ..Tokens::default() });
            self.tokens.len() - 1
        });
        self.tokens[at].read += u64::from(usage.prompt);
        self.tokens[at].written += u64::from(usage.completion);
    }

    /// Another process goes on: what was under way is not any more.
    pub fn resumed(&mut self, at: CallTime) {
        self.asking.clear();
        for (_, used) in self.under_way.drain(..) {
            self.uses.push(ToolUse { result: Pii::new(UNKNOWN.into()), to_us: at.as_us(), ..used });
        }
    }

    /// The call is over: what has not answered never will.
    pub fn close(&mut self, at: CallTime) {
        let unanswered = self.under_way.drain(..).map(|(_, used)| ToolUse { to_us: at.as_us(), ..used });
        self.uses.extend(unanswered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(tool: u32) -> Command {
        let arguments = r#"{"message":"call me back"}"#.into();
        Command::RunTool { tool: ToolId(tool), name: "take_message".into(), arguments }
    }

    fn done(tool: u32, result: &str) -> Input {
        Input::ToolDone { tool: ToolId(tool), result: result.into() }
    }

    #[test]
    fn every_use_of_a_tool_is_kept_whatever_becomes_of_it() {
        let at = CallTime::from_ms;
        let mut ledger = Ledger::default();
        ledger.orders(at(10), &[run(1), run(2)]);
        ledger.fact(at(20), &done(1, "ok"));
        ledger.resumed(at(30));
        ledger.fact(at(40), &done(2, "late: nobody waits for it"));
        ledger.orders(at(50), &[run(3)]);
        ledger.close(at(60));
        let kept: Vec<_> = ledger.uses.iter().map(|used| (used.to_us / 1_000, used.failed())).collect();
        assert_eq!(kept, [(20, false), (30, true), (60, true)]);
        assert!(ledger.uses.iter().all(|used| used.arguments.expose().contains("call me back")));
    }
}
