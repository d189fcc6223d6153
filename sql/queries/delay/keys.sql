-- The keys of slot $1 whose later events are held.
SELECT key_hash
FROM walrelay.keys
WHERE slot = $1;
