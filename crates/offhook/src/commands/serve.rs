//! `offhook serve`: builds everything from top to bottom and answers the phone.

use super::{Start, Where, admin, first_workspace, open_store};
use crate::config::Config;
use crate::declared::Declared;
use crate::demo;
use crate::private_file;
use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use offhook_core::Secret;
use offhook_server::app::App;
use offhook_server::call::driver::Surroundings;
use offhook_server::call::recorder::Recorder;
use offhook_server::call::registry::Registry;
use offhook_server::connection;
use offhook_server::live::Live;
use offhook_server::speech::{Phrasebook, Recording};
use offhook_server::trunks;
use offhook_server::trunks::Trunks;
use offhook_store::{Apply, Node, Scope, Store, WorkspaceSpec, system_environment};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// How long the last records may take to be written.
const LAST_WRITES: std::time::Duration = std::time::Duration::from_secs(10);

#[derive(ClapArgs)]
pub struct Args {
    /// Where to listen, in place of `server.listen`
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    at: Where,
    /// Connections, agents and numbers to bring about before the first call
    #[arg(long, value_name = "FILE")]
    apply: Option<PathBuf>,
}

impl Args {
    /// Threads that drive calls; `None`: one for each processor.
    pub fn workers(&self) -> Result<Option<usize>> {
        Ok(Some(self.at.config()?.server.workers).filter(|workers| *workers > 0))
    }
}

pub async fn run(args: Args) -> Result<()> {
    let mut config = args.at.config()?;
    config.server.listen = args.listen.unwrap_or(config.server.listen);
    logging(&config)?;
    let environment = system_environment();
    let store = open_store(&config, Start::Anew).await?;
    let keys = config.clone();
    let store = store.with_keys_from(Arc::new(move || admin::keys_of(&keys)));
    let resealed = store.reseal_secrets().await.context("credentials sealed with an earlier vault key")?;
    if resealed > 0 {
        tracing::info!(resealed, "Credentials are sealed with the current vault key now");
    }
    let scope = first_scope(&store).await?;
    if config.demo.enabled {
        let token = simulator_token(&config, &*environment)?;
        let (declaration, words) =
            demo::declaration(&config.demo.number, token, |name| std::env::var(name).ok());
        for spec in &declaration.connections {
            connection::check(spec).with_context(|| format!("the demo agent's connection {}", spec.name))?;
        }
        store.apply(&scope, &declaration, Apply::Write).await.context("the demo agent")?;
        println!("demo agent on {}: {words}", config.demo.number);
    }
    if let Some(file) = &args.apply {
        let declaration = Declared::read(file)?.declaration()?;
        store.apply(&scope, &declaration, Apply::Write).await.with_context(|| file.display().to_string())?;
    }

    let listener = tokio::net::TcpListener::bind(config.server.listen).await.with_context(|| {
        format!("{} cannot be listened on; is another server running?", config.server.listen)
    })?;
    let address = listener.local_addr()?;
    let public_url = match config.server.public_url.as_str() {
        "" => format!("http://{address}"),
        url => url.to_owned(),
    };
    let registry = Arc::new(Registry::default());
    let (recorder, recording) = Recorder::start(store.clone(), registry.clone());
    let around = Surroundings { registry, recorder: recorder.clone(), live: Live::default() };
    let app = Arc::new(app(&config, store, around, &public_url)?);
    if let Some(listening) = config.sip.listening()? {
        trunks::start(&app, listening)
            .await
            .context("SIP cannot be listened for, as [sip] in the settings says")?;
    }
    let served_at = config.served_at();
    std::fs::write(&served_at, format!("http://{address}\n"))
        .with_context(|| format!("{} cannot be written", served_at.display()))?;
    println!("ready http://{address}");
    offhook_server::router::serve(
        app,
        listener,
        shutdown(),
        std::time::Duration::from_secs(config.server.drain_s),
    )
    .await?;
    // What calls have left behind is written; a store that does not take it is not waited for for ever.
    let written = async {
        recorder.close().await;
        recording.await
    };
    match tokio::time::timeout(LAST_WRITES, written).await {
        Ok(written) => Ok(written?),
        Err(_) => anyhow::bail!("stopped before everything was written: the store did not take it"),
    }
}

/// The server's parts, as the settings say.
pub fn app(config: &Config, store: Store, around: Surroundings, public_url: &str) -> Result<App> {
    let environment = system_environment();
    let apology = offhook_providers::offline::canned_apology();
    Ok(App {
        around,
        http: reqwest::Client::builder().tcp_nodelay(true).build()?,
        public_url: public_url.parse().with_context(|| format!("server.public_url `{public_url}`"))?,
        node: Node::new(node_name(config), config.server.lease_s * 1_000, &*environment),
        phrases: Arc::new(Phrasebook::default()),
        rehearses: config.server.rehearse,
        telnyx: Arc::default(),
        trunks: Trunks::default(),
        canned_apology: Arc::new(Recording::of_samples(&apology.pcm, apology.rate_hz)),
        environment,
        store,
    })
}

/// Makes the first organization where there is none, and shows its key once.
async fn first_scope(store: &Store) -> Result<Scope> {
    let spec = WorkspaceSpec { name: "Main".into(), time_zone: "UTC".into(), business_hours: json!({}) };
    if let Some(first) = store.create_first("My organization", &spec).await? {
        println!("API key, shown this once: {}", first.key.expose());
        return Ok(Scope::system(&first.workspace, "serve"));
    }
    first_workspace(store, "serve").await?.context("the database has an organization without a workspace")
}

/// What the simulated line signs its webhooks with: made once, and read by `offhook dial` on the same machine.
fn simulator_token(config: &Config, environment: &dyn offhook_store::Environment) -> Result<Secret<String>> {
    let mut bytes = [0; 16];
    environment.fill(&mut bytes);
    let token = bytes.iter().map(|b| format!("{b:02x}")).collect();
    private_file::read_or_create(&config.server.data.join("simulator.token"), Secret::new(token))
}

fn node_name(config: &Config) -> String {
    match config.server.node.as_str() {
        "" => std::fs::read_to_string("/etc/hostname").map_or("node".into(), |name| name.trim().to_owned()),
        name => name.to_owned(),
    }
}

fn logging(config: &Config) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.level)
        .with_context(|| format!("log.level `{}`", config.log.level))?;
    Ok(offhook_server::telemetry::log_to_stderr(config.log.format, filter)?)
}

/// Ends when the process is asked to.
async fn shutdown() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(signal) => signal,
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
