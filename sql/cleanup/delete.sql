-- Deletes rows whose event has an outcome and waits for nothing, once they are $5
-- seconds old: of the next $2 rows, in the order of their transactions, from the
-- transaction $3 on without the first $4 rows. $1 is the snapshot of transactions
-- whose every event has an outcome. Rows that somebody has locked are left for the
-- next time; those that stay are not locked, for that would write to them.
-- Returns how many rows were looked at, and deleted, the last one's transaction,
-- and how many of its rows stay.
WITH first AS (
    SELECT
        o.{{ident .ID}} AS id,
        o.{{ident .Xact}} AS xact,
        {{- if .Scheduled}}
        -- One whose time is yet to come was cancelled or rescheduled, if it waits
        -- for nothing.
        greatest(o.{{ident .Time}}, CASE WHEN o.{{ident .Scheduled}} <= now() THEN o.{{ident .Scheduled}} END)
        {{- else}}
        o.{{ident .Time}}
        {{- end}} < now() - $5 * interval '1 second' AS old
    FROM {{.Table}} AS o
    WHERE o.{{ident .Xact}} >= $3::xid8 AND o.{{ident .Xact}} < pg_snapshot_xmin($1::pg_snapshot)
    ORDER BY o.{{ident .Xact}}
    OFFSET $4
    LIMIT $2
){{template "waiting"}}, locked AS (
    SELECT o.{{ident .ID}} AS id, o.{{ident .Xact}} AS xact
    FROM {{.Table}} AS o
    JOIN first AS f ON o.{{ident .ID}} = f.id AND o.{{ident .Xact}} = f.xact
    WHERE CASE WHEN f.old THEN {{template "done"}} ELSE false END
    FOR UPDATE OF o SKIP LOCKED
), gone AS (
    DELETE FROM {{.Table}} AS o
    USING locked AS l
    WHERE o.{{ident .ID}} = l.id AND o.{{ident .Xact}} = l.xact
    RETURNING o.{{ident .Xact}} AS xact
){{template "last"}};
