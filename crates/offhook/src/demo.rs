//! The demo agent: a receptionist who needs no account, or speaks through the providers whose keys stand in the
//! environment. It does not know how calls are taken.

use offhook_core::{E164, Secret};
use offhook_providers::offline;
use offhook_server::abilities::AbilityConfig;
use offhook_server::agent::{AgentConfig, ProviderUse};
use offhook_store::{AgentSpec, ConnectionSpec, Declaration, DeclaredNumber};
use serde_json::{Value, json};

/// The name of the demo agent.
pub const AGENT: &str = "Demo receptionist";
/// The connection that `offhook dial` rings through: a Twilio account that exists on this machine only.
pub const LINE: &str = "simulator";
/// Its account.
pub const ACCOUNT: &str = "AC00000000000000000000000000000000";

/// Providers that may be found in the environment: variable, kind, and what each is best for.
const KEYS: &[(&str, &str, Uses)] = &[
    ("DEEPGRAM_API_KEY", "deepgram", Uses { stt: true, llm: false, tts: false }),
    ("OPENAI_API_KEY", "openai", Uses { stt: true, llm: true, tts: false }),
    ("CARTESIA_API_KEY", "cartesia", Uses { stt: false, llm: false, tts: true }),
    ("ELEVENLABS_API_KEY", "elevenlabs", Uses { stt: false, llm: false, tts: true }),
    ("DEEPGRAM_API_KEY", "deepgram", Uses { stt: false, llm: false, tts: true }),
    ("OPENAI_API_KEY", "openai", Uses { stt: false, llm: false, tts: true }),
];

#[derive(Clone, Copy)]
struct Uses {
    stt: bool,
    llm: bool,
    tts: bool,
}

/// The demo as it stands in this environment, and in words what it takes.
pub fn declaration(
    number: &E164,
    token: Secret<String>,
    environment: impl Fn(&str) -> Option<String>,
) -> (Declaration, String) {
    let mut connections = vec![ConnectionSpec {
        kind: "twilio".into(),
        name: LINE.into(),
        account: Some(ACCOUNT.into()),
        config: json!({}),
        secret: Some(token),
    }];
    let (mut stt, mut llm, mut tts) = (Vec::new(), Vec::new(), Vec::new());
    for (variable, kind, uses) in KEYS {
        let Some(key) = environment(variable).filter(|k| !k.trim().is_empty()) else { continue };
        let name = format!("{kind} ({variable})");
        if connections.iter().all(|c| c.name != name) {
            let config = environment(&format!("{}_BASE_URL", kind.to_uppercase()))
                .map_or(json!({}), |url| json!({ "base_url": url }));
            let secret = Some(Secret::new(key));
            connections.push(ConnectionSpec {
                kind: (*kind).into(),
                name: name.clone(),
                account: None,
                config,
                secret,
            });
        }
        let used = || ProviderUse { connection: name.clone(), ..ProviderUse::offline() };
        uses.stt.then(|| stt.push(used()));
        uses.llm.then(|| llm.push(used()));
        uses.tts.then(|| tts.push(used()));
    }
    let took = |list: &[ProviderUse]| list.first().map_or("offline".to_owned(), |u| u.connection.clone());
    let words = format!("hears by {}, thinks by {}, speaks by {}", took(&stt), took(&llm), took(&tts));
    for list in [&mut stt, &mut llm, &mut tts] {
        list.push(ProviderUse::offline());
    }
    let config = AgentConfig {
        instructions: offline::demo_instructions(),
        first_message: offline::demo_greeting(),
        stt,
        llm,
        tts,
        abilities: vec![AbilityConfig::EndCall, AbilityConfig::TakeMessage],
        ..AgentConfig::default()
    };
    let agent = AgentSpec {
        name: AGENT.into(),
        running: true,
        config: serde_json::to_value(config).unwrap_or(Value::Null),
    };
    let number = DeclaredNumber {
        connection: LINE.into(),
        e164: number.clone(),
        name: "Demo line".into(),
        capabilities: vec![offhook_core::entity::Capability::Voice],
        settings: json!({}),
        forward_to: None,
        inbound_agent: Some(AGENT.into()),
    };
    (Declaration { connections, agents: vec![agent], numbers: vec![number] }, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(keys: &[&str]) -> String {
        let number = "+15550100100".parse().unwrap();
        let environment = |name: &str| keys.contains(&name).then(|| "k".to_string());
        declaration(&number, Secret::new("t".into()), environment).1
    }

    #[test]
    fn one_key_is_enough_for_a_whole_agent() {
        assert_eq!(took(&[]), "hears by offline, thinks by offline, speaks by offline");
        let openai = "openai (OPENAI_API_KEY)";
        assert_eq!(
            took(&["OPENAI_API_KEY"]),
            format!("hears by {openai}, thinks by {openai}, speaks by {openai}")
        );
        assert!(
            took(&["OPENAI_API_KEY", "DEEPGRAM_API_KEY"]).starts_with("hears by deepgram (DEEPGRAM_API_KEY)")
        );
    }
}
