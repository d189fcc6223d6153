-- The slot $1: no row if there is none. What newer versions know of a slot is
-- looked up by name, so that older ones can run this too.
SELECT
    slot.slot_type AS type,
    coalesce(slot.plugin, '') AS plugin,
    coalesce(slot.database, '') AS database,
    current_database()::text AS current_database,
    slot.temporary AS temporary,
    slot.two_phase AS two_phase,
    coalesce(slot.wal_status, '') AS wal_status,
    coalesce(to_jsonb(slot) ->> 'invalidation_reason', '') AS invalidation_reason,
    coalesce(to_jsonb(slot) ->> 'conflicting', 'false') = 'true' AS conflicting,
    (to_jsonb(slot) ->> 'failover')::boolean AS failover,
    coalesce(slot.confirmed_flush_lsn IS NOT NULL, false) AS ready,
    slot.active_pid AS active_pid,
    coalesce(slot.confirmed_flush_lsn, '0/0')::text AS confirmed_flush,
    -- In bytes: up to the end of the WAL, on a standby of what it has replayed.
    pg_catalog.pg_wal_lsn_diff(wal.position, slot.confirmed_flush_lsn)::bigint AS lag_bytes,
    pg_catalog.pg_wal_lsn_diff(wal.position, slot.restart_lsn)::bigint AS retained_bytes,
    slot.safe_wal_size AS safe_bytes
FROM pg_catalog.pg_replication_slots AS slot
CROSS JOIN LATERAL (
    SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END AS position
) AS wal
WHERE slot.slot_name = $1;
