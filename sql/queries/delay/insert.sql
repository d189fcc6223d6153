-- Adds events to the delay table of slot $1, if its session is still $2. An
-- event that is there already stays as it is. Returns in how many seconds the
-- first of them is due; null if none is.
WITH added AS (
    INSERT INTO walrelay.delayed (
        slot, position, origin, state, due_at, id, event_type, source, partition_key, key_hash,
        table_schema, table_name, attempts, max_retries, last_error, failures, kind, content
    )
    SELECT
        $1, a.position, a.origin, a.state,
        CASE a.state
            WHEN 'scheduled' THEN a.due_at
            WHEN 'retrying' THEN clock_timestamp() + a.wait * interval '1 second'
        END,
        a.id, a.event_type, a.source, a.partition_key, a.key_hash,
        a.table_schema, a.table_name, a.attempts, a.max_retries, a.last_error, a.failures::jsonb, a.kind, a.content
    FROM unnest(
        $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::float8[], $8::text[], $9::text[], $10::text[],
        $11::text[], $12::bigint[], $13::text[], $14::text[], $15::integer[], $16::integer[], $17::text[],
        $18::text[], $19::text[], $20::bytea[]
    ) AS a (
        position, origin, state, due_at, wait, id, event_type, source,
        partition_key, key_hash, table_schema, table_name, attempts, max_retries, last_error,
        failures, kind, content
    )
    WHERE EXISTS (SELECT FROM walrelay.progress AS p WHERE p.slot = $1 AND p.session = $2)
    ON CONFLICT (slot, position) DO NOTHING
    RETURNING due_at
)
SELECT extract(epoch FROM min(due_at) - clock_timestamp())::float8
FROM added;
