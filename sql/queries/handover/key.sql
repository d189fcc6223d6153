-- Gives slot $1 the key $2.
INSERT INTO walrelay.secrets (slot, key)
VALUES ($1, $2)
ON CONFLICT (slot) DO UPDATE SET key = excluded.key;
