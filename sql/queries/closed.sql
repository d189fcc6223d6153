-- When slot $1 was closed; no row if it was not.
SELECT (p.handed_over->>'at')::timestamptz AS at
FROM walrelay.progress AS p
WHERE p.slot = $1 AND p.handed_over IS NOT NULL;
