-- Forgets those of the keys $2 of slot $1 that have no event left in the delay
-- table that holds them ($3: failed ones do). Returns them.
WITH free AS (
    SELECT c.key_hash
    FROM unnest($2::bigint[]) AS c (key_hash)
    WHERE NOT EXISTS (
        SELECT FROM walrelay.delayed AS d
        WHERE d.slot = $1 AND d.key_hash = c.key_hash AND d.state = 'held'
    )
    AND NOT EXISTS (
        SELECT FROM walrelay.delayed AS d
        WHERE d.slot = $1 AND d.key_hash = c.key_hash
          AND d.state IN ('retrying', 'failed') AND (d.state = 'retrying' OR $3::boolean)
    )
), gone AS (
    DELETE FROM walrelay.keys AS k
    USING free AS f
    WHERE k.slot = $1 AND k.key_hash = f.key_hash
)
SELECT key_hash
FROM free;
