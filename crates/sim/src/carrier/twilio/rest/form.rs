//! Form-encoded parameters, of a query or of a body, as the REST API reads them.
//! It knows parameters that several resources share, such as what is to run on a call.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use url::form_urlencoded;

use super::super::execute::{Next, is_absolute};
use super::super::twiml::Hook;
use super::super::webhook::HttpMethod;
use super::Refusal;

const MAX_TWIML_CHARACTERS: usize = 4_000;

/// Decoded parameters; a name may repeat.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Form(Vec<(String, String)>);

impl Form {
    /// The parameters of a query.
    pub(super) fn query(text: &str) -> Form {
        Form(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The parameters of a body, which must say that it is a form.
    pub(super) fn body(headers: &HeaderMap, body: &[u8]) -> Result<Form, Refusal> {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !body.is_empty() && !kind.starts_with("application/x-www-form-urlencoded") {
            let message = format!("a request is form encoded, not \"{kind}\"");
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, 20001, message));
        }
        Ok(Form(form_urlencoded::parse(body).into_owned().collect()))
    }

    pub(in super::super) fn of(pairs: &[(&str, &str)]) -> Form {
        Form(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        match self.iter().find(|(name, _)| !known.contains(name)) {
            Some((name, _)) => Err(Refusal::unknown_parameter(name)),
            None => Ok(()),
        }
    }

    /// A value that was given and is not empty.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, value)| *known == name && !value.is_empty()).map(|(_, value)| value)
    }

    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        self.iter().filter(|(known, _)| *known == name).map(|(_, value)| value).collect()
    }

    /// A value without which the request makes no sense.
    pub(super) fn needed(&self, name: &str) -> Result<&str, Refusal> {
        self.value(name).ok_or_else(|| Refusal::invalid(20001, format!("Missing required parameter {name}")))
    }

    pub(super) fn hook(&self, url: &str, method: &str) -> Result<Option<Hook>, Refusal> {
        let method = match self.value(method) {
            None => HttpMethod::Post,
            Some(name) => HttpMethod::parse(name)
                .ok_or_else(|| Refusal::invalid(20001, format!("{method} must be GET or POST")))?,
        };
        match self.value(url) {
            None => Ok(None),
            Some(address) if is_absolute(address) => Ok(Some(Hook { url: address.to_owned(), method })),
            Some(address) => Err(Refusal::invalid(21205, format!("{url} is not a valid URL: {address}"))),
        }
    }

    pub(super) fn number(&self, name: &str, default: u64) -> Result<u64, Refusal> {
        let invalid = |_| Refusal::invalid(20001, format!("{name} must be a number"));
        self.value(name).map_or(Ok(default), |value| value.parse().map_err(invalid))
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.value(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(Refusal::invalid(20001, format!("{name} must be true or false"))),
        }
    }

    /// What is to run: a URL goes before a document.
    pub(super) fn next(&self) -> Result<Option<Next>, Refusal> {
        if let Some(hook) = self.hook("Url", "Method")? {
            return Ok(Some(Next::Fetch { hook, params: Vec::new() }));
        }
        let Some(twiml) = self.value("Twiml") else { return Ok(None) };
        if twiml.chars().count() > MAX_TWIML_CHARACTERS {
            return Err(Refusal::invalid(20001, format!("Twiml takes {MAX_TWIML_CHARACTERS} characters")));
        }
        Ok(Some(Next::Twiml(twiml.to_owned())))
    }
}
