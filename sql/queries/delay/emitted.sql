-- Whether walrelay.emitted has rows of other slots than $1 that are not settled.
SELECT EXISTS (
    SELECT
    FROM walrelay.emitted AS e
    JOIN walrelay.progress AS p ON p.slot = e.slot
    WHERE e.slot <> $1 AND NOT walrelay.is_settled(e.xmin, p.published)
);
