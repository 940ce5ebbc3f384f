//! The user agent: listeners, trunks, and the way of every request to the call that it is for.

use super::dial::{self, Dialling, NewCall};
use super::dialog::DialogKey;
use super::digest::Challenger;
use super::guard::{Dropped, Guard};
use super::incoming;
use super::message::{NameAddr, UriRef};
use super::reading::{self, value};
use super::register;
use super::rtp::{Media, Percentiles};
use super::trunk::{Transport, Trunk, TrunkId};
use super::wire::{ALLOW, Hop, Wire};
use super::{Listening, SipError, SipEvent, TrunkState};
use crate::Verdict;
use rsipstack::sip::{Header, HeadersExt, Method, Request};
use rsipstack::transaction::TransactionReceiver;
use rsipstack::transaction::transaction::Transaction;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Requests that wait for one call at once; what is more is dropped and comes again.
const MAX_WAITING_REQUESTS: usize = 16;
/// When those who call while we stop shall try again, seconds.
const STOPPING_RETRY_AFTER_S: u32 = 30;
/// How long an answer to a request outside calls may take to be on its way; who does not read by then does without.
const REPLY_PATIENCE: Duration = Duration::from_secs(2);
/// How long registrars have to take our leave.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);

/// Our end of all trunks. Cheap to clone.
#[derive(Clone)]
pub struct UserAgent {
    shared: Arc<Shared>,
}

/// What all calls share.
pub(super) struct Shared {
    pub wire: Arc<Wire>,
    pub media: Media,
    pub challenger: Challenger,
    pub events: mpsc::Sender<SipEvent>,
    pub public_media: Option<IpAddr>,
    guard: Arc<Guard>,
    trunks: RwLock<HashMap<TrunkId, Seat>>,
    dialogs: Mutex<HashMap<DialogKey, mpsc::Sender<Transaction>>>,
    /// INVITEs that begin calls and are not through yet: call, caller's tag and sequence number.
    beginning: Mutex<HashSet<(String, String, u32)>>,
    /// When callers shall try again, seconds; 0 while calls are taken.
    draining: AtomicU32,
}

/// A trunk at work.
struct Seat {
    trunk: Arc<Trunk>,
    calls: Arc<AtomicU32>,
    inbound: Arc<Mutex<Rate>>,
    outbound: Arc<Mutex<Rate>>,
    /// The user of our `Contact` there, by which a registrar's calls are told apart.
    instance: String,
    /// Ends its keeper; the keeper says when it has left.
    keeper: Option<(watch::Sender<bool>, tokio::task::JoinHandle<()>)>,
}

/// Calls that may begin in a second.
struct Rate {
    left: f64,
    at: Instant,
}

impl Rate {
    fn new() -> Self {
        // Full, whatever its size is.
        Rate { left: f64::INFINITY, at: Instant::now() }
    }

    fn take(&mut self, per_s: u32) -> bool {
        let (now, most) = (Instant::now(), f64::from(per_s.max(1)));
        self.left = (self.left + now.duration_since(self.at).as_secs_f64() * most).min(most);
        self.at = now;
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

/// One call's place among those that its trunk may have at once; given back when it is dropped.
pub struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A dialog's entry in the book; crossed out when it is dropped.
pub struct Entry {
    shared: Arc<Shared>,
    key: DialogKey,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.dialogs.lock().unwrap_or_else(|e| e.into_inner()).remove(&self.key);
    }
}

impl UserAgent {
    /// Opens the listeners and begins to register. Events that are not taken in time turn calls away: give it a mailbox of some
    /// size.
    ///
    /// # Errors
    /// A listener cannot be opened, or a trunk's settings contradict each other.
    pub async fn start(
        listening: Listening,
        trunks: Vec<Trunk>,
        events: mpsc::Sender<SipEvent>,
    ) -> Result<UserAgent, SipError> {
        for trunk in &trunks {
            check(trunk)?;
        }
        let guard = Arc::new(Guard::default());
        let (wire, requests) = Wire::open(&listening, guard.clone()).await?;
        let bound =
            listening.udp.or(listening.tcp).map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip());
        let media = Media::start(bound, listening.rtp_ports.clone()).map_err(SipError::NoPort)?;
        let shared = Arc::new(Shared {
            wire,
            media,
            challenger: Challenger::default(),
            events,
            // Whoever gives an address for SIP means it for the audio as well.
            public_media: listening.public_media.or_else(|| listening.public_host.as_deref()?.parse().ok()),
            guard,
            trunks: RwLock::default(),
            dialogs: Mutex::default(),
            beginning: Mutex::default(),
            draining: AtomicU32::new(0),
        });
        let agent = UserAgent { shared };
        agent.set_trunks(trunks);
        tokio::spawn(serve(agent.shared.clone(), requests));
        Ok(agent)
    }

    /// Replaces the trunks: registers at new ones, leaves those that are gone. Calls that run are not touched. A trunk whose
    /// settings contradict each other is reported as down.
    pub fn set_trunks(&self, trunks: Vec<Trunk>) {
        let mut seats = self.shared.trunks.write().unwrap_or_else(|e| e.into_inner());
        let wanted: HashSet<TrunkId> = trunks.iter().map(|trunk| trunk.id.clone()).collect();
        seats.retain(|id, seat| {
            let stays = wanted.contains(id);
            if !stays {
                seat.leave();
            }
            stays
        });
        for trunk in trunks {
            let old = seats.get_mut(&trunk.id);
            if old.as_ref().is_some_and(|seat| *seat.trunk == trunk) {
                continue;
            }
            // Who runs keeps its place, and its rate.
            let (calls, inbound, outbound) = match old {
                Some(seat) => {
                    seat.leave();
                    (seat.calls.clone(), seat.inbound.clone(), seat.outbound.clone())
                }
                None => {
                    (Arc::default(), Arc::new(Mutex::new(Rate::new())), Arc::new(Mutex::new(Rate::new())))
                }
            };
            let trunk = Arc::new(trunk);
            let instance = register::instance(&trunk);
            let (stop, stopped) = watch::channel(false);
            let keeper =
                tokio::spawn(register::keep(self.shared.clone(), trunk.clone(), instance.clone(), stopped));
            let seat = Seat {
                trunk: trunk.clone(),
                calls,
                inbound,
                outbound,
                instance,
                keeper: Some((stop, keeper)),
            };
            seats.insert(trunk.id.clone(), seat);
        }
        let networks = seats.values().flat_map(|seat| {
            seat.trunk.settings.allowed.iter().map(|network| (seat.trunk.id.clone(), *network))
        });
        self.shared.guard.set_networks(networks.collect(), &wanted);
    }

    /// Calls a number. The call is withdrawn when what is returned is dropped.
    ///
    /// # Errors
    /// It could not even be begun.
    pub async fn dial(&self, trunk: &TrunkId, call: NewCall) -> Result<Dialling, SipError> {
        dial::dial(self.shared.clone(), trunk, call).await
    }

    /// Tries a trunk once: registers there if it is one to register at, asks whether it lives otherwise.
    pub async fn probe(&self, trunk: &Trunk) -> Verdict {
        register::probe(&self.shared, trunk).await
    }

    /// Takes no more calls and leaves the registrars. Calls that run go on until they end.
    pub async fn stop(&self) {
        self.shared.draining.store(STOPPING_RETRY_AFTER_S, Ordering::Relaxed);
        let keepers: Vec<_> = {
            let mut seats = self.shared.trunks.write().unwrap_or_else(|e| e.into_inner());
            seats.values_mut().filter_map(|seat| seat.leave()).collect()
        };
        let all = async {
            for keeper in keepers {
                // A keeper that broke has left too.
                _ = keeper.await;
            }
        };
        _ = tokio::time::timeout(LEAVE_PATIENCE, all).await;
    }

    /// Closes the listeners: what runs is cut off.
    pub fn close(&self) {
        self.shared.wire.close();
    }

    /// Where the listeners are: datagrams, streams, encrypted streams.
    pub fn listening(&self) -> (Option<SocketAddr>, Option<SocketAddr>, Option<SocketAddr>) {
        self.shared.wire.listening()
    }

    /// Host and port at which trunks reach us over a transport; `None`: we do not listen for it, or on no address that others could be told.
    pub fn address(&self, transport: Transport) -> Option<String> {
        self.shared.wire.address(transport)
    }

    /// How late the packets of all calls were sent, since the start.
    pub fn lateness(&self) -> Percentiles {
        self.shared.media.lateness().percentiles()
    }

    /// What was turned away before anything parsed it.
    pub fn dropped(&self) -> Dropped {
        self.shared.guard.dropped()
    }

    /// How many calls are beginning or running.
    pub fn calls(&self) -> usize {
        self.shared.dialogs.lock().unwrap_or_else(|e| e.into_inner()).len()
    }
}

fn check(trunk: &Trunk) -> Result<(), SipError> {
    let checked = trunk.settings.check(trunk.password.is_some());
    checked.map_err(|cause| SipError::Settings { id: trunk.id.clone(), cause })
}

impl Seat {
    fn leave(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        let (stop, keeper) = self.keeper.take()?;
        stop.send_replace(true);
        Some(keeper)
    }
}

impl Shared {
    /// A place for one more call that comes in, if its trunk has one.
    pub fn place(&self, id: &TrunkId) -> Option<Place> {
        let seats = self.trunks.read().unwrap_or_else(|e| e.into_inner());
        let seat = seats.get(id)?;
        let may = seat.inbound.lock().unwrap_or_else(|e| e.into_inner()).take(seat.trunk.settings.max_cps);
        may.then(|| seat.place()).flatten()
    }

    /// A place for a call of ours, with its trunk.
    pub fn outbound_place(&self, id: &TrunkId) -> Result<(Arc<Trunk>, Place), SipError> {
        let seats = self.trunks.read().unwrap_or_else(|e| e.into_inner());
        let seat = seats.get(id).ok_or(SipError::NoSuchTrunk)?;
        let may = seat.outbound.lock().unwrap_or_else(|e| e.into_inner()).take(seat.trunk.settings.max_cps);
        let place = may.then(|| seat.place()).flatten().ok_or(SipError::TrunkFull)?;
        Ok((seat.trunk.clone(), place))
    }

    /// When callers shall try again, seconds, while no calls are taken.
    pub fn draining(&self) -> Option<u32> {
        Some(self.draining.load(Ordering::Relaxed)).filter(|seconds| *seconds > 0)
    }

    /// Enters a dialog in the book: its requests come out of the receiver.
    pub fn enter(self: &Arc<Self>, key: DialogKey) -> (Entry, mpsc::Receiver<Transaction>) {
        let (sender, requests) = mpsc::channel(MAX_WAITING_REQUESTS);
        self.dialogs.lock().unwrap_or_else(|e| e.into_inner()).insert(key.clone(), sender);
        (Entry { shared: self.clone(), key }, requests)
    }

    /// Tells the owner how a trunk is.
    pub async fn tell(&self, id: &TrunkId, state: TrunkState) {
        // Without an owner nobody wants to know.
        _ = self.events.send(SipEvent::Trunk { id: id.clone(), state }).await;
    }

    /// The trunks that a request may have come over, the likeliest first: those whose networks its source is in, told apart by
    /// what a registrar or a carrier calls. Two organizations at one carrier have the same networks, and no settings of the one
    /// may keep the other's calls from it: the owner tells which of them a number is.
    fn trunks_of(&self, request: &Request, from: IpAddr) -> Vec<Arc<Trunk>> {
        let ids = self.guard.trunks_at(from);
        let seats = self.trunks.read().unwrap_or_else(|e| e.into_inner());
        let mut candidates: Vec<&Seat> = ids.iter().filter_map(|id| seats.get(id)).collect();
        if candidates.len() > 1 {
            let uri = reading::request_uri(request);
            let called = UriRef::read(&uri);
            let to = value(request, "To").and_then(NameAddr::read).map(|to| to.uri);
            // A registrar calls one of us by name, and nobody else.
            let named = |seat: &Seat| {
                let instance =
                    called.is_some_and(|uri| uri.params.get(register::INSTANCE) == Some(&seat.instance));
                let user = called.is_some_and(|uri| seat.trunk.settings.registers_as(uri.user));
                (instance, user)
            };
            let rank = |seat: &Seat| {
                let settings = &seat.trunk.settings;
                let number = reading::read(request, &seat.trunk).called;
                let listed = number.is_some_and(|number| settings.numbers.contains(&number));
                let host = to.is_some_and(|to| to.host.eq_ignore_ascii_case(&settings.domain));
                (named(seat), listed, host, settings.numbers.is_empty())
            };
            candidates.sort_by_cached_key(|seat| std::cmp::Reverse(rank(seat)));
            let best = candidates.first().map(|seat| named(seat));
            candidates.retain(|seat| Some(named(seat)) == best);
        }
        candidates.into_iter().map(|seat| seat.trunk.clone()).collect()
    }
}

impl Seat {
    fn place(&self) -> Option<Place> {
        let most = self.trunk.settings.max_calls;
        let taken = self
            .calls
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < most).then_some(now + 1));
        taken.ok().map(|_| Place(self.calls.clone()))
    }
}

async fn serve(shared: Arc<Shared>, mut requests: TransactionReceiver) {
    while let Some(tx) = requests.recv().await {
        let Some(hop) = Wire::came_over(&tx) else { continue };
        match DialogKey::of(&tx.original) {
            Some(key) => inside(&shared, key, tx),
            None => outside(&shared, tx, hop),
        }
    }
}

/// Answers in a task of its own: a stream whose far end does not read holds up nobody else's requests.
fn reply(shared: &Arc<Shared>, mut tx: Transaction, status: u16, headers: Vec<Header>) {
    let wire = shared.wire.clone();
    tokio::spawn(async move {
        // Whoever missed it asks again.
        _ = tokio::time::timeout(REPLY_PATIENCE, wire.reply(&mut tx, status, headers)).await;
    });
}

/// A request inside a dialog goes to its call.
fn inside(shared: &Arc<Shared>, key: DialogKey, tx: Transaction) {
    let call = shared.dialogs.lock().unwrap_or_else(|e| e.into_inner()).get(&key).cloned();
    let refused = match call {
        // A call that is behind hears it again: the peer repeats what was not answered.
        Some(call) => match call.try_send(tx) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => return,
            Err(mpsc::error::TrySendError::Closed(closed)) => closed,
        },
        None => {
            // An OPTIONS with a tag of a call that is over asks about us all the same.
            if tx.original.method == Method::Options {
                return options(shared, tx);
            }
            tx
        }
    };
    reply(shared, refused, 481, Vec::new());
}

/// A request that begins something.
fn outside(shared: &Arc<Shared>, tx: Transaction, hop: Hop) {
    let request = &tx.original;
    // Known networks, but of a trunk that has just gone: to them we are not here.
    let trunks = shared.trunks_of(request, hop.address.ip());
    if trunks.is_empty() {
        return;
    }
    let hops_left = value(request, "Max-Forwards").and_then(|hops| hops.parse::<u32>().ok());
    if hops_left == Some(0) {
        return reply(shared, tx, 483, Vec::new());
    }
    let status = match request.method {
        Method::Invite => {
            let Some(beginning) = Beginning::of(shared, request) else {
                // The same call by two ways (RFC 3261, section 8.2.2.2).
                return reply(shared, tx, 482, Vec::new());
            };
            let shared = shared.clone();
            tokio::spawn(async move {
                let _beginning = beginning;
                incoming::invited(shared, tx, trunks, hop).await;
            });
            return;
        }
        Method::Options => return options(shared, tx),
        Method::Bye | Method::PRack | Method::Update | Method::Info => 481,
        // Boxes tell of waiting messages without being asked.
        Method::Notify => 489,
        _ => 405,
    };
    reply(shared, tx, status, vec![Header::Allow(ALLOW.into())]);
}

fn options(shared: &Arc<Shared>, tx: Transaction) {
    let mut headers = vec![
        Header::Allow(ALLOW.into()),
        Header::Accept("application/sdp".into()),
        Header::Supported(super::wire::SUPPORTED.join(", ").into()),
    ];
    // The answer is the one that an INVITE would get (RFC 3261, section 11.2).
    let status = match shared.draining() {
        Some(seconds) => {
            headers.push(Header::RetryAfter(seconds.to_string().into()));
            503
        }
        None => 200,
    };
    reply(shared, tx, status, headers);
}

/// An INVITE on its way through us, so that its twin by another way is known.
struct Beginning {
    shared: Arc<Shared>,
    key: (String, String, u32),
}

impl Beginning {
    fn of(shared: &Arc<Shared>, invite: &Request) -> Option<Self> {
        let call = invite.call_id_header().ok()?.value().to_owned();
        let tag = value(invite, "From").and_then(super::dialog::tag_of).unwrap_or_default();
        let sequence = invite.cseq_header().ok()?.seq().ok()?;
        let key = (call, tag, sequence);
        let new = shared.beginning.lock().unwrap_or_else(|e| e.into_inner()).insert(key.clone());
        new.then(|| Beginning { shared: shared.clone(), key })
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        self.shared.beginning.lock().unwrap_or_else(|e| e.into_inner()).remove(&self.key);
    }
}
