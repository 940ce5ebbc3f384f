//! Elastic SIP trunks: trunking.twilio.com/v1.
//! It keeps what a trunk is to do; no call goes over one here.

use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::number::Number;
use super::super::{State, new_sid};
use super::fields::{Field, Fields, Kind};
use super::form::Form;
use super::page::PAGING;
use super::{Answer, Refusal, RestRequest, done};

const TRUNK_FIELDS: &[Field] = &[
    Field::new("FriendlyName", "friendly_name", "", Kind::Text { most: 64 }),
    Field::new("DomainName", "domain_name", "", Kind::Text { most: 255 }),
    Field::new("DisasterRecoveryUrl", "disaster_recovery_url", "", Kind::Url),
    Field::new("DisasterRecoveryMethod", "disaster_recovery_method", "POST", Kind::Method),
    Field::new(
        "TransferMode",
        "transfer_mode",
        "disable-all",
        Kind::OneOf(&["disable-all", "enable-all", "sip-only"]),
    ),
    Field::new("Secure", "secure", "false", Kind::Flag),
    Field::new("CnamLookupEnabled", "cnam_lookup_enabled", "false", Kind::Flag),
    Field::new(
        "TransferCallerId",
        "transfer_caller_id",
        "from-transferee",
        Kind::OneOf(&["from-transferee", "from-transferor"]),
    ),
];

const ORIGINATION_FIELDS: &[Field] = &[
    Field::new("FriendlyName", "friendly_name", "", Kind::Text { most: 64 }),
    Field::new("SipUrl", "sip_url", "", Kind::Text { most: 255 }),
    Field::new("Priority", "priority", "10", Kind::Number { least: 0, most: 65_535 }),
    Field::new("Weight", "weight", "10", Kind::Number { least: 1, most: 65_535 }),
    Field::new("Enabled", "enabled", "true", Kind::Flag),
];

const RECORDING_FIELDS: &[Field] = &[
    Field::new(
        "Mode",
        "mode",
        "do-not-record",
        Kind::OneOf(&[
            "do-not-record",
            "record-from-ringing",
            "record-from-answer",
            "record-from-ringing-dual",
            "record-from-answer-dual",
        ]),
    ),
    Field::new("Trim", "trim", "do-not-trim", Kind::OneOf(&["do-not-trim", "trim-silence"])),
];

/// A trunk of the account.
#[derive(Clone, Debug)]
pub(in super::super) struct Trunk {
    pub(in super::super) sid: String,
    fields: Fields,
    recording: Fields,
    origination: Vec<Origination>,
    created: Timestamp,
    updated: Timestamp,
}

/// Where a trunk's calls are sent.
#[derive(Clone, Debug)]
struct Origination {
    sid: String,
    fields: Fields,
    created: Timestamp,
    updated: Timestamp,
}

impl RestRequest<'_> {
    pub(super) fn trunks(&self) -> Answer {
        self.query.only(&PAGING)?;
        let state = self.sim.lock();
        let items = state.trunks.iter().map(|trunk| (trunk.sid.clone(), self.trunk_json(trunk)));
        self.meta_page("trunks", items.collect())
    }

    pub(super) fn create_trunk(&self, form: &Form) -> Answer {
        let fields = checked_trunk(&Fields::new(TRUNK_FIELDS), form)?;
        let now = Timestamp::now();
        let trunk = Trunk {
            sid: new_sid("TK"),
            fields,
            recording: Fields::new(RECORDING_FIELDS),
            origination: Vec::new(),
            created: now,
            updated: now,
        };
        let mut state = self.sim.lock();
        let domain = trunk.fields.get("domain_name");
        if !domain.is_empty() && state.trunks.iter().any(|other| other.fields.get("domain_name") == domain) {
            return Err(Refusal::invalid(21248, format!("Domain name {domain} is already in use")));
        }
        let created = self.trunk_json(&trunk);
        state.trunks.push(trunk);
        Ok((StatusCode::CREATED, created))
    }

    pub(super) fn trunk(&self, sid: &str) -> Answer {
        self.query.only(&[])?;
        let mut state = self.sim.lock();
        let trunk = self.find_trunk(&mut state, sid)?;
        Ok((StatusCode::OK, self.trunk_json(trunk)))
    }

    pub(super) fn update_trunk(&self, sid: &str, form: &Form) -> Answer {
        let mut state = self.sim.lock();
        let trunk = self.find_trunk(&mut state, sid)?;
        trunk.fields = checked_trunk(&trunk.fields, form)?;
        trunk.updated = Timestamp::now();
        Ok((StatusCode::OK, self.trunk_json(trunk)))
    }

    /// The numbers of a trunk that is deleted belong to no trunk.
    pub(super) fn delete_trunk(&self, sid: &str) -> Answer {
        let mut state = self.sim.lock();
        self.find_trunk(&mut state, sid)?;
        state.trunks.retain(|trunk| trunk.sid != sid);
        for number in &mut state.numbers {
            if number.fields.get("trunk_sid") == sid {
                number.fields.set("trunk_sid", "");
            }
        }
        done()
    }

    pub(super) fn recording(&self, trunk: &str, form: Option<&Form>) -> Answer {
        let mut state = self.sim.lock();
        let trunk = self.find_trunk(&mut state, trunk)?;
        if let Some(form) = form {
            trunk.recording = trunk.recording.changed(form, &[])?;
        }
        let mut recording = json!({});
        trunk.recording.write(&mut recording);
        Ok((StatusCode::OK, recording))
    }

    pub(super) fn originations(&self, trunk: &str) -> Answer {
        self.query.only(&PAGING)?;
        let mut state = self.sim.lock();
        let trunk = self.find_trunk(&mut state, trunk)?;
        let items = trunk.origination.iter().map(|url| (url.sid.clone(), self.origination_json(trunk, url)));
        self.meta_page("origination_urls", items.collect())
    }

    pub(super) fn create_origination(&self, trunk: &str, form: &Form) -> Answer {
        for name in ["Weight", "Priority", "Enabled", "FriendlyName", "SipUrl"] {
            form.needed(name)?;
        }
        let fields = checked_origination(&Fields::new(ORIGINATION_FIELDS), form)?;
        let mut state = self.sim.lock();
        let trunk = self.find_trunk(&mut state, trunk)?;
        let now = Timestamp::now();
        let url = Origination { sid: new_sid("OU"), fields, created: now, updated: now };
        let created = self.origination_json(trunk, &url);
        trunk.origination.push(url);
        Ok((StatusCode::CREATED, created))
    }

    pub(super) fn origination(&self, trunk: &str, sid: &str, form: Option<&Form>) -> Answer {
        let mut state = self.sim.lock();
        let trunk = self.find_trunk(&mut state, trunk)?;
        let url = trunk.origination.iter_mut().find(|url| url.sid == sid);
        let url = url.ok_or_else(|| Refusal::not_found(self.path))?;
        if let Some(form) = form {
            url.fields = checked_origination(&url.fields, form)?;
            url.updated = Timestamp::now();
        }
        let url = url.clone();
        Ok((StatusCode::OK, self.origination_json(trunk, &url)))
    }

    pub(super) fn delete_origination(&self, trunk: &str, sid: &str) -> Answer {
        let mut state = self.sim.lock();
        let trunk = self.find_trunk(&mut state, trunk)?;
        let before = trunk.origination.len();
        trunk.origination.retain(|url| url.sid != sid);
        if trunk.origination.len() == before { Err(Refusal::not_found(self.path)) } else { done() }
    }

    pub(super) fn trunk_numbers(&self, trunk: &str) -> Answer {
        self.query.only(&PAGING)?;
        let mut state = self.sim.lock();
        self.find_trunk(&mut state, trunk)?;
        let members = state.numbers.iter().filter(|number| number.fields.get("trunk_sid") == trunk);
        let items =
            members.map(|number| (number.sid.clone(), self.trunk_number_json(number.json(self.account()))));
        self.meta_page("phone_numbers", items.collect())
    }

    /// A number belongs to one trunk: it leaves the one that it was in.
    pub(super) fn add_trunk_number(&self, trunk: &str, form: &Form) -> Answer {
        form.only(&["PhoneNumberSid"])?;
        let sid = form.needed("PhoneNumberSid")?;
        let mut state = self.sim.lock();
        self.find_trunk(&mut state, trunk)?;
        let number = state.numbers.iter_mut().find(|number| number.sid == sid);
        let number = number.ok_or_else(|| Refusal::not_found(sid))?;
        let mut fields = number.fields.clone();
        fields.set("trunk_sid", trunk);
        number.change(fields);
        Ok((StatusCode::CREATED, self.trunk_number_json(number.json(self.account()))))
    }

    pub(super) fn trunk_number(&self, trunk: &str, sid: &str) -> Answer {
        let state = self.sim.lock();
        let fits = |number: &&Number| number.sid == sid && number.fields.get("trunk_sid") == trunk;
        let number = state.numbers.iter().find(fits).ok_or_else(|| Refusal::not_found(self.path))?;
        Ok((StatusCode::OK, self.trunk_number_json(number.json(self.account()))))
    }

    pub(super) fn remove_trunk_number(&self, trunk: &str, sid: &str) -> Answer {
        self.trunk_number(trunk, sid)?;
        let mut state = self.sim.lock();
        if let Some(number) = state.numbers.iter_mut().find(|number| number.sid == sid) {
            let mut fields = number.fields.clone();
            fields.set("trunk_sid", "");
            number.change(fields);
        }
        done()
    }

    fn find_trunk<'s>(&self, state: &'s mut State, sid: &str) -> Result<&'s mut Trunk, Refusal> {
        let found = state.trunks.iter_mut().find(|trunk| trunk.sid == sid);
        found.ok_or_else(|| Refusal::not_found(self.path))
    }

    fn trunk_json(&self, trunk: &Trunk) -> Value {
        let url = self.url(&format!("/v1/Trunks/{}", trunk.sid));
        let mut recording = json!({});
        trunk.recording.write(&mut recording);
        let mut answer = json!({
            "sid": trunk.sid,
            "account_sid": self.account(),
            "recording": recording,
            "symmetric_rtp_enabled": false,
            "auth_type": "",
            "auth_type_set": [],
            "date_created": iso8601(trunk.created),
            "date_updated": iso8601(trunk.updated),
            "links": {
                "origination_urls": format!("{url}/OriginationUrls"),
                "credential_lists": format!("{url}/CredentialLists"),
                "ip_access_control_lists": format!("{url}/IpAccessControlLists"),
                "phone_numbers": format!("{url}/PhoneNumbers"),
            },
            "url": url,
        });
        trunk.fields.write(&mut answer);
        nothing_is_null(&mut answer, &["domain_name", "disaster_recovery_url"]);
        answer
    }

    fn origination_json(&self, trunk: &Trunk, url: &Origination) -> Value {
        let mut answer = json!({
            "sid": url.sid,
            "account_sid": self.account(),
            "trunk_sid": trunk.sid,
            "date_created": iso8601(url.created),
            "date_updated": iso8601(url.updated),
            "url": self.url(&format!("/v1/Trunks/{}/OriginationUrls/{}", trunk.sid, url.sid)),
        });
        url.fields.write(&mut answer);
        answer
    }

    /// A number as this host shows it: other dates and other links.
    fn trunk_number_json(&self, mut number: Value) -> Value {
        let (sid, trunk) = (number["sid"].clone(), number["trunk_sid"].clone());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        number["url"] = self.url(&format!("/v1/Trunks/{}/PhoneNumbers/{}", text(&trunk), text(&sid))).into();
        let resource = self.url(&text(&number["uri"]));
        number["links"] = json!({"phone_number": resource.trim_end_matches(".json")});
        for name in ["date_created", "date_updated"] {
            number[name] = iso8601_of(&text(&number[name])).into();
        }
        if let Some(fields) = number.as_object_mut() {
            const ELSEWHERE: [&str; 12] = [
                "uri",
                "subresource_uris",
                "emergency_status",
                "emergency_address_sid",
                "emergency_address_status",
                "address_sid",
                "bundle_sid",
                "identity_sid",
                "origin",
                "status",
                "type",
                "voice_receive_mode",
            ];
            fields.retain(|name, _| !ELSEWHERE.contains(&name.as_str()));
        }
        number
    }
}

impl State {
    /// A trunk that a number is given to must exist.
    pub(super) fn knows_trunk(&self, sid: &str) -> Result<(), Refusal> {
        match sid.is_empty() || self.trunks.iter().any(|trunk| trunk.sid == sid) {
            true => Ok(()),
            false => Err(Refusal::invalid(20001, format!("TrunkSid does not exist: {sid}"))),
        }
    }
}

fn checked_trunk(fields: &Fields, form: &Form) -> Result<Fields, Refusal> {
    let fields = fields.changed(form, &[])?;
    let domain = fields.get("domain_name");
    let name = domain.strip_suffix(".pstn.twilio.com").unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !domain.is_empty() && (name.is_empty() || !name.bytes().all(plain)) {
        let message = format!("DomainName must be letters, digits and - before .pstn.twilio.com: {domain}");
        return Err(Refusal::invalid(20001, message));
    }
    Ok(fields)
}

fn checked_origination(fields: &Fields, form: &Form) -> Result<Fields, Refusal> {
    let fields = fields.changed(form, &[])?;
    let url = fields.get("sip_url");
    match url.strip_prefix("sip:").is_some_and(|rest| !rest.is_empty()) {
        true => Ok(fields),
        false => Err(Refusal::invalid(20001, format!("SipUrl must be a sip: URI: {url}"))),
    }
}

fn nothing_is_null(answer: &mut Value, names: &[&str]) {
    for name in names {
        if answer[*name] == "" {
            answer[*name] = Value::Null;
        }
    }
}

/// The newer hosts write times as ISO 8601, in whole seconds.
pub(super) fn iso8601(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn iso8601_of(rfc2822: &str) -> String {
    Timestamp::strptime("%a, %d %b %Y %H:%M:%S %z", rfc2822).map(iso8601).unwrap_or_default()
}
