//! Carries an operation on to its end: asks, stores what was answered, asks on. It does not know what comes next; the machine of each
//! number does. A process that dies here leaves everything that another needs.

use super::{ask, words};
use crate::app::App;
use crate::call::plan;
use crate::problem::{Problem, chain};
use offhook_core::entity::{Operation, OperationKind, OperationLine, OperationStatus, OperationStep};
use offhook_core::provisioning::{Outcome, Request};
use offhook_store::{LineEnd, OperationLease, Progress, StoreError};
use std::sync::Arc;
use std::time::Duration;

/// How many times within a lease it is held on.
const HOLDS_PER_LEASE: u32 = 3;
/// The shortest time between two of them.
const HOLD_EVERY_MIN: Duration = Duration::from_millis(10);
/// How long a store that does not answer is left alone.
const STORE_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Carries an operation on, until it has ended, another process has it, or this one stops.
pub async fn drive(app: Arc<App>, operation: Operation, lease: OperationLease) {
    let mut drive = Drive { app, operation, lease };
    match drive.carry_on().await {
        Ok(()) => {}
        Err(Stopped::Draining) => tracing::info!(operation.id = %drive.operation.id, "Operation left"),
        Err(Stopped::Lost) => {
            tracing::warn!(operation.id = %drive.operation.id, "Another process has an operation of ours");
        }
        Err(Stopped::Store(error)) => {
            let error = chain(&error);
            tracing::error!(operation.id = %drive.operation.id, error, "Operation not carried on");
        }
    }
}

/// Why an operation is not carried on here.
enum Stopped {
    /// This process ends.
    Draining,
    /// Another process has it.
    Lost,
    /// The store cannot keep it.
    Store(StoreError),
}

struct Drive {
    app: Arc<App>,
    operation: Operation,
    lease: OperationLease,
}

impl Drive {
    async fn carry_on(&mut self) -> Result<(), Stopped> {
        let mut reason = self.is_ready().await?;
        for seq in 0..self.operation.lines.len() {
            self.carry_out(seq).await?;
        }
        let many = self.operation.lines.len() > 1;
        for line in &self.operation.lines {
            let failed = failure(self.operation.kind, line);
            let failed = failed.map(|why| if many { format!("{}: {why}", line.e164) } else { why });
            reason = reason.or(failed);
        }
        let status = if reason.is_some() { OperationStatus::Failed } else { OperationStatus::Done };
        tracing::info!(operation.id = %self.operation.id, kind = %self.operation.kind, %status, "Operation over");
        self.save(&Progress { ended: Some((status, reason)), ..Progress::default() }).await
    }

    /// Whether the agent that is started could take a call; why not, if not. Its lines come up all the same.
    async fn is_ready(&mut self) -> Result<Option<String>, Stopped> {
        let agent = match (self.operation.kind, &self.operation.agent) {
            (OperationKind::Start, Some(agent)) => agent.clone(),
            _ => return Ok(None),
        };
        if self.operation.lines.iter().any(|line| line.machine.there().is_some()) {
            return Ok(None);
        }
        let at_us = self.app.environment.now_us();
        let error = match plan::ready(&self.app, self.lease.scope(), &agent).await {
            Ok(_) => None,
            Err(plan::NotReady::Store(error)) if error.is_transient() => None,
            Err(error) => Some(Problem::from(error).sentence()),
        };
        let what = "see whether the agent could take a call".to_owned();
        let ended_at_us = self.app.environment.now_us();
        let step = OperationStep { at_us, ended_at_us, e164: None, what, error: error.clone() };
        self.save(&Progress { steps: &[step], ..Progress::default() }).await?;
        Ok(error)
    }

    /// Does what is to be done to one number.
    async fn carry_out(&mut self, seq: usize) -> Result<(), Stopped> {
        let mut line = self.operation.lines[seq].clone();
        line.machine.resume();
        let mut steps = Vec::new();
        while line.machine.outcome().is_none() {
            let pause = Duration::from_millis(line.machine.pause_ms().into());
            if !pause.is_zero() {
                self.save(&Progress { line: Some((seq, &line)), steps: &steps, ..Progress::default() })
                    .await?;
                steps.clear();
                self.holding(tokio::time::sleep(pause)).await?;
            }
            if self.app.around.registry.is_draining() {
                return Err(Stopped::Draining);
            }
            let Some(request) = line.machine.ask() else { break };
            // Before it is sent: whoever finds it so must look whether it was.
            self.save(&Progress { line: Some((seq, &line)), steps: &steps, ..Progress::default() }).await?;
            steps = vec![self.ask(&mut line, request).await?];
        }
        let end = Some(match self.is_left_alone(&line).await? {
            true => LineEnd::Stays { leads_here: None, capabilities: None, fault: None },
            false => end(self.operation.kind, &line),
        });
        self.save(&Progress { line: Some((seq, &line)), steps: &steps, end, ended: None }).await?;
        self.operation.lines[seq] = line;
        Ok(())
    }

    /// Whether nothing of a number is ours that an agent's start could not point here: its webhooks were set by hand, and may lead here.
    async fn is_left_alone(&self, line: &OperationLine) -> Result<bool, Stopped> {
        let refused = matches!(line.machine.outcome(), Some(Outcome::Unchanged { .. }));
        if self.operation.kind != OperationKind::Start || !refused || line.machine.ours().is_some() {
            return Ok(false);
        }
        let number = self.app.store.number(self.lease.scope(), &line.number).await;
        Ok(number.map_err(Stopped::Store)?.route.is_none())
    }

    async fn ask(&mut self, line: &mut OperationLine, request: Request) -> Result<OperationStep, Stopped> {
        let what = words::step(line, &request);
        let at_us = self.app.environment.now_us();
        let (app, lease, asked) = (self.app.clone(), self.lease.clone(), line.clone());
        let answer =
            self.holding(async move { ask::ask(&app, lease.scope(), &asked, request).await }).await?;
        let came_of = words::came_of(&answer);
        line.machine.told(answer);
        let (id, number) = (&self.operation.id, &line.number);
        match &came_of {
            Ok(_) => {
                tracing::debug!(operation.id = %id, number.id = %number, pii.what = what, "Carrier asked")
            }
            Err(error) => {
                tracing::warn!(operation.id = %id, number.id = %number, pii.what = what, error, "The carrier did not do it");
            }
        }
        let ended_at_us = self.app.environment.now_us();
        let (what, error) = match came_of {
            Ok(came_of) => (format!("{what}: {came_of}"), None),
            Err(error) => (what, Some(error)),
        };
        Ok(OperationStep { at_us, ended_at_us, e164: Some(line.e164.clone()), what, error })
    }

    /// Waits for something, and holds the operation on meanwhile.
    async fn holding<T>(&self, something: impl Future<Output = T>) -> Result<T, Stopped> {
        let every = Duration::from_millis((self.app.node.lease_ms / HOLDS_PER_LEASE).into());
        let mut ticks = tokio::time::interval(every.max(HOLD_EVERY_MIN));
        ticks.tick().await;
        let mut something = std::pin::pin!(something);
        loop {
            tokio::select! {
                done = &mut something => return Ok(done),
                _ = ticks.tick() => {
                    // Where the store is away another may take it up by now: what is written next will tell.
                    let held = self.app.store.hold_operation(&self.lease).await;
                    if let Err(StoreError::Conflict { .. }) = held {
                        return Err(Stopped::Lost);
                    }
                }
            }
        }
    }

    /// Writes how far it is; a store that is away is waited for.
    async fn save(&self, progress: &Progress<'_>) -> Result<(), Stopped> {
        loop {
            match self.app.store.save_operation(&self.lease, progress).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Conflict { what: "operation", .. }) => return Err(Stopped::Lost),
                Err(error) if error.is_outage() => tokio::time::sleep(STORE_AGAIN_AFTER).await,
                Err(error) => return Err(Stopped::Store(error)),
            }
        }
    }
}

const NOT_THERE: &str = "the number is not among those of this connection's account";

/// Why a line did not come to what was wanted.
fn failure(kind: OperationKind, line: &OperationLine) -> Option<String> {
    use OperationKind::{Disconnect, Release, Remove};
    match line.machine.outcome()? {
        Outcome::Done => None,
        Outcome::Gone if matches!(kind, Remove | Release | Disconnect) => None,
        Outcome::Gone => Some(NOT_THERE.into()),
        Outcome::Unchanged { reason } | Outcome::Unclear { reason } => Some(reason.clone()),
    }
}

/// What becomes of a number.
fn end(kind: OperationKind, line: &OperationLine) -> LineEnd {
    use OperationKind::{Buy, Disconnect, Import, Release, Remove, Start, Stop, TakeBack};
    let failed = failure(kind, line);
    let unclear = matches!(line.machine.outcome(), Some(Outcome::Unclear { .. }));
    let leads_here = match (kind, failed.is_some()) {
        (Remove | Release | Disconnect, false) => return LineEnd::Removed,
        // What was added for it goes with it, but not what was bought and could not be pointed here.
        (Buy | Import, true) if !unclear => return LineEnd::Removed,
        (Buy | Import | TakeBack | Start, false) => Some(true),
        // Nobody knows what it was left with: what is ours must not pass for what led there before, the next time.
        (Buy | Import, true) => Some(true),
        (TakeBack | Start, true) if unclear => Some(true),
        (Stop, false) => Some(false),
        (TakeBack | Start | Stop | Remove | Release | Disconnect, true) => None,
    };
    let there = line.machine.there();
    LineEnd::Stays {
        leads_here,
        capabilities: there.map(|there| there.capabilities.clone()).filter(|found| !found.is_empty()),
        // A number that its carrier will not let go is as good as before.
        fault: failed.filter(|_| kind != Release || unclear),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offhook_core::provisioning::{Provisioning, Task};

    fn line(task: Task, outcome: Outcome) -> OperationLine {
        OperationLine {
            number: "num_01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
            e164: "+14155550100".parse().unwrap(),
            connection: "con_01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
            machine: Provisioning::over_already(task, outcome),
        }
    }

    #[test]
    fn a_number_that_may_have_been_pointed_here_counts_as_leading_here() {
        use OperationKind::{Buy, Import, Remove, Start, Stop, TakeBack};
        let unclear = || Outcome::Unclear { reason: "no".into() };
        let unchanged = || Outcome::Unchanged { reason: "no".into() };
        for (kind, outcome, expected) in [
            (Start, unclear(), Some(true)),
            (TakeBack, unclear(), Some(true)),
            (Buy, unclear(), Some(true)),
            (Import, unclear(), Some(true)),
            (Start, Outcome::Done, Some(true)),
            (Start, unchanged(), None),
            (TakeBack, unchanged(), None),
            (Remove, unclear(), None),
            (Stop, unclear(), None),
            (Stop, Outcome::Done, Some(false)),
        ] {
            let LineEnd::Stays { leads_here, .. } =
                end(kind, &line(Task::TakeOver { previous: None }, outcome.clone()))
            else {
                panic!("{kind} {outcome:?}: it goes")
            };
            assert_eq!(leads_here, expected, "{kind} {outcome:?}");
        }
    }
}
