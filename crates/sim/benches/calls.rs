//! How many simulated calls one core runs in a second: the issue asks for 2,000.

use offhook_sim::world::{self, Plant};
use std::sync::atomic::{AtomicU64, Ordering};

fn main() {
    divan::main();
}

/// Calls in one sample.
const CALLS: u64 = 500;

#[divan::bench(sample_count = 20, sample_size = 1)]
fn simulated_calls(bencher: divan::Bencher) {
    let seed = AtomicU64::new(0);
    bencher.counter(divan::counter::ItemsCount::new(CALLS)).bench(|| {
        let from = seed.fetch_add(CALLS, Ordering::Relaxed);
        world::run_many(from..from + CALLS, |_, _| true)
    });
}

#[divan::bench]
fn one_call() -> world::Outcome {
    world::run(1, Plant::Nothing)
}
