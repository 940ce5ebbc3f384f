//! Telnyx's media socket ("Media streaming over WebSockets"): messages with audio, marks and keys.
//! It knows neither socket nor clock: text in, events out, and the other way round; what a fault means is the caller's to decide.

use super::byte_order::{ByteOrder, Listener, turn};
use super::event::key;
use crate::{MediaEvent, Started};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use offhook_core::Secret;
use offhook_media::coding::Coding;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The largest message that is read; 20 ms of L16 at 16 kHz make about 1 KiB.
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// The most audio that one message may bring: 4 s of L16 at 16 kHz.
pub const MAX_AUDIO_BYTES: usize = 128_000;
/// How many messages with audio wait for one that is overtaken, before it is given up: 100 ms.
pub const MAX_WAITING: usize = 5;
/// So many late messages in a row are no late ones: the counting began anew.
pub const MAX_LATE: u32 = 10;
/// The shortest audio that Telnyx takes, in milliseconds; a shorter piece is filled up with silence.
pub const SHORTEST_MS: usize = 20;

const MAX_SHOWN_CHARS: usize = 64;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads the messages of one media socket, which may come in any order, and gives the audio in its own.
///
/// A fault is told once and leaves the reader as it was, so that the stream goes on behind it.
#[derive(Clone, Debug)]
pub struct MediaReader {
    stage: Stage,
    stream: Option<String>,
    coding: Coding,
    listener: Listener,
    queue: Queue,
    counters: MediaCounters,
}

/// What has been seen on one media socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaCounters {
    /// Messages that gave an event.
    pub events: u64,
    /// Messages that gave an error.
    pub faults: u64,
    /// Pieces of audio that did not come in time.
    pub missing: u64,
    /// Pieces of audio that came twice.
    pub repeated: u64,
    /// Pieces of audio that came when their moment was over.
    pub late: u64,
    /// Pieces of audio that were overtaken and put back in their place.
    pub reordered: u64,
}

/// Why a message of a media socket means nothing to us; each is a fact to log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// Its limits are [`MAX_MESSAGE_BYTES`] and [`MAX_AUDIO_BYTES`].
    #[error("media message of {bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not JSON, or not of the documented shape.
    #[error("media message is malformed at column {column}")]
    Malformed {
        /// Where it stopped making sense.
        column: usize,
    },
    /// A kind of message that the documents do not have.
    #[error("media message has the unknown event {0:?}")]
    UnknownEvent(String),
    /// A part is missing or holds nonsense.
    #[error("media message has no usable {0}")]
    Unusable(&'static str),
    /// Audio that we cannot read: ask for another stream, in PCMU.
    #[error("media stream has the unsupported format {encoding:?}, {rate_hz} Hz, {channels} channels")]
    UnsupportedFormat {
        /// Its name.
        encoding: String,
        /// Samples a second.
        rate_hz: u32,
        /// Channels.
        channels: u32,
    },
    /// Something came before the stream had said which call it is for.
    #[error("media message came before the stream was started")]
    BeforeStart,
    /// A stream starts once.
    #[error("media stream was started twice")]
    StartedTwice,
    /// Something came after the end.
    #[error("media message came after the stream was stopped")]
    AfterStop,
    /// The message belongs to another stream than this socket.
    #[error("media message belongs to another stream")]
    OtherStream,
    /// Audio of the track that we play ourselves.
    #[error("media message belongs to another track than the caller's")]
    OtherTrack,
    /// The same piece of audio as before; it was dropped.
    #[error("media message {chunk} was repeated")]
    Repeated {
        /// Its place.
        chunk: u64,
    },
    /// Audio whose moment is over; it was dropped.
    #[error("media message {chunk} came when {next} was due")]
    Late {
        /// Its place.
        chunk: u64,
        /// The place that was due.
        next: u64,
    },
    /// Telnyx could not use what we sent.
    #[error("the carrier could not use a media message of ours: {code} {title}")]
    Refused {
        /// Its code: 100002 to 100005.
        code: u32,
        /// Its name, such as `invalid_media`.
        title: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opened,
    Started,
    Stopped,
}

impl Default for MediaReader {
    fn default() -> Self {
        MediaReader::guessing(ByteOrder::Little)
    }
}

impl MediaReader {
    /// A reader for a socket that was just opened, on a line of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// A reader that takes the byte order of L16 as known.
    pub fn knowing(order: ByteOrder) -> Self {
        MediaReader::listening(Listener::settled(order))
    }

    /// A reader that finds out the byte order of L16 by listening, and until then believes in this one.
    pub fn guessing(order: ByteOrder) -> Self {
        MediaReader::listening(Listener::guessing(order))
    }

    fn listening(listener: Listener) -> Self {
        MediaReader {
            stage: Stage::Opened,
            stream: None,
            coding: Coding::MU_LAW,
            listener,
            queue: Queue::default(),
            counters: MediaCounters::default(),
        }
    }

    /// The byte order of L16 as far as it is known: what is sent has the same.
    pub fn byte_order(&self) -> ByteOrder {
        self.listener.order()
    }

    /// Whether the byte order will not change any more, and is worth remembering for the next call.
    pub fn byte_order_is_settled(&self) -> bool {
        self.listener.is_settled()
    }

    /// What has been seen so far.
    pub fn counters(&self) -> MediaCounters {
        self.counters
    }

    /// Reads one text message. `audio` is cleared, and holds the caller's audio after [`MediaEvent::Audio`]: in the coding that
    /// [`Started`] named, of several messages if one was waited for, of none if one is.
    pub fn decode(&mut self, text: &str, audio: &mut Vec<u8>) -> Result<MediaEvent, MediaError> {
        audio.clear();
        let event = self.read(text, audio);
        match &event {
            Ok(_) => self.counters.events += 1,
            Err(_) => {
                audio.clear();
                self.counters.faults += 1;
            }
        }
        event
    }

    fn read(&mut self, text: &str, audio: &mut Vec<u8>) -> Result<MediaEvent, MediaError> {
        if text.len() > MAX_MESSAGE_BYTES {
            return Err(MediaError::TooLarge { bytes: text.len() });
        }
        let message: Message =
            serde_json::from_str(text).map_err(|e| MediaError::Malformed { column: e.column() })?;
        match (self.stage, &*message.event.0) {
            (_, "error") => return Err(refused(message.payload)),
            (Stage::Stopped, _) => return Err(MediaError::AfterStop),
            (Stage::Opened, "connected") => return Ok(MediaEvent::Connected),
            (Stage::Opened, "start") => return self.start(message),
            (Stage::Opened, _) => return Err(MediaError::BeforeStart),
            (Stage::Started, "start" | "connected") => return Err(MediaError::StartedTwice),
            (Stage::Started, _) => {}
        }
        if message.stream_id.zip(self.stream.as_ref()).is_some_and(|(theirs, ours)| theirs.0 != **ours) {
            return Err(MediaError::OtherStream);
        }
        match &*message.event.0 {
            "media" => {
                self.audio(message.media.ok_or(MediaError::Unusable("media"))?, audio)?;
                Ok(MediaEvent::Audio)
            }
            "dtmf" => {
                let dtmf = message.dtmf.ok_or(MediaError::Unusable("dtmf"))?;
                key(Some(&dtmf.digit.0)).map(MediaEvent::Dtmf).map_err(|_| MediaError::Unusable("digit"))
            }
            "mark" => {
                let mark = message.mark.ok_or(MediaError::Unusable("mark"))?;
                Ok(MediaEvent::Mark(mark.name.0.into_owned()))
            }
            "stop" => {
                self.stage = Stage::Stopped;
                Ok(MediaEvent::Stopped)
            }
            other => Err(MediaError::UnknownEvent(shown(other))),
        }
    }

    fn start(&mut self, message: Message) -> Result<MediaEvent, MediaError> {
        let start = message.start.ok_or(MediaError::Unusable("start"))?;
        let coding = start.media_format.coding()?;
        let mut parameters: BTreeMap<_, _> = match start.custom_parameters {
            Some(Parameters::Named(named)) => {
                named.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()
            }
            Some(Parameters::Listed(listed)) => {
                listed.into_iter().map(|one| (one.name, Secret::new(one.value))).collect()
            }
            Some(Parameters::Other(_)) | None => BTreeMap::new(),
        };
        if let Some(state) = start.client_state.as_deref().and_then(super::event::state) {
            parameters.insert(CLIENT_STATE.to_owned(), Secret::new(state));
        }
        self.stage = Stage::Started;
        self.coding = coding;
        self.stream = message.stream_id.map(|stream| stream.0.into_owned());
        Ok(MediaEvent::Started(Box::new(Started {
            carrier_call: start.call_control_id.0.into_owned(),
            account: start.user_id.map(|user| user.0.into_owned()).unwrap_or_default(),
            stream: self.stream.clone().unwrap_or_default(),
            parameters,
            coding,
        })))
    }

    fn audio(&mut self, media: Media, audio: &mut Vec<u8>) -> Result<(), MediaError> {
        if media.track.is_some_and(|track| !track.0.starts_with("inbound")) {
            return Err(MediaError::OtherTrack);
        }
        BASE64.decode_vec(&*media.payload.0, audio).map_err(|_| MediaError::Unusable("payload"))?;
        if audio.len() > MAX_AUDIO_BYTES {
            return Err(MediaError::TooLarge { bytes: audio.len() });
        }
        if !audio.len().is_multiple_of(self.coding.bytes_per_sample()) {
            return Err(MediaError::Unusable("payload"));
        }
        // Without its place it can only be taken as it comes.
        if let Some(chunk) = media.chunk {
            let chunk = chunk.read().ok_or(MediaError::Unusable("chunk"))?;
            self.queue.put(chunk, audio, &mut self.counters)?;
        }
        if let Coding::Linear { .. } = self.coding {
            self.listener.hear(audio);
            turn(self.listener.order(), audio);
        }
        Ok(())
    }
}

/// The name under which [`Started`] hands back what commands set as the state of the call.
pub const CLIENT_STATE: &str = "client_state";

/// Audio that waits for a piece that it has overtaken.
#[derive(Clone, Debug, Default)]
struct Queue {
    /// The place that is due; the first piece of audio is the first.
    due: Option<u64>,
    waiting: BTreeMap<u64, Vec<u8>>,
    late_in_a_row: u32,
}

/// Where a stream begins to count.
const FIRST_CHUNK: u64 = 1;

impl Queue {
    /// Takes a piece of audio, and leaves in `audio` what is due now: nothing, that piece, or several.
    fn put(
        &mut self,
        chunk: u64,
        audio: &mut Vec<u8>,
        counters: &mut MediaCounters,
    ) -> Result<(), MediaError> {
        let due = self.due.unwrap_or(FIRST_CHUNK.min(chunk));
        if self.waiting.contains_key(&chunk) || self.due == chunk.checked_add(1) {
            counters.repeated += 1;
            return Err(MediaError::Repeated { chunk });
        }
        if chunk < due {
            self.late_in_a_row += 1;
            if self.late_in_a_row < MAX_LATE {
                counters.late += 1;
                return Err(MediaError::Late { chunk, next: due });
            }
            self.waiting.clear();
            self.due = Some(chunk);
            return self.put(chunk, audio, counters);
        }
        self.late_in_a_row = 0;
        if chunk == due {
            self.due = Some(chunk.saturating_add(1));
            counters.reordered += u64::from(!self.waiting.is_empty());
            self.release(audio);
            return Ok(());
        }
        self.waiting.insert(chunk, std::mem::take(audio));
        if self.waiting.len() > MAX_WAITING {
            let first = self.waiting.keys().next().copied().unwrap_or(due);
            // A stream that we join late has lost nothing.
            if self.due.is_some() {
                counters.missing = counters.missing.saturating_add(first - due);
            }
            self.due = Some(first);
            self.release(audio);
        }
        Ok(())
    }

    /// Appends what is due.
    fn release(&mut self, audio: &mut Vec<u8>) {
        while let Some(due) = self.due
            && let Some(piece) = self.waiting.remove(&due)
        {
            audio.extend_from_slice(&piece);
            self.due = Some(due.saturating_add(1));
        }
    }
}

/// Writes the messages of one media socket. Each method replaces what is in `out`, so that one buffer serves a whole call.
#[derive(Clone, Debug)]
pub struct MediaWriter {
    coding: Coding,
    order: ByteOrder,
}

impl MediaWriter {
    /// A writer of the coding that was asked for both ways.
    pub fn new(coding: Coding, order: ByteOrder) -> Self {
        MediaWriter { coding, order }
    }

    /// Sends L16 in this order from now on, as [`MediaReader::byte_order`] has heard it.
    pub fn set_byte_order(&mut self, order: ByteOrder) {
        self.order = order;
    }

    /// Plays audio, at most 30 s of it, behind what was sent before.
    pub fn media(&self, audio: &[u8], out: &mut String) {
        out.clear();
        out.push_str(r#"{"event":"media","media":{"payload":""#);
        let shortest = SHORTEST_MS * self.coding.bytes_per_ms();
        let turned = self.order == ByteOrder::Big && matches!(self.coding, Coding::Linear { .. });
        if audio.len() < shortest || turned {
            let mut piece = audio.to_vec();
            self.coding.silence(shortest.saturating_sub(audio.len()), &mut piece);
            if turned {
                turn(self.order, &mut piece);
            }
            BASE64.encode_string(piece, out);
        } else {
            BASE64.encode_string(audio, out);
        }
        out.push_str(r#""}}"#);
    }

    /// Asks for this mark back once everything before it has been played, or cleared.
    pub fn mark(&self, name: &str, out: &mut String) {
        out.clear();
        out.push_str(r#"{"event":"mark","mark":{"name":"#);
        out.push_str(&serde_json::to_string(name).expect("any text is a JSON string"));
        out.push_str("}}");
    }

    /// Drops what has not been played; every pending mark comes back at once.
    pub fn clear(&self, out: &mut String) {
        out.clear();
        out.push_str(r#"{"event":"clear"}"#);
    }
}

fn refused(payload: Option<Problem>) -> MediaError {
    let (code, title) = payload.map(|p| (p.code, p.title)).unwrap_or_default();
    let code = code.and_then(|code| code.read()).and_then(|code| code.try_into().ok()).unwrap_or(0);
    MediaError::Refused { code, title: shown(&title.unwrap_or_default()) }
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARS).collect()
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow)]
    media: Option<Media<'a>>,
    #[serde(borrow)]
    mark: Option<Mark<'a>>,
    #[serde(borrow)]
    dtmf: Option<Dtmf<'a>>,
    #[serde(borrow)]
    start: Option<Start<'a>>,
    #[serde(borrow)]
    payload: Option<Problem<'a>>,
}

#[derive(Deserialize)]
struct Media<'a> {
    #[serde(borrow)]
    track: Option<Text<'a>>,
    #[serde(borrow)]
    chunk: Option<Number<'a>>,
    #[serde(borrow)]
    payload: Text<'a>,
}

#[derive(Deserialize)]
struct Mark<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Deserialize)]
struct Dtmf<'a> {
    #[serde(borrow)]
    digit: Text<'a>,
}

#[derive(Deserialize)]
struct Problem<'a> {
    #[serde(borrow)]
    code: Option<Number<'a>>,
    title: Option<String>,
}

#[derive(Deserialize)]
struct Start<'a> {
    #[serde(borrow)]
    user_id: Option<Text<'a>>,
    #[serde(borrow)]
    call_control_id: Text<'a>,
    client_state: Option<String>,
    custom_parameters: Option<Parameters>,
    #[serde(borrow)]
    media_format: MediaFormat<'a>,
}

/// The commands list them, the stream names them; both are read.
#[derive(Deserialize)]
#[serde(untagged)]
enum Parameters {
    Named(BTreeMap<String, String>),
    Listed(Vec<Parameter>),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Parameter {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct MediaFormat<'a> {
    #[serde(borrow)]
    encoding: Text<'a>,
    sample_rate: u32,
    channels: u32,
}

impl MediaFormat<'_> {
    fn coding(&self) -> Result<Coding, MediaError> {
        match (self.encoding.0.to_ascii_uppercase().as_str(), self.sample_rate, self.channels) {
            ("PCMU", 8_000, 1) => Ok(Coding::MU_LAW),
            ("PCMA", 8_000, 1) => Ok(Coding::A_LAW),
            ("L16", rate_hz @ (8_000 | 16_000 | 24_000 | 48_000), 1) => Ok(Coding::Linear { rate_hz }),
            _ => Err(MediaError::UnsupportedFormat {
                encoding: shown(&self.encoding.0),
                rate_hz: self.sample_rate,
                channels: self.channels,
            }),
        }
    }
}

/// A string that is borrowed unless it has escapes. Serde borrows a bare `Cow`, and copies one inside an `Option`.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A number, which most messages write as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number<'a> {
    Plain(u64),
    #[serde(borrow)]
    Written(Text<'a>),
}

impl Number<'_> {
    fn read(&self) -> Option<u64> {
        match self {
            Number::Plain(number) => Some(*number),
            Number::Written(text) => text.0.parse().ok(),
        }
    }
}
