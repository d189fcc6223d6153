-- Whether this server is a standby, and what it has of the slot $1 (Postgres manual, "Logical
-- Replication Failover").
SELECT
    pg_catalog.pg_is_in_recovery() AS standby,
    slot.slot_name IS NOT NULL AS present,
    coalesce((to_jsonb(slot) ->> 'synced')::boolean, false) AS synced,
    coalesce(slot.temporary, false) AS temporary,
    coalesce(to_jsonb(slot) ->> 'invalidation_reason', '') AS invalidation_reason
FROM (VALUES ($1::text)) AS asked (name)
LEFT JOIN pg_catalog.pg_replication_slots AS slot ON slot.slot_name = asked.name;
