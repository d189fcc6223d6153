-- Forgets those of the keys $2 of slot $1 of which the delay table has no held
-- event, and none that blocks the key ($3: failed ones do). Keys that somebody has
-- locked are left for the next time. Returns those that are forgotten.
WITH free AS (
    SELECT c.key_hash
    FROM unnest($2::bigint[]) AS c (key_hash)
    WHERE NOT EXISTS (
        SELECT FROM walrelay.delayed AS d
        WHERE d.slot = $1 AND d.key_hash = c.key_hash AND d.state = 'held'
    )
    AND NOT EXISTS (
        SELECT FROM walrelay.delayed AS d
        WHERE d.slot = $1 AND d.key_hash = c.key_hash AND walrelay.blocks_key(d.state, $3::boolean)
    )
), locked AS (
    SELECT k.key_hash
    FROM walrelay.keys AS k
    JOIN free AS f ON f.key_hash = k.key_hash
    WHERE k.slot = $1
    FOR UPDATE OF k SKIP LOCKED
), gone AS (
    DELETE FROM walrelay.keys AS k
    USING locked AS l
    WHERE k.slot = $1 AND k.key_hash = l.key_hash
)
SELECT f.key_hash
FROM free AS f
WHERE f.key_hash IN (SELECT l.key_hash FROM locked AS l)
   OR NOT EXISTS (SELECT FROM walrelay.keys AS k WHERE k.slot = $1 AND k.key_hash = f.key_hash);
