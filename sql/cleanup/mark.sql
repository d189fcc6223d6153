-- Marks rows whose event has an outcome and waits for nothing: of the next $2 rows,
-- in the order of their transactions, from the transaction $3 on without the first
-- $4 rows. $1 is the snapshot of transactions whose every event has an outcome.
-- Rows that somebody has locked are left for the next time. Returns how many rows
-- were looked at, and marked, the last one's transaction, and how many of its rows
-- stay unmarked.
WITH first AS (
    SELECT o.{{ident .ID}} AS id, o.{{ident .Xact}} AS xact
    FROM {{.Table}} AS o
    WHERE o.published_at IS NULL
      AND o.{{ident .Xact}} >= $3::xid8 AND o.{{ident .Xact}} < pg_snapshot_xmin($1::pg_snapshot)
    ORDER BY o.{{ident .Xact}}
    OFFSET $4
    LIMIT $2
){{template "waiting"}}, locked AS (
    SELECT o.{{ident .ID}} AS id, o.{{ident .Xact}} AS xact
    FROM {{.Table}} AS o
    JOIN first AS f ON o.{{ident .ID}} = f.id AND o.{{ident .Xact}} = f.xact
    WHERE o.published_at IS NULL AND {{template "done"}}
    FOR UPDATE OF o SKIP LOCKED
), gone AS (
    UPDATE {{.Table}} AS o
    SET published_at = clock_timestamp()
    FROM locked AS l
    WHERE o.{{ident .ID}} = l.id AND o.{{ident .Xact}} = l.xact
    RETURNING o.{{ident .Xact}} AS xact
){{template "last"}};
