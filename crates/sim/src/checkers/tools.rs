//! A tool is run once for a request, only when the turn it belongs to is over, and the model is told its one result.

use super::{Checker, Seen, said};
use crate::world::{Asked, Scene, TOOL_TIMEOUT_MS, words};
use offhook_core::call::{AskId, Command, Input, Speaker};
use offhook_core::{ChatMessage, ToolRequest, limits};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Tools {
    /// The caller's last turn that is over.
    turn: String,
    /// How often a request was run, by its arguments.
    runs: BTreeMap<String, u32>,
    /// What requests under way want of outside tools, by arguments.
    wanted: Vec<(AskId, Option<String>)>,
    /// What has to be run before anything else happens.
    due: Vec<String>,
    /// What came in time, by arguments.
    results: BTreeMap<String, String>,
    /// What came at the very moment at which it was given up.
    perhaps: BTreeMap<String, String>,
    ended: bool,
}

impl Checker for Tools {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Order(Command::Note(line)) if line.speaker == Speaker::Caller => self.turn.clone_from(&line.text),
            Seen::Order(Command::RunTool { name, arguments, .. }) => self.run(scene, name, arguments)?,
            Seen::Fact(Input::Tool { ask, request }) => {
                let live = scene.asked(*ask).map(|at| &scene.asks[at]).filter(|a| !a.cancelled);
                let so_far = self.wanted.iter().filter(|(a, _)| a == ask).count();
                if live.is_some() && so_far < limits::TOOLS_PER_ANSWER {
                    self.wanted.push((*ask, is_runnable(request).then(|| request.arguments.clone())));
                }
            }
            Seen::Fact(Input::AskDone { ask }) => {
                let live = scene.asked(*ask).map(|at| &scene.asks[at]).filter(|a| !a.cancelled);
                let said = live.and_then(|a| a.messages.iter().rev().find_map(said));
                // Words without a name may be those of an earlier turn.
                let meant = said.filter(|text| words::is_meant(text));
                let is_over = meant.is_some_and(|text| *text == self.turn) && !self.ended;
                for (_, arguments) in self.wanted.extract_if(.., |(a, _)| a == ask).filter(|_| is_over) {
                    self.due.extend(arguments);
                }
            }
            Seen::TookOver => self.wanted.clear(),
            Seen::Ended(_) | Seen::Order(Command::HangUp | Command::Forward { .. }) => self.ended = true,
            Seen::Handled => {
                if let Some(forgotten) = self.due.drain(..).find(|arguments| !self.runs.contains_key(arguments)) {
                    return Err(format!("look_up {forgotten} was wanted, but is not run"));
                }
            }
            Seen::Fact(Input::ToolDone { tool, result }) => {
                let used = scene.tools.iter().rfind(|t| t.tool == *tool && t.node == scene.node);
                let Some(used) = used else { return Ok(()) };
                let took_ms = scene.now.since_ms(used.at);
                let results = match took_ms.checked_sub(TOOL_TIMEOUT_MS) {
                    None => &mut self.results,
                    Some(late_ms) if late_ms <= scene.options.node.tick_late_ms || stood_still(scene) => {
                        &mut self.perhaps
                    }
                    Some(_) => return Ok(()),
                };
                results.entry(used.arguments.clone()).or_insert_with(|| result.clone());
            }
            Seen::Forgotten(Input::ToolDone { result, .. }) => self.results.retain(|_, kept| kept != result),
            Seen::Order(Command::Ask { messages, .. }) => self.told(messages)?,
            _ => {}
        }
        Ok(())
    }
}

/// Whether a request can be carried out by somebody outside.
fn is_runnable(request: &ToolRequest) -> bool {
    request.name == "look_up" && request.arguments.starts_with('{') && request.arguments.ends_with('}')
}

/// No timer fires while media is lost or the node stalls.
fn stood_still(scene: &Scene) -> bool {
    let node = &scene.options.node;
    scene.options.line.media_lost_at_ms.is_some() || node.stalls_at_ms.is_some() || !node.dies_at_ms.is_empty()
}

impl Tools {
    fn run(&mut self, scene: &Scene, name: &str, arguments: &str) -> Result<(), String> {
        let wanted = |a: &&Asked| a.tools.iter().any(|t| t.arguments == arguments && t.name == name);
        let Some(asked) = scene.asks.iter().rev().find(wanted) else {
            return Err(format!("{name} {arguments} is run, but no model wanted it"));
        };
        if asked.cancelled {
            return Err(format!("{name} {arguments} is run for a request that was cancelled"));
        }
        let said = asked.messages.iter().rev().find_map(said);
        if said.is_some_and(|text| *text != self.turn) {
            return Err(format!("{name} {arguments} is run before the turn is over: {said:?}"));
        }
        let runs = self.runs.entry(arguments.to_string()).or_default();
        *runs += 1;
        if *runs > 1 {
            return Err(format!("{name} {arguments} is run {runs} times"));
        }
        let of_answer = asked.tools.iter().filter(|t| self.runs.contains_key(&t.arguments)).count();
        if of_answer > limits::TOOLS_PER_ANSWER {
            return Err(format!("{of_answer} tools are run for one answer"));
        }
        Ok(())
    }

    fn told(&self, messages: &[ChatMessage]) -> Result<(), String> {
        for (place, message) in messages.iter().enumerate() {
            let ChatMessage::Agent { tools, .. } = message else { continue };
            for (offset, request) in tools.iter().enumerate() {
                let answer = messages.get(place + 1 + offset);
                let Some(ChatMessage::Tool { id, text }) = answer else {
                    return Err(format!("request {} has no result", request.id));
                };
                if *id != request.id {
                    return Err(format!("request {} is answered by the result of {id}", request.id));
                }
                let came = self.results.get(&request.arguments);
                if let Some(result) = came
                    && result != text
                {
                    return Err(format!("request {} answered {result:?}, the model is told {text:?}", request.id));
                }
                let explained = text == "ok" || text.starts_with("error") || text.starts_with("(still running");
                let perhaps = self.perhaps.get(&request.arguments) == Some(text);
                if came.is_none() && !explained && !perhaps {
                    return Err(format!("request {} has not answered, the model is told {text:?}", request.id));
                }
            }
        }
        let results = messages.iter().filter(|m| matches!(m, ChatMessage::Tool { .. })).count();
        let requests: usize = (messages.iter())
            .map(|m| if let ChatMessage::Agent { tools, .. } = m { tools.len() } else { 0 })
            .sum();
        if results == requests { Ok(()) } else { Err(format!("{requests} requests have {results} results")) }
    }
}
