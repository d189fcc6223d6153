-- The page of the stream $2 of slot $1 that follows the one that begins at $3 and
-- has the number $4, by where they begin, of those that end after $5.
SELECT j.id, j.first, j.last, j.events, j.written_at, j.entries
FROM walrelay.journal AS j
WHERE j.slot = $1 AND j.stream = $2 AND (j.first, j.id) > ($3, $4) AND j.last > $5
ORDER BY j.first, j.id
LIMIT 1;
