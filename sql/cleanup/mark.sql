-- Marks rows whose event has an outcome, at most $2 at a time. $1 is the
-- snapshot of transactions whose every event has one. Rows that somebody has
-- locked are left for the next time. Returns how many rows were looked at, and
-- marked.
WITH first AS (
    SELECT o.{{ident .ID}} AS id, o.{{ident .Xact}} AS xact
    FROM {{.Table}} AS o
    WHERE o.published_at IS NULL AND o.{{ident .Xact}} < pg_snapshot_xmin($1::pg_snapshot)
    ORDER BY o.{{ident .Xact}}
    LIMIT $2
    FOR UPDATE SKIP LOCKED
), marked AS (
    UPDATE {{.Table}} AS o
    SET published_at = clock_timestamp()
    FROM first AS f
    WHERE o.{{ident .ID}} = f.id AND o.{{ident .Xact}} = f.xact
    RETURNING 1
)
SELECT (SELECT count(*) FROM first), (SELECT count(*) FROM marked);
