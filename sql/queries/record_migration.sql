-- Notes that the migration $1 named $2 has been applied.
INSERT INTO walrelay.migrations (version, name)
VALUES ($1, $2)
ON CONFLICT (version) DO NOTHING;
