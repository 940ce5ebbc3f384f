//! What Telnyx's media sockets say, and what is said to them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use offhook_carriers::MediaEvent;
use offhook_carriers::telnyx::ByteOrder;
use offhook_carriers::telnyx::media::{
    CLIENT_STATE, MAX_AUDIO_BYTES, MAX_LATE, MAX_MESSAGE_BYTES, MAX_WAITING, MediaError, MediaReader,
    MediaWriter,
};
use offhook_core::Pii;
use offhook_media::coding::Coding;
use proptest::prelude::*;
use serde_json::json;

const CONNECTED: &str = r#"{"event":"connected","version":"1.0.0"}"#;
const STOP: &str = r#"{"event":"stop","sequence_number":"512","stream_id":"32de0dea","stop":{"user_id":"3e6f995f","call_control_id":"v3:x"}}"#;

#[test]
fn a_stream_tells_its_call_then_its_audio_then_its_end() {
    let mut socket = Socket::default();
    assert_eq!(socket.hear(CONNECTED), Ok(MediaEvent::Connected));
    let Ok(MediaEvent::Started(started)) = socket.hear(&start("L16", 16_000)) else { panic!("not started") };
    assert_eq!(
        (&*started.carrier_call, &*started.account, &*started.stream),
        ("v3:x", "3e6f995f", "32de0dea")
    );
    assert_eq!(started.coding, Coding::WIDE);
    assert_eq!(started.parameters[CLIENT_STATE].expose(), "cnv_1");
    assert_eq!(started.parameters["ticket"].expose(), "té");
    assert_eq!(socket.hear(&media(1, &[1, 0, 2, 0])), Ok(MediaEvent::Audio));
    assert_eq!(socket.audio, [1, 0, 2, 0]);
    let mark = r#"{"event":"mark","stream_id":"32de0dea","sequence_number":"5","mark":{"name":"u7.3"}}"#;
    assert_eq!(socket.hear(mark), Ok(MediaEvent::Mark("u7.3".into())));
    assert!(socket.audio.is_empty());
    assert_eq!(socket.hear(&dtmf("#")), Ok(MediaEvent::Dtmf(Pii::new('#'))));
    assert_eq!(socket.hear(STOP), Ok(MediaEvent::Stopped));
    assert_eq!(socket.hear(&media(2, &[0, 0])), Err(MediaError::AfterStop));
    assert_eq!((socket.reader.counters().events, socket.reader.counters().faults), (6, 1));
}

#[test]
fn what_comes_is_what_the_start_says_not_what_was_asked() {
    for (encoding, rate_hz, coding) in [
        ("PCMU", 8_000, Coding::MU_LAW),
        ("PCMA", 8_000, Coding::A_LAW),
        ("pcmu", 8_000, Coding::MU_LAW),
        ("L16", 16_000, Coding::WIDE),
        ("L16", 8_000, Coding::Linear { rate_hz: 8_000 }),
    ] {
        let mut socket = Socket::default();
        let Ok(MediaEvent::Started(started)) = socket.hear(&start(encoding, rate_hz)) else {
            panic!("{encoding}")
        };
        assert_eq!(started.coding, coding);
        assert_eq!(socket.hear(&media(1, &[0xff, 0x7f])), Ok(MediaEvent::Audio));
        assert_eq!(socket.audio.len(), 2);
    }
    for (encoding, rate_hz) in
        [("OPUS", 48_000), ("G722", 16_000), ("L16", 22_050), ("PCMU", 16_000), ("", 0)]
    {
        let mut socket = Socket::default();
        let error = socket.hear(&start(encoding, rate_hz)).unwrap_err();
        assert_eq!(error, MediaError::UnsupportedFormat { encoding: encoding.into(), rate_hz, channels: 1 });
        assert!(
            matches!(socket.hear(&start("PCMU", 8_000)), Ok(MediaEvent::Started(_))),
            "another start may come"
        );
    }
}

#[test]
fn overtaken_audio_is_put_back_in_its_place() {
    let mut socket = Socket::started("PCMU", 8_000);
    assert_eq!(socket.hears(&[1, 3, 2, 6, 5, 4, 7]), [1, 2, 3, 4, 5, 6, 7]);
    let counters = socket.reader.counters();
    assert_eq!((counters.reordered, counters.missing, counters.late), (2, 0, 0));
}

#[test]
fn a_stream_that_is_joined_late_or_begins_at_zero_loses_nothing() {
    assert_eq!(Socket::started("PCMU", 8_000).hears(&[0, 1, 2]), [0, 1, 2]);
    let mut socket = Socket::started("PCMU", 8_000);
    let last = 10 + MAX_WAITING as u64;
    let expected: Vec<_> = (10..=last).collect();
    assert_eq!(socket.hears(&(10..=last).collect::<Vec<_>>()), expected);
    assert_eq!(socket.reader.counters().missing, 0);
}

#[test]
fn audio_that_never_comes_is_not_waited_for_long() {
    let mut socket = Socket::started("PCMU", 8_000);
    let chunks: Vec<_> = [1].into_iter().chain(4..=(4 + MAX_WAITING as u64)).collect();
    assert_eq!(socket.hears(&chunks), chunks);
    assert_eq!(socket.reader.counters().missing, 2);
    assert_eq!(socket.hear(&media(2, &[2])), Err(MediaError::Late { chunk: 2, next: 10 }));
}

#[test]
fn audio_that_comes_twice_is_heard_once() {
    let mut socket = Socket::started("PCMU", 8_000);
    assert_eq!(socket.hears(&[1, 2]), [1, 2]);
    assert_eq!(socket.hear(&media(2, &[2])), Err(MediaError::Repeated { chunk: 2 }));
    assert!(socket.hears(&[4]).is_empty());
    assert_eq!(socket.hear(&media(4, &[4])), Err(MediaError::Repeated { chunk: 4 }));
    assert_eq!(socket.hears(&[3]), [3, 4]);
    assert_eq!(socket.reader.counters().repeated, 2);
}

#[test]
fn a_counting_that_begins_anew_does_not_silence_the_caller() {
    let mut socket = Socket::started("PCMU", 8_000);
    assert_eq!(socket.hears(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]).len(), 13);
    for chunk in 1..u64::from(MAX_LATE) {
        assert!(matches!(socket.hear(&media(chunk, &[0])), Err(MediaError::Late { .. })), "{chunk}");
    }
    assert_eq!(socket.hears(&[10, 11, 12, 13, 14]), [10, 11, 12, 13, 14]);
}

#[test]
fn audio_without_a_place_or_with_a_number_for_one_is_heard() {
    let mut socket = Socket::started("PCMU", 8_000);
    let plain = r#"{"event":"media","media":{"chunk":1,"payload":"AQ=="}}"#;
    assert_eq!(socket.hear(plain), Ok(MediaEvent::Audio));
    let bare = r#"{"event":"media","media":{"payload":"Ag"}}"#;
    assert_eq!(socket.hear(bare), Ok(MediaEvent::Audio));
    assert_eq!(socket.audio, [2]);
}

#[test]
fn the_byte_order_is_heard_and_the_same_is_sent() {
    let samples: Vec<i16> = (0..16_000).map(|n| ((n as f32 / 20.0).sin() * 4_000.0) as i16).collect();
    let mut expected = Vec::new();
    Coding::WIDE.encode(&samples, &mut expected);
    for (order, guess) in [
        (ByteOrder::Little, ByteOrder::Little),
        (ByteOrder::Little, ByteOrder::Big),
        (ByteOrder::Big, ByteOrder::Little),
        (ByteOrder::Big, ByteOrder::Big),
    ] {
        let mut socket = Socket { reader: MediaReader::guessing(guess), audio: vec![] };
        socket.hear(&start("L16", 16_000)).unwrap();
        let mut heard = Vec::new();
        for (chunk, frame) in expected.chunks(640).enumerate() {
            let mut wire = frame.to_vec();
            if order == ByteOrder::Big {
                wire.chunks_mut(2).for_each(|pair| pair.swap(0, 1));
            }
            socket.hear(&media(chunk as u64 + 1, &wire)).unwrap();
            heard.extend_from_slice(&socket.audio);
        }
        assert!(heard == expected, "{order:?} {guess:?}: the first frame is enough");
        assert_eq!((socket.reader.byte_order(), socket.reader.byte_order_is_settled()), (order, true));
    }
    assert!(MediaReader::knowing(ByteOrder::Big).byte_order_is_settled());
}

#[test]
fn a_bad_message_is_told_and_the_stream_goes_on() {
    let mut socket = Socket::started("L16", 16_000);
    let outbound = r#"{"event":"media","media":{"track":"outbound","chunk":"2","payload":"AAAA"}}"#;
    let number = r#"{"event":"media","media":{"chunk":"two","payload":"AAA="}}"#;
    let deep = "[".repeat(60_000);
    for (bad, error) in [
        ("", MediaError::Malformed { column: 0 }),
        ("{", MediaError::Malformed { column: 1 }),
        ("[]", MediaError::Malformed { column: 2 }),
        (&deep, MediaError::Malformed { column: 1 }),
        (r#"{"event":"warp"}"#, MediaError::UnknownEvent("warp".into())),
        (r#"{"event":"media"}"#, MediaError::Unusable("media")),
        (r#"{"event":"mark"}"#, MediaError::Unusable("mark")),
        (outbound, MediaError::OtherTrack),
        (number, MediaError::Unusable("chunk")),
        (r#"{"event":"media","stream_id":"other","media":{"payload":""}}"#, MediaError::OtherStream),
        (r#"{"event":"media","media":{"payload":"no base64!"}}"#, MediaError::Unusable("payload")),
        (&media(1, &[0, 0, 0]), MediaError::Unusable("payload")),
        (&dtmf("12"), MediaError::Unusable("digit")),
        (&start("L16", 16_000), MediaError::StartedTwice),
    ] {
        assert_eq!(socket.hear(bad), Err(error), "{}", &bad[..bad.len().min(80)]);
        assert!(socket.audio.is_empty());
    }
    assert_eq!(socket.hear(&media(1, &[1, 0])), Ok(MediaEvent::Audio));
}

#[test]
fn what_telnyx_could_not_use_is_told_at_any_time() {
    let frame = r#"{"event":"error","stream_id":"32de0dea","payload":{"code":100004,"title":"invalid_media","detail":"Media provided was not base64 encoded"}}"#;
    let refused = MediaError::Refused { code: 100_004, title: "invalid_media".into() };
    assert_eq!(Socket::default().hear(frame), Err(refused.clone()));
    let mut socket = Socket::started("PCMU", 8_000);
    assert_eq!(socket.hear(frame), Err(refused));
    let bare = MediaError::Refused { code: 0, title: String::new() };
    assert_eq!(socket.hear(r#"{"event":"error"}"#), Err(bare));
    assert_eq!(socket.hears(&[1]), [1]);
}

#[test]
fn too_much_at_once_is_refused() {
    let mut socket = Socket::started("PCMU", 8_000);
    let huge = " ".repeat(MAX_MESSAGE_BYTES + 1);
    assert_eq!(socket.hear(&huge), Err(MediaError::TooLarge { bytes: huge.len() }));
    let long = vec![0; MAX_AUDIO_BYTES + 1];
    assert_eq!(socket.hear(&media(1, &long)), Err(MediaError::TooLarge { bytes: long.len() }));
    assert_eq!(socket.hear(&media(1, &long[1..])), Ok(MediaEvent::Audio));
}

#[test]
fn nothing_is_heard_before_the_start() {
    let mut socket = Socket::default();
    assert_eq!(socket.hear(&media(1, &[0])), Err(MediaError::BeforeStart));
    assert_eq!(socket.hear(r#"{"event":"start"}"#), Err(MediaError::Unusable("start")));
}

#[test]
fn what_is_written_has_the_documented_form() {
    let mut out = String::new();
    let writer = MediaWriter::new(Coding::WIDE, ByteOrder::Little);
    writer.mark("a\"b", &mut out);
    assert_eq!(out, r#"{"event":"mark","mark":{"name":"a\"b"}}"#);
    writer.clear(&mut out);
    assert_eq!(out, r#"{"event":"clear"}"#);
    let frame: Vec<u8> = (0..640).map(|n| n as u8).collect();
    writer.media(&frame, &mut out);
    assert_eq!(out, format!(r#"{{"event":"media","media":{{"payload":"{}"}}}}"#, STANDARD.encode(&frame)));
}

#[test]
fn a_piece_that_is_too_short_for_telnyx_ends_in_silence() {
    let sent = |coding: Coding, audio: &[u8]| {
        let mut out = String::new();
        MediaWriter::new(coding, ByteOrder::Little).media(audio, &mut out);
        payload(&out)
    };
    let mulaw = sent(Coding::MU_LAW, &[1, 2]);
    assert_eq!((mulaw.len(), &mulaw[..3]), (160, &[1, 2, 0xff][..]));
    let wide = sent(Coding::WIDE, &[1, 2]);
    assert_eq!((wide.len(), &wide[..3]), (640, &[1, 2, 0][..]));
    assert_eq!(sent(Coding::A_LAW, &[7; 161]).len(), 161);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(texts in proptest::collection::vec("\\PC{0,200}", 0..8)) {
        let mut socket = Socket::started("L16", 16_000);
        for text in texts {
            let _ = socket.hear(&text);
        }
    }

    #[test]
    fn no_message_makes_it_panic(messages in proptest::collection::vec(
        ("connected|start|media|mark|dtmf|error|stop|x", "[0-9]{0,21}", "\\PC{0,20}", "[A-Za-z0-9+/=]{0,40}"), 0..20,
    )) {
        let mut socket = Socket::started("L16", 16_000);
        for (event, chunk, name, payload) in messages {
            let message = json!({
                "event": event, "media": {"payload": payload, "chunk": chunk}, "mark": {"name": name}, "dtmf": {"digit": name},
                "payload": {"code": chunk, "title": name},
            });
            let heard = socket.hear(&message.to_string());
            prop_assert!(socket.audio.is_empty() || heard == Ok(MediaEvent::Audio));
        }
    }

    #[test]
    fn whatever_order_audio_comes_in_it_is_heard_in_its_own(shifts in proptest::collection::vec(0u64..=2, 1..200)) {
        // Each piece is late by up to as many places as are waited for.
        let mut sent: Vec<_> = shifts.iter().enumerate().map(|(n, shift)| (n as u64 + shift, n as u64 + 1)).collect();
        sent.sort_by_key(|(at, _)| *at);
        let chunks: Vec<_> = sent.iter().map(|(_, chunk)| *chunk).collect();
        let mut socket = Socket::started("PCMU", 8_000);
        let heard = socket.hears(&chunks);
        prop_assert_eq!(heard, (1..=shifts.len() as u64).collect::<Vec<_>>());
    }

    #[test]
    fn of_any_chunks_each_is_heard_once_at_most_and_in_order(chunks in proptest::collection::vec(0u64..40, 0..9)) {
        let mut socket = Socket::started("PCMU", 8_000);
        let heard = socket.hears(&chunks);
        prop_assert!(heard.is_sorted_by(|a, b| a < b), "{heard:?}");
        prop_assert!(heard.iter().all(|chunk| chunks.contains(chunk)));
    }

    #[test]
    fn audio_comes_back_as_it_was_sent(
        samples in proptest::collection::vec(any::<i16>(), 320..1_000),
        big: bool,
    ) {
        let order = if big { ByteOrder::Big } else { ByteOrder::Little };
        let (mut audio, mut out) = (Vec::new(), String::new());
        Coding::WIDE.encode(&samples, &mut audio);
        let mut writer = MediaWriter::new(Coding::WIDE, ByteOrder::Little);
        writer.set_byte_order(order);
        writer.media(&audio, &mut out);
        let mut socket = Socket { reader: MediaReader::knowing(order), audio: vec![] };
        socket.hear(&start("L16", 16_000)).unwrap();
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
    fn started(encoding: &str, rate_hz: u32) -> Self {
        let mut socket = Socket::default();
        socket.hear(&start(encoding, rate_hz)).unwrap();
        socket
    }

    fn hear(&mut self, text: &str) -> Result<MediaEvent, MediaError> {
        self.reader.decode(text, &mut self.audio)
    }

    /// Which pieces of audio are heard, in order, when these come; each piece is one byte, its own place.
    fn hears(&mut self, chunks: &[u64]) -> Vec<u64> {
        let mut heard = Vec::new();
        for chunk in chunks {
            if self.hear(&media(*chunk, &[*chunk as u8])).is_ok() {
                heard.extend(self.audio.iter().map(|byte| u64::from(*byte)));
            }
        }
        heard
    }
}

fn start(encoding: &str, rate_hz: u32) -> String {
    json!({
        "event": "start", "sequence_number": "1", "stream_id": "32de0dea",
        "start": {
            "user_id": "3e6f995f", "call_control_id": "v3:x", "call_session_id": "ff55a038", "from": "+14155550100", "to": "+14155550101",
            "tags": [], "client_state": STANDARD.encode("cnv_1"), "custom_parameters": {"ticket": "té"},
            "media_format": {"encoding": encoding, "sample_rate": rate_hz, "channels": 1},
        },
    })
    .to_string()
}

fn media(chunk: u64, audio: &[u8]) -> String {
    json!({
        "event": "media", "sequence_number": "4", "stream_id": "32de0dea",
        "media": {"track": "inbound", "chunk": chunk.to_string(), "timestamp": "20", "payload": STANDARD.encode(audio)},
    })
    .to_string()
}

fn dtmf(digit: &str) -> String {
    json!({
        "event": "dtmf", "stream_id": "32de0dea", "occurred_at": "2025-11-21T09:00:07.698408Z", "sequence_number": "5", "dtmf": {"digit": digit},
    })
    .to_string()
}

fn payload(message: &str) -> Vec<u8> {
    let message: serde_json::Value = serde_json::from_str(message).unwrap();
    STANDARD.decode(message["media"]["payload"].as_str().unwrap()).unwrap()
}
