-- Marks the rows with the ids $1, as text, of the outbox table $3.$4, unless
-- slot $2 has their event in the delay table or has just emitted it. Rows that
-- somebody has locked stay as they are. Returns how many are marked, and the ids
-- of those that are not.
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
    WHERE o.published_at IS NULL
    FOR UPDATE OF o SKIP LOCKED
), done AS (
    UPDATE {{table}} AS o
    SET published_at = clock_timestamp()
    FROM locked AS l
    WHERE o.{{id}} = l.id AND o.published_at IS NULL
    RETURNING l.text
)
SELECT
    (SELECT count(*) FROM done),
    array(
        SELECT w.id
        FROM wanted AS w
        JOIN {{table}} AS o ON o.{{id}} = w.id::{{type}}
        WHERE o.published_at IS NULL AND w.id NOT IN (SELECT d.text FROM done AS d)
    );
