-- Takes the keys of slot $1 whose holding event was discarded or tried again.
UPDATE walrelay.keys
SET released = false
WHERE slot = $1 AND released
RETURNING key_hash;
