-- The events that the transaction at hand has inserted into an outbox table, as a JSON
-- array in the order of insertion.
SELECT coalesce(json_agg(json_build_object(
    'id', o.id, 'type', o.event_type, 'source', o.source, 'subject', o.subject, 'data', o.data,
    'data_bytes', pg_catalog.encode(o.data_bytes, 'base64'), 'content_type', o.content_type, 'data_schema', o.data_schema,
    'extensions', o.extensions, 'partition_key', o.partition_key, 'scheduled_at', o.scheduled_at, 'max_retries', o.max_retries
) ORDER BY o.tableoid, o.ctid), '[]')::text
FROM {{.Ident}} AS o
-- Only its own rows, also those of its savepoints, are visible and not committed.
WHERE pg_catalog.pg_xact_status(
    ((pg_catalog.txid_current() >> 32 << 32) + o.xmin::text::bigint)::text::xid8
) = 'in progress';
