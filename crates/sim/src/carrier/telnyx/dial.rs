//! Calls out: those of the API, and the second leg of a transfer. It knows how a called party is reached, not what follows the answer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use offhook_core::E164;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::person::Pickup;
use super::super::phone::Party;
use super::Sim;
use super::account::{Shelf, target};
use super::call::{Call, CallEnd, CallState, Direction, HangupCause, HangupSource, Origin, Parks};
use super::command::{self, DIAL_FIELDS};
use super::conduct::{self, Limits, Order};
use super::request::{Body, Refusal};
use super::rest::{Answer, RestRequest, shown};
use super::stream::{self, StreamWish};

const DEFAULT_RING_S: u64 = 30;
/// How long a key is held that is pressed for the customer.
const DIGIT_MS: u32 = 250;
const DEFAULT_LIMIT_S: u64 = 14_400;
/// 30 new calls a second, measured in five.
const DIALS: usize = 150;
const DIAL_WINDOW: Duration = Duration::from_secs(5);

/// A second leg, and what is to become of both.
pub(super) struct Transfer {
    pub(super) to: String,
    pub(super) from: Option<String>,
    pub(super) client_state: Option<String>,
    pub(super) ring: Duration,
    pub(super) limit: Duration,
    pub(super) parks: bool,
    pub(super) digits: Option<String>,
    pub(super) detection: Option<Detection>,
}

/// How it is found out whether a human answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Detection {
    premium: bool,
    /// Whether the end of a machine's greeting is waited for as well.
    greeting: bool,
}

impl Detection {
    pub(super) fn read(body: &Body) -> Option<Detection> {
        let wish = body.text("answering_machine_detection").filter(|wish| *wish != "disabled")?;
        let premium = wish == "premium";
        Some(Detection { premium, greeting: premium || matches!(wish, "detect_beep" | "greeting_end") })
    }
}

/// What is known of a leg before it is dialled.
struct Departure {
    ring: Duration,
    limit: Duration,
    stream: Option<StreamWish>,
    digits: Option<String>,
    detection: Option<Detection>,
    /// The leg that is joined once this one is answered; it is the first of the two.
    joins: Option<(Arc<Call>, Parks)>,
}

pub(super) fn create(request: &RestRequest<'_>) -> Answer {
    let body = request.body_of(DIAL_FIELDS)?;
    let sim = request.sim;
    let application = body.text("connection_id").and_then(|id| sim.thing(Shelf::Applications, id));
    let hooks = application.as_ref().and_then(target);
    let (Some(application), Some(hooks)) = (application, hooks) else {
        let detail = "The requested connection_id (Call Control App ID) is either invalid or does not exist. \
                      Only Call Control Apps with valid webhook URL are accepted.";
        let title = "Invalid value for connection_id (Call Control App ID)";
        return Err(Refusal::unprocessable("10015", title, detail).at("connection_id"));
    };
    if application["outbound"]["outbound_voice_profile_id"].as_str().is_none_or(str::is_empty) {
        let detail = "The application has no outbound voice profile.";
        return Err(Refusal::unprocessable("10027", "Unprocessable entity", detail).at("connection_id"));
    }
    let to = command::address(&called(&body), "to")?;
    let from = command::address(body.text("from").unwrap_or_default(), "from")?;
    let linked = match body.text("link_to") {
        None => None,
        Some(id) => Some(sim.find_call(id).ok_or_else(command::invalid_id)?),
    };
    let stream = command::stream_wish(&body, true)?;
    let digits = command::digits(&body, "send_digits_on_answer")?;
    if let Some(id) = body.text("command_id") {
        let mut state = sim.lock();
        let now = Instant::now();
        state.dials.retain(|(at, _, _)| now.duration_since(*at) < command::DIAL_MEMORY);
        if let Some((.., call)) = state.dials.iter().find(|(_, known, _)| known == id) {
            return shown(dialled(call));
        }
    }
    count_dial(sim)?;
    let origin = Origin {
        session: linked.as_ref().map(|linked| linked.session_id.clone()),
        connection: application["id"].as_str().unwrap_or_default().to_owned(),
        direction: Direction::Outgoing,
        from,
        to,
        caller_name: body.text("from_display_name").unwrap_or_default().to_owned(),
        client_state: body.text("client_state").map(str::to_owned),
        target: hooks,
        signing: sim.settings.signing,
        delivery: sim.settings.delivery,
        manners: sim.settings.manners,
        tells_cost: application["call_cost_in_webhooks"] == true,
    };
    let parks = Parks { one: false, other: body.text("park_after_unbridge").is_some() };
    let departure = Departure {
        ring: Duration::from_secs(body.whole("timeout_secs", DEFAULT_RING_S)),
        limit: Duration::from_secs(body.whole("time_limit_secs", DEFAULT_LIMIT_S)),
        stream,
        digits,
        detection: Detection::read(&body),
        joins: linked.filter(|_| body.flag("bridge_on_answer")).map(|linked| (linked, parks)),
    };
    let (call, orders) = Call::new(sim, origin);
    call.set_hooks(&body);
    sim.add_call(call.clone());
    if let Some(id) = body.text("command_id") {
        sim.lock().dials.push((Instant::now(), id.to_owned(), call.clone()));
    }
    tokio::spawn(depart(sim.clone(), call.clone(), orders, departure));
    shown(dialled(&call))
}

/// The number, or the first of several: the others are not tried.
fn called(body: &Body) -> String {
    let to = &body.0["to"];
    let first = to.as_array().and_then(|all| all.first()).unwrap_or(to);
    first.as_str().unwrap_or_default().to_owned()
}

fn dialled(call: &Call) -> Value {
    json!({
        "record_type": "call",
        "call_control_id": call.control_id,
        "call_leg_id": call.leg_id,
        "call_session_id": call.session_id,
        "is_alive": false,
    })
}

fn count_dial(sim: &Sim) -> Result<(), Refusal> {
    let mut state = sim.lock();
    let now = Instant::now();
    while state.departures.front().is_some_and(|at| now.duration_since(*at) >= DIAL_WINDOW) {
        state.departures.pop_front();
    }
    if state.departures.len() >= DIALS {
        let detail = "The rate of new calls is limited to 30 in a second.";
        let status = axum::http::StatusCode::TOO_MANY_REQUESTS;
        return Err(Refusal::new(status, "90103", "Dial rate limit reached", detail));
    }
    state.departures.push_back(now);
    Ok(())
}

/// Dials the second leg of a transfer.
pub(super) fn transfer(sim: &Arc<Sim>, call: &Arc<Call>, transfer: Transfer) {
    let caller_id = match call.direction {
        Direction::Incoming => &call.to,
        Direction::Outgoing => &call.from,
    };
    let origin = Origin {
        session: Some(call.session_id.clone()),
        connection: call.connection.clone(),
        direction: Direction::Outgoing,
        from: transfer.from.unwrap_or_else(|| caller_id.clone()),
        to: transfer.to,
        caller_name: String::new(),
        client_state: transfer.client_state,
        target: call.target.clone(),
        signing: call.signing,
        delivery: call.delivery,
        manners: call.manners,
        tells_cost: call.tells_cost,
    };
    let departure = Departure {
        ring: transfer.ring,
        limit: transfer.limit,
        stream: None,
        digits: transfer.digits,
        detection: transfer.detection,
        joins: Some((call.clone(), Parks { one: transfer.parks, other: false })),
    };
    let (leg, orders) = Call::new(sim, origin);
    sim.add_call(leg.clone());
    tokio::spawn(depart(sim.clone(), leg, orders, departure));
}

/// Reaches the called party, and conducts the leg once it is answered.
async fn depart(sim: Arc<Sim>, call: Arc<Call>, mut orders: mpsc::Receiver<Order>, departure: Departure) {
    call.tell_initiated("bridging");
    if let Err(end) = ring(&sim, &call, &mut orders, departure.ring).await {
        call.finish(end, Party::Carrier);
        return;
    }
    call.answer();
    if let Some(wish) = departure.stream {
        stream::start(&sim, &call, wish);
    }
    if let Some(digits) = departure.digits {
        call.order(Order::SendDigits { digits, each_ms: DIGIT_MS });
    }
    if let Some(detection) = departure.detection {
        tokio::spawn(detect(sim.clone(), call.clone(), detection));
    }
    if let Some((other, parks)) = departure.joins {
        // The other leg may have hung up in the meantime; its part of the bridge would never end.
        match other.state() {
            CallState::Over => call.order(Order::HangUp),
            CallState::Answered => Call::join(&other, &call, parks),
            CallState::Ringing => {
                other.order(Order::Answer(None));
                other.order(Order::Bridge { peer: call.clone(), parks });
            }
        }
    }
    let limits = Limits { first_command: None, whole: departure.limit };
    conduct::conduct(sim, call, orders, limits).await;
}

/// Lets a leg ring until the called party does what it does, the time is over, or the leg is taken back.
async fn ring(
    sim: &Sim,
    call: &Call,
    orders: &mut mpsc::Receiver<Order>,
    limit: Duration,
) -> Result<(), CallEnd> {
    let end = |cause, source| CallEnd { cause, source };
    let by_callee = |cause| Err(end(cause, HangupSource::Callee));
    let after = |ms| tokio::time::sleep(Duration::from_millis(ms));
    let callee = async {
        match sim.callee_at(&call.to) {
            Pickup::Answers { after_ms } | Pickup::Machine { after_ms } => after(after_ms).map(Ok).await,
            Pickup::Busy { after_ms } => after(after_ms).map(|()| by_callee(HangupCause::UserBusy)).await,
            Pickup::Rejects { after_ms } => {
                after(after_ms).map(|()| by_callee(HangupCause::CallRejected)).await
            }
            Pickup::NoAnswer => std::future::pending().await,
            Pickup::NotFound => Err(end(HangupCause::NotFound, HangupSource::Unknown)),
        }
    };
    let cancelled = async {
        while let Some(order) = orders.recv().await {
            // Everything else needs an answered call.
            if matches!(order, Order::HangUp) {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = call.line.caller_hangs_up() => by_callee(HangupCause::CallRejected),
        () = cancelled => Err(end(HangupCause::OriginatorCancel, HangupSource::Caller)),
        reached = tokio::time::timeout(limit, callee) => {
            reached.unwrap_or(Err(end(HangupCause::Timeout, HangupSource::Unknown)))
        }
    }
}

/// Tells who answered, and when a machine is ready to be spoken to.
async fn detect(sim: Arc<Sim>, call: Arc<Call>, detection: Detection) {
    let machine = matches!(sim.callee_at(&call.to), Pickup::Machine { .. });
    let (kind, human) = match detection.premium {
        true => ("call.machine.premium", "human_residence"),
        false => ("call.machine", "human"),
    };
    let results = [("detection", if machine { "machine" } else { human }), ("greeting", "beep_detected")];
    let told = if machine && detection.greeting { 2 } else { 1 };
    for (what, result) in results.into_iter().take(told) {
        tokio::time::sleep(Duration::from_millis(sim.settings.detection_ms)).await;
        if call.end().is_some() {
            return;
        }
        call.tell(&format!("{kind}.{what}.ended"), call.with_parties(json!({"result": result})));
    }
}

/// Whether a text is a number or a SIP address.
pub(super) fn is_address(text: &str) -> bool {
    text.parse::<E164>().is_ok() || text.starts_with("sip:") || text.starts_with("sips:")
}
