//! How a live call's carrier is told to do something with it, in words that no single carrier owns. It does not know why.

pub mod twilio;

use crate::app::App;
use crate::call::registry::{Handle, Onward};
use offhook_carriers::{Account, CarrierError};
use offhook_core::Secret;
use offhook_core::entity::Connection;
use offhook_media::coding::Coding;
use std::sync::Arc;
use twilio::TwilioControl;

/// The account that a connection leads to; `None` where there is none, or its settings lead nowhere.
pub fn account(
    http: &reqwest::Client,
    connection: &Connection,
    secret: Option<&Secret<String>>,
) -> Option<Account> {
    match connection.kind.as_str() {
        "twilio" => twilio::account(http, connection, secret).map(Account::Twilio),
        _ => None,
    }
}

/// The hand that a carrier has on its live calls.
#[derive(Clone, Debug)]
pub enum CarrierControl {
    /// Twilio.
    Twilio(Arc<TwilioControl>),
    /// A line that cannot be steered from outside.
    None,
}

impl CarrierControl {
    /// The account that a connection leads to; `None` where its settings lead nowhere.
    pub fn open(app: &App, connection: &Connection, secret: Option<&Secret<String>>) -> CarrierControl {
        match connection.kind.as_str() {
            "twilio" => TwilioControl::open(app, connection, secret)
                .map_or(CarrierControl::None, |twilio| CarrierControl::Twilio(Arc::new(twilio))),
            _ => CarrierControl::None,
        }
    }

    /// How the audio of this carrier's calls is coded here.
    pub fn coding(&self) -> Coding {
        match self {
            CarrierControl::Twilio(_) | CarrierControl::None => Coding::MU_LAW,
        }
    }

    /// Has another media socket opened for a call that is driven here.
    pub async fn media_again(&self, handle: &Handle) -> Result<(), CarrierError> {
        match self {
            CarrierControl::Twilio(twilio) => twilio.media_is_over(&handle.carrier_call).await,
            CarrierControl::None => Ok(()),
        }
    }

    /// Makes the carrier ask us about a call that nobody drives any more.
    pub async fn ring_again(&self, carrier_call: &str) -> Result<(), CarrierError> {
        match self {
            CarrierControl::Twilio(twilio) => twilio.ring_again(carrier_call).await,
            CarrierControl::None => Ok(()),
        }
    }

    /// Ends our part of a call: hangs up, or puts the caller through.
    pub async fn end(&self, carrier_call: &str, onward: &Onward) -> Result<(), CarrierError> {
        match self {
            CarrierControl::Twilio(twilio) => twilio.end(carrier_call, onward).await,
            CarrierControl::None => Ok(()),
        }
    }
}
