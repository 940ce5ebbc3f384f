//! One leg as Telnyx keeps it: who is told of it, what is known of it, what was commanded already, and its line.
//! It does not know what runs on it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::super::phone::{Line, NotInTime, Party};
use super::conduct::Order;
use super::stream::{Manners, StreamHandle};
use super::webhook::{Delivery, Event, Signing, Target};
use super::{Sim, new_uuid, random_text, timestamp};

/// Orders that a call may have waiting; more than a few is already a race of the customer's.
const MAX_ORDERS: usize = 64;
/// For so long a `command_id` that comes again is ignored.
const COMMAND_MEMORY: Duration = Duration::from_secs(60);

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// Rings: parked until it is commanded, or on its way to the called party.
    Ringing,
    /// Was answered.
    Answered,
    /// Is over.
    Over,
}

/// Who called whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From outside to a number of the account.
    Incoming,
    /// By the API.
    Outgoing,
}

/// Why a call ended, in the words of `call.hangup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HangupCause {
    /// Somebody declined it.
    CallRejected,
    /// Somebody hung up.
    NormalClearing,
    /// The caller gave up before an answer.
    OriginatorCancel,
    /// It rang too long.
    Timeout,
    /// It lasted as long as it was allowed to.
    TimeLimit,
    /// The called party was busy.
    UserBusy,
    /// There is no such party.
    NotFound,
    /// Nobody answered.
    NoAnswer,
    /// Something else.
    Unspecified,
}

impl HangupCause {
    fn sip(self) -> &'static str {
        match self {
            HangupCause::CallRejected => "603",
            HangupCause::NormalClearing | HangupCause::TimeLimit => "200",
            HangupCause::OriginatorCancel | HangupCause::Timeout => "487",
            HangupCause::UserBusy => "486",
            HangupCause::NotFound => "404",
            HangupCause::NoAnswer => "480",
            HangupCause::Unspecified => "500",
        }
    }
}

/// Who ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HangupSource {
    /// Who called.
    Caller,
    /// Who was called.
    Callee,
    /// Neither.
    Unknown,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CallEnd {
    /// Why.
    pub cause: HangupCause,
    /// By whom.
    pub source: HangupSource,
}

/// What is decided about a call before it begins.
pub(super) struct Origin {
    pub(super) session: Option<String>,
    pub(super) connection: String,
    pub(super) direction: Direction,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) caller_name: String,
    pub(super) client_state: Option<String>,
    pub(super) target: Target,
    pub(super) signing: Signing,
    pub(super) delivery: Delivery,
    pub(super) manners: Manners,
    /// Whether its costs are told at the end.
    pub(super) tells_cost: bool,
}

pub(super) struct Call {
    pub(super) control_id: String,
    pub(super) leg_id: String,
    pub(super) session_id: String,
    pub(super) origin: Origin,
    pub(super) line: Line,
    orders: mpsc::Sender<Order>,
    events: mpsc::UnboundedSender<Event>,
    facts: Mutex<Facts>,
    changed: watch::Sender<()>,
}

/// What becomes known of a call while it lives.
struct Facts {
    state: CallState,
    started: Timestamp,
    answered: Option<Timestamp>,
    ended: Option<(Timestamp, CallEnd)>,
    client_state: Option<String>,
    url: Option<String>,
    urls: BTreeMap<String, String>,
    retries: BTreeMap<String, Vec<u64>>,
    commands: VecDeque<(String, Instant)>,
    stream: Option<StreamHandle>,
    bridge: Option<Bridge>,
}

/// Which of two joined legs stay when the other one ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parks {
    pub(super) one: bool,
    pub(super) other: bool,
}

/// The other leg, and what becomes of this one when that hangs up.
struct Bridge {
    peer: Arc<Call>,
    parks: bool,
}

impl std::ops::Deref for Call {
    type Target = Origin;

    fn deref(&self) -> &Origin {
        &self.origin
    }
}

impl Call {
    /// A call that waits; its orders go to whoever conducts it.
    pub(super) fn new(sim: &Sim, origin: Origin) -> (Arc<Call>, mpsc::Receiver<Order>) {
        let (orders, received) = mpsc::channel(MAX_ORDERS);
        let facts = Facts {
            state: CallState::Ringing,
            started: Timestamp::now(),
            answered: None,
            ended: None,
            client_state: origin.client_state.clone(),
            url: None,
            urls: BTreeMap::new(),
            retries: BTreeMap::new(),
            commands: VecDeque::new(),
            stream: None,
            bridge: None,
        };
        let call = Call {
            control_id: format!("v3:{}", random_text()),
            leg_id: new_uuid(),
            session_id: origin.session.clone().unwrap_or_else(new_uuid),
            line: Line::place(),
            orders,
            events: sim.webhooks.queue(origin.delivery),
            facts: Mutex::new(facts),
            changed: watch::Sender::new(()),
            origin,
        };
        (Arc::new(call), received)
    }

    pub(super) fn state(&self) -> CallState {
        self.lock().state
    }

    pub(super) fn end(&self) -> Option<CallEnd> {
        self.lock().ended.map(|(_, end)| end)
    }

    pub(super) fn order(&self, order: Order) {
        // Only a call that is already over, or drowned in orders, misses one.
        let _ = self.orders.try_send(order);
    }

    /// Remembers a command: whether none with this id was taken on this call a short time ago.
    pub(super) fn note_command(&self, id: &str) -> bool {
        let now = Instant::now();
        let commands = &mut self.lock().commands;
        commands.retain(|(_, at)| now.duration_since(*at) < COMMAND_MEMORY);
        if commands.iter().any(|(known, _)| known == id) {
            return false;
        }
        commands.push_back((id.to_owned(), now));
        true
    }

    /// Forgets a command that was refused.
    pub(super) fn forget_command(&self, id: &str) {
        self.lock().commands.retain(|(known, _)| known != id);
    }

    /// What a command says about the webhooks that follow it.
    pub(super) fn set_hooks(&self, body: &super::request::Body) {
        let mut facts = self.lock();
        if let Some(state) = body.text("client_state") {
            facts.client_state = Some(state.to_owned());
        }
        if let Some(url) = body.text("webhook_url") {
            facts.url = Some(url.to_owned());
        }
        for (event, url) in body.0.get("webhook_urls").and_then(Value::as_object).into_iter().flatten() {
            facts.urls.extend(url.as_str().map(|url| (event.clone(), url.to_owned())));
        }
        let policies = body.0.get("webhook_retries_policies").and_then(Value::as_object);
        for (event, policy) in policies.into_iter().flatten() {
            let delays = policy["retries_ms"].as_array().into_iter().flatten().filter_map(Value::as_u64);
            facts.retries.insert(event.clone(), delays.collect());
        }
    }

    /// Picks up: from here on both sides can be heard.
    pub(super) fn answer(&self) {
        {
            let mut facts = self.lock();
            facts.state = CallState::Answered;
            facts.answered = Some(Timestamp::now());
        }
        self.line.answer();
        self.changed.send_replace(());
        self.tell("call.answered", self.with_start(json!({"state": "answered", "tags": []})));
    }

    /// Ends the line, and then tells it.
    pub(super) fn finish(&self, end: CallEnd, by: Party) {
        {
            let mut facts = self.lock();
            facts.state = CallState::Over;
            facts.ended = Some((Timestamp::now(), end));
        }
        self.line.end(by);
        let quality = json!({
            "inbound": {
                "mos": "4.50", "packet_count": "0", "skip_packet_count": "0",
                "jitter_max_variance": "0.00", "jitter_packet_count": "0",
            },
            "outbound": {"packet_count": "0", "skip_packet_count": "0"},
        });
        let was_answered = self.lock().answered.is_some();
        let hangup = json!({
            "state": "hangup",
            "hangup_cause": end.cause,
            "hangup_source": end.source,
            "sip_hangup_cause": end.cause.sip(),
            "call_quality_stats": if was_answered { quality } else { Value::Null },
            "tags": [],
        });
        self.tell("call.hangup", self.with_start(hangup));
        if self.tells_cost {
            self.tell_cost();
        }
        self.changed.send_replace(());
    }

    /// Tells the customer of something that happened on this leg.
    pub(super) fn tell(&self, event_type: &str, extra: Value) {
        let facts = self.lock();
        let mut payload = json!({
            "call_control_id": self.control_id,
            "call_leg_id": self.leg_id,
            "call_session_id": self.session_id,
            "connection_id": self.connection,
            "client_state": facts.client_state,
        });
        if let Value::Object(extra) = extra {
            super::account::merge(&mut payload, extra);
        }
        let mut target = self.target.clone();
        if let Some(url) = facts.urls.get(event_type).or(facts.url.as_ref()) {
            target.url = url.clone();
        }
        if let Some(delays) = facts.retries.get(event_type) {
            target.retries_ms = delays.clone();
        }
        // The deliverer lives as long as this sender does.
        let _ = self.events.send(Event::new(event_type, payload, target, self.signing));
    }

    pub(super) fn tell_initiated(&self, state: &str) {
        let mut call = json!({
            "direction": self.direction,
            "state": state,
            "caller_id_name": self.caller_name,
            "offered_codecs": "PCMU,PCMA,G722",
            "connection_codecs": "G722,PCMU,PCMA",
            "custom_headers": [],
            "sip_headers": [],
            "tags": [],
        });
        if self.direction == Direction::Incoming {
            call["shaken_stir_attestation"] = "A".into();
            call["shaken_stir_validated"] = true.into();
        }
        self.tell("call.initiated", self.with_start(call));
    }

    /// Adds who calls whom, which not all events carry.
    pub(super) fn with_parties(&self, mut extra: Value) -> Value {
        extra["from"] = self.from.as_str().into();
        extra["to"] = self.to.as_str().into();
        extra
    }

    /// Adds that, and since when.
    fn with_start(&self, extra: Value) -> Value {
        let mut extra = self.with_parties(extra);
        extra["start_time"] = timestamp(self.lock().started).into();
        extra
    }

    fn tell_cost(&self) {
        let billed_s = self.duration_s();
        let cost = format!("{:.4}", billed_s as f64 / 60.0 * 0.002);
        let part = json!({
            "call_part": "call-control",
            "rate": "0.00200",
            "cost": cost,
            "billed_duration_secs": billed_s,
            "currency": "USD",
        });
        let cost = json!({
            "status": "success", "total_cost": cost, "billed_duration_secs": billed_s, "cost_parts": [part],
            "billing_group_id": null, "occurred_at": timestamp(Timestamp::now()),
        });
        self.tell("call.cost", cost);
    }

    /// Seconds from the answer to the end or until now.
    fn duration_s(&self) -> i64 {
        let facts = self.lock();
        let until = facts.ended.map_or_else(Timestamp::now, |(ended, _)| ended);
        facts.answered.map_or(0, |answered| until.as_second() - answered.as_second())
    }

    /// What `GET /calls/{id}` shows.
    pub(super) fn json(&self) -> Value {
        let duration_s = self.duration_s();
        let facts = self.lock();
        let mut call = json!({
            "record_type": "call",
            "call_control_id": self.control_id,
            "call_leg_id": self.leg_id,
            "call_session_id": self.session_id,
            "is_alive": facts.state == CallState::Answered,
            "call_duration": duration_s,
            "start_time": timestamp(facts.started),
        });
        if let Some(state) = &facts.client_state {
            call["client_state"] = state.as_str().into();
        }
        if let Some((ended, _)) = facts.ended {
            call["end_time"] = timestamp(ended).into();
        }
        call
    }

    pub(super) fn client_state(&self) -> Option<String> {
        self.lock().client_state.clone()
    }

    /// Takes a stream over; a call has one at most.
    pub(super) fn stream_opens(&self, stream: StreamHandle) {
        self.lock().stream = Some(stream);
    }

    pub(super) fn stream_ended(&self, id: &str) {
        let stream = &mut self.lock().stream;
        if stream.as_ref().is_some_and(|stream| stream.id == id) {
            *stream = None;
        }
    }

    pub(super) fn stream(&self) -> Option<StreamHandle> {
        self.lock().stream.clone()
    }

    /// Connects two legs: what one hears, the other says. Whom they were connected with before, is let go.
    pub(super) fn join(one: &Arc<Call>, other: &Arc<Call>, parks: Parks) {
        one.part();
        other.part();
        for (call, peer, parks) in [(one, other, parks.one), (other, one, parks.other)] {
            call.lock().bridge = Some(Bridge { peer: peer.clone(), parks });
            call.tell("call.bridged", call.with_start(json!({})));
        }
    }

    pub(super) fn peer(&self) -> Option<Arc<Call>> {
        self.lock().bridge.as_ref().map(|bridge| bridge.peer.clone())
    }

    /// Lets the other leg go: it hangs up as well, or stays where it was told to.
    pub(super) fn part(&self) {
        let Some(bridge) = self.lock().bridge.take() else { return };
        let theirs = bridge.peer.lock().bridge.take();
        if theirs.is_some_and(|theirs| !theirs.parks) {
            bridge.peer.order(Order::HangUp);
        }
    }

    pub(super) async fn until_state(
        &self,
        limit: Duration,
        wished: impl Fn(CallState) -> bool,
    ) -> Result<CallState, NotInTime> {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                let state = self.state();
                if wished(state) {
                    return Ok(state);
                }
                if state == CallState::Over || changed.changed().await.is_err() {
                    return Err(NotInTime::CallOver);
                }
            }
        };
        tokio::time::timeout(limit, waiting).await.unwrap_or(Err(NotInTime::Limit))
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
