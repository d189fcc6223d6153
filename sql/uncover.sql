-- Tables that the slot does not read at this moment, and may have missed rows of; and
-- those of slots that do not exist any more.
DELETE FROM walrelay.outboxes AS o
WHERE NOT EXISTS (
    SELECT FROM pg_catalog.pg_replication_slots AS s
    WHERE s.slot_name = o.slot AND s.database = current_database()
  )
  OR o.slot = {{literal .Slot}}
  AND NOT EXISTS (
    SELECT
    FROM pg_catalog.pg_publication_tables AS p
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = p.schemaname
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = p.tablename
    WHERE p.pubname = {{literal .Publication}} AND c.oid = o.relation
  );
