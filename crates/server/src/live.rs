//! What happens on calls right now, for whoever watches. It carries hints only: the truth is in the store.

use offhook_core::call::{EndedReason, Line, TurnTiming};
use offhook_core::{ConversationId, Pii, WorkspaceId};
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Events that a slow watcher may be behind; then it is told that it missed some.
const BEHIND: usize = 1_024;

/// One event of one call.
#[derive(Clone, Debug, Serialize)]
pub struct LiveEvent {
    /// Where the call belongs.
    #[serde(skip)]
    pub workspace: WorkspaceId,
    /// Which call.
    pub call: ConversationId,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened on a call.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happening {
    /// It rings.
    Ringing {
        /// Who calls.
        from: Pii<String>,
        /// Who is called.
        to: Pii<String>,
    },
    /// Media flows.
    Answered,
    /// A line was said, or corrected.
    Line {
        /// The line.
        line: Pii<Line>,
    },
    /// A turn's answer has begun to be heard.
    Timed {
        /// Its moments.
        timing: TurnTiming,
    },
    /// A tool is used.
    Tool {
        /// Its name.
        name: String,
    },
    /// It is over.
    Ended {
        /// Why.
        reason: EndedReason,
    },
}

/// The stream of everything that happens on this node.
#[derive(Clone, Debug)]
pub struct Live {
    sender: broadcast::Sender<Arc<LiveEvent>>,
}

impl Default for Live {
    fn default() -> Self {
        Live { sender: broadcast::Sender::new(BEHIND) }
    }
}

impl Live {
    /// Tells all who watch; nobody is waited for.
    pub fn tell(&self, event: LiveEvent) {
        let _ = self.sender.send(Arc::new(event));
    }

    /// Watches from now on.
    pub fn watch(&self) -> broadcast::Receiver<Arc<LiveEvent>> {
        self.sender.subscribe()
    }
}
