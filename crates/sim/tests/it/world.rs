//! Ring 1: many whole calls, the seeds that once found something, and the bugs that every checker must find.

use offhook_core::call::{
    Ability, AbilityKind, Anchor, AskId, Call, CallPlan, CallTime, Fallback, Greeting, Input, Opening,
    Phrases, Recording, ReplyId, SttId, Timing, ToolId, Voicemail,
};
use offhook_core::{Language, ToolRequest, ToolSpec};
use offhook_sim::world::{self, Plant};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use std::fmt::Write as _;
use std::path::Path;

/// Calls with which every change is tried.
const SEEDS: u64 = 2_000;
/// Every planted bug is found within so many seeds.
const SEEDS_OF_A_PLANT: u64 = 200;

/// A seed that once found something.
#[derive(Deserialize)]
struct Regression {
    seed: u64,
    was: String,
}

#[test]
fn two_thousand_calls_break_no_rule() {
    let mut found = Vec::new();
    let stats = world::run_many(0..SEEDS, |_, outcome| {
        found.extend(outcome.finding.as_ref().map(ToString::to_string));
        found.len() < 3
    });
    assert!(found.is_empty(), "{}", found.join("\n\n"));
    assert_eq!(stats.calls, SEEDS);
    assert!(
        stats.thrown_away <= stats.turns,
        "{} answers were thrown away in {} turns",
        stats.thrown_away,
        stats.turns
    );
    let unreached: Vec<_> = world::REASONS
        .iter()
        .zip(stats.ended)
        .filter(|(_, calls)| *calls == 0)
        .map(|(reason, _)| reason)
        .collect();
    assert!(unreached.len() <= 1, "no simulated call ends by {unreached:?}");
}

#[test]
fn every_planted_bug_is_found_by_its_checker() {
    let mut report = String::new();
    for (plant, checker) in Plant::ALL {
        let finds = |seed: &u64| world::run(*seed, *plant).finding.is_some_and(|f| f.checker == *checker);
        match (0..SEEDS_OF_A_PLANT).find(finds) {
            Some(seed) => writeln!(report, "{plant}: seed {seed}, found by {checker}").unwrap(),
            None => panic!("{checker} does not find {plant} in {SEEDS_OF_A_PLANT} seeds\n{report}"),
        }
    }
    println!("{report}");
}

#[test]
fn what_was_found_once_stays_mended() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "toml")) {
        let regression: Regression = toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        if let Some(finding) = world::run(regression.seed, Plant::Nothing).finding {
            panic!("{} was: {}\n{finding}", file.display(), regression.was);
        }
    }
}

#[test]
fn a_seed_is_the_same_call_every_time() {
    for seed in 0..50 {
        let (first, second) = (world::run(seed, Plant::Nothing), world::run(seed, Plant::Nothing));
        assert_eq!(first.stats, second.stats, "seed {seed}");
        assert_eq!(world::explain(seed), world::explain(seed), "seed {seed}");
    }
}

#[test]
fn a_finding_says_how_to_see_it_again() {
    let finding = (0..SEEDS_OF_A_PLANT).find_map(|seed| world::run(seed, Plant::NeverEnds).finding).unwrap();
    let shown = finding.to_string();
    let seed = finding.seed;
    for part in
        [&format!("seed {seed} at"), "liveness", "calm after", &format!("offhook simulate --explain {seed}")]
    {
        assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
    }
    assert!(finding.trace.len() > 10, "the trace tells what happened");
}

#[test]
fn a_story_names_both_sides_and_the_end() {
    let tells_all = |story: &String| story.contains("AgentHungUp") && story.contains("greeting: Fixed");
    let story = (0..50).map(world::explain).find(tells_all).unwrap();
    for part in
        ["caller: ", "the caller hears reply 1", "the agent is silent", "noted 1 Agent", "the call has ended"]
    {
        assert!(story.contains(part), "{part:?} is missing in:\n{story}");
    }
    assert!(!story.contains("Synthesized"), "a newcomer need not see every fact");
}

#[test]
fn the_machine_takes_any_facts_in_any_order() {
    for seed in 0..400 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut out = Vec::new();
        let mut call = Call::start(any_plan(&mut rng), &mut out);
        let mut at = CallTime::ZERO;
        for _ in 0..300 {
            at = at.plus_ms(rng.random_range(0..400));
            call.handle(at, any_fact(&mut rng), &mut out);
            call.handle(at, Input::Tick, &mut out);
            let due = call.deadline().map(|(due, _)| due);
            assert!(
                due.is_none_or(|due| due > at),
                "seed {seed}: a timer that is due at {due:?} does not fire at {at:?}"
            );
            assert!(out.len() < 1_000, "seed {seed}: {} orders for one fact", out.len());
            out.clear();
        }
        let text = serde_json::to_string(&call).unwrap();
        assert_eq!(
            serde_json::to_string(&serde_json::from_str::<Call>(&text).unwrap()).unwrap(),
            text,
            "seed {seed}"
        );
        call.handle(at, Input::HungUp { by_caller: true }, &mut out);
        call.handle(at.plus_ms(60_000), Input::Tick, &mut out);
        assert!(call.is_finished() && call.ended().is_some(), "seed {seed}: the call is not over");
    }
}

fn any_plan(rng: &mut ChaCha8Rng) -> CallPlan {
    let names = |kind: &str| vec![format!("{kind}0"), format!("{kind}1")];
    let greetings = [Greeting::Fixed("Hello there.".into()), Greeting::Written, Greeting::Silent];
    let kinds = [AbilityKind::External, AbilityKind::HangUp, AbilityKind::SendDtmf];
    let abilities = kinds.into_iter().enumerate().map(|(number, kind)| Ability {
        spec: ToolSpec { name: format!("tool{number}"), description: String::new(), parameters: "{}".into() },
        kind,
        timeout_ms: 3_000,
        filler: None,
    });
    CallPlan {
        instructions: String::new(),
        greeting: greetings[rng.random_range(0..greetings.len())].clone(),
        language: Language::english(),
        abilities: abilities.collect(),
        stt: names("stt"),
        llm: names("llm"),
        tts: names("tts"),
        timing: Timing::default(),
        phrases: Phrases::default(),
        head_start: rng.random_range(0..2) == 0,
        fallback: Fallback::HangUp,
        opening: Opening::Agent,
        destinations: Vec::new(),
        voicemail: Voicemail::default(),
        recording: Recording::Off,
    }
}

/// A fact about something that may or may not be there, with values that may or may not make sense.
fn any_fact(rng: &mut ChaCha8Rng) -> Input {
    const TEXTS: &[&str] =
        &["", " ", "yes", "Do you open on Sunday?", "my number is five five", "goodbye", "é…，。", "a, b"];
    const NUMBERS: &[u32] = &[0, 1, 40, 250, 1_000, 5_000, u32::MAX];
    let text = TEXTS[rng.random_range(0..TEXTS.len())].to_string();
    let ms = NUMBERS[rng.random_range(0..NUMBERS.len())];
    let id = rng.random_range(0..8);
    let (reply, ask, stt, tool) = (ReplyId(id), AskId(id), SttId(id), ToolId(id));
    let yes = rng.random_range(0..2) == 0;
    match rng.random_range(0..30) {
        0..3 => Input::Connected,
        3 => Input::MediaLost,
        4 => Input::Dtmf { digit: ['1', '#', 'D', 'é'][rng.random_range(0..4)] },
        5..8 => Input::Played { reply, ms, done: yes },
        8 => Input::SpeechStarted,
        9 => Input::SpeechStopped { silence_ms: ms },
        10 => Input::SttOpened { stt },
        11 => Input::Interim { stt, text, end_ms: ms },
        12..15 => Input::Final { stt, text, end_ms: ms, utterance_end: yes },
        15 => Input::UtteranceEnd { stt },
        16 => Input::EagerEnd { stt, text },
        17 => Input::SttFailed { stt, may_pass: yes },
        18..21 => Input::Token { ask, text },
        21 => {
            let name = format!("tool{}", rng.random_range(0..4));
            let arguments = ["{}", "", "[", r#"{"digits":"1w"}"#][rng.random_range(0..4)].into();
            Input::Tool { ask, request: ToolRequest { id: text, name, arguments } }
        }
        22 => Input::AskDone { ask },
        23 => Input::AskFailed { ask, may_pass: yes },
        24..27 => Input::Synthesized { reply, ms, done: yes },
        27 => {
            Input::Aligned { reply, anchors: vec![Anchor { ms, bytes: ms / 2 }, Anchor { ms: 9, bytes: 1 }] }
        }
        28 => Input::TtsFailed { voice: id as u8, may_pass: yes },
        _ => Input::ToolDone { tool, result: text },
    }
}
