-- Moves held events of slot $1 whose key is among $5 and held by nothing else
-- into the write-ahead log, as messages with the prefix $3: for each key at most
-- $4, in order, of those that stood before the LSN $2 (in hex) and have no
-- other one before them. $6 says that failed events hold their key. Returns how
-- many, the LSN of the last message, and the keys.
WITH free AS (
    SELECT k.key_hash
    FROM unnest($5::bigint[]) AS k (key_hash)
    WHERE NOT EXISTS (
        SELECT FROM walrelay.delayed AS d
        WHERE d.slot = $1 AND d.key_hash = k.key_hash
          AND d.state IN ('retrying', 'failed') AND (d.state = 'retrying' OR $6::boolean)
    )
), picked AS (
    SELECT h.row
    FROM free
    CROSS JOIN LATERAL (
        SELECT first.row, bool_and(first.position < $2) OVER (ORDER BY first.origin) AS eligible
        FROM (
            SELECT d.ctid AS row, d.position, d.origin
            FROM walrelay.delayed AS d
            WHERE d.slot = $1 AND d.key_hash = free.key_hash AND d.state = 'held'
            ORDER BY d.origin
            LIMIT $4
        ) AS first
    ) AS h
    WHERE h.eligible
), gone AS (
    DELETE FROM walrelay.delayed AS d
    WHERE d.ctid = ANY (ARRAY(SELECT p.row FROM picked AS p))
    RETURNING d AS event
), noted AS (
    INSERT INTO walrelay.emitted (slot, hashes)
    SELECT $1, array_agg(hashtextextended((event).id, 0))
    FROM gone
    HAVING count(*) > 0
), emitted AS (
    SELECT
        pg_logical_emit_message(true, $3, walrelay.delayed_message(g.event, true)) AS lsn,
        (g.event).key_hash
    FROM (SELECT * FROM gone ORDER BY (event).key_hash, (event).origin) AS g
)
SELECT
    count(*),
    coalesce(max(lsn), '0/0')::text,
    coalesce(array_agg(DISTINCT key_hash), '{}')
FROM emitted;
