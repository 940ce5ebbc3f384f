//! Typed ids: a prefix that says what the thing is, then a ULID. They are made elsewhere, because making one needs a clock and randomness.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a text is not the id that was wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not {article} id: it begins with `{prefix}_`, then 26 letters and digits")]
pub struct NotAnId {
    article: &'static str,
    prefix: &'static str,
}

const ULID_LENGTH: usize = 26;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal, $article:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// What the id begins with, before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// The id made of a ULID in its text form (26 characters of Crockford base 32).
            ///
            /// # Panics
            /// When it is not 26 ASCII letters and digits: ids are made by us, so that is a bug.
            pub fn from_ulid(ulid: &str) -> Self {
                let text = format!("{}_{}", $prefix, ulid);
                text.try_into().expect("a ULID is 26 letters and digits")
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAnId;

            fn try_from(text: String) -> Result<Self, NotAnId> {
                let ulid = text.strip_prefix($prefix).and_then(|rest| rest.strip_prefix('_'));
                match ulid {
                    Some(u) if u.len() == ULID_LENGTH && u.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                        Ok($name(text.into()))
                    }
                    _ => Err(NotAnId { article: $article, prefix: $prefix }),
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

ids! {
    /// An organization: owns workspaces and connections.
    OrganizationId = "org", "an organization's";
    /// A workspace: everything that is not an organization's belongs to one.
    WorkspaceId = "wsp", "a workspace's";
    /// An API key.
    ApiKeyId = "key", "an API key's";
    /// An outside account with credentials.
    ConnectionId = "con", "a connection's";
    /// A phone number and its settings.
    PhoneNumberId = "num", "a phone number's";
    /// Something that is done to numbers at their carrier.
    OperationId = "opr", "an operation's";
    /// An agent.
    AgentId = "agt", "an agent's";
    /// One saved state of an agent.
    AgentVersionId = "agv", "an agent version's";
    /// A conversation; its call, if it has one, has the same id.
    ConversationId = "cnv", "a conversation's";
    /// A spoken or typed message.
    MessageId = "msg", "a message's";
    /// One use of an ability.
    ToolCallId = "tcl", "a tool call's";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_kind() {
        let id = AgentId::from_ulid("01ARZ3NDEKTSV4RRFFQ69G5FAV");
        assert_eq!(id.as_str(), "agt_01ARZ3NDEKTSV4RRFFQ69G5FAV");
        assert_eq!(id.as_str().parse::<AgentId>(), Ok(id.clone()));
        let error = id.as_str().parse::<ConversationId>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "this is not a conversation's id: it begins with `cnv_`, then 26 letters and digits"
        );
        assert!("agt_short".parse::<AgentId>().is_err());
        assert!("agt_01ARZ3NDEKTSV4RRFFQ69G5FA/".parse::<AgentId>().is_err());
    }
}
