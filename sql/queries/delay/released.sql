-- Takes the keys of slot $1 of which an event that blocked it was discarded or
-- tried again. Keys that somebody has locked are left for the next time.
WITH changed AS (
    SELECT k.ctid
    FROM walrelay.keys AS k
    WHERE k.slot = $1 AND k.released
    FOR UPDATE SKIP LOCKED
)
UPDATE walrelay.keys AS k
SET released = false
WHERE k.ctid = ANY (ARRAY(SELECT c.ctid FROM changed AS c))
RETURNING k.key_hash;
