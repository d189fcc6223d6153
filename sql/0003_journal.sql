-- Which events each stream has got, in order, so that what the stream loses can
-- be published again from the rows of the outbox tables.

CREATE TABLE IF NOT EXISTS walrelay.journal (
    slot       text        NOT NULL,
    id         bigint      GENERATED ALWAYS AS IDENTITY,
    stream     text        NOT NULL,
    first      text        COLLATE "C" NOT NULL,
    last       text        COLLATE "C" NOT NULL,
    events     integer     NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    entries    bytea       NOT NULL,
    PRIMARY KEY (slot, id)
);

-- Random ids do not compress.
ALTER TABLE walrelay.journal ALTER COLUMN entries SET STORAGE EXTERNAL;

CREATE INDEX IF NOT EXISTS journal_first_idx
    ON walrelay.journal (slot, stream, first, id);

COMMENT ON TABLE walrelay.journal IS
    'Which events each stream has got, for as long as outbox.repair_window. It must not be part of a publication.';
COMMENT ON COLUMN walrelay.journal.first IS
    'Position of the first event in entries: commit LSN and index, in hex.';
COMMENT ON COLUMN walrelay.journal.last IS
    'Position of the last event in entries.';
COMMENT ON COLUMN walrelay.journal.events IS
    'How many events entries has.';
COMMENT ON COLUMN walrelay.journal.entries IS
    'Position, table and id of each event, in the order of positions, packed.';

CREATE TABLE IF NOT EXISTS walrelay.published (
    slot     text        NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    snapshot pg_snapshot NOT NULL,
    PRIMARY KEY (slot, noted_at)
);

COMMENT ON TABLE walrelay.published IS
    'Since when every event of the transactions that a snapshot sees has an outcome: what the clean-up goes by. It must not be part of a publication.';

-- The rights that init gives to tables were given before these existed.
DO $walrelay$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT DISTINCT acl.grantee::regrole AS role
        FROM pg_catalog.pg_class AS c, aclexplode(c.relacl) AS acl
        WHERE c.oid = 'walrelay.progress'::regclass AND acl.privilege_type = 'UPDATE'
            AND acl.grantee <> 0 AND acl.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON walrelay.journal, walrelay.published TO %s', granted.role);
    END LOOP;
END
$walrelay$;
