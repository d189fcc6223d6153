-- Deletes rows whose event has an outcome, once they are $2 seconds old: of the
-- $3 oldest transactions' rows. $1 is the snapshot of transactions whose every
-- event has one. Rows that somebody has locked are left for the next time.
-- Returns how many rows were looked at, and deleted.
WITH first AS (
    SELECT o.{{ident .ID}} AS id, o.{{ident .Xact}} AS xact, o.{{ident .Time}} < now() - $2 * interval '1 second' AS old
    FROM {{.Table}} AS o
    WHERE o.{{ident .Xact}} < pg_snapshot_xmin($1::pg_snapshot)
    ORDER BY o.{{ident .Xact}}
    LIMIT $3
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {{.Table}} AS o
    USING first AS f
    WHERE f.old AND o.{{ident .ID}} = f.id AND o.{{ident .Xact}} = f.xact
    RETURNING 1
)
SELECT (SELECT count(*) FROM first), (SELECT count(*) FROM gone);
