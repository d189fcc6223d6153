-- The newest migration that has been applied; 0 before the first.
SELECT coalesce(max(version), 0)
FROM walrelay.migrations;
