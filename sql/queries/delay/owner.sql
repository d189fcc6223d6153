-- Keeps the slot $1 from getting another session than $2 until the end of the
-- transaction; no row if it has one already.
SELECT session
FROM walrelay.progress
WHERE slot = $1 AND session = $2
FOR SHARE;
