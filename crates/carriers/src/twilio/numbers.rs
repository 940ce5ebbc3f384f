//! Numbers of a Twilio account: bought, pointed to our pages and given back as they were.
//! It knows what wins over what in a number's settings; who may have a number, and for what, is decided elsewhere.

use super::rest::{Host, Twilio};
use crate::http::Harm;
use crate::{Area, Bought, CarrierError, OurHooks, OwnNumber, Routing};
use offhook_core::E164;
use offhook_core::entity::Capability;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use url::Url;

/// How many numbers are asked for at once: one has about 2 KiB.
pub const NUMBERS_PAGE_SIZE: usize = 200;
/// The most messaging services of an account that are asked for their numbers.
pub const MAX_SERVICES: usize = 50;
/// The most numbers of one messaging service that are looked at.
pub const MAX_SERVICE_NUMBERS: usize = 1_000;

/// The messaging service that takes a number's texts before the number's own address is asked. It is read and never written: a
/// number that is taken out of its service loses the service's A2P campaign with it.
const SERVICE: &str = "messaging_service_sid";

const TRUNK: &str = "trunk_sid";
const VOICE_APP: &str = "voice_application_sid";

/// A setting of a number.
struct Setting {
    /// Its name in an answer.
    name: &'static str,
    /// Its name in a request.
    parameter: &'static str,
    /// Whether it can be set to nothing.
    clearable: bool,
    /// What it is, for the user.
    words: &'static str,
}

const fn setting(
    name: &'static str,
    parameter: &'static str,
    clearable: bool,
    words: &'static str,
) -> Setting {
    Setting { name, parameter, clearable, words }
}

/// Everything that has a say in where calls and texts of a number go.
const SETTINGS: [Setting; 14] = [
    setting("voice_receive_mode", "VoiceReceiveMode", false, "whether it takes voice or fax"),
    setting(TRUNK, "TrunkSid", true, "the SIP trunk that takes its calls before any address is asked"),
    setting(
        VOICE_APP,
        "VoiceApplicationSid",
        true,
        "the TwiML app that takes its calls before its own address is asked",
    ),
    setting("voice_url", "VoiceUrl", true, "the address that is asked what to do with a call"),
    setting("voice_method", "VoiceMethod", false, "how the voice address is asked"),
    setting(
        "voice_fallback_url",
        "VoiceFallbackUrl",
        true,
        "the address for calls when the voice address fails",
    ),
    setting("voice_fallback_method", "VoiceFallbackMethod", false, "how the voice fallback address is asked"),
    setting("status_callback", "StatusCallback", true, "the address that is told how calls move on"),
    setting("status_callback_method", "StatusCallbackMethod", false, "how the status address is told"),
    setting(
        "sms_application_sid",
        "SmsApplicationSid",
        true,
        "the TwiML app that takes its texts before its own address is told",
    ),
    setting("sms_url", "SmsUrl", true, "the address that is told of texts"),
    setting("sms_method", "SmsMethod", false, "how the text address is told"),
    setting("sms_fallback_url", "SmsFallbackUrl", true, "the address for texts when the text address fails"),
    setting("sms_fallback_method", "SmsFallbackMethod", false, "how the text fallback address is told"),
];

const SERVICE_WORDS: &str = "the messaging service that takes its texts before its own address is told: in the Twilio console let the \
                             service defer to the sender's webhook, or take the number out of the service";

impl Twilio {
    /// The numbers of the account, over all pages, but no more than `most`.
    pub async fn own_numbers(&self, most: usize) -> Result<Vec<OwnNumber>, CarrierError> {
        let mut url = self.endpoint(&[self.account(), "IncomingPhoneNumbers.json"]);
        let page_size = most.clamp(1, NUMBERS_PAGE_SIZE);
        url.query_pairs_mut().append_pair("PageSize", &page_size.to_string());
        let listed: Vec<Value> =
            self.list(Area::Numbers, Host::Api, url, "incoming_phone_numbers", most).await?;
        let mut numbers: Vec<OwnNumber> = listed.into_iter().filter_map(own_number).collect();
        if numbers.iter().any(texts) {
            self.note_services(&mut numbers).await;
        }
        Ok(numbers)
    }

    /// One number as it is now; `None` if it is not this account's.
    pub async fn own_number(&self, e164: &E164) -> Result<Option<OwnNumber>, CarrierError> {
        let mut url = self.endpoint(&[self.account(), "IncomingPhoneNumbers.json"]);
        url.query_pairs_mut().append_pair("PhoneNumber", e164.as_str());
        let listed: Vec<Value> =
            self.list(Area::Numbers, Host::Api, url, "incoming_phone_numbers", NUMBERS_PAGE_SIZE).await?;
        // The filter also lets numbers through of which this is only a part.
        match listed.into_iter().filter_map(own_number).find(|number| number.e164 == *e164) {
            Some(number) => Ok(Some(self.with_service(number).await)),
            None => Ok(None),
        }
    }

    /// What a number must be set to so that it leads to these pages; no request is made.
    pub async fn routing_to(&self, hooks: &OurHooks, _label: &str) -> Result<Routing, CarrierError> {
        let mut routing = BTreeMap::new();
        let mut set =
            |name: &str, value: Option<&str>| routing.insert(name.to_owned(), value.map(Into::into));
        set("voice_receive_mode", Some("voice"));
        set(TRUNK, None);
        set(VOICE_APP, None);
        for (name, method, url) in [
            ("voice_url", "voice_method", &hooks.voice),
            ("voice_fallback_url", "voice_fallback_method", &hooks.voice_fallback),
            ("status_callback", "status_callback_method", &hooks.status),
        ] {
            set(name, Some(url.as_str()));
            set(method, Some("POST"));
        }
        if let Some(messages) = &hooks.messages {
            set(SERVICE, None);
            set("sms_application_sid", None);
            // A text is not sent again after an error; the fallback is its second chance.
            for (name, method) in [("sms_url", "sms_method"), ("sms_fallback_url", "sms_fallback_method")] {
                set(name, Some(messages.as_str()));
                set(method, Some("POST"));
            }
        }
        Ok(Routing(routing))
    }

    /// Buys a number and points it to `routing` in one request. Twilio keeps no reference: after [`CarrierError::OutcomeUnknown`] look
    /// with [`Twilio::own_number`].
    pub async fn buy(
        &self,
        e164: &E164,
        routing: &Routing,
        _reference: &str,
    ) -> Result<Bought, CarrierError> {
        let mut form = vec![("PhoneNumber", Cow::from(e164.as_str()))];
        // A new number has none of the settings that ours would clear.
        form.extend(form_of(routing).into_iter().filter(|(_, value)| !value.is_empty()));
        let url = self.endpoint(&[self.account(), "IncomingPhoneNumbers.json"]);
        let body = self.change(Area::Numbers, url, &form).await?;
        let number = serde_json::from_slice(&body).ok().and_then(own_number);
        match number.filter(|number| number.e164 == *e164) {
            Some(_) => Ok(Bought::Done),
            None => Err(Harm::Possible.unreadable()),
        }
    }

    /// Twilio knows no orders: what is bought is there at once.
    pub async fn order(&self, _order: &str) -> Result<Bought, CarrierError> {
        Err(CarrierError::NotFound)
    }

    /// Twilio keeps no references.
    pub async fn order_of(&self, _reference: &str) -> Result<Option<String>, CarrierError> {
        Ok(None)
    }

    /// Sets exactly the settings that `routing` names, a `None` to nothing, and returns the number as it is then. What still differs
    /// could not be set: a messaging service stays as it is.
    pub async fn route(&self, number: &OwnNumber, routing: &Routing) -> Result<OwnNumber, CarrierError> {
        let mut now = self.set(&number.id, routing).await?;
        // Twilio drops the app when a trunk is set and the trunk when an app is: what went with the other is set once more.
        let left = left_of(routing, &now.routing);
        if !form_of(&left).is_empty() {
            now = self.set(&number.id, &left).await?;
        }
        Ok(self.with_service(now).await)
    }

    async fn set(&self, id: &str, routing: &Routing) -> Result<OwnNumber, CarrierError> {
        let form = form_of(routing);
        if !form.is_empty() {
            self.change(Area::Numbers, self.number_url(id), &form).await?;
        }
        let now = self.read(Area::Numbers, self.number_url(id)).await?;
        own_number(now).ok_or_else(|| Harm::None.unreadable())
    }

    /// Gives a number back to Twilio, for good; that it is gone already is no error.
    pub async fn release(&self, number: &OwnNumber) -> Result<(), CarrierError> {
        match self.delete(Area::Numbers, self.number_url(&number.id)).await {
            Ok(()) | Err(CarrierError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What a setting of a [`Routing`] is, in words for the user.
    pub fn setting(name: &str) -> &'static str {
        match SETTINGS.iter().find(|setting| setting.name == name) {
            Some(setting) => setting.words,
            None if name == SERVICE => SERVICE_WORDS,
            None => "a setting of the number",
        }
    }

    fn number_url(&self, id: &str) -> Url {
        self.endpoint(&[self.account(), "IncomingPhoneNumbers", &format!("{id}.json")])
    }

    /// Notes for each number the messaging service that takes its texts. What cannot be learnt is left out: credentials that may not
    /// see the services can still see to the calls.
    async fn note_services(&self, numbers: &mut [OwnNumber]) {
        let Ok(services) = self.services().await else { return };
        let mut service_of = BTreeMap::new();
        for service in &services {
            let mut url = self.on(Host::Messaging, &["v1", "Services", service, "PhoneNumbers"]);
            url.query_pairs_mut().append_pair("PageSize", &NUMBERS_PAGE_SIZE.to_string());
            let members =
                self.list(Area::Messages, Host::Messaging, url, "phone_numbers", MAX_SERVICE_NUMBERS).await;
            let Ok(members): Result<Vec<Member>, _> = members else { return };
            service_of.extend(members.into_iter().map(|member| (member.sid, service)));
        }
        for number in numbers {
            let service = service_of.get(&number.id).map(|service| (*service).clone());
            number.routing.0.insert(SERVICE.into(), service);
        }
    }

    /// The same for one number.
    async fn with_service(&self, mut number: OwnNumber) -> OwnNumber {
        if texts(&number)
            && let Ok(service) = self.service_of(&number.id).await
        {
            number.routing.0.insert(SERVICE.into(), service);
        }
        number
    }

    async fn service_of(&self, id: &str) -> Result<Option<String>, CarrierError> {
        for service in self.services().await? {
            let url = self.on(Host::Messaging, &["v1", "Services", &service, "PhoneNumbers", id]);
            match self.read::<Member>(Area::Messages, url).await {
                Ok(_) => return Ok(Some(service)),
                Err(CarrierError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The messaging services that take the texts of their numbers themselves.
    async fn services(&self) -> Result<Vec<String>, CarrierError> {
        let mut url = self.on(Host::Messaging, &["v1", "Services"]);
        url.query_pairs_mut().append_pair("PageSize", &MAX_SERVICES.to_string());
        let services: Vec<Service> =
            self.list(Area::Messages, Host::Messaging, url, "services", MAX_SERVICES).await?;
        let own_way = services.into_iter().filter(|service| !service.use_inbound_webhook_on_number);
        Ok(own_way.map(|service| service.sid).collect())
    }
}

fn texts(number: &OwnNumber) -> bool {
    number.capabilities.contains(&Capability::Sms)
}

/// What a number would have to be told so that it has these settings.
fn form_of(routing: &Routing) -> Vec<(&'static str, Cow<'_, str>)> {
    let wanted = |name: &str| routing.0.get(name).map(Option::as_deref);
    let mut form = Vec::new();
    for setting in &SETTINGS {
        // One of the two goes when the other is set; emptied by name, it might take the other with it.
        let rival = match setting.name {
            TRUNK => wanted(VOICE_APP),
            VOICE_APP => wanted(TRUNK),
            _ => None,
        };
        match wanted(setting.name) {
            Some(Some(value)) => form.push((setting.parameter, value.into())),
            Some(None) if setting.clearable && rival.flatten().is_none() => {
                form.push((setting.parameter, "".into()));
            }
            _ => {}
        }
    }
    form
}

/// The part of a routing that a number does not have.
fn left_of(routing: &Routing, now: &Routing) -> Routing {
    let left = routing.differs(now).map(|(name, ours, _)| (name.to_owned(), ours.map(Into::into)));
    Routing(left.collect())
}

#[derive(Deserialize)]
struct Service {
    sid: String,
    #[serde(default)]
    use_inbound_webhook_on_number: bool,
}

#[derive(Deserialize)]
struct Member {
    sid: String,
}

/// Nothing if it is none that can be called.
fn own_number(resource: Value) -> Option<OwnNumber> {
    let Value::Object(fields) = resource else { return None };
    Some(OwnNumber {
        id: fields.get("sid")?.as_str()?.to_owned(),
        e164: fields.get("phone_number")?.as_str()?.parse().ok()?,
        capabilities: fields.get("capabilities").map(capabilities).unwrap_or_default(),
        routing: routing_of(&fields),
    })
}

/// The settings as found; Twilio writes nothing as `null` or as an empty text.
fn routing_of(fields: &Map<String, Value>) -> Routing {
    let value = |name: &str| fields.get(name)?.as_str().filter(|text| !text.is_empty());
    let settings =
        SETTINGS.iter().map(|setting| (setting.name.to_owned(), value(setting.name).map(Into::into)));
    let mut routing: BTreeMap<String, Option<String>> = settings.collect();
    // A number that does not say takes calls.
    routing.entry("voice_receive_mode".into()).and_modify(|mode| {
        mode.get_or_insert_with(|| "voice".into());
    });
    Routing(routing)
}

/// The names are documented in small letters and arrive in large ones too.
pub(super) fn capabilities(named: &Value) -> Vec<Capability> {
    let has = |name: &str| {
        let fields = named.as_object();
        fields.is_some_and(|fields| {
            fields.iter().any(|(key, value)| key.eq_ignore_ascii_case(name) && value.as_bool() == Some(true))
        })
    };
    [("voice", Capability::Voice), ("sms", Capability::Sms), ("mms", Capability::Mms)]
        .into_iter()
        .filter_map(|(name, capability)| has(name).then_some(capability))
        .collect()
}
