//! The line of one call, whatever carries it: audio, marks and keys in both directions, in the coding of the call. It does not know
//! what is played or why.

use super::socket::Socket;
use axum::extract::ws::WebSocket;
use offhook_carriers::MediaEvent;
use offhook_carriers::twilio::media::{MediaReader, MediaWriter};
use offhook_media::coding::{Coding, Transcoder};
use offhook_media::dtmf::{self, Keying};

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

/// An open line to the caller.
pub struct Line {
    wire: Wire,
    /// How the call's audio is coded.
    coding: Coding,
    /// The ways between the wire's coding and the call's, where they differ.
    ways: Option<Ways>,
    /// What was last heard, as it came.
    heard: Vec<u8>,
}

/// What carries a line.
enum Wire {
    Twilio(TwilioSocket),
}

struct Ways {
    from_wire: Transcoder,
    to_wire: Transcoder,
    /// What was last heard, in the call's coding.
    heard: Vec<u8>,
}

struct TwilioSocket {
    socket: Socket,
    reader: MediaReader,
    writer: MediaWriter,
    text: String,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("coding", &self.coding).finish_non_exhaustive()
    }
}

impl Line {
    /// A line from a socket of Twilio's that has introduced itself to `reader` as `stream`.
    pub fn twilio(socket: WebSocket, reader: MediaReader, stream: &str) -> Self {
        let (socket, writer, text) = (Socket::new(socket), MediaWriter::new(stream), String::new());
        Line {
            wire: Wire::Twilio(TwilioSocket { socket, reader, writer, text }),
            coding: Coding::MU_LAW,
            ways: None,
            heard: Vec::new(),
        }
    }

    /// The next thing from the carrier. Faulty messages are logged and skipped. May be dropped while waiting.
    pub async fn next(&mut self) -> LineEvent {
        let event = match &mut self.wire {
            Wire::Twilio(twilio) => twilio.next(&mut self.heard).await,
        };
        if let (LineEvent::Audio, Some(ways)) = (&event, &mut self.ways) {
            ways.heard.clear();
            ways.heard.extend_from_slice(ways.from_wire.push(&self.heard));
        }
        event
    }

    /// The audio of the last [`LineEvent::Audio`], in the coding of the call.
    pub fn audio(&self) -> &[u8] {
        self.ways.as_ref().map_or(&self.heard, |ways| &ways.heard)
    }

    /// Queues audio to be played, in the coding of the call.
    pub async fn play(&mut self, coded: &[u8]) -> Result<(), Lost> {
        let coded = match &mut self.ways {
            Some(ways) => ways.to_wire.push(coded),
            None => coded,
        };
        match &mut self.wire {
            Wire::Twilio(twilio) => {
                twilio.writer.media(coded, &mut twilio.text);
                twilio.socket.feed(&twilio.text).await
            }
        }
    }

    /// Queues a mark.
    pub async fn mark(&mut self, name: &str) -> Result<(), Lost> {
        match &mut self.wire {
            Wire::Twilio(twilio) => {
                twilio.writer.mark(name, &mut twilio.text);
                twilio.socket.feed(&twilio.text).await
            }
        }
    }

    /// Presses keys, which the caller's end gets as tones; what is no key is logged and not pressed.
    pub async fn press(&mut self, digits: &str) -> Result<(), Lost> {
        match dtmf::tones(digits, Keying::default()) {
            Ok(tones) => {
                let mut coded = Vec::new();
                let narrow = Coding::Linear { rate_hz: offhook_media::LINE_RATE_HZ };
                narrow.encode(&tones, &mut coded);
                let Ok(mut to_line) = Transcoder::new(narrow, self.coding) else { return Ok(()) };
                self.play(to_line.push(&coded)).await
            }
            Err(error) => {
                tracing::warn!(%error, "Keys were not sent");
                Ok(())
            }
        }
    }

    /// Makes the carrier drop what it has not played.
    pub async fn clear(&mut self) -> Result<(), Lost> {
        match &mut self.wire {
            Wire::Twilio(twilio) => {
                twilio.writer.clear(&mut twilio.text);
                twilio.socket.feed(&twilio.text).await?;
            }
        }
        self.flush().await
    }

    /// Sends what was queued.
    pub async fn flush(&mut self) -> Result<(), Lost> {
        match &mut self.wire {
            Wire::Twilio(twilio) => twilio.socket.flush().await,
        }
    }

    /// Takes leave: the carrier then asks what comes next.
    pub async fn close(&mut self) {
        match &mut self.wire {
            Wire::Twilio(twilio) => twilio.socket.close().await,
        }
    }
}

impl TwilioSocket {
    async fn next(&mut self, audio: &mut Vec<u8>) -> LineEvent {
        loop {
            let Some(text) = self.socket.next().await else { return LineEvent::Lost };
            match self.reader.decode(&text, audio) {
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
}

impl Drop for TwilioSocket {
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

/// The line is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the media socket is lost")]
pub struct Lost;
