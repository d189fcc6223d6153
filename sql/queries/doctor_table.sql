-- How the outbox table $1 (schema) and $2 (name) does, with its partitions: rows that live
-- and that are dead, as the statistics have them, and what the role may do.
SELECT
    coalesce(sum(s.n_live_tup), 0)::bigint AS live,
    coalesce(sum(s.n_dead_tup), 0)::bigint AS dead,
    coalesce(sum(pg_catalog.pg_total_relation_size(part.relid)), 0)::bigint AS bytes,
    pg_catalog.has_table_privilege(class.oid, 'SELECT') AS may_select,
    pg_catalog.has_table_privilege(class.oid, 'DELETE') AS may_delete,
    -- A right on one column is enough.
    pg_catalog.has_any_column_privilege(class.oid, 'UPDATE') AS may_update,
    bool_or(coalesce(array_to_string(storage.reloptions, ','), '') ~ 'autovacuum_enabled=(false|off|0)') AS autovacuum_off
FROM pg_catalog.pg_class AS class
JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
CROSS JOIN LATERAL (
    SELECT class.oid AS relid
    UNION
    SELECT tree.relid FROM pg_catalog.pg_partition_tree(class.oid) AS tree
) AS part
JOIN pg_catalog.pg_class AS storage ON storage.oid = part.relid
LEFT JOIN pg_catalog.pg_stat_all_tables AS s ON s.relid = part.relid
WHERE namespace.nspname = $1 AND class.relname = $2
GROUP BY class.oid;
