//! One file per subcommand.

pub mod admin;
pub mod apply;
pub mod carrier;
pub mod dial;
pub mod key;
pub mod replay;
pub mod serve;
pub mod simulate;
pub mod watch;

use crate::config::Config;
use crate::private_file;
use anyhow::{Context as _, Result};
use offhook_core::Secret;
use offhook_store::{Page, Scope, Store, StoreError, StoreOptions, Vault, VaultKey, system_environment};
use std::path::{Path, PathBuf};

/// Which installation a command works on.
#[derive(clap::Args)]
pub struct Where {
    /// Settings that differ from offhook.default.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for everything that is kept, in place of `server.data`
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
}

impl Where {
    /// The settings.
    pub fn config(&self) -> Result<Config> {
        let mut config = Config::load(self.config.as_deref())?;
        if let Some(data) = &self.data {
            config.server.data = data.clone();
        }
        Ok(config)
    }
}

/// Whether a command may begin an installation or works on one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// What is missing is made: the data folder, the database, the key.
    Anew,
    /// What is missing is named.
    Existing,
}

/// Opens the database of an installation, with every key that its credentials are sealed with.
pub async fn open_store(config: &Config, start: Start) -> Result<Store> {
    let store = open_store_without_secrets(config, start).await?;
    let missing = store.missing_keys().await?;
    let Some(key) = missing.first() else { return Ok(store) };
    let file = config.vault_key();
    let key_id = &key.key_id;
    anyhow::bail!(
        "credentials in the database are sealed with key {key_id}, which is not in {file}: those of {connections}\n\
         Bring that key back into {file} (on a further node: copy the file from the first). If it is lost, \
         `offhook admin forget-key {key_id}` removes what it sealed, and the connections must be given their secrets again.",
        file = file.display(),
        connections = key.connections.join(", "),
    )
}

/// The same where no credential is needed.
pub async fn open_store_without_secrets(config: &Config, start: Start) -> Result<Store> {
    let data = &config.server.data;
    let path = config.vault_key();
    if start == Start::Anew {
        std::fs::create_dir_all(data)
            .with_context(|| format!("the data folder {} cannot be made", data.display()))?;
    }
    let environment = system_environment();
    let known = private_file::read(&path)?;
    // Where there is no key yet, the database tells whether a new one will do; only then it is kept.
    let keys = known.clone().unwrap_or_else(|| VaultKey::make(&*environment).text());
    let vault = |keys| parsed(&path, keys);
    let options = |vault| StoreOptions { vault, environment: environment.clone() };
    let store = open(config, start, options(vault(&keys)?)).await?;
    if known.is_some() || start == Start::Existing || !store.missing_keys().await?.is_empty() {
        return Ok(store);
    }
    let kept = private_file::read_or_create(&path, keys.clone()).context("the key that seals credentials")?;
    if kept == keys {
        return Ok(store);
    }
    store.close().await?;
    open(config, start, options(vault(&kept)?)).await
}

/// The keys in a file; `None` where there are none.
fn vault_at(path: &Path) -> Result<Option<Vault>> {
    private_file::read(path)?.map(|keys| parsed(path, &keys)).transpose()
}

fn parsed(path: &Path, keys: &Secret<String>) -> Result<Vault> {
    Vault::parse(keys).with_context(|| format!("the vault key in {}", path.display()))
}

async fn open(config: &Config, start: Start, options: StoreOptions) -> Result<Store> {
    let address = config.database();
    let opened = match start {
        Start::Anew => Store::open(&address, options).await,
        Start::Existing => Store::open_existing(&address, options).await,
    };
    opened.map_err(|error| match error {
        StoreError::Absent => anyhow::anyhow!(
            "there is no database of Offhook in {}: start `offhook serve` once, or give the --data or --config of the server",
            config.database_place()
        ),
        error => anyhow::Error::new(error).context("the database cannot be opened"),
    })
}

/// The oldest workspace: where a command acts that names none. `None`: there is none yet.
pub async fn first_workspace(store: &Store, job: &'static str) -> Result<Option<Scope>> {
    let mut page = Page::first(offhook_store::PAGE_ROWS_MAX);
    let mut oldest = None;
    loop {
        let listed = store.workspaces(&page).await?;
        oldest = listed.rows.last().map(|w| Scope::system(w, job)).or(oldest);
        match listed.next {
            Some(next) => page = Page::after(next, offhook_store::PAGE_ROWS_MAX),
            None => return Ok(oldest),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use offhook_store::{ConnectionSpec, WorkspaceSpec};
    use serde_json::json;
    use tempfile::TempDir;

    pub(super) fn installation() -> (TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::load(None).unwrap();
        config.server.data = folder.path().join("data");
        (folder, config)
    }

    /// Begins an installation with one credential.
    pub(super) async fn begun(config: &Config) {
        let store = open_store(config, Start::Anew).await.unwrap();
        let spec = WorkspaceSpec { name: "Main".into(), time_zone: "UTC".into(), business_hours: json!({}) };
        let first = store.create_first("Ada's", &spec).await.unwrap().unwrap();
        let connection = ConnectionSpec {
            kind: "openai".into(),
            name: "models".into(),
            account: None,
            config: json!({}),
            secret: Some(Secret::new("sk-1".into())),
        };
        let scope = Scope::system(&first.workspace, "test");
        store.create_connection(&scope, &connection).await.unwrap();
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_lost_vault_key_is_not_replaced_and_the_way_out_is_named() {
        let (_folder, config) = installation();
        begun(&config).await;
        let key = std::fs::read_to_string(config.vault_key()).unwrap();
        for lost in [None, Some(""), Some("ab".repeat(32).as_str())] {
            match lost {
                None => std::fs::remove_file(config.vault_key()).unwrap(),
                Some(other) => std::fs::write(config.vault_key(), other).unwrap(),
            }
            let refused = format!("{:#}", open_store(&config, Start::Anew).await.unwrap_err());
            for named in ["models", "vault.key", "offhook admin forget-key "] {
                assert!(refused.contains(named), "{refused}");
            }
            let left = std::fs::read_to_string(config.vault_key()).ok();
            assert_eq!(left.as_deref(), lost, "the key was replaced");
        }
        let with_another = format!("{}\n{key}", "ab".repeat(32));
        std::fs::write(config.vault_key(), with_another).unwrap();
        let store = open_store(&config, Start::Anew).await.unwrap();
        assert_eq!(store.reseal_secrets().await.unwrap(), 1);
    }

    #[tokio::test]
    async fn processes_that_begin_at_once_agree_on_the_key() {
        let (_folder, config) = installation();
        let opens = (0..4).map(|_| {
            let config = config.clone();
            tokio::spawn(async move { open_store(&config, Start::Anew).await.unwrap() })
        });
        for open in opens.collect::<Vec<_>>() {
            open.await.unwrap().close().await.unwrap();
        }
        begun(&config).await;
        open_store(&config, Start::Existing).await.unwrap();
    }

    #[tokio::test]
    async fn a_command_on_no_installation_says_so_and_makes_none() {
        let (folder, config) = installation();
        let refused = format!("{:#}", open_store(&config, Start::Existing).await.unwrap_err());
        assert!(refused.contains("--data"), "{refused}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was made");
    }
}
