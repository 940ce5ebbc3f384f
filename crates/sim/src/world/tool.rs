//! The tools: each use has a result, sooner or later or never. They do not know who asked.

use super::scene::ToolUse;
use super::{Event, Fact, World};
use offhook_core::call::{Input, ToolId};

impl World<'_> {
    pub(super) fn run_tool(&mut self, tool: ToolId, arguments: &str) {
        let at = self.scene.tools.len();
        self.scene.tools.push(ToolUse {
            node: self.scene.node,
            tool,
            arguments: arguments.to_string(),
            result: None,
            at: self.scene.now,
        });
        let (never, repeats) = (self.scene.options.tool.never, self.scene.options.tool.repeats);
        if self.fault(never) {
            return;
        }
        let wait_ms = self.dice.between(20, self.scene.options.tool.slowest_ms);
        self.agenda.plan(self.scene.now.plus_ms(wait_ms), Event::Tool(at));
        if self.fault(repeats) {
            let again_ms = wait_ms + self.dice.between(1, 2_000);
            self.agenda.plan(self.scene.now.plus_ms(again_ms), Event::Tool(at));
        }
    }

    pub(super) fn tool_answers(&mut self, at: usize) {
        self.results += 1;
        let result = format!("result {}", self.results);
        let used = &mut self.scene.tools[at];
        if used.node != self.scene.node {
            return;
        }
        let tool = used.tool;
        if used.result.is_none() {
            used.result = Some((self.scene.now, result.clone()));
        }
        self.deliver(Fact::Ours, Input::ToolDone { tool, result });
    }
}
