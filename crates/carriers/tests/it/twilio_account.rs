//! The account at Twilio that the tests use: its ids, its credentials, and what Twilio answers about what it has.

use crate::stand_in::{Reply, StandIn};
use offhook_carriers::twilio::{Credentials, Twilio};
use offhook_core::Secret;
use serde_json::{Value, json};

pub const ACCOUNT: &str = "AC00000000000000000000000000000001";
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub const KEY: &str = "SK00000000000000000000000000000001";
pub const CALL: &str = "CA00000000000000000000000000000001";
pub const NUMBER: &str = "PN00000000000000000000000000000001";
pub const SERVICE: &str = "MG00000000000000000000000000000001";
pub const TRUNK: &str = "TK00000000000000000000000000000001";
pub const CALL_JSON: &str = include_str!("fixtures/call.json");
pub const QUEUED_JSON: &str = include_str!("fixtures/queued.json");
/// The path of the account.
pub const AC: &str = "/2010-04-01/Accounts/AC00000000000000000000000000000001";

pub fn by_token(carrier: &StandIn) -> Twilio {
    twilio(carrier, token())
}

pub fn token() -> Credentials {
    Credentials::AuthToken(Secret::new(TOKEN.into()))
}

pub fn key() -> Credentials {
    Credentials::ApiKey { sid: KEY.into(), secret: Secret::new("word".into()) }
}

/// The account behind an address that is not Twilio's own.
pub fn twilio(carrier: &StandIn, credentials: Credentials) -> Twilio {
    let twilio = Twilio::new(client(), carrier.base.clone(), ACCOUNT, credentials).unwrap();
    assert!(!format!("{twilio:?}").contains(TOKEN));
    twilio
}

/// The account behind Twilio's own names, all of which lead to the stand-in.
pub fn at_twilio(carrier: &StandIn, credentials: Credentials) -> Twilio {
    let [host, port] =
        [carrier.base.host_str().unwrap().to_owned(), carrier.base.port().unwrap().to_string()];
    let address = format!("{host}:{port}").parse().unwrap();
    let mut http = reqwest::Client::builder();
    for product in ["api", "messaging", "monitor", "trunking"] {
        for place in ["", "dublin.ie1.", "sydney.au1."] {
            http = http.resolve(&format!("{product}.{place}twilio.com"), address);
        }
    }
    // Another test of this binary may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let base = format!("http://api.twilio.com:{port}").parse().unwrap();
    Twilio::new(http.build().unwrap(), base, ACCOUNT, credentials).unwrap()
}

pub fn client() -> reqwest::Client {
    // Another test of this binary may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

pub fn form(body: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(body.as_bytes()).into_owned().collect()
}

/// A number of the account as Twilio writes it, nothing set but what is given.
pub fn number(settings: Value) -> Value {
    let mut number = json!({
        "sid": NUMBER, "account_sid": ACCOUNT, "phone_number": "+14155550101", "friendly_name": "(415) 555-0101",
        "capabilities": { "voice": true, "sms": true, "mms": false, "fax": false },
        "voice_receive_mode": "voice", "trunk_sid": null, "voice_application_sid": "",
        "voice_url": null, "voice_method": "POST", "voice_fallback_url": null, "voice_fallback_method": "POST",
        "status_callback": "", "status_callback_method": "POST",
        "sms_application_sid": "", "sms_url": "", "sms_method": "POST", "sms_fallback_url": "", "sms_fallback_method": "POST",
    });
    number.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    number
}

pub fn numbers(listed: &[Value]) -> Reply {
    Reply::ok(&json!({ "incoming_phone_numbers": listed, "next_page_uri": null }).to_string())
}

/// A page of a list of the other products.
pub fn listed(key: &str, entries: Value) -> Reply {
    Reply::ok(&json!({ "meta": { "key": key, "next_page_url": null }, key: entries }).to_string())
}

pub fn no_services() -> Reply {
    listed("services", json!([]))
}
