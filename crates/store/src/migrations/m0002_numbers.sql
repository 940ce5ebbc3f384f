-- Numbers that Offhook itself buys, points here and gives back, and the operations that do so.

-- Every number before this came from a file or by hand: it was its account's, and who set its webhooks is not known.
ALTER TABLE phone_number ADD COLUMN source TEXT NOT NULL DEFAULT 'byo';
-- Settings in the carrier's own words: what leads here, and what is given back.
ALTER TABLE phone_number ADD COLUMN our_routing TEXT;
ALTER TABLE phone_number ADD COLUMN previous_routing TEXT;
ALTER TABLE phone_number ADD COLUMN leads_here BOOLEAN NOT NULL DEFAULT FALSE;
-- The one operation that may work on it now.
ALTER TABLE phone_number ADD COLUMN operation TEXT;
ALTER TABLE phone_number ADD COLUMN checked_at_us BIGINT;
CREATE INDEX phone_number_connection ON phone_number (connection);
CREATE INDEX phone_number_checked ON phone_number (checked_at_us) WHERE leads_here;

-- As with calls: agents, numbers and connections may go, what was done to them stays.
CREATE TABLE operation (
    id TEXT NOT NULL PRIMARY KEY,
    organization TEXT NOT NULL,
    workspace TEXT NOT NULL REFERENCES workspace ON DELETE CASCADE,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    agent TEXT,
    connection TEXT,
    node TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    claim TEXT NOT NULL,
    lease_expires_at_us BIGINT,
    created_at_us BIGINT NOT NULL,
    ended_at_us BIGINT
);
CREATE INDEX operation_workspace ON operation (workspace, id);
CREATE INDEX operation_agent ON operation (agent, id);
-- Only operations that go on have a lease.
CREATE INDEX operation_lease ON operation (lease_expires_at_us) WHERE lease_expires_at_us IS NOT NULL;

CREATE TABLE operation_line (
    operation TEXT NOT NULL REFERENCES operation ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    number TEXT NOT NULL,
    e164 TEXT NOT NULL,
    connection TEXT NOT NULL,
    machine TEXT NOT NULL,
    PRIMARY KEY (operation, seq)
);

CREATE TABLE operation_step (
    operation TEXT NOT NULL REFERENCES operation ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    at_us BIGINT NOT NULL,
    ended_at_us BIGINT NOT NULL,
    e164 TEXT,
    what TEXT NOT NULL,
    error TEXT,
    PRIMARY KEY (operation, seq)
);
