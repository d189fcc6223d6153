-- What doctor asks of the server beside what init does: one row. Settings that this version
-- does not have are NULL. What other roles' sessions do is unknown to a role without
-- pg_read_all_stats.
WITH setting AS (
    SELECT name, setting FROM pg_catalog.pg_settings
), writer AS (
    -- The transaction that has held back restart_lsn of all slots the longest.
    SELECT pid, usename, application_name, datname, xact_start
    FROM pg_catalog.pg_stat_activity
    WHERE backend_xid IS NOT NULL AND xact_start IS NOT NULL
    ORDER BY xact_start
    LIMIT 1
), prepared AS (
    SELECT gid, database, prepared FROM pg_catalog.pg_prepared_xacts ORDER BY prepared LIMIT 1
)
SELECT
    clock_timestamp() AS clock,
    (SELECT setting::bigint FROM setting WHERE name = 'wal_sender_timeout') AS wal_sender_timeout, -- ms
    -- Seconds from Postgres 18.1 on, minutes before.
    (SELECT setting <> '0' FROM setting WHERE name = 'idle_replication_slot_timeout') AS idle_slot_timeout,
    (SELECT setting FROM setting WHERE name = 'synchronized_standby_slots') AS standby_slots,
    (
        SELECT coalesce(array_agg(slot_name::text), '{}') FROM pg_catalog.pg_replication_slots WHERE slot_type = 'physical' AND active
    ) AS active_physical,
    (SELECT setting = 'on' FROM setting WHERE name = 'autovacuum') AS autovacuum,
    coalesce((SELECT pid FROM writer), 0) AS writer_pid,
    coalesce((SELECT usename::text FROM writer), '') AS writer_role,
    coalesce((SELECT application_name FROM writer), '') AS writer_application,
    coalesce((SELECT datname::text FROM writer), '') AS writer_database,
    coalesce((SELECT extract(epoch FROM clock_timestamp() - xact_start) FROM writer), 0)::float8 AS writer_seconds,
    coalesce((SELECT gid FROM prepared), '') AS prepared_gid,
    coalesce((SELECT database::text FROM prepared), '') AS prepared_database,
    coalesce((SELECT extract(epoch FROM clock_timestamp() - prepared) FROM prepared), 0)::float8 AS prepared_seconds;
