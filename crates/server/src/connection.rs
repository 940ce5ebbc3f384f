//! What a connection must be to be of any use: its kind, account, settings and secret, for whoever makes one. It does not know where
//! connections are kept, or what goes through them.

use crate::agent::OFFLINE;
use crate::carrier::telnyx::TelnyxConfig;
use crate::carrier::twilio::TwilioConfig;
use offhook_carriers::sip::TrunkSettings;
use offhook_carriers::telnyx;
use offhook_carriers::twilio::{api_host, is_account};
use offhook_core::Secret;
use offhook_providers::{self as providers, ProviderSettings, SettingsError};
use offhook_store::ConnectionSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

/// What is sealed for a Twilio connection: the auth token, which signs webhooks, and perhaps an API key, which the REST interface is
/// asked with then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwilioSecret {
    /// The account's primary auth token.
    pub auth_token: Secret<String>,
    /// Id and secret of an API key.
    pub api_key: Option<(String, Secret<String>)>,
}

#[derive(Serialize, Deserialize)]
struct TokenAndKey {
    auth_token: String,
    api_key_sid: String,
    api_key_secret: String,
}

impl TwilioSecret {
    /// Reads what was sealed: a token, or a token and a key.
    pub fn read(sealed: &Secret<String>) -> Self {
        let text = sealed.expose();
        match serde_json::from_str::<TokenAndKey>(text) {
            Ok(both) if text.starts_with('{') => TwilioSecret {
                auth_token: Secret::new(both.auth_token),
                api_key: Some((both.api_key_sid, Secret::new(both.api_key_secret))),
            },
            _ => TwilioSecret { auth_token: sealed.clone(), api_key: None },
        }
    }

    /// The text that is sealed.
    pub fn text(&self) -> Secret<String> {
        let Some((sid, secret)) = &self.api_key else { return self.auth_token.clone() };
        let both = TokenAndKey {
            auth_token: self.auth_token.expose().clone(),
            api_key_sid: sid.clone(),
            api_key_secret: secret.expose().clone(),
        };
        Secret::new(serde_json::to_string(&both).expect("texts are JSON"))
    }
}

/// What a carrier's webhooks are signed with, where it is one of the secrets.
pub fn signing_secret(kind: &str, sealed: &Secret<String>) -> Secret<String> {
    match kind {
        "twilio" => TwilioSecret::read(sealed).auth_token,
        _ => sealed.clone(),
    }
}

/// Why a connection could not work: which part of it, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {wrong}")]
pub struct NotAConnection {
    /// `kind`, `name`, `account`, `secret`, `config` or a setting in it.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub wrong: String,
}

impl NotAConnection {
    fn new(field: &str, wrong: impl ToString) -> Self {
        NotAConnection { field: field.into(), wrong: wrong.to_string() }
    }
}

/// Whether such a connection could work at all.
pub fn check(spec: &ConnectionSpec) -> Result<(), NotAConnection> {
    let wrong = |field: &str, wrong: &str| Err(NotAConnection::new(field, wrong));
    if spec.name == OFFLINE {
        return wrong("name", "`offline` stands for the providers that need no connection: choose another");
    }
    // An empty token signs what anybody can sign.
    if spec.secret.as_ref().is_some_and(|secret| secret.expose().trim().is_empty()) {
        return wrong("secret", "it is empty: give the token or key, or leave it out");
    }
    match spec.kind.as_str() {
        "twilio" => match &spec.account {
            None => wrong("account", "a carrier's connection needs the id of the account there"),
            Some(account) if !is_account(account) => {
                wrong("account", "an Account SID is `AC` and 32 hexadecimal digits")
            }
            Some(_) => twilio_base(&spec.config).map(drop),
        },
        "telnyx" if spec.account.is_some() => {
            wrong("account", "Telnyx tells accounts apart by their keys: leave it out")
        }
        "telnyx" => telnyx_base(&spec.config).map(drop),
        "sip" if spec.account.is_some() => {
            wrong("account", "a trunk has none: its user name is `config.username`")
        }
        "sip" => trunk(&spec.config).map(drop),
        kind => provider(kind, &spec.config).map(drop),
    }
}

/// The settings of a SIP trunk.
pub fn trunk(config: &Value) -> Result<TrunkSettings, NotAConnection> {
    let settings: TrunkSettings =
        serde_json::from_value(config.clone()).map_err(|error| NotAConnection::new("config", error))?;
    // Whether there is a password is known where it is used: a change need not name the one that is stored.
    settings.check(true).map_err(|error| NotAConnection::new("config", error))?;
    Ok(settings)
}

/// The settings of a provider's connection.
pub fn provider(kind: &str, config: &Value) -> Result<ProviderSettings, NotAConnection> {
    if kind == OFFLINE {
        return Err(NotAConnection::new("kind", "what is offline needs no connection"));
    }
    let mut settings = config.as_object().cloned().unwrap_or_default();
    settings.insert("kind".into(), json!(kind));
    let settings: ProviderSettings = serde_json::from_value(Value::Object(settings)).map_err(|error| {
        let words = error.to_string();
        match words.contains("unknown variant") {
            true => NotAConnection::new("kind", format!("`{kind}` is neither a carrier nor a provider")),
            false => NotAConnection::new("config", words),
        }
    })?;
    let any_key = || Secret::new("any".to_owned());
    let opened = [
        providers::stt(&settings, any_key()).err(),
        providers::llm(&settings, any_key()).err(),
        providers::tts(&settings, any_key()).err(),
    ];
    let unusable = opened.into_iter().flatten().find(|e| !matches!(e, SettingsError::NotOffered { .. }));
    unusable.map_or(Ok(settings), |error| Err(NotAConnection::new("config", error)))
}

/// Whether a secret that was given for one place would go to another after a change of settings.
pub fn leads_elsewhere(kind: &str, before: &Value, after: &Value) -> bool {
    destination(kind, before) != destination(kind, after)
}

/// Scheme, host and port of where the secret goes; `None` where it is the provider's own place.
fn destination(kind: &str, config: &Value) -> Option<String> {
    match kind {
        "twilio" => return twilio_base(config).ok().map(|base| base.origin().ascii_serialization()),
        "telnyx" => return telnyx_base(config).ok().map(|base| base.origin().ascii_serialization()),
        // Digest never sends the password itself; what it proves, it proves to the host that asks.
        "sip" => return trunk(config).ok().map(|trunk| trunk.domain),
        _ => {}
    }
    let base = config["base_url"].as_str()?;
    Some(base.parse::<Url>().map_or_else(|_| base.to_owned(), |base| base.origin().ascii_serialization()))
}

/// Where a Twilio connection's REST interface is.
fn twilio_base(config: &Value) -> Result<Url, NotAConnection> {
    let config: TwilioConfig =
        serde_json::from_value(config.clone()).map_err(|error| NotAConnection::new("config", error))?;
    if let Some(page) = &config.fallback_url {
        address("config.fallback_url", page)?;
    }
    let Some(base) = config.api_base else {
        return api_host(config.region.as_deref(), config.edge.as_deref())
            .map_err(|error| NotAConnection::new("config", error));
    };
    api_base(&base)
}

/// Where a Telnyx connection's REST interface is.
fn telnyx_base(config: &Value) -> Result<Url, NotAConnection> {
    let config: TelnyxConfig =
        serde_json::from_value(config.clone()).map_err(|error| NotAConnection::new("config", error))?;
    config
        .public_key
        .parse::<telnyx::webhook::PublicKey>()
        .map_err(|error| NotAConnection::new("config.public_key", error))?;
    config.api_base.map_or_else(|| Ok(telnyx::api_host()), |base| api_base(&base))
}

fn api_base(base: &str) -> Result<Url, NotAConnection> {
    address("config.api_base", base)
}

fn address(field: &str, address: &str) -> Result<Url, NotAConnection> {
    let address: Url = address.parse().map_err(|error| NotAConnection::new(field, error))?;
    match address.scheme() {
        "http" | "https" => Ok(address),
        _ => Err(NotAConnection::new(field, "it must be an http or https address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut ConnectionSpec)) -> Option<String> {
        let mut spec = ConnectionSpec {
            kind: "twilio".into(),
            name: "line".into(),
            account: Some("AC00000000000000000000000000000001".into()),
            config: json!({}),
            secret: Some(Secret::new("token".into())),
        };
        change(&mut spec);
        check(&spec).err().map(|error| error.field)
    }

    #[test]
    fn what_could_never_work_is_refused_by_the_part_that_is_wrong() {
        assert_eq!(refused(|_| {}), None);
        assert_eq!(refused(|spec| spec.secret = None), None);
        for empty in ["", "  "] {
            assert_eq!(refused(|spec| spec.secret = Some(Secret::new(empty.into()))), Some("secret".into()));
        }
        assert_eq!(refused(|spec| spec.name = "offline".into()), Some("name".into()));
        assert_eq!(refused(|spec| spec.account = None), Some("account".into()));
        assert_eq!(refused(|spec| spec.account = Some("not-a-sid".into())), Some("account".into()));
        for kind in ["opnai", "offline", ""] {
            assert_eq!(refused(|spec| spec.kind = kind.into()), Some("kind".into()), "{kind}");
        }
        for (kind, config, field) in [
            ("twilio", json!({ "regoin": "ie1" }), "config"),
            ("twilio", json!({ "region": "ie1" }), "config"),
            ("twilio", json!({ "api_base": "ftp://127.0.0.1" }), "config.api_base"),
            ("twilio", json!({ "fallback_url": "call my mobile" }), "config.fallback_url"),
            ("telnyx", json!({ "public_key": "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=" }), "account"),
            ("openai", json!({ "base_ulr": "http://127.0.0.1/v1" }), "config"),
            ("openai", json!({ "base_url": "127.0.0.1" }), "config"),
            ("cartesia", json!({ "base_url": "ftp://127.0.0.1" }), "config"),
        ] {
            let refused = refused(|spec| {
                spec.kind = kind.into();
                spec.config = config.clone();
            });
            assert_eq!(refused.as_deref(), Some(field), "{kind} {config}");
        }
    }

    #[test]
    fn a_telnyx_connection_has_the_public_key_of_its_account() {
        const KEY: &str = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
        let refused = |config: Value| {
            refused(|spec| {
                (spec.kind, spec.account, spec.config) = ("telnyx".into(), None, config.clone());
            })
        };
        assert_eq!(refused(json!({ "public_key": KEY })), None);
        assert_eq!(refused(json!({ "public_key": &KEY[..20] })), Some("config.public_key".into()));
        assert_eq!(refused(json!({})), Some("config".into()));
        assert_eq!(refused(json!({ "public_key": KEY, "byte_order": "middle" })), Some("config".into()));
        assert_eq!(
            refused(json!({ "public_key": KEY, "api_base": "ftp://x" })),
            Some("config.api_base".into())
        );
    }

    #[test]
    fn a_trunk_has_a_host_and_settings_that_go_together() {
        let refused = |config: Value| {
            refused(|spec| {
                (spec.kind, spec.account, spec.config) = ("sip".into(), None, config.clone());
            })
        };
        assert_eq!(refused(json!({ "domain": "sip.example.com" })), None);
        assert_eq!(refused(json!({ "domain": "203.0.113.5", "allowed": ["203.0.113.0/24"] })), None);
        for config in [
            json!({}),
            json!({ "domain": "" }),
            json!({ "domain": "a b" }),
            json!({ "domain": "a", "domian": "b" }),
            json!({ "domain": "a", "allowed": ["203.0.113.0/33"] }),
            json!({ "domain": "a", "register": true }),
            json!({ "domain": "a", "srtp": "required" }),
            json!({ "domain": "a", "codecs": [] }),
        ] {
            assert_eq!(refused(config.clone()), Some("config".into()), "{config}");
        }
    }

    #[test]
    fn a_token_and_a_key_are_sealed_as_one_text() {
        let alone = TwilioSecret { auth_token: Secret::new("token".into()), api_key: None };
        let key = Some(("SK1".to_owned(), Secret::new("k".to_owned())));
        let both = TwilioSecret { api_key: key, ..alone.clone() };
        for secret in [&alone, &both] {
            assert_eq!(TwilioSecret::read(&secret.text()), *secret);
            assert_eq!(signing_secret("twilio", &secret.text()).expose(), "token");
        }
        assert_eq!(alone.text().expose(), "token");
        let odd = Secret::new("{not ours".to_owned());
        assert_eq!(TwilioSecret::read(&odd).auth_token, odd);
    }

    #[test]
    fn only_another_host_is_another_place() {
        let elsewhere = |kind: &str, config: Value| {
            let setting = if kind == "twilio" { "api_base" } else { "base_url" };
            [json!({}), json!({ setting: "https://a.example/v1" })]
                .map(|before| leads_elsewhere(kind, &before, &config))
        };
        assert_eq!(elsewhere("openai", json!({ "model": "m" })), [false, true]);
        assert_eq!(elsewhere("openai", json!({ "base_url": "https://a.example/v2" })), [true, false]);
        for other in ["http://a.example/v1", "https://a.example:444/v1", "https://b.example/v1"] {
            assert_eq!(elsewhere("openai", json!({ "base_url": other })), [true, true], "{other}");
        }
        assert_eq!(elsewhere("twilio", json!({})), [false, true]);
        assert_eq!(elsewhere("twilio", json!({ "api_base": "https://a.example/x" })), [true, false]);
        assert_eq!(elsewhere("twilio", json!({ "region": "ie1", "edge": "dublin" })), [true, true]);
    }
}
