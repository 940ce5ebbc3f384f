//! What the simulated account is and how its carrier behaves, as a test sets it.

use offhook_core::Secret;
use serde::{Deserialize, Serialize};

use super::super::network::Proxy;
use super::super::person::Pickup;
use super::{
    ApiKey, Delivery, ForSale, Manners, OwnedApplication, OwnedNumber, OwnedProfile, RateLimit, Signing,
};

/// What the simulated account is and how the carrier behaves.
#[derive(Clone, Debug)]
pub struct TelnyxSettings {
    /// `KEY…`: opens everything.
    pub api_key: Secret<String>,
    /// Further keys.
    pub keys: Vec<ApiKey>,
    /// Numbers that the account owns.
    pub numbers: Vec<OwnedNumber>,
    /// Its call control applications.
    pub applications: Vec<OwnedApplication>,
    /// Its other connections, such as SIP trunks: id and name.
    pub connections: Vec<(String, String)>,
    /// Its messaging profiles.
    pub messaging_profiles: Vec<OwnedProfile>,
    /// Its outbound voice profiles.
    pub voice_profiles: Vec<OwnedProfile>,
    /// Numbers that can be bought.
    pub for_sale: Vec<ForSale>,
    /// How long an order is pending.
    pub order_takes_ms: u64,
    /// How much later a bought number is shown.
    pub numbers_lag_ms: u64,
    /// How much later an order is listed; by its id it is shown at once.
    pub orders_lag_ms: u64,
    /// Where the ends of orders are told: what the portal calls notifications.
    pub order_webhook_url: Option<String>,
    /// How many requests the API takes.
    pub rate_limit: RateLimit,
    /// What a called party does that no [`TelnyxSim::callee`] was set for.
    pub callee: Pickup,
    /// How webhooks are signed that no call decides about.
    pub signing: Signing,
    /// How webhooks arrive that no call decides about.
    pub delivery: Delivery,
    /// How audio is treated that no call decides about.
    pub manners: Manners,
    /// What `answer` does with a sampling rate, which its documents do not name.
    pub answer_rate: AnswerRate,
    /// Whether a command on a call that is over gets 90015, as one on a call that never was, and not 90018.
    pub dead_calls_are_unknown: bool,
    /// How long the carrier's own voice takes for one character.
    pub say_ms_per_character: u64,
    /// How long a sound file takes: it is not fetched.
    pub play_ms: u64,
    /// Whether a filter for a number may begin with its plus: the OpenAPI file says that it then finds nothing.
    pub number_filter_takes_plus: bool,
    /// How long it takes to tell a human from a machine, and then to hear the machine's greeting to its end.
    pub detection_ms: u64,
    /// What stands in front of the server.
    pub proxy: Option<Proxy>,
}

impl Default for TelnyxSettings {
    fn default() -> TelnyxSettings {
        TelnyxSettings {
            api_key: Secret::new("KEY0123456789ABCDEF0123456789ABCDEF_simulated".into()),
            keys: Vec::new(),
            numbers: Vec::new(),
            applications: Vec::new(),
            connections: Vec::new(),
            messaging_profiles: Vec::new(),
            voice_profiles: Vec::new(),
            for_sale: Vec::new(),
            order_takes_ms: 100,
            numbers_lag_ms: 0,
            orders_lag_ms: 0,
            order_webhook_url: None,
            rate_limit: RateLimit { requests: 1_000, window_s: 1 },
            callee: Pickup::default(),
            signing: Signing::default(),
            delivery: Delivery::default(),
            manners: Manners::default(),
            answer_rate: AnswerRate::default(),
            dead_calls_are_unknown: false,
            say_ms_per_character: 60,
            play_ms: 2_000,
            number_filter_takes_plus: true,
            detection_ms: 50,
            proxy: None,
        }
    }
}

/// What `answer` does with `stream_bidirectional_sampling_rate`: the documents give it to dialling and to `streaming_start` only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerRate {
    /// It is taken and has no effect.
    #[default]
    Ignored,
    /// It is an unknown parameter.
    Refused,
    /// It has its effect.
    Honoured,
}

/// A call to place into the customer's number.
#[derive(Clone, Debug)]
pub struct CallOrder {
    /// One of the account's numbers.
    pub to: String,
    /// Who calls: `+…`, or what stands there for a number that is withheld.
    pub from: String,
    /// The name from a caller-name lookup.
    pub caller_name: String,
    /// How this call's webhooks are signed; nothing for the settings' way.
    pub signing: Option<Signing>,
    /// How this call's webhooks arrive; nothing for the settings' way.
    pub delivery: Option<Delivery>,
    /// How this call's audio is treated; nothing for the settings' way.
    pub manners: Option<Manners>,
}

impl CallOrder {
    /// A plain call.
    pub fn new(to: impl Into<String>, from: impl Into<String>) -> CallOrder {
        CallOrder {
            to: to.into(),
            from: from.into(),
            caller_name: String::new(),
            signing: None,
            delivery: None,
            manners: None,
        }
    }
}
