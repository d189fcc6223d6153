-- Sessions, but for those that call themselves $1, that hold locks on the delay
-- table which can keep the relay waiting: the oldest transactions first.
SELECT
    a.pid,
    coalesce(a.usename::text, '') AS role,
    coalesce(a.application_name, '') AS application,
    -- Unknown to a role without pg_read_all_stats.
    coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8 AS seconds,
    string_agg(DISTINCT l.mode, ', ') AS modes
FROM pg_catalog.pg_locks AS l
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
  AND l.relation = ANY (ARRAY['walrelay.delayed'::regclass, 'walrelay.keys'::regclass, 'walrelay.emitted'::regclass]::oid[])
  AND l.mode NOT IN ('AccessShareLock', 'ShareUpdateExclusiveLock')
  AND a.pid <> pg_backend_pid() AND coalesce(a.application_name, '') <> $1
GROUP BY a.pid, a.usename, a.application_name, a.xact_start
ORDER BY a.xact_start
LIMIT 5;
