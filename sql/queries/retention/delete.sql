-- Deletes the rows with the ids $1, as text, of the outbox table $3.$4, unless
-- slot $2 has their event in the delay table or has just emitted it. Rows that
-- somebody has locked stay. Returns how many are deleted, and the ids of those
-- that stay.
WITH wanted AS (
    SELECT DISTINCT w.id
    FROM unnest($1::text[]) AS w (id)
    WHERE NOT EXISTS (
        SELECT
        FROM walrelay.delayed AS d
        WHERE d.id = w.id AND d.slot = $2 AND d.table_schema = $3 AND d.table_name = $4 AND d.state <> 'discarded'
    )
    AND w.id NOT IN (
        SELECT u.id
        FROM walrelay.underway AS u
        WHERE u.slot = $2 AND u.table_schema = $3 AND u.table_name = $4
    )
), locked AS (
    SELECT o.{{id}} AS id, w.id AS text
    FROM wanted AS w
    JOIN {{table}} AS o ON o.{{id}} = w.id::{{type}}
    FOR UPDATE OF o SKIP LOCKED
), done AS (
    DELETE FROM {{table}} AS o
    USING locked AS l
    WHERE o.{{id}} = l.id
    RETURNING l.text
)
SELECT
    (SELECT count(*) FROM done),
    array(
        SELECT w.id
        FROM wanted AS w
        JOIN {{table}} AS o ON o.{{id}} = w.id::{{type}}
        WHERE w.id NOT IN (SELECT d.text FROM done AS d)
    );
