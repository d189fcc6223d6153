-- Whether the role may see and change delayed events; no row if there is no
-- delay table.
SELECT
    has_schema_privilege(namespace.oid, 'USAGE')
    AND has_table_privilege(class.oid, 'SELECT')
    AND has_table_privilege(class.oid, 'UPDATE') AS allowed
FROM pg_catalog.pg_class AS class
JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
WHERE namespace.nspname = 'walrelay' AND class.relname = 'delayed';
