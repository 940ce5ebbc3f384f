//! `offhook apply`: brings connections, agents and numbers to what a file declares.

use super::{Start, Where, first_workspace, open_store};
use crate::declared::Declared;
use anyhow::{Context as _, Result};
use offhook_store::{Apply, Change};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// What shall be: TOML or JSON
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Try it in full, tell what would change, change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    at: Where,
}

pub async fn run(args: Args) -> Result<()> {
    let declaration = Declared::read(&args.file)?.declaration()?;
    let store = open_store(&args.at.config()?, Start::Existing).await?;
    let scope = first_workspace(&store, "apply")
        .await?
        .context("there is no workspace yet: run `offhook serve` once")?;
    let apply = if args.dry_run { Apply::DryRun } else { Apply::Write };
    let applied =
        store.apply(&scope, &declaration, apply).await.with_context(|| args.file.display().to_string())?;
    for thing in &applied {
        let change = match (thing.change, args.dry_run) {
            (Change::Created, false) => "created",
            (Change::Changed, false) => "changed",
            (Change::Created, true) => "would be created",
            (Change::Changed, true) => "would be changed",
            (Change::Unchanged, _) => "unchanged",
        };
        println!("{} {}: {change}", thing.what, thing.name);
    }
    Ok(store.close().await?)
}
