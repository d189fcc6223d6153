-- An event that is too large to be published is a reference to its row: its content
-- is not copied.
ALTER TABLE walrelay.delayed
    DROP CONSTRAINT IF EXISTS delayed_kind_check,
    ADD CONSTRAINT delayed_kind_check CHECK (kind IN ('event', 'row', 'message', 'reference'));
COMMENT ON COLUMN walrelay.delayed.kind IS
    'What content is: an event, the row or message that cannot become one, or a reference to the row in its outbox table.';

ALTER TABLE walrelay.emitted
    DROP CONSTRAINT IF EXISTS emitted_kind_check,
    ADD CONSTRAINT emitted_kind_check CHECK (kind IN ('event', 'row', 'message', 'reference', 'marker'));
COMMENT ON COLUMN walrelay.emitted.kind IS
    'What content is: an event, the row or message that cannot become one, a reference to a row, or a marker of the relay.';
