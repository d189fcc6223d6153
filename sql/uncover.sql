{{- if not .Standby}}-- The slot is not on a standby any more.
DELETE FROM walrelay.standby_slots WHERE slot = {{literal .Slot}};

{{end -}}
-- Tables that the slot does not read at this moment, and may have missed rows of; and
-- those of slots that do not exist any more.
DELETE FROM walrelay.outboxes AS o
WHERE NOT walrelay.slot_exists(o.slot)
  OR o.slot = {{literal .Slot}}
  AND NOT EXISTS (
    SELECT
    FROM pg_catalog.pg_publication_tables AS p
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = p.schemaname
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = p.tablename
    WHERE p.pubname = {{literal .Publication}} AND c.oid = o.relation
  );
