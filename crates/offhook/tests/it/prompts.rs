//! Recorded human speech as callers' turns: the prompts of Debian's `asterisk-core-sounds-en-wav`.

use crate::house::{House, Place};
use crate::line::Caller;
use futures_util::future::join_all;
use offhook_media::wav::Wav;
use offhook_sim::carrier::What;
use offhook_sim::provider::Rule;
use serde_json::json;
use std::path::Path;

/// Where the package's releases put them.
const FOLDERS: [&str; 2] = ["/usr/share/asterisk/sounds/en_US_f_Allison", "/usr/share/asterisk/sounds/en"];
const PROMPTS: usize = 40;
/// Calls at the same time, each with its share of the prompts as turns.
const CALLS: usize = 8;
/// Prompts of this length are turns as callers have them, in samples at 8 kHz.
const SHORTEST: usize = 8_000;
const LONGEST: usize = 48_000;

/// Prompts that are beeps, bells, monkeys or silence.
const NOT_SPEECH: [&str; 5] = ["beep", "tone", "silence", "tt-monkeys", "confbridge-"];

/// Prompts spread over all that there are, by name.
fn prompts() -> Vec<(String, Vec<i16>)> {
    let folder = FOLDERS.iter().map(Path::new).find(|folder| folder.is_dir());
    let folder = folder.expect("recorded prompts are missing: apt-get install asterisk-core-sounds-en-wav");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().map(|e| e.path()).collect();
    paths.sort();
    let mut prompts = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_wav = path.extension().is_some_and(|ending| ending == "wav");
        if !is_wav || NOT_SPEECH.iter().any(|word| name.contains(word)) {
            continue;
        }
        let pcm = Wav::parse(&std::fs::read(&path).unwrap()).unwrap().into_mono();
        if (SHORTEST..LONGEST).contains(&pcm.len()) {
            prompts.push((name, pcm));
        }
    }
    let every = (prompts.len() / PROMPTS).max(1);
    prompts.into_iter().step_by(every).take(PROMPTS).collect()
}

/// What came of one prompt.
struct Turn {
    name: String,
    answered: bool,
    answered_over: bool,
}

/// On SQLite alone: the database has no part in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_prompts_are_heard_as_speech_and_seldom_cut_in_two() {
    let prompts = prompts();
    assert_eq!(prompts.len(), PROMPTS);
    let house = House::open(Place::sqlite(), json!({})).await;
    house.first.program(|program| {
        program.hears = vec!["Could you tell me more about it?".to_owned(); prompts.len() * 8].into();
        program.rules = vec![Rule::text("", "Gladly.")];
    });
    let callers: Vec<Caller> = (0..CALLS).map(|_| house.ring()).collect();
    let shares = prompts.chunks(prompts.len().div_ceil(CALLS));
    let lives = callers.iter().zip(shares).map(|(caller, share)| async move {
        caller.greeted().await;
        let mut turns = Vec::new();
        for (name, pcm) in share {
            turns.push(turn(caller, name, pcm).await);
        }
        caller.hang_up().await;
        turns
    });
    let turns: Vec<Turn> = join_all(lives).await.into_iter().flatten().collect();
    let mut heard = 0;
    for caller in &callers {
        heard += house.kept(&caller.call).await.of("member").len();
    }
    let deaf: Vec<_> = turns.iter().filter(|turn| !turn.answered).map(|turn| &turn.name).collect();
    let over: Vec<_> = turns.iter().filter(|turn| turn.answered_over).map(|turn| &turn.name).collect();
    println!(
        "{} prompts became {heard} turns: {} cut in two; {} answered while they went on: {over:?}",
        turns.len(),
        heard.saturating_sub(turns.len()),
        over.len()
    );
    assert!(heard >= turns.len(), "a prompt became no turn");
    assert!(deaf.is_empty(), "not heard as speech: {deaf:?}");
    house.close().await;
}

async fn turn(caller: &Caller, name: &str, pcm: &[i16]) -> Turn {
    let from_ms = caller.phone.now_ms();
    caller.phone.say(pcm);
    caller.until("the prompt is over", |phone| !phone.is_speaking()).await;
    let done_ms = caller.phone.caller_last_sound_ms().unwrap_or(from_ms);
    let answered = caller
        .phone
        .until(std::time::Duration::from_secs(7), |phone| {
            phone.agent_last_sound_ms().is_some_and(|at| at > done_ms)
                && phone.agent_quiet_ms().is_some_and(|quiet| quiet >= 700)
        })
        .await
        .is_ok();
    let history = caller.phone.history();
    let answered_over =
        history.iter().any(|e| e.what == What::AgentStarted && (from_ms..done_ms).contains(&e.at_ms));
    Turn { name: name.to_owned(), answered: answered || answered_over, answered_over }
}
