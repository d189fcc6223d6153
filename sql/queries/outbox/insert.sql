-- Inserts events into an outbox table of walrelay's own form. $1 is a JSON array of them,
-- in the order in which they are to be published.
INSERT INTO {{.Ident}} (
    id, event_type, source, subject, data, data_bytes, content_type, data_schema, extensions, partition_key, scheduled_at,
    max_retries, created_at
)
SELECT
    e.id, e.event_type, e.source, e.subject, e.data::jsonb, pg_catalog.decode(e.data_bytes, 'base64'), e.content_type,
    e.data_schema, e.extensions, e.partition_key, e.scheduled_at, e.max_retries, coalesce(e.created_at, pg_catalog.now())
FROM pg_catalog.json_to_recordset($1::text::json) AS e (
    id uuid, event_type text, source text, subject text, data text, data_bytes text, content_type text, data_schema text,
    extensions jsonb, partition_key text, scheduled_at timestamptz, max_retries integer, created_at timestamptz
);
