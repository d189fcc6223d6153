-- How many events of slot $1 are in each state, and for how many seconds the
-- oldest one that is due has been.
SELECT
    state,
    count(*),
    coalesce(extract(epoch FROM clock_timestamp() - min(due_at) FILTER (WHERE due_at <= clock_timestamp())), 0)::float8
FROM walrelay.delayed
WHERE slot = $1
GROUP BY state;
