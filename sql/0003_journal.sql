-- Which events each stream has got, in order, so that what the stream loses can
-- be published again from the rows of the outbox tables; and which were given
-- back from the delay table, until a stream has them.

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

CREATE TABLE IF NOT EXISTS walrelay.emitted (
    slot    text     NOT NULL,
    xact_id xid8     NOT NULL DEFAULT pg_current_xact_id(),
    hashes  bigint[] NOT NULL
);

ALTER TABLE walrelay.emitted ALTER COLUMN hashes SET STORAGE EXTERNAL;

CREATE INDEX IF NOT EXISTS emitted_xact_idx
    ON walrelay.emitted (slot, xact_id);

COMMENT ON TABLE walrelay.emitted IS
    'Events that left the delay table a moment ago. It must not be part of a publication.';
COMMENT ON COLUMN walrelay.emitted.xact_id IS
    'The transaction in which they left it, and were written into the write-ahead log.';
COMMENT ON COLUMN walrelay.emitted.hashes IS
    'hashtextextended(id, 0) of each.';

-- Those of them that have no outcome since, as far as is known.
CREATE OR REPLACE VIEW walrelay.underway AS
SELECT e.slot, e.hashes
FROM walrelay.progress AS p
JOIN walrelay.emitted AS e
    ON e.slot = p.slot
    AND e.xact_id >= coalesce(pg_snapshot_xmin(p.published), '0')
    AND pg_visible_in_snapshot(e.xact_id, p.published) IS NOT TRUE;

-- What has become of an event, for the application that wrote it. "unknown"
-- means that there is no such row: it never was committed, or was published
-- and cleaned away since.
CREATE OR REPLACE FUNCTION walrelay.event_status(
    id                  text,
    OUT state           text,
    OUT attempts        integer,
    OUT last_error      text,
    OUT next_attempt_at timestamptz
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relay  record;
    outbox jsonb;
    seen   boolean;
    kind   text;
    found_rows bigint := 0;
BEGIN
    SELECT d.state, d.attempts, d.last_error,
           CASE WHEN d.state IN ('scheduled', 'retrying') THEN d.due_at END
    INTO state, attempts, last_error, next_attempt_at
    FROM walrelay.delayed AS d
    WHERE d.id = event_status.id
    ORDER BY d.updated_at DESC
    LIMIT 1;
    IF FOUND THEN
        RETURN;
    END IF;
    attempts := 0;
    IF EXISTS (
        SELECT FROM walrelay.underway AS u
        WHERE hashtextextended(event_status.id, 0) = ANY (u.hashes)
    ) THEN
        state := 'pending';
        RETURN;
    END IF;
    FOR relay IN SELECT p.published, p.outboxes FROM walrelay.progress AS p LOOP
        FOR outbox IN SELECT * FROM jsonb_array_elements(relay.outboxes) LOOP
            SELECT format_type(a.atttypid, a.atttypmod) INTO kind
            FROM pg_attribute AS a
            WHERE a.attrelid = to_regclass(outbox ->> 'table')
              AND a.attname = outbox ->> 'id' AND NOT a.attisdropped;
            CONTINUE WHEN NOT FOUND;
            found_rows := 0;
            BEGIN
                EXECUTE format(
                    'SELECT %s FROM %s WHERE %I = $1::%s',
                    CASE WHEN outbox ->> 'xact' IS NULL THEN 'NULL::boolean'
                         ELSE format('pg_visible_in_snapshot(%I, $2)', outbox ->> 'xact') END,
                    outbox ->> 'table', outbox ->> 'id', kind)
                INTO seen USING event_status.id, relay.published;
                GET DIAGNOSTICS found_rows = ROW_COUNT;
            EXCEPTION WHEN invalid_text_representation THEN
                NULL; -- no id of this table
            END;
            IF found_rows > 0 THEN
                state := CASE WHEN outbox ->> 'xact' IS NULL THEN 'unknown'
                              WHEN seen THEN 'published'
                              ELSE 'pending' END;
                RETURN;
            END IF;
        END LOOP;
    END LOOP;
    state := 'unknown';
END
$$;

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
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON walrelay.journal, walrelay.published, walrelay.emitted, walrelay.underway TO %s', granted.role);
    END LOOP;
END
$walrelay$;
