-- Moves due events of slot $1 from the delay table into the write-ahead log, as
-- messages with the prefix $3: at most $4 of those that stood before the LSN $2
-- (in hex). Returns how many, the LSN of the last message, the keys of those
-- that held their key, when each was due, and what time it is.
WITH picked AS (
    SELECT d.ctid
    FROM walrelay.delayed AS d
    WHERE d.slot = $1
      AND d.state IN ('scheduled', 'retrying')
      AND d.due_at <= (SELECT clock_timestamp()) -- once, so that the index can find it
      AND d.position < $2
    ORDER BY d.due_at, d.origin
    LIMIT $4
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM walrelay.delayed AS d
    WHERE d.ctid = ANY (ARRAY(SELECT p.ctid FROM picked AS p))
    RETURNING d.*
), emitted AS (
    SELECT
        pg_logical_emit_message(true, $3, convert_to(concat(
            '{"kind":"', g.kind, '","schema":', to_json(g.table_schema), ',"table":', to_json(g.table_name),
            ',"origin":"', g.origin, '","max_retries":', coalesce(g.max_retries::text, 'null'),
            ',"attempts":', g.attempts, ',"failures":', g.failures,
            ',"released":', to_json(g.state = 'retrying'), E'}\n'
        ), 'UTF8') || g.content) AS lsn,
        CASE WHEN g.state = 'retrying' THEN g.key_hash END AS key_hash,
        g.due_at
    FROM (SELECT * FROM gone ORDER BY due_at, origin) AS g
)
SELECT
    count(*),
    coalesce(max(lsn), '0/0')::text,
    coalesce(array_agg(DISTINCT key_hash) FILTER (WHERE key_hash IS NOT NULL), '{}'),
    coalesce(array_agg(due_at) FILTER (WHERE isfinite(due_at)), '{}'),
    clock_timestamp()
FROM emitted;
