-- The newest snapshot of slot $1 of which it was known $2 seconds ago that
-- everything that it sees is published; no row without one. Older ones go.
WITH kept AS (
    SELECT p.noted_at, p.snapshot
    FROM walrelay.published AS p
    WHERE p.slot = $1 AND p.noted_at < now() - $2::float8 * interval '1 second'
    ORDER BY p.noted_at DESC
    LIMIT 1
), gone AS (
    DELETE FROM walrelay.published AS p
    USING kept AS k
    WHERE p.slot = $1 AND p.noted_at < k.noted_at
)
SELECT k.snapshot::text
FROM kept AS k;
