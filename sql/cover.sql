{{- if .Standby}}-- The slot is on a standby.
INSERT INTO walrelay.standby_slots (slot) VALUES ({{literal .Slot}}) ON CONFLICT DO NOTHING;

{{end -}}
-- What the slot reads from now on, for walrelay.event_status, and the columns of these
-- tables.
INSERT INTO walrelay.outboxes (slot, relation, id_column, covered_since, columns)
SELECT {{literal .Slot}}, c.relation, c.id_column, pg_snapshot_xmax(pg_current_snapshot()), (
    SELECT coalesce(jsonb_object_agg(a.attname, a.attnum), '{}')
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = c.relation AND a.attnum > 0 AND NOT a.attisdropped
)
FROM (VALUES
{{- range $i, $table := .Tables}}{{if $i}},{{end}}
    ({{literal $table.Ident}}::regclass, {{literal (index $.IDs $i)}}::name)
{{- end}}
) AS c (relation, id_column)
WHERE walrelay.slot_exists({{literal .Slot}})
ON CONFLICT (slot, relation) DO UPDATE
SET id_column = excluded.id_column, columns = excluded.columns;
