-- Keeps the slot $1 from getting another session than $2 until the end of the
-- transaction; no row if it has one already. The lock is the weakest: it lets the
-- checkpoint be saved, and keeps only a session from being begun, which locks the
-- row as for a change of its key.
SELECT session
FROM walrelay.progress
WHERE slot = $1 AND session = $2
FOR KEY SHARE;
