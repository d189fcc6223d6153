-- Why events of slot $1 have failed, of the last 10000: reasons that differ only in
-- numbers and in what is quoted are one.
SELECT reason, count(*), max(id) AS example
FROM (
    SELECT
        id,
        regexp_replace(left(coalesce(last_error, ''), 400), '"[^"]*"|[0-9]+', '*', 'g') AS reason
    FROM walrelay.delayed
    WHERE slot = $1 AND state = 'failed'
    ORDER BY position DESC
    LIMIT 10000
) AS failed
GROUP BY reason
ORDER BY 2 DESC, 1
LIMIT 10;
