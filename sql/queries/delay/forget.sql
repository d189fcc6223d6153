-- Forgets events of slot $1 that were given back, once they have an outcome.
DELETE FROM walrelay.emitted AS e
USING walrelay.progress AS p
WHERE p.slot = $1 AND e.slot = p.slot AND pg_visible_in_snapshot(e.xact_id, p.published);
