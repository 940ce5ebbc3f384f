//! Ring 1: many whole calls, the seeds that once found something, and the bugs that every checker must find.

use offhook_sim::world::{self, Plant};
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
    let finding = world::run(7, Plant::NeverEnds).finding.expect("a call that never ends is found");
    let shown = finding.to_string();
    for part in ["seed 7", "liveness", "calm after", "offhook simulate --explain 7"] {
        assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
    }
    assert!(finding.trace.len() > 10, "the trace tells what happened");
}
