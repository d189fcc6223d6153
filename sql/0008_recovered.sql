-- Rows from before the slot read a table, that "walrelay recover" has emitted.
CREATE TABLE IF NOT EXISTS walrelay.recovered (
    slot          text     NOT NULL,
    relation      regclass NOT NULL,
    covered_since xid8     NOT NULL,
    seen_below    xid8     NOT NULL,
    emitted_by    xid8     NOT NULL,
    PRIMARY KEY (slot, relation)
);

COMMENT ON TABLE walrelay.recovered IS
    'Outbox tables of which a recovery has emitted what the slot does not read.';
COMMENT ON COLUMN walrelay.recovered.covered_since IS
    'That of walrelay.outboxes then: of a slot that is lost since, this says nothing.';
COMMENT ON COLUMN walrelay.recovered.seen_below IS
    'The recovery has seen every row of earlier transactions.';
COMMENT ON COLUMN walrelay.recovered.emitted_by IS
    'It has emitted them in this transaction or in earlier ones.';

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
        SELECT o.relation, o.id_column, o.covered_since, v.seen_below, v.emitted_by, p.published, c.relkind, c.oid, t.attname IS NOT NULL AS has_mark,
               format_type(a.atttypid, a.atttypmod) AS id_type
        FROM walrelay.outboxes AS o
        JOIN pg_class AS c ON c.oid = o.relation AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
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
        CASE
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

-- The rights that init gave to the relay's role were given before this existed.
DO $walrelay$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT DISTINCT acl.grantee::regrole AS role
        FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS acl
        WHERE c.oid = 'walrelay.progress'::regclass AND acl.privilege_type = 'UPDATE'
            AND acl.grantee <> 0 AND acl.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON walrelay.recovered TO %s', granted.role);
    END LOOP;
END
$walrelay$;
