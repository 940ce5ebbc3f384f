//! Which provider, and how it is reached: the settings of one connection, and what they open.
//! It does not know where settings and keys are kept.

use crate::throttle::Throttle;
use crate::ws::Dial;
use crate::{
    Cause, Endpoint, Llm, ProviderError, Stt, Tts, cartesia, deepgram, elevenlabs, http, offline, openai,
};
use offhook_core::Secret;
use reqwest::RequestBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use url::Url;

/// Longest wait for TCP and TLS unless the settings say otherwise, ms.
const CONNECT_TIMEOUT_MS: u32 = 3_000;

/// Longest wait for the first byte of an answer unless the settings say otherwise, ms.
const FIRST_BYTE_TIMEOUT_MS: u32 = 5_000;

/// Longest silence within an answer unless the settings say otherwise, ms.
const IDLE_TIMEOUT_MS: u32 = 5_000;

/// A provider as it is written in settings: `{"kind": "deepgram", "model": "nova-3"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProviderSettings {
    /// OpenAI, or any server that speaks its REST interface: chat completions, transcription, speech.
    Openai(Connection),
    /// Deepgram: live transcription (`/v1/listen`) and Aura voices.
    Deepgram(Connection),
    /// Deepgram Flux: transcription that tells turns (`/v2/listen`).
    DeepgramFlux(Connection),
    /// ElevenLabs voices.
    Elevenlabs(Connection),
    /// Cartesia voices.
    Cartesia(Connection),
    /// Speech without any account.
    Offline,
}

/// One connection's settings. What is left out is the provider's own (`defaults.json`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connection {
    /// Where the provider is reached, `http://` or `https://`; for OpenAI with its `/v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The model, as the provider calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The voice, as the provider calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voice: Option<String>,
    /// Headers to add to every request, for proxies. They are shown with the settings: not a place for secrets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Options in the provider's own words, put where the provider takes them: fields of the request, or query parameters.
    /// `null` leaves out what would be sent otherwise.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub options: Map<String, Value>,
    /// TCP, TLS and upgrade, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout_ms: Option<u32>,
    /// From a request to the first byte of its answer, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_timeout_ms: Option<u32>,
    /// Between two pieces of an answer, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u32>,
}

/// Why settings open nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The provider does not do this kind of work.
    #[error("{kind} does not offer {role}")]
    NotOffered {
        /// The provider.
        kind: &'static str,
        /// The work.
        role: &'static str,
    },
    /// The base URL is none.
    #[error("{kind}: the base URL must be an http or https address without a query")]
    BaseUrl {
        /// The provider.
        kind: &'static str,
    },
    /// The provider's own servers always ask for a key.
    #[error("{kind}: no key is set")]
    NoKey {
        /// The provider.
        kind: &'static str,
    },
}

/// Opens what the settings say as a recogniser.
pub fn stt(settings: &ProviderSettings, key: Secret<String>) -> Result<Arc<dyn Stt>, SettingsError> {
    match settings {
        ProviderSettings::Openai(connection) => {
            Ok(Arc::new(openai::Transcription(service(connection, "openai", Role::Stt, key)?)))
        }
        ProviderSettings::Deepgram(connection) => {
            Ok(Arc::new(deepgram::Listen(service(connection, "deepgram", Role::Stt, key)?)))
        }
        ProviderSettings::DeepgramFlux(connection) => {
            Ok(Arc::new(deepgram::Flux(service(connection, "deepgram_flux", Role::Stt, key)?)))
        }
        ProviderSettings::Offline => Ok(offline::stt()),
        _ => Err(SettingsError::NotOffered { kind: settings.kind(), role: "speech to text" }),
    }
}

/// Opens what the settings say as a language model.
pub fn llm(settings: &ProviderSettings, key: Secret<String>) -> Result<Arc<dyn Llm>, SettingsError> {
    match settings {
        ProviderSettings::Openai(connection) => {
            Ok(Arc::new(openai::Chat(service(connection, "openai", Role::Llm, key)?)))
        }
        ProviderSettings::Offline => Ok(offline::llm()),
        _ => Err(SettingsError::NotOffered { kind: settings.kind(), role: "a language model" }),
    }
}

/// Opens what the settings say as a voice.
pub fn tts(settings: &ProviderSettings, key: Secret<String>) -> Result<Arc<dyn Tts>, SettingsError> {
    match settings {
        ProviderSettings::Openai(connection) => {
            Ok(Arc::new(openai::Speech(service(connection, "openai", Role::Tts, key)?)))
        }
        ProviderSettings::Deepgram(connection) => {
            Ok(Arc::new(deepgram::Speak(service(connection, "deepgram", Role::Tts, key)?)))
        }
        ProviderSettings::Elevenlabs(connection) => {
            Ok(Arc::new(elevenlabs::Voice(service(connection, "elevenlabs", Role::Tts, key)?)))
        }
        ProviderSettings::Cartesia(connection) => {
            Ok(Arc::new(cartesia::Voice(service(connection, "cartesia", Role::Tts, key)?)))
        }
        ProviderSettings::Offline => Ok(offline::tts()),
        _ => Err(SettingsError::NotOffered { kind: settings.kind(), role: "text to speech" }),
    }
}

/// Tests a connection harmlessly: it asks for a list, and nothing is heard, said or billed.
pub async fn check(settings: &ProviderSettings, key: Secret<String>) -> Result<(), ProviderError> {
    let kind = settings.kind();
    let (connection, request): (_, fn(&Service) -> RequestBuilder) = match settings {
        ProviderSettings::Openai(connection) => (connection, openai::list_request),
        ProviderSettings::Deepgram(connection) | ProviderSettings::DeepgramFlux(connection) => {
            (connection, deepgram::list_request)
        }
        ProviderSettings::Elevenlabs(connection) => (connection, elevenlabs::list_request),
        ProviderSettings::Cartesia(connection) => (connection, cartesia::list_request),
        ProviderSettings::Offline => return Ok(()),
    };
    let service = service(connection, kind, Role::Check, key)
        .map_err(|error| ProviderError::new(kind, Cause::Refused, error.to_string()))?;
    http::ask_once(kind, &service.endpoint, request(&service)).await.map(drop)
}

impl ProviderSettings {
    /// The provider's name, as in `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            ProviderSettings::Openai(_) => "openai",
            ProviderSettings::Deepgram(_) => "deepgram",
            ProviderSettings::DeepgramFlux(_) => "deepgram_flux",
            ProviderSettings::Elevenlabs(_) => "elevenlabs",
            ProviderSettings::Cartesia(_) => "cartesia",
            ProviderSettings::Offline => "offline",
        }
    }
}

/// A provider as an adapter sees it: settings with every default filled in.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) provider: &'static str,
    pub(crate) endpoint: Endpoint,
    pub(crate) model: String,
    pub(crate) voice: String,
    pub(crate) options: Map<String, Value>,
    pub(crate) throttle: Arc<Throttle>,
    base: Url,
}

/// What a provider is wanted for.
#[derive(Clone, Copy)]
enum Role {
    Stt,
    Llm,
    Tts,
    Check,
}

/// What a provider's settings are where nothing is set. Names of models change often: they are data.
#[derive(Deserialize)]
struct Defaults {
    base_url: String,
    #[serde(default)]
    stt_model: String,
    #[serde(default)]
    llm_model: String,
    #[serde(default)]
    tts_model: String,
    #[serde(default)]
    voice: String,
}

fn service(
    connection: &Connection,
    kind: &'static str,
    role: Role,
    key: Secret<String>,
) -> Result<Service, SettingsError> {
    static DEFAULTS: LazyLock<BTreeMap<String, Defaults>> = LazyLock::new(|| {
        serde_json::from_str(include_str!("defaults.json")).expect("a test reads this file")
    });
    let defaults = &DEFAULTS[kind];
    if key.expose().is_empty() && connection.base_url.is_none() {
        return Err(SettingsError::NoKey { kind });
    }
    let base_url = connection.base_url.as_ref().unwrap_or(&defaults.base_url).trim_end_matches('/');
    let base = Url::parse(base_url).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    let model = match role {
        Role::Stt => defaults.stt_model.as_str(),
        Role::Llm => defaults.llm_model.as_str(),
        Role::Tts => defaults.tts_model.as_str(),
        Role::Check => "",
    };
    let timeout = |set: Option<u32>, usual: u32| Duration::from_millis(set.unwrap_or(usual).into());
    Ok(Service {
        provider: kind,
        base: base.ok_or(SettingsError::BaseUrl { kind })?,
        endpoint: Endpoint {
            key,
            headers: connection.headers.clone(),
            connect_timeout: timeout(connection.connect_timeout_ms, CONNECT_TIMEOUT_MS),
            first_byte_timeout: timeout(connection.first_byte_timeout_ms, FIRST_BYTE_TIMEOUT_MS),
            idle_timeout: timeout(connection.idle_timeout_ms, IDLE_TIMEOUT_MS),
        },
        model: connection.model.clone().unwrap_or_else(|| model.to_owned()),
        voice: connection.voice.clone().unwrap_or_else(|| defaults.voice.clone()),
        options: connection.options.clone(),
        throttle: Arc::default(),
    })
}

/// A provider as it is without any settings.
pub(crate) fn usual(kind: &'static str, key: Secret<String>) -> Service {
    let connection = Connection { base_url: Some("http://localhost".into()), ..Connection::default() };
    service(&connection, kind, Role::Tts, key).expect("this base URL is one")
}

impl Service {
    /// The address of a resource, for HTTP.
    pub(crate) fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// The host alone, as it is named in the base URL.
    pub(crate) fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// The address of a WebSocket, with what is asked for as its query. Options of the settings go before `asked`,
    /// unless they are among `elsewhere`: those are sent in messages.
    pub(crate) fn ws_url(&self, path: &[&str], asked: &[(&str, &str)], elsewhere: &[&str]) -> Url {
        let mut url = self.url(path);
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        url.set_scheme(scheme).expect("http and ws are both schemes of the web");
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(asked.iter().filter(|(name, _)| !self.options.contains_key(*name)));
            for (name, value) in self.options.iter().filter(|(name, _)| !elsewhere.contains(&name.as_str())) {
                let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                for value in values.iter().filter(|value| !value.is_null()) {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    query.append_pair(name, &text);
                }
            }
        }
        if url.query() == Some("") {
            url.set_query(None);
        }
        url
    }

    /// Where a WebSocket session connects to, and the headers that it connects with.
    pub(crate) fn dial(&self, url: Url, headers: Vec<(&'static str, String)>) -> Dial {
        let throttle = self.throttle.clone();
        Dial { provider: self.provider, endpoint: self.endpoint.clone(), throttle, url, headers }
    }

    /// The names of all options, where all go into messages.
    pub(crate) fn option_names(&self) -> Vec<&str> {
        self.options.keys().map(String::as_str).collect()
    }

    /// Fields of a message, changed as the settings' options say.
    pub(crate) fn with_options(&self, fields: Value) -> Map<String, Value> {
        let Value::Object(mut fields) = fields else { return self.options.clone() };
        for (name, value) in &self.options {
            match value {
                Value::Null => drop(fields.remove(name)),
                value => drop(fields.insert(name.clone(), value.clone())),
            }
        }
        fields
    }

    /// The header that carries the key, if there is one.
    pub(crate) fn key_header(&self, name: &'static str, scheme: &str) -> Option<(&'static str, String)> {
        let key = self.endpoint.key.expose();
        (!key.is_empty()).then(|| (name, format!("{scheme}{key}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_defaults_filled_in() {
        let text = r#"{"kind":"deepgram","base_url":"http://localhost:9100/","options":{"tier":1,"keyterm":["a","b"],"numerals":null}}"#;
        let settings: ProviderSettings = serde_json::from_str(text).unwrap();
        let ProviderSettings::Deepgram(connection) = &settings else { panic!("{settings:?}") };
        let service = service(connection, "deepgram", Role::Stt, Secret::default()).unwrap();
        let url = service.ws_url(&["v1", "listen"], &[("model", &service.model), ("numerals", "true")], &[]);
        assert_eq!(url.as_str(), "ws://localhost:9100/v1/listen?model=nova-3&keyterm=a&keyterm=b&tier=1");
        assert_eq!(
            serde_json::from_str::<ProviderSettings>(&serde_json::to_string(&settings).unwrap()).unwrap(),
            settings
        );
        assert!(serde_json::from_str::<ProviderSettings>(r#"{"kind":"deepgram","modle":"x"}"#).is_err());
    }

    #[test]
    fn settings_that_cannot_work_are_refused_at_once() {
        let key = || Secret::new("k".to_string());
        let openai = |base_url: &str| {
            ProviderSettings::Openai(Connection { base_url: Some(base_url.into()), ..Connection::default() })
        };
        for bad in ["", "api.example", "ftp://a.example", "https://a.example/?key=1"] {
            assert_eq!(
                llm(&openai(bad), key()).err(),
                Some(SettingsError::BaseUrl { kind: "openai" }),
                "{bad}"
            );
        }
        let bare = ProviderSettings::Openai(Connection::default());
        assert_eq!(llm(&bare, Secret::default()).err(), Some(SettingsError::NoKey { kind: "openai" }));
        assert!(
            llm(&openai("http://localhost:8080/v1"), Secret::default()).is_ok(),
            "local servers need no key"
        );
        let voice = ProviderSettings::Cartesia(Connection::default());
        assert!(matches!(stt(&voice, key()).err(), Some(SettingsError::NotOffered { kind: "cartesia", .. })));
    }

    #[test]
    fn every_provider_has_its_defaults() {
        for kind in ["openai", "deepgram", "deepgram_flux", "elevenlabs", "cartesia"] {
            let service =
                service(&Connection::default(), kind, Role::Check, Secret::new("k".into())).unwrap();
            assert_eq!(service.base.scheme(), "https");
        }
    }
}
