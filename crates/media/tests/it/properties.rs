//! Arbitrary bytes, samples and lengths: nothing panics, and what must be kept is kept.

use offhook_media::dtmf::{Detector, Keying, tones};
use offhook_media::echo::EchoGate;
use offhook_media::g711::Law;
use offhook_media::level;
use offhook_media::resample::Resampler;
use offhook_media::vad::{Vad, VadEvent};
use offhook_media::wav::Wav;
use proptest::collection::vec;
use proptest::prelude::*;

/// Frames of samples: random, or constant extremes that overflow careless sums.
fn frames() -> impl Strategy<Value = Vec<Vec<i16>>> {
    let extreme = prop_oneof![Just(i16::MIN), Just(i16::MAX), Just(-1), Just(0)];
    let constant = (extreme, 0..2_000usize).prop_map(|(sample, length)| vec![sample; length]);
    vec(prop_oneof![vec(any::<i16>(), 0..400), constant], 0..12)
}

proptest! {
    #[test]
    fn any_bytes_are_g711(bytes: Vec<u8>) {
        for law in [Law::Mu, Law::A] {
            let (mut pcm, mut coded, mut again) = (vec![], vec![], vec![]);
            law.decode(&bytes, &mut pcm);
            law.encode(&pcm, &mut coded);
            law.decode(&coded, &mut again);
            prop_assert_eq!(&pcm, &again);
        }
    }

    #[test]
    fn any_bytes_are_a_wav_file_or_an_error(bytes: Vec<u8>) {
        let _ = Wav::parse(&bytes);
    }

    #[test]
    fn any_damaged_wav_file_is_read_or_an_error(pcm in vec(any::<i16>(), 0..64), at in 0..108usize, byte: u8, cut in 0..172usize) {
        let mut bytes = Wav::mono(8_000, pcm).to_bytes();
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(cut.min(length));
        if let Ok(wav) = Wav::parse(&bytes) {
            prop_assert!(wav.samples.len() <= bytes.len());
            let _ = wav.duration_ms();
            let _ = wav.into_mono();
        }
    }

    #[test]
    fn any_samples_survive_a_wav_file(samples: Vec<i16>, rate_hz in 1_000..384_000u32) {
        let wav = Wav::mono(rate_hz, samples);
        prop_assert_eq!(Wav::parse(&wav.to_bytes()), Ok(wav));
    }

    #[test]
    fn any_rates_and_lengths_resample(from_hz in 0..100_000u32, to_hz in 0..100_000u32, frames in frames()) {
        if let Ok(mut resampler) = Resampler::new(from_hz, to_hz) {
            let mut out = vec![];
            frames.iter().for_each(|frame| resampler.push(frame, &mut out));
            resampler.flush(&mut out);
        }
    }

    #[test]
    fn usual_rates_keep_the_length(from in 0..6usize, to in 0..6usize, frames in frames()) {
        const RATES_HZ: [u32; 6] = [8_000, 16_000, 22_050, 24_000, 44_100, 48_000];
        let (from_hz, to_hz) = (RATES_HZ[from], RATES_HZ[to]);
        let (mut resampler, mut out, mut pushed) = (Resampler::new(from_hz, to_hz).unwrap(), vec![], 0u64);
        for frame in &frames {
            pushed += frame.len() as u64;
            resampler.push(frame, &mut out);
            prop_assert_eq!(out.len() as u64, (pushed * u64::from(to_hz)).div_ceil(u64::from(from_hz)));
        }
    }

    #[test]
    fn any_audio_gives_alternating_voice_events(frames in frames()) {
        let (mut vad, mut out) = (Vad::default(), vec![]);
        frames.iter().for_each(|frame| vad.push(frame, &mut out));
        let mut is_speaking = false;
        for event in &out {
            prop_assert_eq!(matches!(event, VadEvent::SpeechStarted { .. }), !is_speaking);
            is_speaking = !is_speaking;
        }
        prop_assert_eq!(vad.is_speaking(), is_speaking);
    }

    #[test]
    fn any_audio_is_searched_for_touch_tones(frames in frames()) {
        let (mut detector, mut out) = (Detector::new(), vec![]);
        frames.iter().for_each(|frame| detector.push(frame, &mut out));
    }

    #[test]
    fn any_text_is_keys_or_an_error(text in ".{0,12}", on_ms in 0..300u32, off_ms in 0..300u32) {
        let pcm = tones(&text, Keying { on_ms, off_ms });
        prop_assert_eq!(pcm.is_ok(), text.chars().all(|key| "0123456789ABCDabcd*#".contains(key)));
    }

    #[test]
    fn any_audio_has_a_level_and_spans(pcm: Vec<i16>, rate_hz: u32) {
        prop_assert!((level::SILENCE_DBFS..=0.01).contains(&level::rms_dbfs(&pcm)));
        let spans = level::voiced_spans(&pcm, rate_hz, level::Voiced::default());
        prop_assert!(spans.windows(2).all(|pair| pair[0].end_ms < pair[1].start_ms));
    }
}

proptest! {
    // Each case searches all delays many times.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_audio_passes_the_echo_gate(played in frames(), heard in frames(), ahead: bool) {
        let mut gate = EchoGate::new();
        if ahead {
            played.iter().for_each(|frame| gate.played(frame));
        }
        for (index, frame) in heard.iter().enumerate() {
            if let Some(played) = played.get(index).filter(|_| !ahead) {
                gate.played(played);
            }
            gate.heard(frame);
            gate.source();
        }
    }
}
