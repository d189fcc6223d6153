-- In how many seconds the next event of slot $1 is due; null if none waits.
SELECT extract(epoch FROM min(due_at) - clock_timestamp())::float8
FROM walrelay.delayed
WHERE slot = $1 AND state IN ('scheduled', 'retrying');
