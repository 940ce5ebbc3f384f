//! The node that a call runs on: the machine, its log, and what another node makes of the log when this one dies. It does not
//! know what the orders do.
//!
//! The contract of the log, here and in the server: a line is written after its input was handled, and the last lines may be
//! lost with the node, except that a line which orders what cannot be undone (`RunTool`, `SendDtmf`, `HangUp`, `Forward`) is
//! safe before the order is carried out.

use super::plant::{Plant, Planted};
use crate::checkers::Seen;
use offhook_core::call::{Call, CallPlan, CallTime, Command, Input, log};

/// One call on a node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) call: Call,
    plan: CallPlan,
    plant: Planted,
    log: Option<Vec<log::LogLine>>,
    digests: bool,
    snapshot: Option<(Call, usize)>,
    snapshots: bool,
}

impl Node {
    /// Starts the call; its log is kept if somebody will read it.
    pub(super) fn start(
        plan: CallPlan,
        plant: Plant,
        dies: bool,
        replays: bool,
        out: &mut Vec<Command>,
    ) -> Node {
        let call = Call::start(plan.clone(), out);
        let log = (dies || replays).then(Vec::new);
        let mut node = Node {
            call,
            plan,
            plant: Planted::new(plant),
            log,
            digests: replays,
            snapshot: None,
            snapshots: dies,
        };
        node.write(CallTime::ZERO, None, false, out);
        node.plant.tamper(None, out);
        node
    }

    pub(super) fn handle(&mut self, at: CallTime, input: Input, out: &mut Vec<Command>) {
        if self.log.is_none() && self.plant.is_none() {
            self.call.handle(at, input, out);
            return;
        }
        self.call.handle(at, input.clone(), out);
        self.write(at, Some(&input), false, out);
        self.plant.tamper(Some(&input), out);
    }

    fn write(&mut self, at: CallTime, input: Option<&Input>, resumed: bool, out: &[Command]) {
        let Some(log) = &mut self.log else { return };
        let line = if self.digests {
            log::LogLine::new(at, input.cloned(), resumed, out)
        } else {
            let safe = if out.iter().any(cannot_be_undone) { SAFE } else { 0 };
            log::LogLine { at, input: input.cloned(), resumed, digest: safe, orders: String::new() }
        };
        log.push(line);
        let turn_over = out.iter().any(|c| matches!(c, Command::Note(_)));
        if self.snapshots && turn_over {
            self.snapshot = Some((self.call.clone(), log.len()));
        }
    }

    /// Another node takes over with what was written; says which inputs were lost.
    pub(super) fn take_over(&mut self, lost_lines: u32) -> Vec<Input> {
        let Some(log) = &mut self.log else { return Vec::new() };
        let written = self.snapshot.as_ref().map_or(1, |(_, lines)| *lines);
        let mut lost = Vec::new();
        for _ in 0..lost_lines {
            let safe = |line: &log::LogLine| {
                line.digest == SAFE
                    || ["tool ", "hang up", "forward", "send dtmf"].iter().any(|o| line.orders.contains(o))
            };
            if log.len() <= written || log.last().is_none_or(safe) {
                break;
            }
            lost.extend(log.pop().and_then(|line| line.input));
        }
        self.call = match &self.snapshot {
            Some((call, lines)) => {
                let text = serde_json::to_string(call).expect("a call is plain data");
                let call = serde_json::from_str(&text).expect("what was written can be read");
                log::fold(call, &log[*lines..])
            }
            None => log::replay(self.plan.clone(), log).0,
        };
        lost
    }

    pub(super) fn resume(&mut self, at: CallTime, out: &mut Vec<Command>) {
        self.call.resume(at, out);
        self.write(at, None, true, out);
    }

    /// Folds the log again: every order must be the same.
    pub(super) fn replays_identically(&self) -> Result<(), String> {
        let Some(log) = self.log.as_ref().filter(|_| self.digests) else { return Ok(()) };
        let (again, divergence) = log::replay(self.plan.clone(), &self.plant.forget(log));
        if let Some(d) = divergence {
            let at_ms = d.at.as_ms();
            return Err(format!(
                "replay diverges at line {} ({at_ms} ms): logged [{}], replayed [{}]",
                d.line, d.logged, d.replayed
            ));
        }
        if again.transcript() != self.call.transcript() {
            return Err("the replayed call has another transcript".into());
        }
        Ok(())
    }
}

/// Stands in the place of a digest that nobody will compare.
const SAFE: u64 = 1;

fn cannot_be_undone(command: &Command) -> bool {
    matches!(
        command,
        Command::RunTool { .. } | Command::SendDtmf { .. } | Command::HangUp | Command::Forward { .. }
    )
}

impl super::World<'_> {
    pub(super) fn node_dies(&mut self) {
        if !self.scene.alive || self.node.call.is_finished() {
            return;
        }
        self.tell(|_| "the node dies".into());
        self.scene.alive = false;
        self.scene.faults.line = Some(self.scene.now);
        if self.scene.media {
            self.lose_line();
            self.media_ebbs();
            self.scene.media = false;
            self.scene.was_up = true;
        }
        let away_ms = self.scene.options.node.away_ms;
        self.agenda.plan(self.scene.now.plus_ms(away_ms), super::Event::NodeTakesOver);
    }

    /// The node is busy with something else; what comes waits.
    pub(super) fn node_stalls(&mut self) {
        if self.scene.alive {
            self.tell(|_| "the node stalls".into());
            self.stalled = true;
            self.scene.faults.line = Some(self.scene.now);
            let stall_ms = self.scene.options.node.stall_ms;
            self.agenda.plan(self.scene.now.plus_ms(stall_ms), super::Event::NodeGoesOn);
        }
    }

    pub(super) fn node_takes_over(&mut self) {
        self.stalled = false;
        self.inbox.clear();
        let lost = self.node.take_over(self.scene.options.node.lost_lines);
        self.scene.node += 1;
        self.scene.alive = true;
        self.scene.stt = None;
        self.stats.takeovers += 1;
        self.tell(|_| format!("another node takes over; {} lines of the log are lost", lost.len()));
        for input in &lost {
            self.observe(&Seen::Forgotten(input));
        }
        let mut out = std::mem::take(&mut self.out);
        self.node.resume(self.scene.now, &mut out);
        self.due = self.node.call.deadline();
        self.observe(&Seen::TookOver);
        self.carry_out(&mut out);
        self.out = out;
        self.settle_inbox();
        if std::mem::take(&mut self.scene.was_up)
            && self.scene.over_at.is_none()
            && !self.scene.options.node.never_reconnects
        {
            let ms = self.dice.between(20, 3_000);
            self.agenda.plan(self.scene.now.plus_ms(ms), super::Event::MediaFlows);
        }
    }
}
