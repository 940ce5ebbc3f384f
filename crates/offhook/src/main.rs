//! The `offhook` command: the only place where everything is wired together.

mod commands;
mod config;
mod declared;
mod demo;
mod private_file;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The software that answers the phone.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer the phone: carriers' webhooks, the API, and a demo agent
    Serve(commands::serve::Args),
    /// Ring the running server: a simulated call in real time
    Dial(commands::dial::Args),
    /// Run many simulated calls with faults, and check them
    Simulate(commands::simulate::Args),
    /// Run a stored call again from its log
    Replay(commands::replay::Args),
    /// Bring connections, agents and numbers to what a file declares
    Apply(commands::apply::Args),
    /// Run the simulated carrier as a server
    Carrier(commands::carrier::Args),
    /// Make an API key
    Key(commands::key::Args),
    /// See to the installation: rotate the key that seals credentials, and more
    Admin(commands::admin::Args),
}

fn main() -> Result<()> {
    // Several libraries bring a TLS provider of their own; this is the one that all use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Command::Serve(args) = &cli.command
        && let Some(workers) = args.workers()?
    {
        runtime.worker_threads(workers);
    }
    runtime.enable_all().build()?.block_on(async {
        match cli.command {
            Command::Serve(args) => commands::serve::run(args).await,
            Command::Dial(args) => commands::dial::run(args).await,
            Command::Simulate(args) => commands::simulate::run(&args),
            Command::Replay(args) => commands::replay::run(args).await,
            Command::Apply(args) => commands::apply::run(args).await,
            Command::Carrier(args) => commands::carrier::run(args).await,
            Command::Key(args) => commands::key::run(args).await,
            Command::Admin(args) => commands::admin::run(args).await,
        }
    })
}
