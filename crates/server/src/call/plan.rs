//! From a ringing number to everything the call may depend on. It reads the store once; after that the call asks nobody.

use crate::agent::{AgentConfig, ConfigError, OFFLINE, Overflow, ProviderUse};
use crate::app::App;
use crate::speech::Speech;
use offhook_core::call::CallPlan;
use offhook_core::entity::Connection;
use offhook_core::{AgentId, AgentVersionId, E164, Secret};
use offhook_providers::{self as providers, ProviderSettings, SettingsError};
use offhook_providers::{Llm, Stt, Tts};
use offhook_store::{Page, Scope, Store, StoreError};
use serde_json::{Value, json};
use std::sync::Arc;

/// An agent ready to take a call.
#[derive(Debug)]
pub struct Ready {
    /// Who it is.
    pub agent: AgentId,
    /// As which version.
    pub version: AgentVersionId,
    /// Calls it takes at the same time at most, and what becomes of more.
    pub max_open_calls: Option<u32>,
    /// What becomes of those above.
    pub overflow: OverflowTo,
    /// What the call depends on.
    pub plan: CallPlan,
    /// Its providers.
    pub speech: Arc<Speech>,
}

/// What becomes of a caller above the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverflowTo {
    /// The engaged tone.
    Busy,
    /// Where the number's calls are forwarded, else here.
    Forward(Option<E164>),
    /// These words.
    Message(String),
}

/// Why an agent cannot take a call.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// It was stopped.
    #[error("the agent is stopped")]
    Stopped,
    /// Its settings are none.
    #[error("the agent's settings are wrong")]
    Config(#[source] ConfigError),
    /// It names a connection that there is none of.
    #[error("the agent uses a connection named `{0}`, and there is none")]
    NoConnection(String),
    /// A connection's settings open nothing.
    #[error("connection `{name}` cannot be used")]
    Provider {
        /// The connection.
        name: String,
        /// Why.
        #[source]
        error: SettingsError,
    },
    /// A connection's settings are not a provider's.
    #[error("connection `{name}` has settings that its provider does not know: {wrong}")]
    Settings {
        /// The connection.
        name: String,
        /// What is wrong.
        wrong: String,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// Prepares an agent as it is now.
pub async fn ready(app: &App, scope: &Scope, agent: &AgentId) -> Result<Ready, NotReady> {
    let agent = app.store.agent(scope, agent).await?;
    if !agent.running {
        return Err(NotReady::Stopped);
    }
    let version = app.store.agent_version(scope, &agent.current).await?;
    let config = AgentConfig::read(&version.config).map_err(NotReady::Config)?;
    let speech = speech(app, scope, &config).await?;
    let mut plan = config.plan();
    let time_zone = app.store.workspace(scope).await?.time_zone;
    plan.instructions.push_str(&today(app.environment.now_us(), &time_zone));
    Ok(Ready {
        agent: agent.id,
        version: version.id,
        max_open_calls: config.max_open_calls,
        overflow: match config.overflow {
            Overflow::Busy => OverflowTo::Busy,
            Overflow::Forward => OverflowTo::Forward(config.fallback_number),
            Overflow::Message => OverflowTo::Message(config.overflow_message),
        },
        plan,
        speech: Arc::new(speech),
    })
}

/// Day and time as an agent is told them: it cannot know them otherwise. An unknown time zone is taken for UTC.
fn today(now_us: i64, time_zone: &str) -> String {
    let zone = jiff::tz::TimeZone::get(time_zone).unwrap_or(jiff::tz::TimeZone::UTC);
    let now = jiff::Timestamp::from_microsecond(now_us).unwrap_or_default().to_zoned(zone);
    now.strftime("\n\nToday is %A, %Y-%m-%d. The time is %H:%M.").to_string()
}

/// Opens an agent's providers.
pub async fn speech(app: &App, scope: &Scope, config: &AgentConfig) -> Result<Speech, NotReady> {
    let uses = config.stt.iter().chain(&config.llm).chain(&config.tts);
    let connections = connections(&app.store, scope, uses).await?;
    let mut stt: Vec<Arc<dyn Stt>> = Vec::new();
    let mut llm: Vec<Arc<dyn Llm>> = Vec::new();
    let mut tts: Vec<Arc<dyn Tts>> = Vec::new();
    let mut voice_keys = Vec::new();
    for used in &config.stt {
        let (settings, key) = resolve(used, &connections)?;
        stt.push(providers::stt(&settings, key).map_err(|error| unusable(used, error))?);
    }
    for used in &config.llm {
        let (settings, key) = resolve(used, &connections)?;
        llm.push(providers::llm(&settings, key).map_err(|error| unusable(used, error))?);
    }
    for used in &config.tts {
        let (settings, key) = resolve(used, &connections)?;
        voice_keys.push(json!([settings, config.language]).to_string());
        tts.push(providers::tts(&settings, key).map_err(|error| unusable(used, error))?);
    }
    Ok(Speech {
        stt,
        llm,
        tts,
        voice_keys,
        language: config.language.clone(),
        keywords: config.keywords.clone(),
        endpointing_ms: config.endpointing_ms,
        max_tokens: config.max_tokens,
        temperature_centi: config.temperature_centi,
        phrases: app.phrases.clone(),
        canned_apology: app.canned_apology.clone(),
    })
}

fn unusable(used: &ProviderUse, error: SettingsError) -> NotReady {
    NotReady::Provider { name: used.connection.clone(), error }
}

/// The connections that an agent names, each with its key.
async fn connections<'a>(
    store: &Store,
    scope: &Scope,
    uses: impl Iterator<Item = &'a ProviderUse>,
) -> Result<Vec<(Connection, Secret<String>)>, NotReady> {
    let mut names: Vec<&str> = uses.map(|u| u.connection.as_str()).filter(|name| *name != OFFLINE).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let mut page = Page::first(offhook_store::PAGE_ROWS_MAX);
    loop {
        let listed = store.connections(scope, &page).await?;
        for connection in listed.rows {
            if names.contains(&connection.name.as_str()) {
                let secret = match connection.has_secret {
                    true => store.connection_secret(scope, &connection.id).await?,
                    false => Secret::new(String::new()),
                };
                found.push((connection, secret));
            }
        }
        match listed.next {
            Some(next) if found.len() < names.len() => page = Page::after(next, offhook_store::PAGE_ROWS_MAX),
            _ => return Ok(found),
        }
    }
}

/// A provider as an agent uses it: the connection's settings, and over them the agent's own.
fn resolve(
    used: &ProviderUse,
    connections: &[(Connection, Secret<String>)],
) -> Result<(ProviderSettings, Secret<String>), NotReady> {
    if used.connection == OFFLINE {
        return Ok((ProviderSettings::Offline, Secret::new(String::new())));
    }
    let (connection, key) = connections
        .iter()
        .find(|(c, _)| c.name == used.connection)
        .ok_or_else(|| NotReady::NoConnection(used.connection.clone()))?;
    let mut settings = match &connection.config {
        Value::Object(config) => config.clone(),
        _ => serde_json::Map::new(),
    };
    settings.insert("kind".into(), json!(used.kind.as_ref().unwrap_or(&connection.kind)));
    for (name, value) in [("model", &used.model), ("voice", &used.voice)] {
        if let Some(value) = value {
            settings.insert(name.into(), json!(value));
        }
    }
    if !used.options.is_empty() {
        settings.insert("options".into(), Value::Object(used.options.clone()));
    }
    let settings = serde_json::from_value(Value::Object(settings))
        .map_err(|error| NotReady::Settings { name: used.connection.clone(), wrong: error.to_string() })?;
    Ok((settings, key.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_told_day_and_time_where_it_works() {
        const NOON_UTC: i64 = 1_795_262_700_000_000;
        assert_eq!(today(NOON_UTC, "UTC"), "\n\nToday is Saturday, 2026-11-21. The time is 12:05.");
        assert_eq!(today(NOON_UTC, "Asia/Tokyo"), "\n\nToday is Saturday, 2026-11-21. The time is 21:05.");
        assert_eq!(today(NOON_UTC, "Nowhere"), today(NOON_UTC, "UTC"));
    }
}
