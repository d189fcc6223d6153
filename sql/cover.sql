-- What the slot reads from now on, for walrelay.event_status.
INSERT INTO walrelay.outboxes (slot, relation, id_column, covered_since)
SELECT {{literal .Slot}}, c.relation, c.id_column, pg_snapshot_xmax(pg_current_snapshot())
FROM (VALUES
{{- range $i, $table := .Tables}}{{if $i}},{{end}}
    ({{literal $table.Ident}}::regclass, {{literal (index $.IDs $i)}}::name)
{{- end}}
) AS c (relation, id_column)
WHERE EXISTS (
    SELECT FROM pg_catalog.pg_replication_slots AS s
    WHERE s.slot_name = {{literal .Slot}} AND s.database = current_database()
)
ON CONFLICT (slot, relation) DO UPDATE
SET id_column = excluded.id_column;
