//! The line of one call, whatever carries it: audio, marks and keys in both directions, in the coding of the call. It does not know
//! what is played or why.

use super::socket::Socket;
use axum::extract::ws::WebSocket;
use offhook_carriers::sip::{RtpEvent, RtpLine};
use offhook_carriers::telnyx::ByteOrder;
use offhook_carriers::{MediaEvent, telnyx, twilio};
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
    /// The call is over, or goes on elsewhere.
    HungUp,
    /// The carrier ended the stream; what became of the call it tells in another way.
    Stopped,
    /// The call is over; who ended it, and why, its signalling tells.
    Over,
    /// The socket broke without a word.
    Lost,
}

/// An open line to the caller.
pub struct Line {
    wire: Wire,
    /// How the call's audio is coded.
    coding: Coding,
    /// The way from the wire's coding to the call's, where they differ.
    way: Option<Way>,
    /// What was last heard, as it came.
    heard: Vec<u8>,
}

/// What carries a line.
enum Wire {
    Twilio(TwilioSocket),
    Telnyx(TelnyxSocket),
    Rtp(Box<RtpLine>),
}

struct Way {
    transcoder: Transcoder,
    /// What was last heard, in the call's coding.
    heard: Vec<u8>,
}

fn way(wire: Coding, call: Coding) -> Option<Way> {
    if wire == call {
        return None;
    }
    tracing::info!(
        ?wire,
        ?call,
        "The line is not coded as its call is: what comes is brought to the call's coding"
    );
    Some(Way { transcoder: Transcoder::new(wire, call).ok()?, heard: Vec::new() })
}

struct TwilioSocket {
    socket: Socket,
    reader: twilio::media::MediaReader,
    writer: twilio::media::MediaWriter,
    text: String,
}

struct TelnyxSocket {
    socket: Socket,
    reader: telnyx::media::MediaReader,
    writer: telnyx::media::MediaWriter,
    text: String,
    /// Who wants to know the byte order when it is found.
    found: Option<Box<dyn FnOnce(ByteOrder) + Send>>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("coding", &self.coding).finish_non_exhaustive()
    }
}

impl Line {
    /// A line from a socket of Twilio's that has introduced itself to `reader` as `stream`.
    pub fn twilio(socket: WebSocket, reader: twilio::media::MediaReader, stream: &str) -> Self {
        let writer = twilio::media::MediaWriter::new(stream);
        let (socket, text) = (Socket::new(socket), String::new());
        Line {
            wire: Wire::Twilio(TwilioSocket { socket, reader, writer, text }),
            coding: Coding::MU_LAW,
            way: None,
            heard: Vec::new(),
        }
    }

    /// A line from a socket of Telnyx's that has introduced itself to `reader`, which sends what it reads in `wire`, for a call in
    /// `coding`, which was asked for both ways. `found` is told the byte order of samples when listening has found it.
    pub fn telnyx(
        socket: WebSocket,
        reader: telnyx::media::MediaReader,
        wire: Coding,
        coding: Coding,
        found: impl FnOnce(ByteOrder) + Send + 'static,
    ) -> Self {
        let writer = telnyx::media::MediaWriter::new(coding, reader.byte_order());
        let (socket, text) = (Socket::new(socket), String::new());
        let found: Box<dyn FnOnce(ByteOrder) + Send> = Box::new(found);
        let telnyx = TelnyxSocket { socket, reader, writer, text, found: Some(found) };
        Line { wire: Wire::Telnyx(telnyx), coding, way: way(wire, coding), heard: Vec::new() }
    }

    /// A line of SIP, for a call in `coding`.
    pub fn sip(line: RtpLine, coding: Coding) -> Self {
        let way = way(line.coding(), coding);
        Line { wire: Wire::Rtp(Box::new(line)), coding, way, heard: Vec::new() }
    }

    /// The next thing from the carrier. Faulty messages are logged and skipped. May be dropped while waiting.
    pub async fn next(&mut self) -> LineEvent {
        let event = match &mut self.wire {
            Wire::Twilio(twilio) => twilio.next(&mut self.heard).await,
            Wire::Telnyx(telnyx) => telnyx.next(&mut self.heard).await,
            Wire::Rtp(line) => match line.next().await {
                RtpEvent::Audio => {
                    self.heard.clear();
                    self.heard.extend_from_slice(line.audio());
                    LineEvent::Audio
                }
                RtpEvent::Mark(name) => LineEvent::Mark(name),
                RtpEvent::Key(key) => LineEvent::Key(key),
                RtpEvent::Stopped => LineEvent::Over,
            },
        };
        if let (LineEvent::Audio, Some(way)) = (&event, &mut self.way) {
            way.heard.clear();
            way.heard.extend_from_slice(way.transcoder.push(&self.heard));
        }
        event
    }

    /// The audio of the last [`LineEvent::Audio`], in the coding of the call.
    pub fn audio(&self) -> &[u8] {
        self.way.as_ref().map_or(&self.heard, |way| &way.heard)
    }

    /// Queues audio to be played, in the coding of the call.
    pub async fn play(&mut self, coded: &[u8]) -> Result<(), Lost> {
        match &mut self.wire {
            Wire::Twilio(twilio) => {
                twilio.writer.media(coded, &mut twilio.text);
                twilio.socket.feed(&twilio.text).await
            }
            Wire::Telnyx(telnyx) => {
                telnyx.writer.media(coded, &mut telnyx.text);
                telnyx.socket.feed(&telnyx.text).await
            }
            Wire::Rtp(line) => {
                line.play(coded);
                Ok(())
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
            Wire::Telnyx(telnyx) => {
                telnyx.writer.mark(name, &mut telnyx.text);
                telnyx.socket.feed(&telnyx.text).await
            }
            Wire::Rtp(line) => {
                line.mark(name);
                Ok(())
            }
        }
    }

    /// Presses keys, which the caller's end gets as tones; what is no key is logged and not pressed.
    pub async fn press(&mut self, digits: &str) -> Result<(), Lost> {
        if let Wire::Rtp(line) = &mut self.wire {
            line.press(digits);
            return Ok(());
        }
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
            Wire::Telnyx(telnyx) => {
                telnyx.writer.clear(&mut telnyx.text);
                telnyx.socket.feed(&telnyx.text).await?;
            }
            Wire::Rtp(line) => line.clear(),
        }
        self.flush().await
    }

    /// Sends what was queued.
    pub async fn flush(&mut self) -> Result<(), Lost> {
        match &mut self.wire {
            Wire::Twilio(twilio) => twilio.socket.flush().await,
            Wire::Telnyx(telnyx) => telnyx.socket.flush().await,
            Wire::Rtp(_) => Ok(()),
        }
    }

    /// Takes leave: the carrier then asks what comes next.
    pub async fn close(&mut self) {
        match &mut self.wire {
            Wire::Twilio(twilio) => twilio.socket.close().await,
            Wire::Telnyx(telnyx) => telnyx.socket.close().await,
            // It ends with its call.
            Wire::Rtp(_) => {}
        }
    }
}

impl TwilioSocket {
    async fn next(&mut self, audio: &mut Vec<u8>) -> LineEvent {
        loop {
            let Some(text) = self.socket.next().await else { return LineEvent::Lost };
            match self.reader.decode(&text, audio) {
                Ok(MediaEvent::Stopped) => return LineEvent::HungUp,
                Ok(event) => match told(event) {
                    Some(event) => return event,
                    None => continue,
                },
                Err(error) => skipped(&error, self.reader.counters().faults),
            }
        }
    }
}

impl TelnyxSocket {
    async fn next(&mut self, audio: &mut Vec<u8>) -> LineEvent {
        loop {
            let Some(text) = self.socket.next().await else { return LineEvent::Lost };
            match self.reader.decode(&text, audio) {
                // It waits for what it has overtaken.
                Ok(MediaEvent::Audio) if audio.is_empty() => {}
                Ok(event) => {
                    if matches!(event, MediaEvent::Audio) {
                        self.writer.set_byte_order(self.reader.byte_order());
                        if self.reader.byte_order_is_settled()
                            && let Some(found) = self.found.take()
                        {
                            found(self.reader.byte_order());
                        }
                    }
                    if let Some(event) = told(event) {
                        return event;
                    }
                }
                Err(error) => skipped(&error, self.reader.counters().faults),
            }
        }
    }
}

/// What a message of a carrier's tells about the line, if anything.
fn told(event: MediaEvent) -> Option<LineEvent> {
    match event {
        MediaEvent::Audio => Some(LineEvent::Audio),
        MediaEvent::Mark(name) => Some(LineEvent::Mark(name)),
        MediaEvent::Dtmf(key) => Some(LineEvent::Key(key.into_inner())),
        MediaEvent::Stopped => Some(LineEvent::Stopped),
        MediaEvent::Connected | MediaEvent::Started(_) => None,
    }
}

fn skipped(error: &dyn std::error::Error, faults: u64) {
    if faults <= LOGGED_FAULTS {
        tracing::warn!(%error, "Media message skipped");
    }
}

impl Drop for TwilioSocket {
    fn drop(&mut self) {
        missed(self.reader.counters().missing);
    }
}

impl Drop for TelnyxSocket {
    fn drop(&mut self) {
        missed(self.reader.counters().missing);
    }
}

fn missed(missing: u64) {
    if missing > 0 {
        metrics::counter!("offhook_media_messages_missing_total").increment(missing);
        tracing::warn!(
            missing,
            "Messages were missing on a media socket: the caller was not heard as a whole"
        );
    }
}

/// The line is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the media socket is lost")]
pub struct Lost;
