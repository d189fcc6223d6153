-- Adds events to the delay table of slot @slot, if its session is still @session.
-- An event that is there already stays as it is. The other parameters are arrays,
-- with an element for each event. Returns in how many seconds the first of them is
-- due; null if none is.
WITH added AS (
    INSERT INTO walrelay.delayed (
        slot, position, origin, state, due_at, id, event_type, source, partition_key, key_hash,
        table_schema, table_name, attempts, max_retries, last_error, failures, kind, content
    )
    SELECT
        @slot, a.position, a.origin, a.state,
        CASE a.state
            WHEN 'scheduled' THEN a.due_at
            WHEN 'retrying' THEN clock_timestamp() + a.wait * interval '1 second'
        END,
        a.id, a.event_type, a.source, a.partition_key, a.key_hash,
        a.table_schema, a.table_name, a.attempts, a.max_retries, a.last_error, a.failures::jsonb, a.kind, a.content
    FROM unnest(
        @position::text[], @origin::text[], @state::text[], @due_at::timestamptz[], @wait::float8[],
        @id::text[], @event_type::text[], @source::text[], @partition_key::text[], @key_hash::bigint[],
        @table_schema::text[], @table_name::text[], @attempts::integer[], @max_retries::integer[],
        @last_error::text[], @failures::text[], @kind::text[], @content::bytea[]
    ) AS a (
        position, origin, state, due_at, wait, id, event_type, source, partition_key, key_hash,
        table_schema, table_name, attempts, max_retries, last_error, failures, kind, content
    )
    WHERE EXISTS (SELECT FROM walrelay.progress AS p WHERE p.slot = @slot AND p.session = @session)
    ON CONFLICT (slot, position) DO NOTHING
    RETURNING due_at
)
SELECT extract(epoch FROM min(due_at) - clock_timestamp())::float8
FROM added;
