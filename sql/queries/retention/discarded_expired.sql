-- Discarded events of slot $1 that stood before the LSN $2 (in hex), once that is
-- $3 seconds ago, the oldest first.
SELECT position, table_schema, table_name, id, updated_at
FROM walrelay.delayed
WHERE slot = $1 AND state = 'discarded' AND position < $2
  AND updated_at < now() - $3::float8 * interval '1 second'
ORDER BY updated_at
LIMIT 1000;
