-- The slots other than $1 that have delayed events, other than discarded ones, and do not exist
-- in this database.
-- The index, which begins with the slot, is read once for each slot.
WITH RECURSIVE slots AS (
    (SELECT d.slot FROM walrelay.delayed AS d ORDER BY d.slot LIMIT 1)
    UNION ALL
    SELECT (SELECT d.slot FROM walrelay.delayed AS d WHERE d.slot > slots.slot ORDER BY d.slot LIMIT 1)
    FROM slots
    WHERE slots.slot IS NOT NULL
)
SELECT slots.slot
FROM slots
WHERE slots.slot <> $1
  AND EXISTS (SELECT FROM walrelay.delayed AS d WHERE d.slot = slots.slot AND d.state <> 'discarded')
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_replication_slots AS s
    WHERE s.slot_name = slots.slot AND s.database = current_database()
  )
  AND NOT EXISTS (SELECT FROM walrelay.standby_slots AS s WHERE s.slot = slots.slot);
