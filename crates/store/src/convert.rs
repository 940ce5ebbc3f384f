//! From rows to what the rest of Offhook speaks of, and back. A row that does not convert was damaged or written by another hand.

use crate::error::StoreError;
use crate::rows;
use offhook_core::Pii;
use offhook_core::entity::{
    Agent, AgentVersion, ApiKey, AuditEvent, Call, CallEvent, CallSnapshot, Connection, Conversation, Leg,
    Message, NumberRoute, OperationLine, OperationStep, Organization, PhoneNumber, ToolCall, Usage,
    Workspace,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::str::FromStr;

/// Rows as entities; the first that is damaged stops it.
pub(crate) fn all<Row, Entity>(rows: Vec<Row>) -> Result<Vec<Entity>, StoreError>
where
    Entity: TryFrom<Row, Error = StoreError>,
{
    rows.into_iter().map(Entity::try_from).collect()
}

pub(crate) fn parse<T: FromStr<Err: Display>>(what: &str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|error| StoreError::corrupt(what, error))
}

pub(crate) fn parse_some<T: FromStr<Err: Display>>(
    what: &str,
    text: Option<&str>,
) -> Result<Option<T>, StoreError> {
    text.map(|text| parse(what, text)).transpose()
}

fn from_json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::corrupt(what, error))
}

pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("values and words have no map with keys other than texts")
}

fn narrow<T: TryFrom<i64>>(what: &str, number: i64) -> Result<T, StoreError> {
    T::try_from(number).map_err(|_| StoreError::corrupt(what, format!("{number} is out of range")))
}

fn expose(text: Option<&Pii<String>>) -> Option<String> {
    text.map(|text| text.expose().clone())
}

fn text(id: &impl Display) -> String {
    id.to_string()
}

fn text_some(id: Option<&impl Display>) -> Option<String> {
    id.map(text)
}

impl TryFrom<rows::organization::Model> for Organization {
    type Error = StoreError;

    fn try_from(row: rows::organization::Model) -> Result<Self, StoreError> {
        Ok(Organization {
            id: parse("organization.id", &row.id)?,
            name: row.name,
            created_at_us: row.created_at_us,
        })
    }
}

impl From<&Organization> for rows::organization::Model {
    fn from(entity: &Organization) -> Self {
        Self { id: text(&entity.id), name: entity.name.clone(), created_at_us: entity.created_at_us }
    }
}

impl TryFrom<rows::workspace::Model> for Workspace {
    type Error = StoreError;

    fn try_from(row: rows::workspace::Model) -> Result<Self, StoreError> {
        Ok(Workspace {
            id: parse("workspace.id", &row.id)?,
            organization: parse("workspace.organization", &row.organization)?,
            name: row.name,
            time_zone: row.time_zone,
            business_hours: from_json("workspace.business_hours", &row.business_hours)?,
            revision: row.revision,
            created_at_us: row.created_at_us,
        })
    }
}

impl From<&Workspace> for rows::workspace::Model {
    fn from(entity: &Workspace) -> Self {
        Self {
            id: text(&entity.id),
            organization: text(&entity.organization),
            name: entity.name.clone(),
            time_zone: entity.time_zone.clone(),
            business_hours: to_json(&entity.business_hours),
            revision: entity.revision,
            created_at_us: entity.created_at_us,
        }
    }
}

impl TryFrom<rows::api_key::Model> for ApiKey {
    type Error = StoreError;

    fn try_from(row: rows::api_key::Model) -> Result<Self, StoreError> {
        Ok(ApiKey {
            id: parse("api_key.id", &row.id)?,
            workspace: parse("api_key.workspace", &row.workspace)?,
            name: row.name,
            prefix: row.prefix,
            role: parse("api_key.role", &row.role)?,
            created_at_us: row.created_at_us,
            last_used_at_us: row.last_used_at_us,
            revoked_at_us: row.revoked_at_us,
        })
    }
}

impl TryFrom<rows::connection::Model> for Connection {
    type Error = StoreError;

    fn try_from(row: rows::connection::Model) -> Result<Self, StoreError> {
        Ok(Connection {
            id: parse("connection.id", &row.id)?,
            organization: parse("connection.organization", &row.organization)?,
            kind: row.kind,
            name: row.name,
            account: row.account,
            config: from_json("connection.config", &row.config)?,
            has_secret: row.secret.is_some(),
            status: parse("connection.status", &row.status)?,
            status_reason: row.status_reason,
            checked_at_us: row.checked_at_us,
            revision: row.revision,
            created_at_us: row.created_at_us,
            updated_at_us: row.updated_at_us,
        })
    }
}

impl TryFrom<rows::agent::Model> for Agent {
    type Error = StoreError;

    fn try_from(row: rows::agent::Model) -> Result<Self, StoreError> {
        Ok(Agent {
            id: parse("agent.id", &row.id)?,
            workspace: parse("agent.workspace", &row.workspace)?,
            name: row.name,
            running: row.running,
            current: parse("agent.current", &row.current)?,
            version: row.version,
            revision: row.revision,
            created_at_us: row.created_at_us,
            updated_at_us: row.updated_at_us,
        })
    }
}

impl From<&Agent> for rows::agent::Model {
    fn from(entity: &Agent) -> Self {
        Self {
            id: text(&entity.id),
            workspace: text(&entity.workspace),
            name: entity.name.clone(),
            running: entity.running,
            current: text(&entity.current),
            version: entity.version,
            revision: entity.revision,
            created_at_us: entity.created_at_us,
            updated_at_us: entity.updated_at_us,
        }
    }
}

impl TryFrom<rows::agent_version::Model> for AgentVersion {
    type Error = StoreError;

    fn try_from(row: rows::agent_version::Model) -> Result<Self, StoreError> {
        Ok(AgentVersion {
            id: parse("agent_version.id", &row.id)?,
            agent: parse("agent_version.agent", &row.agent)?,
            number: row.number,
            config: from_json("agent_version.config", &row.config)?,
            created_at_us: row.created_at_us,
        })
    }
}

impl TryFrom<rows::phone_number::Model> for PhoneNumber {
    type Error = StoreError;

    fn try_from(row: rows::phone_number::Model) -> Result<Self, StoreError> {
        let route = match (&row.our_routing, &row.previous_routing) {
            (Some(ours), Some(previous)) => Some(NumberRoute {
                ours: from_json("phone_number.our_routing", ours)?,
                previous: from_json("phone_number.previous_routing", previous)?,
                leads_here: row.leads_here,
            }),
            _ => None,
        };
        Ok(PhoneNumber {
            id: parse("phone_number.id", &row.id)?,
            workspace: parse("phone_number.workspace", &row.workspace)?,
            connection: parse("phone_number.connection", &row.connection)?,
            e164: parse("phone_number.e164", &row.e164)?,
            name: row.name,
            capabilities: from_json("phone_number.capabilities", &row.capabilities)?,
            settings: from_json("phone_number.settings", &row.settings)?,
            forward_to: parse_some("phone_number.forward_to", row.forward_to.as_deref())?,
            inbound_agent: parse_some("phone_number.inbound_agent", row.inbound_agent.as_deref())?,
            source: parse("phone_number.source", &row.source)?,
            route,
            operation: parse_some("phone_number.operation", row.operation.as_deref())?,
            status: parse("phone_number.status", &row.status)?,
            status_reason: row.status_reason,
            checked_at_us: row.checked_at_us,
            revision: row.revision,
            created_at_us: row.created_at_us,
            updated_at_us: row.updated_at_us,
        })
    }
}

impl From<&PhoneNumber> for rows::phone_number::Model {
    fn from(entity: &PhoneNumber) -> Self {
        Self {
            id: text(&entity.id),
            workspace: text(&entity.workspace),
            connection: text(&entity.connection),
            e164: text(&entity.e164),
            name: entity.name.clone(),
            capabilities: to_json(&entity.capabilities),
            settings: to_json(&entity.settings),
            forward_to: text_some(entity.forward_to.as_ref()),
            inbound_agent: text_some(entity.inbound_agent.as_ref()),
            status: text(&entity.status),
            status_reason: entity.status_reason.clone(),
            revision: entity.revision,
            created_at_us: entity.created_at_us,
            updated_at_us: entity.updated_at_us,
            source: text(&entity.source),
            our_routing: entity.route.as_ref().map(|route| to_json(&route.ours)),
            previous_routing: entity.route.as_ref().map(|route| to_json(&route.previous)),
            leads_here: entity.route.as_ref().is_some_and(|route| route.leads_here),
            operation: text_some(entity.operation.as_ref()),
            checked_at_us: entity.checked_at_us,
        }
    }
}

impl TryFrom<rows::operation_line::Model> for OperationLine {
    type Error = StoreError;

    fn try_from(row: rows::operation_line::Model) -> Result<Self, StoreError> {
        Ok(OperationLine {
            number: parse("operation_line.number", &row.number)?,
            e164: parse("operation_line.e164", &row.e164)?,
            connection: parse("operation_line.connection", &row.connection)?,
            machine: from_json("operation_line.machine", &row.machine)?,
        })
    }
}

impl TryFrom<rows::operation_step::Model> for OperationStep {
    type Error = StoreError;

    fn try_from(row: rows::operation_step::Model) -> Result<Self, StoreError> {
        Ok(OperationStep {
            at_us: row.at_us,
            ended_at_us: row.ended_at_us,
            e164: parse_some("operation_step.e164", row.e164.as_deref())?,
            what: row.what,
            error: row.error,
        })
    }
}

impl TryFrom<rows::conversation::Model> for Conversation {
    type Error = StoreError;

    fn try_from(row: rows::conversation::Model) -> Result<Self, StoreError> {
        Ok(Conversation {
            id: parse("conversation.id", &row.id)?,
            workspace: parse("conversation.workspace", &row.workspace)?,
            channel: parse("conversation.channel", &row.channel)?,
            direction: parse("conversation.direction", &row.direction)?,
            agent_version: parse_some("conversation.agent_version", row.agent_version.as_deref())?,
            phone_number: parse_some("conversation.phone_number", row.phone_number.as_deref())?,
            outcome: row.outcome,
            summary: row.summary.map(Pii::new),
            collected: from_json("conversation.collected", &row.collected)?,
            started_at_us: row.started_at_us,
            ended_at_us: row.ended_at_us,
        })
    }
}

impl From<&Conversation> for rows::conversation::Model {
    fn from(entity: &Conversation) -> Self {
        Self {
            id: text(&entity.id),
            workspace: text(&entity.workspace),
            channel: text(&entity.channel),
            direction: text(&entity.direction),
            agent_version: text_some(entity.agent_version.as_ref()),
            phone_number: text_some(entity.phone_number.as_ref()),
            outcome: entity.outcome.clone(),
            summary: expose(entity.summary.as_ref()),
            collected: to_json(&entity.collected),
            started_at_us: entity.started_at_us,
            ended_at_us: entity.ended_at_us,
        }
    }
}

impl TryFrom<rows::call::Model> for Call {
    type Error = StoreError;

    fn try_from(row: rows::call::Model) -> Result<Self, StoreError> {
        Ok(Call {
            id: parse("call.id", &row.id)?,
            workspace: parse("call.workspace", &row.workspace)?,
            connection: parse("call.connection", &row.connection)?,
            carrier_call: row.carrier_call,
            status: parse("call.status", &row.status)?,
            ended_reason: row.ended_reason,
            from: Pii::new(row.from_address),
            to: Pii::new(row.to_address),
            forwarded_from: row.forwarded_from.map(Pii::new),
            log_revision: narrow("call.log_revision", row.log_revision)?,
            node: row.node,
            lease_expires_at_us: row.lease_expires_at_us,
            started_at_us: row.started_at_us,
            answered_at_us: row.answered_at_us,
            ended_at_us: row.ended_at_us,
        })
    }
}

impl TryFrom<rows::leg::Model> for Leg {
    type Error = StoreError;

    fn try_from(row: rows::leg::Model) -> Result<Self, StoreError> {
        Ok(Leg {
            number: narrow("leg.number", row.number)?,
            role: parse("leg.role", &row.role)?,
            connection: parse("leg.connection", &row.connection)?,
            carrier_call: row.carrier_call,
            to: Pii::new(row.to_address),
            dialled_at_us: row.dialled_at_us,
            answered_at_us: row.answered_at_us,
            bridged_at_us: row.bridged_at_us,
            at_carrier: row.at_carrier,
            ended_at_us: row.ended_at_us,
            outcome: row.outcome,
        })
    }
}

impl TryFrom<rows::message::Model> for Message {
    type Error = StoreError;

    fn try_from(row: rows::message::Model) -> Result<Self, StoreError> {
        Ok(Message {
            id: parse("message.id", &row.id)?,
            conversation: parse("message.conversation", &row.conversation)?,
            seq: narrow("message.seq", row.seq)?,
            turn: narrow("message.turn", row.turn)?,
            role: parse("message.role", &row.role)?,
            text: Pii::new(row.text),
            heard: row.heard.map(Pii::new),
            at_us: row.at_us,
            timing: from_json("message.timing", &row.timing)?,
        })
    }
}

impl TryFrom<rows::tool_call::Model> for ToolCall {
    type Error = StoreError;

    fn try_from(row: rows::tool_call::Model) -> Result<Self, StoreError> {
        Ok(ToolCall {
            id: parse("tool_call.id", &row.id)?,
            conversation: parse("tool_call.conversation", &row.conversation)?,
            turn: narrow("tool_call.turn", row.turn)?,
            name: row.name,
            arguments: Pii::new(row.arguments),
            result: row.result.map(Pii::new),
            error: row.error,
            started_at_us: row.started_at_us,
            ended_at_us: row.ended_at_us,
        })
    }
}

impl TryFrom<rows::call_event::Model> for CallEvent {
    type Error = StoreError;

    fn try_from(row: rows::call_event::Model) -> Result<Self, StoreError> {
        Ok(CallEvent {
            seq: narrow("call_event.seq", row.seq)?,
            at_us: narrow("call_event.at_us", row.at_us)?,
            input: Pii::new(row.input),
            orders: row.orders,
            digest: row.digest.cast_unsigned(),
        })
    }
}

impl TryFrom<rows::call_snapshot::Model> for CallSnapshot {
    type Error = StoreError;

    fn try_from(row: rows::call_snapshot::Model) -> Result<Self, StoreError> {
        Ok(CallSnapshot { seq: narrow("call_snapshot.seq", row.seq)?, state: Pii::new(row.state) })
    }
}

impl TryFrom<rows::audit_event::Model> for AuditEvent {
    type Error = StoreError;

    fn try_from(row: rows::audit_event::Model) -> Result<Self, StoreError> {
        Ok(AuditEvent {
            id: row.id,
            at_us: row.at_us,
            actor: row.actor,
            action: row.action,
            target: row.target,
            detail: from_json("audit_event.detail", &row.detail)?,
        })
    }
}

impl TryFrom<rows::usage::Model> for Usage {
    type Error = StoreError;

    fn try_from(row: rows::usage::Model) -> Result<Self, StoreError> {
        Ok(Usage {
            id: row.id,
            at_us: row.at_us,
            kind: parse("usage.kind", &row.kind)?,
            provider: row.provider,
            quantity: row.quantity,
            unit_price_micros: row.unit_price_micros,
            currency: row.currency,
            conversation: parse_some("usage.conversation", row.conversation.as_deref())?,
        })
    }
}
