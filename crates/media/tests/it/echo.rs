//! The echo gate: the agent's own voice is no turn, a caller over it is one.

use crate::fixtures::{Echo, Noise, louder, mixed, silence, voice};
use offhook_media::FRAME_SAMPLES;
use offhook_media::echo::{EchoGate, Source};
use offhook_media::g711::Law;
use offhook_media::level::rms_dbfs;

/// What a call heard of its caller.
#[derive(Default)]
struct Heard {
    /// Frames in which somebody spoke, and those of them taken for echo.
    voiced: usize,
    echoes: usize,
    /// The ends of frames in which the caller was heard, milliseconds.
    caller_ms: Vec<usize>,
    /// Times that the caller began to be heard.
    alarms: usize,
    last: Option<Source>,
}

/// What stands for voice activity here, so that the gate alone is measured: three frames of sound.
const SOUND_DBFS: f32 = -52.0;
const ONSET_FRAMES: u32 = 3;

fn listen(played: &[i16], heard: &[i16]) -> Heard {
    let (mut gate, mut result) = (EchoGate::new(), Heard::default());
    let (mut sounding, mut is_caller) = (0, false);
    for (index, (played, heard)) in played.chunks(FRAME_SAMPLES).zip(heard.chunks(FRAME_SAMPLES)).enumerate()
    {
        gate.played(played);
        gate.heard(heard);
        sounding = if rms_dbfs(heard) > SOUND_DBFS { sounding + 1 } else { 0 };
        if sounding < ONSET_FRAMES {
            is_caller = false;
            continue;
        }
        let source = gate.source();
        result.voiced += 1;
        match source {
            Source::Echo { .. } => result.echoes += 1,
            Source::Caller => {
                result.caller_ms.push((index + 1) * 20);
                result.alarms += usize::from(!is_caller);
                is_caller = true;
            }
        }
        result.last = Some(source);
    }
    result
}

/// A line: faint noise, then G.711.
fn over_the_line(pcm: &[i16]) -> Vec<i16> {
    let noisy = mixed(pcm, &Noise::new(4).pcm(-66.0, pcm.len() / 8 + 1));
    noisy.iter().map(|sample| Law::Mu.decode_sample(Law::Mu.encode_sample(*sample))).collect()
}

fn agent(ms: usize) -> Vec<i16> {
    voice(100, 200.0, -18.0, ms)
}

#[test]
fn the_agents_own_voice_is_no_turn() {
    let played = agent(20_000);
    for (delay_ms, loss_db) in [
        (40, 10.0),
        (40, 30.0),
        (100, 20.0),
        (180, 15.0),
        (250, 10.0),
        (333, 25.0),
        (420, 20.0),
        (500, 10.0),
        (500, 30.0),
    ] {
        let heard = listen(&played, &over_the_line(&Echo { delay_ms, loss_db, room: false }.of(&played)));
        println!(
            "echo after {delay_ms} ms, -{loss_db} dB: {} of {} voiced frames explained",
            heard.echoes, heard.voiced
        );
        assert!(heard.voiced > 20, "an echo too faint to be a test");
        assert_eq!(heard.alarms, 0, "after {delay_ms} ms, -{loss_db} dB");
        let Some(Source::Echo { delay_ms: delay, loss_db: loss }) = heard.last else { panic!("no echo") };
        assert!(
            delay.abs_diff(delay_ms as u32) <= 2 && (loss - loss_db).abs() < 5.0,
            "{delay} ms, {loss} dB"
        );
    }
}

#[test]
fn a_room_that_rings_is_learned() {
    let played = agent(30_000);
    for (delay_ms, loss_db) in [(60, 10.0), (150, 20.0), (300, 15.0), (450, 20.0)] {
        let heard = listen(&played, &over_the_line(&Echo { delay_ms, loss_db, room: true }.of(&played)));
        let share = heard.echoes as f32 / heard.voiced as f32;
        println!(
            "room after {delay_ms} ms, -{loss_db} dB: {:.1} % explained, {} false alarms in 30 s",
            share * 100.0,
            heard.alarms
        );
        assert!(heard.voiced > 100, "an echo too faint to be a test");
        assert!(share > 0.97 && heard.alarms <= 3, "after {delay_ms} ms: {share}, {} alarms", heard.alarms);
    }
}

/// Callers of several pitches begin to speak over the agent, `above_db` louder than its echo; gives how many were heard
/// within `limit_ms`, of how many.
fn callers_heard(echo: Option<Echo>, above_db: f32, limit_ms: usize) -> (usize, usize) {
    const CALLERS: usize = 24;
    let mut heard_in_time = 0;
    for caller in 0..CALLERS {
        let played = voice(200 + caller as u64, 190.0, -18.0, 8_000);
        let returned = echo.map_or(silence(8_000), |echo| echo.of(&played));
        let level = if echo.is_some() { rms_dbfs(&returned) } else { -30.0 };
        let pitch_hz = [110.0, 150.0, 185.0, 215.0][caller % 4];
        let speech = voice(300 + caller as u64, pitch_hz, level + above_db, 2_000);
        let begin_ms = 5_000 + caller * 37;
        let both = mixed(&returned, &[silence(begin_ms), speech, silence(2_000)].concat());
        let heard = listen(&played[..both.len().min(played.len())], &over_the_line(&both));
        let in_time = |known_ms: &&usize| (begin_ms..=begin_ms + limit_ms).contains(*known_ms);
        heard_in_time += usize::from(heard.caller_ms.iter().find(in_time).is_some());
    }
    (heard_in_time, CALLERS)
}

#[test]
fn a_caller_without_echo_is_heard_as_quickly_as_ever() {
    let (heard, all) = callers_heard(None, 0.0, 140);
    println!("no echo: {heard} of {all} callers heard within 140 ms");
    assert!(heard >= all - 3, "{heard} of {all}");
}

#[test]
fn a_caller_over_the_echo_is_heard() {
    let line = Echo { delay_ms: 180, loss_db: 15.0, room: false };
    let room = Echo { delay_ms: 260, loss_db: 15.0, room: true };
    for (echo, above_db, limit_ms, least) in [
        (line, 12.0, 200, 22),
        (line, 6.0, 300, 22),
        (line, 0.0, 600, 18),
        (room, 12.0, 200, 22),
        (room, 6.0, 300, 22),
        (room, 0.0, 600, 16),
    ] {
        let (heard, all) = callers_heard(Some(echo), above_db, limit_ms);
        println!("{echo:?}, caller {above_db:+} dB: {heard} of {all} heard within {limit_ms} ms");
        assert!(heard >= least, "{heard} of {all} at {above_db} dB over {echo:?}");
    }
}

#[test]
fn nothing_is_an_echo_when_nothing_was_played() {
    let (mut gate, speech) = (EchoGate::new(), voice(1, 150.0, -20.0, 3_000));
    for frame in speech.chunks(FRAME_SAMPLES) {
        gate.heard(frame);
        assert_eq!(gate.source(), Source::Caller);
    }
}

#[test]
fn an_agent_who_pauses_keeps_its_place_in_time() {
    let (speech, pause_ms) = (agent(4_000), 3_000);
    let timeline = [speech.clone(), silence(pause_ms), speech].concat();
    let returned = over_the_line(&Echo { delay_ms: 220, loss_db: 12.0, room: false }.of(&timeline));
    let (mut gate, mut echoes) = (EchoGate::new(), 0);
    for (index, (played, heard)) in timeline.chunks(160).zip(returned.chunks(160)).enumerate() {
        if rms_dbfs(played) > -100.0 {
            gate.played(played);
        }
        gate.heard(heard);
        let is_sound = rms_dbfs(heard) > -40.0;
        if index > 360 && is_sound && matches!(gate.source(), Source::Echo { delay_ms: 218..=222, .. }) {
            echoes += 1;
        }
    }
    assert!(echoes > 100, "{echoes}");
}

#[test]
fn a_new_delay_is_learned() {
    let played = agent(24_000);
    let first = Echo { delay_ms: 100, loss_db: 12.0, room: false }.of(&played);
    let second = Echo { delay_ms: 340, loss_db: 12.0, room: false }.of(&played);
    let half = played.len() / 2;
    let heard = listen(&played, &over_the_line(&[&first[..half], &second[half..]].concat()));
    assert!(matches!(heard.last, Some(Source::Echo { delay_ms: 338..=342, .. })), "{:?}", heard.last);
    let share = heard.echoes as f32 / heard.voiced as f32;
    assert!(share > 0.97, "{share}");
}

#[test]
fn a_louder_line_changes_nothing() {
    let played = agent(6_000);
    let echo = Echo { delay_ms: 120, loss_db: 0.0, room: false }.of(&louder(&played, -6.0));
    assert_eq!(listen(&played, &over_the_line(&echo)).alarms, 0);
}
