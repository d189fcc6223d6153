-- Roles to grant to those who log in: one for applications, which publish events and
-- ask for the status of theirs, cancel and reschedule them; one for operators, who also
-- see delayed events, redrive and discard them, by functions; and one with what the
-- relay does (besides, the relay's own role needs REPLICATION). A fourth, to whom nobody
-- belongs, owns the functions that run with the rights of their owner: it may read the
-- outbox tables and write the delay table, and nothing else.
--
-- Roles belong to the cluster. Those of another database are left alone: whoever has
-- one there must not get rights here. What the present role may not do of all this is
-- left out.

DO $walrelay$
DECLARE
    prefix   constant text := {{literal .Prefix}};
    note     constant text := 'walrelay, database ';
    kind     text;
    name     text;
    of       text;
    object   text;
BEGIN
    FOREACH kind IN ARRAY ARRAY['app', 'operator', 'relay', 'owner'] LOOP
        name := prefix || '_' || kind;
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
        SELECT substr(d.description, length(note) + 1) INTO of
        FROM pg_catalog.pg_roles AS r
        JOIN pg_catalog.pg_shdescription AS d ON d.objoid = r.oid AND d.classoid = 'pg_catalog.pg_authid'::regclass
        WHERE r.rolname = name AND starts_with(d.description, note);
        IF of <> current_database() AND EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = of) THEN
            RAISE WARNING 'role % is that of database %, and gets no rights in this one: set postgres.role_prefix', name, of;
            CONTINUE;
        END IF;
        BEGIN
            EXECUTE format('COMMENT ON ROLE %I IS %L', name, note || current_database());
        EXCEPTION
            WHEN insufficient_privilege THEN
                NULL; -- another may have made it
        END;
        BEGIN
            EXECUTE format('GRANT USAGE ON SCHEMA walrelay TO %I', name);
            CASE kind
                WHEN 'relay' THEN
                    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA walrelay TO %I', name);
                    EXECUTE format('GRANT TRUNCATE ON walrelay.emitted TO %I', name);
                    EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON walrelay.outboxes, walrelay.migrations FROM %I', name);
                    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA walrelay TO %I', name);
                WHEN 'operator' THEN
                    EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA walrelay FROM %I', name);
                    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA walrelay TO %I', name);
                    EXECUTE format('REVOKE ALL ON walrelay.secrets FROM %I', name);
                    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA walrelay TO %I', name);
                WHEN 'owner' THEN
                    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA walrelay TO %I', name);
                    EXECUTE format('REVOKE ALL ON walrelay.secrets FROM %I', name);
                    EXECUTE format('GRANT UPDATE ON walrelay.delayed, walrelay.keys TO %I', name);
                    EXECUTE format('GRANT INSERT ON walrelay.emitted TO %I', name);
                    IF to_regclass('walrelay.parked') IS NOT NULL THEN -- what operators do for handlers
                        EXECUTE format('GRANT UPDATE, DELETE ON walrelay.parked TO %I', name);
                    END IF;
                    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA walrelay TO %I', name);
                ELSE
                    FOR object IN
                        SELECT oid::regprocedure::text FROM pg_catalog.pg_proc
                        WHERE pronamespace = 'walrelay'::regnamespace
                          AND proname IN ('check_event', 'publish_event', 'publish_cloud_event', 'emit_event', 'event_status', 'cancel_event', 'reschedule_event')
                    LOOP
                        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', object, name);
                    END LOOP;
            END CASE;
{{- range .Tables}}
            IF NOT has_schema_privilege(name, {{literal .Schema}}, 'USAGE') THEN
                EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', {{literal .Schema}}, name);
            END IF;
            CASE kind
                WHEN 'relay' THEN
                    EXECUTE format('GRANT SELECT, UPDATE, DELETE ON %s TO %I', {{literal .Ident}}, name);
                WHEN 'owner' THEN
                    EXECUTE format('GRANT SELECT ON %s TO %I', {{literal .Ident}}, name);
                WHEN 'app' THEN
                    -- ORMs read back what they insert. That an event was published is not
                    -- for applications to say.
                    EXECUTE format('REVOKE INSERT ON %s FROM %I', {{literal .Ident}}, name);
                    IF EXISTS (
                        SELECT FROM pg_catalog.pg_attribute
                        WHERE attrelid = {{literal .Ident}}::regclass AND attname = 'published_at' AND NOT attisdropped
                    ) THEN
                        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO object
                        FROM pg_catalog.pg_attribute
                        WHERE attrelid = {{literal .Ident}}::regclass AND attname <> 'published_at'
                          AND attnum > 0 AND NOT attisdropped;
                        EXECUTE format('GRANT INSERT (%s) ON %s TO %I', object, {{literal .Ident}}, name);
                        EXECUTE format('GRANT SELECT ON %s TO %I', {{literal .Ident}}, name);
                    ELSE
                        EXECUTE format('GRANT SELECT, INSERT ON %s TO %I', {{literal .Ident}}, name);
                    END IF;
                    -- A mapped table may number its rows.
                    FOR object IN
                        SELECT s.oid::regclass::text
                        FROM pg_catalog.pg_depend AS d
                        JOIN pg_catalog.pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
                        WHERE d.refobjid = {{literal .Ident}}::regclass AND d.classid = 'pg_catalog.pg_class'::regclass
                    LOOP
                        EXECUTE format('GRANT USAGE ON SEQUENCE %s TO %I', object, name);
                    END LOOP;
                ELSE
                    NULL;
            END CASE;
{{- end}}
            IF kind = 'owner' THEN
                -- Who gives a function away belongs to the role that gets it, and that
                -- role may create in the schema at this moment.
                IF NOT pg_has_role(current_user, name, 'MEMBER') THEN
                    EXECUTE format('GRANT %I TO %I', name, current_user);
                END IF;
                EXECUTE format('GRANT CREATE ON SCHEMA walrelay TO %I', name);
                FOR object IN
                    SELECT oid::regprocedure::text FROM pg_catalog.pg_proc
                    WHERE pronamespace = 'walrelay'::regnamespace AND prosecdef
                      AND NOT EXISTS (
                        SELECT FROM pg_catalog.pg_shdescription AS d
                        WHERE d.objoid = proowner AND d.classoid = 'pg_catalog.pg_authid'::regclass
                          AND d.description = note || current_database()
                      )
                LOOP
                    EXECUTE format('ALTER FUNCTION %s OWNER TO %I', object, name);
                END LOOP;
                EXECUTE format('REVOKE CREATE ON SCHEMA walrelay FROM %I', name);
            END IF;
        EXCEPTION
            WHEN insufficient_privilege OR undefined_table THEN
                RAISE NOTICE 'the rights of role % are left out: %', name, SQLERRM;
        END;
    END LOOP;
END
$walrelay$;
