//! The rows of the store as plain structs, under the names that the whole project uses for them. They do not know how they are
//! stored or shown: the store has its own rows, the API its own JSON. Wall times are µs since 1970 UTC, money is in millionths.

use crate::provisioning::{Provisioning, Settings};
use crate::{
    AgentId, AgentVersionId, ApiKeyId, ConnectionId, ConversationId, E164, MessageId, OperationId,
    OrganizationId, PhoneNumberId, Pii, ToolCallId, WorkspaceId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// Who owns workspaces and connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at_us: i64,
}

/// Where everything lives that is not its organization's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Who owns it.
    pub organization: OrganizationId,
    /// Its name.
    pub name: String,
    /// IANA name of the zone its business hours are meant in.
    pub time_zone: String,
    /// Weekly hours, holidays and exceptions.
    pub business_hours: Value,
    /// Grows with every change; a change names the revision it is based on.
    pub revision: i64,
    /// When it was made.
    pub created_at_us: i64,
}

/// A key for programs. The key itself is shown once, when it is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Where it is valid.
    pub workspace: WorkspaceId,
    /// What it is for, in its owner's words.
    pub name: String,
    /// The beginning of the key, by which its owner recognises it.
    pub prefix: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub created_at_us: i64,
    /// When it was last used, to the minute.
    pub last_used_at_us: Option<i64>,
    /// When it was revoked.
    pub revoked_at_us: Option<i64>,
}

/// The kinds of connection that numbers are reached through.
pub const CARRIERS: &[&str] = &["twilio", "telnyx", "sip"];

/// Whether a connection of this kind is an account at a carrier.
pub fn is_carrier(kind: &str) -> bool {
    CARRIERS.contains(&kind)
}

/// An outside account with credentials. The credentials are not part of the row as others see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// Who owns it.
    pub organization: OrganizationId,
    /// What it connects to, by the name of the adapter: `twilio`, `deepgram`.
    pub kind: String,
    /// Its name, unique in the organization.
    pub name: String,
    /// The outside account's id, by which its webhooks are told apart.
    pub account: Option<String>,
    /// Settings that are no secret.
    pub config: Value,
    /// Whether credentials are stored.
    pub has_secret: bool,
    /// Whether it works, as far as is known.
    pub status: ConnectionStatus,
    /// Why it does not.
    pub status_reason: Option<String>,
    /// When it was last tried.
    pub checked_at_us: Option<i64>,
    /// Grows with every change; a change names the revision it is based on.
    pub revision: i64,
    /// When it was made.
    pub created_at_us: i64,
    /// When its settings last changed.
    pub updated_at_us: i64,
}

/// A phone number and everything set on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhoneNumber {
    /// Its id.
    pub id: PhoneNumberId,
    /// Where it belongs.
    pub workspace: WorkspaceId,
    /// The carrier account it is reached through.
    pub connection: ConnectionId,
    /// The number; one row per connection and number.
    pub e164: E164,
    /// Its name.
    pub name: String,
    /// What it can carry.
    pub capabilities: Vec<Capability>,
    /// Work modes, messages, languages and the like.
    pub settings: Value,
    /// Where calls go that are forwarded.
    pub forward_to: Option<E164>,
    /// Who answers.
    pub inbound_agent: Option<AgentId>,
    /// How it came here.
    pub source: NumberSource,
    /// Where its calls are sent, where that was set by us.
    pub route: Option<NumberRoute>,
    /// What is being done to it at the carrier; nothing else may be begun meanwhile.
    pub operation: Option<OperationId>,
    /// Whether it answers.
    pub status: NumberStatus,
    /// Why it does not.
    pub status_reason: Option<String>,
    /// When it was last looked where its calls are sent.
    pub checked_at_us: Option<i64>,
    /// Grows with every change; a change names the revision it is based on.
    pub revision: i64,
    /// When it was made.
    pub created_at_us: i64,
    /// When its settings last changed.
    pub updated_at_us: i64,
}

/// Where a number's calls are sent, in the carrier's own words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumberRoute {
    /// What leads here.
    pub ours: Settings,
    /// What led there before; it is given back when the number goes.
    pub previous: Settings,
    /// Whether it leads here now, as far as we have set it.
    pub leads_here: bool,
}

/// Something that is done to numbers at their carrier, step by step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// Where it belongs.
    pub workspace: WorkspaceId,
    /// What is done.
    pub kind: OperationKind,
    /// How far it is.
    pub status: OperationStatus,
    /// Why it did not come to what was wanted.
    pub reason: Option<String>,
    /// The agent that is started or stopped.
    pub agent: Option<AgentId>,
    /// The connection that is removed.
    pub connection: Option<ConnectionId>,
    /// What is done to each number.
    pub lines: Vec<OperationLine>,
    /// When it began.
    pub created_at_us: i64,
    /// When it ended.
    pub ended_at_us: Option<i64>,
}

/// What an operation does to one number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperationLine {
    /// The number, which may be gone since.
    pub number: PhoneNumberId,
    /// Its number.
    pub e164: E164,
    /// The carrier account it is reached through.
    pub connection: ConnectionId,
    /// How far it is.
    pub machine: Provisioning,
}

/// One request to a carrier within an operation, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationStep {
    /// When it was begun.
    pub at_us: i64,
    /// When it was answered.
    pub ended_at_us: i64,
    /// The number; none for what concerns all of them.
    pub e164: Option<E164>,
    /// What was done, in words.
    pub what: String,
    /// What went wrong, in words.
    pub error: Option<String>,
}

/// Who talks: a name that stays, and a current version that does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Where it belongs.
    pub workspace: WorkspaceId,
    /// Its name, unique in the workspace.
    pub name: String,
    /// Whether it answers at all.
    pub running: bool,
    /// What it is now.
    pub current: AgentVersionId,
    /// The current version's number.
    pub version: i64,
    /// Grows with every change; a change names the revision it is based on.
    pub revision: i64,
    /// When it was made.
    pub created_at_us: i64,
    /// When it last changed.
    pub updated_at_us: i64,
}

/// One saved state of an agent. Never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentVersion {
    /// Its id.
    pub id: AgentVersionId,
    /// Whose state it is.
    pub agent: AgentId,
    /// Counts from 1 within the agent.
    pub number: i64,
    /// Instructions, voice, languages, abilities, patience.
    pub config: Value,
    /// When it was saved.
    pub created_at_us: i64,
}

/// One exchange with one person, on whatever channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// Where it belongs.
    pub workspace: WorkspaceId,
    /// How it is held.
    pub channel: Channel,
    /// Who began it.
    pub direction: Direction,
    /// Who talked for us.
    pub agent_version: Option<AgentVersionId>,
    /// Our number in it.
    pub phone_number: Option<PhoneNumberId>,
    /// What came of it.
    pub outcome: Option<String>,
    /// What was said, in short.
    pub summary: Option<Pii<String>>,
    /// What the agent was to find out.
    pub collected: Pii<Value>,
    /// When it began.
    pub started_at_us: i64,
    /// When it ended; `None` while it is open.
    pub ended_at_us: Option<i64>,
}

/// The voice part of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The conversation's id, which is the call's too.
    pub id: ConversationId,
    /// Where it belongs.
    pub workspace: WorkspaceId,
    /// The carrier account it came through.
    pub connection: ConnectionId,
    /// The carrier's id of it, unique within the connection.
    pub carrier_call: String,
    /// How far it is.
    pub status: CallStatus,
    /// Why it ended, in a word.
    pub ended_reason: Option<String>,
    /// Who called, as the carrier wrote it: a number, a SIP address, or a word for a withheld number.
    pub from: Pii<String>,
    /// Who was called.
    pub to: Pii<String>,
    /// The number that passed the call on to ours, where the network told.
    pub forwarded_from: Option<Pii<String>>,
    /// The revision of the call machine that writes its log.
    pub log_revision: u32,
    /// The node that holds its lease, or held it last.
    pub node: Option<String>,
    /// Until when that node holds it.
    pub lease_expires_at_us: Option<i64>,
    /// When it began to ring.
    pub started_at_us: i64,
    /// When it was answered.
    pub answered_at_us: Option<i64>,
    /// When it ended.
    pub ended_at_us: Option<i64>,
}

/// One party's connection in a call, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// Its place in the call: 0 is the caller, or whom we rang to be one; then those who were rung from the call.
    pub number: u32,
    /// Whose it is.
    pub role: LegRole,
    /// The carrier account that it goes through.
    pub connection: ConnectionId,
    /// The carrier's id of it, unique within the connection; `None`: the carrier has not told it, or has none.
    pub carrier_call: Option<String>,
    /// Who was rung.
    pub to: Pii<String>,
    /// When it was rung.
    pub dialled_at_us: i64,
    /// When it was picked up.
    pub answered_at_us: Option<i64>,
    /// When it and the caller began to hear each other.
    pub bridged_at_us: Option<i64>,
    /// The carrier lets them hear each other: it does not end with our process.
    pub at_carrier: bool,
    /// When it ended.
    pub ended_at_us: Option<i64>,
    /// Why it ended, in a word.
    pub outcome: Option<String>,
}

/// Something said or written, as it was heard or delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Where it was said.
    pub conversation: ConversationId,
    /// Its place in the conversation, from 0.
    pub seq: u32,
    /// The turn it belongs to: one caller's speech and the answer.
    pub turn: u32,
    /// Who said it.
    pub role: MessageRole,
    /// The words.
    pub text: Pii<String>,
    /// The part that the other side heard, where that is less than the whole.
    pub heard: Option<Pii<String>>,
    /// When it began.
    pub at_us: i64,
    /// Latencies of the turn.
    pub timing: Value,
}

/// One use of an ability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Its id.
    pub id: ToolCallId,
    /// Where it was used.
    pub conversation: ConversationId,
    /// The turn it belongs to.
    pub turn: u32,
    /// The ability's name.
    pub name: String,
    /// What the model asked for: JSON text, as it wrote it.
    pub arguments: Pii<String>,
    /// What came back.
    pub result: Option<Pii<String>>,
    /// What went wrong.
    pub error: Option<String>,
    /// When it began.
    pub started_at_us: i64,
    /// When it ended; `None` when the conversation ended first.
    pub ended_at_us: Option<i64>,
}

/// One line of a call's replay log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEvent {
    /// Its place in the log, from 0.
    pub seq: u32,
    /// When, in µs since the call began.
    pub at_us: u64,
    /// What the machine was told, as JSON text. Kept byte for byte.
    pub input: Pii<String>,
    /// What the machine ordered, in short and without anybody's words.
    pub orders: String,
    /// Fingerprint of what it ordered.
    pub digest: u64,
}

/// The machine as it stood after one line of its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallSnapshot {
    /// The last line that is part of it.
    pub seq: u32,
    /// The machine as JSON text.
    pub state: Pii<String>,
}

/// Somebody changed something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// `aud_` and a ULID.
    pub id: String,
    /// When.
    pub at_us: i64,
    /// Who: `api_key key_…` or `job …`.
    pub actor: String,
    /// What, as `connection.create`.
    pub action: String,
    /// The id of what was changed.
    pub target: String,
    /// Before and after, without secrets.
    pub detail: Value,
}

/// Something that costs money.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// `use_` and a ULID.
    pub id: String,
    /// When it was used.
    pub at_us: i64,
    /// What was used.
    pub kind: UsageKind,
    /// Who provided it, by the name of the adapter.
    pub provider: String,
    /// How much, in the kind's unit.
    pub quantity: i64,
    /// Price of one unit, in millionths of the currency.
    pub unit_price_micros: i64,
    /// ISO 4217.
    pub currency: String,
    /// What it was used for.
    pub conversation: Option<ConversationId>,
}

/// A word that none of a closed set's members has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no {set}: it is one of {known}")]
pub struct UnknownWord {
    word: String,
    set: &'static str,
    known: String,
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident, $set:literal { $($(#[$member_doc:meta])* $member:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$member_doc])* #[serde(rename = $word)] $member,)* }

        impl $name {
            /// Every member.
            pub const ALL: &'static [$name] = &[$($name::$member),*];

            /// The word it is stored and shown as.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$member => $word,)* }
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok($name::$member),)*
                    _ => Err(UnknownWord { word: word.into(), set: $set, known: [$($word),*].join(", ") }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

words! {
    /// What somebody may do, from least to most.
    Role, "role" {
        /// May look.
        Viewer = "viewer",
        /// May also take calls and chats.
        Operator = "operator",
        /// May also change agents, numbers and workflows.
        Editor = "editor",
        /// May also change connections, people and keys.
        Admin = "admin",
        /// May do everything.
        Owner = "owner",
    }
    /// Whether a connection works.
    ConnectionStatus, "connection status" {
        /// It was not tried since it last changed.
        Unchecked = "unchecked",
        /// It worked when it was last tried.
        Active = "active",
        /// It did not.
        Error = "error",
    }
    /// Whether a number answers.
    NumberStatus, "number status" {
        /// It answers.
        Active = "active",
        /// Nobody is there to answer: calls are declined.
        Inactive = "inactive",
        /// The carrier refused it.
        Error = "error",
    }
    /// How a number came here.
    NumberSource, "number source" {
        /// It was bought from here.
        Managed = "managed",
        /// It was the account's before.
        Byo = "byo",
        /// It is a line of a SIP trunk.
        Sip = "sip",
    }
    /// What is done to numbers at their carrier.
    OperationKind, "kind of operation" {
        /// A number is bought.
        Buy = "buy",
        /// A number of the account is pointed here.
        Import = "import",
        /// A number is given back as it was.
        Remove = "remove",
        /// A number is let go for good.
        Release = "release",
        /// A number that leads elsewhere is pointed here again.
        TakeBack = "take_back",
        /// An agent's lines are brought up.
        Start = "start",
        /// An agent's lines are taken down.
        Stop = "stop",
        /// A connection goes, and its numbers are given back.
        Disconnect = "disconnect",
    }
    /// How far an operation is.
    OperationStatus, "operation status" {
        /// It goes on.
        Running = "running",
        /// It came to what was wanted.
        Done = "done",
        /// It did not.
        Failed = "failed",
    }
    /// What a number can carry.
    Capability, "capability" {
        /// Calls.
        Voice = "voice",
        /// Texts.
        Sms = "sms",
        /// Texts with pictures.
        Mms = "mms",
        /// WhatsApp.
        Whatsapp = "whatsapp",
    }
    /// How a conversation is held.
    Channel, "channel" {
        /// By telephone, or by voice in a browser.
        Voice = "voice",
        /// By SMS.
        Sms = "sms",
        /// By WhatsApp.
        Whatsapp = "whatsapp",
        /// By typing in a browser.
        Web = "web",
    }
    /// Who began a conversation.
    Direction, "direction" {
        /// They did.
        Inbound = "inbound",
        /// We did.
        Outbound = "outbound",
    }
    /// How far a call is.
    CallStatus, "call status" {
        /// Nobody has answered yet.
        Ringing = "ringing",
        /// People are talking.
        Answered = "answered",
        /// It is over.
        Ended = "ended",
    }
    /// Whose leg it is.
    LegRole, "role of a leg" {
        /// Who called, or whom we rang to be connected to somebody.
        Caller = "caller",
        /// A person who was rung from the call.
        Human = "human",
    }
    /// Who said something.
    MessageRole, "message role" {
        /// The caller, or whoever was called.
        Member = "member",
        /// The agent.
        Agent = "agent",
        /// A person of ours.
        Staff = "staff",
        /// Offhook itself.
        System = "system",
    }
    /// What was used.
    UsageKind, "usage kind" {
        /// Telephony or a service by time; the unit is a second.
        Second = "second",
        /// Texts sent or received.
        Message = "message",
        /// Tokens that a model read.
        TokenIn = "token_in",
        /// Tokens that a model wrote.
        TokenOut = "token_out",
        /// Characters spoken by a voice.
        Character = "character",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_rank_from_viewer_to_owner() {
        assert!(Role::Viewer < Role::Operator && Role::Editor < Role::Admin && Role::Admin < Role::Owner);
    }

    #[test]
    fn words_read_back_and_unknown_ones_name_the_known() {
        for status in CallStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(*status));
        }
        let error = "busy".parse::<CallStatus>().unwrap_err();
        assert_eq!(error.to_string(), "`busy` is no call status: it is one of ringing, answered, ended");
    }
}
