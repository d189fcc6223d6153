-- Deletes pages of slot $1 once they are $2 seconds old, of the $3 oldest ones.
-- Returns how many were looked at, and deleted.
WITH first AS (
    SELECT j.slot, j.id, j.written_at < now() - $2::float8 * interval '1 second' AS old
    FROM walrelay.journal AS j
    WHERE j.slot = $1
    ORDER BY j.id
    LIMIT $3
), gone AS (
    DELETE FROM walrelay.journal AS j
    USING first AS f
    WHERE j.slot = f.slot AND j.id = f.id AND f.old
    RETURNING 1
)
SELECT (SELECT count(*) FROM first), (SELECT count(*) FROM gone);
