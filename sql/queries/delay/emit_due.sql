-- Moves due events of slot $1 from the delay table into walrelay.emitted: at most
-- $3 of those that stood before the LSN $2 (in hex). Rows that somebody has locked
-- are left for the next time. Returns how many, the keys of those that blocked
-- their key, when each was due, and what time it is.
WITH picked AS (
    SELECT d.ctid
    FROM walrelay.delayed AS d
    WHERE d.slot = $1
      AND d.state IN ('scheduled', 'retrying')
      AND d.due_at <= (SELECT clock_timestamp()) -- once, so that the index can find it
      AND d.position < $2
    ORDER BY d.due_at, d.origin
    LIMIT $3
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM walrelay.delayed AS d
    WHERE d.ctid = ANY (ARRAY(SELECT p.ctid FROM picked AS p))
    RETURNING d.*
), emitted AS (
    INSERT INTO walrelay.emitted (
        slot, kind, id, table_schema, table_name, origin, max_retries, attempts, failures, released,
        content, content_bytes
    )
    SELECT
        g.slot, g.kind, g.id, g.table_schema, g.table_name, g.origin, g.max_retries, g.attempts,
        CASE WHEN g.last_error IS NOT NULL THEN g.failures END, g.state = 'retrying',
        CASE WHEN u.utf8 AND g.kind = 'event' THEN convert_from(g.content, 'UTF8') END,
        CASE WHEN NOT (u.utf8 AND g.kind = 'event') THEN g.content END
    FROM gone AS g
    CROSS JOIN (SELECT getdatabaseencoding() = 'UTF8' AS utf8) AS u
    ORDER BY g.due_at, g.origin
)
SELECT
    count(*),
    coalesce(array_agg(DISTINCT g.key_hash) FILTER (WHERE g.state = 'retrying' AND g.key_hash IS NOT NULL), '{}'),
    coalesce(array_agg(g.due_at) FILTER (WHERE isfinite(g.due_at)), '{}'),
    clock_timestamp()
FROM gone AS g;
