-- Deletes the emitted events of slot $1 but for those that it has still to read: the ids
-- $2 of the tables $3.$4, each as often as $5 says, the latest ones.
DELETE FROM walrelay.emitted AS e
WHERE e.slot = $1 AND e.ctid NOT IN (
    SELECT k.place
    FROM (
        SELECT x.ctid AS place, w.times,
            row_number() OVER (PARTITION BY w.id, w.table_schema, w.table_name ORDER BY age(x.xmin), x.ctid DESC) AS n
        FROM unnest($2::text[], $3::text[], $4::text[], $5::integer[]) AS w (id, table_schema, table_name, times)
        JOIN walrelay.emitted AS x ON x.slot = $1 AND x.kind <> 'marker' AND x.id = w.id
            AND coalesce(x.table_schema, 'walrelay') = w.table_schema AND coalesce(x.table_name, 'emit_event') = w.table_name
    ) AS k
    WHERE k.n <= k.times
);
