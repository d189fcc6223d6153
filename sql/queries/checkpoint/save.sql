-- Saves the checkpoint of slot @slot and pages of the journal, unless the slot has
-- another session than @session: then it returns no row.
WITH saved AS (
    UPDATE walrelay.progress
    SET system_identifier = @system_identifier,
        timeline = @timeline,
        flush_lsn = @flush_lsn::text::pg_lsn,
        streams = @streams,
        published = nullif(@published::text, '')::pg_snapshot,
        updated_at = now()
    WHERE slot = @slot AND session = @session
    RETURNING slot
), journalled AS (
    INSERT INTO walrelay.journal (slot, stream, first, last, events, entries, ids)
    SELECT s.slot, p.stream, p.first, p.last, p.events, p.entries,
        CASE WHEN p.ids IS NOT NULL THEN ARRAY(SELECT json_array_elements_text(p.ids::json)) END
    FROM saved AS s,
        unnest(@page_streams::text[], @page_first::text[], @page_last::text[], @page_events::integer[], @page_entries::bytea[],
            @page_ids::text[]) AS p (stream, first, last, events, entries, ids)
)
SELECT FROM saved;
