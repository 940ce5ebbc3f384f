//! What one media message costs, 20 ms of audio each way: 1,000 calls have 50,000 of each a second.

use divan::{AllocProfiler, Bencher, black_box};
use offhook_carriers::twilio::media::{MediaReader, MediaWriter};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const STREAM: &str = "MZ00000000000000000000000000000001";
const FRAME_BYTES: usize = 160;
const START: &str = r#"{"event":"start","sequenceNumber":"1","streamSid":"MZ00000000000000000000000000000001","start":{
    "accountSid":"AC00000000000000000000000000000001","streamSid":"MZ00000000000000000000000000000001",
    "callSid":"CA00000000000000000000000000000001","tracks":["inbound"],
    "mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},"customParameters":{}}}"#;

fn main() {
    divan::main();
}

#[divan::bench(sample_size = 256)]
fn decode(bencher: Bencher) {
    let mut reader = MediaReader::new();
    let mut audio = Vec::with_capacity(FRAME_BYTES * 2);
    reader.decode(START, &mut audio).expect("the stream starts");
    let mut sequence = 1;
    bencher
        .with_inputs(|| {
            sequence += 1;
            incoming(sequence)
        })
        .bench_local_refs(|message| {
            reader.decode(black_box(message), &mut audio).expect("the audio is heard")
        });
}

#[divan::bench]
fn encode(bencher: Bencher) {
    let writer = MediaWriter::new(STREAM);
    let mut out = String::with_capacity(1024);
    let frame = frame();
    bencher.bench_local(|| {
        writer.media(black_box(&frame), &mut out);
        out.len()
    });
}

fn incoming(sequence: u64) -> String {
    let mut message = String::new();
    MediaWriter::new(STREAM).media(&frame(), &mut message);
    let timestamp_ms = sequence * 20;
    message
        .replacen(r#","streamSid""#, &format!(r#","sequenceNumber":"{sequence}","streamSid""#), 1)
        .replacen(
            r#""media":{"#,
            &format!(r#""media":{{"track":"inbound","chunk":"{sequence}","timestamp":"{timestamp_ms}","#),
            1,
        )
}

fn frame() -> [u8; FRAME_BYTES] {
    std::array::from_fn(|i| (i * 37 % 256) as u8)
}
