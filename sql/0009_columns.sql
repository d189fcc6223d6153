-- What the columns of an outbox table were called when init ran: one that has another
-- name since would be left out of every event, silently.
ALTER TABLE walrelay.outboxes
    ADD COLUMN IF NOT EXISTS columns jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN walrelay.outboxes.columns IS
    'The numbers of the table''s columns by their names.';
