-- How many delayed events a filter (walrelay.find_delayed) takes that are in
-- one of the states $8.
SELECT count(*)
FROM walrelay.find_delayed($1, $2, $3, $4, $5, $6, $7)
WHERE state = ANY ($8::text[]);
