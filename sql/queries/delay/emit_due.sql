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
    RETURNING d AS event
), noted AS (
    INSERT INTO walrelay.emitted (slot, hashes)
    SELECT $1, array_agg(hashtextextended((event).id, 0))
    FROM gone
    HAVING count(*) > 0
), emitted AS (
    SELECT
        pg_logical_emit_message(true, $3, walrelay.delayed_message(g.event, (g.event).state = 'retrying')) AS lsn,
        CASE WHEN (g.event).state = 'retrying' THEN (g.event).key_hash END AS key_hash,
        (g.event).due_at
    FROM (SELECT * FROM gone ORDER BY (event).due_at, (event).origin) AS g
)
SELECT
    count(*),
    coalesce(max(lsn), '0/0')::text,
    coalesce(array_agg(DISTINCT key_hash) FILTER (WHERE key_hash IS NOT NULL), '{}'),
    coalesce(array_agg(due_at) FILTER (WHERE isfinite(due_at)), '{}'),
    clock_timestamp()
FROM emitted;
