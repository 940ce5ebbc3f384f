//! What one message of a provider costs to read: `cargo bench -p offhook-providers`.

use divan::Bencher;
use divan::counter::BytesCount;
use offhook_providers::bench;
use offhook_providers::sse::SseReader;

fn main() {
    divan::main();
}

const TOKEN: &str = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1763715600,"model":"gpt-4.1-mini","service_tier":"default","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"content":" table"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"kq3Vt9"}"#;

const RESULTS: &str = r#"{"type":"Results","channel_index":[0,1],"duration":1.65,"start":12.0,"is_final":false,"speech_final":false,"from_finalize":false,"channel":{"alternatives":[{"transcript":"table for two","confidence":0.98,"words":[{"word":"table","start":12.1,"end":12.4,"confidence":0.99,"punctuated_word":"table"},{"word":"for","start":12.4,"end":12.6,"confidence":0.99,"punctuated_word":"for"},{"word":"two","start":12.6,"end":12.9,"confidence":0.99,"punctuated_word":"two"}]}]},"metadata":{"request_id":"b9f6","model_info":{"name":"general-nova-3","version":"2025-01","arch":"nova-3"},"model_uuid":"c0d1"}}"#;

const TURN: &str = r#"{"type":"TurnInfo","event":"Update","turn_index":3,"transcript":"do you open on sunday","words":[{"word":"do","confidence":0.9},{"word":"you","confidence":0.9}],"end_of_turn_confidence":0.2,"audio_window_start":12.0,"audio_window_end":13.5,"request_id":"b9f6","sequence_id":41}"#;

/// 100 ms of µ-law audio as base64.
fn coded() -> String {
    "/3+A".repeat(800 / 3)
}

#[divan::bench]
fn openai_token(bencher: Bencher) {
    let mut read = bench::openai_chat();
    // The reply's limit must not be what is measured: a new reply begins before it.
    let mut left = 0u32;
    bencher.counter(BytesCount::of_str(TOKEN)).bench_local(|| {
        left = left.checked_sub(1).unwrap_or_else(|| {
            read = bench::openai_chat();
            10_000
        });
        read(divan::black_box(TOKEN))
    });
}

#[divan::bench]
fn sse_event(bencher: Bencher) {
    let event = format!("data: {TOKEN}\n\n");
    let mut reader = SseReader::default();
    bencher.counter(BytesCount::of_str(&event)).bench_local(|| {
        let mut bytes = 0;
        reader.push(divan::black_box(event.as_bytes()), |data| bytes += data.len()).map(|()| bytes)
    });
}

#[divan::bench]
fn deepgram_results(bencher: Bencher) {
    let mut read = bench::deepgram_listen();
    bencher.counter(BytesCount::of_str(RESULTS)).bench_local(|| read(divan::black_box(RESULTS)));
}

#[divan::bench]
fn deepgram_turn(bencher: Bencher) {
    let mut read = bench::deepgram_flux();
    bencher.counter(BytesCount::of_str(TURN)).bench_local(|| read(divan::black_box(TURN)));
}

#[divan::bench]
fn cartesia_chunk(bencher: Bencher) {
    let frame = format!(
        r#"{{"type":"chunk","context_id":"1-0","data":"{}","done":false,"status_code":206,"step_time":12.3}}"#,
        coded()
    );
    speech(bencher, &frame, bench::cartesia);
}

#[divan::bench]
fn elevenlabs_chunk(bencher: Bencher) {
    let frame = format!(
        r#"{{"contextId":"1-0","audio":"{}","isFinal":null,"alignment":{{"chars":["S","u","r","e",","," "],"charStartTimesMs":[0,20,40,60,80,90],"charDurationsMs":[20,20,20,20,10,10]}},"normalizedAlignment":null}}"#,
        coded()
    );
    speech(bencher, &frame, bench::elevenlabs);
}

/// Reads one message with audio again and again, by a new voice before the limit of a reply is reached.
fn speech<R: FnMut(&str) -> usize>(bencher: Bencher, frame: &str, voice: fn() -> R) {
    let mut read = voice();
    let mut left = 5_000u32;
    bencher.counter(BytesCount::of_str(frame)).bench_local(|| {
        left = left.checked_sub(1).unwrap_or_else(|| {
            read = voice();
            5_000
        });
        read(divan::black_box(frame))
    });
}
