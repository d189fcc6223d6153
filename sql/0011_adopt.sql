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
    IF EXISTS (
        SELECT FROM pg_replication_slots AS s
        WHERE s.slot_name = from_slot AND s.database = current_database()
    ) THEN
        RAISE EXCEPTION 'replication slot "%" exists: its relay publishes its events', from_slot
            USING ERRCODE = 'object_in_use', HINT = 'Drop the slot first, if no relay is to use it any more.';
    END IF;
    -- A relay that starts meanwhile waits here.
    PERFORM FROM walrelay.progress AS p WHERE p.slot = to_slot FOR UPDATE;
    SELECT s.active_pid INTO holder
    FROM pg_replication_slots AS s
    WHERE s.slot_name = to_slot AND s.database = current_database();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'replication slot "%" does not exist in this database', to_slot
            USING ERRCODE = 'undefined_object', HINT = 'Run "walrelay init" first.';
    END IF;
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
