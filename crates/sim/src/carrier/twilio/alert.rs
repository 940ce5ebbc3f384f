//! What Twilio's debugger shows: errors and warnings with their codes, and the requests that they are about.
//! It does not know how they are read.

use jiff::Timestamp;
use serde::Serialize;

use super::webhook::{HttpMethod, Request};

/// Something that Twilio's debugger would show: an error or a warning with its code.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    /// `NO` and 32 hexadecimal digits.
    pub sid: String,
    /// When it was raised.
    pub at: Timestamp,
    /// Twilio's error code.
    pub code: u32,
    /// What it was, in words.
    pub message: String,
    /// The call it belongs to.
    pub call_sid: String,
    /// The webhook that it is about, if it is about one.
    pub request: Option<AlertRequest>,
}

/// A webhook that failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlertRequest {
    /// The configured URL.
    pub url: String,
    /// How it was sent.
    pub method: HttpMethod,
    /// The parameters.
    pub params: Vec<(String, String)>,
}

impl Alert {
    /// `error` or `warning`.
    pub fn level(&self) -> &'static str {
        // The 122xx complain about documents that still run.
        if (12_200..12_300).contains(&self.code) { "warning" } else { "error" }
    }
}

impl From<&Request> for AlertRequest {
    fn from(request: &Request) -> AlertRequest {
        AlertRequest { url: request.url.clone(), method: request.method, params: request.params.clone() }
    }
}
