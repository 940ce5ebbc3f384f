//! How a live call's carrier is told to do something with it, in words that no single carrier owns. It does not know why.

pub mod sip;
pub mod telnyx;
pub mod twilio;

use crate::app::App;
use crate::call::registry::{Handle, Onward};
use crate::call::welcome::Welcome;
use crate::connection::signing_secret;
use offhook_carriers::{Account, CarrierError};
use offhook_core::Secret;
use offhook_core::entity::Connection;
use offhook_media::coding::Coding;
use offhook_store::RingTarget;
use sip::SipLeg;
use std::sync::Arc;
use std::time::Duration;
use telnyx::TelnyxControl;
use twilio::TwilioControl;

/// How long it is left to a carrier to ask by itself when the media of a call is lost.
pub const ROUSE_AFTER: Duration = Duration::from_millis(1_500);

/// The account that a connection leads to; `None` where there is none, or its settings lead nowhere.
pub fn account(
    http: &reqwest::Client,
    connection: &Connection,
    secret: Option<&Secret<String>>,
) -> Option<Account> {
    match connection.kind.as_str() {
        "twilio" => twilio::account(http, connection, secret).map(Account::Twilio),
        "telnyx" => {
            telnyx::account(http, &telnyx::TelnyxConfig::of(connection)?, secret).map(Account::Telnyx)
        }
        _ => None,
    }
}

/// The hand that the server has on the live calls of one carrier's account.
#[derive(Clone, Debug)]
pub enum CarrierControl {
    /// Twilio.
    Twilio(Arc<TwilioControl>),
    /// Telnyx.
    Telnyx(Arc<TelnyxControl>),
    /// A leg of SIP.
    Sip(Arc<SipLeg>),
    /// A line that cannot be steered from outside.
    None,
}

impl CarrierControl {
    /// The account that a connection leads to; `None` where its settings lead nowhere.
    pub fn open(app: &App, connection: &Connection, secret: Option<&Secret<String>>) -> CarrierControl {
        match connection.kind.as_str() {
            "twilio" => TwilioControl::open(app, connection, secret)
                .map_or(CarrierControl::None, |twilio| CarrierControl::Twilio(Arc::new(twilio))),
            "telnyx" => TelnyxControl::open(app, connection, secret)
                .map_or(CarrierControl::None, |telnyx| CarrierControl::Telnyx(Arc::new(telnyx))),
            // The leg itself was of the process that answered it.
            "sip" => CarrierControl::Sip(Arc::new(SipLeg::ringing(Coding::MU_LAW))),
            _ => CarrierControl::None,
        }
    }

    /// How the audio of this carrier's calls is coded here.
    pub fn coding(&self) -> Coding {
        match self {
            CarrierControl::Twilio(_) | CarrierControl::None => Coding::MU_LAW,
            CarrierControl::Telnyx(_) => telnyx::CODING,
            CarrierControl::Sip(leg) => leg.coding(),
        }
    }

    /// Whether the carrier asks by itself what to do with a call; others are told, and only then.
    pub fn asks(&self) -> bool {
        matches!(self, CarrierControl::Twilio(_) | CarrierControl::None)
    }

    /// How long after the media of a call is lost the carrier is told to open it again; `None`: it cannot.
    pub fn rouse_after(&self) -> Option<Duration> {
        match self {
            CarrierControl::Twilio(_) | CarrierControl::None => Some(ROUSE_AFTER),
            CarrierControl::Telnyx(telnyx) => Some(telnyx.rouse_after()),
            CarrierControl::Sip(_) => None,
        }
    }

    /// What the carrier signs its requests about a number of this account with.
    pub fn signs_with(&self, target: &RingTarget) -> Vec<Secret<String>> {
        match self {
            CarrierControl::Twilio(_) | CarrierControl::None => {
                target.secrets().map(|secret| signing_secret(&target.connection.kind, secret)).collect()
            }
            CarrierControl::Telnyx(telnyx) => vec![telnyx.signs_with()],
            CarrierControl::Sip(_) => Vec::new(),
        }
    }

    /// Has another media socket opened for a call that is driven here.
    pub async fn media_again(&self, handle: &Arc<Handle>) -> Result<(), CarrierError> {
        match self {
            CarrierControl::Twilio(twilio) => twilio.media_is_over(&handle.carrier_call).await,
            CarrierControl::Telnyx(telnyx) => telnyx.media_again(handle).await,
            CarrierControl::Sip(_) | CarrierControl::None => Ok(()),
        }
    }

    /// Makes a carrier that asks do so about a call that nobody drives any more.
    pub async fn ring_again(&self, carrier_call: &str) -> Result<(), CarrierError> {
        match self {
            CarrierControl::Twilio(twilio) => twilio.ring_again(carrier_call).await,
            CarrierControl::Telnyx(_) | CarrierControl::Sip(_) | CarrierControl::None => Ok(()),
        }
    }

    /// Leads a caller where they shall go, at a carrier that does not ask.
    pub async fn lead(&self, carrier_call: &str, welcome: &Welcome) -> Result<(), CarrierError> {
        match self {
            CarrierControl::Telnyx(telnyx) => telnyx.lead(carrier_call, welcome).await,
            CarrierControl::Sip(leg) => leg.end(&Onward::HangUp).await,
            CarrierControl::Twilio(_) | CarrierControl::None => Ok(()),
        }
    }

    /// Whether the carrier presses keys itself, instead of passing tones on.
    pub fn presses(&self) -> bool {
        matches!(self, CarrierControl::Telnyx(_))
    }

    /// Presses keys, where the carrier does that.
    pub async fn press(&self, carrier_call: &str, digits: &str) -> Result<(), CarrierError> {
        match self {
            CarrierControl::Telnyx(telnyx) => telnyx.press(carrier_call, digits).await,
            CarrierControl::Twilio(_) | CarrierControl::Sip(_) | CarrierControl::None => Ok(()),
        }
    }

    /// The call is not driven here any more: a leg that no other process can go on with is ended.
    pub fn leave(&self) {
        if let CarrierControl::Sip(leg) = self {
            leg.leave();
        }
    }

    /// Ends our part of a call: hangs up, or puts the caller through.
    pub async fn end(&self, carrier_call: &str, onward: &Onward) -> Result<(), CarrierError> {
        match self {
            CarrierControl::Twilio(twilio) => twilio.end(carrier_call, onward).await,
            CarrierControl::Telnyx(telnyx) => telnyx.end(carrier_call, onward).await,
            CarrierControl::Sip(leg) => leg.end(onward).await,
            CarrierControl::None => Ok(()),
        }
    }
}
