-- Slots that are on a standby, where relays read them: this server does not list them.
CREATE TABLE IF NOT EXISTS walrelay.standby_slots (
    slot text PRIMARY KEY
);
COMMENT ON TABLE walrelay.standby_slots IS
    'The slots that are on a standby of this server: written by init.';

-- Whether a slot exists: in this database, or on a standby.
CREATE OR REPLACE FUNCTION walrelay.slot_exists(of_slot text)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pg_replication_slots AS s WHERE s.slot_name = of_slot AND s.database = current_database())
        OR EXISTS (SELECT FROM walrelay.standby_slots AS s WHERE s.slot = of_slot)
$$;
REVOKE EXECUTE ON FUNCTION walrelay.slot_exists(text) FROM PUBLIC;

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
    IF NOT walrelay.slot_exists(emit_event.slot) THEN
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

-- Hands the delayed events of a slot that does not exist any more over to another one:
-- those in the delay table, the keys that they hold, and those that were emitted and not
-- read; with the journal of what was published. Returns how many events. For the relay's role; the relay of the other slot must
-- not run.
CREATE OR REPLACE FUNCTION walrelay.adopt(from_slot text, to_slot text)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    holder  integer;
    adopted bigint;
    emitted bigint;
BEGIN
    IF from_slot IS NULL OR to_slot IS NULL OR from_slot = to_slot THEN
        RAISE EXCEPTION 'two slots must be named' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF walrelay.slot_exists(from_slot) THEN
        RAISE EXCEPTION 'replication slot "%" exists: its relay publishes its events', from_slot
            USING ERRCODE = 'object_in_use', HINT = 'Drop the slot first, if no relay is to use it any more.';
    END IF;
    -- A relay that starts meanwhile waits here.
    PERFORM FROM walrelay.progress AS p WHERE p.slot = to_slot FOR UPDATE;
    IF NOT walrelay.slot_exists(to_slot) THEN
        RAISE EXCEPTION 'replication slot "%" does not exist in this database', to_slot
            USING ERRCODE = 'undefined_object', HINT = 'Run "walrelay init" first.';
    END IF;
    SELECT s.active_pid INTO holder FROM pg_replication_slots AS s WHERE s.slot_name = to_slot AND s.database = current_database();
    IF holder IS NOT NULL THEN
        RAISE EXCEPTION 'a relay is running: it holds slot "%" (its walsender has pid %)', to_slot, holder
            USING ERRCODE = 'object_in_use', HINT = 'Stop it, its standbys too, and run this again.';
    END IF;
    -- Where both slots have read the same row, each has its event.
    DELETE FROM walrelay.delayed AS d
    WHERE d.slot = from_slot
      AND EXISTS (SELECT FROM walrelay.delayed AS o WHERE o.slot = to_slot AND o.position = d.position);
    UPDATE walrelay.delayed AS d SET slot = to_slot WHERE d.slot = from_slot;
    GET DIAGNOSTICS adopted = ROW_COUNT;
    INSERT INTO walrelay.keys (slot, key_hash, released)
    SELECT to_slot, k.key_hash, k.released FROM walrelay.keys AS k WHERE k.slot = from_slot
    ON CONFLICT (slot, key_hash) DO NOTHING;
    DELETE FROM walrelay.keys AS k WHERE k.slot = from_slot;
    -- What it has published is cleaned up by the other one.
    UPDATE walrelay.journal AS j SET slot = to_slot WHERE j.slot = from_slot;
    -- What that slot was to read from the WAL is written once more.
    INSERT INTO walrelay.emitted (
        slot, kind, id, table_schema, table_name, origin, scheduled_at, max_retries, attempts, failures, released,
        content, content_bytes
    )
    SELECT
        to_slot, e.kind, e.id, e.table_schema, e.table_name, e.origin, e.scheduled_at, e.max_retries, e.attempts, e.failures, e.released,
        e.content, e.content_bytes
    FROM walrelay.emitted AS e
    LEFT JOIN walrelay.progress AS p ON p.slot = e.slot
    WHERE e.slot = from_slot AND e.kind <> 'marker' AND NOT walrelay.is_settled(e.xmin, p.published);
    GET DIAGNOSTICS emitted = ROW_COUNT;
    DELETE FROM walrelay.emitted AS e WHERE e.slot = from_slot;
    RETURN adopted + emitted;
END
$$;
REVOKE EXECUTE ON FUNCTION walrelay.adopt(text, text) FROM PUBLIC;
