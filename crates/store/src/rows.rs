//! The tables as SeaORM sees them, column by column. They know neither what a word means nor who may see a row.

macro_rules! tables {
    ($($(#[$doc:meta])* $module:ident $table:literal { $($(#[$key:meta])* $column:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[allow(missing_docs, reason = "the columns are those of offhook_core::entity")]
        pub(crate) mod $module {
            use sea_orm::entity::prelude::*;

            #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
            #[sea_orm(table_name = $table)]
            pub struct Model { $($(#[$key])* pub $column: $type,)* }

            #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
            pub enum Relation {}

            impl ActiveModelBehavior for ActiveModel {}
        }
    )*};
}

tables! {
    organization "organization" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        name: String,
        created_at_us: i64,
    }
    workspace "workspace" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        organization: String,
        name: String,
        time_zone: String,
        business_hours: String,
        revision: i64,
        created_at_us: i64,
    }
    api_key "api_key" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        organization: String,
        workspace: String,
        name: String,
        prefix: String,
        hash: String,
        role: String,
        created_at_us: i64,
        last_used_at_us: Option<i64>,
        revoked_at_us: Option<i64>,
    }
    connection "connection" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        organization: String,
        kind: String,
        name: String,
        account: Option<String>,
        config: String,
        secret: Option<Vec<u8>>,
        secret_key_id: Option<String>,
        status: String,
        status_reason: Option<String>,
        checked_at_us: Option<i64>,
        revision: i64,
        created_at_us: i64,
        updated_at_us: i64,
    }
    agent "agent" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        workspace: String,
        name: String,
        running: bool,
        current: String,
        version: i64,
        revision: i64,
        created_at_us: i64,
        updated_at_us: i64,
    }
    agent_version "agent_version" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        workspace: String,
        agent: String,
        number: i64,
        config: String,
        created_at_us: i64,
    }
    phone_number "phone_number" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        workspace: String,
        connection: String,
        e164: String,
        name: String,
        capabilities: String,
        settings: String,
        forward_to: Option<String>,
        inbound_agent: Option<String>,
        status: String,
        status_reason: Option<String>,
        revision: i64,
        created_at_us: i64,
        updated_at_us: i64,
        source: String,
        our_routing: Option<String>,
        previous_routing: Option<String>,
        leads_here: bool,
        operation: Option<String>,
        checked_at_us: Option<i64>,
    }
    operation "operation" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        organization: String,
        workspace: String,
        kind: String,
        status: String,
        reason: Option<String>,
        agent: Option<String>,
        connection: Option<String>,
        node: String,
        incarnation: String,
        claim: String,
        lease_expires_at_us: Option<i64>,
        created_at_us: i64,
        ended_at_us: Option<i64>,
    }
    operation_line "operation_line" {
        #[sea_orm(primary_key, auto_increment = false)]
        operation: String,
        #[sea_orm(primary_key, auto_increment = false)]
        seq: i64,
        number: String,
        e164: String,
        connection: String,
        machine: String,
    }
    operation_step "operation_step" {
        #[sea_orm(primary_key, auto_increment = false)]
        operation: String,
        #[sea_orm(primary_key, auto_increment = false)]
        seq: i64,
        at_us: i64,
        ended_at_us: i64,
        e164: Option<String>,
        what: String,
        error: Option<String>,
    }
    conversation "conversation" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        workspace: String,
        channel: String,
        direction: String,
        agent_version: Option<String>,
        phone_number: Option<String>,
        outcome: Option<String>,
        summary: Option<String>,
        collected: String,
        started_at_us: i64,
        ended_at_us: Option<i64>,
    }
    call "call" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        organization: String,
        workspace: String,
        connection: String,
        carrier_call: String,
        status: String,
        ended_reason: Option<String>,
        from_address: String,
        to_address: String,
        plan: String,
        log_revision: i64,
        node: Option<String>,
        lease_expires_at_us: Option<i64>,
        started_at_us: i64,
        answered_at_us: Option<i64>,
        ended_at_us: Option<i64>,
        incarnation: Option<String>,
        forwarded_from: Option<String>,
    }
    leg "leg" {
        #[sea_orm(primary_key, auto_increment = false)]
        call: String,
        #[sea_orm(primary_key, auto_increment = false)]
        number: i64,
        role: String,
        connection: String,
        carrier_call: Option<String>,
        to_address: String,
        dialled_at_us: i64,
        answered_at_us: Option<i64>,
        bridged_at_us: Option<i64>,
        at_carrier: bool,
        ended_at_us: Option<i64>,
        outcome: Option<String>,
    }
    message "message" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        workspace: String,
        conversation: String,
        seq: i64,
        turn: i64,
        role: String,
        text: String,
        heard: Option<String>,
        at_us: i64,
        timing: String,
    }
    tool_call "tool_call" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        workspace: String,
        conversation: String,
        turn: i64,
        name: String,
        arguments: String,
        result: Option<String>,
        error: Option<String>,
        started_at_us: i64,
        ended_at_us: Option<i64>,
    }
    call_event "call_event" {
        #[sea_orm(primary_key, auto_increment = false)]
        call: String,
        #[sea_orm(primary_key, auto_increment = false)]
        seq: i64,
        at_us: i64,
        input: String,
        orders: String,
        digest: i64,
    }
    call_snapshot "call_snapshot" {
        #[sea_orm(primary_key, auto_increment = false)]
        call: String,
        seq: i64,
        state: String,
    }
    audit_event "audit_event" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        organization: String,
        workspace: String,
        at_us: i64,
        actor: String,
        action: String,
        target: String,
        detail: String,
    }
    usage "usage" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        workspace: String,
        at_us: i64,
        kind: String,
        provider: String,
        quantity: i64,
        unit_price_micros: i64,
        currency: String,
        conversation: Option<String>,
    }
    node "node" {
        #[sea_orm(primary_key, auto_increment = false)]
        incarnation: String,
        name: String,
        seen_at_us: i64,
    }
}
