//! `offhook admin`: what whoever runs the server does about the installation itself.

use super::{Start, Where, open_store, open_store_without_secrets, serve, vault_at};
use crate::config::Config;
use crate::demo;
use crate::private_file;
use anyhow::{Context as _, Result};
use offhook_core::Secret;
use offhook_server::call::driver::Surroundings;
use offhook_server::call::recorder::Recorder;
use offhook_server::call::registry::Registry;
use offhook_server::doctor::{self, State};
use offhook_server::live::Live;
use offhook_store::{Vault, VaultKey, system_environment};
use std::sync::Arc;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Look at everything between a caller and an agent: address, accounts, numbers, agents; say what is wrong and what to do
    Doctor {
        #[command(flatten)]
        at: Where,
    },
    /// Seal every credential with a new key; running servers go on and use it from their next look at a credential
    RotateKey {
        /// Only put the new key into the key file, behind the others: for copying the file to further machines before it seals anything
        #[arg(long, conflicts_with = "to")]
        prepare: bool,
        /// Seal with this key of the key file, one that was prepared, instead of a new one
        #[arg(long, value_name = "KEY")]
        to: Option<String>,
        #[command(flatten)]
        at: Where,
    },
    /// Remove the credentials that a lost key has sealed; their connections must be given new ones
    ForgetKey {
        /// The key's fingerprint, as `serve` names it
        #[arg(value_name = "KEY")]
        key: String,
        #[command(flatten)]
        at: Where,
    },
}

pub async fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Doctor { at } => doctor(&at.config()?).await,
        Command::RotateKey { prepare, to, at } => rotate_key(&at.config()?, prepare, to.as_deref()).await,
        Command::ForgetKey { key, at } => forget_key(&at.config()?, &key).await,
    }
}

/// Examines the installation; an error tells how many things are wrong, for whoever reads only the exit status.
async fn doctor(config: &Config) -> Result<()> {
    let store = open_store(config, Start::Existing).await?;
    let public_url = match config.server.public_url.as_str() {
        "" => format!("http://{}", config.server.listen),
        url => url.to_owned(),
    };
    let registry = Arc::new(Registry::default());
    let (recorder, _recording) = Recorder::start(store.clone(), registry.clone());
    let around = Surroundings { registry, recorder, live: Live::default() };
    let app = serve::app(config, store, around, &public_url)?;
    let mut wrong = 0;
    doctor::examine(&app, &[demo::LINE], &mut |finding| {
        let mark = match finding.state {
            State::Well => "  well ",
            State::Doubtful => "  look ",
            State::Wrong => "WRONG ",
        };
        wrong += u32::from(finding.state == State::Wrong);
        println!("{mark} {}: {}", finding.about, finding.found);
        if let Some(fix) = finding.fix {
            println!("        -> {fix}");
        }
    })
    .await?;
    anyhow::ensure!(wrong == 0, "{wrong} things are wrong; docs/guide/troubleshooting.md tells more of each");
    Ok(())
}

async fn rotate_key(config: &Config, prepare: bool, to: Option<&str>) -> Result<()> {
    let path = config.vault_key();
    // With every key at hand, or some credentials would stay behind.
    open_store(config, Start::Existing).await?.close().await?;
    let known = private_file::read(&path)?.with_context(|| format!("{} holds no key", path.display()))?;
    let mut keys =
        VaultKey::read_all(&known).with_context(|| format!("the vault key in {}", path.display()))?;
    let key = match to {
        None => VaultKey::make(&*system_environment()),
        Some(id) => {
            let at = keys.iter().position(|key| key.id() == id);
            let at = at.with_context(|| {
                let there: Vec<_> = keys.iter().map(VaultKey::id).collect();
                format!("{} holds no key {id}; it holds {}", path.display(), there.join(", "))
            })?;
            keys.remove(at)
        }
    };
    let id = key.id();
    if prepare {
        keys.push(key);
    } else {
        keys.insert(0, key);
    }
    let lines: Vec<_> = keys.iter().map(|key| key.text().expose().clone()).collect();
    private_file::replace(&path, &Secret::new(lines.join("\n")))?;
    if prepare {
        println!("key {id} was added to {} and seals nothing yet", path.display());
        println!(
            "copy the file to every machine that serves this database, then run: offhook admin rotate-key --to {id}"
        );
        return Ok(());
    }
    let store = open_store(config, Start::Existing).await?;
    let resealed = store.reseal_secrets().await?;
    println!("{resealed} credentials are sealed with key {id} now, the first in {}", path.display());
    println!(
        "The keys before it stay in the file: backups of the database need them. Delete their lines when no backup does."
    );
    Ok(store.close().await?)
}

async fn forget_key(config: &Config, key: &str) -> Result<()> {
    let store = open_store_without_secrets(config, Start::Existing).await?;
    let missing = store.missing_keys().await?;
    anyhow::ensure!(
        missing.iter().any(|missing| missing.key_id == key),
        "no credential waits for key {key}: nothing was removed"
    );
    for connection in store.forget_secrets(key).await? {
        println!("connection {connection}: its secret was removed");
    }
    Ok(store.close().await?)
}

/// The keys in a file as they are now.
pub fn keys_of(config: &Config) -> Option<Vault> {
    vault_at(&config.vault_key()).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tests::{begun, installation};
    use offhook_store::{Page, Scope, Store};

    async fn secret_of_the_first(store: &Store) -> String {
        let workspace = store.workspaces(&Page::first(1)).await.unwrap().rows.remove(0);
        let scope = Scope::system(&workspace, "test");
        let connection = store.connections(&scope, &Page::first(1)).await.unwrap().rows.remove(0);
        store.connection_secret(&scope, &connection.id).await.unwrap().expose().clone()
    }

    fn key_ids(config: &Config) -> Vec<String> {
        let text = private_file::read(&config.vault_key()).unwrap().unwrap();
        VaultKey::read_all(&text).unwrap().iter().map(VaultKey::id).collect()
    }

    #[tokio::test]
    async fn a_running_server_goes_on_while_the_key_is_rotated() {
        let (_folder, config) = installation();
        begun(&config).await;
        let of_server = config.clone();
        let running = open_store(&config, Start::Existing).await.unwrap();
        let running = running.with_keys_from(Arc::new(move || keys_of(&of_server)));
        let before = key_ids(&config);
        rotate_key(&config, false, None).await.unwrap();
        assert_eq!(key_ids(&config)[1..], before);
        assert_eq!(secret_of_the_first(&running).await, "sk-1");

        rotate_key(&config, true, None).await.unwrap();
        let prepared = key_ids(&config).pop().unwrap();
        assert_eq!(secret_of_the_first(&running).await, "sk-1", "nothing is sealed with it yet");
        rotate_key(&config, false, Some(&prepared)).await.unwrap();
        assert_eq!((key_ids(&config)[0].as_str(), key_ids(&config).len()), (prepared.as_str(), 3));
        let refused = rotate_key(&config, false, Some("00000000")).await.unwrap_err().to_string();
        assert!(refused.contains(&prepared), "{refused}");
        assert_eq!(secret_of_the_first(&running).await, "sk-1");
    }
}
