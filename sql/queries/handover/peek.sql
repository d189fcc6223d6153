-- What slot $1 has still to read of the publication $2, as pgoutput sends it.
SELECT c.data
FROM pg_catalog.pg_logical_slot_peek_binary_changes(
    $1, NULL, NULL, 'proto_version', '1', 'publication_names', quote_ident($2)
) AS c;
