//! Every route on one page, what happens to every request, and the server from the first connection to the last.
//! It does not know what a route does.

use crate::api::document::{self, Document};
use crate::api::{
    agents, calls, connections, conversations, keys, live, phone_numbers, sip_trunks, telephony, workspace,
};
use crate::app::App;
use crate::call::rehearse;
use crate::problem::{Kind, Problem};
use crate::{door, hooks, node, numbers, telemetry};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;
use tracing::Instrument;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Bytes of a request's body; an agent's instructions are the longest thing that is sent.
pub const BODY_BYTES: usize = 1024 * 1024;
/// How long a body may fall silent while it is sent.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// How long connections may take to end once no call is left.
const CLOSING: Duration = Duration::from_secs(5);
/// How often it is looked whether calls are left.
const DRAINING_LOOK: Duration = Duration::from_millis(50);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES: usize = 8;

/// How far the server is with stopping.
#[derive(Clone, Debug, Default)]
pub struct Stopping {
    /// No new calls are taken; those that are open go on.
    pub draining: CancellationToken,
    /// Connections are being closed.
    pub closing: CancellationToken,
}

/// Every route of the API with its documentation.
pub fn api() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(workspace::read, workspace::change))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(connections::list, connections::create))
        .routes(routes!(connections::read, connections::change, connections::delete))
        .routes(routes!(connections::check))
        .routes(routes!(connections::forget_earlier_secret))
        .routes(routes!(sip_trunks::set_up, sip_trunks::take_down))
        .routes(routes!(phone_numbers::list, phone_numbers::create))
        .routes(routes!(phone_numbers::read, phone_numbers::change, phone_numbers::delete))
        .routes(routes!(phone_numbers::release))
        .routes(routes!(phone_numbers::check))
        .routes(routes!(phone_numbers::take_back))
        .routes(routes!(phone_numbers::qr))
        .routes(routes!(telephony::available))
        .routes(routes!(telephony::purchase))
        .routes(routes!(telephony::own))
        .routes(routes!(telephony::import))
        .routes(routes!(telephony::operations))
        .routes(routes!(telephony::operation))
        .routes(routes!(agents::list, agents::create))
        .routes(routes!(agents::read, agents::change, agents::delete))
        .routes(routes!(agents::check))
        .routes(routes!(agents::start))
        .routes(routes!(agents::stop))
        .routes(routes!(agents::log))
        .routes(routes!(agents::versions))
        .routes(routes!(agents::restore))
        .routes(routes!(conversations::list))
        .routes(routes!(conversations::read))
        .routes(routes!(conversations::messages))
        .routes(routes!(calls::list))
        .routes(routes!(calls::read))
        .routes(routes!(calls::log))
        .routes(routes!(calls::hang_up))
        .routes(routes!(live::call))
        .routes(routes!(live::workspace))
}

/// The whole server as a service.
pub fn router(app: Arc<App>, stopping: Stopping) -> Router {
    let (api, document) = api().split_for_parts();
    let document: Arc<str> =
        document::complete(document).to_json().expect("a document of strings is JSON").into();
    Router::new()
        .merge(hooks::router())
        .merge(api)
        .route(
            "/api/openapi.json",
            get(async move || ([(header::CONTENT_TYPE, "application/json")], document.to_string())),
        )
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(telemetry::ready))
        .route("/metrics", get(telemetry::metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(RequestBodyTimeoutLayer::new(BODY_PATIENCE))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .layer(Extension(stopping))
        .with_state(app)
}

/// Serves until `shutdown`, then takes no new calls, lets open ones go on for `drain` at most, and closes.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) -> io::Result<()> {
    telemetry::count();
    let stopping = Stopping::default();
    let server = door::keep(
        listener,
        router(app.clone(), stopping.clone()),
        door::HEAD_PATIENCE,
        stopping.closing.clone(),
    );
    let stop = async {
        shutdown.await;
        stopping.draining.cancel();
        drained(&app, drain).await;
        stopping.closing.cancel();
        tokio::time::sleep(CLOSING).await;
        tracing::warn!("Connections are cut: they did not end in time");
    };
    tokio::select! {
        () = server => Ok(()),
        () = stop => Ok(()),
        never = node::run(&app) => match never {},
        never = numbers::run(&app) => match never {},
        never = rehearse::run(&app), if app.rehearses => match never {},
    }
}

/// Waits until no call is open, for `drain` at most.
async fn drained(app: &App, drain: Duration) {
    let open = || app.around.registry.count();
    app.around.registry.drain();
    app.trunks.stop().await;
    tracing::info!(calls = open(), "Stopping: no new calls are taken");
    let over = async {
        while open() > 0 {
            tokio::time::sleep(DRAINING_LOOK).await;
        }
    };
    if tokio::time::timeout(drain, over).await.is_err() {
        tracing::warn!(calls = open(), "Stopping with open calls: they go on when a node takes them up");
        app.around.registry.let_go();
    }
    // Each hands its last lines over, and gives its call free.
    let left = async {
        while !app.around.registry.ids().is_empty() {
            tokio::time::sleep(DRAINING_LOOK).await;
        }
    };
    let _ = tokio::time::timeout(CLOSING, left).await;
}

async fn no_route(method: Method, uri: Uri) -> Problem {
    let detail = format!("there is no {method} {}", uri.path());
    Problem::new(Kind::NotFound, detail, "GET /api/openapi.json lists every route")
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} has no {method}", uri.path());
    Problem::new(Kind::WrongMethod, detail, "the `allow` header of this answer lists its methods")
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    // The panic itself was told to the log by the panic hook.
    Problem::internal(&io::Error::other("a handler panicked")).into_response()
}

/// Names every request, measures it and tells the log. Neither query nor body is told: they may hold anybody's number.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut bytes = [0; REQUEST_ID_BYTES];
    app.environment.fill(&mut bytes);
    let id = format!("{:016x}", u64::from_be_bytes(bytes));
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str).to_owned();
    let began = Instant::now();
    let span = tracing::info_span!("request", id, http.method = %method, http.route = route);
    let mut response = next.run(request).instrument(span.clone()).await;
    let (took, status) = (began.elapsed(), response.status().as_u16());
    span.in_scope(|| {
        tracing::debug!(http.status = status, took_us = took.as_micros() as u64, "Request answered")
    });
    // A stranger may invent methods; each would be a new series.
    let known = [Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::HEAD].contains(&method);
    let method = if known { method.to_string() } else { "other".into() };
    let labels = [("method", method), ("route", route), ("status", status.to_string())];
    metrics::histogram!("offhook_http_request_seconds", &labels).record(took.as_secs_f64());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::StatusCode;
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_handler_that_panics_answers_like_the_others() {
        let broken = Router::new()
            .route("/", get(async || -> &'static str { panic!("+14155550123 broke it") }))
            .layer(CatchPanicLayer::custom(panicked));
        let response = broken.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(response.into_body(), BODY_BYTES).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains("urn:offhook:problem:internal") && !body.contains("broke it"), "{body}");
    }
}
