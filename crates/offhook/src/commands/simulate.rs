//! `offhook simulate`: whole calls in a simulated world, each from a seed, with faults, checked by the caller's ear.

use anyhow::{Result, bail};
use offhook_sim::world;
use tokio::time::Instant;

#[derive(clap::Args)]
pub struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    from: u64,
    /// Tell the story of one seed instead: who said what when, and what went wrong
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    explain: Option<u64>,
}

/// Progress is shown so often.
const TELL_EVERY: u64 = 10_000;

pub fn run(args: &Args) -> Result<()> {
    if let Some(seed) = args.explain {
        println!("{}", world::explain(seed));
        return Ok(());
    }
    let began = Instant::now();
    let mut finding = None;
    let mut done = 0;
    let stats = world::run_many(args.from..args.from + args.seeds, |seed, outcome| {
        done += 1;
        if done % TELL_EVERY == 0 {
            eprintln!("{done} calls, {:.0} a second", done as f64 / began.elapsed().as_secs_f64());
        }
        if let Some(found) = &outcome.finding {
            finding = Some((seed, format!("{found}")));
        }
        finding.is_none()
    });
    if let Some((seed, found)) = finding {
        bail!("seed {seed}: {found}\nthe whole story: offhook simulate --explain {seed}");
    }
    println!("{done} calls without a finding, {:.0} a second", done as f64 / began.elapsed().as_secs_f64());
    println!("{stats}");
    Ok(())
}
