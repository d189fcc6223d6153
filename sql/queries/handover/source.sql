-- What is known of slot $1, which is closed: no row if nothing is.
SELECT p.handed_over, s.key
FROM walrelay.progress AS p
LEFT JOIN walrelay.secrets AS s ON s.slot = p.slot
WHERE p.slot = $1 AND p.handed_over IS NOT NULL;
