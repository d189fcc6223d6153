-- The slot keeps the WAL until walrelay has published the events in it. Its
-- creation waits for the transactions that are writing at this moment.
-- An unused slot fills the disk: drop it when walrelay is not to come back,
-- with SELECT pg_drop_replication_slot({{literal .Name}});
{{- if .Failover}}

-- The last argument asks for the slot to survive a failover (Postgres 17 and
-- newer).
{{- end}}

SELECT pg_create_logical_replication_slot({{literal .Name}}, 'pgoutput', false, false{{if .Failover}}, true{{end}})
WHERE NOT EXISTS (
    SELECT FROM pg_catalog.pg_replication_slots
    WHERE slot_name = {{literal .Name}}
)
AND EXISTS (
    SELECT FROM pg_catalog.pg_publication
    WHERE pubname = {{literal .Publication}}
);
