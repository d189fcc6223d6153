-- Moves the event with the id $1 of the outbox table $2 to the time $3; returns how many
-- there were.
SELECT walrelay.reschedule_event($1::text, $3::timestamptz, $2::text);
