//! Checks requests against what a carrier's OpenAPI files say: host, method, path, content type, and every name and value that is sent.
//! What they say is in `tests/contracts`, made by `scripts/contracts`; it knows nothing of the adapters that send the requests.

use crate::stand_in::Asked;
use regex_lite::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use url::form_urlencoded;

/// Everything that one carrier may be asked.
pub struct Contract {
    operations: Vec<Operation>,
    covered: BTreeSet<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    method: String,
    host: String,
    path: String,
    #[serde(default)]
    path_parameters: BTreeMap<String, Schema>,
    #[serde(default)]
    query_parameters: BTreeMap<String, Schema>,
    body: Option<Body>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    content_type: String,
    schema: Schema,
    #[serde(default)]
    required: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Schema {
    r#type: Option<Types>,
    r#enum: Option<Vec<Value>>,
    format: Option<String>,
    pattern: Option<String>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    /// Of a parameter: it must be there.
    #[serde(default)]
    required: bool,
    /// What the values of an array are.
    items: Option<Box<Schema>>,
    /// The fields of an object; without them any are allowed.
    fields: Option<BTreeMap<String, Schema>>,
    /// Those of them that must be there.
    #[serde(default)]
    needed: Vec<String>,
    /// What fields of other names are.
    others: Option<Box<Schema>>,
    /// One of these fits.
    any: Option<Vec<Schema>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Types {
    One(String),
    Some(Vec<String>),
}

impl Contract {
    /// The operations of one file of `tests/contracts`.
    pub fn read(extract: &str) -> Contract {
        Contract { operations: serde_json::from_str(extract).unwrap(), covered: BTreeSet::new() }
    }

    /// Checks one request.
    ///
    /// # Panics
    /// When it is none that the carrier would take, with everything that is wrong with it.
    pub fn check(&mut self, asked: &Asked) {
        let wrong = self.complaints(asked);
        assert!(wrong.is_empty(), "{} {}\n{}\n  {}", asked.host, asked.line, asked.body, wrong.join("\n  "));
    }

    /// Everything that is wrong with a request; if nothing is, its operation counts as covered.
    fn complaints(&mut self, asked: &Asked) -> Vec<String> {
        let (method, uri) = asked.line.split_once(' ').unwrap();
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let Some(index) = self.operation(&asked.host, method, path) else {
            return vec![format!("{} knows no {method} {path}", asked.host)];
        };
        let mut wrong = Vec::new();
        let operation = &self.operations[index];
        operation.check_path(path, &mut wrong);
        operation.check_query(query, &mut wrong);
        operation.check_body(asked, &mut wrong);
        if wrong.is_empty() {
            self.covered.insert(index);
        }
        wrong
    }

    /// Says how many operations were asked for.
    ///
    /// # Panics
    /// When one of them was not.
    pub fn finish(&self, carrier: &str) {
        println!("{carrier}: {} of {} operations covered", self.covered.len(), self.operations.len());
        let left = self.operations.iter().enumerate().filter(|(index, _)| !self.covered.contains(index));
        let left: Vec<_> = left.map(|(_, one)| format!("{} {}", one.method, one.path)).collect();
        assert!(left.is_empty(), "nothing asked for {left:#?}");
    }

    /// The operation with this path; where several fit, the one with most of it written out.
    fn operation(&self, host: &str, method: &str, path: &str) -> Option<usize> {
        let host = host.split(':').next().unwrap_or_default();
        let fits = |one: &Operation| {
            // `api.dublin.ie1.twilio.com` is another place of `api.twilio.com`; a stand-in has one address for all hosts.
            let (label, domain) = one.host.split_at(one.host.find('.').unwrap());
            let known = host == "127.0.0.1" || (host.starts_with(label) && host.ends_with(domain));
            known && one.method == method && one.values_in(path).is_some()
        };
        let fitting = self.operations.iter().enumerate().filter(|(_, one)| fits(one));
        fitting.min_by_key(|(_, one)| one.path.matches('{').count()).map(|(index, _)| index)
    }
}

impl Operation {
    /// The values in a path, by name, if it is one of this operation's.
    fn values_in(&self, path: &str) -> Option<Vec<(&str, String)>> {
        let (named, given) = (self.path.split('/'), path.split('/'));
        if named.clone().count() != given.clone().count() {
            return None;
        }
        let mut values = Vec::new();
        for (name, value) in named.zip(given) {
            match name.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
                None if name == value => {}
                Some((before, (name, after))) => {
                    let value = value.strip_prefix(before)?.strip_suffix(after)?;
                    values.push((name, decoded(value)));
                }
                None => return None,
            }
        }
        Some(values)
    }

    fn check_path(&self, path: &str, wrong: &mut Vec<String>) {
        for (name, value) in self.values_in(path).expect("the operation was chosen by its path") {
            match self.path_parameters.get(name) {
                Some(schema) => schema.check_text(&value, name, wrong),
                None => wrong.push(format!("{name} is no parameter of the path")),
            }
        }
    }

    fn check_query(&self, query: &str, wrong: &mut Vec<String>) {
        let mut seen = BTreeSet::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some((schema, list)) = self.query_parameter(&name) else {
                wrong.push(format!("{name} is no parameter"));
                continue;
            };
            if !seen.insert(name.to_string()) && !list {
                wrong.push(format!("{name} comes twice"));
            }
            schema.check_text(&value, &name, wrong);
        }
        let needed = self.query_parameters.iter().filter(|(_, schema)| schema.required);
        let missing = needed.filter(|(name, _)| {
            !seen.iter().any(|seen| seen == *name || seen.starts_with(&format!("{name}[")))
        });
        wrong.extend(missing.map(|(name, _)| format!("{name} is missing")));
    }

    /// A parameter by its own name or, for `filter[features][]`, as a field of an object; and whether it may come often.
    fn query_parameter(&self, name: &str) -> Option<(&Schema, bool)> {
        let (mut schema, below) = match self.query_parameters.get(name) {
            Some(schema) => (schema, ""),
            None => {
                let (object, below) = name.split_at(name.find('[')?);
                (self.query_parameters.get(object)?, below)
            }
        };
        let mut list = false;
        for field in below.split(']').filter(|field| !field.is_empty()) {
            schema = match field.strip_prefix('[')? {
                "" => schema.items.as_deref()?,
                field => schema.fields.as_ref()?.get(field)?,
            };
            list = field == "[";
        }
        match &schema.items {
            Some(items) => Some((items, true)),
            None => Some((schema, list)),
        }
    }

    fn check_body(&self, asked: &Asked, wrong: &mut Vec<String>) {
        let Some(body) = &self.body else {
            if !asked.body.is_empty() {
                wrong.push("nothing is sent with this".into());
            }
            return;
        };
        if asked.body.is_empty() && asked.content_type.is_empty() {
            if body.required || !body.schema.needed.is_empty() {
                wrong.push("a body is missing".into());
            }
            return;
        }
        let content_type = asked.content_type.split(';').next().unwrap_or_default();
        if content_type != body.content_type {
            wrong.push(format!("the body is {content_type}, not {}", body.content_type));
        } else if content_type == "application/json" {
            match serde_json::from_str(&asked.body) {
                Ok(value) => body.schema.check(&value, "body", wrong),
                Err(error) => wrong.push(format!("the body is not JSON: {error}")),
            }
        } else {
            body.schema.check_form(&asked.body, wrong);
        }
    }
}

impl Schema {
    fn check_form(&self, body: &str, wrong: &mut Vec<String>) {
        let mut seen = BTreeSet::new();
        for (name, value) in form_urlencoded::parse(body.as_bytes()) {
            let Some(field) = self.fields.as_ref().and_then(|fields| fields.get(&*name)) else {
                wrong.push(format!("{name} is no field"));
                continue;
            };
            if !seen.insert(name.to_string()) && field.items.is_none() {
                wrong.push(format!("{name} comes twice"));
            }
            // An empty text sets a field to nothing: "send `TrunkSid=` empty" (twilio.md, section 2).
            if !(value.is_empty() && field.is("string") && field.r#enum.is_none()) {
                field.items.as_deref().unwrap_or(field).check_text(&value, &name, wrong);
            }
        }
        let missing = self.needed.iter().filter(|name| !seen.contains(*name));
        wrong.extend(missing.map(|name| format!("{name} is missing")));
    }

    /// Checks a value of a path, a query or a form.
    fn check_text(&self, text: &str, name: &str, wrong: &mut Vec<String>) {
        let typed = if self.is("string") || self.r#type.is_none() {
            None
        } else if self.is("boolean") {
            text.parse().ok().map(Value::Bool)
        } else {
            serde_json::from_str(text).ok().filter(Value::is_number)
        };
        self.check(&typed.unwrap_or_else(|| text.into()), name, wrong);
    }

    fn check(&self, value: &Value, name: &str, wrong: &mut Vec<String>) {
        if let Some(any) = &self.any {
            let fits = |schema: &Schema| {
                let mut wrong = Vec::new();
                schema.check(value, name, &mut wrong);
                wrong.is_empty()
            };
            if !any.iter().any(fits) {
                wrong.push(format!("{name} is none of what it may be: {value}"));
            }
            return;
        }
        if !self.allows(value) {
            wrong.push(format!("{name} has the wrong type: {value}"));
            return;
        }
        if self.r#enum.as_ref().is_some_and(|members| !value.is_null() && !members.contains(value)) {
            wrong.push(format!("{name} is not one of its values: {value}"));
        }
        match value {
            Value::String(text) => self.check_string(text, name, wrong),
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or(f64::NAN);
                if self.minimum.is_some_and(|least| number < least)
                    || self.maximum.is_some_and(|most| number > most)
                {
                    wrong.push(format!("{name} is out of bounds: {number}"));
                }
            }
            Value::Array(values) => {
                if self.min_items.is_some_and(|least| values.len() < least)
                    || self.max_items.is_some_and(|most| values.len() > most)
                {
                    wrong.push(format!("{name} has {} values", values.len()));
                }
                for (index, value) in values.iter().enumerate() {
                    if let Some(items) = &self.items {
                        items.check(value, &format!("{name}[{index}]"), wrong);
                    }
                }
            }
            Value::Object(fields) => {
                for (field, value) in fields {
                    let name = format!("{name}.{field}");
                    match self.fields.as_ref().and_then(|fields| fields.get(field)).or(self.others.as_deref())
                    {
                        Some(schema) => schema.check(value, &name, wrong),
                        None if self.fields.is_some() => wrong.push(format!("{name} is no field")),
                        None => {}
                    }
                }
                let missing = self.needed.iter().filter(|field| !fields.contains_key(*field));
                wrong.extend(missing.map(|field| format!("{name}.{field} is missing")));
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn check_string(&self, text: &str, name: &str, wrong: &mut Vec<String>) {
        let length = text.chars().count();
        let long = self.min_length.is_some_and(|least| length < least)
            || self.max_length.is_some_and(|most| length > most);
        let shaped = self.pattern.as_ref().is_none_or(|pattern| Regex::new(pattern).unwrap().is_match(text));
        let formed = match self.format.as_deref() {
            Some("uri" | "url") => text.parse::<url::Url>().is_ok(),
            Some("date-time") => text.parse::<jiff::Timestamp>().is_ok(),
            Some("date") => text.parse::<jiff::civil::Date>().is_ok(),
            Some("uuid") => {
                let parts: Vec<_> = text.split('-').map(str::len).collect();
                parts == [8, 4, 4, 4, 12] && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
            }
            Some("phone-number") => text.parse::<offhook_core::E164>().is_ok(),
            Some("iso-country-code") => text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase()),
            Some("http-method") => matches!(text, "GET" | "POST"),
            Some("endpoint" | "twiml") | None => true,
            Some(other) => panic!("the checker does not know the format {other}"),
        };
        if long || !shaped || !formed {
            wrong.push(format!("{name} is not formed as documented: {text}"));
        }
    }

    fn is(&self, name: &str) -> bool {
        match &self.r#type {
            Some(Types::One(one)) => one == name,
            Some(Types::Some(some)) => some.iter().any(|one| one == name),
            None => false,
        }
    }

    fn allows(&self, value: &Value) -> bool {
        self.r#type.is_none()
            || match value {
                Value::Null => self.is("null"),
                Value::Bool(_) => self.is("boolean"),
                Value::Number(number) => self.is("number") || (self.is("integer") && !number.is_f64()),
                Value::String(_) => self.is("string"),
                Value::Array(_) => self.is("array"),
                Value::Object(_) => self.is("object"),
            }
    }
}

/// A segment of a path without its percent signs.
fn decoded(segment: &str) -> String {
    let escaped = segment.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(escaped.as_bytes()).map(|(name, _)| name.into_owned()).collect()
}

/// What Twilio may be asked.
pub const TWILIO: &str = include_str!("../contracts/twilio.json");
/// What Telnyx may be asked.
pub const TELNYX: &str = include_str!("../contracts/telnyx.json");

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

#[test]
fn a_request_that_the_carrier_would_refuse_is_found() {
    const CALLS: &str = "POST /2010-04-01/Accounts/AC00000000000000000000000000000001/Calls.json";
    const LIST: &str = "GET /2010-04-01/Accounts/AC00000000000000000000000000000001/Calls.json";
    let (api, trunking, telnyx) = ("api.twilio.com", "trunking.twilio.com", "api.telnyx.com");
    for (host, line, content_type, body, wrong) in [
        (
            api,
            CALLS,
            FORM,
            "To=a&From=b&Url=https%3A%2F%2Fh%2Fx&StatusCallbackEvent=a&StatusCallbackEvent=b",
            "",
        ),
        ("evil.example", CALLS, FORM, "To=a&From=b", "evil.example knows no POST"),
        (api, "PUT /2010-04-01/Accounts/AC1.json", FORM, "", "knows no PUT"),
        (api, "GET /2010-04-01/Accounts/AC1.json", "", "", "Sid is not formed as documented: AC1"),
        (api, CALLS, FORM, "To=a", "From is missing"),
        (api, CALLS, FORM, "To=a&From=b&Callback=c", "Callback is no field"),
        (api, CALLS, FORM, "To=a&From=b&Timeout=soon", "Timeout has the wrong type"),
        (api, CALLS, FORM, "To=a&From=b&Url=nowhere", "Url is not formed as documented: nowhere"),
        (api, CALLS, FORM, "To=a&From=b&Method=PUT", "Method is not one of its values"),
        (api, CALLS, FORM, "To=a&From=b&To=c", "To comes twice"),
        (api, CALLS, JSON, r#"{"To":"a","From":"b"}"#, "the body is application/json, not"),
        (api, CALLS, "", "", "a body is missing"),
        (api, LIST, "", "x", "nothing is sent with this"),
        (api, &format!("{LIST}?PageSize=5&Size=5"), "", "", "Size is no parameter"),
        (api, &format!("{LIST}?PageSize=many"), "", "", "PageSize has the wrong type"),
        (api, &format!("{LIST}?PageSize=2000"), "", "", "PageSize is out of bounds"),
        (api, &format!("{LIST}?StartTime%3E=yesterday"), "", "", "StartTime> is not formed"),
        (trunking, "POST /v1/Trunks", FORM, "TransferMode=sip-only&FriendlyName=", ""),
        (trunking, "POST /v1/Trunks", FORM, "TransferMode=always", "TransferMode is not one of its values"),
        (telnyx, "GET /v2/phone_numbers?page[size]=1&filter[phone_number]=x", "", "", ""),
        (telnyx, "GET /v2/phone_numbers?page%5Bsize%5D=900", "", "", "page[size] is out of bounds"),
        (
            telnyx,
            "GET /v2/available_phone_numbers?filter[features][]=sms&filter[features][]=voice",
            "",
            "",
            "",
        ),
        (
            telnyx,
            "GET /v2/available_phone_numbers?filter[features][]=smell",
            "",
            "",
            "is not one of its values",
        ),
        (
            telnyx,
            "GET /v2/available_phone_numbers?filter[color]=red",
            "",
            "",
            "filter[color] is no parameter",
        ),
        (telnyx, "POST /v2/calls/v3%3Aa%2Bb%3D/actions/send_dtmf", JSON, r##"{"digits":"1#"}"##, ""),
        (telnyx, "POST /v2/calls/v3:a/actions/send_dtmf", JSON, "{}", "body.digits is missing"),
        (
            telnyx,
            "POST /v2/calls/v3:a/actions/reject",
            JSON,
            r#"{"cause":"BUSY"}"#,
            "body.cause is not one of",
        ),
        (telnyx, "POST /v2/calls/v3:a/actions/answer", JSON, r#"{"stream_auth_token":"x"}"#, "is no field"),
        (
            telnyx,
            "POST /v2/number_orders",
            JSON,
            r#"{"phone_numbers":[{}]}"#,
            "phone_numbers[0].phone_number is missing",
        ),
        (
            telnyx,
            "POST /v2/number_orders",
            JSON,
            r#"{"connection_id":1}"#,
            "body.connection_id has the wrong type",
        ),
        (telnyx, "POST /v2/number_orders", JSON, "{", "the body is not JSON"),
    ] {
        let asked = Asked {
            line: line.into(),
            body: body.into(),
            authorization: String::new(),
            host: host.into(),
            content_type: content_type.into(),
        };
        let mut contract = Contract::read(if host == telnyx { TELNYX } else { TWILIO });
        let found = contract.complaints(&asked).join("; ");
        assert!(found.is_empty() == wrong.is_empty() && found.contains(wrong), "{line} {body}: {found}");
    }
}

#[test]
fn the_extracts_are_what_the_documents_say() {
    let Ok(specs) = std::env::var("OFFHOOK_CARRIER_SPECS") else {
        println!("OFFHOOK_CARRIER_SPECS names no folder: nothing was compared");
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/contracts");
    let output = std::process::Command::new(script).args([specs.as_str(), "--check"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
