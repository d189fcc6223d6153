-- Re-emission by rows in place of logical messages, which any login can write:
-- what the relay reads is what may be inserted into its tables.

ALTER TABLE walrelay.progress
    ADD COLUMN IF NOT EXISTS messages_until pg_lsn;

COMMENT ON COLUMN walrelay.progress.messages_until IS
    'Logical messages of transactions before this LSN are read; they are from before walrelay.emitted was published.';

-- A table of that name had hashes of ids. What was written as a logical message
-- until now may still have to be read.
DO $walrelay$
BEGIN
    IF EXISTS (
        SELECT FROM pg_catalog.pg_attribute
        WHERE attrelid = to_regclass('walrelay.emitted') AND attname = 'hashes' AND NOT attisdropped
    ) THEN
        UPDATE walrelay.progress
        SET messages_until = pg_catalog.pg_current_wal_insert_lsn();
        DROP VIEW IF EXISTS walrelay.underway;
        DROP TABLE walrelay.emitted;
    END IF;
END
$walrelay$;

CREATE TABLE IF NOT EXISTS walrelay.emitted (
    slot          text    NOT NULL,
    kind          text    NOT NULL
        CHECK (kind IN ('event', 'row', 'message', 'marker')),
    id            text    NOT NULL,
    table_schema  text,
    table_name    text,
    origin        text,
    scheduled_at  timestamptz,
    max_retries   integer,
    attempts      integer NOT NULL DEFAULT 0,
    failures      jsonb,
    released      boolean NOT NULL DEFAULT false,
    content       text,
    content_bytes bytea
);

-- Rows are deleted when a TRUNCATE has to wait for too long; a publication of
-- deletes would refuse that otherwise.
ALTER TABLE walrelay.emitted REPLICA IDENTITY FULL;

COMMENT ON TABLE walrelay.emitted IS
    'Events that the relay reads from here in place of an outbox table: those that leave the delay table, and those of walrelay.emit_event. Part of the publication. A row means nothing once it is in the WAL; settled ones are removed.';
COMMENT ON COLUMN walrelay.emitted.slot IS
    'The slot whose relay the row is for.';
COMMENT ON COLUMN walrelay.emitted.kind IS
    'What content is: an event, the row or message that cannot become one, or a marker of the relay.';
COMMENT ON COLUMN walrelay.emitted.id IS
    'The id of the event; of a marker, its text.';
COMMENT ON COLUMN walrelay.emitted.origin IS
    'Where the event first stood in the WAL; null for an event of walrelay.emit_event.';
COMMENT ON COLUMN walrelay.emitted.released IS
    'The event passes although its key is blocked.';
COMMENT ON COLUMN walrelay.emitted.content IS
    'The event in the JSON format of CloudEvents, in a database in UTF-8.';
COMMENT ON COLUMN walrelay.emitted.content_bytes IS
    'Content that is not text, or not in the database''s encoding.';

-- The 64-bit transaction of a row's xmin, or a later one: xmin has 32 bits, and
-- stays as it was when the row is frozen.
CREATE OR REPLACE FUNCTION walrelay.full_xid(xmin xid)
RETURNS numeric
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT latest - mod(latest - xmin::text::numeric + 4294967296 * 2, 4294967296)
    FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::numeric AS latest) AS s
$$;

-- Whether every event of the transaction that wrote a row is settled: then it is
-- below everything that was in progress when the snapshot was taken. Right for
-- savepoints and prepared transactions, too.
CREATE OR REPLACE FUNCTION walrelay.is_settled(xmin xid, published pg_snapshot)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(walrelay.full_xid(xmin) < pg_snapshot_xmin(published)::text::numeric, false)
$$;

CREATE OR REPLACE VIEW walrelay.underway AS
SELECT e.slot, e.table_schema, e.table_name, e.id
FROM walrelay.emitted AS e
LEFT JOIN walrelay.progress AS p ON p.slot = e.slot
WHERE e.kind <> 'marker' AND NOT walrelay.is_settled(e.xmin, p.published);

COMMENT ON VIEW walrelay.underway IS
    'Events that were emitted and are not known to be settled.';

DROP FUNCTION IF EXISTS walrelay.delayed_message(walrelay.delayed, boolean);

-- Publishes an event without a row of its own, in the caller's transaction. The
-- slot is the relay's.
CREATE OR REPLACE FUNCTION walrelay.emit_event(
    event_type    text,
    source        text,
    data          jsonb       DEFAULT NULL,
    subject       text        DEFAULT NULL,
    scheduled_at  timestamptz DEFAULT NULL,
    max_retries   integer     DEFAULT NULL,
    partition_key text        DEFAULT NULL,
    extensions    jsonb       DEFAULT NULL,
    data_bytes    bytea       DEFAULT NULL,
    content_type  text        DEFAULT NULL,
    data_schema   text        DEFAULT NULL,
    id            uuid        DEFAULT NULL,
    slot          text        DEFAULT 'walrelay'
)
RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO'
SET timezone = 'UTC'
AS $$
DECLARE
    event jsonb;
    utf8  boolean := pg_catalog.getdatabaseencoding() = 'UTF8';
BEGIN
    id := coalesce(id, gen_random_uuid());
    PERFORM walrelay.check_event(id::text, event_type, source, subject, content_type, data_schema,
                                 extensions, partition_key, scheduled_at, max_retries);
    IF data IS NOT NULL AND data_bytes IS NOT NULL THEN
        RAISE EXCEPTION 'data and data_bytes are both set' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_replication_slots AS s
        WHERE s.slot_name = emit_event.slot AND s.database = current_database()
    ) THEN
        RAISE EXCEPTION 'replication slot "%" does not exist in this database, so nobody would publish the event', slot
            USING ERRCODE = 'undefined_object', HINT = 'Name the slot of the relay, or run "walrelay init".';
    END IF;
    event := coalesce(nullif(extensions, 'null'), '{}') || jsonb_strip_nulls(jsonb_build_object(
        'id', id,
        'type', event_type,
        'source', source,
        'subject', subject,
        'partitionkey', partition_key,
        'datacontenttype', coalesce(content_type,
            CASE WHEN data IS NOT NULL THEN 'application/json'
                 WHEN data_bytes IS NOT NULL THEN 'application/octet-stream' END),
        'dataschema', data_schema,
        'time', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')));
    IF data IS NOT NULL THEN
        event := event || jsonb_build_object('data', data);
    ELSIF data_bytes IS NOT NULL THEN
        event := event || jsonb_build_object('data_base64', translate(encode(data_bytes, 'base64'), E'\n', ''));
    END IF;
    INSERT INTO walrelay.emitted (slot, kind, id, scheduled_at, max_retries, content, content_bytes)
    VALUES (emit_event.slot, 'event', emit_event.id::text, emit_event.scheduled_at, emit_event.max_retries,
            CASE WHEN utf8 THEN event::text END,
            CASE WHEN NOT utf8 THEN convert_to(event::text, 'UTF8') END);
    RETURN id;
END
$$;

REVOKE ALL ON FUNCTION walrelay.emit_event(text, text, jsonb, text, timestamptz, integer, text, jsonb, bytea, text, text, uuid, text) FROM PUBLIC;

-- Whether an event of that state keeps later ones of its key from being
-- published. failed_blocks: failed ones do.
CREATE OR REPLACE FUNCTION walrelay.blocks_key(state text, failed_blocks boolean)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT state IN ('retrying', 'failed') AND (state = 'retrying' OR failed_blocks)
$$;

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
        WHERE u.id = event_status.id
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
        FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS acl
        WHERE c.oid = 'walrelay.progress'::regclass AND acl.privilege_type = 'UPDATE'
            AND acl.grantee <> 0 AND acl.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, DELETE, TRUNCATE ON walrelay.emitted TO %s', granted.role);
        EXECUTE format('GRANT SELECT ON walrelay.underway TO %s', granted.role);
    END LOOP;
END
$walrelay$;
