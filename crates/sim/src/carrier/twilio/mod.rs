//! Twilio as a real server on a socket: its REST API, its webhooks, its documents and its media streams, strict where Twilio is.
//! Written from Twilio's documents alone; it knows nothing of the adapter that is tested against it.

mod alert;
mod call;
mod conference;
mod console;
mod control;
mod dial;
mod execute;
mod faults;
mod number;
mod rest;
mod sign;
mod stock;
mod stream;
mod twiml;
mod webhook;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use offhook_core::Secret;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use super::person::{People, Person, Pickup};
use super::phone::{NotInTime, Party, Phone};
use super::robot::CallerStep;
use call::{Call, Order, Origin, StatusHook};
use conference::Room;
use execute::Next;
use faults::{Journal, Wire, Wires};
use number::Number;
use rest::{Service, Trunk};
use twiml::Complaint;
use webhook::{Request, WebhookFailure as Failure, Webhooks};

pub use super::network::Proxy;
pub use alert::{Alert, AlertRequest};
pub use call::{CallStatus, CallbackDelivery, Direction};
pub use conference::ConferenceStatus;
pub use console::NotChanged;
pub use faults::{RestFaults, RestRecord, RestTrouble, Which};
pub use number::{AddressRequirement, Capabilities, NumberState, OwnedNumber};
pub use rest::{ApiKey, Area, KeyKind};
pub use stock::{ForSale, NumberKind, Place};
pub use stream::Network;
pub use webhook::{Signing, WebhookFailure, WebhookKind, WebhookRecord};

const MAX_ALERTS: usize = 10_000;
/// Calls that are kept with their recordings; beyond, the oldest that is over is forgotten.
const MAX_CALLS: usize = 1_000;

/// What the simulated account is and how the carrier behaves.
#[derive(Clone, Debug)]
pub struct TwilioSettings {
    /// `AC` and 32 hexadecimal digits.
    pub account_sid: String,
    /// The account's primary token: it signs webhooks and opens the REST API.
    pub auth_token: Secret<String>,
    /// API keys beside the token.
    pub keys: Vec<ApiKey>,
    /// Numbers that the account owns.
    pub numbers: Vec<OwnedNumber>,
    /// Numbers that can be bought.
    pub stock: Vec<ForSale>,
    /// Whether it is a trial account, which may own one number.
    pub trial: bool,
    /// Whether a search names capabilities `SMS` and `MMS`, as some real answers do.
    pub upper_case_capabilities: bool,
    /// The region where the credentials are valid: a host name of another one answers 401.
    pub region: String,
    /// Outgoing calls a second; more wait in the queue.
    pub calls_per_second: f64,
    /// How long the carrier's own voice takes for one character.
    pub say_ms_per_character: u64,
    /// How long a sound file takes: it is not fetched.
    pub play_ms: u64,
    /// What a called party does that no [`TwilioSim::callee`] was set for.
    pub callee: Callee,
    /// What happens when a media socket breaks without our doing.
    pub after_loss: AfterLoss,
    /// How status callbacks of outgoing calls arrive.
    pub callbacks: CallbackDelivery,
    /// How the network of called parties treats audio.
    pub network: Network,
    /// Whether `:443` and `:80` are written into signed URLs that have no port.
    pub signs_default_port: bool,
    /// What stands in front of the server.
    pub proxy: Option<Proxy>,
}

impl Default for TwilioSettings {
    fn default() -> TwilioSettings {
        TwilioSettings {
            account_sid: "AC00000000000000000000000000000001".into(),
            auth_token: Secret::new("0123456789abcdef0123456789abcdef".into()),
            keys: Vec::new(),
            numbers: Vec::new(),
            stock: ForSale::assortment(),
            trial: false,
            upper_case_capabilities: false,
            region: "us1".into(),
            calls_per_second: 1.0,
            say_ms_per_character: 60,
            play_ms: 2_000,
            callee: Callee::default(),
            after_loss: AfterLoss::default(),
            callbacks: CallbackDelivery::default(),
            network: Network::default(),
            signs_default_port: false,
            proxy: None,
        }
    }
}

/// What a called party does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "does", rename_all = "snake_case")]
pub enum Callee {
    /// Picks up.
    Answers {
        /// Time to the answer.
        after_ms: u64,
    },
    /// Is on another call, or declines.
    Busy {
        /// Time to the busy signal.
        after_ms: u64,
    },
    /// Lets it ring until the call's own timeout.
    NoAnswer,
    /// Cannot be reached.
    Fails,
}

impl Default for Callee {
    fn default() -> Callee {
        Callee::Answers { after_ms: 200 }
    }
}

impl From<Pickup> for Callee {
    fn from(pickup: Pickup) -> Callee {
        match pickup {
            Pickup::Answers { after_ms } | Pickup::Machine { after_ms } => Callee::Answers { after_ms },
            Pickup::Busy { after_ms } | Pickup::Rejects { after_ms } => Callee::Busy { after_ms },
            Pickup::NoAnswer => Callee::NoAnswer,
            Pickup::NotFound => Callee::Fails,
        }
    }
}

/// What follows when a media socket is lost without a close: Twilio's documents do not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterLoss {
    /// The action of `<Connect>` is asked, or the next verb runs where there is none.
    #[default]
    Action,
    /// The next verb runs, whether there is an action or not.
    NextVerb,
    /// Nothing runs until the call is redirected by REST.
    Nothing,
}

/// A call to place into the customer's number.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallOrder {
    /// One of the account's numbers.
    pub to: String,
    /// Who calls: `+…`, `anonymous`, `client:…` or `sip:…`.
    pub from: String,
    /// The number that diverted the call, where its carrier tells.
    #[serde(default)]
    pub forwarded_from: Option<String>,
    /// The name from a caller-name lookup.
    #[serde(default)]
    pub caller_name: Option<String>,
    /// How this call's requests are signed.
    #[serde(default)]
    pub signing: Signing,
    /// How this call's status callbacks arrive.
    #[serde(default)]
    pub callbacks: CallbackDelivery,
    /// How the caller's network treats audio.
    #[serde(default)]
    pub network: Network,
    /// Parameters that are added to every webhook of this call; a name may repeat.
    #[serde(default)]
    pub extra_params: Vec<(String, String)>,
}

impl CallOrder {
    /// A plain call.
    pub fn new(to: impl Into<String>, from: impl Into<String>) -> CallOrder {
        CallOrder {
            to: to.into(),
            from: from.into(),
            forwarded_from: None,
            caller_name: None,
            signing: Signing::default(),
            callbacks: CallbackDelivery::default(),
            network: Network::default(),
            extra_params: Vec::new(),
        }
    }
}

/// Why a call cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPlaced {
    /// The number is not the account's.
    #[error("{0} is not a number of this account")]
    NotOwned(String),
    /// Too many calls are open.
    #[error("{MAX_CALLS} calls are open and no more are taken")]
    TooMany,
}

/// Whether the account may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountStatus {
    /// It may.
    #[default]
    Active,
    /// Stopped by Twilio; can come back.
    Suspended,
    /// Over.
    Closed,
}

/// The simulated Twilio on its socket; dropping it hangs up all calls and frees the address.
pub struct TwilioSim {
    sim: Arc<Sim>,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl TwilioSim {
    /// Starts the server; port 0 takes a free one. Fails where the address cannot be had.
    pub async fn start(listen: SocketAddr, settings: TwilioSettings) -> std::io::Result<TwilioSim> {
        // A second provider in the process is refused, and then the first one serves us as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let webhooks =
            Webhooks::new(settings.auth_token.clone(), settings.signs_default_port, settings.proxy.clone())
                .map_err(std::io::Error::other)?;
        let state = State {
            numbers: settings.numbers.iter().map(Number::from).collect(),
            stock: settings.stock.clone(),
            ..State::default()
        };
        let sim = Arc::new(Sim {
            settings,
            webhooks: Arc::new(webhooks),
            state: Mutex::new(state),
            calls_changed: watch::Sender::new(()),
            requests_changed: watch::Sender::new(()),
        });
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let router = rest::router().merge(control::router()).with_state(sim.clone());
        let router = router.into_make_service_with_connect_info::<Wire>();
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(Wires(listener), router).await {
                tracing::error!(%error, "Simulated Twilio stopped serving");
            }
        });
        Ok(TwilioSim { sim, address, server })
    }

    /// Where the REST API and the control API are served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What stands in place of `https://api.twilio.com`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Places a call from outside to one of the account's numbers; must be called within a tokio runtime.
    pub fn call(&self, order: CallOrder) -> Result<SimCall, NotPlaced> {
        place_inbound(&self.sim, order)
    }

    /// A call by its SID: of a caller, of the REST API, or a leg of a `<Dial>`.
    pub fn find_call(&self, sid: &str) -> Option<SimCall> {
        self.sim.find_call(sid).map(|call| SimCall { call })
    }

    /// All calls, the oldest first.
    pub fn calls(&self) -> Vec<SimCall> {
        self.sim.lock().calls.iter().map(|call| SimCall { call: call.clone() }).collect()
    }

    /// Waits for a call to `to` whose number is `nth`, the first being 0.
    pub async fn until_called(&self, limit: Duration, to: &str, nth: usize) -> Result<SimCall, NotInTime> {
        let mut changed = self.sim.calls_changed.subscribe();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                let found = self.calls().into_iter().filter(|call| call.to() == to).nth(nth);
                if let Some(call) = found {
                    return call;
                }
                // The sender lives in `self`, so that this cannot fail.
                let _ = changed.changed().await;
            }
        };
        tokio::time::timeout(limit, waiting).await.map_err(|_| NotInTime::Limit)
    }

    /// Sets what the party at a number does when it is called.
    pub fn callee(&self, number: &str, callee: Callee) {
        self.sim.lock().callees.insert(number.to_owned(), callee);
    }

    /// Sets who has a number: what they do when it rings, and after that.
    pub fn person(&self, number: &str, person: Person) {
        self.sim.lock().people.set(number, person);
    }

    /// Sets who is at a number the first time it rings, the second time and so on; the last one stays.
    pub fn people(&self, number: &str, people: Vec<Person>) {
        self.sim.lock().people.set_all(number, people);
    }

    /// The conferences of a name with how they stand and the SIDs of the calls in them, the oldest first.
    pub fn conferences(&self, name: &str) -> Vec<(ConferenceStatus, Vec<String>)> {
        let rooms = self.sim.lock().rooms.clone();
        let named = rooms.iter().filter(|room| room.name == name);
        named
            .map(|room| {
                let facts = room.lock();
                (facts.status, facts.members.iter().map(|member| member.call.sid.clone()).collect())
            })
            .collect()
    }

    /// Every webhook sent so far, the oldest first.
    pub fn webhooks(&self) -> Vec<WebhookRecord> {
        self.sim.webhooks.records()
    }

    /// Sends the last webhook of a kind again, with the same idempotency token; nothing where there was none.
    pub async fn repeat_last_webhook(&self, kind: WebhookKind) -> Option<Result<(), WebhookFailure>> {
        Some(self.sim.webhooks.repeat_last(kind).await?.map(|_| ()))
    }

    /// Posts a JSON event with its hash in the signed URL; the HTTP status of the answer.
    pub async fn send_event(&self, url: &str, json: &str, signing: Signing) -> Result<u16, WebhookFailure> {
        self.sim.webhooks.send_json(url, json, signing).await
    }

    /// What the debugger shows, the oldest first.
    pub fn alerts(&self) -> Vec<Alert> {
        self.sim.lock().alerts.iter().cloned().collect()
    }
}

impl Drop for TwilioSim {
    fn drop(&mut self) {
        self.server.abort();
        for call in &self.sim.lock().calls {
            call.order(Order::HangUp);
        }
    }
}

/// One call as the person at its far end has it.
#[derive(Clone)]
pub struct SimCall {
    call: Arc<Call>,
}

/// The call has no media socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the call has no media socket to lose")]
pub struct NoStream;

impl SimCall {
    /// `CA` and 32 hexadecimal digits.
    pub fn sid(&self) -> &str {
        &self.call.sid
    }

    /// The called address.
    pub fn to(&self) -> &str {
        &self.call.to
    }

    /// The calling address.
    pub fn from(&self) -> &str {
        &self.call.from
    }

    /// Where the call stands.
    pub fn status(&self) -> CallStatus {
        self.call.status()
    }

    /// The telephone at the far end: the caller's for a call into the account, the called party's otherwise.
    pub fn phone(&self) -> Phone {
        self.call.line.phone()
    }

    /// Breaks the media socket with a TCP reset, and says what Twilio does then.
    pub fn lose_socket(&self, then: AfterLoss) -> Result<(), NoStream> {
        self.call.lose_stream(then).map_err(|()| NoStream)
    }

    /// Waits until the status is as wished.
    pub async fn until_status(
        &self,
        limit: Duration,
        wished: impl Fn(CallStatus) -> bool,
    ) -> Result<CallStatus, NotInTime> {
        self.call.until_status(limit, wished).await
    }

    /// Waits for the end of the call.
    pub async fn until_over(&self, limit: Duration) -> Result<CallStatus, NotInTime> {
        self.until_status(limit, CallStatus::is_final).await
    }
}

/// What the parts of the simulator share.
struct Sim {
    settings: TwilioSettings,
    webhooks: Arc<Webhooks>,
    state: Mutex<State>,
    calls_changed: watch::Sender<()>,
    requests_changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    account_status: AccountStatus,
    numbers: Vec<Number>,
    stock: Vec<ForSale>,
    /// Of what a number was sold, so that its search stays one that exists.
    sold: Vec<(String, NumberKind)>,
    /// Numbers given back that lists still show, and in how many.
    released: Vec<(Number, u32)>,
    list_lag: u32,
    trunks: Vec<Trunk>,
    services: Vec<Service>,
    calls: Vec<Arc<Call>>,
    rooms: Vec<Arc<Room>>,
    callees: BTreeMap<String, Callee>,
    people: People,
    alerts: VecDeque<Alert>,
    rest_faults: RestFaults,
    journal: Journal,
    /// When the queue of outgoing calls lets the next one go.
    next_departure: Option<Instant>,
}

impl Sim {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn find_call(&self, sid: &str) -> Option<Arc<Call>> {
        self.lock().calls.iter().rev().find(|call| call.sid == sid).cloned()
    }

    fn add_call(&self, call: Arc<Call>) -> Result<(), NotPlaced> {
        let mut state = self.lock();
        if state.calls.len() >= MAX_CALLS {
            let over = state.calls.iter().position(|call| call.status().is_final());
            state.calls.remove(over.ok_or(NotPlaced::TooMany)?);
        }
        state.calls.push(call);
        drop(state);
        self.calls_changed.send_replace(());
        Ok(())
    }

    /// What the party does that is called now, and what they do once they have picked up.
    fn callee_at(&self, number: &str) -> (Callee, Arc<[CallerStep]>) {
        let mut state = self.lock();
        let own = state.numbers.iter().find(|owned| owned.e164 == number);
        if own.is_some_and(|owned| owned.voice_hook().is_none()) {
            // A number of one's own without a voice URL fails at once and without a word.
            return (Callee::Fails, Arc::default());
        }
        if let Some(person) = state.people.ring(number) {
            return (person.pickup.into(), person.script);
        }
        (state.callees.get(number).copied().unwrap_or(self.settings.callee), Arc::default())
    }

    fn owns(&self, number: &str) -> bool {
        self.lock().numbers.iter().any(|owned| owned.e164 == number)
    }

    fn alert(&self, call_sid: &str, complaint: Complaint) {
        self.raise(call_sid, complaint.code, complaint.message, None);
    }

    /// A webhook of a call brought nothing.
    fn webhook_failed(&self, call_sid: &str, failure: &Failure, request: &Request) {
        self.raise(call_sid, failure.code, failure.message.clone(), Some(request.into()));
    }

    fn raise(&self, call_sid: &str, code: u32, message: String, request: Option<AlertRequest>) {
        tracing::warn!(call.sid = call_sid, code, message, "Simulated Twilio raised an alert");
        let (sid, at, call_sid) = (new_sid("NO"), Timestamp::now(), call_sid.to_owned());
        let mut state = self.lock();
        if state.alerts.len() == MAX_ALERTS {
            state.alerts.pop_front();
        }
        state.alerts.push_back(Alert { sid, at, code, message, call_sid, request });
    }
}

fn place_inbound(sim: &Arc<Sim>, order: CallOrder) -> Result<SimCall, NotPlaced> {
    let number = sim.lock().numbers.iter().find(|number| number.e164 == order.to).cloned();
    let Some(number) = number else { return Err(NotPlaced::NotOwned(order.to)) };
    let origin = Origin {
        parent: None,
        direction: Direction::Inbound,
        to: order.to,
        from: order.from,
        forwarded_from: order.forwarded_from,
        caller_name: order.caller_name,
        number_sid: Some(number.sid.clone()),
        signing: order.signing,
        network: order.network,
        extra_params: order.extra_params,
    };
    let status_hook =
        number.status_hook().map(|hook| StatusHook { hook, events: StatusHook::only_the_end() });
    let (call, orders) = Call::new(sim, origin, status_hook, order.callbacks);
    sim.add_call(call.clone())?;
    call.move_to(CallStatus::Ringing);
    match number.voice_hook() {
        Some(hook) => {
            let next = Next::Fetch { hook, params: Vec::new() };
            tokio::spawn(execute::conduct(sim.clone(), call.clone(), orders, next, number.fallback_hook()));
        }
        None => call.finish(CallStatus::Failed, Party::Carrier),
    }
    Ok(SimCall { call })
}

fn random_hex() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn new_sid(prefix: &str) -> String {
    format!("{prefix}{}", random_hex())
}

fn rfc2822(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_rfc_2822_in_gmt() {
        assert_eq!(rfc2822("2010-08-31T20:36:28Z".parse().unwrap()), "Tue, 31 Aug 2010 20:36:28 +0000");
    }

    #[test]
    fn sids_have_34_characters() {
        assert_eq!((new_sid("CA").len(), &new_sid("CA")[..2]), (34, "CA"));
    }
}
