//! The pure heart of Offhook: the phone call as a state machine, and the small values that every other crate speaks in.
//! Nothing here knows a socket, a clock, a thread or randomness: time is an argument, facts come in, orders go out.

pub mod call;
mod chat;
pub mod entity;
pub mod hours;
mod id;
mod language;
pub mod limits;
mod phone;
mod pii;
pub mod provisioning;

pub use chat::{ChatMessage, ToolRequest, ToolSpec};
pub use id::{
    AgentId, AgentVersionId, ApiKeyId, ConnectionId, ConversationId, MessageId, NotAnId, OperationId,
    OrganizationId, PhoneNumberId, ToolCallId, WorkspaceId,
};
pub use language::{Language, NotALanguage};
pub use phone::{E164, NotE164};
pub use pii::{Pii, Secret};
