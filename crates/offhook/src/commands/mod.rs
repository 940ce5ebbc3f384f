//! One file per subcommand.

pub mod apply;
pub mod carrier;
pub mod dial;
pub mod replay;
pub mod serve;
pub mod simulate;

use crate::config::Config;
use anyhow::{Context as _, Result};
use offhook_store::{Page, Scope, Store, StoreOptions, Vault, VaultKey, system_environment};
use std::path::PathBuf;

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

/// Opens the database of an installation.
pub async fn open_store(config: &Config) -> Result<Store> {
    std::fs::create_dir_all(&config.server.data)
        .with_context(|| format!("the data folder {} cannot be made", config.server.data.display()))?;
    let environment = system_environment();
    let key = VaultKey::load_or_create(&config.server.data.join("vault.key"), &*environment)
        .context("the key that seals credentials")?;
    let options = StoreOptions { vault: Vault::new(&key), environment };
    Store::open(&config.database(), options).await.context("the database cannot be opened")
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
