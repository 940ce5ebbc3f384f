//! Recorded human speech: the prompts of Debian's `asterisk-core-sounds-en-wav`.

use crate::fixtures::{Echo, from_first_sound, silence};
use crate::vad::{found, starts};
use offhook_media::dtmf;
use offhook_media::echo::{EchoGate, Source};
use offhook_media::level::{Voiced, rms_dbfs, voiced_spans};
use offhook_media::vad::{Vad, VadEvent};
use offhook_media::wav::Wav;
use std::path::{Path, PathBuf};

/// Where the package's releases put them.
const FOLDERS: [&str; 2] = ["/usr/share/asterisk/sounds/en_US_f_Allison", "/usr/share/asterisk/sounds/en"];

/// Prompts that are beeps, bells, monkeys or silence.
const NOT_SPEECH: [&str; 6] =
    ["beep", "tone", "silence", "tt-monkeys.", "confbridge-join.", "confbridge-leave."];

/// All prompts with their file names.
fn prompts() -> Vec<(String, Vec<i16>)> {
    let folder = FOLDERS.iter().map(Path::new).find(|folder| folder.is_dir());
    let folder = folder.expect("recorded prompts are missing: apt-get install asterisk-core-sounds-en-wav");
    let mut paths = vec![];
    collect(folder, &mut paths);
    assert!(!paths.is_empty(), "no recorded prompts in {}", folder.display());
    paths.sort();
    let read = |path: PathBuf| {
        let wav = Wav::parse(&std::fs::read(&path).expect("a readable prompt")).expect("a WAV prompt");
        assert_eq!((wav.rate_hz, wav.channels), (8_000, 1), "{}", path.display());
        (path.display().to_string(), wav.into_mono())
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|ending| ending == "wav") {
            paths.push(path);
        }
    }
}

fn speech() -> Vec<(String, Vec<i16>)> {
    let is_speech = |name: &str| !NOT_SPEECH.iter().any(|word| name.contains(word));
    prompts().into_iter().filter(|(name, _)| is_speech(name)).collect()
}

fn percentiles(values: &mut [u64]) -> String {
    values.sort_unstable();
    let at = |percent: usize| values[(values.len() - 1) * percent / 100];
    format!("p50 {} p90 {} p95 {} p99 {} max {}", at(50), at(90), at(95), at(99), at(100))
}

#[test]
fn every_recorded_prompt_is_heard_as_speech() {
    let prompts = speech();
    let (mut onset_ms, mut end_ms, mut missed, mut pieces, mut sounds) = (vec![], vec![], vec![], 0, 0);
    for (name, pcm) in &prompts {
        let pcm = [silence(1_000), from_first_sound(pcm).to_vec(), silence(1_000)].concat();
        let events = found(&pcm);
        let spans = voiced_spans(&pcm, 8_000, Voiced::default());
        pieces += starts(&events).len();
        sounds += spans.len();
        match starts(&events).first() {
            Some(known_ms) => onset_ms.push(known_ms - 1_000),
            None => missed.push(name),
        }
        if let (Some((known_ms, VadEvent::SpeechStopped { .. })), Some(last)) = (events.last(), spans.last())
        {
            end_ms.push(known_ms.saturating_sub(u64::from(last.end_ms)));
        }
    }
    println!(
        "{} prompts from digital silence: {} heard as speech, missed {missed:?}",
        prompts.len(),
        onset_ms.len()
    );
    println!("known after the first 10 ms above -42 dBFS, ms: {}", percentiles(&mut onset_ms));
    println!("end known after the last 10 ms above -42 dBFS, ms: {}", percentiles(&mut end_ms));
    println!("{pieces} stretches of speech, where energy with pauses of 100 ms bridged finds {sounds}");
    assert!(missed.is_empty());
    assert!(onset_ms[onset_ms.len() * 9 / 10] <= 100);
}

#[test]
fn recorded_speech_returned_as_echo_is_no_turn() {
    let played: Vec<i16> =
        speech().into_iter().step_by(5).flat_map(|(_, pcm)| pcm).take(90 * 8_000).collect();
    for (delay_ms, loss_db, room) in
        [(100, 10.0, false), (350, 20.0, false), (120, 15.0, true), (300, 20.0, true)]
    {
        let returned = Echo { delay_ms, loss_db, room }.of(&played);
        let (mut vad, mut gate, mut events) = (Vad::default(), EchoGate::new(), vec![]);
        let (mut voiced, mut taken_for_caller, mut alarms, mut before) = (0, 0, 0, false);
        for (played, heard) in played.chunks(160).zip(returned.chunks(160)) {
            gate.played(played);
            gate.heard(heard);
            vad.push(heard, &mut events);
            let is_caller = vad.is_speaking() && gate.source() == Source::Caller;
            voiced += usize::from(vad.is_speaking());
            taken_for_caller += usize::from(is_caller);
            alarms += usize::from(is_caller && !before);
            before = is_caller;
        }
        println!(
            "echo of prompts after {delay_ms} ms, -{loss_db} dB, room {room}: \
             {taken_for_caller} of {voiced} voiced frames taken for the caller, in {alarms} places of 90 s"
        );
        assert!(alarms <= 5, "{alarms}");
    }
}

#[test]
fn no_recorded_prompt_is_taken_for_touch_tones() {
    let prompts = prompts();
    let (mut detector, mut keys) = (dtmf::Detector::new(), vec![]);
    for (name, pcm) in &prompts {
        let before = keys.len();
        detector.push(pcm, &mut keys);
        for key in &keys[before..] {
            println!("{name}: {key:?}");
        }
    }
    let seconds: usize = prompts.iter().map(|(_, pcm)| pcm.len() / 8_000).sum();
    println!("touch tones found in {seconds} s of speech: {}", keys.len());
    assert_eq!(keys, []);
}

#[test]
fn quiet_parts_of_prompts_are_quiet() {
    for (name, pcm) in prompts().iter().filter(|(name, _)| name.contains("/silence/")) {
        assert!(rms_dbfs(pcm) < -60.0, "{name}");
        assert_eq!(found(pcm), [], "{name}");
    }
}
