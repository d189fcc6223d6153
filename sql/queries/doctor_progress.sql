-- Whether there is a checkpoint that the role may read. A cast to regclass would fail for a role
-- that may not use the schema.
SELECT coalesce((
    SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'walrelay' AND c.relname = 'progress'
), false);
