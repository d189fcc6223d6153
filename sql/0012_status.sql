-- Which events are settled although no stream has got them: a route drops them, or they
-- are duplicates. Of other pages, whose events are many, the ids are not kept apart.
ALTER TABLE walrelay.journal
    ADD COLUMN IF NOT EXISTS ids text[];
CREATE INDEX IF NOT EXISTS journal_ids_idx
    ON walrelay.journal USING gin (ids) WHERE ids IS NOT NULL;
COMMENT ON COLUMN walrelay.journal.ids IS
    'Of a page that is no stream''s: table and id of each event, with a space between them.';

-- What has become of an event, for the application that wrote it. A state that is
-- not known is "unknown", with the reason. An id may be that of several events,
-- of several tables: outbox says which is meant.
CREATE OR REPLACE FUNCTION walrelay.event_status(
    id                  text,
    outbox              text DEFAULT NULL,
    OUT state           text,
    OUT attempts        integer,
    OUT last_error      text,
    OUT next_attempt_at timestamptz,
    OUT reason          text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asked    regclass := outbox::regclass;
    covered  record;
    kind     text;
    found_id boolean;
    settled  boolean;
    marked   timestamptz;
    written  xid;
    has_mark boolean;
BEGIN
    SELECT d.state, d.attempts, d.last_error,
           CASE WHEN d.state IN ('scheduled', 'retrying') THEN d.due_at END
    INTO state, attempts, last_error, next_attempt_at
    FROM walrelay.delayed AS d
    WHERE d.id = event_status.id
      AND (asked IS NULL OR asked = to_regclass(format('%I.%I', d.table_schema, d.table_name)))
    ORDER BY d.updated_at DESC
    LIMIT 1;
    IF FOUND THEN
        RETURN;
    END IF;
    attempts := 0;
    IF EXISTS (
        SELECT FROM walrelay.underway AS u
        WHERE u.id = event_status.id
          AND (asked IS NULL OR asked = to_regclass(format('%I.%I', u.table_schema, u.table_name)))
    ) THEN
        state := 'pending';
        RETURN;
    END IF;
    FOR covered IN
        SELECT format('%s.%s %s', n.nspname, c.relname, event_status.id) AS noted, o.relation, o.id_column, o.covered_since, v.seen_below, v.emitted_by, p.published, c.relkind, c.oid, t.attname IS NOT NULL AS has_mark,
               format_type(a.atttypid, a.atttypmod) AS id_type
        FROM walrelay.outboxes AS o
        JOIN pg_class AS c ON c.oid = o.relation AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = o.id_column AND NOT a.attisdropped
        -- Types of others may bring code of others, which must not run here.
        JOIN pg_type AS y ON y.oid = a.atttypid AND y.typnamespace = 'pg_catalog'::regnamespace
        LEFT JOIN walrelay.progress AS p ON p.slot = o.slot
        LEFT JOIN walrelay.recovered AS v ON v.slot = o.slot AND v.relation = o.relation AND v.covered_since = o.covered_since
        LEFT JOIN pg_attribute AS t ON t.attrelid = c.oid AND t.attname = 'published_at' AND NOT t.attisdropped
            AND t.atttypid = 'timestamptz'::regtype
        WHERE asked IS NULL OR asked = o.relation
    LOOP
        found_id := false;
        BEGIN
            EXECUTE format(
                'SELECT true, o.xmin, %s FROM %s %s AS o WHERE o.%I = $1::%s LIMIT 1',
                CASE WHEN covered.has_mark THEN 'o.published_at' ELSE 'NULL::timestamptz' END,
                CASE WHEN covered.relkind = 'r' THEN 'ONLY' ELSE '' END,
                covered.relation, covered.id_column, covered.id_type)
            INTO found_id, written, marked USING event_status.id;
        EXCEPTION
            WHEN data_exception THEN
                NULL; -- not an id of this table
            WHEN insufficient_privilege THEN
                reason := format('the owner of this function may not read all rows of %s', covered.relation);
        END;
        CONTINUE WHEN found_id IS NOT TRUE;
        settled := walrelay.is_settled(written, covered.published);
        -- No stream has it, and the relay is done with it.
        SELECT CASE j.stream WHEN '' THEN 'dropped' ELSE 'duplicate' END INTO state
        FROM walrelay.journal AS j
        WHERE j.ids @> ARRAY[covered.noted]
        ORDER BY j.id
        LIMIT 1;
        CASE
            WHEN state IS NOT NULL THEN
                NULL;
            WHEN marked IS NOT NULL THEN
                state := 'published';
            WHEN walrelay.full_xid(written) < covered.covered_since::text::numeric
                AND walrelay.full_xid(written) < coalesce(covered.seen_below::text::numeric, 0) THEN
                -- A recovery has emitted it.
                state := CASE
                    WHEN covered.emitted_by::text::numeric < pg_snapshot_xmin(covered.published)::text::numeric THEN 'published'
                    ELSE 'pending'
                END;
            WHEN walrelay.full_xid(written) < covered.covered_since::text::numeric THEN
                state := 'unknown';
                reason := format('the row is from before the slot read %s; "walrelay recover" has it published', covered.relation);
            WHEN settled THEN
                state := 'published';
            ELSE
                state := 'pending';
        END CASE;
        RETURN;
    END LOOP;
    state := 'unknown';
    reason := coalesce(reason, 'no row has this id: it never was committed, or was published and cleaned up');
END
$$;

CREATE OR REPLACE FUNCTION walrelay.event_status(
    id                  uuid,
    outbox              text DEFAULT NULL,
    OUT state           text,
    OUT attempts        integer,
    OUT last_error      text,
    OUT next_attempt_at timestamptz,
    OUT reason          text
)
LANGUAGE sql STABLE
AS $$
    SELECT * FROM walrelay.event_status(event_status.id::text, event_status.outbox)
$$;

-- Nobody has a function unless it is given to them.
REVOKE EXECUTE ON FUNCTION walrelay.event_status(text, text), walrelay.event_status(uuid, text) FROM PUBLIC;
