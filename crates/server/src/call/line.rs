//! The media socket of one call: audio, marks and keys in both directions. It does not know what is played or why.

use axum::extract::ws::{Message, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _};
use offhook_carriers::MediaEvent;
use offhook_carriers::twilio::media::{MediaReader, MediaWriter};
use offhook_media::coding::Coding;
use offhook_media::dtmf::{self, Keying};
use std::time::Duration;

/// A socket that takes no data for so long is as good as lost.
const STUCK: Duration = Duration::from_secs(5);
/// Faulty messages on one socket that are logged one by one; the rest are only counted.
const LOGGED_FAULTS: u64 = 5;

/// What came from the carrier.
#[derive(Debug)]
pub enum LineEvent {
    /// Audio, in [`Line::audio`].
    Audio,
    /// A mark came back.
    Mark(String),
    /// A key.
    Key(char),
    /// The carrier ended the stream: the call is over, or goes on elsewhere.
    Stopped,
    /// The socket broke without a word.
    Lost,
}

/// An open media socket whose ticket was good.
pub struct Line {
    socket: WebSocket,
    reader: MediaReader,
    writer: MediaWriter,
    audio: Vec<u8>,
    text: String,
    unsent: bool,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("counters", &self.reader.counters()).finish_non_exhaustive()
    }
}

impl Line {
    /// A line from a socket that has introduced itself to `reader` as `stream`.
    pub fn new(socket: WebSocket, reader: MediaReader, stream: &str) -> Self {
        let writer = MediaWriter::new(stream);
        Line { socket, reader, writer, audio: Vec::new(), text: String::new(), unsent: false }
    }

    /// The next thing from the carrier. Faulty messages are logged and skipped. May be dropped while waiting.
    pub async fn next(&mut self) -> LineEvent {
        loop {
            let text = match self.socket.next().await {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Binary(data))) => {
                    tracing::warn!(
                        bytes = data.len(),
                        "Media socket sent a binary message, which the protocol does not have"
                    );
                    continue;
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return LineEvent::Lost,
            };
            match self.reader.decode(&text, &mut self.audio) {
                Ok(MediaEvent::Audio) => return LineEvent::Audio,
                Ok(MediaEvent::Mark(name)) => return LineEvent::Mark(name),
                Ok(MediaEvent::Dtmf(key)) => return LineEvent::Key(key.into_inner()),
                Ok(MediaEvent::Stopped) => return LineEvent::Stopped,
                Ok(MediaEvent::Connected | MediaEvent::Started(_)) => {}
                Err(error) => {
                    if self.reader.counters().faults <= LOGGED_FAULTS {
                        tracing::warn!(%error, "Media message skipped");
                    }
                }
            }
        }
    }

    /// The µ-law bytes of the last [`LineEvent::Audio`].
    pub fn audio(&self) -> &[u8] {
        &self.audio
    }

    /// Queues audio to be played.
    pub async fn play(&mut self, mulaw: &[u8]) -> Result<(), Lost> {
        self.writer.media(mulaw, &mut self.text);
        self.feed().await
    }

    /// Queues a mark.
    pub async fn mark(&mut self, name: &str) -> Result<(), Lost> {
        self.writer.mark(name, &mut self.text);
        self.feed().await
    }

    /// Presses keys, heard by the caller as tones; what is no key is logged and not pressed.
    pub async fn press(&mut self, digits: &str) -> Result<(), Lost> {
        match dtmf::tones(digits, Keying::default()) {
            Ok(pcm) => {
                let mut tones = Vec::with_capacity(pcm.len());
                Coding::MU_LAW.encode(&pcm, &mut tones);
                self.play(&tones).await
            }
            Err(error) => {
                tracing::warn!(%error, "Keys were not sent");
                Ok(())
            }
        }
    }

    /// Makes the carrier drop what it has not played.
    pub async fn clear(&mut self) -> Result<(), Lost> {
        self.writer.clear(&mut self.text);
        self.feed().await?;
        self.flush().await
    }

    async fn feed(&mut self) -> Result<(), Lost> {
        self.unsent = true;
        let message = Message::Text(self.text.as_str().into());
        match tokio::time::timeout(STUCK, self.socket.feed(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Lost),
        }
    }

    /// Sends what was queued.
    pub async fn flush(&mut self) -> Result<(), Lost> {
        if !std::mem::take(&mut self.unsent) {
            return Ok(());
        }
        match tokio::time::timeout(STUCK, self.socket.flush()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Lost),
        }
    }

    /// Takes leave: the carrier then asks what comes next.
    pub async fn close(&mut self) {
        let _ = tokio::time::timeout(STUCK, async {
            self.socket.send(Message::Close(None)).await?;
            while let Some(Ok(_)) = self.socket.next().await {}
            Ok::<_, axum::Error>(())
        })
        .await;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let missing = self.reader.counters().missing;
        if missing > 0 {
            metrics::counter!("offhook_media_messages_missing_total").increment(missing);
            tracing::warn!(
                missing,
                "Messages were missing on a media socket: the caller was not heard as a whole"
            );
        }
    }
}

/// The socket is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the media socket is lost")]
pub struct Lost;
