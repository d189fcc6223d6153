-- Notes that slot $1 is closed, as $2 says. What a relay that ends has still to commit, such as
-- its timer, it does not: the slot has another session.
UPDATE walrelay.progress SET handed_over = $2, session = session + 1, updated_at = now() WHERE slot = $1;
