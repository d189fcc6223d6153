-- An outbox: applications insert a row in the transaction that does their
-- business writes; once that has committed, the row is published as a
-- CloudEvent. Only event_type and source must be given.

CREATE TABLE IF NOT EXISTS {{.Ident}} (
    id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    event_type    text        NOT NULL CHECK (event_type <> ''),
    source        text        NOT NULL CHECK (source <> ''),
{{- range optional}}
    {{printf "%-13s" .Name}} {{.Definition}},
{{- end}}
    CHECK (data IS NULL OR data_bytes IS NULL)
);

-- Columns that a table of an earlier version, or of somebody else's making, lacks.
DO $walrelay$
BEGIN
{{- $ident := .Ident}}
{{- range optional}}
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute
        WHERE attrelid = {{literal $ident}}::regclass AND attname = {{literal .Name}} AND NOT attisdropped
    ) THEN
        ALTER TABLE {{$ident}} ADD COLUMN {{.Name}} {{.Definition}};
    END IF;
{{- end}}
END
$walrelay$;

COMMENT ON TABLE {{.Ident}} IS
    'Events to publish: insert in the same transaction as the business writes. Read by walrelay.';
COMMENT ON COLUMN {{.Ident}}.id IS
    'CloudEvents id.';
COMMENT ON COLUMN {{.Ident}}.event_type IS
    'CloudEvents type, such as order.created; required.';
COMMENT ON COLUMN {{.Ident}}.source IS
    'CloudEvents source, a URI reference such as /orders; required.';
COMMENT ON COLUMN {{.Ident}}.subject IS
    'CloudEvents subject: what within the source the event is about.';
COMMENT ON COLUMN {{.Ident}}.data IS
    'The payload, if it is JSON.';
COMMENT ON COLUMN {{.Ident}}.data_bytes IS
    'The payload, if it is not JSON; instead of data.';
COMMENT ON COLUMN {{.Ident}}.content_type IS
    'CloudEvents datacontenttype; application/json when data is given.';
COMMENT ON COLUMN {{.Ident}}.data_schema IS
    'CloudEvents dataschema: an absolute URI.';
COMMENT ON COLUMN {{.Ident}}.extensions IS
    'CloudEvents extension attributes: a JSON object of strings, booleans and integers.';
COMMENT ON COLUMN {{.Ident}}.partition_key IS
    'Events of one key keep their order; published as the extension partitionkey.';
COMMENT ON COLUMN {{.Ident}}.scheduled_at IS
    'Do not publish before this time.';
COMMENT ON COLUMN {{.Ident}}.max_retries IS
    'Overrides how often walrelay tries again to publish the event.';
COMMENT ON COLUMN {{.Ident}}.created_at IS
    'CloudEvents time.';
