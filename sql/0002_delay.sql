-- Events that wait: for their time, to be tried again, behind an earlier event
-- of their key, or for a person.

ALTER TABLE walrelay.progress
    ADD COLUMN IF NOT EXISTS session   bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS published pg_snapshot,
    ADD COLUMN IF NOT EXISTS outboxes  jsonb  NOT NULL DEFAULT '[]';

COMMENT ON COLUMN walrelay.progress.session IS
    'Counts the sessions of the slot; what an earlier one writes is refused.';
COMMENT ON COLUMN walrelay.progress.published IS
    'Every event of a transaction that this snapshot sees has an outcome.';
COMMENT ON COLUMN walrelay.progress.outboxes IS
    'The outbox tables that the slot reads, with the columns of id and transaction.';

CREATE TABLE IF NOT EXISTS walrelay.delayed (
    slot          text        NOT NULL,
    position      text        COLLATE "C" NOT NULL,
    origin        text        COLLATE "C" NOT NULL,
    state         text        NOT NULL
        CHECK (state IN ('scheduled', 'retrying', 'held', 'failed', 'discarded')),
    due_at        timestamptz,
    id            text        NOT NULL,
    event_type    text        NOT NULL,
    source        text        NOT NULL,
    partition_key text,
    key_hash      bigint,
    table_schema  text        NOT NULL,
    table_name    text        NOT NULL,
    attempts      integer     NOT NULL DEFAULT 0,
    max_retries   integer,
    last_error    text,
    failures      jsonb       NOT NULL DEFAULT '[]',
    kind          text        NOT NULL DEFAULT 'event'
        CHECK (kind IN ('event', 'row', 'message')),
    content       bytea       NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (slot, position)
);

COMMENT ON TABLE walrelay.delayed IS
    'Events that are scheduled, retrying, held behind an earlier event of their key, failed, or discarded. It must not be part of a publication.';
COMMENT ON COLUMN walrelay.delayed.position IS
    'Where the event last stood in the write-ahead log: commit LSN and index, in hex.';
COMMENT ON COLUMN walrelay.delayed.origin IS
    'Where the event first stood in the write-ahead log: the order of the events of a key.';
COMMENT ON COLUMN walrelay.delayed.due_at IS
    'When the event is emitted (scheduled) or tried again (retrying).';
COMMENT ON COLUMN walrelay.delayed.key_hash IS
    'The first eight bytes of the SHA-256 of partition_key.';
COMMENT ON COLUMN walrelay.delayed.failures IS
    'The last attempts to publish it: when, and why each failed.';
COMMENT ON COLUMN walrelay.delayed.kind IS
    'What content is: an event, or the row or message that cannot become one.';
COMMENT ON COLUMN walrelay.delayed.content IS
    'The event in the JSON format of CloudEvents.';

CREATE INDEX IF NOT EXISTS delayed_due_idx
    ON walrelay.delayed (slot, due_at, origin)
    WHERE state IN ('scheduled', 'retrying');
CREATE INDEX IF NOT EXISTS delayed_held_idx
    ON walrelay.delayed (slot, key_hash, origin)
    WHERE state = 'held';
CREATE INDEX IF NOT EXISTS delayed_blocking_idx
    ON walrelay.delayed (slot, key_hash)
    WHERE state IN ('retrying', 'failed') AND key_hash IS NOT NULL;
CREATE INDEX IF NOT EXISTS delayed_failed_idx
    ON walrelay.delayed (slot, position)
    WHERE state = 'failed';
CREATE INDEX IF NOT EXISTS delayed_discarded_idx
    ON walrelay.delayed (slot, updated_at)
    WHERE state = 'discarded';
CREATE INDEX IF NOT EXISTS delayed_id_idx
    ON walrelay.delayed (id);

CREATE TABLE IF NOT EXISTS walrelay.keys (
    slot     text    NOT NULL,
    key_hash bigint  NOT NULL,
    released boolean NOT NULL DEFAULT false,
    PRIMARY KEY (slot, key_hash)
);

COMMENT ON TABLE walrelay.keys IS
    'Keys whose later events are held: an earlier one has not been published.';
COMMENT ON COLUMN walrelay.keys.released IS
    'Something that held the key was discarded or failed: look whether it may go on.';

CREATE INDEX IF NOT EXISTS keys_released_idx
    ON walrelay.keys (slot)
    WHERE released;

-- The key's hash, as the relay computes it.
CREATE OR REPLACE FUNCTION walrelay.key_hash(partition_key text)
RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT ('x' || encode(substr(sha256(convert_to(partition_key, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint
$$;

-- What the relay writes into the write-ahead log to give an event back to itself.
-- A plain expression, so that queries need not call it for each row.
CREATE OR REPLACE FUNCTION walrelay.delayed_message(d walrelay.delayed, released boolean)
RETURNS bytea
LANGUAGE sql STABLE
AS $$
    SELECT convert_to(concat(
        '{"schema":', to_json(d.table_schema), ',"table":', to_json(d.table_name), ',"origin":"', d.origin, '"',
        CASE WHEN d.kind <> 'event' THEN concat(',"kind":"', d.kind, '"') END,
        CASE WHEN d.max_retries IS NOT NULL THEN concat(',"max_retries":', d.max_retries) END,
        CASE WHEN d.last_error IS NOT NULL THEN concat(',"attempts":', d.attempts, ',"failures":', d.failures) END,
        CASE WHEN released THEN ',"released":true' END,
        E'}\n'), 'UTF8') || d.content
$$;

-- Raises an exception unless the attributes make an event.
CREATE OR REPLACE FUNCTION walrelay.check_event(
    id            text,
    event_type    text,
    source        text,
    subject       text,
    content_type  text,
    data_schema   text,
    extensions    jsonb,
    partition_key text,
    scheduled_at  timestamptz,
    max_retries   integer
)
RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    attribute record;
BEGIN
    FOR attribute IN
        SELECT name, value, required FROM (VALUES
            ('id', id, true),
            ('event_type', event_type, true),
            ('source', source, true),
            ('subject', subject, false),
            ('content_type', content_type, false),
            ('data_schema', data_schema, false),
            ('partition_key', partition_key, false)
        ) AS a (name, value, required)
    LOOP
        IF attribute.required AND coalesce(attribute.value, '') = '' THEN
            RAISE EXCEPTION '% is null or empty; every event needs a value here', attribute.name
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF attribute.value ~ '[\u0001-\u001f\u007f-\u009f]' THEN
            RAISE EXCEPTION '% has a control character, which CloudEvents forbids in attributes', attribute.name
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF attribute.value <> '' AND attribute.name <> 'partition_key' AND btrim(attribute.value) = '' THEN
            RAISE EXCEPTION '% is nothing but white space', attribute.name
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
    IF source ~ '%(?![0-9A-Fa-f]{2})' THEN
        RAISE EXCEPTION 'source % is no URI reference, such as /orders', source
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF content_type !~ '^[^ /;]+/[^ /;]+ *(;.*)?$' THEN
        RAISE EXCEPTION 'content_type % is no media type, such as application/json', content_type
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF data_schema !~ '^[A-Za-z][A-Za-z0-9+.-]*:' THEN
        RAISE EXCEPTION 'data_schema % is no absolute URI', data_schema
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF max_retries < 0 THEN
        RAISE EXCEPTION 'max_retries % is no number of retries', max_retries
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF scheduled_at >= timestamptz '10000-01-01 00:00:00+00' THEN
        RAISE EXCEPTION 'scheduled_at % never comes; write a time before the year 10000', scheduled_at
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF extensions IS NULL OR extensions = 'null' THEN
        RETURN;
    END IF;
    IF jsonb_typeof(extensions) <> 'object' THEN
        RAISE EXCEPTION 'extensions is no JSON object, such as {"traceparent": "00-..."}'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR attribute IN SELECT key AS name, value FROM jsonb_each(extensions) LOOP
        IF attribute.name !~ '^[a-z0-9]+$' THEN
            RAISE EXCEPTION 'extension "%": a name has lower-case letters and digits only', attribute.name
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF attribute.name IN ('specversion', 'id', 'source', 'type', 'subject', 'time',
                              'datacontenttype', 'dataschema', 'data') THEN
            RAISE EXCEPTION 'extension "%": the name is an attribute of CloudEvents itself', attribute.name
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF jsonb_typeof(attribute.value) IN ('object', 'array') THEN
            RAISE EXCEPTION 'extension "%": write a string, a boolean or an integer', attribute.name
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF jsonb_typeof(attribute.value) = 'number' THEN
            IF attribute.value::text !~ '^-?[0-9]{1,10}$'
               OR (attribute.value::text)::numeric NOT BETWEEN -2147483648 AND 2147483647 THEN
                RAISE EXCEPTION 'extension "%": % is no 32-bit integer; write it as a string',
                    attribute.name, attribute.value
                    USING ERRCODE = 'invalid_parameter_value';
            END IF;
        END IF;
    END LOOP;
END
$$;

-- Inserts an event into an outbox table, in the caller's transaction, and
-- returns its id. An invalid event is refused at once.
CREATE OR REPLACE FUNCTION walrelay.publish_event(
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
    outbox        text        DEFAULT 'public.outbox'
)
RETURNS uuid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    id := coalesce(id, gen_random_uuid());
    PERFORM walrelay.check_event(id::text, event_type, source, subject, content_type, data_schema,
                                 extensions, partition_key, scheduled_at, max_retries);
    EXECUTE format(
        'INSERT INTO %s (id, event_type, source, subject, data, data_bytes, content_type, data_schema,
                         extensions, partition_key, scheduled_at, max_retries)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)', outbox::regclass)
        USING id, event_type, source, subject, data, data_bytes, content_type, data_schema,
              extensions, partition_key, scheduled_at, max_retries;
    RETURN id;
END
$$;

-- The same for an event in the JSON format of CloudEvents.
CREATE OR REPLACE FUNCTION walrelay.publish_cloud_event(
    event        jsonb,
    scheduled_at timestamptz DEFAULT NULL,
    max_retries  integer     DEFAULT NULL,
    outbox       text        DEFAULT 'public.outbox'
)
RETURNS uuid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    event_id   uuid;
    extensions jsonb;
    data       jsonb;
    data_bytes bytea;
    written_at timestamptz;
BEGIN
    IF jsonb_typeof(event) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'the event is no JSON object' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF event ->> 'specversion' IS DISTINCT FROM '1.0' THEN
        RAISE EXCEPTION 'specversion is %; it must be "1.0"', coalesce(event ->> 'specversion', 'missing')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF event ? 'data' AND event ? 'data_base64' THEN
        RAISE EXCEPTION 'data and data_base64 are both set' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    BEGIN
        event_id := coalesce((event ->> 'id')::uuid, gen_random_uuid());
    EXCEPTION WHEN invalid_text_representation THEN
        RAISE EXCEPTION 'id % is no UUID, which the outbox table needs', event ->> 'id'
            USING ERRCODE = 'invalid_parameter_value';
    END;
    BEGIN
        written_at := coalesce((event ->> 'time')::timestamptz, now());
    EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow THEN
        RAISE EXCEPTION 'time % is no time as RFC 3339 writes it', event ->> 'time'
            USING ERRCODE = 'invalid_parameter_value';
    END;
    extensions := event - ARRAY['specversion', 'id', 'source', 'type', 'subject', 'time', 'partitionkey',
                                'datacontenttype', 'dataschema', 'data', 'data_base64'];
    PERFORM walrelay.check_event(event_id::text, event ->> 'type', event ->> 'source', event ->> 'subject',
                                 event ->> 'datacontenttype', event ->> 'dataschema', extensions,
                                 event ->> 'partitionkey', scheduled_at, max_retries);
    data := event -> 'data';
    data_bytes := decode(event ->> 'data_base64', 'base64');
    IF jsonb_typeof(data) = 'string' AND event ->> 'datacontenttype' !~* '^[^/;]+/([^;]*\+)?json *(;|$)' THEN
        -- A text that is not JSON stands as a string ("JSON Event Format", 3.1).
        data_bytes := convert_to(event ->> 'data', 'UTF8');
        data := NULL;
    END IF;
    EXECUTE format(
        'INSERT INTO %s (id, event_type, source, subject, data, data_bytes, content_type, data_schema,
                         extensions, partition_key, scheduled_at, max_retries, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)', outbox::regclass)
        USING event_id, event ->> 'type', event ->> 'source', event ->> 'subject', data, data_bytes,
              event ->> 'datacontenttype', event ->> 'dataschema', nullif(extensions, '{}'),
              event ->> 'partitionkey', scheduled_at, max_retries, written_at;
    RETURN event_id;
END
$$;

-- Publishes an event without a table: a logical message in the caller's
-- transaction. The slot is the relay's.
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
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO'
SET timezone = 'UTC'
AS $$
DECLARE
    event jsonb;
BEGIN
    id := coalesce(id, gen_random_uuid());
    PERFORM walrelay.check_event(id::text, event_type, source, subject, content_type, data_schema,
                                 extensions, partition_key, scheduled_at, max_retries);
    IF data IS NOT NULL AND data_bytes IS NOT NULL THEN
        RAISE EXCEPTION 'data and data_bytes are both set' USING ERRCODE = 'invalid_parameter_value';
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
    PERFORM pg_logical_emit_message(true, 'walrelay.' || slot,
        jsonb_strip_nulls(jsonb_build_object('scheduled_at', scheduled_at::text, 'max_retries', max_retries))::text
        || E'\n' || event::text);
    RETURN id;
END
$$;

-- The delayed events that a filter takes; a null takes everything.
CREATE OR REPLACE FUNCTION walrelay.find_delayed(
    id            text DEFAULT NULL,
    state         text DEFAULT NULL,
    event_type    text DEFAULT NULL,
    partition_key text DEFAULT NULL,
    error         text DEFAULT NULL,
    slot          text DEFAULT NULL
)
RETURNS SETOF walrelay.delayed
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE
        'SELECT * FROM walrelay.delayed AS d WHERE true'
        || CASE WHEN id IS NULL THEN '' ELSE ' AND d.id = $1' END
        || CASE WHEN state IS NULL THEN ' AND d.state <> ''discarded''' ELSE ' AND d.state = $2' END
        || CASE WHEN event_type IS NULL THEN '' ELSE ' AND d.event_type = $3' END
        || CASE WHEN partition_key IS NULL THEN '' ELSE ' AND d.partition_key = $4' END
        || CASE WHEN error IS NULL THEN '' ELSE ' AND strpos(lower(d.last_error), lower($5)) > 0' END
        || CASE WHEN slot IS NULL THEN '' ELSE ' AND d.slot = $6' END
        USING id, state, event_type, partition_key, error, slot;
END
$$;

-- What the four functions below have in common: they change the events that
-- the filter takes and tell the relay. Without a filter, everything => true
-- must be said.
CREATE OR REPLACE FUNCTION walrelay.change_delayed(
    states        text[],
    new_state     text,
    new_due_at    timestamptz,
    id            text,
    state         text,
    event_type    text,
    partition_key text,
    error         text,
    slot          text,
    everything    boolean
)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed bigint;
    relay   text;
BEGIN
    IF NOT everything AND coalesce(id, state, event_type, partition_key, error, slot) IS NULL THEN
        RAISE EXCEPTION 'this would change every delayed event; give a filter, or everything => true'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH found AS (
        SELECT f.slot, f.position
        FROM walrelay.find_delayed(id, state, event_type, partition_key, error, slot) AS f
    ), updated AS (
        UPDATE walrelay.delayed AS d
        SET state = coalesce(new_state, d.state),
            due_at = new_due_at,
            attempts = CASE WHEN d.state = 'failed' THEN 0 ELSE d.attempts END,
            updated_at = clock_timestamp()
        FROM found AS f
        WHERE d.slot = f.slot AND d.position = f.position AND d.state = ANY (states)
        RETURNING d.slot, d.key_hash
    ), freed AS (
        UPDATE walrelay.keys AS k
        SET released = true
        FROM (SELECT DISTINCT u.slot, u.key_hash FROM updated AS u) AS u
        WHERE k.slot = u.slot AND k.key_hash = u.key_hash
    )
    SELECT count(*) INTO changed FROM updated;
    IF changed > 0 THEN
        PERFORM pg_notify('walrelay', '');
    END IF;
    RETURN changed;
END
$$;

-- Tries failed events again, and retrying ones at once. Returns how many.
CREATE OR REPLACE FUNCTION walrelay.redrive(
    id text DEFAULT NULL, state text DEFAULT NULL, event_type text DEFAULT NULL,
    partition_key text DEFAULT NULL, error text DEFAULT NULL, slot text DEFAULT NULL,
    everything boolean DEFAULT false
)
RETURNS bigint
LANGUAGE sql
AS $$
    SELECT walrelay.change_delayed('{failed,retrying}', 'retrying', clock_timestamp(),
                                   id, state, event_type, partition_key, error, slot, everything)
$$;

-- Gives events up for good. Returns how many.
CREATE OR REPLACE FUNCTION walrelay.discard(
    id text DEFAULT NULL, state text DEFAULT NULL, event_type text DEFAULT NULL,
    partition_key text DEFAULT NULL, error text DEFAULT NULL, slot text DEFAULT NULL,
    everything boolean DEFAULT false
)
RETURNS bigint
LANGUAGE sql
AS $$
    SELECT walrelay.change_delayed('{failed,retrying,held}', 'discarded', NULL,
                                   id, state, event_type, partition_key, error, slot, everything)
$$;

-- Takes scheduled events back before they are emitted. Returns how many.
CREATE OR REPLACE FUNCTION walrelay.cancel(
    id text DEFAULT NULL, state text DEFAULT NULL, event_type text DEFAULT NULL,
    partition_key text DEFAULT NULL, error text DEFAULT NULL, slot text DEFAULT NULL,
    everything boolean DEFAULT false
)
RETURNS bigint
LANGUAGE sql
AS $$
    SELECT walrelay.change_delayed('{scheduled}', 'discarded', NULL,
                                   id, state, event_type, partition_key, error, slot, everything)
$$;

-- Moves scheduled events, and the next attempt of retrying ones, to another
-- time. Returns how many.
CREATE OR REPLACE FUNCTION walrelay.reschedule(
    scheduled_at timestamptz,
    id text DEFAULT NULL, state text DEFAULT NULL, event_type text DEFAULT NULL,
    partition_key text DEFAULT NULL, error text DEFAULT NULL, slot text DEFAULT NULL,
    everything boolean DEFAULT false
)
RETURNS bigint
LANGUAGE sql
AS $$
    SELECT walrelay.change_delayed('{scheduled,retrying}', NULL, scheduled_at,
                                   id, state, event_type, partition_key, error, slot, everything)
$$;

REVOKE EXECUTE ON FUNCTION walrelay.find_delayed(text, text, text, text, text, text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION walrelay.change_delayed(text[], text, timestamptz, text, text, text, text, text, text, boolean) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION walrelay.redrive(text, text, text, text, text, text, boolean) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION walrelay.discard(text, text, text, text, text, text, boolean) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION walrelay.cancel(text, text, text, text, text, text, boolean) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION walrelay.reschedule(timestamptz, text, text, text, text, text, text, boolean) FROM PUBLIC;
