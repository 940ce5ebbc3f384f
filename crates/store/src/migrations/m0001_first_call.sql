-- What one phone call needs, from the organization that owns the number to the seconds it is billed for.
--
-- What has happened (conversations, messages, usage, the audit log) keeps the ids of what it happened with, but no foreign key
-- to it: a connection, a number or an agent can be deleted and its history stays.

CREATE TABLE organization (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    created_at_us BIGINT NOT NULL
);

CREATE TABLE workspace (
    id TEXT NOT NULL PRIMARY KEY,
    organization TEXT NOT NULL REFERENCES organization ON DELETE CASCADE,
    name TEXT NOT NULL,
    time_zone TEXT NOT NULL,
    business_hours TEXT NOT NULL,
    revision BIGINT NOT NULL,
    created_at_us BIGINT NOT NULL
);
CREATE INDEX workspace_organization ON workspace (organization);

CREATE TABLE api_key (
    id TEXT NOT NULL PRIMARY KEY,
    organization TEXT NOT NULL,
    workspace TEXT NOT NULL REFERENCES workspace ON DELETE CASCADE,
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    created_at_us BIGINT NOT NULL,
    last_used_at_us BIGINT,
    revoked_at_us BIGINT
);
CREATE INDEX api_key_workspace ON api_key (workspace, id);

CREATE TABLE connection (
    id TEXT NOT NULL PRIMARY KEY,
    organization TEXT NOT NULL REFERENCES organization ON DELETE CASCADE,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    account TEXT,
    config TEXT NOT NULL,
    secret BLOB,
    secret_key_id TEXT,
    status TEXT NOT NULL,
    status_reason TEXT,
    checked_at_us BIGINT,
    revision BIGINT NOT NULL,
    created_at_us BIGINT NOT NULL,
    updated_at_us BIGINT NOT NULL,
    UNIQUE (organization, name)
);

CREATE TABLE agent (
    id TEXT NOT NULL PRIMARY KEY,
    workspace TEXT NOT NULL REFERENCES workspace ON DELETE CASCADE,
    name TEXT NOT NULL,
    running BOOLEAN NOT NULL,
    current TEXT NOT NULL,
    version BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_at_us BIGINT NOT NULL,
    updated_at_us BIGINT NOT NULL,
    UNIQUE (workspace, name)
);

CREATE TABLE agent_version (
    id TEXT NOT NULL PRIMARY KEY,
    workspace TEXT NOT NULL,
    agent TEXT NOT NULL REFERENCES agent ON DELETE CASCADE,
    number BIGINT NOT NULL,
    config TEXT NOT NULL,
    created_at_us BIGINT NOT NULL,
    UNIQUE (agent, number)
);

CREATE TABLE phone_number (
    id TEXT NOT NULL PRIMARY KEY,
    workspace TEXT NOT NULL REFERENCES workspace ON DELETE CASCADE,
    connection TEXT NOT NULL REFERENCES connection ON DELETE RESTRICT,
    e164 TEXT NOT NULL,
    name TEXT NOT NULL,
    capabilities TEXT NOT NULL,
    settings TEXT NOT NULL,
    forward_to TEXT,
    inbound_agent TEXT REFERENCES agent ON DELETE RESTRICT,
    status TEXT NOT NULL,
    status_reason TEXT,
    revision BIGINT NOT NULL,
    created_at_us BIGINT NOT NULL,
    updated_at_us BIGINT NOT NULL,
    UNIQUE (connection, e164)
);
CREATE INDEX phone_number_workspace ON phone_number (workspace, id);
CREATE INDEX phone_number_inbound_agent ON phone_number (inbound_agent);
CREATE INDEX phone_number_e164 ON phone_number (e164);

CREATE TABLE conversation (
    id TEXT NOT NULL PRIMARY KEY,
    workspace TEXT NOT NULL REFERENCES workspace ON DELETE CASCADE,
    channel TEXT NOT NULL,
    direction TEXT NOT NULL,
    agent_version TEXT,
    phone_number TEXT,
    outcome TEXT,
    summary TEXT,
    collected TEXT NOT NULL,
    started_at_us BIGINT NOT NULL,
    ended_at_us BIGINT
);
CREATE INDEX conversation_workspace ON conversation (workspace, id);

CREATE TABLE call (
    id TEXT NOT NULL PRIMARY KEY REFERENCES conversation ON DELETE CASCADE,
    organization TEXT NOT NULL,
    workspace TEXT NOT NULL,
    connection TEXT NOT NULL,
    carrier_call TEXT NOT NULL,
    status TEXT NOT NULL,
    ended_reason TEXT,
    from_address TEXT NOT NULL,
    to_address TEXT NOT NULL,
    plan TEXT NOT NULL,
    log_revision BIGINT NOT NULL,
    node TEXT,
    lease_expires_at_us BIGINT,
    started_at_us BIGINT NOT NULL,
    answered_at_us BIGINT,
    ended_at_us BIGINT,
    incarnation TEXT,
    UNIQUE (connection, carrier_call)
);
CREATE INDEX call_workspace ON call (workspace, id);
-- Only calls in progress have a lease: a workspace's live calls are found through it, and the calls of a dead node.
CREATE INDEX call_live ON call (workspace, id) WHERE lease_expires_at_us IS NOT NULL;
CREATE INDEX call_lease ON call (lease_expires_at_us) WHERE lease_expires_at_us IS NOT NULL;

CREATE TABLE message (
    id TEXT NOT NULL PRIMARY KEY,
    workspace TEXT NOT NULL,
    conversation TEXT NOT NULL REFERENCES conversation ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    turn BIGINT NOT NULL,
    role TEXT NOT NULL,
    text TEXT NOT NULL,
    heard TEXT,
    at_us BIGINT NOT NULL,
    timing TEXT NOT NULL,
    UNIQUE (conversation, seq)
);

CREATE TABLE tool_call (
    id TEXT NOT NULL PRIMARY KEY,
    workspace TEXT NOT NULL,
    conversation TEXT NOT NULL REFERENCES conversation ON DELETE CASCADE,
    turn BIGINT NOT NULL,
    name TEXT NOT NULL,
    arguments TEXT NOT NULL,
    result TEXT,
    error TEXT,
    started_at_us BIGINT NOT NULL,
    ended_at_us BIGINT
);
CREATE INDEX tool_call_conversation ON tool_call (conversation);

CREATE TABLE call_event (
    call TEXT NOT NULL REFERENCES call ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    at_us BIGINT NOT NULL,
    input TEXT NOT NULL,
    orders TEXT NOT NULL,
    digest BIGINT NOT NULL,
    PRIMARY KEY (call, seq)
);

CREATE TABLE call_snapshot (
    call TEXT NOT NULL PRIMARY KEY REFERENCES call ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    state TEXT NOT NULL
);

CREATE TABLE audit_event (
    id TEXT NOT NULL PRIMARY KEY,
    organization TEXT NOT NULL,
    workspace TEXT NOT NULL,
    at_us BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_event_workspace ON audit_event (workspace, id);

CREATE TABLE usage (
    id TEXT NOT NULL PRIMARY KEY,
    workspace TEXT NOT NULL,
    at_us BIGINT NOT NULL,
    kind TEXT NOT NULL,
    provider TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    unit_price_micros BIGINT NOT NULL,
    currency TEXT NOT NULL,
    conversation TEXT
);
CREATE INDEX usage_workspace ON usage (workspace, at_us);
CREATE INDEX usage_conversation ON usage (conversation);

-- Processes that drive calls, and when each was last seen: the next one of a name must know whether the one before is dead.
CREATE TABLE node (
    incarnation TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    seen_at_us BIGINT NOT NULL
);
