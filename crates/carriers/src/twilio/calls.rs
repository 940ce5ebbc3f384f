//! Calls of a Twilio account by REST: made, steered while they run, ended, looked up.
//! It makes no second attempt where one could ring a phone twice.

use super::rest::{Host, Twilio, utc_second};
use super::twiml::{Answer, Tones, Verb};
use super::webhook::{address, answered_by, call_status, direction, rfc_2822_us};
use crate::http::{Harm, RETRY_PAUSE};
use crate::{Area, CallRecord, CarrierError};
use offhook_core::Pii;
use serde::Deserialize;
use std::borrow::Cow;
use url::Url;

/// The most characters of a document that travels by REST.
pub const MAX_DOCUMENT_CHARS: usize = 4000;
/// How many calls are asked for at once.
pub const CALLS_PAGE_SIZE: usize = 50;
/// The most calls that are looked through.
pub const MAX_CALLS: usize = 1_000;

const STATUS_EVENTS: [&str; 4] = ["initiated", "ringing", "answered", "completed"];

/// What a live call shall do from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steer {
    /// Ask this page.
    Ask(Url),
    /// Do this.
    Do(Answer),
}

/// A call to be made.
#[derive(Clone, Debug)]
pub struct NewCall {
    /// Whom to ring: a number, `sip:…` or `client:…`.
    pub to: Pii<String>,
    /// Who is seen to ring.
    pub from: Pii<String>,
    /// What to do once somebody picks up.
    pub then: Steer,
    /// The page to tell of every change of status.
    pub status_callback: Option<Url>,
    /// Keys to press once somebody picks up.
    pub tones: Option<Tones>,
    /// Seconds to let it ring; the carrier's default is 60.
    pub ring_timeout_s: Option<u16>,
    /// Seconds after which the call is cut.
    pub time_limit_s: Option<u32>,
}

/// Which calls to list; all that are given must hold.
#[derive(Clone, Debug, Default)]
pub struct CallFilter {
    /// Who was rung.
    pub to: Option<Pii<String>>,
    /// Who rang.
    pub from: Option<Pii<String>>,
    /// Calls that started no earlier, µs since 1970 UTC, and those that wait to start.
    pub started_from_us: Option<i64>,
}

impl Twilio {
    /// Ends a call at whatever point it is; that it is over already is no error.
    pub async fn hang_up(&self, carrier_call: &str) -> Result<(), CarrierError> {
        let form = [("Status", Cow::from("completed"))];
        let mut result = self.change(Area::Voice, self.call_url(carrier_call), &form).await;
        if matches!(result, Err(CarrierError::Unreachable { .. } | CarrierError::OutcomeUnknown { .. })) {
            tokio::time::sleep(RETRY_PAUSE).await;
            result = self.change(Area::Voice, self.call_url(carrier_call), &form).await;
        }
        match result {
            Ok(_) | Err(CarrierError::CallOver) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a live call do something else; this also ends its media stream.
    pub async fn steer(&self, carrier_call: &str, to: &Steer) -> Result<(), CarrierError> {
        self.change(Area::Voice, self.call_url(carrier_call), &[steering(to)?]).await.map(drop)
    }

    /// Presses keys in a live call, then goes on with `then`: without it the call would end.
    pub async fn press(&self, carrier_call: &str, tones: &Tones, then: &[Verb]) -> Result<(), CarrierError> {
        let verbs = std::iter::once(Verb::PlayTones(tones.clone())).chain(then.iter().cloned()).collect();
        self.steer(carrier_call, &Steer::Do(Answer::Run(verbs))).await
    }

    /// The call as the carrier remembers it.
    pub async fn call(&self, carrier_call: &str) -> Result<CallRecord, CarrierError> {
        let call: CallResource = self.read(Area::Voice, self.call_url(carrier_call)).await?;
        call.record().ok_or_else(|| Harm::None.unreadable())
    }

    /// Calls of the account, newest first: the way to learn whether a call was made when its outcome is unknown.
    pub async fn calls(&self, filter: &CallFilter) -> Result<Vec<CallRecord>, CarrierError> {
        let mut url = self.endpoint(&[self.account(), "Calls.json"]);
        let since = filter.started_from_us.map(utc_second);
        let given = [
            ("To", filter.to.as_ref().map(|to| to.expose().as_str())),
            ("From", filter.from.as_ref().map(|from| from.expose().as_str())),
            // The name has the sign in it: `StartTime>=2026-11-21T08:00:00Z`, "at or after this time".
            ("StartTime>", since.as_deref()),
        ];
        url.query_pairs_mut().append_pair("PageSize", &CALLS_PAGE_SIZE.to_string());
        url.query_pairs_mut()
            .extend_pairs(given.into_iter().filter_map(|(name, value)| Some((name, value?))));

        let listed: Vec<CallResource> = self.list(Area::Voice, Host::Api, url, "calls", MAX_CALLS).await?;
        let mut calls = Vec::new();
        for call in listed {
            let record = call.record().ok_or_else(|| Harm::None.unreadable())?;
            if record.started_us.zip(filter.started_from_us).is_none_or(|(at, from)| at >= from) {
                calls.push(record);
            }
        }
        Ok(calls)
    }

    /// Rings somebody. Twilio knows no idempotency key: after [`CarrierError::OutcomeUnknown`] look with [`Twilio::calls`].
    pub async fn dial(&self, call: &NewCall) -> Result<CallRecord, CarrierError> {
        let mut form = vec![
            ("To", Cow::from(call.to.expose())),
            ("From", Cow::from(call.from.expose())),
            steering(&call.then)?,
        ];
        if let Some(page) = &call.status_callback {
            form.push(("StatusCallback", page.as_str().into()));
            form.extend(STATUS_EVENTS.map(|event| ("StatusCallbackEvent", event.into())));
        }
        form.extend(call.tones.iter().map(|tones| ("SendDigits", tones.as_str().into())));
        form.extend(call.ring_timeout_s.map(|s| ("Timeout", s.to_string().into())));
        form.extend(call.time_limit_s.map(|s| ("TimeLimit", s.to_string().into())));
        let body = self.change(Area::Voice, self.endpoint(&[self.account(), "Calls.json"]), &form).await?;
        let call: Option<CallResource> = serde_json::from_slice(&body).ok();
        call.and_then(CallResource::record).ok_or_else(|| Harm::Possible.unreadable())
    }

    fn call_url(&self, carrier_call: &str) -> Url {
        self.endpoint(&[self.account(), "Calls", &format!("{carrier_call}.json")])
    }
}

fn steering(to: &Steer) -> Result<(&'static str, Cow<'_, str>), CarrierError> {
    match to {
        Steer::Ask(page) => Ok(("Url", page.as_str().into())),
        Steer::Do(answer) => {
            let document = answer.render();
            if document.chars().count() > MAX_DOCUMENT_CHARS {
                return Err(CarrierError::NotAskable(
                    "an answer sent to a live call has at most 4,000 characters",
                ));
            }
            Ok(("Twiml", document.into()))
        }
    }
}

#[derive(Deserialize)]
struct CallResource {
    sid: String,
    from: Option<String>,
    to: Option<String>,
    status: String,
    direction: Option<String>,
    start_time: Option<String>,
    end_time: Option<String>,
    duration: Option<String>,
    answered_by: Option<String>,
}

impl CallResource {
    /// Nothing if the status is none that is documented.
    fn record(self) -> Option<CallRecord> {
        Some(CallRecord {
            from: address(self.from.as_deref().unwrap_or_default()),
            to: address(self.to.as_deref().unwrap_or_default()),
            direction: direction(self.direction.as_deref().unwrap_or_default()),
            status: call_status(&self.status)?,
            started_us: self.start_time.as_deref().and_then(rfc_2822_us),
            ended_us: self.end_time.as_deref().and_then(rfc_2822_us),
            duration_s: self.duration.and_then(|s| s.parse().ok()),
            answered_by: self.answered_by.as_deref().map(answered_by),
            carrier_call: self.sid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_for_a_live_call_is_short() {
        let say = |length| {
            Steer::Do(Answer::Run(vec![Verb::Say(super::super::Speech::new(&"a".repeat(length)).unwrap())]))
        };
        assert!(steering(&say(3_900)).is_ok());
        assert!(matches!(steering(&say(4_000)), Err(CarrierError::NotAskable(_))));
    }
}
