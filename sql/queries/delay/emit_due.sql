-- Moves due events of slot $1 from the delay table into the write-ahead log, as
-- messages with the prefix $3: at most $4 of those that stood before the LSN $2
-- (in hex). Returns how many, the LSN of the last message, the keys of those
-- that held their key, and by how many seconds each was late.
WITH picked AS (
    SELECT d.position
    FROM walrelay.delayed AS d
    WHERE d.slot = $1
      AND d.state IN ('scheduled', 'retrying')
      AND d.due_at <= clock_timestamp()
      AND d.position < $2
    ORDER BY d.due_at, d.origin
    LIMIT $4
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM walrelay.delayed AS d
    USING picked AS p
    WHERE d.slot = $1 AND d.position = p.position
    RETURNING d.*
), emitted AS (
    SELECT
        pg_logical_emit_message(true, $3, convert_to(jsonb_build_object(
            'kind', g.kind, 'schema', g.table_schema, 'table', g.table_name, 'origin', g.origin,
            'max_retries', g.max_retries, 'attempts', g.attempts, 'failures', g.failures,
            'released', g.state = 'retrying'
        )::text || E'\n', 'UTF8') || g.content) AS lsn,
        CASE WHEN g.state = 'retrying' THEN g.key_hash END AS key_hash,
        extract(epoch FROM clock_timestamp() - g.due_at)::float8 AS late
    FROM (SELECT * FROM gone ORDER BY due_at, origin) AS g
)
SELECT
    count(*),
    coalesce(max(lsn), '0/0')::text,
    coalesce(array_agg(DISTINCT key_hash) FILTER (WHERE key_hash IS NOT NULL), '{}'),
    coalesce(array_agg(late), '{}')
FROM emitted;
