-- When the next event of slot $1 is due, and how many keys are blocked.
SELECT
    (SELECT min(due_at) FROM walrelay.delayed WHERE slot = $1 AND state IN ('scheduled', 'retrying')),
    (SELECT count(*) FROM walrelay.keys WHERE slot = $1);
