//! OpenAI's REST interface and the many servers that speak it: chat completions, transcription, speech
//! (protocols/providers.md, sections 1 and 2). Each file knows one resource of it; none knows a call.

mod chat;
mod speech;
mod transcription;

pub(crate) use chat::{Assembler, Chat};
pub(crate) use speech::Speech;
pub(crate) use transcription::Transcription;

use crate::settings::Service;
use crate::{ProviderError, http};
use reqwest::{Method, RequestBuilder};

/// A list of models: the harmless test.
pub(crate) fn list_request(service: &Service) -> RequestBuilder {
    request(service, Method::GET, &["models"])
}

/// Opens a connection, so that the first request does not wait for it.
async fn reach(service: &Service) -> Result<(), ProviderError> {
    http::reach(service.provider, &service.endpoint, request(service, Method::HEAD, &["models"])).await
}

fn request(service: &Service, method: Method, path: &[&str]) -> RequestBuilder {
    http::request(method, service.url(path), service.key_header("authorization", "Bearer "))
}
