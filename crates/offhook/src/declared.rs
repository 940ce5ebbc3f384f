//! Connections, agents and numbers declared in a file. Secrets may stand in environment variables: `secret = "$NAME"`.

use anyhow::{Context as _, Result, bail};
use offhook_core::entity::Capability;
use offhook_core::{E164, Secret};
use offhook_store::{AgentSpec, ConnectionSpec, Declaration, DeclaredNumber};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;

/// The file's form.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Declared {
    connections: Vec<Connection>,
    agents: Vec<Agent>,
    numbers: Vec<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Connection {
    name: String,
    kind: String,
    #[serde(default)]
    account: Option<String>,
    /// The secret itself, or `$NAME` of an environment variable.
    #[serde(default)]
    secret: Option<Secret<String>>,
    #[serde(default)]
    config: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agent {
    name: String,
    #[serde(default = "yes")]
    running: bool,
    #[serde(default)]
    config: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Number {
    number: E164,
    connection: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    agent: Option<String>,
    #[serde(default)]
    forward_to: Option<E164>,
}

fn yes() -> bool {
    true
}

impl Declared {
    /// Reads a TOML or JSON file.
    pub fn read(path: &Path) -> Result<Declared> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let json = path.extension().is_some_and(|e| e == "json");
        let declared =
            if json { serde_json::from_str(&text).map_err(anyhow::Error::from) } else { Self::parse(&text) };
        declared.with_context(|| format!("{} does not declare what Offhook knows", path.display()))
    }

    /// Reads TOML.
    pub fn parse(text: &str) -> Result<Declared> {
        use figment::providers::Format as _;
        Ok(figment::Figment::from(figment::providers::Toml::string(text)).extract()?)
    }

    /// The same for the store, with agents' settings checked and secrets fetched.
    pub fn declaration(self) -> Result<Declaration> {
        for agent in &self.agents {
            offhook_server::agent::AgentConfig::read(&Value::Object(agent.config.clone()))
                .with_context(|| format!("agent `{}`", agent.name))?;
        }
        let connections = self.connections.into_iter().map(|c| {
            let secret = c.secret.map(|s| fetched(&c.name, s)).transpose()?;
            Ok(ConnectionSpec {
                kind: c.kind,
                name: c.name,
                account: c.account,
                config: Value::Object(c.config),
                secret,
            })
        });
        let agents = self.agents.into_iter();
        let numbers = self.numbers.into_iter().map(|n| DeclaredNumber {
            name: n.name.unwrap_or_else(|| n.number.to_string()),
            connection: n.connection,
            e164: n.number,
            capabilities: vec![Capability::Voice],
            settings: Value::Object(Map::new()),
            forward_to: n.forward_to,
            inbound_agent: n.agent,
        });
        Ok(Declaration {
            connections: connections.collect::<Result<_>>()?,
            agents: agents
                .map(|a| AgentSpec { name: a.name, running: a.running, config: Value::Object(a.config) })
                .collect(),
            numbers: numbers.collect(),
        })
    }
}

fn fetched(connection: &str, secret: Secret<String>) -> Result<Secret<String>> {
    let Some(name) = secret.expose().strip_prefix('$') else { return Ok(secret) };
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(Secret::new(value)),
        _ => bail!(
            "connection `{connection}` takes its secret from the environment variable {name}, which is not set"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named_with_the_thing() {
        let wrong = Declared::parse("[[agents]]\nname = \"A\"\n[agents.config]\nllm = []\n").unwrap();
        assert_eq!(
            format!("{:#}", wrong.declaration().unwrap_err()),
            "agent `A`: llm: name 1 to 8 providers, first choice first"
        );
        let wrong = Declared::parse(
            "[[connections]]\nname = \"c\"\nkind = \"openai\"\nsecret = \"$NO_SUCH_VARIABLE\"\n",
        )
        .unwrap();
        assert!(wrong.declaration().unwrap_err().to_string().contains("NO_SUCH_VARIABLE"));
        assert!(
            format!(
                "{:#}",
                Declared::parse("[[numbers]]\nnumber = \"911\"\nconnection = \"c\"\n").unwrap_err()
            )
            .contains("E.164")
        );
    }
}
