-- What is saved of slot $1; no row if nothing is.
SELECT
    session, system_identifier, timeline, flush_lsn::text, streams, coalesce(published::text, ''),
    coalesce(messages_until, '0/0')::text,
    handed_over
FROM walrelay.progress
WHERE slot = $1;
