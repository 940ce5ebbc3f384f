//! The WebSocket under a carrier's media: text messages in, text messages out in bunches. It does not know what they say.

use super::line::Lost;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _};
use std::time::Duration;

/// A socket that takes no data for so long is as good as lost.
const STUCK: Duration = Duration::from_secs(5);

/// An open socket.
pub(super) struct Socket {
    socket: WebSocket,
    unsent: bool,
}

impl Socket {
    pub(super) fn new(socket: WebSocket) -> Self {
        Socket { socket, unsent: false }
    }

    /// The next message; `None`: the socket broke or was closed. May be dropped while waiting.
    pub(super) async fn next(&mut self) -> Option<Utf8Bytes> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Some(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(data))) => {
                    let bytes = data.len();
                    tracing::warn!(
                        bytes,
                        "Media socket sent a binary message, which the protocol does not have"
                    );
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            }
        }
    }

    /// Queues a message.
    pub(super) async fn feed(&mut self, text: &str) -> Result<(), Lost> {
        self.unsent = true;
        match tokio::time::timeout(STUCK, self.socket.feed(Message::Text(text.into()))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Lost),
        }
    }

    /// Sends what was queued.
    pub(super) async fn flush(&mut self) -> Result<(), Lost> {
        if !std::mem::take(&mut self.unsent) {
            return Ok(());
        }
        match tokio::time::timeout(STUCK, self.socket.flush()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Lost),
        }
    }

    /// Takes leave, and waits until the other end has.
    pub(super) async fn close(&mut self) {
        let _ = tokio::time::timeout(STUCK, async {
            self.socket.send(Message::Close(None)).await?;
            while let Some(Ok(_)) = self.socket.next().await {}
            Ok::<_, axum::Error>(())
        })
        .await;
    }
}
