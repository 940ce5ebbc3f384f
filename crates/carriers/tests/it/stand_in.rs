//! An HTTP server in place of the carrier: answers from a script, one after the other, and remembers what it was asked.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// What the server does with one request.
pub enum Reply {
    /// Answers with a status and a body.
    Say(u16, String),
    /// Answers 429 with a `Retry-After` header.
    NotNow(&'static str),
    /// Never answers.
    Silence,
}

/// The server, as long as its test runs.
pub struct StandIn {
    pub base: url::Url,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    replies: VecDeque<Reply>,
    asked: Vec<Asked>,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method, path and query.
    pub line: String,
    /// The body as text.
    pub body: String,
    /// The `Authorization` header.
    pub authorization: String,
    /// The `Host` header.
    pub host: String,
    /// The `Content-Type` header; empty if there was none.
    pub content_type: String,
}

impl StandIn {
    pub async fn answering(replies: impl IntoIterator<Item = Reply>) -> Self {
        let script = Arc::new(Mutex::new(Script { replies: replies.into_iter().collect(), asked: vec![] }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().fallback(answer).with_state(script.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        StandIn { base, script }
    }

    /// Everything it was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.script.lock().unwrap().asked.clone()
    }

    /// Methods, paths and queries, in order.
    pub fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = {
        let mut script = script.lock().unwrap();
        let header = |name: &str| {
            headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        script.asked.push(Asked {
            line: format!("{method} {uri}"),
            body: String::from_utf8(body.to_vec()).unwrap(),
            authorization: header("authorization"),
            host: header("host"),
            content_type: header("content-type"),
        });
        script.replies.pop_front()
    };
    match reply {
        Some(Reply::Say(status, body)) => (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Some(Reply::NotNow(seconds)) => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds)], error(20429, 429)).into_response()
        }
        Some(Reply::Silence) => std::future::pending().await,
        None => (StatusCode::NOT_IMPLEMENTED, "the script is over").into_response(),
    }
}

/// An error body as documented.
pub fn error(code: u32, status: u16) -> String {
    format!(
        r#"{{"code":{code},"message":"about +14155550199","more_info":"https://www.twilio.com/docs/errors/{code}","status":{status}}}"#
    )
}

impl Reply {
    pub fn ok(body: &str) -> Self {
        Reply::Say(200, body.to_owned())
    }

    /// What a deletion is answered with.
    pub fn gone() -> Self {
        Reply::Say(204, String::new())
    }

    pub fn error(status: u16, code: u32) -> Self {
        Reply::Say(status, error(code, status))
    }
}
