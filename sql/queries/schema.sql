-- The schema's state, as far as the role may see it: one row.
SELECT
    migrations.oid IS NOT NULL AND progress.oid IS NOT NULL AS present,
    coalesce(
        has_schema_privilege(namespace.oid, 'USAGE')
        AND has_table_privilege(migrations.oid, 'SELECT'),
        false
    ) AS readable,
    coalesce(
        has_schema_privilege(namespace.oid, 'USAGE')
        AND has_table_privilege(progress.oid, 'SELECT')
        AND has_table_privilege(progress.oid, 'INSERT')
        AND has_table_privilege(progress.oid, 'UPDATE'),
        false
    ) AS writable
FROM (VALUES (1)) AS always
LEFT JOIN pg_catalog.pg_namespace AS namespace
    ON namespace.nspname = 'walrelay'
LEFT JOIN pg_catalog.pg_class AS migrations
    ON migrations.relnamespace = namespace.oid AND migrations.relname = 'migrations'
LEFT JOIN pg_catalog.pg_class AS progress
    ON progress.relnamespace = namespace.oid AND progress.relname = 'progress';
