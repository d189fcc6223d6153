-- Columns of earlier versions that are not needed any more. A column of that name
-- that is not walrelay's own stays.

DO $walrelay$
BEGIN
    IF EXISTS (
        SELECT
        FROM pg_catalog.pg_attribute AS a
        JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = {{literal .Ident}}::regclass AND a.attname = 'xact_id' AND NOT a.attisdropped
          AND a.atttypid = 'xid8'::regtype
          AND pg_catalog.pg_get_expr(d.adbin, d.adrelid) = 'pg_current_xact_id()'
          AND pg_catalog.col_description(a.attrelid, a.attnum) = 'The inserting transaction; not published. Leave it to its default.'
    ) THEN
        ALTER TABLE {{.Ident}} DROP COLUMN xact_id;
    END IF;
END
$walrelay$;
