-- A message with the prefix $1 and the text $2 to the relay itself.
SELECT pg_logical_emit_message(true, $1, jsonb_build_object('marker', $2::text)::text);
