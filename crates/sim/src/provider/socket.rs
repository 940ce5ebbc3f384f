//! One provider socket: JSON and audio in and out, each noted in its record. It knows no provider's messages.

use super::records::{ClosedBy, Entry};
use super::{Call, Shared, ended};
use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// The largest message a provider takes.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// How long a client may take to answer a close.
const CLOSING_LIMIT: Duration = Duration::from_secs(2);

/// Opens the socket that a request asks for and serves it; refuses a request that asks for none.
pub(super) async fn serve<F>(
    call: Call,
    shared: Arc<Shared>,
    session: impl FnOnce(Wire) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let Call { mut request, entry, .. } = call;
    match WebSocketUpgrade::from_request_parts(&mut request, &()).await {
        Ok(upgrade) => {
            entry.edit(|record| record.status = 101);
            let stopped = shared.stopped.subscribe();
            upgrade
                .max_message_size(MESSAGE_BYTES_MAX)
                .on_upgrade(move |socket| session(Wire { socket, stopped, entry }))
        }
        Err(refusal) => {
            let response = refusal.into_response();
            entry.oddity("not a websocket request");
            entry.edit(|record| record.status = response.status().as_u16());
            entry.close(ClosedBy::Provider, None);
            response
        }
    }
}

/// What came from the client.
pub(super) enum Incoming {
    Json(Value),
    /// Text that is not a JSON object.
    NotJson,
    Audio(Bytes),
    /// The client, or the whole simulation, is gone.
    Gone,
}

/// What is to be sent.
pub(super) enum Outgoing {
    Json(Value),
    /// A text message as it is, JSON or not.
    Text(String),
    Audio(Bytes),
    Close(u16, String),
    /// The connection breaks.
    Cut,
}

/// A message that is nearly JSON.
pub(super) const NOT_JSON: &str = r#"{"type":"Results","channel":{"alternatives":[{"transcr"#;

/// The session is over: nothing more can be sent.
#[derive(Debug)]
pub(super) struct Over;

pub(super) struct Wire {
    socket: WebSocket,
    stopped: watch::Receiver<bool>,
    pub entry: Entry,
}

impl Wire {
    /// The next message of the client; nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Incoming {
        loop {
            let message = tokio::select! {
                message = self.socket.recv() => message,
                () = ended(&mut self.stopped) => return Incoming::Gone,
            };
            return match message {
                Some(Ok(Message::Binary(bytes))) => {
                    self.entry.edit(|record| record.audio_bytes_in += bytes.len() as u64);
                    Incoming::Audio(bytes)
                }
                Some(Ok(Message::Text(text))) => match serde_json::from_str::<Value>(&text) {
                    Ok(value) if value.is_object() => {
                        self.entry.received(value.clone());
                        Incoming::Json(value)
                    }
                    _ => {
                        self.entry.received(Value::String(text.to_string()));
                        Incoming::NotJson
                    }
                },
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => Incoming::Gone,
            };
        }
    }

    pub async fn send(&mut self, outgoing: Outgoing) -> Result<(), Over> {
        let message = match outgoing {
            Outgoing::Json(value) => Message::Text(value.to_string().into()),
            Outgoing::Text(text) => Message::Text(text.into()),
            Outgoing::Audio(bytes) => {
                self.entry.edit(|record| record.audio_bytes_out += bytes.len() as u64);
                Message::Binary(bytes)
            }
            Outgoing::Close(code, reason) => {
                self.entry.close(ClosedBy::Provider, Some(code));
                let _ =
                    self.socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
                self.drain().await;
                return Err(Over);
            }
            Outgoing::Cut => {
                self.entry.close(ClosedBy::Fault, None);
                return Err(Over);
            }
        };
        self.socket.send(message).await.map_err(|_| Over)
    }

    pub async fn json(&mut self, value: Value) -> Result<(), Over> {
        self.send(Outgoing::Json(value)).await
    }

    pub async fn close(&mut self, code: u16, reason: &str) -> Over {
        let _ = self.send(Outgoing::Close(code, reason.to_owned())).await;
        Over
    }

    /// Reads on until the client has seen the close: closing a TCP connection with unread bytes would reset it, and the
    /// client might lose what was sent last.
    async fn drain(&mut self) {
        let rest = async { while !matches!(self.socket.recv().await, None | Some(Err(_))) {} };
        let _ = timeout(CLOSING_LIMIT, rest).await;
    }
}
