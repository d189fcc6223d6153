-- Notes that later events of the keys $3 are held, if the session of slot $1 is
-- still $2.
INSERT INTO walrelay.keys (slot, key_hash)
SELECT DISTINCT $1::text, key_hash
FROM unnest($3::bigint[]) AS key_hash
WHERE EXISTS (SELECT FROM walrelay.progress AS p WHERE p.slot = $1 AND p.session = $2)
ON CONFLICT (slot, key_hash) DO NOTHING;
