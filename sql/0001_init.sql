-- walrelay's own schema: what it has applied to this database, and how far
-- each slot has come.

CREATE SCHEMA IF NOT EXISTS walrelay;

COMMENT ON SCHEMA walrelay IS
    'Bookkeeping of walrelay. It must not be part of a publication.';

CREATE TABLE IF NOT EXISTS walrelay.migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE walrelay.migrations IS
    'The migrations of this schema that have been applied.';

CREATE TABLE IF NOT EXISTS walrelay.progress (
    slot              text        PRIMARY KEY,
    system_identifier text        NOT NULL,
    timeline          integer     NOT NULL,
    flush_lsn         pg_lsn      NOT NULL,
    streams           jsonb       NOT NULL DEFAULT '{}',
    updated_at        timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE walrelay.progress IS
    'How far each replication slot has come: one row per slot.';
COMMENT ON COLUMN walrelay.progress.slot IS
    'The logical replication slot.';
COMMENT ON COLUMN walrelay.progress.system_identifier IS
    'The database system that the positions belong to (IDENTIFY_SYSTEM).';
COMMENT ON COLUMN walrelay.progress.timeline IS
    'The timeline that the positions belong to.';
COMMENT ON COLUMN walrelay.progress.flush_lsn IS
    'Every event of a transaction that ended at or before this LSN has an outcome.';
COMMENT ON COLUMN walrelay.progress.streams IS
    'Per JetStream stream: when it was created, its last sequence, and the position of the event stored there.';
COMMENT ON COLUMN walrelay.progress.updated_at IS
    'When the row was last written.';
