-- Which of the columns that the clean-up needs the table $1 has: the inserting
-- transaction, the time ($2), the time of the schedule ($3), and published_at; and
-- whether an index finds rows by their transaction.
SELECT
    coalesce(bool_or(attname = 'xact_id' AND atttypid = 'xid8'::regtype), false) AS xact,
    coalesce(bool_or(attname = $2), false) AS time,
    coalesce(bool_or(attname = $3 AND atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype)), false) AS scheduled,
    coalesce(bool_or(attname = 'published_at'), false) AS marked,
    coalesce(bool_or(attname = 'xact_id' AND EXISTS (
        SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = attrelid AND i.indkey[0] = attnum
    )), false) AS indexed
FROM pg_catalog.pg_attribute
WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped;
