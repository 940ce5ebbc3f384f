//! Carriers' webhooks in: checked, answered within a second, and the same however often they come. What a call then does
//! is not decided here.

pub mod telnyx;
pub mod twilio;

use crate::app::App;
use crate::problem::chain;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequest, OriginalUri, Request};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use offhook_carriers::{telnyx::webhook as from_telnyx, twilio::webhook as from_twilio};
use offhook_store::StoreError;
use std::sync::Arc;

/// The routes of all carriers.
pub fn router() -> Router<Arc<App>> {
    twilio::router().merge(telnyx::router())
}

/// A webhook as it came, to be believed only when its signature is good.
struct Arrived {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Arrived {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let uri =
            request.extensions().get::<OriginalUri>().map_or_else(|| request.uri().clone(), |o| o.0.clone());
        let (method, headers) = (request.method().clone(), request.headers().clone());
        let body = Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        Ok(Arrived { method, uri, headers, body })
    }
}

impl Arrived {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", |p| p.as_str())
    }
}

/// Why a webhook is not followed: the status it is answered with, and why.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Twilio(#[from] from_twilio::WebhookError),
    #[error(transparent)]
    Telnyx(#[from] from_telnyx::WebhookError),
    #[error("no number of ours is `To` in this webhook, or its account is none of ours")]
    NoNumber,
    #[error("this node is stopping and takes no new calls")]
    Stopping,
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match &self {
            Refused::Twilio(error) => {
                StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::BAD_REQUEST)
            }
            Refused::Telnyx(error) => {
                StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::BAD_REQUEST)
            }
            // As for a wrong signature: a stranger is not told which numbers there are.
            Refused::NoNumber => StatusCode::FORBIDDEN,
            Refused::Store(_) | Refused::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        metrics::counter!("offhook_webhooks_refused_total", "status" => status.as_u16().to_string())
            .increment(1);
        let http_status = status.as_u16();
        tracing::warn!(error = chain(&self), http.status = http_status, "Webhook refused");
        match status {
            StatusCode::FORBIDDEN => (status, "this webhook is not believed: the server's log says why"),
            StatusCode::SERVICE_UNAVAILABLE => (status, "not now"),
            _ => (status, "this webhook cannot be read: the server's log says why"),
        }
        .into_response()
    }
}
