-- Writes progress ($1 to $8) and pages of the journal ($9 to $13) down, and if $14
-- when the snapshot $7 was known to be published, unless the slot $1 has a later
-- session than $2: then it returns no row.
WITH saved AS (
    UPDATE walrelay.progress
    SET system_identifier = $3,
        timeline = $4,
        flush_lsn = $5::text::pg_lsn,
        streams = $6,
        published = nullif($7, '')::pg_snapshot,
        outboxes = $8,
        updated_at = now()
    WHERE slot = $1 AND session = $2
    RETURNING slot
), journalled AS (
    INSERT INTO walrelay.journal (slot, stream, first, last, events, entries)
    SELECT s.slot, p.stream, p.first, p.last, p.events, p.entries
    FROM saved AS s,
        unnest($9::text[], $10::text[], $11::text[], $12::integer[], $13::bytea[])
            AS p (stream, first, last, events, entries)
), noted AS (
    INSERT INTO walrelay.published (slot, snapshot)
    SELECT s.slot, nullif($7, '')::pg_snapshot
    FROM saved AS s
    WHERE $14::boolean
    ON CONFLICT DO NOTHING
)
SELECT FROM saved;
