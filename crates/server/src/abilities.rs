//! What an agent can do besides talking: how it is offered to a model, and how it is carried out. It does not know the call.

use offhook_core::ToolSpec;
use offhook_core::call::{Ability, AbilityKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

/// How long a built-in ability may take, ms.
const BUILT_IN_TIMEOUT_MS: u32 = 10_000;

/// An ability that is switched on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum AbilityConfig {
    /// Says goodbye, lets it be heard, then hangs up.
    EndCall,
    /// Sends digits down the line, for menus and door openers.
    SendDtmf,
    /// Takes a message for somebody: who, which number, what. It is kept with the conversation.
    TakeMessage,
}

impl AbilityConfig {
    /// The ability as the call needs it.
    pub fn ability(&self) -> Ability {
        let (name, kind, description, parameters) = match self {
            AbilityConfig::EndCall => (
                "end_call",
                AbilityKind::HangUp,
                "Ends the call. Use it after both sides have said goodbye; say your goodbye in the same answer.",
                json!({ "type": "object", "properties": {}, "additionalProperties": false }),
            ),
            AbilityConfig::SendDtmf => (
                "send_dtmf",
                AbilityKind::SendDtmf,
                "Presses telephone keys, for menus. `w` waits half a second.",
                json!({ "type": "object", "properties": { "digits": { "type": "string", "description": "0-9, *, #, w" } },
                    "required": ["digits"], "additionalProperties": false }),
            ),
            AbilityConfig::TakeMessage => (
                "take_message",
                AbilityKind::External,
                "Keeps a message for the business once the caller has given it.",
                json!({ "type": "object", "properties": {
                    "name": { "type": "string", "description": "Who calls" },
                    "phone": { "type": "string", "description": "Where to call back" },
                    "message": { "type": "string", "description": "What to pass on" } },
                    "required": ["message"] }),
            ),
        };
        Ability {
            spec: ToolSpec {
                name: name.into(),
                description: description.into(),
                parameters: parameters.to_string(),
            },
            kind,
            timeout_ms: BUILT_IN_TIMEOUT_MS,
            filler: None,
        }
    }
}

/// Carries out what the call leaves to the outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Abilities;

impl Abilities {
    /// Uses an ability once. Arguments are a JSON object by then. What comes back is for the model; an error begins with `error:`.
    pub async fn run(self, name: String, arguments: String) -> String {
        match name.as_str() {
            "take_message" => take_message(&arguments),
            _ => "error: this ability is not available".to_owned(),
        }
    }
}

/// The message is kept as the arguments of this use, which is stored with the conversation.
fn take_message(arguments: &str) -> String {
    let Ok(value) = serde_json::from_str::<Value>(arguments) else {
        return "error: the arguments are not JSON".into();
    };
    match value["message"].as_str().map(str::trim) {
        Some(message) if !message.is_empty() => "ok, the message is kept".into(),
        _ => "error: `message` is missing: ask the caller what to pass on".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_without_words_is_asked_for_again() {
        let run = |arguments: &str| Abilities.run("take_message".into(), arguments.into());
        assert!(run(r#"{"name":"Ada","message":"Call me back"}"#).await.starts_with("ok"));
        let result = run(r#"{"name":"Ada","message":" "}"#).await;
        assert!(result.starts_with("error:") && result.contains("ask the caller"), "{result}");
        assert!(Abilities.run("fly".into(), "{}".into()).await.starts_with("error:"));
    }

    #[test]
    fn every_ability_offers_a_json_schema() {
        for config in [AbilityConfig::EndCall, AbilityConfig::SendDtmf, AbilityConfig::TakeMessage] {
            let schema: Value = serde_json::from_str(&config.ability().spec.parameters).unwrap();
            assert_eq!(schema["type"], "object");
        }
    }
}
