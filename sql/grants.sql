-- What the role that walrelay connects as needs of its schema. Besides, it
-- needs LOGIN and the right to stream: ALTER ROLE ... REPLICATION, or on Amazon
-- RDS: GRANT rds_replication TO ...

GRANT USAGE ON SCHEMA walrelay TO {{ident .Role}};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA walrelay TO {{ident .Role}};
GRANT TRUNCATE ON walrelay.emitted TO {{ident .Role}};
REVOKE INSERT, UPDATE, DELETE ON walrelay.outboxes, walrelay.migrations FROM {{ident .Role}};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA walrelay TO {{ident .Role}};
{{if .Prefix}}
DO $walrelay$
BEGIN
    GRANT {{ident (print .Prefix "_relay")}} TO {{ident .Role}};
EXCEPTION
    WHEN undefined_object OR insufficient_privilege THEN
        RAISE NOTICE 'role % is not granted: %', {{literal (print .Prefix "_relay")}}, SQLERRM;
END
$walrelay$;
{{- end}}
