//! An account at a carrier: the requests that every carrier takes, in the same words, whichever carrier it is.
//! It decides nothing and keeps nothing; what each request means in a carrier's own words is known to that carrier's adapter.

use crate::telnyx::Telnyx;
use crate::twilio::Twilio;
use crate::{AvailableNumber, Bought, CarrierError, NumberSearch, OurHooks, OwnNumber, Routing, Verdict};
use offhook_core::{E164, Pii};
use std::borrow::Cow;

/// One account, at one of the carriers. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Account {
    /// At Twilio.
    Twilio(Twilio),
    /// At Telnyx.
    Telnyx(Telnyx),
}

/// Something that went wrong between the carrier and us, as the carrier remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The carrier's id of it.
    pub id: String,
    /// When it happened, µs since 1970 UTC by the carrier's clock.
    pub at_us: Option<i64>,
    /// The carrier's number for it.
    pub code: Option<u32>,
    /// What the user needs to know.
    pub sentence: Cow<'static, str>,
    /// The address of ours that was asked.
    pub url: Option<String>,
    /// The carrier's id of the call or message that it happened to.
    pub about: Option<String>,
    /// The carrier's own words, which may name people's numbers.
    pub detail: Pii<String>,
}

impl Account {
    /// Tries what Offhook needs, changing nothing. An error means that the test itself could not be made.
    pub async fn check(&self) -> Result<Verdict, CarrierError> {
        match self {
            Account::Twilio(twilio) => twilio.check().await,
            Account::Telnyx(telnyx) => telnyx.check().await,
        }
    }

    /// Numbers that can be bought now.
    pub async fn search(&self, wanted: &NumberSearch) -> Result<Vec<AvailableNumber>, CarrierError> {
        match self {
            Account::Twilio(twilio) => twilio.search(wanted).await,
            Account::Telnyx(telnyx) => telnyx.search(wanted).await,
        }
    }

    /// The numbers of the account, over all pages, but no more than `most`.
    pub async fn own_numbers(&self, most: usize) -> Result<Vec<OwnNumber>, CarrierError> {
        match self {
            Account::Twilio(twilio) => twilio.own_numbers(most).await,
            Account::Telnyx(telnyx) => telnyx.own_numbers(most).await,
        }
    }

    /// One number as the carrier has it now; `None` if it is not this account's.
    pub async fn own_number(&self, e164: &E164) -> Result<Option<OwnNumber>, CarrierError> {
        match self {
            Account::Twilio(twilio) => twilio.own_number(e164).await,
            Account::Telnyx(telnyx) => telnyx.own_number(e164).await,
        }
    }

    /// What a number must be set to so that it leads to these pages. It may make what a number has to be attached to (named `label`),
    /// looking for it first: asked again, it makes nothing twice.
    pub async fn routing_to(&self, hooks: &OurHooks, label: &str) -> Result<Routing, CarrierError> {
        match self {
            Account::Twilio(twilio) => twilio.routing_to(hooks, label).await,
            Account::Telnyx(telnyx) => telnyx.routing_to(hooks, label).await,
        }
    }

    /// Buys a number and sends it to `routing` at once. After [`CarrierError::OutcomeUnknown`] look with [`Account::order_of`] and
    /// [`Account::own_number`] before asking again.
    pub async fn buy(&self, e164: &E164, routing: &Routing, reference: &str) -> Result<Bought, CarrierError> {
        match self {
            Account::Twilio(twilio) => twilio.buy(e164, routing, reference).await,
            Account::Telnyx(telnyx) => telnyx.buy(e164, routing, reference).await,
        }
    }

    /// How an order stands that [`Bought::Ordered`] named.
    pub async fn order(&self, order: &str) -> Result<Bought, CarrierError> {
        match self {
            Account::Twilio(twilio) => twilio.order(order).await,
            Account::Telnyx(telnyx) => telnyx.order(order).await,
        }
    }

    /// The carrier's id of the order that was placed with this reference, where the carrier keeps references.
    pub async fn order_of(&self, reference: &str) -> Result<Option<String>, CarrierError> {
        match self {
            Account::Twilio(twilio) => twilio.order_of(reference).await,
            Account::Telnyx(telnyx) => telnyx.order_of(reference).await,
        }
    }

    /// Sets exactly the settings that `routing` names, a `None` to nothing, and returns the number as it is then: what still
    /// [differs](Routing::differs) could not be set.
    pub async fn route(&self, number: &OwnNumber, routing: &Routing) -> Result<OwnNumber, CarrierError> {
        match self {
            Account::Twilio(twilio) => twilio.route(number, routing).await,
            Account::Telnyx(telnyx) => telnyx.route(number, routing).await,
        }
    }

    /// Gives a number back to the carrier, for good; that it is gone already is no error.
    pub async fn release(&self, number: &OwnNumber) -> Result<(), CarrierError> {
        match self {
            Account::Twilio(twilio) => twilio.release(number).await,
            Account::Telnyx(telnyx) => telnyx.release(number).await,
        }
    }

    /// What went wrong since an instant, µs since 1970 UTC, newest first: why our pages could not be asked.
    pub async fn alerts(&self, since_us: i64) -> Result<Vec<Alert>, CarrierError> {
        match self {
            Account::Twilio(twilio) => twilio.alerts(since_us).await,
            Account::Telnyx(telnyx) => telnyx.alerts(since_us).await,
        }
    }

    /// What a setting of a [`Routing`] is, in words for the user who sees that it differs.
    pub fn setting(&self, name: &str) -> &'static str {
        match self {
            Account::Twilio(_) => Twilio::setting(name),
            Account::Telnyx(_) => Telnyx::setting(name),
        }
    }
}
