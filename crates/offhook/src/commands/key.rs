//! `offhook key`: API keys for whoever runs the server, above all where none is left to make one with.

use super::{Start, Where, first_workspace, open_store_without_secrets};
use anyhow::{Context as _, Result};
use offhook_core::entity::Role;
use offhook_server::api::request::Name;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make an API key and show it this once
    Create {
        /// What it is for
        #[arg(long, default_value = "made on the server", value_parser = name)]
        name: Name,
        /// What it may do: viewer, operator, editor, admin or owner
        #[arg(long, default_value_t = Role::Owner)]
        role: Role,
        #[command(flatten)]
        at: Where,
    },
}

fn name(text: &str) -> Result<Name, String> {
    Name::try_from(text.to_owned())
}

pub async fn run(args: Args) -> Result<()> {
    let Command::Create { name, role, at } = args.command;
    let store = open_store_without_secrets(&at.config()?, Start::Existing).await?;
    let scope = first_workspace(&store, "key create")
        .await?
        .context("there is no workspace yet: run `offhook serve` once")?;
    let (_, key) = store.create_api_key(&scope, &String::from(name), role).await?;
    println!("API key ({role}), shown this once: {}", key.expose());
    Ok(store.close().await?)
}
