-- Saves the key $3 of slot $1, if its session is still $2 and it has none.
INSERT INTO walrelay.secrets (slot, key)
SELECT p.slot, $3::bytea
FROM walrelay.progress AS p
WHERE p.slot = $1 AND p.session = $2
ON CONFLICT (slot) DO NOTHING;
