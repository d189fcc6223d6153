-- An outbox: applications insert a row in the transaction that does their
-- business writes; once that has committed, the row is published as a
-- CloudEvent. Only event_type and source must be given.

CREATE TABLE IF NOT EXISTS {{.Ident}} (
{{- range columns}}
    {{printf "%-13s" .Name}} {{.Definition}},
{{- end}}
    CHECK (data IS NULL OR data_bytes IS NULL)
);

-- Columns that a table of an earlier version, or of somebody else's making, lacks.
DO $walrelay$
BEGIN
{{- $ident := .Ident}}
{{- range columns}}{{if not .Required}}
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute
        WHERE attrelid = {{literal $ident}}::regclass AND attname = {{literal .Name}} AND NOT attisdropped
    ) THEN
        ALTER TABLE {{$ident}} ADD COLUMN {{.Name}} {{.Definition}};
    END IF;
{{- end}}{{end}}
END
$walrelay$;

COMMENT ON TABLE {{.Ident}} IS
    'Events to publish: insert in the same transaction as the business writes. Read by walrelay.';
{{- range columns}}
COMMENT ON COLUMN {{$ident}}.{{.Name}} IS
    {{literal .Comment}};
{{- end}}
