-- Adds a page of slot $1 and stream $2, from $3 to $4 with $5 entries $6, whose
-- window of $7 seconds ends in $8 seconds.
INSERT INTO walrelay.journal (slot, stream, first, last, events, entries, marked, written_at)
VALUES ($1, $2, $3, $4, $5, $6, true, clock_timestamp() + ($8::float8 - $7::float8) * interval '1 second');
