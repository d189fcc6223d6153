-- A marker with the text $2 for the relay of slot $1 itself.
INSERT INTO walrelay.emitted (slot, kind, id)
VALUES ($1, 'marker', $2);
