//! Media Streams, Twilio's WebSocket messages with audio, marks and keys (Voice documentation, "WebSocket Messages").
//! It knows neither socket nor clock: text in, events out, and the other way round; what a fault means is the caller's to decide.

use crate::{MediaEvent, Started};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use offhook_core::{Pii, Secret};
use offhook_media::coding::Coding;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The largest message that is read; 20 ms of audio make about 400 bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The most audio that one message may bring: 4 s.
pub const MAX_AUDIO_BYTES: usize = 32_000;

const MAX_SHOWN_CHARS: usize = 32;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads the messages of one media socket in the order in which they come.
///
/// A fault is told once and leaves the reader as it was, so that the stream goes on behind it.
#[derive(Clone, Debug, Default)]
pub struct MediaReader {
    stage: Stage,
    stream: String,
    last_sequence: Option<u64>,
    counters: MediaCounters,
}

/// What has been seen on one media socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaCounters {
    /// Messages that gave an event.
    pub events: u64,
    /// Messages that gave an error.
    pub faults: u64,
    /// Sequence numbers that were skipped.
    pub missing: u64,
    /// Messages whose sequence number was that of the message before.
    pub repeated: u64,
    /// Messages whose sequence number was below that of a message before.
    pub late: u64,
}

/// Why a message of a media socket means nothing to us; each is a fact to log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// Its limit is [`MAX_MESSAGE_BYTES`].
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
    /// Audio in another form than G.711 µ-law, 8 kHz, mono.
    #[error("media stream has an unsupported format")]
    UnsupportedFormat,
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
    /// The same sequence number as before; the message was dropped.
    #[error("media message {sequence} was repeated")]
    Repeated {
        /// Its sequence number.
        sequence: u64,
    },
    /// A lower sequence number than before; the message was dropped.
    #[error("media message {sequence} came after {last}")]
    Late {
        /// Its sequence number.
        sequence: u64,
        /// The highest one before it.
        last: u64,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Opened,
    Started,
    Stopped,
}

impl MediaReader {
    /// A reader for a socket that was just opened.
    pub fn new() -> Self {
        Self::default()
    }

    /// What has been seen so far.
    pub fn counters(&self) -> MediaCounters {
        self.counters
    }

    /// Reads one text message. `audio` is cleared, and holds the caller's µ-law bytes after [`MediaEvent::Audio`].
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
            (Stage::Stopped, _) => return Err(MediaError::AfterStop),
            (Stage::Opened, "connected") => return Ok(MediaEvent::Connected),
            (Stage::Opened, "start") => return self.start(message),
            (Stage::Opened, _) => return Err(MediaError::BeforeStart),
            (Stage::Started, "start" | "connected") => return Err(MediaError::StartedTwice),
            (Stage::Started, _) => {}
        }
        if message.stream_sid.is_some_and(|stream| stream.0 != self.stream) {
            return Err(MediaError::OtherStream);
        }
        let place = self.place(message.sequence_number)?;
        match &*message.event.0 {
            "media" => {
                place?;
                let media = message.media.ok_or(MediaError::Unusable("media"))?;
                if !is_callers(media.track) {
                    return Err(MediaError::OtherTrack);
                }
                BASE64.decode_vec(&*media.payload.0, audio).map_err(|_| MediaError::Unusable("payload"))?;
                if audio.len() > MAX_AUDIO_BYTES {
                    return Err(MediaError::TooLarge { bytes: text.len() });
                }
                Ok(MediaEvent::Audio)
            }
            "dtmf" => {
                place?;
                let dtmf = message.dtmf.ok_or(MediaError::Unusable("dtmf"))?;
                match dtmf.digit.0.as_bytes() {
                    &[key @ (b'0'..=b'9' | b'*' | b'#' | b'A'..=b'D')] => {
                        Ok(MediaEvent::Dtmf(Pii::new(key.into())))
                    }
                    _ => Err(MediaError::Unusable("digit")),
                }
            }
            // A mark and the end mean the same wherever they come; only audio and keys can be wrong by their place.
            "mark" => {
                let mark = message.mark.ok_or(MediaError::Unusable("mark"))?;
                Ok(MediaEvent::Mark(mark.name.0.into_owned()))
            }
            "stop" => {
                self.stage = Stage::Stopped;
                Ok(MediaEvent::Stopped)
            }
            other => Err(MediaError::UnknownEvent(other.chars().take(MAX_SHOWN_CHARS).collect())),
        }
    }

    fn start(&mut self, message: Message) -> Result<MediaEvent, MediaError> {
        let start = message.start.ok_or(MediaError::Unusable("start"))?;
        let format = &start.media_format;
        if (&*format.encoding.0, format.sample_rate, format.channels) != ("audio/x-mulaw", 8_000, 1) {
            return Err(MediaError::UnsupportedFormat);
        }
        if message.stream_sid.is_some_and(|stream| stream.0 != start.stream_sid.0) {
            return Err(MediaError::OtherStream);
        }
        let _in_order = self.place(message.sequence_number)?;
        self.stage = Stage::Started;
        self.stream = start.stream_sid.0.clone().into_owned();
        let parameters = start.custom_parameters.into_iter();
        Ok(MediaEvent::Started(Box::new(Started {
            carrier_call: start.call_sid.0.into_owned(),
            account: start.account_sid.0.into_owned(),
            stream: start.stream_sid.0.into_owned(),
            parameters: parameters.map(|(name, value)| (name, Secret::new(value))).collect(),
            coding: Coding::MU_LAW,
        })))
    }

    /// Counts a message by its sequence number: the outer error is a number that is none, the inner one a wrong place.
    fn place(&mut self, number: Option<Text>) -> Result<Result<(), MediaError>, MediaError> {
        let Some(number) = number else { return Ok(Ok(())) };
        let sequence: u64 = number.0.parse().map_err(|_| MediaError::Unusable("sequenceNumber"))?;
        match self.last_sequence {
            Some(last) if sequence == last => {
                self.counters.repeated += 1;
                return Ok(Err(MediaError::Repeated { sequence }));
            }
            Some(last) if sequence < last => {
                self.counters.late += 1;
                return Ok(Err(MediaError::Late { sequence, last }));
            }
            Some(last) => self.counters.missing = self.counters.missing.saturating_add(sequence - last - 1),
            None => {}
        }
        self.last_sequence = Some(sequence);
        Ok(Ok(()))
    }
}

/// Tracks are called `inbound` in audio and `inbound_track` in keys; without a name there is only the caller's.
fn is_callers(track: Option<Text>) -> bool {
    track.is_none_or(|track| track.0.starts_with("inbound"))
}

/// Writes the messages of one media socket. Each method replaces what is in `out`, so that one buffer serves a whole call.
#[derive(Clone, Debug)]
pub struct MediaWriter {
    media: String,
    mark: String,
    clear: String,
}

impl MediaWriter {
    /// A writer for the stream that [`Started`] named.
    pub fn new(stream: &str) -> Self {
        let stream = quoted(stream);
        MediaWriter {
            media: format!(r#"{{"event":"media","streamSid":{stream},"media":{{"payload":""#),
            mark: format!(r#"{{"event":"mark","streamSid":{stream},"mark":{{"name":"#),
            clear: format!(r#"{{"event":"clear","streamSid":{stream}}}"#),
        }
    }

    /// Plays µ-law audio of any length behind what was sent before.
    pub fn media(&self, mulaw: &[u8], out: &mut String) {
        out.clear();
        out.push_str(&self.media);
        BASE64.encode_string(mulaw, out);
        out.push_str(r#""}}"#);
    }

    /// Asks for this mark back once everything before it has been played, or cleared.
    pub fn mark(&self, name: &str, out: &mut String) {
        out.clear();
        out.push_str(&self.mark);
        out.push_str(&quoted(name));
        out.push_str("}}");
    }

    /// Drops what has not been played; every pending mark comes back at once.
    pub fn clear(&self, out: &mut String) {
        out.clear();
        out.push_str(&self.clear);
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("any text is a JSON string")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    sequence_number: Option<Text<'a>>,
    #[serde(borrow)]
    stream_sid: Option<Text<'a>>,
    #[serde(borrow)]
    media: Option<Media<'a>>,
    #[serde(borrow)]
    mark: Option<Mark<'a>>,
    #[serde(borrow)]
    dtmf: Option<Dtmf<'a>>,
    #[serde(borrow)]
    start: Option<Start<'a>>,
}

#[derive(Deserialize)]
struct Media<'a> {
    #[serde(borrow)]
    track: Option<Text<'a>>,
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
#[serde(rename_all = "camelCase")]
struct Start<'a> {
    #[serde(borrow)]
    account_sid: Text<'a>,
    #[serde(borrow)]
    stream_sid: Text<'a>,
    #[serde(borrow)]
    call_sid: Text<'a>,
    #[serde(borrow)]
    media_format: MediaFormat<'a>,
    #[serde(default)]
    custom_parameters: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MediaFormat<'a> {
    #[serde(borrow)]
    encoding: Text<'a>,
    sample_rate: u32,
    channels: u32,
}

/// A string that is borrowed unless it has escapes. Serde borrows a bare `Cow`, and copies one inside an `Option`.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONNECTED: &str = r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#;
    const START: &str = r#"{"event":"start","sequenceNumber":"1","streamSid":"MZ1","start":{"accountSid":"AC1","streamSid":"MZ1",
        "callSid":"CA1","tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},
        "customParameters":{"call":"c_1","ticket":"t\u00e9"}}}"#;
    const STOP: &str = r#"{"event":"stop","sequenceNumber":"9","streamSid":"MZ1","stop":{"accountSid":"AC1","callSid":"CA1"}}"#;

    #[test]
    fn a_stream_tells_its_call_then_its_audio_then_its_end() {
        let mut socket = Socket::default();
        assert_eq!(socket.hear(CONNECTED), Ok(MediaEvent::Connected));
        let Ok(MediaEvent::Started(started)) = socket.hear(START) else { panic!("not started") };
        assert_eq!((&*started.carrier_call, &*started.account, &*started.stream), ("CA1", "AC1", "MZ1"));
        assert_eq!(started.parameters["ticket"].expose(), "té");
        assert_eq!(socket.hear(&media(2, "//8A")), Ok(MediaEvent::Audio));
        assert_eq!(socket.audio, [0xff, 0xff, 0x00]);
        let mark = r#"{"event":"mark","sequenceNumber":"3","streamSid":"MZ1","mark":{"name":"u7.3"}}"#;
        assert_eq!(socket.hear(mark), Ok(MediaEvent::Mark("u7.3".into())));
        assert!(socket.audio.is_empty());
        assert_eq!(socket.hear(&dtmf(4, "#")), Ok(MediaEvent::Dtmf(Pii::new('#'))));
        assert_eq!(socket.hear(STOP), Ok(MediaEvent::Stopped));
        assert_eq!(socket.hear(&media(10, "AA==")), Err(MediaError::AfterStop));
        assert_eq!(socket.hear(START), Err(MediaError::AfterStop));
        let counters = MediaCounters { events: 6, faults: 2, missing: 4, repeated: 0, late: 0 };
        assert_eq!(socket.reader.counters(), counters);
    }

    #[test]
    fn audio_is_borrowed_from_the_message() {
        let text = media(2, "//8A");
        let message: Message = serde_json::from_str(&text).unwrap();
        assert!(matches!(message.media.unwrap().payload.0, Cow::Borrowed("//8A")));
        assert!(matches!(message.sequence_number.unwrap().0, Cow::Borrowed("2")));
    }

    #[test]
    fn escaped_and_unpadded_audio_is_heard_too() {
        let mut socket = Socket::started();
        assert_eq!(socket.hear(&media(2, r"\/\/8A\u0041A")), Ok(MediaEvent::Audio));
        assert_eq!(socket.audio, [0xff, 0xff, 0x00, 0x00]);
        assert_eq!(socket.hear(&media(3, "")), Ok(MediaEvent::Audio));
        assert!(socket.audio.is_empty());
    }

    #[test]
    fn gaps_are_counted_and_what_is_out_of_place_is_dropped() {
        let mut socket = Socket::started();
        assert_eq!(socket.hear(&media(5, "AA==")), Ok(MediaEvent::Audio));
        assert_eq!(socket.hear(&media(5, "AA==")), Err(MediaError::Repeated { sequence: 5 }));
        assert!(socket.audio.is_empty());
        assert_eq!(socket.hear(&dtmf(4, "1")), Err(MediaError::Late { sequence: 4, last: 5 }));
        let late_mark = r#"{"event":"mark","sequenceNumber":"3","streamSid":"MZ1","mark":{"name":"u1"}}"#;
        assert_eq!(socket.hear(late_mark), Ok(MediaEvent::Mark("u1".into())));
        assert_eq!(socket.hear(&media(6, "AA==")), Ok(MediaEvent::Audio));
        let counters = socket.reader.counters();
        assert_eq!((counters.missing, counters.repeated, counters.late), (3, 1, 2));
    }

    #[test]
    fn a_bad_message_is_told_and_the_stream_goes_on() {
        let mut socket = Socket::started();
        let number = r#"{"event":"media","sequenceNumber":"two","streamSid":"MZ1","media":{"payload":""}}"#;
        let track = r#"{"event":"media","sequenceNumber":"4","streamSid":"MZ1","media":{"track":"outbound","payload":""}}"#;
        let deep = "[".repeat(60_000);
        for (bad, error) in [
            ("", MediaError::Malformed { column: 0 }),
            ("{", MediaError::Malformed { column: 1 }),
            ("[]", MediaError::Malformed { column: 2 }),
            (&deep, MediaError::Malformed { column: 1 }),
            (r#"{"event":"warp","sequenceNumber":"2"}"#, MediaError::UnknownEvent("warp".into())),
            (r#"{"event":"media","sequenceNumber":"3"}"#, MediaError::Unusable("media")),
            (number, MediaError::Unusable("sequenceNumber")),
            (track, MediaError::OtherTrack),
            (r#"{"event":"media","streamSid":"MZ2","media":{"payload":""}}"#, MediaError::OtherStream),
            (&media(5, "no base64!"), MediaError::Unusable("payload")),
            (&dtmf(6, "12"), MediaError::Unusable("digit")),
            (START, MediaError::StartedTwice),
        ] {
            assert_eq!(socket.hear(bad), Err(error), "{}", &bad[..bad.len().min(80)]);
            assert!(socket.audio.is_empty());
        }
        assert_eq!(socket.hear(&media(7, "AA==")), Ok(MediaEvent::Audio));
    }

    #[test]
    fn too_much_at_once_is_refused() {
        let mut socket = Socket::started();
        let huge = media(2, &"A".repeat(10_000_000));
        assert_eq!(socket.hear(&huge), Err(MediaError::TooLarge { bytes: huge.len() }));
        let long = media(2, &"A".repeat(MAX_AUDIO_BYTES / 3 * 4 + 8));
        assert_eq!(socket.hear(&long), Err(MediaError::TooLarge { bytes: long.len() }));
        assert_eq!(socket.hear(&media(3, &"A".repeat(MAX_AUDIO_BYTES / 4 * 4))), Ok(MediaEvent::Audio));
    }

    #[test]
    fn nothing_is_heard_before_the_start_or_in_another_format() {
        let mut socket = Socket::default();
        assert_eq!(socket.hear(&media(2, "AA==")), Err(MediaError::BeforeStart));
        assert_eq!(socket.hear(&START.replace("8000", "16000")), Err(MediaError::UnsupportedFormat));
        assert_eq!(socket.hear(&START.replacen("MZ1", "MZ2", 1)), Err(MediaError::OtherStream));
        assert!(matches!(socket.hear(START), Ok(MediaEvent::Started(_))));
    }

    #[test]
    fn what_is_written_has_the_documented_form() {
        let writer = MediaWriter::new("MZ1");
        let mut out = String::new();
        writer.media(&[0xff, 0xff, 0x00], &mut out);
        assert_eq!(out, r#"{"event":"media","streamSid":"MZ1","media":{"payload":"//8A"}}"#);
        writer.mark("a\"b", &mut out);
        assert_eq!(out, r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"a\"b"}}"#);
        writer.clear(&mut out);
        assert_eq!(out, r#"{"event":"clear","streamSid":"MZ1"}"#);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(texts in proptest::collection::vec("\\PC{0,200}", 0..8)) {
            let mut socket = Socket::started();
            for text in texts {
                let _ = socket.hear(&text);
            }
        }

        #[test]
        fn no_message_makes_it_panic(messages in proptest::collection::vec(
            ("connected|start|media|mark|dtmf|stop|x", "[0-9]{0,21}", "\\PC{0,20}", "[A-Za-z0-9+/=]{0,40}"), 0..20,
        )) {
            let mut socket = Socket::started();
            for (event, sequence, name, payload) in messages {
                let message = serde_json::json!({
                    "event": event, "sequenceNumber": sequence, "streamSid": "MZ1",
                    "media": {"payload": payload}, "mark": {"name": name}, "dtmf": {"digit": name},
                });
                let heard = socket.hear(&message.to_string());
                prop_assert!(socket.audio.is_empty() || heard == Ok(MediaEvent::Audio));
            }
        }

        #[test]
        fn audio_comes_back_as_it_was_sent(audio in proptest::collection::vec(any::<u8>(), 0..1_000)) {
            let mut out = String::new();
            MediaWriter::new("MZ1").media(&audio, &mut out);
            let mut socket = Socket::started();
            prop_assert_eq!(socket.hear(&out), Ok(MediaEvent::Audio));
            prop_assert_eq!(socket.audio, audio);
        }
    }

    #[derive(Default)]
    struct Socket {
        reader: MediaReader,
        audio: Vec<u8>,
    }

    impl Socket {
        fn started() -> Self {
            let mut socket = Socket::default();
            socket.hear(START).unwrap();
            socket
        }

        fn hear(&mut self, text: &str) -> Result<MediaEvent, MediaError> {
            self.reader.decode(text, &mut self.audio)
        }
    }

    fn media(sequence: u64, payload: &str) -> String {
        format!(
            r#"{{"event":"media","sequenceNumber":"{sequence}","streamSid":"MZ1","media":{{"track":"inbound","chunk":"1","timestamp":"25","payload":"{payload}"}}}}"#
        )
    }

    fn dtmf(sequence: u64, digit: &str) -> String {
        format!(
            r#"{{"event":"dtmf","sequenceNumber":"{sequence}","streamSid":"MZ1","dtmf":{{"track":"inbound_track","digit":"{digit}"}}}}"#
        )
    }
}
