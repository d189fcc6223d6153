-- The columns of the table walrelay.$1 that a row is given, in order.
SELECT a.attname
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = to_regclass('walrelay.' || quote_ident($1)) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity = ''
ORDER BY a.attnum;
