-- Deletes rows whose event has an outcome, once they are $2 seconds old: of the
-- $3 oldest transactions' rows. $1 is the snapshot of transactions whose every
-- event has one. Rows that somebody has locked are left for the next time; those
-- that are too young are not locked, for that would write to them.
-- Returns how many rows were looked at, and deleted.
WITH first AS (
    SELECT o.{{ident .ID}} AS id, o.{{ident .Xact}} AS xact, o.{{ident .Time}} < now() - $2 * interval '1 second' AS old
    FROM {{.Table}} AS o
    WHERE o.{{ident .Xact}} < pg_snapshot_xmin($1::pg_snapshot)
    ORDER BY o.{{ident .Xact}}
    LIMIT $3
), locked AS (
    SELECT o.{{ident .ID}} AS id, o.{{ident .Xact}} AS xact
    FROM {{.Table}} AS o
    JOIN first AS f ON o.{{ident .ID}} = f.id AND o.{{ident .Xact}} = f.xact
    WHERE f.old
    FOR UPDATE OF o SKIP LOCKED
), gone AS (
    DELETE FROM {{.Table}} AS o
    USING locked AS l
    WHERE o.{{ident .ID}} = l.id AND o.{{ident .Xact}} = l.xact
    RETURNING 1
)
SELECT (SELECT count(*) FROM first), (SELECT count(*) FROM gone);
