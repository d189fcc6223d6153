-- The next page of slot $1 after the page $2 whose rows are not all marked.
SELECT j.id, j.stream, j.first, j.last, j.events, j.entries
FROM walrelay.journal AS j
WHERE j.slot = $1 AND j.id > $2 AND NOT j.marked
ORDER BY j.id
LIMIT 1;
