-- The next pages of slot $1 after the number $2, of all streams.
SELECT j.id, j.stream, j.first, j.last, j.events, j.entries
FROM walrelay.journal AS j
WHERE j.slot = $1 AND j.id > $2
ORDER BY j.id
LIMIT 50;
