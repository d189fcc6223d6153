-- Locks what is saved of slot $1, so that no relay begins a session: its cluster, and the
-- LSN below which every event is settled.
SELECT p.system_identifier, p.flush_lsn::text
FROM walrelay.progress AS p
WHERE p.slot = $1
FOR UPDATE;
