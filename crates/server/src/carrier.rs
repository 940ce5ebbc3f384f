//! How a live call's carrier is told to do something with it. It does not know why.

use crate::call::registry::Onward;
use crate::connection::TwilioSecret;
use offhook_carriers::CarrierError;
use offhook_carriers::twilio::{Answer, Dial, Steer, Twilio, Verb};
use offhook_core::entity::Connection;
use offhook_core::{Pii, Secret};
use serde::Deserialize;

/// A connection's account at its carrier.
#[derive(Clone, Debug)]
pub enum CarrierControl {
    /// Twilio.
    Twilio(Twilio),
    /// A line that cannot be steered from outside.
    None,
}

/// A Twilio connection's settings beside its secret, the auth token.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TwilioConfig {
    /// Region, with `edge`.
    pub region: Option<String>,
    /// Edge, with `region`.
    pub edge: Option<String>,
    /// Another address of the REST API: a proxy or a simulator.
    pub api_base: Option<String>,
}

impl CarrierControl {
    /// The account that a connection leads to; `None` where its settings lead nowhere.
    pub fn open(
        http: &reqwest::Client,
        connection: &Connection,
        secret: Option<&Secret<String>>,
    ) -> CarrierControl {
        Self::twilio(http, connection, secret).map_or(CarrierControl::None, CarrierControl::Twilio)
    }

    fn twilio(
        http: &reqwest::Client,
        connection: &Connection,
        secret: Option<&Secret<String>>,
    ) -> Option<Twilio> {
        use offhook_carriers::twilio::{Credentials, api_host};
        let config: TwilioConfig = serde_json::from_value(connection.config.clone()).ok()?;
        let base = match config.api_base {
            Some(base) => base.parse().ok()?,
            None => api_host(config.region.as_deref(), config.edge.as_deref()).ok()?,
        };
        let secret = TwilioSecret::read(secret?);
        let credentials = match secret.api_key {
            Some((sid, secret)) => Credentials::ApiKey { sid, secret },
            None => Credentials::AuthToken(secret.auth_token),
        };
        Twilio::new(http.clone(), base, connection.account.as_deref()?, credentials).ok()
    }

    /// Makes the carrier ask this page what to do with a live call.
    pub async fn ask_again(&self, carrier_call: &str, page: url::Url) -> Result<(), CarrierError> {
        match self {
            CarrierControl::Twilio(twilio) => twilio.steer(carrier_call, &Steer::Ask(page)).await,
            CarrierControl::None => Ok(()),
        }
    }

    /// Ends our part of a call: hangs up, or puts the caller through.
    pub async fn end(&self, carrier_call: &str, onward: &Onward) -> Result<(), CarrierError> {
        let CarrierControl::Twilio(twilio) = self else { return Ok(()) };
        match onward {
            Onward::Forward(to) => match Dial::new(vec![to.clone()]) {
                Ok(dial) => twilio.steer(carrier_call, &Steer::Do(Answer::Run(vec![Verb::Dial(dial)]))).await,
                Err(error) => Err(CarrierError::Refused {
                    code: 0,
                    sentence: error.to_string().into(),
                    detail: Pii::new(String::new()),
                }),
            },
            Onward::HangUp | Onward::MediaAgain => twilio.hang_up(carrier_call).await,
        }
    }
}
