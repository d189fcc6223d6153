-- Discarded events of slot $1 that stood before the LSN $2 (in hex) and were
-- discarded after $3, the oldest first.
SELECT position, table_schema, table_name, id, updated_at
FROM walrelay.delayed
WHERE slot = $1 AND state = 'discarded' AND position < $2 AND updated_at > $3
ORDER BY updated_at
LIMIT 1000;
