-- All that is known of the delayed events with the id $1.
SELECT
    slot, position, state, due_at, id, event_type, source, coalesce(partition_key, '') AS partition_key,
    table_schema, table_name, attempts, max_retries, coalesce(last_error, '') AS last_error,
    created_at, updated_at, origin, kind, content, failures
FROM walrelay.delayed
WHERE id = $1
ORDER BY position;
