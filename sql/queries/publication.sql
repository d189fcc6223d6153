-- The publication $1: no row if there is none.
SELECT
    publication.puballtables AS all_tables,
    publication.pubinsert AS inserts,
    publication.pubupdate OR publication.pubdelete OR publication.pubtruncate AS others,
    publication.pubviaroot AS via_root,
    array(
        SELECT listed.tablename::text
        FROM pg_catalog.pg_publication_tables AS listed
        WHERE listed.pubname = $1 AND listed.schemaname = 'walrelay' AND listed.tablename <> 'emitted'
        ORDER BY 1
    ) AS own_tables,
    EXISTS (
        SELECT
        FROM pg_catalog.pg_publication_tables AS listed
        WHERE listed.pubname = $1 AND listed.schemaname = 'walrelay' AND listed.tablename = 'emitted'
    ) AS emitted
FROM pg_catalog.pg_publication AS publication
WHERE publication.pubname = $1;
