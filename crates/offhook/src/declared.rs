//! Connections, agents and numbers declared in a file. Secrets may stand in environment variables: `secret = "$NAME"`.

use anyhow::{Context as _, Result, bail};
use offhook_core::entity::Capability;
use offhook_core::{E164, Secret};
use offhook_server::agent::AgentConfig;
use offhook_server::api::request::Name;
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
    name: Name,
    kind: String,
    #[serde(default)]
    account: Option<Name>,
    /// The secret itself, or `$NAME` of an environment variable.
    #[serde(default)]
    secret: Option<Secret<String>>,
    #[serde(default)]
    config: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agent {
    name: Name,
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
    name: Option<Name>,
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

    /// The same for the store, with everything checked and secrets fetched.
    pub fn declaration(self) -> Result<Declaration> {
        let connections = self.connections.into_iter().map(|c| {
            let name = String::from(c.name);
            let secret = c.secret.map(|s| fetched(&name, s)).transpose()?;
            let config = Value::Object(c.config);
            let spec =
                ConnectionSpec { kind: c.kind, name, account: c.account.map(Name::into), config, secret };
            offhook_server::connection::check(&spec)
                .with_context(|| format!("connection `{}`", spec.name))?;
            Ok(spec)
        });
        let agents = self.agents.into_iter().map(|a| {
            let spec = AgentSpec { name: a.name.into(), running: a.running, config: Value::Object(a.config) };
            AgentConfig::read(&spec.config).with_context(|| format!("agent `{}`", spec.name))?;
            Ok(spec)
        });
        let numbers = self.numbers.into_iter().map(|n| DeclaredNumber {
            name: n.name.map_or_else(|| n.number.to_string(), Name::into),
            connection: n.connection,
            e164: n.number,
            capabilities: vec![Capability::Voice],
            settings: Value::Object(Map::new()),
            forward_to: n.forward_to,
            inbound_agent: n.agent,
        });
        Ok(Declaration {
            connections: connections.collect::<Result<_>>()?,
            agents: agents.collect::<Result<_>>()?,
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
    fn what_the_api_refuses_is_refused_in_a_file() {
        let connection = |text: &str| format!("[[connections]]\n{text}\n");
        for (text, named) in [
            (connection("name = 'c'\nkind = 'opnai'"), "connection `c`: kind: `opnai`"),
            (connection("name = 'c'\nkind = 'openai'\nconfig = { base_ulr = 'http://x' }"), "base_ulr"),
            (connection("name = 'c'\nkind = 'openai'\nsecret = ''"), "connection `c`: secret: it is empty"),
            (connection("name = 'c'\nkind = 'twilio'"), "connection `c`: account"),
            (connection("name = 'offline'\nkind = 'openai'"), "connection `offline`: name"),
            (connection("name = ' '\nkind = 'openai'"), "1 to 200 characters"),
            ("[[agents]]\nname = ''\n".into(), "1 to 200 characters"),
        ] {
            let refused = Declared::parse(&text).and_then(Declared::declaration).unwrap_err();
            assert!(format!("{refused:#}").contains(named), "{refused:#}");
        }
    }

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
