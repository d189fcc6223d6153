-- Has slot $1 of the cluster $2, at timeline $3, go on in the streams as $4 says; $5 is what
-- was handed over.
INSERT INTO walrelay.progress AS p (slot, system_identifier, timeline, flush_lsn, streams, taken_over)
VALUES ($1, $2, $3, '0/0', $4, $5)
ON CONFLICT (slot) DO UPDATE
SET system_identifier = excluded.system_identifier, timeline = excluded.timeline, flush_lsn = excluded.flush_lsn, streams = excluded.streams,
    taken_over = excluded.taken_over, handed_over = NULL, published = NULL, messages_until = NULL, session = p.session + 1, updated_at = now();
