-- A table by schema ($1) and name ($2), and how the publication $3 has it: no
-- row if there is no such table. The columns that came with Postgres 15 are
-- looked up by name, so that 14 can run this too.
SELECT
    class.relkind::text AS kind,
    class.relispartition AS partition,
    class.relpersistence = 'p' AS permanent,
    member.oid IS NOT NULL AS published,
    EXISTS (
        SELECT
        FROM pg_catalog.pg_publication_tables AS listed
        WHERE listed.pubname = $3 AND listed.schemaname = $1 AND listed.tablename = $2
    ) AS listed,
    coalesce(to_jsonb(member) ->> 'prqual', '') <> '' AS filtered,
    coalesce(to_jsonb(member) ->> 'prattrs', '') <> '' AS column_list
FROM pg_catalog.pg_class AS class
JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
LEFT JOIN pg_catalog.pg_publication AS publication ON publication.pubname = $3
LEFT JOIN pg_catalog.pg_publication_rel AS member
    ON member.prpubid = publication.oid AND member.prrelid = class.oid
WHERE namespace.nspname = $1 AND class.relname = $2;
