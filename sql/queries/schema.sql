-- The schema's state, as far as the role may see it: one row. Tables that a
-- later migration brings may be missing.
SELECT
    count(*) FILTER (WHERE t.relname IN ('migrations', 'progress')) = 2 AS present,
    coalesce(
        bool_and(has_schema_privilege(t.relnamespace, 'USAGE') AND has_table_privilege(t.oid, 'SELECT'))
            FILTER (WHERE t.relname = 'migrations'),
        false
    ) AS readable,
    coalesce(
        bool_and(
            has_schema_privilege(t.relnamespace, 'USAGE')
            AND has_table_privilege(t.oid, 'SELECT')
            AND has_table_privilege(t.oid, 'INSERT')
            AND has_table_privilege(t.oid, 'UPDATE')
            AND (t.relname = 'progress' OR has_table_privilege(t.oid, 'DELETE'))
        ) FILTER (WHERE t.relname IN ('progress', 'delayed', 'keys', 'journal')),
        false
    ) AS writable
FROM pg_catalog.pg_class AS t
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
WHERE n.nspname = 'walrelay' AND t.relkind = 'r';
