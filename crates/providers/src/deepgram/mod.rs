//! Deepgram: live transcription, Flux turns and Aura voices (protocols/providers.md, sections 4 and 5).
//! Each file knows one socket of it; none knows a call.

mod flux;
mod listen;
mod speak;

pub(crate) use flux::{Flux, TurnListener};
pub(crate) use listen::{Listen, Listener};
pub(crate) use speak::{Speak, Speaker};

use crate::http;
use crate::settings::Service;
use crate::ws::Dial;
use reqwest::{Method, RequestBuilder};
use url::Url;

/// A list of projects: the harmless test.
pub(crate) fn list_request(service: &Service) -> RequestBuilder {
    http::request(Method::GET, service.url(&["v1", "projects"]), authorization(service))
}

fn dial(service: &Service, url: Url) -> Dial {
    service.dial(url, authorization(service).into_iter().collect())
}

fn authorization(service: &Service) -> Option<(&'static str, String)> {
    service.key_header("authorization", "Token ")
}
