//! The calls that this node drives or writes to their end, and the tickets that open their media sockets. It does not know what
//! is said on them.

use super::line::Line;
use offhook_core::call::Input;
use offhook_core::{AgentId, ConnectionId, ConversationId, E164, Secret};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long a ticket may be used: the carrier opens the socket at once, or not at all.
const TICKET_LIFE: Duration = Duration::from_secs(60);
/// How often a carrier is told to open a media socket that it never opens.
pub const OPENINGS: u32 = 3;
/// Messages about one call that are remembered, so that a repeat of one is known.
const MESSAGES_KEPT: usize = 32;
/// What may wait for a driver besides facts about audio.
pub const MAILBOX: usize = 64;

/// Something for the driver of a call.
#[derive(Debug)]
pub enum Letter {
    /// The media socket is up.
    Line(Box<Line>),
    /// A fact from elsewhere.
    Fact(Input),
    /// The carrier can open a media socket now, or could not when it was last told to.
    OpenMedia,
    /// The carrier cannot open a media socket to us: there is no way to talk.
    NoMedia,
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

/// Which call a handle is for, and what its carrier's requests are answered with, whatever becomes of number and store.
#[derive(Clone, Debug)]
pub struct Whose {
    /// Which call.
    pub id: ConversationId,
    /// The carrier's account it comes through.
    pub connection: ConnectionId,
    /// The carrier's id of it, unique within the account.
    pub carrier_call: String,
    /// Who answers it.
    pub agent: AgentId,
    /// What the carrier signs its requests about it with.
    pub tokens: Vec<Secret<String>>,
    /// The phone that rings when nobody can talk to the caller.
    pub forward_to: Option<E164>,
}

/// A call that this node drives.
#[derive(Debug)]
pub struct Handle {
    /// Which call.
    pub id: ConversationId,
    /// The carrier's account it comes through.
    pub connection: ConnectionId,
    /// The carrier's id of it, unique within the account.
    pub carrier_call: String,
    /// Who answers it.
    pub agent: AgentId,
    /// The phone that rings when nobody can talk to the caller.
    pub forward_to: Option<E164>,
    tokens: Mutex<Vec<Secret<String>>>,
    mailbox: mpsc::Sender<Letter>,
    onward: Mutex<Onward>,
    over: AtomicBool,
    /// Tickets that were issued since a media socket was last opened.
    unopened: AtomicU32,
    /// When the carrier was last told to open a media socket.
    asked_at: Mutex<Option<Instant>>,
    /// Messages that have come, the oldest first.
    messages: Mutex<VecDeque<String>>,
}

impl Handle {
    /// A handle on a call whose driver reads `mailbox`.
    pub fn new(whose: Whose, mailbox: mpsc::Sender<Letter>) -> Self {
        let Whose { id, connection, carrier_call, agent, tokens, forward_to } = whose;
        Handle {
            id,
            connection,
            carrier_call,
            agent,
            forward_to,
            tokens: Mutex::new(tokens),
            mailbox,
            onward: Mutex::new(Onward::MediaAgain),
            over: AtomicBool::new(false),
            unopened: AtomicU32::new(0),
            asked_at: Mutex::new(None),
            messages: Mutex::default(),
        }
    }

    /// Whether a message about the call comes for the first time, by what the carrier writes on every delivery of it.
    pub fn is_new(&self, message: &str) -> bool {
        let mut messages = locked(&self.messages);
        let new = messages.iter().all(|known| known != message);
        if new {
            if messages.len() == MESSAGES_KEPT {
                messages.pop_front();
            }
            messages.push_back(message.to_owned());
        }
        new
    }

    /// What the carrier signs its requests about the call with.
    pub fn tokens(&self) -> Vec<Secret<String>> {
        locked(&self.tokens).clone()
    }

    /// The carrier signs with this from now on: the account's token was replaced while the call went on.
    pub fn signed_with(&self, token: &Secret<String>) {
        let mut tokens = locked(&self.tokens);
        if tokens.iter().all(|known| known.expose() != token.expose()) {
            tokens.push(token.clone());
        }
    }

    /// Whether the call is over and only its record is left to be written.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// How often the carrier was told to open a media socket since it last did.
    pub fn unopened(&self) -> u32 {
        self.unopened.load(Ordering::Relaxed)
    }

    /// Whether the carrier was told to open a media socket at this moment or later.
    pub fn asked_since(&self, moment: Instant) -> bool {
        locked(&self.asked_at).is_some_and(|asked| asked >= moment)
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
    calls: Mutex<HashMap<(ConnectionId, String), Arc<Handle>>>,
    tickets: Mutex<HashMap<String, (Arc<Handle>, Instant)>>,
    /// The process ends: no call is begun or taken up any more.
    draining: AtomicBool,
}

impl Registry {
    /// The call that an account names so.
    pub fn find(&self, connection: &ConnectionId, carrier_call: &str) -> Option<Arc<Handle>> {
        locked(&self.calls).get(&(connection.clone(), carrier_call.to_owned())).cloned()
    }

    /// The calls that some account names so: which is meant, who signed the request tells.
    pub fn named(&self, carrier_call: &str) -> Vec<Arc<Handle>> {
        locked(&self.calls).values().filter(|h| h.carrier_call == carrier_call).cloned().collect()
    }

    /// The call with an id, while it is driven.
    pub fn by_id(&self, id: &ConversationId) -> Option<Arc<Handle>> {
        locked(&self.calls).values().find(|h| h.id == *id && !h.is_over()).cloned()
    }

    /// Whether a call is driven here, or about to be written to its end.
    pub fn has(&self, id: &ConversationId) -> bool {
        locked(&self.calls).values().any(|h| h.id == *id)
    }

    /// How many calls an agent is on.
    pub fn count_of(&self, agent: &AgentId) -> usize {
        locked(&self.calls).values().filter(|h| h.agent == *agent && !h.is_over()).count()
    }

    /// All calls that are driven now, or about to be written to their end.
    pub fn ids(&self) -> Vec<ConversationId> {
        locked(&self.calls).values().map(|h| h.id.clone()).collect()
    }

    /// How many calls are driven now.
    pub fn count(&self) -> usize {
        locked(&self.calls).values().filter(|h| !h.is_over()).count()
    }

    /// Takes a call on. `Err`: it is driven already, by this handle.
    pub fn add(&self, handle: Arc<Handle>) -> Result<(), Arc<Handle>> {
        let mut calls = locked(&self.calls);
        match calls.entry((handle.connection.clone(), handle.carrier_call.clone())) {
            Entry::Occupied(already) => Err(already.get().clone()),
            Entry::Vacant(place) => {
                place.insert(handle);
                Ok(())
            }
        }
    }

    /// From now on no call is begun or taken up here.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the process ends, so that no call is begun or taken up any more.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Lets go of every call: other nodes go on with them.
    pub fn let_go(&self) {
        self.drain();
        for handle in locked(&self.calls).values() {
            handle.tell(Letter::LetGo);
        }
    }

    /// A call is over. It stays ours until its record is written, or it would look like one whose process died.
    pub fn over(&self, handle: &Handle) {
        handle.over.store(true, Ordering::Relaxed);
        locked(&self.tickets).retain(|_, (of, _)| of.id != handle.id);
    }

    /// Forgets a call.
    pub fn remove(&self, id: &ConversationId) {
        locked(&self.calls).retain(|_, handle| handle.id != *id);
        locked(&self.tickets).retain(|_, (handle, _)| handle.id != *id);
    }

    /// Keeps a ticket that opens one media socket for a call, once, soon.
    pub fn issue(&self, ticket: &Secret<String>, handle: &Arc<Handle>, now: Instant) {
        let mut tickets = locked(&self.tickets);
        tickets.retain(|_, (_, issued)| now.duration_since(*issued) < TICKET_LIFE);
        tickets.insert(ticket.expose().clone(), (handle.clone(), now));
        handle.unopened.fetch_add(1, Ordering::Relaxed);
        *locked(&handle.asked_at) = Some(now);
    }

    /// Whether a ticket was not used yet.
    pub fn holds(&self, ticket: &Secret<String>) -> bool {
        locked(&self.tickets).contains_key(ticket.expose())
    }

    /// Uses a ticket up. `None`: there is no such ticket, or no longer, or it is for another call.
    pub fn redeem(&self, ticket: &Secret<String>, carrier_call: &str, now: Instant) -> Option<Arc<Handle>> {
        let mut tickets = locked(&self.tickets);
        let (handle, issued) = tickets.get(ticket.expose())?;
        let good = handle.carrier_call == carrier_call && now.duration_since(*issued) < TICKET_LIFE;
        let handle = good.then(|| handle.clone());
        if let Some(handle) = &handle {
            tickets.remove(ticket.expose());
            handle.unopened.store(0, Ordering::Relaxed);
        }
        handle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "01ARZ3NDEKTSV4RRFFQ69G5FA1";
    const OTHER: &str = "01ARZ3NDEKTSV4RRFFQ69G5FA2";

    fn handle_of(account: &str, call: &str, carrier_call: &str) -> Arc<Handle> {
        let (mailbox, _) = mpsc::channel(1);
        let whose = Whose {
            id: ConversationId::from_ulid(call),
            connection: ConnectionId::from_ulid(account),
            carrier_call: carrier_call.into(),
            agent: AgentId::from_ulid(ONE),
            tokens: vec![],
            forward_to: None,
        };
        Arc::new(Handle::new(whose, mailbox))
    }

    fn handle(carrier_call: &str) -> Arc<Handle> {
        handle_of(ONE, ONE, carrier_call)
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
        registry.remove(&handle("C1").id);
        assert_eq!(registry.count(), 0);
    }

    #[test]
    fn two_accounts_may_name_their_calls_alike() {
        let registry = Registry::default();
        let (ours, theirs) = (handle_of(ONE, ONE, "C1"), handle_of(OTHER, OTHER, "C1"));
        registry.add(ours.clone()).unwrap();
        registry.add(theirs.clone()).unwrap();
        assert_eq!(registry.find(&ours.connection, "C1").map(|h| h.id.clone()), Some(ours.id.clone()));
        assert_eq!(registry.find(&theirs.connection, "C1").map(|h| h.id.clone()), Some(theirs.id.clone()));
        assert_eq!(registry.named("C1").len(), 2);
        registry.remove(&theirs.id);
        assert!(registry.by_id(&ours.id).is_some());
    }

    #[test]
    fn a_call_that_is_over_stays_ours_until_it_is_written() {
        let registry = Registry::default();
        let call = handle("C1");
        registry.add(call.clone()).unwrap();
        registry.over(&call);
        assert_eq!((registry.count(), registry.by_id(&call.id).is_none()), (0, true));
        assert!(registry.has(&call.id) && registry.find(&call.connection, "C1").is_some());
        registry.remove(&call.id);
        assert!(!registry.has(&call.id));
    }
}
