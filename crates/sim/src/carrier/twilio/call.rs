//! One call as Twilio keeps it: its status, what is known of it, who is told, and its line.
//! It does not know what runs on it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::super::phone::{Line, NotInTime, Party};
use super::execute::Next;
use super::stream::Network;
use super::twiml::Hook;
use super::webhook::{Request, Signing, WebhookKind};
use super::{AfterLoss, Sim, new_sid, rfc2822};

/// Orders that a call may have waiting; more than one is already a race of the customer's.
const MAX_ORDERS: usize = 16;

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallStatus {
    /// Waits for its turn.
    Queued,
    /// Leaves for the network; only callbacks have this word.
    Initiated,
    /// Rings.
    Ringing,
    /// Was answered.
    InProgress,
    /// Is over, after an answer.
    Completed,
    /// The called party was busy.
    Busy,
    /// It could not be carried.
    Failed,
    /// Nobody answered.
    NoAnswer,
    /// It was taken back before an answer.
    Canceled,
}

impl CallStatus {
    /// The word in callbacks.
    pub fn as_str(self) -> &'static str {
        match self {
            CallStatus::Queued => "queued",
            CallStatus::Initiated => "initiated",
            CallStatus::Ringing => "ringing",
            CallStatus::InProgress => "in-progress",
            CallStatus::Completed => "completed",
            CallStatus::Busy => "busy",
            CallStatus::Failed => "failed",
            CallStatus::NoAnswer => "no-answer",
            CallStatus::Canceled => "canceled",
        }
    }

    /// The word in REST answers, where `initiated` does not exist.
    pub fn as_rest_str(self) -> &'static str {
        if self == CallStatus::Initiated { "queued" } else { self.as_str() }
    }

    /// Whether the call is over.
    pub fn is_final(self) -> bool {
        self > CallStatus::InProgress
    }

    /// The event that a callback subscribes to, and its place in the sequence.
    fn event(self) -> Option<(&'static str, u32)> {
        match self {
            CallStatus::Queued => None,
            CallStatus::Initiated => Some(("initiated", 0)),
            CallStatus::Ringing => Some(("ringing", 1)),
            CallStatus::InProgress => Some(("answered", 2)),
            _ => Some(("completed", 3)),
        }
    }
}

/// Who called whom, as Twilio sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From outside to a number of the account.
    Inbound,
    /// By REST.
    OutboundApi,
    /// By `<Dial>`.
    OutboundDial,
}

impl Direction {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::OutboundApi => "outbound-api",
            Direction::OutboundDial => "outbound-dial",
        }
    }
}

/// How status callbacks arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallbackDelivery {
    /// One after the other, at once.
    #[default]
    InOrder,
    /// Never.
    Lost,
    /// Each so much later, milliseconds.
    LateMs(u64),
    /// All at the end of the call, the last one first.
    Reversed,
}

/// Who is told of which events.
pub(super) struct StatusHook {
    pub(super) hook: Hook,
    pub(super) events: BTreeSet<String>,
}

impl StatusHook {
    pub(super) fn only_the_end() -> BTreeSet<String> {
        BTreeSet::from(["completed".to_owned()])
    }
}

/// What is decided about a call before it begins.
pub(super) struct Origin {
    pub(super) parent: Option<String>,
    pub(super) direction: Direction,
    pub(super) to: String,
    pub(super) from: String,
    pub(super) forwarded_from: Option<String>,
    pub(super) caller_name: Option<String>,
    pub(super) number_sid: Option<String>,
    pub(super) signing: Signing,
    pub(super) network: Network,
    pub(super) extra_params: Vec<(String, String)>,
}

/// What a running call is told from outside.
pub(super) enum Order {
    /// Runs something else from now on.
    Redirect(Next),
    /// Ends the call.
    HangUp,
}

pub(super) struct Call {
    pub(super) sid: String,
    pub(super) origin: Origin,
    pub(super) line: Line,
    account_sid: String,
    orders: mpsc::Sender<Order>,
    facts: Mutex<Facts>,
    changed: watch::Sender<()>,
    events: BTreeSet<String>,
    status_hook: Option<Hook>,
}

/// What becomes known of a call while it lives.
#[derive(Clone)]
pub(super) struct Facts {
    pub(super) status: CallStatus,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
    pub(super) answered: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
    pub(super) queue_ms: u64,
    stream: Option<mpsc::Sender<AfterLoss>>,
    callbacks: Option<mpsc::UnboundedSender<Request>>,
}

impl std::ops::Deref for Call {
    type Target = Origin;

    fn deref(&self) -> &Origin {
        &self.origin
    }
}

impl Call {
    /// A call that waits; its orders go to whoever conducts it.
    pub(super) fn new(
        sim: &Arc<Sim>,
        origin: Origin,
        status_hook: Option<StatusHook>,
        delivery: CallbackDelivery,
    ) -> (Arc<Call>, mpsc::Receiver<Order>) {
        let (orders, received) = mpsc::channel(MAX_ORDERS);
        let (events, hook) = status_hook.map_or_else(Default::default, |told| (told.events, Some(told.hook)));
        let sid = new_sid("CA");
        let callbacks = hook.is_some().then(|| deliver(sim.clone(), sid.clone(), delivery));
        let now = Timestamp::now();
        let facts = Facts {
            status: CallStatus::Queued,
            created: now,
            updated: now,
            answered: None,
            ended: None,
            queue_ms: 0,
            stream: None,
            callbacks,
        };
        let call = Call {
            sid,
            origin,
            line: Line::place(),
            account_sid: sim.settings.account_sid.clone(),
            orders,
            facts: Mutex::new(facts),
            changed: watch::Sender::new(()),
            events,
            status_hook: hook,
        };
        (Arc::new(call), received)
    }

    pub(super) fn status(&self) -> CallStatus {
        self.lock().status
    }

    pub(super) fn facts(&self) -> Facts {
        self.lock().clone()
    }

    /// Seconds from the answer to the end, as Twilio bills them.
    pub(super) fn duration_s(&self) -> i64 {
        let facts = self.lock();
        match (facts.answered, facts.ended) {
            (Some(answered), Some(ended)) => (ended.as_second() - answered.as_second()).max(0),
            _ => 0,
        }
    }

    pub(super) fn order(&self, order: Order) {
        // Only a call that is already over, or drowned in orders, misses one.
        let _ = self.orders.try_send(order);
    }

    pub(super) fn queued_for(&self, ms: u64) {
        self.lock().queue_ms = ms;
    }

    /// Moves on and tells who wants to know. Never backwards, and never on from the end.
    pub(super) fn move_to(&self, status: CallStatus) {
        {
            let mut facts = self.lock();
            if facts.status.is_final() || status <= facts.status {
                return;
            }
            let now = Timestamp::now();
            facts.status = status;
            facts.updated = now;
            if status == CallStatus::InProgress {
                facts.answered = Some(now);
            }
            if status.is_final() {
                facts.ended = Some(now);
            }
        }
        self.call_back(status);
        self.changed.send_replace(());
    }

    /// What lets the number of an inbound caller be shown to whom the call is forwarded.
    pub(super) fn token(&self) -> String {
        format!("%7B%22parentCallInfoToken%22%3A%22{}%22%7D", &self.sid[2..])
    }

    /// Picks up: from here on both sides can be heard.
    pub(super) fn answer(&self) {
        self.move_to(CallStatus::InProgress);
        self.line.answer();
    }

    /// Ends the call, with `before_answer` where nobody had picked up.
    pub(super) fn finish(&self, before_answer: CallStatus, by: Party) {
        let answered = self.status() == CallStatus::InProgress;
        self.move_to(if answered { CallStatus::Completed } else { before_answer });
        self.line.end(by);
        // With the last sender gone the callbacks that were held back go out.
        self.lock().callbacks = None;
    }

    pub(super) fn stream_opened(&self, control: mpsc::Sender<AfterLoss>) {
        self.lock().stream = Some(control);
    }

    pub(super) fn lose_stream(&self, then: AfterLoss) -> Result<(), ()> {
        let control = self.lock().stream.clone();
        control.ok_or(())?.try_send(then).map_err(|_| ())
    }

    pub(super) async fn until_status(
        &self,
        limit: Duration,
        wished: impl Fn(CallStatus) -> bool,
    ) -> Result<CallStatus, NotInTime> {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                let status = self.status();
                if wished(status) {
                    return Ok(status);
                }
                if status.is_final() || changed.changed().await.is_err() {
                    return Err(NotInTime::CallOver);
                }
            }
        };
        tokio::time::timeout(limit, waiting).await.unwrap_or(Err(NotInTime::Limit))
    }

    /// The parameters that every voice webhook of this call carries.
    pub(super) fn params(&self) -> Vec<(String, String)> {
        let mut params = Params::default();
        params.add("CallSid", &self.sid);
        params.add("AccountSid", &self.account_sid);
        params.add("ApiVersion", "2010-04-01");
        params.add("CallStatus", self.status().as_str());
        params.add("Direction", self.direction.as_str());
        for (name, address) in
            [("From", &self.from), ("Caller", &self.from), ("To", &self.to), ("Called", &self.to)]
        {
            params.add(name, address);
            let country = if address.starts_with("+1") { "US" } else { "" };
            for (field, value) in [("City", ""), ("State", ""), ("Zip", ""), ("Country", country)] {
                params.add(&format!("{name}{field}"), value);
            }
        }
        params.add_known("ForwardedFrom", self.forwarded_from.as_deref());
        params.add_known("CallerName", self.caller_name.as_deref());
        params.add_known("ParentCallSid", self.parent.as_deref());
        if self.direction == Direction::Inbound {
            params.add("CallToken", &self.token());
        }
        if self.direction == Direction::Inbound && self.from.starts_with("+1") {
            params.add("StirVerstat", "TN-Validation-Passed-A");
        }
        params.0.extend(self.extra_params.iter().cloned());
        params.0
    }

    /// A request of this call.
    pub(super) fn request(&self, kind: WebhookKind, hook: &Hook, params: Vec<(String, String)>) -> Request {
        Request { kind, url: hook.url.clone(), method: hook.method, params, signing: self.signing }
    }

    fn call_back(&self, status: CallStatus) {
        let (Some(hook), Some((event, sequence))) = (&self.status_hook, status.event()) else { return };
        if !self.events.contains(event) {
            return;
        }
        let mut params = Params(self.params());
        if status.is_final() {
            params.add("CallDuration", &self.duration_s().to_string());
        }
        params.add("Timestamp", &rfc2822(Timestamp::now()));
        params.add("CallbackSource", "call-progress-events");
        params.add("SequenceNumber", &sequence.to_string());
        let request = self.request(WebhookKind::Status, hook, params.0);
        if let Some(callbacks) = &self.lock().callbacks {
            // The deliverer lives as long as this sender does.
            let _ = callbacks.send(request);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Parameters of a request, in order.
#[derive(Default)]
pub(super) struct Params(pub(super) Vec<(String, String)>);

impl Params {
    pub(super) fn add(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    pub(super) fn add_known(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }
}

/// Sends the callbacks of one call or conference in the way that was asked for, until the sender is dropped.
pub(super) fn deliver(
    sim: Arc<Sim>,
    call_sid: String,
    delivery: CallbackDelivery,
) -> mpsc::UnboundedSender<Request> {
    let (sender, mut requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        // Best effort, as documented: a failure is shown in the debugger, and that is all.
        let send = async |request: Request| {
            if let Err(failure) = sim.webhooks.send(request.clone()).await {
                sim.webhook_failed(&call_sid, &failure, &request);
            }
        };
        let mut held = Vec::new();
        while let Some(request) = requests.recv().await {
            match delivery {
                CallbackDelivery::Lost => continue,
                CallbackDelivery::Reversed => {
                    held.push(request);
                    continue;
                }
                CallbackDelivery::LateMs(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                CallbackDelivery::InOrder => {}
            }
            send(request).await;
        }
        for request in held.into_iter().rev() {
            send(request).await;
        }
    });
    sender
}
