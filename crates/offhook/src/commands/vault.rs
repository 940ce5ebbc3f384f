//! `offhook vault`: what can be done about the keys that seal credentials.

use super::{Start, Where, open_store_without_secrets};
use anyhow::Result;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Remove the credentials that a lost key has sealed; their connections must be given new ones
    Forget {
        /// The key's fingerprint, as `serve` names it
        #[arg(value_name = "KEY")]
        key: String,
        #[command(flatten)]
        at: Where,
    },
}

pub async fn run(args: Args) -> Result<()> {
    let Command::Forget { key, at } = args.command;
    let store = open_store_without_secrets(&at.config()?, Start::Existing).await?;
    let missing = store.missing_keys().await?;
    anyhow::ensure!(
        missing.iter().any(|missing| missing.key_id == key),
        "no credential waits for key {key}: nothing was removed"
    );
    for connection in store.forget_secrets(&key).await? {
        println!("connection {connection}: its secret was removed");
    }
    Ok(store.close().await?)
}
