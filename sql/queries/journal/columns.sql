-- The columns of the outbox table $1.$2 that the publication $3 sends, in their
-- order, and the type of each. Versions before 15 send all but generated ones.
SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type, a.atttypid::oid AS oid
FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_publication_tables AS p
    ON p.pubname = $3 AND p.schemaname = n.nspname AND p.tablename = c.relname
WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped
    AND coalesce(to_jsonb(p) -> 'attnames' ? a.attname, a.attgenerated = '')
ORDER BY a.attnum;
