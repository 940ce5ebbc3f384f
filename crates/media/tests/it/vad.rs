//! Voice activity on made-up speech and noise.

use crate::fixtures::{Noise, louder, mixed, silence, voice};
use offhook_media::FRAME_SAMPLES;
use offhook_media::vad::{Settings, Vad, VadEvent};

/// What was found and at the end of which 20 ms frame it was known, milliseconds.
pub fn found(pcm: &[i16]) -> Vec<(u64, VadEvent)> {
    let (mut vad, mut out, mut known) = (Vad::default(), vec![], vec![]);
    for (index, frame) in pcm.chunks(FRAME_SAMPLES).enumerate() {
        vad.push(frame, &mut out);
        known.extend(out.drain(..).map(|event| ((index as u64 + 1) * 20, event)));
    }
    known
}

pub fn starts(found: &[(u64, VadEvent)]) -> Vec<u64> {
    let is_start = |event: &VadEvent| matches!(event, VadEvent::SpeechStarted { .. });
    found.iter().filter(|(_, event)| is_start(event)).map(|(known_ms, _)| *known_ms).collect()
}

#[test]
fn speech_from_digital_silence_is_known_within_four_frames() {
    let mut quick = 0;
    for (seed, pitch_hz) in (1..=40).zip([95.0, 120.0, 150.0, 190.0, 220.0].into_iter().cycle()) {
        let speech = voice(seed, pitch_hz, -20.0, 1_500);
        let events = found(&[silence(1_000), speech, silence(500)].concat());
        let (known_ms, first) = events[0];
        let VadEvent::SpeechStarted { at_ms } = first else { panic!("{first:?} before any speech") };
        assert!(at_ms.abs_diff(1_000) <= 60, "voice {seed}: speech from {at_ms} ms");
        assert!(known_ms <= 1_000 + 300, "voice {seed}: known at {known_ms} ms");
        quick += u32::from(known_ms <= 1_080);
    }
    println!("synthetic voices known within 80 ms: {quick} of 40");
    assert!(quick >= 36, "only {quick} of 40 voices were known within 80 ms");
}

#[test]
fn the_end_of_speech_is_known_after_the_hang_time() {
    let speech = voice(3, 130.0, -20.0, 1_500);
    let last =
        speech.chunks(80).rposition(|block| offhook_media::level::rms_dbfs(block) > -50.0).expect("sound");
    let end_ms = 1_000 + (last as u64 + 1) * 10;
    let events = found(&[silence(1_000), speech, silence(500)].concat());
    let (known_ms, last) = *events.last().expect("an end");
    let VadEvent::SpeechStopped { at_ms } = last else { panic!("still speaking") };
    assert!(at_ms.abs_diff(end_ms) <= 20, "ended at {at_ms} instead of {end_ms} ms");
    assert!((60..=90).contains(&(known_ms - at_ms)), "known {} ms later", known_ms - at_ms);
}

#[test]
fn starts_and_stops_alternate_and_times_rise() {
    let pcm: Vec<i16> =
        (1..6).flat_map(|seed| [voice(seed, 140.0, -22.0, 700), silence(250)].concat()).collect();
    let events = found(&pcm);
    let mut before_ms = 0;
    for (index, (_, event)) in events.iter().enumerate() {
        let (VadEvent::SpeechStarted { at_ms } | VadEvent::SpeechStopped { at_ms }) = *event;
        assert_eq!(matches!(event, VadEvent::SpeechStarted { .. }), index % 2 == 0, "{events:?}");
        assert!(at_ms >= before_ms, "{events:?}");
        before_ms = at_ms;
    }
    assert!(events.len() >= 10, "{events:?}");
}

#[test]
fn frame_lengths_do_not_matter() {
    let pcm = [silence(200), voice(9, 160.0, -20.0, 900), silence(300)].concat();
    let whole: Vec<VadEvent> = found(&pcm).into_iter().map(|(_, event)| event).collect();
    assert!(!whole.is_empty());
    for length in [1, 13, 80, 240, 1_000, pcm.len()] {
        let (mut vad, mut out) = (Vad::default(), vec![]);
        pcm.chunks(length).for_each(|frame| vad.push(frame, &mut out));
        assert_eq!(out, whole, "frames of {length} samples");
    }
}

#[test]
fn silence_clicks_and_line_noise_are_not_speech() {
    let mut noise = Noise::new(5);
    for dbfs in [-25.0, -35.0, -45.0, -60.0, -70.0] {
        assert_eq!(starts(&found(&noise.pcm(dbfs, 8_000))), [0; 0], "white noise at {dbfs} dBFS");
    }
    let mut clicks = silence(4_000);
    for at in (0..clicks.len() - 240).step_by(2_000) {
        clicks[at..at + 240].copy_from_slice(&noise.pcm(-15.0, 30));
    }
    assert_eq!(starts(&found(&clicks)), [0; 0], "clicks of 30 ms");
    assert_eq!(found(&silence(60_000)), []);
}

#[test]
fn speech_is_found_in_noise_once_the_noise_is_known() {
    let mut noise = Noise::new(6);
    for (speech_dbfs, noise_dbfs) in [(-20.0, -40.0), (-25.0, -40.0), (-15.0, -30.0)] {
        let line = noise.pcm(noise_dbfs, 5_000);
        let speech = [silence(3_000), voice(4, 170.0, speech_dbfs, 1_500), silence(500)].concat();
        let events = found(&mixed(&line, &speech));
        let known = starts(&events);
        assert!(!known.is_empty(), "nothing at {speech_dbfs} in {noise_dbfs}");
        assert!((3_000..=3_250).contains(&known[0]), "{known:?} at {speech_dbfs} in {noise_dbfs}");
        assert!(matches!(events.last(), Some((4_400..=4_700, VadEvent::SpeechStopped { .. }))), "{events:?}");
    }
}

#[test]
fn the_noise_floor_follows_the_line() {
    let (mut vad, mut out) = (Vad::default(), vec![]);
    vad.push(&Noise::new(1).pcm(-45.0, 3_000), &mut out);
    assert!((vad.noise_dbfs() + 45.0).abs() < 2.0, "{}", vad.noise_dbfs());
    vad.push(&silence(1_000), &mut out);
    assert!(vad.noise_dbfs() < -70.0, "{}", vad.noise_dbfs());
}

#[test]
fn settings_are_kept() {
    let pcm = [silence(400), voice(2, 150.0, -20.0, 1_500), silence(1_000)].concat();
    let known = |settings| {
        let (mut vad, mut out) = (Vad::new(settings), vec![]);
        let mut frames = pcm.chunks(FRAME_SAMPLES);
        let started = frames.position(|frame| {
            vad.push(frame, &mut out);
            vad.is_speaking()
        });
        (started.map(|frame| frame * 20), out)
    };
    let (quick_ms, _) = known(Settings::default());
    let (slow_ms, _) = known(Settings { onset_ms: 300, ..Settings::default() });
    assert!(quick_ms.expect("speech") + 150 <= slow_ms.expect("speech"), "{quick_ms:?} {slow_ms:?}");
    let deaf = Settings { least_dbfs: -5.0, ..Settings::default() };
    assert_eq!(known(deaf).0, None);
}

#[test]
fn a_talker_who_turns_quiet_is_still_heard() {
    for seed in 1..6 {
        let loud = voice(seed, 150.0, -20.0, 2_000);
        let quiet = louder(&voice(seed + 50, 150.0, -20.0, 8_000), -18.0);
        let events = found(&[loud, silence(1_000), quiet, silence(300)].concat());
        let later = starts(&events).into_iter().filter(|known_ms| *known_ms > 3_000).count();
        assert!(later > 0, "voice {seed}: {events:?}");
    }
}
