-- Those of the keys $2 of slot $1 whose held events wait for nothing but the
-- slot, or for somebody who has locked them ($3: failed events block their key).
SELECT c.key_hash
FROM unnest($2::bigint[]) AS c (key_hash)
WHERE NOT EXISTS (
    SELECT FROM walrelay.delayed AS d
    WHERE d.slot = $1 AND d.key_hash = c.key_hash AND walrelay.blocks_key(d.state, $3::boolean)
);
