//! What a user tells us about a SIP trunk: where it is, how it proves itself, what it may do.
//! This is data and the rules between its parts; nothing here sends anything.

use offhook_core::{E164, Secret};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The port of SIP over UDP and TCP.
pub const SIP_PORT: u16 = 5060;
/// The shortest session interval that we accept, seconds (RFC 4028, section 4).
pub const MIN_SESSION_S: u32 = 90;

/// Which trunk: the id of its connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrunkId(pub String);

impl fmt::Display for TrunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A trunk with its password.
#[derive(Clone, Debug, PartialEq)]
pub struct Trunk {
    /// Which one.
    pub id: TrunkId,
    /// What the user told us about it.
    pub settings: TrunkSettings,
    /// What answers digest challenges, theirs and ours.
    pub password: Option<Secret<String>>,
}

/// What a user tells us about a trunk; the `config` of a SIP connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrunkSettings {
    /// The host of the carrier, registrar or PBX: a name or an address.
    pub domain: String,
    /// Its port; without one the DNS is asked (RFC 3263), and then the transport's usual port is taken.
    #[serde(default)]
    pub port: Option<u16>,
    /// How it is reached.
    #[serde(default)]
    pub transport: Transport,
    /// The certificate (PEM) that a host of its own making signs with; without one those that the system trusts.
    #[serde(default)]
    pub ca_certificate: Option<String>,
    /// A proxy that all our requests go through: `host`, `host:port`.
    #[serde(default)]
    pub outbound_proxy: Option<String>,
    /// Whether we register there, as an extension does.
    #[serde(default)]
    pub register: bool,
    /// How long a registration is asked for, seconds.
    #[serde(default = "default_expiry_s")]
    pub register_expiry_s: u32,
    /// Our user name there: extension or account.
    #[serde(default)]
    pub username: Option<String>,
    /// The name in digest answers, where it is not the user name.
    #[serde(default)]
    pub auth_username: Option<String>,
    /// The only realm whose challenges are answered.
    #[serde(default)]
    pub realm: Option<String>,
    /// The user of `From`, where it is not the calling number.
    #[serde(default)]
    pub from_user: Option<String>,
    /// The host of `From`, where it is not the domain.
    #[serde(default)]
    pub from_host: Option<String>,
    /// How the calling number is told.
    #[serde(default)]
    pub caller_id: CallerId,
    /// Calls from there must prove that they know user name and password.
    #[serde(default)]
    pub challenge_inbound: bool,
    /// Whether its `P-Asserted-Identity` is believed (RFC 3325).
    #[serde(default = "yes")]
    pub trust_identity: bool,
    /// Networks that its requests may come from; none: the addresses of its domain.
    #[serde(default)]
    pub allowed: Vec<Network>,
    /// Networks that its audio may come from; none: any.
    #[serde(default)]
    pub media_networks: Vec<Network>,
    /// The numbers that lead here; none: any.
    #[serde(default)]
    pub numbers: Vec<E164>,
    /// The country whose national numbers it writes, ISO 3166-1 alpha-2.
    #[serde(default)]
    pub country: Option<String>,
    /// Codecs that we speak there, the first is liked best.
    #[serde(default = "default_codecs")]
    pub codecs: Vec<CodecName>,
    /// How keys travel.
    #[serde(default)]
    pub dtmf: DtmfMode,
    /// Whether audio is encrypted.
    #[serde(default)]
    pub srtp: SrtpMode,
    /// Whether session timers are spoken (RFC 4028).
    #[serde(default = "yes")]
    pub session_timer: bool,
    /// The session interval that we ask for, seconds; none: only where the peer asks.
    #[serde(default)]
    pub session_expires_s: Option<u32>,
    /// How often a peer is asked whether it lives, seconds; 0 never.
    #[serde(default = "default_options_s")]
    pub options_s: u32,
    /// How often an empty line keeps a NAT open, seconds; 0 never.
    #[serde(default = "default_keepalive_s")]
    pub keepalive_s: u32,
    /// How many calls run at once, both ways together.
    #[serde(default = "default_max_calls")]
    pub max_calls: u32,
    /// How many calls begin in a second, each way.
    #[serde(default = "default_max_cps")]
    pub max_cps: u32,
    /// Whether we go where a 3xx answer sends us.
    #[serde(default)]
    pub follow_redirects: bool,
    /// A call whose audio and RTCP were silent so long is over, seconds; 0 never.
    #[serde(default = "default_silence_s")]
    pub silence_s: u32,
}

fn yes() -> bool {
    true
}
fn default_expiry_s() -> u32 {
    600
}
fn default_codecs() -> Vec<CodecName> {
    vec![CodecName::Pcmu, CodecName::Pcma]
}
fn default_options_s() -> u32 {
    30
}
fn default_keepalive_s() -> u32 {
    25
}
fn default_max_calls() -> u32 {
    100
}
fn default_max_cps() -> u32 {
    50
}
fn default_silence_s() -> u32 {
    30
}

/// How SIP travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Datagrams.
    #[default]
    Udp,
    /// A stream.
    Tcp,
    /// An encrypted stream.
    Tls,
}

impl Transport {
    /// As it stands behind `transport=` in a SIP URI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        }
    }
}

/// How the calling number is told to the trunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallerId {
    /// As the user of `From`.
    From,
    /// In `P-Asserted-Identity`, `From` holds our account.
    Asserted,
    /// In both.
    #[default]
    Both,
}

/// A codec by the name that users know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodecName {
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// Opus.
    Opus,
}

/// How keys travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DtmfMode {
    /// As events among the audio packets (RFC 4733).
    #[default]
    Rfc4733,
    /// As SIP INFO.
    Info,
    /// As tones.
    Inband,
}

/// Whether audio is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SrtpMode {
    /// Never.
    #[default]
    Off,
    /// If the peer offers it.
    Optional,
    /// Always: a call without it is refused.
    Required,
}

/// Addresses that begin alike: `54.172.60.0/30`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network is written as 54.172.60.0/30, 2001:db8::/32, or one address")]
pub struct NotANetwork;

impl Network {
    /// One address.
    pub fn one(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Network { base: address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Its first address, and how many leading bits all its addresses share.
    pub fn parts(&self) -> (IpAddr, u8) {
        (self.base, self.bits)
    }

    /// Whether the address is in it; IPv4 in IPv6 clothes is IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                base.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                base.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base, Some(bits.parse::<u8>().map_err(|_| NotANetwork)?)),
            None => (text, None),
        };
        let whole = Network::one(base.parse().map_err(|_| NotANetwork)?);
        match bits {
            Some(bits) if bits > whole.bits => Err(NotANetwork),
            Some(bits) => Ok(Network { bits, ..whole }),
            None => Ok(whole),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = NotANetwork;

    fn try_from(text: String) -> Result<Self, NotANetwork> {
        text.parse()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

/// Why settings make no trunk; the sentence is for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// Name the host.
    #[error("`domain` must be the host of the carrier or PBX, as sip.example.com or 203.0.113.5")]
    Domain,
    /// Give a user name.
    #[error("`username` is needed to register and to challenge callers")]
    Username,
    /// Give a password.
    #[error("a password is needed to register and to challenge callers")]
    Password,
    /// Name a codec.
    #[error("`codecs` must name at least one of pcmu, pcma, opus")]
    Codecs,
    /// Use TLS.
    #[error("`srtp: required` needs `transport: tls`: the keys travel in the signalling")]
    KeysInTheOpen,
    /// Correct the number.
    #[error("`session_expires_s` must be at least {MIN_SESSION_S}")]
    SessionTooShort,
    /// Correct the host.
    #[error("`{0}` holds a character that cannot stand in a SIP address")]
    Unspeakable(&'static str),
}

impl TrunkSettings {
    /// A trunk at a host, everything else as usual.
    pub fn at(domain: impl Into<String>) -> Self {
        TrunkSettings {
            domain: domain.into(),
            port: None,
            transport: Transport::Udp,
            ca_certificate: None,
            outbound_proxy: None,
            register: false,
            register_expiry_s: default_expiry_s(),
            username: None,
            auth_username: None,
            realm: None,
            from_user: None,
            from_host: None,
            caller_id: CallerId::default(),
            challenge_inbound: false,
            trust_identity: true,
            allowed: Vec::new(),
            media_networks: Vec::new(),
            numbers: Vec::new(),
            country: None,
            codecs: default_codecs(),
            dtmf: DtmfMode::default(),
            srtp: SrtpMode::default(),
            session_timer: true,
            session_expires_s: None,
            options_s: default_options_s(),
            keepalive_s: default_keepalive_s(),
            max_calls: default_max_calls(),
            max_cps: default_max_cps(),
            follow_redirects: false,
            silence_s: default_silence_s(),
        }
    }

    /// Whether a registrar there calls us by this name. A peer's user name only proves calls: it says nothing about who is called.
    pub fn registers_as(&self, user: &str) -> bool {
        self.register && self.username.as_deref() == Some(user)
    }

    /// The rules between the settings that their shapes do not hold.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, has_password: bool) -> Result<(), BadSettings> {
        if self.domain.is_empty() {
            return Err(BadSettings::Domain);
        }
        let spoken = [
            ("domain", Some(&self.domain)),
            ("outbound_proxy", self.outbound_proxy.as_ref()),
            ("username", self.username.as_ref()),
            ("from_user", self.from_user.as_ref()),
            ("from_host", self.from_host.as_ref()),
        ];
        for (name, value) in spoken {
            // They are written into messages as they are: nothing may end an address, a header or a line.
            if value.is_some_and(|value| {
                !value.chars().all(|c| c.is_ascii_graphic() && !"<>\"@;?,\\".contains(c))
            }) {
                return Err(BadSettings::Unspeakable(name));
            }
        }
        if self.register || self.challenge_inbound {
            if self.username.is_none() {
                return Err(BadSettings::Username);
            }
            if !has_password {
                return Err(BadSettings::Password);
            }
        }
        if self.codecs.is_empty() {
            return Err(BadSettings::Codecs);
        }
        if self.srtp == SrtpMode::Required && self.transport != Transport::Tls {
            return Err(BadSettings::KeysInTheOpen);
        }
        if self.session_expires_s.is_some_and(|s| s < MIN_SESSION_S) {
            return Err(BadSettings::SessionTooShort);
        }
        Ok(())
    }

    /// The name in digest answers.
    pub(super) fn digest_name(&self) -> &str {
        self.auth_username.as_deref().or(self.username.as_deref()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_other() {
        let held = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        for (network, address) in [
            ("54.172.60.0/30", "54.172.60.3"),
            ("54.172.60.1", "::ffff:54.172.60.1"),
            ("0.0.0.0/0", "203.0.113.9"),
            ("2001:db8::/32", "2001:db8:1::9"),
        ] {
            assert!(held(network, address), "{network} {address}");
        }
        for (network, address) in [
            ("54.172.60.0/30", "54.172.60.4"),
            ("0.0.0.0/0", "2001:db8::1"),
            ("2001:db8::/32", "2001:db9::1"),
            ("10.0.0.1", "10.0.0.2"),
        ] {
            assert!(!held(network, address), "{network} {address}");
        }
        for nonsense in ["", "10.0.0.0/33", "10.0.0/8", "host/8", "::/129", "10.0.0.0/"] {
            assert_eq!(nonsense.parse::<Network>(), Err(NotANetwork), "{nonsense}");
        }
    }

    #[test]
    fn little_needs_to_be_told() {
        let least: TrunkSettings = serde_json::from_str(r#"{"domain":"sip.example.com"}"#).unwrap();
        assert_eq!(least, TrunkSettings::at("sip.example.com"));
        assert_eq!(least.check(false), Ok(()));
        assert!(serde_json::from_str::<TrunkSettings>(r#"{"domain":"x","pasword":"y"}"#).is_err());
        let whole = serde_json::to_string(&least).unwrap();
        assert_eq!(serde_json::from_str::<TrunkSettings>(&whole).unwrap(), least);
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let with = |change: fn(&mut TrunkSettings)| {
            let mut settings = TrunkSettings::at("sip.example.com");
            change(&mut settings);
            settings.check(false)
        };
        assert_eq!(with(|s| s.register = true), Err(BadSettings::Username));
        assert_eq!(
            with(|s| (s.register, s.username) = (true, Some("100".into()))),
            Err(BadSettings::Password)
        );
        assert_eq!(with(|s| s.codecs.clear()), Err(BadSettings::Codecs));
        assert_eq!(with(|s| s.srtp = SrtpMode::Required), Err(BadSettings::KeysInTheOpen));
        assert_eq!(with(|s| s.session_expires_s = Some(30)), Err(BadSettings::SessionTooShort));
        assert_eq!(with(|s| s.domain = "a\r\nVia: x".into()), Err(BadSettings::Unspeakable("domain")));
    }
}
