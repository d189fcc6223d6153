-- How the slot $1 reads the outbox table $2.$3: its kind, the transaction from which on
-- rows are read, and whether it has a column published_at. No row if that is not known.
SELECT
    c.relkind::text,
    o.covered_since::text,
    EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attname = 'published_at' AND NOT a.attisdropped
    )
FROM walrelay.outboxes AS o
JOIN pg_catalog.pg_class AS c ON c.oid = o.relation
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE o.slot = $1 AND n.nspname = $2 AND c.relname = $3;
