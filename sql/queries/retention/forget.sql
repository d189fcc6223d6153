-- Removes the discarded events of slot $1 at the positions $2, past those that
-- somebody has locked.
DELETE FROM walrelay.delayed AS d
WHERE d.ctid = ANY (ARRAY(
    SELECT g.ctid
    FROM walrelay.delayed AS g
    WHERE g.slot = $1 AND g.position = ANY ($2::text[]) AND g.state = 'discarded'
    FOR UPDATE SKIP LOCKED
));
