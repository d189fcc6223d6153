-- How many events slot $1 has in the delay table, and on their way out of it.
SELECT
    (SELECT count(*) FROM walrelay.delayed AS d WHERE d.slot = $1 AND d.state <> 'discarded'),
    (SELECT count(*) FROM walrelay.emitted AS e WHERE e.slot = $1 AND e.kind <> 'marker');
