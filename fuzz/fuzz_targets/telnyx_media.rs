//! Media messages, one a line, to readers whose stream has started in each coding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offhook_carriers::MediaEvent;
use offhook_carriers::telnyx::ByteOrder;
use offhook_carriers::telnyx::media::{MAX_AUDIO_BYTES, MAX_WAITING, MediaReader, MediaWriter};
use offhook_media::coding::Coding;

/// What one message can set free: itself, and everything that waited for it.
const MAX_FREED_BYTES: usize = MAX_AUDIO_BYTES * (MAX_WAITING + 1);

fn started(encoding: &str, rate_hz: u32, order: Option<ByteOrder>) -> MediaReader {
    let start = format!(
        r#"{{"event":"start","stream_id":"s","start":{{"call_control_id":"c","media_format":{{"encoding":"{encoding}","sample_rate":{rate_hz},"channels":1}}}}}}"#
    );
    let mut reader = order.map_or_else(MediaReader::new, MediaReader::knowing);
    reader.decode(&start, &mut Vec::new()).expect("the stream starts");
    reader
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut audio = Vec::new();
    let mut fresh = MediaReader::new();
    let mut readers = [started("PCMU", 8_000, None), started("L16", 16_000, None)];
    for line in text.lines() {
        let _ = fresh.decode(line, &mut audio);
        for reader in &mut readers {
            let event = reader.decode(line, &mut audio);
            assert!(audio.len() <= MAX_FREED_BYTES);
            assert!(audio.is_empty() || event == Ok(MediaEvent::Audio));
        }
    }

    let mut message = String::new();
    let sent = &data[..data.len().min(MAX_AUDIO_BYTES) / 2 * 2];
    for (encoding, coding, rate_hz) in [("PCMA", Coding::A_LAW, 8_000), ("L16", Coding::WIDE, 16_000)] {
        for order in [ByteOrder::Little, ByteOrder::Big] {
            MediaWriter::new(coding, order).media(sent, &mut message);
            let mut reader = started(encoding, rate_hz, Some(order));
            assert_eq!(reader.decode(&message, &mut audio), Ok(MediaEvent::Audio));
            assert!(audio.starts_with(sent), "what is short is filled up, and nothing else is changed");
        }
    }
});
