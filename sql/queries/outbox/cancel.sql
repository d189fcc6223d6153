-- Takes the scheduled event with the id $1 of the outbox table $2 back; returns how many
-- there were.
SELECT walrelay.cancel_event($1::text, $2::text);
