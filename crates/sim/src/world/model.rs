//! The language models: they read the last thing said, answer in tokens, and want tools. They do not know whether anybody
//! hears the answer.

use super::options::Condition;
use super::scene::{Asked, Ends};
use super::{Event, Fact, World, words};
use offhook_core::call::{AskId, Input};
use offhook_core::{ChatMessage, ToolRequest};
use std::fmt::Write as _;
use std::sync::Arc;

/// How much longer than usual a slow model takes to begin.
const SLOW_MS: u32 = 2_500;
/// How often a model has nothing more to say when it knows what its tools did, and ends the call.
const HANGS_UP_AFTER_TOOLS: u32 = 40;
/// Bytes of an endless answer at most.
const ENDLESS_BYTES: usize = 20_000;

impl World<'_> {
    pub(super) fn ask(&mut self, ask: AskId, provider: u8, messages: &Arc<[ChatMessage]>) {
        let mut asked = Asked {
            node: self.scene.node,
            ask,
            provider,
            messages: messages.clone(),
            at: self.scene.now,
            text: String::new(),
            tools: Vec::new(),
            over: false,
            cancelled: false,
            failed: false,
            heard: false,
            sent: 0,
            ends: Ends::Well,
            endless: false,
        };
        self.think(&mut asked);
        let o = &self.scene.options.model;
        let (slow, fails_early, fails_late) = (o.slow, o.fails_early, o.fails_late);
        let (stalls_early, stalls_late, empty, endless) = (o.stalls_early, o.stalls_late, o.empty, o.endless);
        let mut wait_ms = o.first_ms * self.dice.between(70, 150) / 100;
        let middle = asked.text.len() / 2;
        if self.fault(slow) {
            self.scene.faults.model = Some(self.scene.now);
            wait_ms += SLOW_MS;
        }
        let condition = self.scene.options.providers.llm[usize::from(provider)];
        if condition != Condition::Works {
            let begins = condition == Condition::BreaksOff && !asked.text.is_empty();
            asked.ends = Ends::FailsAt(usize::from(begins));
        } else if self.fault(fails_early) {
            asked.ends = Ends::FailsAt(0);
        } else if self.fault(stalls_early) {
            asked.ends = Ends::StallsAt(0);
        } else if self.fault(fails_late) {
            asked.ends = Ends::FailsAt(middle);
        } else if self.fault(stalls_late) {
            asked.ends = Ends::StallsAt(middle);
        } else if self.fault(empty) {
            self.scene.faults.model = Some(self.scene.now);
            asked.text.clear();
            asked.tools.clear();
            asked.failed = true;
        } else if self.fault(endless) {
            self.scene.faults.model = Some(self.scene.now);
            asked.endless = true;
        }
        self.agenda.plan(self.scene.now.plus_ms(wait_ms), Event::Model(self.scene.asks.len()));
        self.scene.asks.push(asked);
    }

    /// What the model will answer.
    fn think(&mut self, asked: &mut Asked) {
        let after_tools = matches!(asked.messages.last(), Some(ChatMessage::Tool { .. }));
        let said = asked.messages.iter().rev().find_map(|m| match m {
            ChatMessage::User { text } => Some(text.as_str()),
            _ => None,
        });
        let goes_on = said.is_some_and(|t| t.starts_with("(The line") || t.starts_with("(What was"));
        let farewell = said.is_some_and(words::is_farewell);
        let greets = asked.messages.len() == 2 && said.is_some_and(|t| t.starts_with('('));
        let o = &self.scene.options.model;
        let (tools, many, bad, dtmf, hangs_up, questions) =
            (o.tools, o.many_tools, o.bad_tools, o.sends_dtmf, o.hangs_up, o.questions);
        if after_tools && self.dice.happens(HANGS_UP_AFTER_TOOLS) {
            let request = self.request("hang_up", false);
            asked.tools.push(request);
            return;
        }
        if !after_tools && !greets && !goes_on {
            if farewell || self.dice.happens(hangs_up) {
                if self.dice.happens(600) {
                    let word = self.agent_word();
                    let _ = write!(asked.text, "Thank you for the {word}. Have a nice day!");
                }
                let request = self.request("hang_up", false);
                asked.tools.push(request);
                return;
            }
            if self.dice.happens(dtmf) {
                asked.tools.push(ToolRequest {
                    id: format!("t{}", self.next_request()),
                    name: "send_dtmf".into(),
                    arguments: r#"{"digits":"1w2#"}"#.into(),
                });
                return;
            }
        }
        if self.dice.happens(if after_tools { tools / 3 } else { tools }) && !greets {
            if self.dice.happens(400) {
                let word = self.agent_word();
                let _ = write!(asked.text, "Let me check the {word} for you.");
            }
            let count = if self.dice.happens(many) { self.dice.between(2, 10) } else { 1 };
            for _ in 0..count {
                let bad = self.fault(bad);
                let request = self.request("look_up", bad);
                asked.tools.push(request);
            }
            return;
        }
        for sentence in 0..self.dice.between(1, 3) {
            let (a, b) = (self.agent_word(), self.agent_word());
            if sentence > 0 {
                asked.text.push(' ');
            }
            let _ = match self.dice.between(0, 6) {
                0 => write!(asked.text, "Sure, the {a} is next to the {b}."),
                1 => write!(asked.text, "We have the {a} from nine to five, and the {b} on Mondays."),
                2 => write!(asked.text, "The {a} costs 12.50, but you can have the {b} for free."),
                3 => write!(asked.text, "Schön: **{a}** für 5 €, {b} für 3 €…"),
                4 => write!(asked.text, "{a}在{b}旁边，好的。 请问 还有 什么？"),
                _ => write!(asked.text, "Yes. A {a} comes with every {b} that you buy here."),
            };
        }
        if self.dice.happens(questions) {
            let word = self.agent_word();
            let _ = write!(asked.text, " Would you like the {word}?");
        }
    }

    fn next_request(&mut self) -> u32 {
        self.requests += 1;
        self.requests
    }

    fn request(&mut self, name: &str, bad: bool) -> ToolRequest {
        let number = self.next_request();
        let (name, arguments) = match self.dice.between(0, 2) {
            0 if bad => ("no_such_tool", format!(r#"{{"n":{number}}}"#)),
            1 if bad => (name, format!(r#"{{"n":{number}"#)),
            2 if bad => (name, format!("[{number}]")),
            _ => (name, format!(r#"{{"n":{number}}}"#)),
        };
        ToolRequest { id: format!("t{number}"), name: name.into(), arguments }
    }

    /// The model's next token.
    pub(super) fn model_works(&mut self, at: usize) {
        let dead_tokens = self.scene.options.model.dead_tokens;
        let asked = &self.scene.asks[at];
        if asked.node != self.scene.node {
            return;
        }
        if asked.cancelled && !self.fault(dead_tokens) {
            return;
        }
        let asked = &mut self.scene.asks[at];
        let ask = asked.ask;
        match asked.ends {
            Ends::FailsAt(byte) if asked.sent >= byte => {
                asked.over = true;
                asked.failed = true;
                self.scene.faults.model = Some(self.scene.now);
                let may_pass = self.dice.happens(600);
                self.deliver(Fact::Ours, Input::AskFailed { ask, may_pass });
                return;
            }
            Ends::StallsAt(byte) if asked.sent >= byte => {
                asked.failed = true;
                self.scene.faults.model = Some(self.scene.now);
                return;
            }
            _ => {}
        }
        if asked.endless && asked.sent >= asked.text.len() && asked.text.len() < ENDLESS_BYTES {
            asked.text.push_str(" And there is more to be said about it, as you will hear at once.");
        }
        if asked.sent >= asked.text.len() {
            asked.over = true;
            let requests = asked.tools.clone();
            for request in requests {
                self.deliver(Fact::Ours, Input::Tool { ask, request });
            }
            self.deliver(Fact::Ours, Input::AskDone { ask });
            return;
        }
        let options = &self.scene.options.model;
        let chunk = if asked.endless { 20 } else { options.chunk_words as usize };
        let rest = &asked.text[asked.sent..];
        let length = rest.match_indices(' ').nth(chunk).map_or(rest.len(), |(i, _)| i);
        let text = rest[..length].to_string();
        asked.sent += length;
        let gap_ms = options.gap_ms;
        self.agenda.plan(self.scene.now.plus_ms(gap_ms), Event::Model(at));
        self.deliver(Fact::Ours, Input::Token { ask, text });
    }

    pub(super) fn cancel_ask(&mut self, ask: AskId) {
        if let Some(at) = self.scene.asked(ask) {
            self.scene.asks[at].cancelled = true;
            self.scene.asks[at].over = true;
        }
    }

    /// Which request wrote a clause.
    pub(super) fn author_of(&self, clause: &str) -> Option<usize> {
        let clause = clause.trim();
        self.scene.asks.iter().rposition(|a| a.node == self.scene.node && a.text.contains(clause)).or_else(
            || {
                let word = clause.split(|c: char| !c.is_alphanumeric()).find(|w| words::is_agent_word(w))?;
                self.scene.asks.iter().rposition(|a| a.text.contains(word))
            },
        )
    }
}
