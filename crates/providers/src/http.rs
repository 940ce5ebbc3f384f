//! The one HTTP client and the one TLS configuration of the process, and how an answer is waited for.
//! It does not know what is asked or answered.

use crate::refusal::by_status;
use crate::settings::Service;
use crate::throttle::Refused;
use crate::{Cause, Endpoint, ProviderError};
use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, Response};
use rustls::{ClientConfig, RootCertStore};
use std::error::Error;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

/// Longest body that is read whole: error messages, transcripts.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// How long an unused connection is kept for the next call.
const KEEP_IDLE: Duration = Duration::from_secs(90);

/// How long the end of an answer is waited for that nobody needs.
const READ_OUT: Duration = Duration::from_secs(2);

/// How often a shared HTTP/2 connection is checked, so that a dead one is found before a caller waits for it.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How long such a check may take. Interval and this are the longest for which requests, and their repetitions, go to a dead
/// connection.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Upper bound for TCP and TLS; what an [`Endpoint`] says is usually shorter.
const MAX_CONNECT: Duration = Duration::from_secs(10);

/// TLS for WebSockets: public roots, ring, tickets shared by all sessions.
pub(crate) fn tls() -> Arc<ClientConfig> {
    static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports the default TLS versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    });
    TLS.clone()
}

/// The client that all requests share, with its pool of open connections.
fn client() -> &'static Client {
    static CLIENT: LazyLock<Client> = LazyLock::new(|| {
        let mut tls = (*tls()).clone();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(MAX_CONNECT)
            .tcp_nodelay(true)
            .pool_idle_timeout(KEEP_IDLE)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            // A redirect would carry the key to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("the TLS configuration is one that the client takes")
    });
    &CLIENT
}

/// A request, with the headers that carry the key.
pub(crate) fn request(
    method: Method,
    url: Url,
    headers: impl IntoIterator<Item = (&'static str, String)>,
) -> RequestBuilder {
    let request = client().request(method, url);
    headers.into_iter().fold(request, |request, (name, value)| request.header(name, value))
}

/// Sends a request, once more where the provider asks for a short pause, and waits for the head of a good answer; any other
/// answer is an error.
pub(crate) async fn ask(
    service: &Service,
    request: impl Fn() -> RequestBuilder,
) -> Result<Response, ProviderError> {
    let (provider, endpoint) = (service.provider, &service.endpoint);
    let attempt = || attempt(provider, endpoint, request());
    service.throttle.ask(provider, endpoint.first_byte_timeout, attempt).await
}

/// Opens a connection beforehand: it stays in the pool, whatever is answered.
pub(crate) async fn reach(
    provider: &'static str,
    endpoint: &Endpoint,
    request: RequestBuilder,
) -> Result<(), ProviderError> {
    send(provider, endpoint, request).await.map(drop)
}

/// Reads the rest of an answer of which all that matters has come: a connection goes back to the pool only at its end.
pub(crate) async fn read_out(mut response: Response) {
    let rest = async {
        let mut bytes = 0;
        while let Ok(Some(piece)) = response.chunk().await {
            bytes += piece.len();
            if bytes > MAX_BODY_BYTES {
                return;
            }
        }
    };
    // What does not end costs the next request a new connection, and nothing else.
    let _ = timeout(READ_OUT, rest).await;
}

/// Sends a request once and waits for the head of a good answer.
pub(crate) async fn ask_once(
    provider: &'static str,
    endpoint: &Endpoint,
    request: RequestBuilder,
) -> Result<Response, ProviderError> {
    attempt(provider, endpoint, request).await.map_err(|refused| refused.error)
}

async fn attempt(
    provider: &'static str,
    endpoint: &Endpoint,
    request: RequestBuilder,
) -> Result<Response, Refused> {
    let response = send(provider, endpoint, request).await?;
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers());
    let body = timeout(endpoint.idle_timeout, whole(provider, endpoint, response)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    Err(Refused { error: by_status(provider, status, &body, &endpoint.key), retry_after })
}

/// How long a provider wants to be left alone. It may also name a date; that is as good as nothing for a telephone call.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1_000.0).or_else(|| number("retry-after"))?;
    Duration::try_from_secs_f64(seconds).ok()
}

async fn send(
    provider: &'static str,
    endpoint: &Endpoint,
    mut request: RequestBuilder,
) -> Result<Response, ProviderError> {
    for (name, value) in &endpoint.headers {
        request = request.header(name, value);
    }
    let patience = endpoint.connect_timeout + endpoint.first_byte_timeout;
    timeout(patience, request.send())
        .await
        .map_err(|_| ProviderError::timed_out(provider, "waiting for an answer"))?
        .map_err(|error| broken(provider, &error))
}

/// Reads a whole body of limited size.
pub(crate) async fn whole(
    provider: &'static str,
    endpoint: &Endpoint,
    mut response: Response,
) -> Result<Vec<u8>, ProviderError> {
    let mut body = Vec::new();
    while let Some(piece) = piece(provider, &mut response, Instant::now() + endpoint.idle_timeout).await? {
        if body.len() + piece.len() > MAX_BODY_BYTES {
            return Err(ProviderError::malformed(
                provider,
                format!("more than {MAX_BODY_BYTES} bytes of answer"),
            ));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// The next piece of a streamed body, or `None` at its end.
pub(crate) async fn piece(
    provider: &'static str,
    response: &mut Response,
    deadline: Instant,
) -> Result<Option<Bytes>, ProviderError> {
    timeout_at(deadline, response.chunk())
        .await
        .map_err(|_| ProviderError::timed_out(provider, "the answer stopped coming"))?
        .map_err(|error| broken(provider, &error))
}

/// Whether an answer says that it is of this media type.
pub(crate) fn is_of(response: &Response, media_type: &str) -> bool {
    let content_type = response.headers().get(reqwest::header::CONTENT_TYPE);
    content_type.and_then(|value| value.to_str().ok()).is_some_and(|value| value.starts_with(media_type))
}

fn broken(provider: &'static str, error: &reqwest::Error) -> ProviderError {
    if error.is_timeout() {
        return ProviderError::timed_out(provider, "connecting");
    }
    if error.is_builder() {
        return ProviderError::new(provider, Cause::Refused, "a setting cannot be sent in a request");
    }
    let usual = if error.is_connect() { "no connection" } else { "the answer broke off" };
    let detail = tls_failure(error).unwrap_or_else(|| usual.into());
    ProviderError::new(provider, Cause::Unreachable, detail)
}

/// What TLS has against the other side, where that is the root of an error.
pub(crate) fn tls_failure(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(failure) = error.downcast_ref::<rustls::Error>() {
            return Some(format!("TLS: {failure}"));
        }
        // An `io::Error` does not name what it wraps as its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_read_as_they_are_written() {
        let pause = |headers: &[(&'static str, &str)]| {
            let read = |(name, value): &(&'static str, &str)| (name.parse().unwrap(), value.parse().unwrap());
            retry_after(&headers.iter().map(read).collect())
        };
        assert_eq!(pause(&[("retry-after", "2")]), Some(Duration::from_secs(2)));
        assert_eq!(
            pause(&[("retry-after", "2"), ("retry-after-ms", "1250.5")]),
            Some(Duration::from_micros(1_250_500))
        );
        for odd in ["", "soon", "-1", "inf", "NaN", "1e99", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(pause(&[("retry-after", odd)]), None, "{odd}");
        }
        assert_eq!(pause(&[]), None);
    }
}
