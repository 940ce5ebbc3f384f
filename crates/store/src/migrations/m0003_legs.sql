-- The number that passed a call on to ours, where the network told: an overflow from another line.
ALTER TABLE call ADD COLUMN forwarded_from TEXT;

-- Phones that were rung from calls, and those of our own people that calls begin with.
CREATE TABLE leg (
    call TEXT NOT NULL REFERENCES call ON DELETE CASCADE,
    number BIGINT NOT NULL,
    role TEXT NOT NULL,
    connection TEXT NOT NULL,
    carrier_call TEXT,
    to_address TEXT NOT NULL,
    dialled_at_us BIGINT NOT NULL,
    answered_at_us BIGINT,
    bridged_at_us BIGINT,
    at_carrier BOOLEAN NOT NULL,
    ended_at_us BIGINT,
    outcome TEXT,
    PRIMARY KEY (call, number),
    UNIQUE (connection, carrier_call)
);
