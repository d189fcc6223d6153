-- The columns of the outbox tables of a slot ($1) that have another name now than when
-- init ran.
SELECT
    namespace.nspname AS schema,
    class.relname AS table,
    was.key AS was,
    a.attname AS now
FROM walrelay.outboxes AS o
JOIN pg_catalog.pg_class AS class ON class.oid = o.relation
JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
CROSS JOIN LATERAL jsonb_each_text(o.columns) AS was
JOIN pg_catalog.pg_attribute AS a
    ON a.attrelid = o.relation AND a.attnum = was.value::smallint AND a.attname <> was.key AND NOT a.attisdropped
WHERE o.slot = $1
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_attribute AS same
    WHERE same.attrelid = o.relation AND same.attname = was.key AND NOT same.attisdropped
  );
