//! Twilio's side of live calls: the account behind a connection, the pages of ours that Twilio asks, and what it is told by REST.
//! It does not know what it asks there or is answered.

use crate::app::App;
use crate::call::registry::Onward;
use crate::connection::TwilioSecret;
use offhook_carriers::CarrierError;
use offhook_carriers::twilio::{Answer, Credentials, Dial, Steer, Twilio, Verb, api_host};
use offhook_core::entity::Connection;
use offhook_core::{Pii, Secret};
use serde::Deserialize;
use url::Url;

/// Where Twilio asks what to do with a call.
pub const VOICE: &str = "/hooks/twilio/voice";
/// Where it asks when [`VOICE`] did not answer.
pub const VOICE_FALLBACK: &str = "/hooks/twilio/voice-fallback";
/// Where it tells how calls move on.
pub const STATUS: &str = "/hooks/twilio/status";
/// Where it asks what comes after a media socket.
pub const MEDIA_OVER: &str = "/hooks/twilio/media-over";
/// Where it opens media sockets, each call's below.
pub const MEDIA: &str = "/hooks/twilio/media";

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
    /// What numbers of this account fall back to in place of a page of ours: a document that is served elsewhere, for when every
    /// server of ours is down.
    pub fallback_url: Option<String>,
}

/// What numbers of a connection fall back to, where that is not a page of ours.
pub fn fallback(connection: &Connection) -> Option<Url> {
    if connection.kind != "twilio" {
        return None;
    }
    let config: TwilioConfig = serde_json::from_value(connection.config.clone()).ok()?;
    config.fallback_url?.parse().ok()
}

/// The account that a connection leads to; `None` where its settings lead nowhere.
pub fn account(
    http: &reqwest::Client,
    connection: &Connection,
    secret: Option<&Secret<String>>,
) -> Option<Twilio> {
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

/// An account whose calls are driven here.
#[derive(Clone, Debug)]
pub struct TwilioControl {
    account: Twilio,
    voice: Url,
    media_over: Url,
}

impl TwilioControl {
    pub(super) fn open(
        app: &App,
        connection: &Connection,
        secret: Option<&Secret<String>>,
    ) -> Option<TwilioControl> {
        Some(TwilioControl {
            account: account(&app.http, connection, secret)?,
            voice: app.public_url.page(VOICE),
            media_over: app.public_url.page(MEDIA_OVER),
        })
    }

    /// Makes Twilio ask what comes after the media socket of a call.
    pub(super) async fn media_is_over(&self, carrier_call: &str) -> Result<(), CarrierError> {
        self.account.steer(carrier_call, &Steer::Ask(self.media_over.clone())).await
    }

    /// Makes Twilio ask about a call as if it rang.
    pub(super) async fn ring_again(&self, carrier_call: &str) -> Result<(), CarrierError> {
        self.account.steer(carrier_call, &Steer::Ask(self.voice.clone())).await
    }

    pub(super) async fn end(&self, carrier_call: &str, onward: &Onward) -> Result<(), CarrierError> {
        match onward {
            Onward::Forward(to) => match Dial::new(vec![to.clone()]) {
                Ok(dial) => {
                    let put_through = Answer::Run(vec![Verb::Dial(dial)]);
                    self.account.steer(carrier_call, &Steer::Do(put_through)).await
                }
                Err(error) => Err(CarrierError::Refused {
                    code: 0,
                    sentence: error.to_string().into(),
                    detail: Pii::new(String::new()),
                }),
            },
            Onward::HangUp | Onward::MediaAgain => self.account.hang_up(carrier_call).await,
        }
    }
}
