-- What the role that walrelay connects as needs of its schema. Besides, it
-- needs LOGIN and the right to stream: ALTER ROLE ... REPLICATION, or on Amazon
-- RDS: GRANT rds_replication TO ...

GRANT USAGE ON SCHEMA walrelay TO {{ident .}};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA walrelay TO {{ident .}};
GRANT TRUNCATE ON walrelay.emitted TO {{ident .}};
REVOKE INSERT, UPDATE, DELETE ON walrelay.outboxes, walrelay.migrations FROM {{ident .}};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA walrelay TO {{ident .}};

DO $walrelay$
BEGIN
    GRANT walrelay_relay TO {{ident .}};
EXCEPTION
    WHEN undefined_object OR insufficient_privilege THEN
        RAISE NOTICE 'role walrelay_relay is not granted: %', SQLERRM;
END
$walrelay$;
