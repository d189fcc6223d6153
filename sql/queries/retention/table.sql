-- The kind of the table $1.$2, the type of its column $3, and whether it has a
-- column published_at; no row if there is no such table, or it is not one.
SELECT c.relkind::text, pg_catalog.format_type(a.atttypid, a.atttypmod), EXISTS (
    SELECT
    FROM pg_catalog.pg_attribute AS p
    WHERE p.attrelid = c.oid AND p.attname = 'published_at' AND NOT p.attisdropped
)
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = $3 AND NOT a.attisdropped AND a.attnum > 0
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p');
