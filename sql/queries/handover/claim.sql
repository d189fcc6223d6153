-- Notes that the writer $2 goes on where slot $1 has ended, unless another one does; returns
-- a row if it does.
UPDATE walrelay.progress AS p
SET handed_over = p.handed_over || jsonb_build_object('to', $2::text)
WHERE p.slot = $1 AND p.handed_over IS NOT NULL AND coalesce(p.handed_over->>'to', $2) = $2
RETURNING p.handed_over;
