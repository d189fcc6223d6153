-- A table by schema ($1) and name ($2), how the publication $3 has it, and whether
-- an index finds rows by the column $4: no
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
    coalesce(to_jsonb(member) ->> 'prattrs', '') <> '' AS column_list,
    -- walrelay's own column of earlier versions, as sql/slim.sql knows it.
    EXISTS (
        SELECT
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = class.oid AND a.attname = 'xact_id' AND a.atttypid = 'xid8'::regtype AND NOT a.attisdropped
          AND pg_catalog.col_description(a.attrelid, a.attnum) = 'The inserting transaction; not published. Leave it to its default.'
    ) AS has_xact,
    EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = class.oid AND a.attname = 'published_at' AND NOT a.attisdropped
    ) AS has_mark,
    EXISTS (
        SELECT FROM pg_catalog.pg_partition_tree(class.oid) AS part
        WHERE strpos(pg_catalog.pg_get_partkeydef(part.relid), 'published_at') > 0
    ) AS mark_moves,
    (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'name', a.attname,
            'type', (
                -- Of a domain, the type below all domains.
                WITH RECURSIVE base AS (
                    SELECT a.atttypid AS oid
                    UNION ALL
                    SELECT domain.typbasetype
                    FROM base
                    JOIN pg_catalog.pg_type AS domain ON domain.oid = base.oid AND domain.typtype = 'd'
                )
                SELECT pg_catalog.format_type(base.oid, NULL)
                FROM base
                JOIN pg_catalog.pg_type AS t ON t.oid = base.oid AND t.typtype <> 'd'
            ),
            'generated', a.attgenerated <> '' AND NOT (a.attgenerated = 's' AND coalesce(to_jsonb(publication) ->> 'pubgencols', '') = 's')
        ) ORDER BY a.attnum), '[]')
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = class.oid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS columns,
    (
        SELECT coalesce(jsonb_agg(jsonb_build_object('schema', n.nspname, 'name', child.relname) ORDER BY n.nspname, child.relname), '[]')
        FROM pg_catalog.pg_inherits AS i
        JOIN pg_catalog.pg_class AS child ON child.oid = i.inhrelid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = child.relnamespace
        WHERE i.inhparent = class.oid
    ) AS children,
    EXISTS (
        SELECT FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = class.oid AND i.indisvalid AND a.attname = $4
    ) AS has_id
FROM pg_catalog.pg_class AS class
JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
LEFT JOIN pg_catalog.pg_publication AS publication ON publication.pubname = $3
LEFT JOIN pg_catalog.pg_publication_rel AS member
    ON member.prpubid = publication.oid AND member.prrelid = class.oid
WHERE namespace.nspname = $1 AND class.relname = $2;
