-- What is called published, marked or deleted is what the journal or the delay
-- table knows the outcome of.

ALTER TABLE walrelay.journal
    ADD COLUMN IF NOT EXISTS marked boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN walrelay.journal.stream IS
    'The stream; empty for events that a route drops.';
COMMENT ON COLUMN walrelay.journal.marked IS
    'The rows of all entries are marked (outbox.after_publish: mark).';

CREATE INDEX IF NOT EXISTS journal_unmarked_idx
    ON walrelay.journal (slot, id)
    WHERE NOT marked;

DROP TABLE IF EXISTS walrelay.published;
ALTER TABLE walrelay.progress
    DROP COLUMN IF EXISTS outboxes;

-- Only init writes it: what it names is read with the rights of its owner.
CREATE TABLE IF NOT EXISTS walrelay.outboxes (
    slot          text     NOT NULL,
    relation      regclass NOT NULL,
    id_column     name     NOT NULL,
    covered_since xid8     NOT NULL,
    PRIMARY KEY (slot, relation)
);

COMMENT ON TABLE walrelay.outboxes IS
    'The outbox tables that each slot reads. Written by init alone.';
COMMENT ON COLUMN walrelay.outboxes.covered_since IS
    'Rows of this transaction and of later ones are read by the slot; of earlier ones that is not known.';

DROP FUNCTION IF EXISTS walrelay.event_status(text);

-- The functions of operators act with the rights of their owner, so that nobody
-- has to be given the tables. A filter has the table too (as schema.table), for ids
-- that are only unique within one.
DROP FUNCTION IF EXISTS walrelay.redrive(text, text, text, text, text, text, boolean);
DROP FUNCTION IF EXISTS walrelay.discard(text, text, text, text, text, text, boolean);
DROP FUNCTION IF EXISTS walrelay.cancel(text, text, text, text, text, text, boolean);
DROP FUNCTION IF EXISTS walrelay.reschedule(timestamptz, text, text, text, text, text, text, boolean);
DROP FUNCTION IF EXISTS walrelay.change_delayed(text[], text, timestamptz, text, text, text, text, text, text, boolean);
DROP FUNCTION IF EXISTS walrelay.find_delayed(text, text, text, text, text, text);

-- The delayed events that a filter takes; a null takes everything.
CREATE OR REPLACE FUNCTION walrelay.find_delayed(
    id            text DEFAULT NULL,
    state         text DEFAULT NULL,
    event_type    text DEFAULT NULL,
    partition_key text DEFAULT NULL,
    error         text DEFAULT NULL,
    slot          text DEFAULT NULL,
    outbox        text DEFAULT NULL
)
RETURNS SETOF walrelay.delayed
LANGUAGE plpgsql STABLE SECURITY DEFINER
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
        || CASE WHEN outbox IS NULL THEN '' ELSE ' AND d.table_schema || ''.'' || d.table_name = $7' END
        USING id, state, event_type, partition_key, error, slot, outbox;
END
$$;

-- What the functions below have in common: they change the events that the filter
-- takes and tell the relay. Without a filter, everything => true must be said; an
-- id that events of several tables have needs the table.
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
    outbox        text,
    everything    boolean
)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed bigint;
    tables  text[];
BEGIN
    IF NOT everything AND coalesce(id, state, event_type, partition_key, error, slot, outbox) IS NULL THEN
        RAISE EXCEPTION 'this would change every delayed event; give a filter, or everything => true'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF id IS NOT NULL AND outbox IS NULL THEN
        SELECT array_agg(DISTINCT f.table_schema || '.' || f.table_name) INTO tables
        FROM walrelay.find_delayed(id, state, event_type, partition_key, error, slot) AS f
        WHERE f.state = ANY (states);
        IF cardinality(tables) > 1 THEN
            RAISE EXCEPTION 'events of several tables have the id % (%)', id, array_to_string(tables, ', ')
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Name the table: outbox => ''schema.table''.';
        END IF;
    END IF;
    WITH found AS (
        SELECT f.slot, f.position
        FROM walrelay.find_delayed(id, state, event_type, partition_key, error, slot, outbox) AS f
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
    everything boolean DEFAULT false, outbox text DEFAULT NULL
)
RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT walrelay.change_delayed('{failed,retrying}', 'retrying', clock_timestamp(),
                                   id, state, event_type, partition_key, error, slot, outbox, everything)
$$;

-- Gives events up for good. Returns how many.
CREATE OR REPLACE FUNCTION walrelay.discard(
    id text DEFAULT NULL, state text DEFAULT NULL, event_type text DEFAULT NULL,
    partition_key text DEFAULT NULL, error text DEFAULT NULL, slot text DEFAULT NULL,
    everything boolean DEFAULT false, outbox text DEFAULT NULL
)
RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT walrelay.change_delayed('{failed,retrying,held}', 'discarded', NULL,
                                   id, state, event_type, partition_key, error, slot, outbox, everything)
$$;

-- Takes scheduled events back before they are emitted. Returns how many.
CREATE OR REPLACE FUNCTION walrelay.cancel(
    id text DEFAULT NULL, state text DEFAULT NULL, event_type text DEFAULT NULL,
    partition_key text DEFAULT NULL, error text DEFAULT NULL, slot text DEFAULT NULL,
    everything boolean DEFAULT false, outbox text DEFAULT NULL
)
RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT walrelay.change_delayed('{scheduled}', 'discarded', NULL,
                                   id, state, event_type, partition_key, error, slot, outbox, everything)
$$;

-- Moves scheduled events, and the next attempt of retrying ones, to another
-- time. Returns how many.
CREATE OR REPLACE FUNCTION walrelay.reschedule(
    scheduled_at timestamptz,
    id text DEFAULT NULL, state text DEFAULT NULL, event_type text DEFAULT NULL,
    partition_key text DEFAULT NULL, error text DEFAULT NULL, slot text DEFAULT NULL,
    everything boolean DEFAULT false, outbox text DEFAULT NULL
)
RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT walrelay.change_delayed('{scheduled,retrying}', NULL, scheduled_at,
                                   id, state, event_type, partition_key, error, slot, outbox, everything)
$$;

-- The same for one event, by its id as a uuid.
CREATE OR REPLACE FUNCTION walrelay.redrive(id uuid, outbox text DEFAULT NULL)
RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT walrelay.redrive(redrive.id::text, outbox => redrive.outbox)
    WHERE redrive.id IS NOT NULL
$$;

CREATE OR REPLACE FUNCTION walrelay.discard(id uuid, outbox text DEFAULT NULL)
RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT walrelay.discard(discard.id::text, outbox => discard.outbox)
    WHERE discard.id IS NOT NULL
$$;

CREATE OR REPLACE FUNCTION walrelay.cancel(id uuid, outbox text DEFAULT NULL)
RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT walrelay.cancel(cancel.id::text, outbox => cancel.outbox)
    WHERE cancel.id IS NOT NULL
$$;

CREATE OR REPLACE FUNCTION walrelay.reschedule(scheduled_at timestamptz, id uuid, outbox text DEFAULT NULL)
RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT walrelay.reschedule(reschedule.scheduled_at, reschedule.id::text, outbox => reschedule.outbox)
    WHERE reschedule.id IS NOT NULL
$$;

-- What an application may do with an event that it has published.
CREATE OR REPLACE FUNCTION walrelay.cancel_event(id text, outbox text DEFAULT NULL)
RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT walrelay.cancel(cancel_event.id, outbox => cancel_event.outbox)
    WHERE cancel_event.id IS NOT NULL
$$;

CREATE OR REPLACE FUNCTION walrelay.reschedule_event(id text, scheduled_at timestamptz, outbox text DEFAULT NULL)
RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT walrelay.reschedule(reschedule_event.scheduled_at, reschedule_event.id, outbox => reschedule_event.outbox)
    WHERE reschedule_event.id IS NOT NULL
$$;

-- Nobody may do anything that was not granted: see the roles.
DO $walrelay$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN SELECT oid FROM pg_catalog.pg_proc WHERE pronamespace = 'walrelay'::regnamespace LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', function);
    END LOOP;
END
$walrelay$;

-- The rights that init gave to the relay's role were given before these existed.
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
        EXECUTE format('GRANT SELECT ON walrelay.outboxes TO %s', granted.role);
        EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA walrelay TO %s', granted.role);
    END LOOP;
END
$walrelay$;
