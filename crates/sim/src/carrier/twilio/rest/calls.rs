//! Calls of the REST API: listed, read, created, and steered while they live.
//! It starts calls and gives them orders; what then runs on them is not its concern.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use offhook_core::E164;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::call::{Call, CallStatus, Direction, Facts, Order, Origin, StatusHook};
use super::super::number::formatted;
use super::super::webhook::Signing;
use super::super::{NotPlaced, dial, rfc2822};
use super::form::Form;
use super::page::TimeFilter;
use super::{Answer, Refusal, RestRequest};

const DEFAULT_RING_S: u64 = 60;
const MAX_RING_S: u64 = 600;

impl RestRequest<'_> {
    pub(super) fn calls(&self) -> Answer {
        const KNOWN: [&str; 13] = [
            "To",
            "From",
            "ParentCallSid",
            "Status",
            "StartTime",
            "StartTime<",
            "StartTime>",
            "EndTime",
            "EndTime<",
            "EndTime>",
            "PageSize",
            "Page",
            "PageToken",
        ];
        self.query.only(&KNOWN)?;
        let started = TimeFilter::read(&self.query, "StartTime")?;
        let ended = TimeFilter::read(&self.query, "EndTime")?;
        let is = |name: &str, value: &str| self.query.value(name).is_none_or(|wished| wished == value);
        let calls = self.sim.lock().calls.clone();
        let fitting = calls.iter().rev().filter(|call| {
            let facts = call.facts();
            is("To", &call.to)
                && is("From", &call.from)
                && is("ParentCallSid", call.parent.as_deref().unwrap_or_default())
                && is("Status", facts.status.as_rest_str())
                && started.fits(Some(facts.created))
                && ended.fits(facts.ended)
        });
        let items = fitting.map(|call| (call.sid.clone(), self.call_json(call))).collect();
        self.page("calls", items)
    }

    pub(super) fn call(&self, sid: &str) -> Answer {
        Ok((StatusCode::OK, self.call_json(&*self.find(sid)?)))
    }

    fn find(&self, sid: &str) -> Result<Arc<Call>, Refusal> {
        self.sim.find_call(sid).ok_or_else(|| Refusal::not_found(self.path))
    }

    pub(super) fn create_call(&self, form: &Form) -> Answer {
        const KNOWN: [&str; 36] = [
            "To",
            "From",
            "Url",
            "Twiml",
            "ApplicationSid",
            "Method",
            "FallbackUrl",
            "FallbackMethod",
            "StatusCallback",
            "StatusCallbackEvent",
            "StatusCallbackMethod",
            "SendDigits",
            "Timeout",
            "Record",
            "RecordingChannels",
            "RecordingStatusCallback",
            "RecordingStatusCallbackMethod",
            "RecordingStatusCallbackEvent",
            "RecordingTrack",
            "Trim",
            "SipAuthUsername",
            "SipAuthPassword",
            "MachineDetection",
            "MachineDetectionTimeout",
            "MachineDetectionSpeechThreshold",
            "MachineDetectionSpeechEndThreshold",
            "MachineDetectionSilenceTimeout",
            "AsyncAmd",
            "AsyncAmdStatusCallback",
            "AsyncAmdStatusCallbackMethod",
            "CallerId",
            "CallReason",
            "CallToken",
            "Byoc",
            "TimeLimit",
            "ClientNotificationUrl",
        ];
        form.only(&KNOWN)?;
        let to = form.value("To").ok_or_else(|| Refusal::invalid(21201, "No 'To' number is specified"))?;
        let from =
            form.value("From").ok_or_else(|| Refusal::invalid(21213, "No 'From' number is specified"))?;
        let dialable = to.parse::<E164>().is_ok() || to.starts_with("sip:") || to.starts_with("client:");
        if !dialable {
            return Err(Refusal::invalid(21211, format!("The 'To' number {to} is not a valid phone number")));
        }
        if from.parse::<E164>().is_err() && !from.starts_with("client:") {
            return Err(Refusal::invalid(
                21212,
                format!("The 'From' number {from} is not a valid phone number"),
            ));
        }
        let shown = form.value("CallerId").unwrap_or(from);
        for number in [from, shown] {
            let forwarded = form.value("CallToken").is_some_and(|token| self.forwards(token, number));
            if number.starts_with('+') && !self.sim.owns(number) && !forwarded {
                let message = format!("The source phone number {number} is not verified for this account");
                return Err(Refusal::invalid(21210, message));
            }
        }
        if form.value("ApplicationSid").is_some() {
            return Err(Refusal::invalid(21218, "The ApplicationSid is not valid"));
        }
        let Some(next) = form.next()? else {
            return Err(Refusal::invalid(21205, "One of Url, Twiml and ApplicationSid is required"));
        };
        let events = form.values("StatusCallbackEvent");
        let mut events: BTreeSet<String> =
            events.iter().flat_map(|event| event.split_whitespace()).map(str::to_owned).collect();
        if events.is_empty() {
            events = StatusHook::only_the_end();
        }
        let status_hook = form.hook("StatusCallback", "StatusCallbackMethod")?;
        let fallback = form.hook("FallbackUrl", "FallbackMethod")?;
        let ring = Duration::from_secs(form.number("Timeout", DEFAULT_RING_S)?.min(MAX_RING_S));
        let origin = Origin {
            parent: None,
            direction: Direction::OutboundApi,
            to: to.to_owned(),
            from: shown.to_owned(),
            forwarded_from: None,
            caller_name: None,
            number_sid: self
                .sim
                .lock()
                .numbers
                .iter()
                .find(|owned| owned.e164 == from)
                .map(|owned| owned.sid.clone()),
            signing: Signing::Right,
            network: self.sim.settings.network,
            extra_params: Vec::new(),
        };
        let told = status_hook.map(|hook| StatusHook { hook, events });
        let (call, orders) = Call::new(self.sim, origin, told, self.sim.settings.callbacks);
        let departure = self.departure();
        call.queued_for(departure.saturating_duration_since(Instant::now()).as_millis() as u64);
        let created = self.call_json(&call);
        let full = |error: NotPlaced| Refusal::new(StatusCode::TOO_MANY_REQUESTS, 20429, error.to_string());
        self.sim.add_call(call.clone()).map_err(full)?;
        tokio::spawn(dial::conduct_outgoing(self.sim.clone(), call, orders, departure, ring, next, fallback));
        Ok((StatusCode::CREATED, created))
    }

    /// Whether a token is that of a call which this number has made to the account.
    fn forwards(&self, token: &str, number: &str) -> bool {
        let calls = self.sim.lock().calls.clone();
        calls
            .iter()
            .any(|call| call.direction == Direction::Inbound && call.from == number && call.token() == token)
    }

    /// The queue lets so many calls go in a second, in the order in which they were asked for.
    fn departure(&self) -> Instant {
        let between = Duration::from_secs_f64(1.0 / self.sim.settings.calls_per_second.max(0.001));
        let mut state = self.sim.lock();
        let departure = state.next_departure.unwrap_or_else(Instant::now).max(Instant::now());
        state.next_departure = Some(departure + between);
        departure
    }

    pub(super) fn update_call(&self, sid: &str, form: &Form) -> Answer {
        const KNOWN: [&str; 9] = [
            "Url",
            "Method",
            "Twiml",
            "Status",
            "FallbackUrl",
            "FallbackMethod",
            "StatusCallback",
            "StatusCallbackMethod",
            "TimeLimit",
        ];
        form.only(&KNOWN)?;
        let call = self.find(sid)?;
        let status = call.status();
        match form.value("Status") {
            Some("completed") => call.order(Order::HangUp),
            Some("canceled") if status < CallStatus::InProgress => call.order(Order::HangUp),
            Some("canceled") => {}
            Some(other) => return Err(Refusal::invalid(20001, format!("Status cannot be set to {other}"))),
            None => {
                if let Some(next) = form.next()? {
                    if status != CallStatus::InProgress {
                        return Err(Refusal::invalid(21220, "Call is not in-progress. Cannot redirect."));
                    }
                    call.order(Order::Redirect(next));
                }
            }
        }
        Ok((StatusCode::OK, self.call_json(&call)))
    }

    fn call_json(&self, call: &Call) -> Value {
        let account_sid = &self.sim.settings.account_sid;
        let uri = format!("/2010-04-01/Accounts/{account_sid}/Calls/{}", call.sid);
        let facts: Facts = call.facts();
        let duration_s = facts.ended.map(|_| call.duration_s().to_string());
        let price = duration_s.as_ref().map(|_| "-0.00850");
        json!({
            "sid": call.sid,
            "account_sid": account_sid,
            "parent_call_sid": call.parent,
            "to": call.to,
            "to_formatted": formatted(&call.to),
            "from": call.from,
            "from_formatted": formatted(&call.from),
            "phone_number_sid": call.number_sid,
            "status": facts.status.as_rest_str(),
            "start_time": facts.answered.map(rfc2822),
            "end_time": facts.ended.map(rfc2822),
            "duration": duration_s,
            "price": price,
            "price_unit": "USD",
            "direction": call.direction.as_str(),
            "answered_by": null,
            "api_version": "2010-04-01",
            "forwarded_from": call.forwarded_from,
            "group_sid": null,
            "caller_name": call.caller_name,
            "queue_time": facts.queue_ms.to_string(),
            "trunk_sid": null,
            "date_created": rfc2822(facts.created),
            "date_updated": rfc2822(facts.updated),
            "uri": format!("{uri}.json"),
            "subresource_uris": {
                "recordings": format!("{uri}/Recordings.json"),
                "streams": format!("{uri}/Streams.json"),
                "events": format!("{uri}/Events.json"),
            },
        })
    }
}
