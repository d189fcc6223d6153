-- Which of the roles $1 are those of another database of the cluster, and of which:
-- see roles.sql.
SELECT string_agg(r.rolname, ', ' ORDER BY r.rolname), d.datname
FROM pg_catalog.pg_roles AS r
JOIN pg_catalog.pg_shdescription AS s ON s.objoid = r.oid AND s.classoid = 'pg_catalog.pg_authid'::regclass
JOIN pg_catalog.pg_database AS d ON s.description = 'walrelay, database ' || d.datname
WHERE r.rolname = ANY ($1::text[]) AND d.datname <> current_database()
GROUP BY d.datname;
