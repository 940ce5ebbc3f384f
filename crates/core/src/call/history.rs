//! What has been said on the call, line by line, and what of it a model is shown. Agent lines hold only what was heard;
//! it does not decide what is heard, the ledger of replies does.

use super::speech::{Purpose, Reply};
use super::{CallTime, ReplyId, ToolId};
use crate::{ChatMessage, ToolRequest, limits};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// Who speaks a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaker {
    /// The caller.
    Caller,
    /// The agent.
    Agent,
    /// A person who was rung from the call.
    Staff,
}

/// One line of the transcript. A line with a number that was noted before replaces it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Line {
    /// Its place, from 1.
    pub number: u32,
    /// The turn it belongs to: 0 for the greeting, then counted by the caller's turns.
    pub turn: u32,
    /// Who speaks.
    pub speaker: Speaker,
    /// Why the agent spoke.
    pub purpose: Option<Purpose>,
    /// When the turn was over (caller) or the line began to be prepared (agent).
    pub at: CallTime,
    /// The caller's words, or the agent's as far as they were heard.
    pub text: String,
    /// The agent was interrupted or broke off: there was more to say.
    pub cut: bool,
}

/// What the model is told of a tool that has not answered yet.
const STILL_RUNNING: &str = "(still running; its result will follow)";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Item {
    line: Line,
    reply: Option<ReplyId>,
    tools: Vec<ToolUse>,
    /// The line will not change any more.
    settled: bool,
    /// What the model is shown in place of the line.
    #[serde(default)]
    shown: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ToolUse {
    tool: ToolId,
    request: ToolRequest,
    result: Option<String>,
    /// A model has been shown the result.
    told: bool,
}

/// What a model is shown around the history.
pub(super) struct Told<'a> {
    pub(super) instructions: &'a str,
    /// What stands before everything that was said.
    pub(super) opening: Option<&'a str>,
    /// The replies of the answer that it is still writing.
    pub(super) chain: &'a [ReplyId],
    /// What the caller says, as long as it is not in the history.
    pub(super) caller_says: Option<&'a str>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct History {
    items: Vec<Item>,
    last_line: u32,
}

impl History {
    /// The caller's turn is over. A turn whose line was taken back keeps that line's number; keys that are `secret` are
    /// for the model only.
    pub(super) fn caller_said(
        &mut self,
        turn: u32,
        at: CallTime,
        text: &str,
        number: Option<u32>,
        secret: bool,
    ) -> Line {
        let (text, shown) =
            if secret { (without_keys(text), Some(text.to_string())) } else { (text.to_string(), None) };
        let number = number.unwrap_or_else(|| self.next_line());
        let line = Line { number, turn, speaker: Speaker::Caller, purpose: None, at, text, cut: false };
        self.items.push(Item { line: line.clone(), reply: None, tools: Vec::new(), settled: true, shown });
        line
    }

    /// A person said something to the caller.
    pub(super) fn staff_said(&mut self, turn: u32, at: CallTime, text: &str) -> Line {
        let number = self.next_line();
        let text = text.to_string();
        let shown = Some(format!("(A colleague said to the caller: {text})"));
        let line = Line { number, turn, speaker: Speaker::Staff, purpose: None, at, text, cut: false };
        self.items.push(Item { line: line.clone(), reply: None, tools: Vec::new(), settled: true, shown });
        line
    }

    /// The model is told something that nobody said: it is no line.
    pub(super) fn aside(&mut self, text: &str) {
        let line = Line {
            number: 0,
            turn: 0,
            speaker: Speaker::Agent,
            purpose: None,
            at: CallTime::ZERO,
            text: String::new(),
            cut: false,
        };
        let shown = Some(text.to_string());
        self.items.push(Item { line, reply: None, tools: Vec::new(), settled: true, shown });
    }

    fn next_line(&mut self) -> u32 {
        self.last_line += 1;
        self.last_line
    }

    /// The caller has said something.
    pub(super) fn has_caller(&self) -> bool {
        self.items.iter().any(|i| i.line.speaker == Speaker::Caller)
    }

    /// The caller's turn was not over after all: takes its line back and gives its number.
    pub(super) fn take_back_caller(&mut self) -> Option<u32> {
        let at = self.items.iter().rposition(|i| i.line.speaker == Speaker::Caller)?;
        Some(self.items.remove(at).line.number)
    }

    /// The agent begins to say something; what of it is heard is told by [`History::settle`].
    pub(super) fn agent_begins(&mut self, turn: u32, at: CallTime, reply: Option<ReplyId>, purpose: Purpose) {
        if reply.is_some() && self.items.iter().any(|i| i.reply == reply) {
            return;
        }
        self.last_line += 1;
        let line = Line {
            number: self.last_line,
            turn,
            speaker: Speaker::Agent,
            purpose: Some(purpose),
            at,
            text: String::new(),
            cut: false,
        };
        self.items.push(Item { line, reply, tools: Vec::new(), settled: false, shown: None });
    }

    /// What a reply had still to say goes on under another id, in its place and with its tools.
    pub(super) fn goes_on(&mut self, before: ReplyId, after: ReplyId, partly_heard: bool) {
        let Some(at) = self.items.iter().position(|i| i.reply == Some(before)) else { return };
        if !partly_heard {
            self.items[at].reply = Some(after);
            return;
        }
        self.last_line += 1;
        let tools = std::mem::take(&mut self.items[at].tools);
        let line =
            Line { number: self.last_line, text: String::new(), cut: false, ..self.items[at].line.clone() };
        self.items.insert(at + 1, Item { line, reply: Some(after), tools, settled: false, shown: None });
    }

    /// So much of a reply was heard, and no more will be. Returns the line, unless nothing was heard of it.
    pub(super) fn settle(&mut self, reply: ReplyId, heard: &str, cut: bool) -> Option<Line> {
        let at = self.items.iter().rposition(|i| i.reply == Some(reply))?;
        let item = &mut self.items[at];
        item.settled = true;
        item.line.text = heard.to_string();
        item.line.cut = cut;
        if !heard.is_empty() {
            return Some(item.line.clone());
        }
        if item.tools.is_empty() {
            self.items.remove(at);
        }
        None
    }

    /// The agent uses tools, after what it says in `reply`.
    pub(super) fn tools_begin(
        &mut self,
        turn: u32,
        at: CallTime,
        reply: Option<ReplyId>,
        requests: impl Iterator<Item = (ToolId, ToolRequest)>,
    ) {
        let known = reply.and_then(|r| self.items.iter().rposition(|i| i.reply == Some(r)));
        let place = known.unwrap_or_else(|| {
            self.agent_begins(turn, at, reply, Purpose::Answer);
            self.items.len() - 1
        });
        let item = &mut self.items[place];
        item.settled |= reply.is_none();
        item.tools.extend(requests.map(|(tool, request)| ToolUse {
            tool,
            request,
            result: None,
            told: false,
        }));
    }

    /// A tool answered. The first answer counts; says whether this is it.
    pub(super) fn tool_result(&mut self, tool: ToolId, result: &str) -> bool {
        let mut uses = self.items.iter_mut().rev().flat_map(|i| i.tools.iter_mut());
        let Some(used) = uses.find(|u| u.tool == tool && u.result.is_none()) else { return false };
        used.result = Some(cut_at(result, limits::TOOL_RESULT_BYTES).to_string());
        true
    }

    /// Whether the last thing done was using tools that have all answered, and the model has not been told.
    pub(super) fn ends_with_tools(&self) -> bool {
        let last = self.items.iter().rev().find(|i| i.line.number > 0);
        last.is_some_and(|i| !i.tools.is_empty() && i.tools.iter().all(|t| t.result.is_some()))
    }

    /// Whether a tool has answered after what was said since, and no model has been shown its answer.
    pub(super) fn has_news(&self) -> bool {
        // What has grown too old to be shown is no news.
        let shown = self.items.iter().rev().take(limits::HISTORY_ITEMS);
        shown.flat_map(|i| &i.tools).any(|t| t.result.is_some() && !t.told)
    }

    /// History as a model is shown it. Of replies still under way it sees what was heard, but all that was given to
    /// the voice where they belong to the answer it is still writing.
    pub(super) fn messages(
        &mut self,
        told: Told<'_>,
        replies: &VecDeque<Reply>,
        now: CallTime,
    ) -> Arc<[ChatMessage]> {
        let skipped = self.items.len().saturating_sub(limits::HISTORY_ITEMS);
        let mut messages = Vec::with_capacity(self.items.len() - skipped + 3);
        messages.push(ChatMessage::System { text: told.instructions.to_string() });
        messages.extend(told.opening.map(|text| ChatMessage::User { text: text.to_string() }));
        for item in &self.items[skipped..] {
            if matches!(item.line.purpose, Some(Purpose::Filler | Purpose::Connecting))
                && item.tools.is_empty()
            {
                continue;
            }
            if let Some(text) = &item.shown {
                messages.push(ChatMessage::User { text: text.clone() });
                continue;
            }
            if item.line.speaker == Speaker::Caller {
                messages.push(ChatMessage::User { text: item.line.text.clone() });
                continue;
            }
            let text = self.agent_text(item, replies, told.chain, now);
            if text.is_empty() && item.tools.is_empty() {
                continue;
            }
            let tools = item.tools.iter().map(|t| t.request.clone()).collect();
            messages.push(ChatMessage::Agent { text: text.to_string(), tools });
            messages.extend(item.tools.iter().map(|used| ChatMessage::Tool {
                id: used.request.id.clone(),
                text: used.result.as_deref().unwrap_or(STILL_RUNNING).to_string(),
            }));
        }
        for used in self.items[skipped..].iter_mut().flat_map(|i| &mut i.tools) {
            used.told = used.result.is_some();
        }
        if let Some(text) = told.caller_says {
            messages.push(ChatMessage::User { text: text.to_string() });
        }
        messages.into()
    }

    /// The transcript: lines in which something was said or heard.
    pub(super) fn lines(&self, replies: &VecDeque<Reply>, now: CallTime) -> Vec<Line> {
        let lines = self.items.iter().map(|item| {
            let mut line = item.line.clone();
            if line.speaker == Speaker::Agent {
                line.text = self.agent_text(item, replies, &[], now).to_string();
                line.cut |= !item.settled;
            }
            line
        });
        lines.filter(|l| !l.text.is_empty()).collect()
    }

    fn agent_text<'a>(
        &self,
        item: &'a Item,
        replies: &'a VecDeque<Reply>,
        chain: &[ReplyId],
        now: CallTime,
    ) -> &'a str {
        let under_way = item.reply.filter(|_| !item.settled);
        match under_way.and_then(|id| replies.iter().find(|r| r.id == id)) {
            Some(reply) if chain.contains(&reply.id) => reply.text[..reply.given].trim_end(),
            Some(reply) => reply.heard_text(reply.heard_ms(now)),
            None => &item.line.text,
        }
    }
}

/// What was said, with a word in place of the keys that were pressed.
fn without_keys(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, keys)) = rest.split_once(PRESSED) {
        out.push_str(before);
        out.push_str("(pressed keys)");
        rest = keys.split_once(')').map_or("", |(_, after)| after);
    }
    out + rest
}

/// How keys stand among words.
pub(super) const PRESSED: &str = "(pressed ";

/// The longest beginning of a text that fits into so many bytes.
pub(super) fn cut_at(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
