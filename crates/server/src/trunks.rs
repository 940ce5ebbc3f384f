//! SIP trunks: keeps the user agent in step with the connections in the store, and brings its callers in. It does not know what is
//! said to them.

use crate::app::App;
use crate::call::arrive;
use crate::call::line::Line;
use crate::call::registry::{Handle, Letter, Onward};
use crate::call::welcome::Welcome;
use crate::carrier::CarrierControl;
use crate::carrier::sip::SipLeg;
use crate::problem::{Kind, Problem, chain};
use offhook_carriers::sip::{
    Contested, EndedBy, Incoming, Listening, Rejection, RtpEvent, SipCall, SipError, SipEvent, Trunk,
    TrunkId, TrunkState, UserAgent,
};
use offhook_core::call::Input;
use offhook_core::entity::{Connection, ConnectionStatus};
use offhook_core::{ConnectionId, E164, Secret};
use offhook_store::{RingTarget, StoreError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;

/// How often the store is asked which trunks there are.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Callers that may wait for us; who comes when so many wait is told to try again.
const EVENTS_QUEUE: usize = 256;
/// How often it is looked whether the call of a caller who is held can go on.
const HOLD: Duration = Duration::from_secs(1);
/// The mark behind an apology, and how long it may sound.
const APOLOGISED: &str = "apologised";
const APOLOGY: Duration = Duration::from_secs(10);
/// When callers are to try again while this process stops, in seconds.
const RETRY_AFTER_S: u32 = 5;

/// The trunks of this process.
#[derive(Default)]
pub struct Trunks {
    agent: OnceLock<UserAgent>,
    states: Mutex<HashMap<ConnectionId, TrunkState>>,
    /// Connections were changed here.
    changed: Notify,
}

impl std::fmt::Debug for Trunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trunks").field("states", &self.states()).finish_non_exhaustive()
    }
}

impl Trunks {
    /// The user agent, where this process listens for SIP.
    pub fn agent(&self) -> Option<&UserAgent> {
        self.agent.get()
    }

    /// How a connection's trunk is; `None`: it was not told yet.
    pub fn state(&self, connection: &ConnectionId) -> Option<TrunkState> {
        self.states().get(connection).cloned()
    }

    /// Takes no new calls and takes leave of registrars: the process ends.
    pub async fn stop(&self) {
        if let Some(agent) = self.agent() {
            agent.stop().await;
        }
    }

    /// A connection was made, changed or removed: the user agent is told at once.
    pub fn look(&self) {
        self.changed.notify_one();
    }

    fn states(&self) -> MutexGuard<'_, HashMap<ConnectionId, TrunkState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection as a trunk; `None` where its settings are none.
pub fn trunk(connection: &Connection, password: Option<Secret<String>>) -> Option<Trunk> {
    let settings = serde_json::from_value(connection.config.clone()).ok()?;
    Some(Trunk { id: TrunkId(connection.id.to_string()), settings, password })
}

/// Begins to listen for SIP, and goes on in tasks of its own until the process stops.
///
/// # Errors
/// When an address cannot be listened on, or the certificate is none.
pub async fn start(app: &Arc<App>, listening: Listening) -> Result<(), SipError> {
    let (events, told) = mpsc::channel(EVENTS_QUEUE);
    let agent = UserAgent::start(listening, Vec::new(), events).await?;
    let agent = app.trunks.agent.get_or_init(|| agent).clone();
    tokio::spawn(listen(app.clone(), told));
    tokio::spawn(keep(app.clone(), agent));
    Ok(())
}

/// Keeps the user agent in step with the store, until the process takes no more calls.
async fn keep(app: Arc<App>, agent: UserAgent) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.trunks.changed.notified() => {}
        }
        measure(&agent);
        if app.around.registry.is_draining() {
            return;
        }
        match app.store.connections_of_kind("sip").await {
            Ok(connections) => {
                silent = false;
                agent.set_trunks(
                    connections.iter().filter_map(|(one, secret)| trunk(one, secret.clone())).collect(),
                );
            }
            Err(error) if !std::mem::replace(&mut silent, true) => {
                tracing::warn!(
                    error = chain(&error),
                    "SIP trunks stay as they were: the store does not tell"
                );
            }
            // Told when it began.
            Err(_) => {}
        }
    }
}

/// Tells the metrics how punctual audio is sent.
fn measure(agent: &UserAgent) {
    let sent = agent.lateness();
    metrics::counter!("offhook_rtp_packets_sent_total").absolute(sent.packets);
    for (quantile, us) in [("0.5", sent.p50_us), ("0.99", sent.p99_us), ("1", sent.most_us)] {
        metrics::gauge!("offhook_rtp_send_lateness_us", "quantile" => quantile).set(us as f64);
    }
}

async fn listen(app: Arc<App>, mut told: mpsc::Receiver<SipEvent>) {
    while let Some(event) = told.recv().await {
        match event {
            SipEvent::Rings(incoming) => {
                tokio::spawn(receive(app.clone(), incoming));
            }
            SipEvent::Contested(contested) => {
                tokio::spawn(settle(app.clone(), contested));
            }
            SipEvent::Trunk { id, state } => {
                match &state {
                    TrunkState::Down { reason } => {
                        tracing::warn!(trunk.id = %id, reason, "SIP trunk is down")
                    }
                    TrunkState::Up | TrunkState::Registered { .. } => {
                        tracing::info!(trunk.id = %id, ?state, "SIP trunk is up");
                    }
                }
                if let Ok(connection) = id.0.parse() {
                    note(&app, &connection, &state).await;
                    app.trunks.states().insert(connection, state);
                }
            }
        }
    }
}

/// Says which of several connections at one carrier a call belongs to: the oldest that has the number that each reads.
async fn settle(app: Arc<App>, contested: Contested) {
    for (at, (_, called)) in contested.trunks.iter().enumerate() {
        let Some(number) = called else { continue };
        if contested.trunks[..at].iter().any(|(_, asked)| asked == called) {
            continue;
        }
        let targets = match app.store.numbers_for_ring("sip", None, number).await {
            Ok(targets) => targets,
            Err(error) => {
                tracing::error!(error = chain(&error), "Whose call it is remains open: the store failed");
                return;
            }
        };
        let chosen = targets.iter().find_map(|target| {
            let id = TrunkId(target.connection.id.to_string());
            contested.trunks.iter().any(|one| one.0 == id && one.1 == *called).then_some(id)
        });
        if let Some(id) = chosen {
            return contested.choose(id);
        }
    }
}

/// Somebody rings over a trunk: they hear it ring until it is decided what becomes of them.
async fn receive(app: Arc<App>, incoming: Incoming) {
    let target = match target(&app, &incoming).await {
        Ok(Some(target)) => target,
        Ok(None) => return incoming.reject(Rejection::UnknownNumber),
        Err(error) => {
            tracing::error!(error = chain(&error), "A caller is turned away: the store failed");
            return incoming.reject(Rejection::Draining { retry_after_s: RETRY_AFTER_S });
        }
    };
    incoming.ringing();
    let leg = Arc::new(SipLeg::ringing(incoming.coding()));
    let carrier = CarrierControl::Sip(leg.clone());
    loop {
        if app.around.registry.is_draining() {
            return incoming.reject(Rejection::Draining { retry_after_s: RETRY_AFTER_S });
        }
        match arrive::ring(&app, &target, &incoming.ring, &carrier).await {
            Ok(Welcome::Talk(handle)) => return talk(&leg, incoming, &handle).await,
            Ok(Welcome::Forward(to)) => return forward(incoming, &to).await,
            // A trunk has no voice that could say a text of ours.
            Ok(Welcome::Busy | Welcome::Message(_)) => return incoming.reject(Rejection::Busy),
            Ok(Welcome::Sorry) => return apologise(&app, incoming).await,
            Ok(Welcome::Declined | Welcome::Over) => return incoming.reject(Rejection::Inactive),
            Ok(Welcome::Hold) => {}
            Err(error) => tracing::error!(error = chain(&error), "A caller is held: the store failed"),
        }
        tokio::select! {
            () = incoming.cancelled() => return,
            () = tokio::time::sleep(HOLD) => {}
        }
    }
}

/// Writes down how a trunk is, for whoever looks at its connection.
async fn note(app: &App, connection: &ConnectionId, state: &TrunkState) {
    let (status, reason) = match state {
        TrunkState::Up | TrunkState::Registered { .. } => (ConnectionStatus::Active, None),
        TrunkState::Down { reason } => (ConnectionStatus::Error, Some(reason.as_str())),
    };
    if let Err(error) = app.store.note_connection(connection, status, reason).await {
        tracing::warn!(trunk.id = %connection, error = chain(&error), "How a SIP trunk is could not be written down");
    }
}

/// Asks a trunk's host whether it lives, or its registrar whether the password is right, where that may be asked.
///
/// # Errors
/// A sentence for the user, with what to do.
pub async fn probe(
    app: &App,
    connection: &Connection,
    password: Option<Secret<String>>,
) -> Result<(), Problem> {
    let trunk = trunk(connection, password)
        .ok_or_else(|| Problem::invalid("config", "these are no settings of a trunk"))?;
    let Some(agent) = app.trunks.agent() else {
        let wrong = "this server does not listen for SIP, so no call reaches the trunk";
        let fix = "set an address under [sip] in the settings, then start the server again";
        return Err(Problem::new(Kind::Conflict, wrong, fix));
    };
    if !trunk.settings.register && trunk.settings.options_s == 0 {
        return Ok(());
    }
    match agent.probe(&trunk).await.error() {
        None => Ok(()),
        Some(error) => Err(error.into()),
    }
}

/// Whom a call belongs to: the number that was called, or else the only one behind the trunk, as calls to an extension name none.
async fn target(app: &App, incoming: &Incoming) -> Result<Option<RingTarget>, StoreError> {
    let Ok(connection) = incoming.trunk.0.parse::<ConnectionId>() else { return Ok(None) };
    if let Some(called) = &incoming.called {
        let targets = app.store.numbers_for_ring("sip", None, called).await?;
        return Ok(targets.into_iter().find(|target| target.connection.id == connection));
    }
    let mut behind = app.store.numbers_behind(&connection).await?;
    Ok(if behind.len() == 1 { behind.pop() } else { None })
}

/// Picks up, and gives the line to the call.
async fn talk(leg: &SipLeg, incoming: Incoming, handle: &Arc<Handle>) {
    match incoming.answer().await {
        Ok((call, line)) => {
            leg.answered(call.clone());
            // Its driver may have ended while the other side took its time to acknowledge.
            if handle.is_over() {
                return call.hang_up().await;
            }
            handle.tell(Letter::Line(Box::new(Line::sip(line, leg.coding()))));
            tokio::spawn(ended(call, handle.clone()));
        }
        // Who gave up while it rang, has hung up.
        Err(SipError::CallOver) => handle.tell(Letter::Fact(Input::HungUp { by_caller: true })),
        Err(error) => {
            tracing::error!(call.id = %handle.id, error = chain(&error), "A call could not be answered");
            handle.tell(Letter::NoMedia);
        }
    }
}

/// Picks up, says that we are sorry in the voice that needs no provider, and hangs up.
async fn apologise(app: &App, incoming: Incoming) {
    let (call, mut line) = match incoming.answer().await {
        Ok(answered) => answered,
        Err(error) => {
            tracing::warn!(error = chain(&error), "A caller could not be told that we are sorry");
            return;
        }
    };
    line.play(&app.canned_apology.coded(line.coding()));
    line.mark(APOLOGISED);
    let played = async {
        loop {
            match line.next().await {
                RtpEvent::Mark(_) | RtpEvent::Stopped => return,
                RtpEvent::Audio | RtpEvent::Key(_) => {}
            }
        }
    };
    let _ = tokio::time::timeout(APOLOGY, played).await;
    call.hang_up().await;
}

/// Tells the driver when the call is over.
async fn ended(call: SipCall, handle: Arc<Handle>) {
    match call.ended().await.by {
        EndedBy::Silence => handle.tell(Letter::NoMedia),
        by => {
            let by_caller = by == EndedBy::Them && handle.onward() == Onward::MediaAgain;
            handle.tell(Letter::Fact(Input::HungUp { by_caller }));
        }
    }
}

/// Has a caller whom none of ours answers call another phone: that takes a call that was answered.
async fn forward(incoming: Incoming, to: &E164) {
    let call = match incoming.answer().await {
        // Nobody talks on the line meanwhile.
        Ok((call, _line)) => call,
        Err(error) => {
            tracing::warn!(error = chain(&error), "A caller could not be forwarded");
            return;
        }
    };
    if let Err(error) = call.refer(to).await {
        tracing::warn!(
            error = chain(&error),
            "A caller could not be forwarded: it needs a trunk that takes REFER"
        );
    }
    call.hang_up().await;
}
