//! Media messages, one a line, to one reader whose stream has started.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offhook_carriers::MediaEvent;
use offhook_carriers::twilio::media::{MAX_AUDIO_BYTES, MediaReader, MediaWriter};

const START: &str = r#"{"event":"start","sequenceNumber":"1","streamSid":"MZ1","start":{"accountSid":"AC1","streamSid":"MZ1","callSid":"CA1","tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},"customParameters":{}}}"#;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut audio = Vec::new();
    let mut fresh = MediaReader::new();
    let mut started = MediaReader::new();
    started.decode(START, &mut audio).expect("the stream starts");
    for line in text.lines() {
        let _ = fresh.decode(line, &mut audio);
        let event = started.decode(line, &mut audio);
        assert!(audio.len() <= MAX_AUDIO_BYTES);
        assert!(audio.is_empty() || event == Ok(MediaEvent::Audio));
    }

    let mut message = String::new();
    let writer = MediaWriter::new("MZ1");
    let sent = &data[..data.len().min(MAX_AUDIO_BYTES)];
    writer.media(sent, &mut message);
    let mut reader = MediaReader::new();
    reader.decode(START, &mut audio).expect("the stream starts");
    assert_eq!(reader.decode(&message, &mut audio), Ok(MediaEvent::Audio));
    assert_eq!(audio, sent);
});
