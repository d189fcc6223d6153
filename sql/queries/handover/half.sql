-- Whether slot $1 of the cluster $2 is not closed, and outbox tables have the trigger $3.
SELECT
    EXISTS (
        SELECT FROM walrelay.progress AS p WHERE p.slot = $1 AND p.system_identifier = $2 AND p.handed_over IS NULL
    )
    AND EXISTS (
        SELECT
        FROM walrelay.outboxes AS o
        JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = o.relation AND t.tgname = $3
        WHERE o.slot = $1
    );
