-- Notes that later events of the keys $3 are held, if the session of slot $1 is
-- still $2. A key that is noted already is not touched: somebody may have locked
-- its row.
INSERT INTO walrelay.keys (slot, key_hash)
SELECT DISTINCT $1::text, h.key_hash
FROM unnest($3::bigint[]) AS h (key_hash)
WHERE EXISTS (SELECT FROM walrelay.progress AS p WHERE p.slot = $1 AND p.session = $2)
  AND NOT EXISTS (SELECT FROM walrelay.keys AS k WHERE k.slot = $1 AND k.key_hash = h.key_hash)
ON CONFLICT (slot, key_hash) DO NOTHING;
