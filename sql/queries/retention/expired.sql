-- The oldest page of slot $1 that was saved $2 seconds ago or earlier. $3: rows are kept, and
-- with them what is said of those that no stream has.
SELECT j.id, j.stream, j.first, j.last, j.events, j.entries
FROM walrelay.journal AS j
WHERE j.slot = $1 AND j.written_at < now() - $2::float8 * interval '1 second'
  AND NOT ($3::boolean AND j.ids IS NOT NULL)
ORDER BY j.id
LIMIT 1;
