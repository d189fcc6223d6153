-- The sessions whose open transactions have written something: a new slot
-- waits for them.
SELECT pid, coalesce(usename::text, ''), coalesce(application_name, '')
FROM pg_catalog.pg_stat_activity
WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
ORDER BY xact_start;
