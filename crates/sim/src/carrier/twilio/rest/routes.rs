//! The inbound processing region of a number: routes.twilio.com/v2.
//! It keeps the wish; the simulator processes everything where it is.

use axum::http::StatusCode;

use serde_json::{Value, json};

use super::super::number::Number;
use super::form::Form;
use super::trunks::iso8601;
use super::{Answer, Refusal, RestRequest};

const REGIONS: [&str; 3] = ["us1", "ie1", "au1"];

impl RestRequest<'_> {
    /// Reads the region, or sets it where a form is given.
    pub(super) fn route(&self, e164: &str, form: Option<&Form>) -> Answer {
        let mut state = self.sim.lock();
        let number = state.numbers.iter_mut().find(|number| number.e164 == e164 || number.sid == e164);
        let number = number.ok_or_else(|| Refusal::not_found(self.path))?;
        if let Some(form) = form {
            form.only(&["VoiceRegion", "FriendlyName"])?;
            let region = form.value("VoiceRegion");
            if let Some(other) = region.filter(|region| !REGIONS.contains(region)) {
                return Err(Refusal::invalid(20001, format!("VoiceRegion does not exist: {other}")));
            }
            number.voice_region = region.map(str::to_owned).or(number.voice_region.take());
        }
        Ok((StatusCode::OK, self.route_json(number)))
    }

    fn route_json(&self, number: &Number) -> Value {
        json!({
            "phone_number": number.e164,
            "sid": format!("QQ{}", &number.sid[2..]),
            "account_sid": self.account(),
            "friendly_name": number.fields.get("friendly_name"),
            "voice_region": number.voice_region.as_deref().unwrap_or("us1"),
            "date_created": iso8601(number.created),
            "date_updated": iso8601(number.updated),
            "url": self.url(&format!("/v2/PhoneNumbers/{}", number.e164)),
        })
    }
}
