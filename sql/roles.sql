-- Roles to grant to those who log in: walrelay_app may publish and ask for the
-- status of events, cancel and reschedule them, walrelay_operator may also see,
-- redrive and discard delayed ones, by functions, and walrelay_relay may do what the relay does (besides, the relay's own
-- role needs REPLICATION). What the present role may not do of this is left out.

DO $walrelay$
DECLARE
    name     text;
    object   text;
BEGIN
    FOREACH name IN ARRAY ARRAY['walrelay_app', 'walrelay_operator', 'walrelay_relay'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            END IF;
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'role % is left out: %', name, SQLERRM;
                CONTINUE;
            WHEN duplicate_object OR unique_violation THEN
                NULL; -- somebody was faster
        END;
        BEGIN
            EXECUTE format('GRANT USAGE ON SCHEMA walrelay TO %I', name);
            IF name = 'walrelay_relay' THEN
                EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA walrelay TO %I', name);
                EXECUTE format('GRANT TRUNCATE ON walrelay.emitted TO %I', name);
                EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON walrelay.outboxes, walrelay.migrations FROM %I', name);
                EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA walrelay TO %I', name);
            ELSIF name = 'walrelay_operator' THEN
                EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA walrelay FROM %I', name);
                EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA walrelay TO %I', name);
                EXECUTE format('REVOKE ALL ON walrelay.secrets FROM %I', name);
                EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA walrelay TO %I', name);
            ELSE
                FOR object IN
                    SELECT oid::regprocedure::text FROM pg_catalog.pg_proc
                    WHERE pronamespace = 'walrelay'::regnamespace
                      AND proname IN ('check_event', 'publish_event', 'publish_cloud_event', 'emit_event', 'event_status', 'cancel_event', 'reschedule_event')
                LOOP
                    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', object, name);
                END LOOP;
            END IF;
{{- range .}}
            IF name = 'walrelay_relay' THEN
                EXECUTE format('GRANT SELECT, UPDATE, DELETE ON %s TO %I', {{literal .Ident}}, name);
            ELSIF name = 'walrelay_app' THEN
                -- ORMs read back what they insert. A mapped table may number its rows.
                EXECUTE format('GRANT SELECT, INSERT ON %s TO %I', {{literal .Ident}}, name);
                FOR object IN
                    SELECT s.oid::regclass::text
                    FROM pg_catalog.pg_depend AS d
                    JOIN pg_catalog.pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
                    WHERE d.refobjid = {{literal .Ident}}::regclass AND d.classid = 'pg_catalog.pg_class'::regclass
                LOOP
                    EXECUTE format('GRANT USAGE ON SEQUENCE %s TO %I', object, name);
                END LOOP;
            END IF;
{{- end}}
        EXCEPTION
            WHEN insufficient_privilege OR undefined_table THEN
                RAISE NOTICE 'the rights of role % are left out: %', name, SQLERRM;
        END;
    END LOOP;
END
$walrelay$;
