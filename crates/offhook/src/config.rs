//! The settings of the process: defaults, then a file, then the environment. It does not know what they are used for.

use anyhow::{Context as _, Result};
use figment::providers::{Env, Format as _, Toml};
use figment::util::nest;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use offhook_carriers::sip::{Listening, TlsListening};
use offhook_core::{E164, Secret};
use offhook_server::telemetry::LogFormat;
use serde::Deserialize;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The reference: every setting with its default.
pub const DEFAULTS: &str = include_str!("../../../offhook.default.toml");

/// A shorter lease runs out while it is renewed; a longer one keeps callers waiting whose server has died.
const LEASE_S: RangeInclusive<u32> = 1..=3_600;

/// All settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: Server,
    pub sip: Sip,
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
pub struct Sip {
    pub udp: String,
    pub tcp: String,
    pub tls: String,
    pub certificate: String,
    pub certificate_key: String,
    pub public_host: String,
    pub rtp_ports: String,
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

impl Sip {
    /// Where SIP is listened for; `None`: nowhere.
    pub fn listening(&self) -> Result<Option<Listening>> {
        let udp = address("sip.udp", &self.udp)?;
        let tcp = address("sip.tcp", &self.tcp)?;
        let tls = address("sip.tls", &self.tls)?;
        if udp.is_none() && tcp.is_none() && tls.is_none() {
            return Ok(None);
        }
        let tls = tls.map(|address| self.tls_listening(address)).transpose()?;
        let public_host = Some(self.public_host.clone()).filter(|host| !host.is_empty());
        Ok(Some(Listening {
            udp,
            tcp,
            tls,
            public_media: public_host.as_deref().and_then(|host| host.parse().ok()),
            public_host,
            rtp_ports: self.rtp_ports()?,
        }))
    }

    fn tls_listening(&self, address: SocketAddr) -> Result<TlsListening> {
        let read = |setting: &str, path: &str| {
            std::fs::read_to_string(path).with_context(|| format!("{setting}: {path} cannot be read"))
        };
        let (certificate_chain, private_key) =
            match (self.certificate.as_str(), self.certificate_key.as_str()) {
                ("", "") => self.own_certificate(address)?,
                ("", _) => {
                    anyhow::bail!("sip.certificate: name the certificate that belongs to sip.certificate_key")
                }
                (_, "") => anyhow::bail!("sip.certificate_key: name the key that belongs to sip.certificate"),
                (chain, key) => (read("sip.certificate", chain)?, read("sip.certificate_key", key)?),
            };
        Ok(TlsListening { address, certificate_chain, private_key: Secret::new(private_key) })
    }

    /// A certificate that nobody but us has signed: enough to encrypt, for peers that do not ask who we are.
    fn own_certificate(&self, address: SocketAddr) -> Result<(String, String)> {
        let name = match self.public_host.as_str() {
            "" => address.ip().to_string(),
            host => host.to_owned(),
        };
        let own =
            rcgen::generate_simple_self_signed([name]).context("a certificate for sip.tls cannot be made")?;
        Ok((own.cert.pem(), own.signing_key.serialize_pem()))
    }

    fn rtp_ports(&self) -> Result<RangeInclusive<u16>> {
        let range = self.rtp_ports.split_once('-').and_then(|(first, last)| {
            let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first >= 1_024 && first < last).then_some(first..=last)
        });
        range.with_context(|| {
            format!(
                "sip.rtp_ports: `{}` is no range of ports from 1024 up, such as 20000-29999",
                self.rtp_ports
            )
        })
    }
}

/// An address of a setting that may be empty.
fn address(setting: &str, text: &str) -> Result<Option<SocketAddr>> {
    match text {
        "" => Ok(None),
        text => Ok(Some(text.parse().with_context(|| {
            format!("{setting}: `{text}` is no address with a port, such as 0.0.0.0:5060")
        })?)),
    }
}

impl Config {
    /// Reads the settings.
    pub fn load(file: Option<&Path>) -> Result<Config> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(file) = file {
            anyhow::ensure!(file.is_file(), "there is no settings file {}", file.display());
            figment = figment.merge(Toml::file_exact(file));
        }
        for variable in Variable::all() {
            figment = figment.merge(variable);
        }
        let config: Config =
            figment.extract().context("the settings cannot be read; offhook.default.toml has them all")?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let lease_s = self.server.lease_s;
        anyhow::ensure!(
            LEASE_S.contains(&lease_s),
            "server.lease_s: {lease_s} is not between {} and {} seconds",
            LEASE_S.start(),
            LEASE_S.end()
        );
        Ok(())
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

    /// The file that tells other commands where the server serves.
    pub fn served_at(&self) -> PathBuf {
        self.server.data.join("served-at")
    }

    /// The file of the keys that seal credentials.
    pub fn vault_key(&self) -> PathBuf {
        match self.server.vault_key.as_str() {
            "" => self.server.data.join("vault.key"),
            path => path.into(),
        }
    }
}

/// A setting that stands in the environment.
#[derive(Debug)]
struct Variable {
    /// Its name in the reference: `server.listen`.
    setting: String,
    value: String,
}

impl Variable {
    fn all() -> Vec<Variable> {
        let sections = ["server.", "sip.", "log.", "demo."];
        Env::prefixed("OFFHOOK_")
            .iter()
            .map(|(name, value)| (name.as_str().to_ascii_lowercase().replacen('_', ".", 1), value))
            .filter(|(setting, _)| sections.iter().any(|section| setting.starts_with(section)))
            .map(|(setting, value)| Variable { setting, value })
            .collect()
    }

    /// The value, of the type that the setting has in the reference: a node's name or a telephone number may look like a figure.
    fn typed(&self) -> Value {
        match Figment::from(Toml::string(DEFAULTS)).find_value(&self.setting) {
            Ok(Value::String(..)) => Value::from(self.value.as_str()),
            _ => self.value.parse().unwrap_or_else(|never: Infallible| match never {}),
        }
    }
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named("an environment variable")
            .interpolater(|_, keys| format!("OFFHOOK_{}", keys.join("_").to_ascii_uppercase()))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = nest(&self.setting, self.typed());
        Ok(nested.into_dict().map(|dict| Map::from([(Profile::Default, dict)])).unwrap_or_default())
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
    fn a_text_in_the_environment_stays_a_text_whatever_it_looks_like() {
        let typed =
            |setting: &str, value: &str| Variable { setting: setting.into(), value: value.into() }.typed();
        for (setting, text) in [
            ("server.node", "1"),
            ("server.node", "0042"),
            ("demo.number", "+15550100100"),
            ("server.vault_key", "[a]"),
            ("log.level", "true"),
        ] {
            assert_eq!(typed(setting, text).as_str(), Some(text), "{setting}");
        }
        assert_eq!(typed("server.lease_s", "20").to_u128(), Some(20));
        assert_eq!(typed("demo.enabled", "false").to_bool(), Some(false));
        let variable = |setting: &str, value: &str| {
            let variable = Variable { setting: setting.into(), value: value.into() };
            Figment::from(Toml::string(DEFAULTS))
                .merge(variable)
                .extract::<Config>()
                .map_err(|e| e.to_string())
        };
        assert_eq!(variable("server.node", "1").unwrap().server.node, "1");
        assert_eq!(variable("demo.number", "+15550100177").unwrap().demo.number.as_str(), "+15550100177");
        let wrong = variable("server.lease_s", "soon").unwrap_err();
        assert!(wrong.contains("OFFHOOK_SERVER_LEASE_S"), "{wrong}");
        let unknown = variable("server.lissten", "127.0.0.1:9").unwrap_err();
        assert!(unknown.contains("lissten"), "{unknown}");
    }

    #[test]
    fn sip_is_off_until_a_transport_has_an_address_and_mistakes_are_named() {
        let sip = |change: &dyn Fn(&mut Sip)| {
            let mut sip = Config::load(None).unwrap().sip;
            change(&mut sip);
            sip.listening().map_err(|error| format!("{error:#}"))
        };
        assert!(sip(&|_| {}).unwrap().is_none());
        let listening = sip(&|sip| {
            (sip.udp, sip.tls) = ("0.0.0.0:5060".into(), "0.0.0.0:5061".into());
            sip.public_host = "203.0.113.5".into();
        });
        let listening = listening.unwrap().unwrap();
        assert_eq!((listening.rtp_ports, listening.tcp), (20_000..=29_999, None));
        assert_eq!(listening.public_media, Some("203.0.113.5".parse().unwrap()));
        assert!(listening.tls.unwrap().certificate_chain.starts_with("-----BEGIN CERTIFICATE"));
        for (change, named) in [
            (&(|sip: &mut Sip| sip.udp = "5060".into()) as &dyn Fn(&mut Sip), "sip.udp"),
            (
                &|sip| (sip.tcp, sip.rtp_ports) = ("0.0.0.0:5060".into(), "30000-20000".into()),
                "sip.rtp_ports",
            ),
            (
                &|sip| (sip.tls, sip.certificate) = ("0.0.0.0:5061".into(), "/x.pem".into()),
                "sip.certificate_key",
            ),
        ] {
            let refused = sip(change).unwrap_err();
            assert!(refused.contains(named), "{refused}");
        }
    }

    #[test]
    fn a_lease_is_neither_over_at_once_nor_endless() {
        for (lease_s, good) in [(0, false), (1, true), (15, true), (3_601, false), (u32::MAX, false)] {
            let mut config = Config::load(None).unwrap();
            config.server.lease_s = lease_s;
            assert_eq!(config.check().is_ok(), good, "{lease_s}");
        }
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
