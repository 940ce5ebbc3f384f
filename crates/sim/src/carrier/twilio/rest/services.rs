//! Messaging services and the numbers in them: messaging.twilio.com/v1.
//! It keeps who belongs where; no message goes through one here.

use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::number::Number;
use super::super::{State, new_sid};
use super::fields::{Field, Fields, Kind};
use super::form::Form;
use super::page::PAGING;
use super::trunks::iso8601;
use super::{Answer, Refusal, RestRequest, done};

const SERVICE_FIELDS: &[Field] = &[
    Field::new("FriendlyName", "friendly_name", "", Kind::Text { most: 64 }),
    Field::new("InboundRequestUrl", "inbound_request_url", "", Kind::Url),
    Field::new("InboundMethod", "inbound_method", "POST", Kind::Method),
    Field::new("FallbackUrl", "fallback_url", "", Kind::Url),
    Field::new("FallbackMethod", "fallback_method", "POST", Kind::Method),
    Field::new("StatusCallback", "status_callback", "", Kind::Url),
    Field::new("StickySender", "sticky_sender", "true", Kind::Flag),
    Field::new("MmsConverter", "mms_converter", "true", Kind::Flag),
    Field::new("SmartEncoding", "smart_encoding", "true", Kind::Flag),
    Field::new(
        "ScanMessageContent",
        "scan_message_content",
        "inherit",
        Kind::OneOf(&["inherit", "enable", "disable"]),
    ),
    Field::new("FallbackToLongCode", "fallback_to_long_code", "true", Kind::Flag),
    Field::new("AreaCodeGeomatch", "area_code_geomatch", "true", Kind::Flag),
    Field::new("ValidityPeriod", "validity_period", "36000", Kind::Number { least: 1, most: 36_000 }),
    Field::new("SynchronousValidation", "synchronous_validation", "false", Kind::Flag),
    Field::new("Usecase", "usecase", "undeclared", Kind::Text { most: 64 }),
    Field::new("UseInboundWebhookOnNumber", "use_inbound_webhook_on_number", "false", Kind::Flag),
];

/// A messaging service of the account.
#[derive(Clone, Debug)]
pub(in super::super) struct Service {
    pub(in super::super) sid: String,
    /// The SIDs of its numbers.
    pub(in super::super) numbers: Vec<String>,
    fields: Fields,
    created: Timestamp,
    updated: Timestamp,
}

impl RestRequest<'_> {
    pub(super) fn services(&self) -> Answer {
        self.query.only(&PAGING)?;
        let state = self.sim.lock();
        let items = state.services.iter().map(|service| (service.sid.clone(), self.service_json(service)));
        self.meta_page("services", items.collect())
    }

    pub(super) fn create_service(&self, form: &Form) -> Answer {
        form.needed("FriendlyName")?;
        let fields = Fields::new(SERVICE_FIELDS).changed(form, &[])?;
        let now = Timestamp::now();
        let service = Service { sid: new_sid("MG"), numbers: Vec::new(), fields, created: now, updated: now };
        let created = self.service_json(&service);
        self.sim.lock().services.push(service);
        Ok((StatusCode::CREATED, created))
    }

    pub(super) fn service(&self, sid: &str, form: Option<&Form>) -> Answer {
        let mut state = self.sim.lock();
        let service = self.find_service(&mut state, sid)?;
        if let Some(form) = form {
            service.fields = service.fields.changed(form, &[])?;
            service.updated = Timestamp::now();
        }
        Ok((StatusCode::OK, self.service_json(service)))
    }

    pub(super) fn delete_service(&self, sid: &str) -> Answer {
        let mut state = self.sim.lock();
        self.find_service(&mut state, sid)?;
        state.services.retain(|service| service.sid != sid);
        done()
    }

    pub(super) fn service_numbers(&self, service: &str) -> Answer {
        self.query.only(&PAGING)?;
        let mut state = self.sim.lock();
        let members = self.find_service(&mut state, service)?.numbers.clone();
        let numbers = state.numbers.iter().filter(|number| members.contains(&number.sid));
        let items = numbers.map(|number| (number.sid.clone(), self.member_json(service, number)));
        self.meta_page("phone_numbers", items.collect())
    }

    /// A number is in one service at most.
    pub(super) fn add_service_number(&self, service: &str, form: &Form) -> Answer {
        form.only(&["PhoneNumberSid"])?;
        let sid = form.needed("PhoneNumberSid")?;
        let mut state = self.sim.lock();
        self.find_service(&mut state, service)?;
        let number = state.numbers.iter().find(|number| number.sid == sid);
        let number = number.cloned().ok_or_else(|| Refusal::not_found(sid))?;
        let conflict = |code, message: &str| Err(Refusal::new(StatusCode::CONFLICT, code, message));
        match state.services.iter().find(|other| other.numbers.contains(&number.sid)) {
            Some(own) if own.sid == service => {
                return conflict(21710, "Phone Number or Short Code is already in the Messaging Service");
            }
            Some(_) => {
                return conflict(21712, "Phone Number or Short Code is in another Messaging Service");
            }
            None => {}
        }
        self.find_service(&mut state, service)?.numbers.push(number.sid.clone());
        Ok((StatusCode::CREATED, self.member_json(service, &number)))
    }

    pub(super) fn service_number(&self, service: &str, sid: &str) -> Answer {
        let mut state = self.sim.lock();
        self.find_member(&mut state, service, sid)?;
        let number = state.numbers.iter().find(|number| number.sid == sid);
        let number = number.ok_or_else(|| Refusal::not_found(self.path))?;
        Ok((StatusCode::OK, self.member_json(service, number)))
    }

    pub(super) fn remove_service_number(&self, service: &str, sid: &str) -> Answer {
        let mut state = self.sim.lock();
        self.find_member(&mut state, service, sid)?.numbers.retain(|member| member != sid);
        done()
    }

    fn find_service<'s>(&self, state: &'s mut State, sid: &str) -> Result<&'s mut Service, Refusal> {
        let found = state.services.iter_mut().find(|service| service.sid == sid);
        found.ok_or_else(|| Refusal::not_found(self.path))
    }

    fn find_member<'s>(
        &self,
        state: &'s mut State,
        service: &str,
        sid: &str,
    ) -> Result<&'s mut Service, Refusal> {
        let service = self.find_service(state, service)?;
        let is_member = service.numbers.iter().any(|member| member == sid);
        if is_member { Ok(service) } else { Err(Refusal::not_found(self.path)) }
    }

    fn service_json(&self, service: &Service) -> Value {
        let url = self.url(&format!("/v1/Services/{}", service.sid));
        let mut answer = json!({
            "sid": service.sid,
            "account_sid": self.account(),
            "date_created": iso8601(service.created),
            "date_updated": iso8601(service.updated),
            "us_app_to_person_registered": false,
            "links": {
                "phone_numbers": format!("{url}/PhoneNumbers"),
                "short_codes": format!("{url}/ShortCodes"),
                "alpha_senders": format!("{url}/AlphaSenders"),
                "messages": format!("{url}/Messages"),
            },
            "url": url,
        });
        service.fields.write(&mut answer);
        for name in ["inbound_request_url", "fallback_url", "status_callback"] {
            if answer[name] == "" {
                answer[name] = Value::Null;
            }
        }
        answer
    }

    fn member_json(&self, service: &str, number: &Number) -> Value {
        let carries = [
            ("Voice", number.capabilities.voice),
            ("SMS", number.capabilities.sms),
            ("MMS", number.capabilities.mms),
        ];
        let capabilities: Vec<&str> = carries.iter().filter(|(_, can)| *can).map(|(name, _)| *name).collect();
        json!({
            "sid": number.sid,
            "account_sid": self.account(),
            "service_sid": service,
            "date_created": iso8601(number.created),
            "date_updated": iso8601(number.updated),
            "phone_number": number.e164,
            "country_code": if number.e164.starts_with("+1") { "US" } else { "" },
            "capabilities": capabilities,
            "url": self.url(&format!("/v1/Services/{service}/PhoneNumbers/{}", number.sid)),
        })
    }
}
