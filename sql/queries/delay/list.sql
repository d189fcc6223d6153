-- Delayed events by a filter (walrelay.find_delayed), newest position first, or
-- the page after the position $8 of slot $9.
SELECT
    slot, position, state, due_at, id, event_type, source, coalesce(partition_key, '') AS partition_key,
    table_schema, table_name, attempts, max_retries, coalesce(last_error, '') AS last_error,
    created_at, updated_at
FROM walrelay.find_delayed($1, $2, $3, $4, $5, $6, $7)
WHERE $8::text IS NULL OR (position COLLATE "C", slot) < ($8 COLLATE "C", $9)
ORDER BY position DESC, slot DESC
LIMIT $10;
