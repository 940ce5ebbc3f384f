//! What a language model is shown and what it may use. It does not know how any provider writes this on the wire.

use serde::{Deserialize, Serialize};

/// One message of the history shown to a language model. Agent text is only ever what was heard.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum ChatMessage {
    /// The agent's instructions, first and once.
    System {
        /// The instructions.
        text: String,
    },
    /// What the caller said or typed.
    User {
        /// The caller's words.
        text: String,
    },
    /// What the agent said, and the tools it then used. One of the two may be empty.
    Agent {
        /// The agent's words.
        text: String,
        /// The tools it asked for; each is answered by one [`ChatMessage::Tool`].
        tools: Vec<ToolRequest>,
    },
    /// What a tool answered.
    Tool {
        /// The [`ToolRequest::id`] this answers.
        id: String,
        /// The tool's result, or its error in words.
        text: String,
    },
}

/// A model's wish to use a tool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ToolRequest {
    /// The model's own id for this use.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// Its arguments as JSON text, as the model wrote them: not checked yet.
    pub arguments: String,
}

/// A tool as it is offered to a language model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ToolSpec {
    /// The name the model calls it by: letters, digits, underscores.
    pub name: String,
    /// What it does and when to use it, for the model.
    pub description: String,
    /// JSON Schema of the arguments, as JSON text.
    pub parameters: String,
}
