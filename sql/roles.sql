-- Roles to grant to those who log in: walrelay_app may publish and ask for the
-- status of events, walrelay_operator may also see, redrive and discard delayed
-- ones, and walrelay_relay may do what the relay does (besides, the relay's own
-- role needs REPLICATION). What the present role may not do of this is left out.

DO $walrelay$
DECLARE
    name     text;
    returned text;
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
            ELSIF name = 'walrelay_operator' THEN
                EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA walrelay TO %I', name);
                EXECUTE format('GRANT UPDATE ON walrelay.delayed, walrelay.keys TO %I', name);
                EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA walrelay TO %I', name);
            ELSE
                EXECUTE format('GRANT EXECUTE ON FUNCTION walrelay.emit_event(text, text, jsonb, text, timestamptz, integer, text, jsonb, bytea, text, text, uuid, text) TO %I', name);
            END IF;
{{- range .}}
            IF name = 'walrelay_relay' THEN
                EXECUTE format('GRANT SELECT, UPDATE, DELETE ON %s TO %I', {{literal .Ident}}, name);
            ELSIF name = 'walrelay_app' THEN
                EXECUTE format('GRANT INSERT ON %s TO %I', {{literal .Ident}}, name);
                -- For INSERT ... RETURNING, as ORMs write it.
                SELECT format('GRANT SELECT (%s) ON %s TO %I', string_agg(quote_ident(attname), ', '), {{literal .Ident}}, name)
                INTO returned
                FROM pg_catalog.pg_attribute
                WHERE attrelid = {{literal .Ident}}::regclass AND attname IN ('id', 'created_at', 'xact_id') AND NOT attisdropped
                HAVING count(*) > 0;
                IF FOUND THEN
                    EXECUTE returned;
                END IF;
            END IF;
{{- end}}
        EXCEPTION
            WHEN insufficient_privilege OR undefined_table THEN
                RAISE NOTICE 'the rights of role % are left out: %', name, SQLERRM;
        END;
    END LOOP;
END
$walrelay$;
