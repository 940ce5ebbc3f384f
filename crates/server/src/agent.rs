//! What can be set on an agent, as users write it, and what it comes to for one call. It does not know the store.

use crate::abilities::AbilityConfig;
use offhook_core::call::{self, CallPlan, Fallback, Greeting, Phrases, Recording, Timing, Voicemail};
use offhook_core::{E164, Language};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Languages, providers, words and patience of an agent. Everything but the instructions has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// What the agent is, knows and shall do, for the model.
    pub instructions: String,
    /// What it says first. Empty: see `greeting`.
    pub first_message: String,
    /// How it opens when there is no first message: `written` by the model, or `silent` until the caller speaks.
    pub greeting: Opening,
    /// What is spoken: a BCP 47 tag.
    #[schema(value_type = String, example = "en-US")]
    pub language: Language,
    /// Recognisers in the order in which they are tried.
    pub stt: Vec<ProviderUse>,
    /// Language models, likewise.
    pub llm: Vec<ProviderUse>,
    /// Voices, likewise.
    pub tts: Vec<ProviderUse>,
    /// What the agent can do besides talking.
    pub abilities: Vec<AbilityConfig>,
    /// Words to listen for: names, products.
    pub keywords: Vec<String>,
    /// Whether replies are prepared while the caller may still be talking.
    pub head_start: bool,
    /// Silence after which the recogniser may call an utterance ended, ms.
    pub endpointing_ms: u32,
    /// Longest reply of the model, in tokens.
    pub max_tokens: u32,
    /// Sampling temperature in hundredths; none: the model's own.
    pub temperature_centi: Option<u16>,
    /// Patience of all kinds, in ms.
    #[schema(value_type = Object)]
    pub timing: Timing,
    /// Fixed sentences in the agent's language.
    #[schema(value_type = Object)]
    pub phrases: Phrases,
    /// Where callers go when the agent cannot go on. None: an apology, then hang up.
    #[schema(value_type = Option<String>, example = "+14155550123")]
    pub fallback_number: Option<E164>,
    /// Calls at the same time; `overflow` says what becomes of more. None: as many as come.
    pub max_open_calls: Option<u32>,
    /// What becomes of calls above `max_open_calls`.
    pub overflow: Overflow,
    /// What those callers are told where `overflow` is `message`, by a voice of the carrier's.
    pub overflow_message: String,
}

/// What becomes of a caller to an agent that is on as many calls as it may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// They hear the engaged tone.
    #[default]
    Busy,
    /// They are put through to where the number's calls are forwarded, else to the agent's fallback number, else as `busy`.
    Forward,
    /// They are told `overflow_message`, and the call ends.
    Message,
}

/// How an agent without a first message opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    /// The model writes the greeting.
    #[default]
    Written,
    /// The caller speaks first.
    Silent,
}

/// One provider of an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderUse {
    /// Name of the connection that holds address and key, or `offline` for what needs none.
    pub connection: String,
    /// The provider to use it as, where one account offers several: `deepgram_flux`. None: the connection's kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The model, as the provider calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The voice, as the provider calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voice: Option<String>,
    /// Options in the provider's own words.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub options: Map<String, Value>,
}

impl ProviderUse {
    /// The provider that needs no account.
    pub fn offline() -> Self {
        ProviderUse { connection: OFFLINE.into(), kind: None, model: None, voice: None, options: Map::new() }
    }
}

/// The name that stands for no connection at all.
pub const OFFLINE: &str = "offline";

/// Providers of one kind that an agent may name.
const PROVIDERS_PER_KIND: usize = 8;
/// Characters of the instructions.
const INSTRUCTIONS_CHARS: usize = 100_000;
/// Abilities of one agent.
const ABILITIES: usize = 64;
/// Characters of the message that callers above the limit are told.
const OVERFLOW_MESSAGE_CHARS: usize = 500;

impl Default for AgentConfig {
    fn default() -> Self {
        AgentConfig {
            instructions: String::new(),
            first_message: String::new(),
            greeting: Opening::default(),
            language: Language::english(),
            stt: vec![ProviderUse::offline()],
            llm: vec![ProviderUse::offline()],
            tts: vec![ProviderUse::offline()],
            abilities: vec![AbilityConfig::EndCall],
            keywords: Vec::new(),
            head_start: true,
            endpointing_ms: 300,
            max_tokens: 400,
            temperature_centi: None,
            timing: Timing::default(),
            phrases: Phrases::default(),
            fallback_number: None,
            max_open_calls: None,
            overflow: Overflow::default(),
            overflow_message: "All lines are busy at the moment. Please call again a little later.".into(),
        }
    }
}

/// Why settings are no agent's: which one, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {wrong}")]
pub struct ConfigError {
    /// The setting.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub wrong: String,
}

impl AgentConfig {
    /// Reads settings as they are stored or sent.
    pub fn read(config: &Value) -> Result<Self, ConfigError> {
        let config: AgentConfig = serde_json::from_value(config.clone())
            .map_err(|error| ConfigError { field: "config".into(), wrong: error.to_string() })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field: &str, wrong: String| Err(ConfigError { field: field.into(), wrong });
        for (field, uses) in [("stt", &self.stt), ("llm", &self.llm), ("tts", &self.tts)] {
            if uses.is_empty() || uses.len() > PROVIDERS_PER_KIND {
                return wrong(field, format!("name 1 to {PROVIDERS_PER_KIND} providers, first choice first"));
            }
        }
        if self.instructions.chars().count() > INSTRUCTIONS_CHARS {
            return wrong("instructions", format!("at most {INSTRUCTIONS_CHARS} characters"));
        }
        if self.abilities.len() > ABILITIES {
            return wrong("abilities", format!("at most {ABILITIES}"));
        }
        if self.overflow_message.trim().is_empty()
            || self.overflow_message.chars().count() > OVERFLOW_MESSAGE_CHARS
        {
            return wrong("overflow_message", format!("1 to {OVERFLOW_MESSAGE_CHARS} characters"));
        }
        if !(10..=5_000).contains(&self.endpointing_ms) {
            return wrong("endpointing_ms", "from 10 to 5000".into());
        }
        if self.timing.max_duration_ms == 0 || self.timing.nudge_ms == 0 {
            return wrong("timing", "max_duration_ms and nudge_ms must not be 0".into());
        }
        Ok(())
    }

    /// What one call depends on.
    pub fn plan(&self) -> CallPlan {
        let names = |uses: &[ProviderUse]| uses.iter().map(|u| u.connection.clone()).collect();
        CallPlan {
            instructions: self.instructions.clone(),
            greeting: match (self.first_message.trim(), self.greeting) {
                ("", Opening::Written) => Greeting::Written,
                ("", Opening::Silent) => Greeting::Silent,
                (text, _) => Greeting::Fixed(text.to_owned()),
            },
            language: self.language.clone(),
            abilities: self.abilities.iter().map(AbilityConfig::ability).collect(),
            stt: names(&self.stt),
            llm: names(&self.llm),
            tts: names(&self.tts),
            timing: self.timing.clone(),
            phrases: self.phrases.clone(),
            head_start: self.head_start,
            fallback: self.fallback_number.clone().map_or(Fallback::HangUp, Fallback::Forward),
            opening: call::Opening::Agent,
            destinations: Vec::new(),
            voicemail: Voicemail::default(),
            recording: Recording::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_empty_config_is_an_agent_that_needs_no_account() {
        let config = AgentConfig::read(&json!({})).unwrap();
        let plan = config.plan();
        assert_eq!((plan.greeting, plan.stt), (Greeting::Written, vec!["offline".to_string()]));
        assert_eq!(plan.abilities[0].spec.name, "end_call");
    }

    #[test]
    fn wrong_settings_are_named() {
        let error = |config: Value| AgentConfig::read(&config).unwrap_err().to_string();
        assert_eq!(error(json!({ "llm": [] })), "llm: name 1 to 8 providers, first choice first");
        assert!(error(json!({ "instrutcions": "x" })).contains("unknown field `instrutcions`"));
        assert!(error(json!({ "fallback_number": "911" })).contains("E.164"));
    }
}
