-- The walsenders of this database that call themselves $1: who has slot $2, and who
-- waits for it. What another role's sessions do is unknown to a role without
-- pg_read_all_stats.
SELECT
    a.pid,
    coalesce(slot.active_pid = a.pid, false) AS active,
    coalesce(a.usename::text, '') AS role,
    coalesce(host(a.client_addr), '') AS client,
    a.backend_start AS since
FROM pg_catalog.pg_stat_activity AS a
LEFT JOIN pg_catalog.pg_replication_slots AS slot ON slot.slot_name = $2
WHERE a.backend_type = 'walsender' AND a.datname = current_database()
  AND (a.application_name = $1 OR a.pid = slot.active_pid)
  -- One that has another slot is another relay.
  AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_replication_slots AS other
      WHERE other.active_pid = a.pid AND other.slot_name <> $2
  )
ORDER BY a.backend_start;
