//! What 20 ms of one call's audio cost, part by part.

#[path = "../tests/it/fixtures.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod fixtures;

use divan::{Bencher, black_box};
use fixtures::{Echo, Noise, silence, voice};
use offhook_media::FRAME_SAMPLES;
use offhook_media::echo::EchoGate;
use offhook_media::g711::Law;
use offhook_media::resample::Resampler;
use offhook_media::vad::Vad;
use offhook_media::wav::Wav;
use offhook_media::{dtmf, level};

fn main() {
    divan::main();
}

/// A frame of something like a vowel.
fn frame(rate_hz: u32) -> Vec<i16> {
    let samples = rate_hz as usize / 50;
    let wave = |index: usize, hz: f32| (index as f32 * hz * std::f32::consts::TAU / rate_hz as f32).sin();
    (0..samples)
        .map(|i| (4_000.0 * wave(i, 150.0) + 3_000.0 * wave(i, 450.0) + 1_000.0 * wave(i, 1_950.0)) as i16)
        .collect()
}

#[divan::bench(args = [Law::Mu, Law::A])]
fn g711_decode(bencher: Bencher, law: Law) {
    let coded: Vec<u8> = (0..FRAME_SAMPLES).map(|index| index as u8).collect();
    let mut pcm = Vec::with_capacity(FRAME_SAMPLES);
    bencher.bench_local(|| {
        pcm.clear();
        law.decode(black_box(&coded), &mut pcm);
    });
}

#[divan::bench(args = [Law::Mu, Law::A])]
fn g711_encode(bencher: Bencher, law: Law) {
    let pcm = frame(8_000);
    let mut coded = Vec::with_capacity(FRAME_SAMPLES);
    bencher.bench_local(|| {
        coded.clear();
        law.encode(black_box(&pcm), &mut coded);
    });
}

#[divan::bench(args = [(8_000, 16_000), (8_000, 48_000), (16_000, 8_000), (24_000, 8_000), (48_000, 8_000), (44_100, 8_000)])]
fn resample(bencher: Bencher, (from_hz, to_hz): (u32, u32)) {
    let mut resampler = Resampler::new(from_hz, to_hz).expect("a supported pair");
    let (pcm, mut out) = (frame(from_hz), Vec::with_capacity(2_000));
    bencher.bench_local(|| {
        out.clear();
        resampler.push(black_box(&pcm), &mut out);
    });
}

#[divan::bench]
fn dtmf_detect(bencher: Bencher) {
    let (mut detector, pcm, mut out) = (dtmf::Detector::new(), frame(8_000), vec![]);
    bencher.bench_local(|| detector.push(black_box(&pcm), &mut out));
}

#[divan::bench]
fn dtmf_generate() -> Vec<i16> {
    dtmf::tones("5", dtmf::Keying { on_ms: 20, off_ms: 0 }).expect("a key")
}

#[divan::bench]
fn level_rms(bencher: Bencher) {
    let pcm = frame(8_000);
    bencher.bench_local(|| level::rms_dbfs(black_box(&pcm)));
}

#[divan::bench]
fn wav_write(bencher: Bencher) {
    let wav = Wav::mono(8_000, frame(8_000));
    bencher.bench_local(|| black_box(&wav).to_bytes());
}

#[divan::bench]
fn wav_read(bencher: Bencher) {
    let bytes = Wav::mono(8_000, frame(8_000)).to_bytes();
    bencher.bench_local(|| Wav::parse(black_box(&bytes)));
}

/// Frame after frame of some seconds of sound, from the start again at their end.
fn frames<'a>(pcm: &'a [i16]) -> impl FnMut() -> &'a [i16] {
    let mut frames = pcm.chunks_exact(FRAME_SAMPLES).cycle();
    move || frames.next().expect("a frame")
}

fn vad_on(bencher: Bencher, pcm: &[i16]) {
    let (mut vad, mut events, mut next) = (Vad::default(), Vec::with_capacity(16), frames(pcm));
    bencher.bench_local(|| {
        events.clear();
        vad.push(black_box(next()), &mut events);
    });
}

#[divan::bench(sample_count = 2_000)]
fn vad_digital_silence(bencher: Bencher) {
    vad_on(bencher, &silence(1_000));
}

#[divan::bench(sample_count = 2_000)]
fn vad_line_noise(bencher: Bencher) {
    vad_on(bencher, &Noise::new(1).pcm(-60.0, 10_000));
}

#[divan::bench(sample_count = 2_000)]
fn vad_speech(bencher: Bencher) {
    vad_on(bencher, &voice(1, 150.0, -20.0, 10_000));
}

/// A gate whose agent has played for five seconds over a line with or without an echo, and what plays and is heard then.
fn gate(caller: &[i16]) -> (EchoGate, Vec<i16>) {
    let played = voice(2, 190.0, -18.0, 5_000);
    let mut gate = EchoGate::new();
    for (played, heard) in played.chunks(FRAME_SAMPLES).zip(caller.chunks(FRAME_SAMPLES)) {
        gate.played(played);
        gate.heard(heard);
        gate.source();
    }
    (gate, played)
}

#[divan::bench(sample_count = 500)]
fn echo_follow_both_sides(bencher: Bencher) {
    let (mut gate, played) = gate(&silence(5_000));
    let mut next = frames(&played);
    bencher.bench_local(|| {
        let frame = black_box(next());
        gate.played(frame);
        gate.heard(frame);
    });
}

#[divan::bench(sample_count = 500)]
fn echo_source_of_known_echo(bencher: Bencher) {
    let heard = Echo { delay_ms: 200, loss_db: 15.0, room: false }.of(&voice(2, 190.0, -18.0, 5_000));
    let (mut gate, _) = gate(&heard);
    bencher.bench_local(|| gate.source());
}

#[divan::bench(sample_count = 500)]
fn echo_source_of_caller(bencher: Bencher) {
    let (mut gate, _) = gate(&voice(3, 130.0, -20.0, 5_000));
    bencher.bench_local(|| gate.source());
}
