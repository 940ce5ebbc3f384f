//! Streamed answers of language models: the reader of events, cut in two ways, and what is made of their data.

#![no_main]

use libfuzzer_sys::fuzz_target;
use offhook_providers::bench;
use offhook_providers::sse::SseReader;

fuzz_target!(|input: (&[u8], usize)| {
    let (stream, step) = input;
    let whole = read(stream, stream.len());
    assert_eq!(whole, read(stream, step % 64 + 1), "events depend on how the bytes are cut");
    let mut chat = bench::openai_chat();
    let (Ok(events) | Err(events)) = &whole;
    for data in events {
        chat(data);
    }
});

/// The events, as far as the stream can be read.
fn read(stream: &[u8], step: usize) -> Result<Vec<String>, Vec<String>> {
    let mut reader = SseReader::default();
    let mut events = Vec::new();
    for piece in stream.chunks(step.max(1)) {
        if reader.push(piece, |data| events.push(data.to_owned())).is_err() {
            return Err(events);
        }
    }
    Ok(events)
}
