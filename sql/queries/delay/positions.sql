-- Positions of slot $1 at or after the LSN $2 (in hex) that are in the delay
-- table, and why.
SELECT position, state
FROM walrelay.delayed
WHERE slot = $1 AND position >= $2;
