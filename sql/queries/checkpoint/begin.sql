-- Begins a session of slot $1 in the cluster $2, which is at timeline $3 and whose
-- WAL ends at $4, and returns what is saved; no row if that is of another cluster,
-- or past the end, or closed. The slot's name is set to itself for the lock: a change of the
-- key waits for the transactions that hold the row as sql/queries/delay/owner.sql
-- does, while saving, which changes no key, does not.
INSERT INTO walrelay.progress AS p (slot, system_identifier, timeline, flush_lsn, session)
VALUES ($1, $2, $3, '0/0', 1)
ON CONFLICT (slot) DO UPDATE
SET slot = excluded.slot,
    session = p.session + 1
WHERE p.system_identifier = excluded.system_identifier AND p.flush_lsn <= $4::text::pg_lsn AND p.handed_over IS NULL
RETURNING
    session, system_identifier, timeline, flush_lsn::text, streams, coalesce(published::text, ''),
    coalesce(messages_until, '0/0')::text,
    handed_over;
