-- Which other writer goes on where this one has ended, and from which one this one goes on:
-- written by "walrelay handover".
ALTER TABLE walrelay.progress
    ADD COLUMN IF NOT EXISTS handed_over jsonb,
    ADD COLUMN IF NOT EXISTS taken_over  jsonb;
COMMENT ON COLUMN walrelay.progress.handed_over IS
    'The slot is closed: what its streams had then, and who goes on there. No relay reads it any more.';
COMMENT ON COLUMN walrelay.progress.taken_over IS
    'What the streams had when this slot went on in them after another writer.';

-- Refuses events in an outbox table whose slot is closed.
CREATE OR REPLACE FUNCTION walrelay.refuse_event()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'outbox table %.% is closed: walrelay publishes from another database now', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Write the event to the database that was handed over to.';
END
$$;
REVOKE EXECUTE ON FUNCTION walrelay.refuse_event() FROM PUBLIC;
