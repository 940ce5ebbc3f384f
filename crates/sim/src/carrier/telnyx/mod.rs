//! Telnyx as a real server on a socket: its REST API, its signed webhooks, call control and media streams, strict where Telnyx is.
//! Written from Telnyx's documents alone; it knows nothing of the adapter that is tested against it.

mod account;
mod audio;
mod call;
mod command;
mod conduct;
mod dial;
mod numbers;
mod order;
mod request;
mod rest;
mod server;
mod settings;
mod sign;
mod stream;
mod webhook;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use super::person::Pickup;
use super::phone::{NotInTime, Phone};
use account::{Shelf, target};
use call::{Call, Origin};
use conduct::{Limits, Order};
use numbers::Number;
use order::NumberOrder;
use server::Desk;
use stream::Control;
use webhook::Webhooks;

pub use account::{OwnedApplication, OwnedProfile};
pub use audio::{ByteOrder, Codec};
pub use call::{CallEnd, CallState, Direction, HangupCause, HangupSource};
pub use numbers::OwnedNumber;
pub use order::{ForSale, OrderOutcome};
pub use rest::{ApiKey, Area};
pub use server::{RateLimit, RequestRecord, Trouble};
pub use settings::{AnswerRate, CallOrder, TelnyxSettings};
pub use stream::{AfterLoss, Manners};
pub use webhook::{Delivery, Signing, WebhookRecord};

/// Calls that are kept with their recordings; beyond, the oldest that is over is forgotten.
const MAX_CALLS: usize = 1_000;
/// How long the end of one call is waited for when the simulator stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// A call that came in lasts four hours at most.
const LONGEST_CALL: Duration = Duration::from_secs(14_400);

/// Why a call cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPlaced {
    /// The number is not the account's.
    #[error("{0} is not a number of this account")]
    NotOwned(String),
    /// The number leads to no application that takes calls.
    #[error("{0} leads to no application with a webhook URL")]
    LeadsNowhere(String),
}

/// The simulated Telnyx on its socket; dropping it hangs up all calls and frees the address.
pub struct TelnyxSim {
    sim: Arc<Sim>,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl TelnyxSim {
    /// Starts the server; port 0 takes a free one. Fails where the address cannot be had.
    pub async fn start(listen: SocketAddr, settings: TelnyxSettings) -> std::io::Result<TelnyxSim> {
        // A second provider in the process is refused, and then the first one serves us as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let webhooks = Webhooks::new(settings.proxy.clone()).map_err(std::io::Error::other)?;
        let profiles = |owned: &[OwnedProfile], shelf| owned.iter().map(|owned| owned.on(shelf)).collect();
        let shelves = BTreeMap::from([
            (Shelf::Applications, settings.applications.iter().map(Value::from).collect()),
            (Shelf::MessagingProfiles, profiles(&settings.messaging_profiles, Shelf::MessagingProfiles)),
            (Shelf::VoiceProfiles, profiles(&settings.voice_profiles, Shelf::VoiceProfiles)),
        ]);
        let now = Instant::now();
        let state = State {
            numbers: settings.numbers.iter().map(|owned| Number::new(owned, now)).collect(),
            for_sale: settings.for_sale.clone(),
            shelves,
            ..State::default()
        };
        let sim = Arc::new(Sim {
            settings,
            user_id: new_uuid(),
            webhooks: Arc::new(webhooks),
            state: Mutex::new(state),
            calls_changed: watch::Sender::new(()),
        });
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(server::serve(listener, sim.clone()));
        Ok(TelnyxSim { sim, address, server })
    }

    /// Where the API is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What stands in place of `https://api.telnyx.com/v2`.
    pub fn base_url(&self) -> String {
        format!("http://{}{}", self.address, server::PREFIX)
    }

    /// The account's public key as the portal shows it: 32 bytes in base64.
    pub fn public_key(&self) -> String {
        self.sim.webhooks.public_key()
    }

    /// Places a call from outside to one of the account's numbers; must be called within a tokio runtime.
    pub fn call(&self, order: CallOrder) -> Result<SimCall, NotPlaced> {
        place_inbound(&self.sim, order)
    }

    /// Hangs up all calls, waits until that was told, and frees the address.
    pub async fn stop(self) {
        let calls = self.calls();
        for call in &calls {
            call.call.order(Order::HangUp);
        }
        for call in &calls {
            // A call that does not end in time is dropped with the rest.
            let _ = call.until_over(STOP_LIMIT).await;
        }
    }

    /// A call by its call control id.
    pub fn find_call(&self, control_id: &str) -> Option<SimCall> {
        self.sim.find_call(control_id).map(|call| SimCall { call })
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

    /// Sets what the party at a number or SIP address does when it is called.
    pub fn callee(&self, address: &str, callee: Pickup) {
        self.sim.lock().callees.insert(address.to_owned(), callee);
    }

    /// Takes areas of the API from every key, and gives back those that were taken before.
    pub fn deny(&self, areas: &[Area]) {
        self.sim.lock().denied = areas.to_vec();
    }

    /// What becomes of orders from now on.
    pub fn orders_end(&self, outcome: OrderOutcome) {
        self.sim.lock().order_outcome = outcome;
    }

    /// Puts a number up for sale.
    pub fn sell(&self, number: ForSale) {
        self.sim.lock().for_sale.push(number);
    }

    /// Lets a number lead elsewhere, or nowhere, as somebody would in the portal.
    pub fn lead(&self, e164: &str, connection: Option<&str>) {
        for number in self.sim.lock().numbers.iter_mut().filter(|number| number.e164() == e164) {
            number.connection = connection.map(str::to_owned);
        }
    }

    /// The connection that a number of the account leads to; an outer nothing where it is not the account's.
    pub fn leads_to(&self, e164: &str) -> Option<Option<String>> {
        let state = self.sim.lock();
        let number = state.numbers.iter().find(|number| number.e164() == e164);
        number.map(|number| number.connection.clone())
    }

    /// Every request so far, the oldest first.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.sim.lock().desk.journal().to_vec()
    }

    /// Lets the request with this place in the journal, from 1, meet trouble.
    pub fn trouble_at(&self, number: usize, trouble: Trouble) {
        self.sim.lock().desk.trouble_at(number, trouble);
    }

    /// Lets the next request meet trouble.
    pub fn trouble_next(&self, trouble: Trouble) {
        let mut state = self.sim.lock();
        let number = state.desk.next_number();
        state.desk.trouble_at(number, trouble);
    }

    /// Every request of a webhook so far, the oldest first.
    pub fn webhooks(&self) -> Vec<WebhookRecord> {
        self.sim.webhooks.records()
    }

    /// Waits for the end of the `nth` request of webhooks of this type, the first being 0.
    pub async fn until_webhook(
        &self,
        limit: Duration,
        event_type: &str,
        nth: usize,
    ) -> Result<WebhookRecord, NotInTime> {
        let mut changed = self.sim.webhooks.changes();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                let records = self.webhooks();
                let found = records.into_iter().filter(|record| record.event_type == event_type).nth(nth);
                if let Some(record) = found {
                    return record;
                }
                // The sender lives in `self`, so that this cannot fail.
                let _ = changed.changed().await;
            }
        };
        tokio::time::timeout(limit, waiting).await.map_err(|_| NotInTime::Limit)
    }

    /// Sends the last event of a type again, with its id; false where there was none.
    pub async fn repeat_last_webhook(&self, event_type: &str) -> bool {
        self.sim.webhooks.repeat_last(event_type).await
    }
}

impl Drop for TelnyxSim {
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
    /// `v3:…`
    pub fn control_id(&self) -> &str {
        &self.call.control_id
    }

    /// What the legs of one call have in common.
    pub fn session_id(&self) -> &str {
        &self.call.session_id
    }

    /// The called address.
    pub fn to(&self) -> &str {
        &self.call.to
    }

    /// The calling address.
    pub fn from(&self) -> &str {
        &self.call.from
    }

    /// Who called whom.
    pub fn direction(&self) -> Direction {
        self.call.direction
    }

    /// Where the call stands.
    pub fn state(&self) -> CallState {
        self.call.state()
    }

    /// How it ended.
    pub fn end(&self) -> Option<CallEnd> {
        self.call.end()
    }

    /// The telephone at the far end: the caller's for a call into the account, the called party's otherwise.
    pub fn phone(&self) -> Phone {
        self.call.line.phone()
    }

    /// Breaks the media socket with a TCP reset, and says what Telnyx tells then. The call stays up.
    pub fn lose_socket(&self, then: AfterLoss) -> Result<(), NoStream> {
        let told = self.call.stream().is_some_and(|stream| stream.tell(Control::Lose(then)));
        if told { Ok(()) } else { Err(NoStream) }
    }

    /// Waits until the state is as wished.
    pub async fn until_state(
        &self,
        limit: Duration,
        wished: impl Fn(CallState) -> bool,
    ) -> Result<CallState, NotInTime> {
        self.call.until_state(limit, wished).await
    }

    /// Waits for the end of the call.
    pub async fn until_over(&self, limit: Duration) -> Result<CallEnd, NotInTime> {
        self.until_state(limit, |state| state == CallState::Over).await?;
        self.end().ok_or(NotInTime::CallOver)
    }
}

/// What the parts of the simulator share.
struct Sim {
    settings: TelnyxSettings,
    user_id: String,
    webhooks: Arc<Webhooks>,
    state: Mutex<State>,
    calls_changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    desk: Desk,
    denied: Vec<Area>,
    numbers: Vec<Number>,
    shelves: BTreeMap<Shelf, Vec<Value>>,
    for_sale: Vec<ForSale>,
    orders: Vec<NumberOrder>,
    order_outcome: OrderOutcome,
    calls: Vec<Arc<Call>>,
    callees: BTreeMap<String, Pickup>,
    /// When calls were dialled lately.
    departures: VecDeque<Instant>,
    /// Which calls were dialled by which `command_id`.
    dials: Vec<(Instant, String, Arc<Call>)>,
}

impl Sim {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn find_call(&self, control_id: &str) -> Option<Arc<Call>> {
        self.lock().calls.iter().rev().find(|call| call.control_id == control_id).cloned()
    }

    fn add_call(&self, call: Arc<Call>) {
        let mut state = self.lock();
        if state.calls.len() >= MAX_CALLS
            && let Some(over) = state.calls.iter().position(|call| call.end().is_some())
        {
            state.calls.remove(over);
        }
        state.calls.push(call);
        drop(state);
        self.calls_changed.send_replace(());
    }

    fn callee_at(&self, address: &str) -> Pickup {
        self.lock().callees.get(address).copied().unwrap_or(self.settings.callee)
    }

    /// A thing on a shelf by its id.
    fn thing(&self, shelf: Shelf, id: &str) -> Option<Value> {
        let state = self.lock();
        state.shelves.get(&shelf)?.iter().find(|thing| thing["id"] == id).cloned()
    }

    /// The name of an application or another connection.
    fn connection_name(&self, id: &str) -> Option<String> {
        let other = self.settings.connections.iter().find(|(known, _)| known == id);
        other
            .map(|(_, name)| name.clone())
            .or_else(|| self.thing(Shelf::Applications, id)?["application_name"].as_str().map(str::to_owned))
    }
}

fn place_inbound(sim: &Arc<Sim>, order: CallOrder) -> Result<SimCall, NotPlaced> {
    if !sim.lock().numbers.iter().any(|number| number.e164() == order.to) {
        return Err(NotPlaced::NotOwned(order.to));
    }
    let application = numbers::application_of(sim, &order.to);
    let hooks = application.as_ref().and_then(target);
    let (Some(application), Some(hooks)) = (application, hooks) else {
        return Err(NotPlaced::LeadsNowhere(order.to));
    };
    let settings = &sim.settings;
    let origin = Origin {
        session: None,
        connection: application["id"].as_str().unwrap_or_default().to_owned(),
        direction: Direction::Incoming,
        from: order.from,
        to: order.to,
        caller_name: order.caller_name,
        client_state: None,
        target: hooks,
        signing: order.signing.unwrap_or(settings.signing),
        delivery: order.delivery.unwrap_or(settings.delivery),
        manners: order.manners.unwrap_or(settings.manners),
        tells_cost: application["call_cost_in_webhooks"] == true,
    };
    let waits = application["first_command_timeout"] == true;
    let wait_s = application["first_command_timeout_secs"].as_u64().unwrap_or(30);
    let limits = Limits { first_command: waits.then(|| Duration::from_secs(wait_s)), whole: LONGEST_CALL };
    let (call, orders) = Call::new(sim, origin);
    sim.add_call(call.clone());
    call.tell_initiated("parked");
    tokio::spawn(conduct::conduct(sim.clone(), call.clone(), orders, limits));
    Ok(SimCall { call })
}

fn new_uuid() -> String {
    let random: u128 = rand::random();
    let hex = format!("{random:032x}");
    // The marks of a random UUID (RFC 9562, version 4).
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

/// A number beyond 2^53, which JSON readers that take it for one would not keep.
fn new_big_id() -> String {
    (1_200_000_000_000_000_000 + rand::random::<u64>() % 1_000_000_000_000_000_000).to_string()
}

/// What stands behind the version in the id of a call.
fn random_text() -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(rand::random::<[u8; 36]>())
}

/// RFC 3339 with microseconds, as the events have it.
fn timestamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_shapes_of_telnyx() {
        let uuid = new_uuid();
        assert_eq!((uuid.len(), uuid.matches('-').count(), &uuid[14..15]), (36, 4, "4"));
        assert!(new_big_id().parse::<u64>().unwrap() > 1 << 53);
        assert_eq!(timestamp("2025-11-21T09:00:00.5Z".parse().unwrap()), "2025-11-21T09:00:00.500000Z");
    }
}
