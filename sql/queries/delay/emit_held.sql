-- Moves held events of slot $1 whose key is among $4 and blocked by nothing else
-- into walrelay.emitted: for each key at most $3, in order, of those that stood
-- before the LSN $2 (in hex) and have no other one before them. Rows that somebody
-- has locked are left for the next time, with those behind them. $5 says that
-- failed events block their key. Returns how many, and the keys.
WITH free AS (
    SELECT k.key_hash
    FROM unnest($4::bigint[]) AS k (key_hash)
    WHERE NOT EXISTS (
        SELECT FROM walrelay.delayed AS d
        WHERE d.slot = $1 AND d.key_hash = k.key_hash AND walrelay.blocks_key(d.state, $5::boolean)
    )
), first AS (
    SELECT h.row, h.key_hash, h.origin, h.position
    FROM free
    CROSS JOIN LATERAL (
        SELECT d.ctid AS row, d.key_hash, d.origin, d.position
        FROM walrelay.delayed AS d
        WHERE d.slot = $1 AND d.key_hash = free.key_hash AND d.state = 'held'
        ORDER BY d.origin
        LIMIT $3
    ) AS h
), locked AS (
    SELECT d.ctid AS row
    FROM walrelay.delayed AS d
    WHERE d.ctid = ANY (ARRAY(SELECT f.row FROM first AS f)) AND d.state = 'held'
    FOR UPDATE SKIP LOCKED
), picked AS (
    SELECT h.row
    FROM (
        SELECT
            f.row,
            bool_and(f.position < $2 AND l.row IS NOT NULL) OVER (PARTITION BY f.key_hash ORDER BY f.origin) AS eligible
        FROM first AS f
        LEFT JOIN locked AS l ON l.row = f.row
    ) AS h
    WHERE h.eligible
), gone AS (
    DELETE FROM walrelay.delayed AS d
    WHERE d.ctid = ANY (ARRAY(SELECT p.row FROM picked AS p))
    RETURNING d.*
), emitted AS (
    INSERT INTO walrelay.emitted (
        slot, kind, id, table_schema, table_name, origin, max_retries, attempts, failures, released,
        content, content_bytes
    )
    SELECT
        g.slot, g.kind, g.id, g.table_schema, g.table_name, g.origin, g.max_retries, g.attempts,
        CASE WHEN g.last_error IS NOT NULL THEN g.failures END, true,
        CASE WHEN u.utf8 AND g.kind = 'event' THEN convert_from(g.content, 'UTF8') END,
        CASE WHEN NOT (u.utf8 AND g.kind = 'event') THEN g.content END
    FROM gone AS g
    CROSS JOIN (SELECT getdatabaseencoding() = 'UTF8' AS utf8) AS u
    ORDER BY g.key_hash, g.origin
)
SELECT count(*), coalesce(array_agg(DISTINCT g.key_hash), '{}')
FROM gone AS g;
