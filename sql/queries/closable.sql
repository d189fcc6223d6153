-- Whether this role can see which slots are closed.
SELECT EXISTS (
    SELECT
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'walrelay' AND c.relname = 'progress' AND a.attname = 'handed_over' AND NOT a.attisdropped
      AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
);
