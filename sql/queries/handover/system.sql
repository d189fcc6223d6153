-- The cluster that this is: its identifier, and its timeline.
SELECT
    (SELECT s.system_identifier::text FROM pg_catalog.pg_control_system() AS s),
    (SELECT c.timeline_id FROM pg_catalog.pg_control_checkpoint() AS c);
