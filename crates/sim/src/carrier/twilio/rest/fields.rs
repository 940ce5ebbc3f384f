//! The settings of a resource by a table: read from a form, kept, and written into answers.
//! It knows the forms that values have, not what they mean.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::execute::is_absolute;
use super::super::webhook::HttpMethod;
use super::Refusal;
use super::form::Form;

/// One setting: its name in requests and in answers, its value at first, its form.
#[derive(Debug)]
pub(in super::super) struct Field {
    param: &'static str,
    name: &'static str,
    initial: &'static str,
    kind: Kind,
}

/// What a value may look like.
#[derive(Debug)]
pub(in super::super) enum Kind {
    Text { most: usize },
    Url,
    Method,
    Flag,
    Number { least: u32, most: u32 },
    Sid(&'static str),
    OneOf(&'static [&'static str]),
}

impl Field {
    pub(in super::super) const fn new(
        param: &'static str,
        name: &'static str,
        initial: &'static str,
        kind: Kind,
    ) -> Field {
        Field { param, name, initial, kind }
    }

    /// The value as it is kept, or what is wrong with it.
    fn read(&self, value: &str) -> Result<String, Refusal> {
        let param = self.param;
        let wrong = |what: &str| Err(Refusal::invalid(20001, format!("{param} {what}: {value}")));
        match self.kind {
            Kind::Text { most } if value.chars().count() > most => wrong(&format!("takes {most} characters")),
            Kind::Url if !value.is_empty() && !is_absolute(value) => {
                Err(Refusal::invalid(21402, format!("{param} is not a valid URL: {value}")))
            }
            Kind::Method if HttpMethod::parse(value).is_none() => {
                Err(Refusal::invalid(21403, format!("{param} must be GET or POST")))
            }
            Kind::Flag => match value.to_ascii_lowercase().as_str() {
                flag @ ("true" | "false") => Ok(flag.to_owned()),
                _ => wrong("must be true or false"),
            },
            Kind::Number { least, most } => match value.parse::<u32>() {
                Ok(number) if (least..=most).contains(&number) => Ok(number.to_string()),
                _ => wrong(&format!("must be from {least} to {most}")),
            },
            Kind::Sid(prefix) if !value.is_empty() && !is_sid(value, prefix) => {
                wrong(&format!("must be {prefix} and 32 hexadecimal digits"))
            }
            Kind::OneOf(words) if !words.contains(&value) => {
                wrong(&format!("must be one of {}", words.join(", ")))
            }
            _ => Ok(value.to_owned()),
        }
    }

    fn json(&self, value: &str) -> Value {
        match self.kind {
            Kind::Flag => (value == "true").into(),
            Kind::Number { .. } => value.parse::<u32>().map_or(Value::Null, Value::from),
            // As Twilio's examples have it: an application that is missing is "", everything else is null.
            Kind::Sid(prefix) if value.is_empty() && prefix != "AP" => Value::Null,
            _ => value.into(),
        }
    }
}

/// The values of one resource.
#[derive(Clone, Debug)]
pub(in super::super) struct Fields {
    table: &'static [Field],
    values: Vec<String>,
}

impl Fields {
    pub(in super::super) fn new(table: &'static [Field]) -> Fields {
        Fields { table, values: table.iter().map(|field| field.initial.to_owned()).collect() }
    }

    /// A value by its name in answers; empty where there is none.
    pub(in super::super) fn get(&self, name: &str) -> &str {
        self.position(name).map_or("", |index| &self.values[index])
    }

    /// Sets a value by its name in answers; a name that the table lacks is ignored.
    pub(in super::super) fn set(&mut self, name: &str, value: &str) {
        if let Some(index) = self.position(name) {
            self.values[index] = value.to_owned();
        }
    }

    pub(in super::super) fn all(&self) -> BTreeMap<&'static str, String> {
        self.table.iter().map(|field| field.name).zip(self.values.iter().cloned()).collect()
    }

    /// The values as a form would have them. Parameters outside of the table must be among `besides`.
    pub(in super::super) fn changed(&self, form: &Form, besides: &[&str]) -> Result<Fields, Refusal> {
        let mut changed = self.clone();
        for (param, value) in form.iter() {
            match self.table.iter().position(|field| field.param == param) {
                Some(index) => changed.values[index] = self.table[index].read(value)?,
                None if besides.contains(&param) => {}
                None => return Err(Refusal::unknown_parameter(param)),
            }
        }
        Ok(changed)
    }

    pub(in super::super) fn write(&self, resource: &mut Value) {
        for (field, value) in self.table.iter().zip(&self.values) {
            resource[field.name] = field.json(value);
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.table.iter().position(|field| field.name == name)
    }
}

/// Two letters and 32 hexadecimal digits.
pub(in super::super) fn is_sid(text: &str, prefix: &str) -> bool {
    let digits = text.strip_prefix(prefix);
    digits.is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Field] = &[
        Field::new("Name", "name", "", Kind::Text { most: 3 }),
        Field::new("Url", "url", "", Kind::Url),
        Field::new("Method", "method", "POST", Kind::Method),
        Field::new("Secure", "secure", "false", Kind::Flag),
        Field::new("Weight", "weight", "10", Kind::Number { least: 1, most: 65_535 }),
        Field::new("TrunkSid", "trunk_sid", "", Kind::Sid("TK")),
        Field::new("Mode", "mode", "off", Kind::OneOf(&["off", "on"])),
    ];

    #[test]
    fn a_value_must_have_the_form_of_its_field() {
        let sid = format!("TK{}", "0".repeat(32));
        let cases = [
            ("Name", "abc", true),
            ("Name", "abcd", false),
            ("Url", "https://h.example", true),
            ("Url", "", true),
            ("Url", "h.example", false),
            ("Method", "GET", true),
            ("Method", "get", false),
            ("Secure", "True", true),
            ("Secure", "1", false),
            ("Weight", "0", false),
            ("Weight", "65535", true),
            ("TrunkSid", sid.as_str(), true),
            ("TrunkSid", "", true),
            ("TrunkSid", "TK1", false),
            ("Mode", "on", true),
            ("Mode", "", false),
            ("Other", "1", false),
        ];
        for (param, value, fits) in cases {
            let form = Form::of(&[(param, value)]);
            assert_eq!(Fields::new(TABLE).changed(&form, &["Beside"]).is_ok(), fits, "{param}={value}");
        }
        assert!(Fields::new(TABLE).changed(&Form::of(&[("Beside", "x")]), &["Beside"]).is_ok());
    }

    #[test]
    fn answers_have_the_types_of_the_document() {
        let mut answer = serde_json::json!({});
        Fields::new(TABLE).write(&mut answer);
        let expected = serde_json::json!({"name": "", "url": "", "method": "POST", "secure": false,
            "weight": 10, "trunk_sid": null, "mode": "off"});
        assert_eq!(answer, expected);
    }
}
