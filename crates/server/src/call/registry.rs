//! The calls that this node drives, and the tickets that open their media sockets. It does not know what is said on them.

use super::line::Line;
use offhook_core::call::Input;
use offhook_core::{AgentId, ConversationId, E164, Secret};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long a ticket may be used: the carrier opens the socket at once, or not at all.
const TICKET_LIFE: Duration = Duration::from_secs(60);
/// What may wait for a driver besides facts about audio.
pub const MAILBOX: usize = 64;

/// Something for the driver of a call.
#[derive(Debug)]
pub enum Letter {
    /// The media socket is up.
    Line(Box<Line>),
    /// A fact from elsewhere.
    Fact(Input),
    /// Another node drives the call now, or shall: leave it alone.
    LetGo,
}

/// What the carrier is to do with the caller when the media socket is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Onward {
    /// Open another media socket: it was lost.
    MediaAgain,
    /// Hang up.
    HangUp,
    /// Connect them to a number.
    Forward(E164),
}

/// Which call a handle is for.
#[derive(Clone, Debug)]
pub struct Whose {
    /// Which call.
    pub id: ConversationId,
    /// The carrier's id of it.
    pub carrier_call: String,
    /// Who answers it.
    pub agent: AgentId,
    /// What the carrier signs its requests about it with.
    pub tokens: Vec<Secret<String>>,
}

/// A call that this node drives.
#[derive(Debug)]
pub struct Handle {
    /// Which call.
    pub id: ConversationId,
    /// The carrier's id of it.
    pub carrier_call: String,
    /// Who answers it.
    pub agent: AgentId,
    /// What the carrier signs its requests about it with.
    pub tokens: Vec<Secret<String>>,
    mailbox: mpsc::Sender<Letter>,
    onward: Mutex<Onward>,
}

impl Handle {
    /// A handle on a call whose driver reads `mailbox`.
    pub fn new(whose: Whose, mailbox: mpsc::Sender<Letter>) -> Self {
        let Whose { id, carrier_call, agent, tokens } = whose;
        Handle { id, carrier_call, agent, tokens, mailbox, onward: Mutex::new(Onward::MediaAgain) }
    }

    /// Tells the driver; what a call that is over is told is lost.
    pub fn tell(&self, letter: Letter) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.mailbox.try_send(letter) {
            tracing::error!(call.id = %self.id, "The driver of a call does not read its mailbox");
        }
    }

    /// What comes after the media socket.
    pub fn onward(&self) -> Onward {
        locked(&self.onward).clone()
    }

    /// Decides what comes after the media socket.
    pub fn set_onward(&self, onward: Onward) {
        *locked(&self.onward) = onward;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All calls of this node.
#[derive(Debug, Default)]
pub struct Registry {
    calls: Mutex<HashMap<String, Arc<Handle>>>,
    tickets: Mutex<HashMap<String, (Arc<Handle>, Instant)>>,
    /// The process ends: no call is taken up any more.
    closed: AtomicBool,
}

impl Registry {
    /// The call that a carrier names so.
    pub fn find(&self, carrier_call: &str) -> Option<Arc<Handle>> {
        locked(&self.calls).get(carrier_call).cloned()
    }

    /// The call with an id.
    pub fn by_id(&self, id: &ConversationId) -> Option<Arc<Handle>> {
        locked(&self.calls).values().find(|h| h.id == *id).cloned()
    }

    /// How many calls an agent is on.
    pub fn count_of(&self, agent: &AgentId) -> usize {
        locked(&self.calls).values().filter(|h| h.agent == *agent).count()
    }

    /// All calls that are driven now.
    pub fn ids(&self) -> Vec<ConversationId> {
        locked(&self.calls).values().map(|h| h.id.clone()).collect()
    }

    /// How many calls are driven now.
    pub fn count(&self) -> usize {
        locked(&self.calls).len()
    }

    /// Takes a call on. `Err`: it is driven already, by this handle.
    pub fn add(&self, handle: Arc<Handle>) -> Result<(), Arc<Handle>> {
        let mut calls = locked(&self.calls);
        if let Some(already) = calls.get(&handle.carrier_call) {
            return Err(already.clone());
        }
        calls.insert(handle.carrier_call.clone(), handle);
        Ok(())
    }

    /// Lets go of every call: other nodes go on with them.
    pub fn let_go(&self) {
        self.closed.store(true, Ordering::Relaxed);
        for handle in locked(&self.calls).values() {
            handle.tell(Letter::LetGo);
        }
    }

    /// Whether every call was let go of, for good.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Forgets a call that is over.
    pub fn remove(&self, carrier_call: &str) {
        locked(&self.calls).remove(carrier_call);
        locked(&self.tickets).retain(|_, (handle, _)| handle.carrier_call != carrier_call);
    }

    /// Keeps a ticket that opens one media socket for a call, once, soon.
    pub fn issue(&self, ticket: &Secret<String>, handle: &Arc<Handle>, now: Instant) {
        let mut tickets = locked(&self.tickets);
        tickets.retain(|_, (_, issued)| now.duration_since(*issued) < TICKET_LIFE);
        tickets.insert(ticket.expose().clone(), (handle.clone(), now));
    }

    /// Uses a ticket up. `None`: there is no such ticket, or no longer, or it is for another call.
    pub fn redeem(&self, ticket: &Secret<String>, carrier_call: &str, now: Instant) -> Option<Arc<Handle>> {
        let mut tickets = locked(&self.tickets);
        let (handle, issued) = tickets.get(ticket.expose())?;
        let good = handle.carrier_call == carrier_call && now.duration_since(*issued) < TICKET_LIFE;
        let handle = good.then(|| handle.clone());
        if good {
            tickets.remove(ticket.expose());
        }
        handle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(carrier_call: &str) -> Arc<Handle> {
        let (mailbox, _) = mpsc::channel(1);
        const ULID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
        let (id, agent) = (ConversationId::from_ulid(ULID), AgentId::from_ulid(ULID));
        Arc::new(Handle::new(Whose { id, carrier_call: carrier_call.into(), agent, tokens: vec![] }, mailbox))
    }

    #[test]
    fn a_ticket_opens_one_socket_of_its_own_call_in_time() {
        let registry = Registry::default();
        let now = Instant::now();
        let ticket = |t: &str| Secret::new(t.to_string());
        registry.issue(&ticket("a"), &handle("C1"), now);
        assert!(registry.redeem(&ticket("b"), "C1", now).is_none(), "unknown");
        assert!(registry.redeem(&ticket("a"), "C2", now).is_none(), "another call's");
        assert!(registry.redeem(&ticket("a"), "C1", now).is_some());
        assert!(registry.redeem(&ticket("a"), "C1", now).is_none(), "used");
        registry.issue(&ticket("c"), &handle("C1"), now);
        assert!(registry.redeem(&ticket("c"), "C1", now + TICKET_LIFE).is_none(), "too late");
    }

    #[test]
    fn a_call_is_driven_once() {
        let registry = Registry::default();
        registry.add(handle("C1")).unwrap();
        assert!(registry.add(handle("C1")).is_err());
        registry.remove("C1");
        assert_eq!(registry.count(), 0);
    }
}
