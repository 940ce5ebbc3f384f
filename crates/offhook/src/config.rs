//! The settings of the process: defaults, then a file, then the environment. It does not know what they are used for.

use anyhow::{Context as _, Result};
use figment::Figment;
use figment::providers::{Env, Format as _, Toml};
use offhook_core::E164;
use offhook_server::telemetry::LogFormat;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The reference: every setting with its default.
pub const DEFAULTS: &str = include_str!("../../../offhook.default.toml");

/// All settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: Server,
    pub log: Log,
    pub demo: Demo,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub listen: SocketAddr,
    pub public_url: String,
    pub data: PathBuf,
    pub database: String,
    pub vault_key: String,
    pub node: String,
    pub lease_s: u32,
    pub drain_s: u64,
    pub rehearse: bool,
    pub workers: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demo {
    pub enabled: bool,
    pub number: E164,
}

impl Config {
    /// Reads the settings.
    pub fn load(file: Option<&Path>) -> Result<Config> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(file) = file {
            anyhow::ensure!(file.is_file(), "there is no settings file {}", file.display());
            figment = figment.merge(Toml::file_exact(file));
        }
        let environment = Env::prefixed("OFFHOOK_")
            .filter(|key| {
                ["server_", "log_", "demo_"].iter().any(|s| key.as_str().to_ascii_lowercase().starts_with(s))
            })
            .map(|key| key.as_str().to_ascii_lowercase().replacen('_', ".", 1).into());
        figment
            .merge(environment)
            .extract()
            .context("the settings cannot be read; offhook.default.toml has them all")
    }

    /// The database's address.
    pub fn database(&self) -> String {
        match self.server.database.as_str() {
            "" => format!("sqlite://{}", absolute(&self.server.data.join("offhook.db")).display()),
            address => address.to_owned(),
        }
    }

    /// Where the database is, without the password that its address may hold.
    pub fn database_place(&self) -> String {
        match self.server.database.as_str() {
            "" => self.server.data.display().to_string(),
            address if address.starts_with("sqlite:") => address.to_owned(),
            _ => "server.database".to_owned(),
        }
    }

    /// The file of the keys that seal credentials.
    pub fn vault_key(&self) -> PathBuf {
        match self.server.vault_key.as_str() {
            "" => self.server.data.join("vault.key"),
            path => path.into(),
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_holds_every_setting() {
        let config = Config::load(None).unwrap();
        assert_eq!(config.server.listen.port(), 8080);
        assert!(config.database().starts_with("sqlite:///"), "{}", config.database());
    }

    #[test]
    fn a_file_need_only_hold_what_differs_and_its_mistakes_are_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[server]\nlisten = \"127.0.0.1:9\"\n").unwrap();
        assert_eq!(Config::load(Some(file.path())).unwrap().server.listen.port(), 9);
        std::fs::write(file.path(), "[server]\nlissten = \"127.0.0.1:9\"\n").unwrap();
        assert!(format!("{:#}", Config::load(Some(file.path())).unwrap_err()).contains("lissten"));
    }
}
