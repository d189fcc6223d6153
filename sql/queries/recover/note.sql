-- Notes that everything that transactions before $4 had written to the table $2.$3, and
-- that slot $1 does not read, is emitted by now.
INSERT INTO walrelay.recovered (slot, relation, covered_since, seen_below, emitted_by)
SELECT o.slot, o.relation, o.covered_since, $4::text::xid8, pg_current_xact_id()
FROM walrelay.outboxes AS o
JOIN pg_catalog.pg_class AS c ON c.oid = o.relation
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE o.slot = $1 AND n.nspname = $2 AND c.relname = $3
ON CONFLICT (slot, relation) DO UPDATE
SET covered_since = excluded.covered_since, seen_below = excluded.seen_below, emitted_by = excluded.emitted_by;
