//! A number of the simulated account: what it can do, and where its calls and messages lead.
//! It does not know how it is asked for or changed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::rest::fields::{Field, Fields, Kind};
use super::twiml::Hook;
use super::webhook::HttpMethod;
use super::{new_sid, rfc2822};

/// A number that the account owns when the simulator starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnedNumber {
    /// The number itself.
    pub e164: String,
    /// What is asked when it is called; empty for nothing.
    #[serde(default)]
    pub voice_url: String,
    /// What is asked when that fails; empty for nothing.
    #[serde(default)]
    pub voice_fallback_url: String,
    /// What is told the end of its calls; empty for nothing.
    #[serde(default)]
    pub status_callback: String,
    /// Its other settings by their names in answers, such as `sms_url`; one that does not exist is ignored.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

impl OwnedNumber {
    /// A number whose calls are answered by a voice URL.
    pub fn new(e164: impl Into<String>, voice_url: impl Into<String>) -> OwnedNumber {
        OwnedNumber {
            e164: e164.into(),
            voice_url: voice_url.into(),
            voice_fallback_url: String::new(),
            status_callback: String::new(),
            settings: BTreeMap::new(),
        }
    }
}

/// What a number can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Calls.
    pub voice: bool,
    /// Text messages.
    pub sms: bool,
    /// Messages with pictures.
    pub mms: bool,
}

impl Capabilities {
    /// A number of the United States.
    pub const ALL: Capabilities = Capabilities { voice: true, sms: true, mms: true };
}

/// An address that must be given before a number is sold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressRequirement {
    /// None.
    #[default]
    None,
    /// Any at all.
    Any,
    /// One in the number's country.
    Local,
    /// One outside the number's country.
    Foreign,
}

/// A number of the account as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NumberState {
    /// `PN` and 32 hexadecimal digits.
    pub sid: String,
    /// The number itself.
    pub e164: String,
    /// Every setting by its name in answers, such as `voice_url`; empty where there is none.
    pub settings: BTreeMap<&'static str, String>,
}

/// What can be changed of a number.
pub(super) const NUMBER_FIELDS: &[Field] = &[
    Field::new("FriendlyName", "friendly_name", "", Kind::Text { most: 64 }),
    Field::new("VoiceUrl", "voice_url", "", Kind::Url),
    Field::new("VoiceMethod", "voice_method", "POST", Kind::Method),
    Field::new("VoiceFallbackUrl", "voice_fallback_url", "", Kind::Url),
    Field::new("VoiceFallbackMethod", "voice_fallback_method", "POST", Kind::Method),
    Field::new("VoiceApplicationSid", "voice_application_sid", "", Kind::Sid("AP")),
    Field::new("VoiceReceiveMode", "voice_receive_mode", "voice", Kind::OneOf(&["voice", "fax"])),
    Field::new("VoiceCallerIdLookup", "voice_caller_id_lookup", "false", Kind::Flag),
    Field::new("StatusCallback", "status_callback", "", Kind::Url),
    Field::new("StatusCallbackMethod", "status_callback_method", "POST", Kind::Method),
    Field::new("SmsUrl", "sms_url", "", Kind::Url),
    Field::new("SmsMethod", "sms_method", "POST", Kind::Method),
    Field::new("SmsFallbackUrl", "sms_fallback_url", "", Kind::Url),
    Field::new("SmsFallbackMethod", "sms_fallback_method", "POST", Kind::Method),
    Field::new("SmsApplicationSid", "sms_application_sid", "", Kind::Sid("AP")),
    Field::new("TrunkSid", "trunk_sid", "", Kind::Sid("TK")),
    Field::new("AddressSid", "address_sid", "", Kind::Sid("AD")),
    Field::new("BundleSid", "bundle_sid", "", Kind::Sid("BU")),
    Field::new("IdentitySid", "identity_sid", "", Kind::Sid("RI")),
    Field::new("EmergencyStatus", "emergency_status", "Inactive", Kind::OneOf(&["Active", "Inactive"])),
    Field::new("EmergencyAddressSid", "emergency_address_sid", "", Kind::Sid("AD")),
];

/// A number as the carrier keeps it.
#[derive(Clone, Debug)]
pub(super) struct Number {
    pub(super) sid: String,
    pub(super) e164: String,
    pub(super) fields: Fields,
    pub(super) capabilities: Capabilities,
    pub(super) address_requirement: AddressRequirement,
    /// `local`, `mobile` and so on, as answers have it.
    pub(super) kind: &'static str,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
    /// The inbound processing region, if one was set.
    pub(super) voice_region: Option<String>,
    /// Lists to come in which it is missing, though it can be read by its SID.
    pub(super) missing_in_lists: u32,
}

impl From<&OwnedNumber> for Number {
    fn from(owned: &OwnedNumber) -> Number {
        let mut number = Number::new(&owned.e164);
        number.fields.set("voice_url", &owned.voice_url);
        number.fields.set("voice_fallback_url", &owned.voice_fallback_url);
        number.fields.set("status_callback", &owned.status_callback);
        for (name, value) in &owned.settings {
            number.fields.set(name, value);
        }
        number
    }
}

impl Number {
    /// A number that leads nowhere yet.
    pub(super) fn new(e164: &str) -> Number {
        let mut fields = Fields::new(NUMBER_FIELDS);
        fields.set("friendly_name", &formatted(e164));
        let now = Timestamp::now();
        Number {
            sid: new_sid("PN"),
            e164: e164.to_owned(),
            fields,
            capabilities: Capabilities::ALL,
            address_requirement: AddressRequirement::None,
            kind: "local",
            created: now,
            updated: now,
            voice_region: None,
            missing_in_lists: 0,
        }
    }

    pub(super) fn state(&self) -> NumberState {
        NumberState { sid: self.sid.clone(), e164: self.e164.clone(), settings: self.fields.all() }
    }

    /// Takes other settings. A trunk and an application for calls exclude each other: the one that came later stays.
    pub(super) fn change(&mut self, mut fields: Fields) {
        let came = |name| fields.get(name) != self.fields.get(name) && !fields.get(name).is_empty();
        if came("trunk_sid") {
            fields.set("voice_application_sid", "");
        } else if came("voice_application_sid") {
            fields.set("trunk_sid", "");
        }
        self.fields = fields;
        self.updated = Timestamp::now();
    }

    /// What is asked when the number is called: nothing while a trunk or an application stands before the URL.
    pub(super) fn voice_hook(&self) -> Option<Hook> {
        let taken =
            !self.fields.get("trunk_sid").is_empty() || !self.fields.get("voice_application_sid").is_empty();
        if taken || self.fields.get("voice_receive_mode") != "voice" {
            None
        } else {
            self.hook("voice_url", "voice_method")
        }
    }

    pub(super) fn fallback_hook(&self) -> Option<Hook> {
        self.hook("voice_fallback_url", "voice_fallback_method")
    }

    pub(super) fn status_hook(&self) -> Option<Hook> {
        self.hook("status_callback", "status_callback_method")
    }

    fn hook(&self, url: &str, method: &str) -> Option<Hook> {
        let url = self.fields.get(url);
        let method = HttpMethod::parse(self.fields.get(method)).unwrap_or_default();
        (!url.is_empty()).then(|| Hook { url: url.to_owned(), method })
    }

    pub(super) fn json(&self, account_sid: &str) -> Value {
        let uri = format!("/2010-04-01/Accounts/{account_sid}/IncomingPhoneNumbers/{}", self.sid);
        let Capabilities { voice, sms, mms } = self.capabilities;
        let mut number = json!({
            "sid": self.sid,
            "account_sid": account_sid,
            "phone_number": self.e164,
            "api_version": "2010-04-01",
            "address_requirements": self.address_requirement,
            "beta": false,
            "capabilities": {"voice": voice, "sms": sms, "mms": mms, "fax": false},
            "date_created": rfc2822(self.created),
            "date_updated": rfc2822(self.updated),
            "emergency_address_status": "unregistered",
            "origin": "twilio",
            "status": "in-use",
            "type": self.kind,
            "uri": format!("{uri}.json"),
            "subresource_uris": {"assigned_add_ons": format!("{uri}/AssignedAddOns.json")},
        });
        self.fields.write(&mut number);
        number
    }
}

/// `+14155550123` as `(415) 555-0123`; everything else as it is.
pub(super) fn formatted(address: &str) -> String {
    match address.strip_prefix("+1") {
        Some(national) if national.len() == 10 && national.is_ascii() => {
            format!("({}) {}-{}", &national[..3], &national[3..6], &national[6..])
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_as_people_write_them() {
        assert_eq!(formatted("+13051416799"), "(305) 141-6799");
        assert_eq!(formatted("+4930123456"), "+4930123456");
        assert_eq!(formatted("client:ada"), "client:ada");
    }

    #[test]
    fn a_trunk_stands_before_the_voice_url() {
        let mut number = Number::from(&OwnedNumber::new("+15550100002", "https://h.example/voice"));
        assert!(number.voice_hook().is_some());
        number.fields.set("trunk_sid", "TK1");
        assert_eq!(number.voice_hook(), None);
    }

    #[test]
    fn of_a_trunk_and_an_application_the_later_one_stays() {
        let mut number = Number::new("+15550100002");
        for (set, other) in [("trunk_sid", "voice_application_sid"), ("voice_application_sid", "trunk_sid")] {
            let mut fields = number.fields.clone();
            fields.set(set, "x");
            number.change(fields);
            assert_eq!((number.fields.get(set), number.fields.get(other)), ("x", ""));
        }
    }
}
