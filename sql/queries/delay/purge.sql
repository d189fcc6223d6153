-- Removes discarded events of slot $1 that stood before the LSN $2 (in hex),
-- once they are $3 seconds old, a few at a time.
DELETE FROM walrelay.delayed
WHERE (slot, position) IN (
    SELECT slot, position
    FROM walrelay.delayed
    WHERE slot = $1 AND state = 'discarded' AND position < $2
      AND updated_at < now() - $3 * interval '1 second'
    ORDER BY updated_at
    LIMIT 1000
    FOR UPDATE SKIP LOCKED
);
