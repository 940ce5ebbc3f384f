//! Writes what calls leave behind, off the audio path: logs in batches, answers, ends. It does not know what a call does.

use super::registry::{Letter, Registry};
use crate::problem::chain;
use offhook_core::ConversationId;
use offhook_core::entity::{CallEvent, CallSnapshot};
use offhook_store::{CallLease, FinishedCall, LogBatch, Store, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Work that may wait for the store; more is kept by the calls themselves.
const QUEUE: usize = 4_096;
/// Pieces of work that are written together.
const BATCH: usize = 256;
/// Between two attempts at a store that does not answer.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_AT_MOST: Duration = Duration::from_secs(5);

/// The way to the recorder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    work: mpsc::Sender<Work>,
}

/// Lines of one call's log on their way to the store.
#[derive(Debug)]
pub struct Lines {
    /// The right to write them.
    pub lease: Arc<CallLease>,
    /// The lines, in order.
    pub events: Vec<CallEvent>,
    /// The machine after the last of them.
    pub snapshot: Option<CallSnapshot>,
    /// Is told how many lines of the call the store has by now.
    pub written: watch::Sender<u32>,
}

#[derive(Debug)]
enum Work {
    Append(Lines),
    Answered { lease: Arc<CallLease>, at_us: i64 },
    Finish { lease: Arc<CallLease>, finished: Box<FinishedCall> },
    Release { lease: Arc<CallLease> },
    Close,
}

impl Recorder {
    /// Starts the recorder. It ends when it is closed and all that came before is written.
    pub fn start(store: Store, registry: Arc<Registry>) -> (Recorder, tokio::task::JoinHandle<()>) {
        let (work, waiting) = mpsc::channel(QUEUE);
        (Recorder { work }, tokio::spawn(run(store, registry, waiting)))
    }

    /// Appends to a call's log. `Err`: the queue is full, the lines come back.
    pub fn append(&self, lines: Lines) -> Result<(), Lines> {
        self.work.try_send(Work::Append(lines)).or_else(|error| match error.into_inner() {
            Work::Append(lines) => Err(lines),
            _ => Ok(()),
        })
    }

    /// Appends to a call's log. Waits for a place in the queue.
    pub async fn append_last(&self, lines: Lines) {
        let _ = self.work.send(Work::Append(lines)).await;
    }

    /// Notes that a call was answered.
    pub fn answered(&self, lease: &Arc<CallLease>, at_us: i64) {
        if self.work.try_send(Work::Answered { lease: lease.clone(), at_us }).is_err() {
            tracing::warn!(call.id = %lease.call(), "That a call was answered is not written down: the store is behind");
        }
    }

    /// Frees a call for another node to go on with. Waits for a place in the queue.
    pub async fn release(&self, lease: &Arc<CallLease>) {
        let _ = self.work.send(Work::Release { lease: lease.clone() }).await;
    }

    /// Says that nothing comes after. Waits for a place in the queue.
    pub async fn close(&self) {
        let _ = self.work.send(Work::Close).await;
    }

    /// Ends a call's record. Waits for a place in the queue.
    pub async fn finish(&self, lease: &Arc<CallLease>, finished: FinishedCall) {
        let _ = self.work.send(Work::Finish { lease: lease.clone(), finished: Box::new(finished) }).await;
    }
}

/// Does it again for as long as the store takes nothing at all: nothing is lost, and calls do not wait for it.
macro_rules! patiently {
    ($what:literal, $attempt:expr) => {{
        let mut pause = AGAIN;
        loop {
            match $attempt.await {
                Err(error) if error.is_outage() => pause = rest($what, &error, pause).await,
                other => break other,
            }
        }
    }};
}

async fn run(store: Store, registry: Arc<Registry>, mut waiting: mpsc::Receiver<Work>) {
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        write(&store, &registry, &batch).await;
        if batch.iter().any(|work| matches!(work, Work::Close)) {
            return;
        }
        batch.clear();
    }
}

/// Writes a batch: all its log lines at once, then the rest in order.
async fn write(store: &Store, registry: &Registry, batch: &[Work]) {
    append(store, registry, batch).await;
    for work in batch.iter() {
        let (lease, done) = match work {
            Work::Append(Lines { snapshot: None, .. }) | Work::Close => continue,
            Work::Append(Lines { lease, snapshot: Some(snapshot), .. }) => {
                (lease, patiently!("a snapshot", store.save_snapshot(lease, snapshot)))
            }
            Work::Answered { lease, at_us } => {
                (lease, patiently!("an answer", store.call_answered(lease, *at_us)))
            }
            Work::Release { lease } => (lease, patiently!("a release", store.release_call(lease))),
            Work::Finish { lease, finished } => {
                (lease, patiently!("a call's end", store.finish_call(lease, finished)).map(drop))
            }
        };
        if let Work::Finish { lease, .. } = work {
            registry.remove(lease.call());
        }
        match done {
            // Over already: a snapshot or an answer that came late.
            Ok(()) | Err(StoreError::Ended { .. }) => {}
            Err(StoreError::Conflict { .. }) => let_go(registry, lease.call()),
            Err(error) => {
                let error = chain(&error);
                tracing::error!(call.id = %lease.call(), error, "A call's record could not be written");
            }
        }
    }
}

/// Writes all log lines of a batch, together where that goes.
async fn append(store: &Store, registry: &Registry, batch: &[Work]) {
    let lines =
        || batch.iter().filter_map(|work| if let Work::Append(lines) = work { Some(lines) } else { None });
    let all: Vec<_> = lines().map(|Lines { lease, events, .. }| LogBatch { lease, events }).collect();
    if all.is_empty() {
        return;
    }
    let (mut refused, mut lost) = (Vec::new(), Vec::new());
    match patiently!("the log", store.append_events(&all)) {
        Ok(others) => refused = others,
        // What can never be written must not cost the others their lines.
        Err(_) => {
            for one in &all {
                match patiently!("the log", store.append_events(std::slice::from_ref(one))) {
                    Ok(others) => refused.extend(others),
                    Err(error) => {
                        let (call, lines, error) = (one.lease.call(), one.events.len(), chain(&error));
                        tracing::error!(call.id = %call, lines, error, "Lines of a call's log could not be written");
                        lost.push(call);
                    }
                }
            }
        }
    }
    let written = |lines: &&Lines| {
        let call = lines.lease.call();
        !refused.contains(call) && !lost.contains(&call)
    };
    for done in lines().filter(written) {
        if let Some(last) = done.events.last() {
            done.written.send_replace(last.seq + 1);
        }
    }
    refused.iter().for_each(|call| let_go(registry, call));
}

fn let_go(registry: &Registry, call: &ConversationId) {
    tracing::warn!(call.id = %call, "Another node drives a call of ours: letting go of it");
    if let Some(handle) = registry.by_id(call) {
        handle.tell(Letter::LetGo);
    }
}

/// Says that the store does not take something, rests, and gives the length of the next rest.
async fn rest(what: &str, error: &StoreError, pause: Duration) -> Duration {
    tracing::error!(error = chain(error), "The store does not take {what}; trying again");
    metrics::counter!("offhook_store_retries_total").increment(1);
    tokio::time::sleep(pause).await;
    (pause * 2).min(AGAIN_AT_MOST)
}
