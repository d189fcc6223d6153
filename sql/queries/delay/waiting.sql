-- Those of the keys $2 of slot $1 whose held events wait for nothing but the
-- slot ($3: failed events hold their key).
SELECT c.key_hash
FROM unnest($2::bigint[]) AS c (key_hash)
WHERE NOT EXISTS (
    SELECT FROM walrelay.delayed AS d
    WHERE d.slot = $1 AND d.key_hash = c.key_hash
      AND d.state IN ('retrying', 'failed') AND (d.state = 'retrying' OR $3::boolean)
);
