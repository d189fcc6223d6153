-- What slot $1 of the cluster $2 has taken over; null if nothing, no row if nothing is saved of it.
SELECT p.taken_over
FROM walrelay.progress AS p
WHERE p.slot = $1 AND p.system_identifier = $2;
