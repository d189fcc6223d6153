-- What the handlers of package inbox keep in their database: how far each has come,
-- and the events that it could not handle.
CREATE SCHEMA IF NOT EXISTS walrelay;

-- A handler: one durable consumer of a stream, or one for each partition, of which each has a row. The
-- partition of a handler without partitions is -1.
CREATE TABLE IF NOT EXISTS walrelay.handlers (
    handler       text        NOT NULL,
    partition     smallint    NOT NULL DEFAULT -1,
    stream        text        NOT NULL,
    types         text[]      NOT NULL,
    mode          text        NOT NULL,
    epoch         bigint      NOT NULL DEFAULT 0,
    process       text        NOT NULL DEFAULT '',
    active_since  timestamptz,
    seen_at       timestamptz,
    lag           bigint      NOT NULL DEFAULT 0,
    removed       bigint      NOT NULL DEFAULT 0,
    last_error    text,
    last_error_at timestamptz,
    PRIMARY KEY (handler, partition)
);
COMMENT ON TABLE walrelay.handlers IS
    'The handlers of package inbox. Each time that a process becomes the active one of a handler, epoch grows: what an earlier one parks from then on is refused.';

-- The mark of a bucket: everything of the bucket up to the position was handled or parked. Each partition has 64
-- buckets of its own: 64 * (partition + 1) and the following.
CREATE TABLE IF NOT EXISTS walrelay.marks (
    handler  text     NOT NULL,
    stream   text     NOT NULL,
    writer   text     NOT NULL,
    bucket   smallint NOT NULL,
    timeline integer  NOT NULL DEFAULT 0,
    position text     NOT NULL COLLATE "C",
    PRIMARY KEY (handler, stream, writer, bucket)
) WITH (fillfactor = 20);
COMMENT ON TABLE walrelay.marks IS
    'How far each handler has come, for each bucket of keys: a transaction that handles an event moves the mark.';

-- Events without a position that can be trusted are known by source and id.
CREATE TABLE IF NOT EXISTS walrelay.handled (
    handler    text        NOT NULL,
    event      bytea       NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (handler, event)
);
CREATE INDEX IF NOT EXISTS handled_at_idx ON walrelay.handled (handler, handled_at);
COMMENT ON TABLE walrelay.handled IS
    'The events without an authentic position that were handled, by a hash of source and id, for a time.';

CREATE TABLE IF NOT EXISTS walrelay.parked (
    number          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    handler         text        NOT NULL,
    state           text        NOT NULL CHECK (state IN ('retrying', 'ready', 'held', 'failed')),
    event           bytea       NOT NULL,
    key_hash        bytea,
    key             text        NOT NULL,
    event_id        text        NOT NULL,
    event_type      text        NOT NULL,
    source          text        NOT NULL,
    stream          text        NOT NULL,
    sequence        bigint      NOT NULL,
    attempts        integer     NOT NULL,
    next_attempt_at timestamptz NOT NULL,
    last_error      text        NOT NULL,
    parked_at       timestamptz NOT NULL DEFAULT now(),
    subject         text        NOT NULL,
    headers         bytea       NOT NULL,
    data            bytea
);
CREATE UNIQUE INDEX IF NOT EXISTS parked_event_idx ON walrelay.parked (handler, event);
CREATE INDEX IF NOT EXISTS parked_key_idx ON walrelay.parked (handler, key_hash, number) WHERE key_hash IS NOT NULL;
CREATE INDEX IF NOT EXISTS parked_due_idx ON walrelay.parked (handler, next_attempt_at, number) WHERE state IN ('retrying', 'ready');
COMMENT ON TABLE walrelay.parked IS
    'Events that a handler could not handle: retrying until next_attempt_at, failed for good, held behind an earlier one of their key, or ready to be handled as the next of their key.';

-- inbox_first returns the number of the first parked event of a key; NULL if none is. It looks for the next entry of
-- the index and compares: asked for equality, the planner would read the whole table when, by its statistics, most of
-- the events are of one key, although there is none of this one. inbox_begin has the same query within itself: it is
-- called for each event, and a call costs more than the query.
CREATE OR REPLACE FUNCTION walrelay.inbox_first(of_handler text, of_key bytea) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT CASE WHEN next.handler = of_handler AND next.key_hash = of_key THEN next.number END
        FROM (
            SELECT p.handler, p.key_hash, p.number FROM walrelay.parked AS p
            WHERE p.key_hash IS NOT NULL AND (p.handler, p.key_hash) >= (of_handler, of_key)
            ORDER BY p.handler, p.key_hash, p.number LIMIT 1
        ) AS next);
END
$$;

-- inbox_begin is the first statement of a transaction that handles events of one writer and timeline: it moves the marks
-- of their buckets from below "lowest" to "highest". A mark of an earlier timeline counts up to where the
-- present one began: what stood after that was lost by the database, and other events stand there now. It returns 0; 1 if a mark is there already, so
-- that the transaction must not go on; 2 if one of the keys is blocked. The marks stay locked for no longer than
-- patience (milliseconds) while the client does nothing: it may be frozen.
CREATE OR REPLACE FUNCTION walrelay.inbox_begin(
    of_handler text, of_stream text, of_writer text, of_timeline integer, began text, buckets smallint[], lowest text[], highest text[], keys bytea[], patience text
) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moved bigint;
BEGIN
    PERFORM set_config('idle_in_transaction_session_timeout', patience, true);
    IF cardinality(buckets) = 1 THEN
        UPDATE walrelay.marks AS m SET position = highest[1], timeline = of_timeline
        WHERE m.handler = of_handler AND m.stream = of_stream AND m.writer = of_writer
          AND m.bucket = buckets[1]
          AND (m.timeline = of_timeline AND m.position < lowest[1]
            OR m.timeline < of_timeline AND (m.position < lowest[1] OR lowest[1] >= began));
    ELSE
        UPDATE walrelay.marks AS m SET position = u.highest, timeline = of_timeline
        FROM unnest(buckets, lowest, highest) AS u (bucket, lowest, highest)
        WHERE m.handler = of_handler AND m.stream = of_stream AND m.writer = of_writer
          AND m.bucket = u.bucket
          AND (m.timeline = of_timeline AND m.position < u.lowest
            OR m.timeline < of_timeline AND (m.position < u.lowest OR u.lowest >= began));
    END IF;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> cardinality(buckets) THEN
        RETURN 1;
    END IF;
    IF cardinality(keys) > 0 AND EXISTS (
        SELECT FROM unnest(keys) AS k CROSS JOIN LATERAL (
            SELECT p.handler, p.key_hash FROM walrelay.parked AS p
            WHERE p.key_hash IS NOT NULL AND (p.handler, p.key_hash) >= (of_handler, k)
            ORDER BY p.handler, p.key_hash, p.number LIMIT 1
        ) AS next
        WHERE next.handler = of_handler AND next.key_hash = k
    ) THEN
        RETURN 2;
    END IF;
    RETURN 0;
END
$$;

-- inbox_begin_foreign is the same for an event without an authentic position.
CREATE OR REPLACE FUNCTION walrelay.inbox_begin_foreign(of_handler text, of_event bytea, of_key bytea, patience text) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('idle_in_transaction_session_timeout', patience, true);
    INSERT INTO walrelay.handled (handler, event) VALUES (of_handler, of_event) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 1;
    END IF;
    IF walrelay.inbox_first(of_handler, of_key) IS NOT NULL THEN
        RETURN 2;
    END IF;
    RETURN 0;
END
$$;

-- Who parks behind a key, and who takes an event of it away, do so one after the other.
CREATE OR REPLACE FUNCTION walrelay.inbox_lock_key(of_handler text, of_key bytea) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_advisory_xact_lock(
        hashtextextended('walrelay parked ' || of_handler, hashtextextended(encode(of_key, 'hex'), 0)));
$$;

-- inbox_text makes a text of bytes in UTF-8, in whatever encoding the database has: what has no form in it
-- is written with escapes.
CREATE OR REPLACE FUNCTION walrelay.inbox_text(utf8 bytea) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN convert_from(coalesce(utf8, ''), 'UTF8');
EXCEPTION
    WHEN data_exception THEN
        RETURN encode(utf8, 'escape');
END
$$;

-- inbox_park parks an event, in the transaction that moves its mark: behind those of its key that are parked, or as
-- what it is. It returns whether it did: not if only_behind is given and the key is not blocked any more.
CREATE OR REPLACE FUNCTION walrelay.inbox_park(
    of_handler text, only_behind boolean, of_state text, of_event bytea, of_key_hash bytea, of_key bytea, of_id bytea, of_type bytea,
    of_source bytea, of_stream text, of_sequence bigint, of_attempts integer, wait_ms bigint, of_error bytea,
    of_subject bytea, of_headers bytea, of_data bytea
) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    behind boolean := false;
BEGIN
    IF of_key_hash IS NOT NULL THEN
        PERFORM walrelay.inbox_lock_key(of_handler, of_key_hash);
        behind := walrelay.inbox_first(of_handler, of_key_hash) IS NOT NULL;
    END IF;
    IF only_behind AND NOT behind THEN
        RETURN false;
    END IF;
    INSERT INTO walrelay.parked (
        handler, state, event, key_hash, key, event_id, event_type, source, stream, sequence,
        attempts, next_attempt_at, last_error, subject, headers, data
    ) VALUES (
        of_handler, CASE WHEN behind THEN 'held' ELSE of_state END, of_event, of_key_hash, walrelay.inbox_text(of_key), walrelay.inbox_text(of_id), walrelay.inbox_text(of_type), walrelay.inbox_text(of_source), of_stream, of_sequence,
        of_attempts, clock_timestamp() + make_interval(secs => wait_ms / 1000.0), walrelay.inbox_text(of_error), walrelay.inbox_text(of_subject), of_headers, of_data
    ) ON CONFLICT (handler, event) DO NOTHING;
    RETURN true;
END
$$;

-- inbox_unpark takes an event away: it was handled, or is discarded. The next of its key gets its turn.
CREATE OR REPLACE FUNCTION walrelay.inbox_unpark(of_number bigint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone record;
BEGIN
    SELECT p.handler, p.key_hash INTO gone FROM walrelay.parked AS p WHERE p.number = of_number;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF gone.key_hash IS NOT NULL THEN
        PERFORM walrelay.inbox_lock_key(gone.handler, gone.key_hash);
    END IF;
    DELETE FROM walrelay.parked AS p WHERE p.number = of_number;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF gone.key_hash IS NOT NULL THEN
        UPDATE walrelay.parked AS p SET state = 'ready', next_attempt_at = clock_timestamp()
        WHERE p.state = 'held' AND p.number = walrelay.inbox_first(gone.handler, gone.key_hash);
    END IF;
    RETURN true;
END
$$;

-- For operators: a failed event is handled again, and then what is held behind it.
CREATE OR REPLACE FUNCTION walrelay.redrive_parked(of_number bigint) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE walrelay.parked AS p
    SET state = 'ready', attempts = 0, next_attempt_at = clock_timestamp()
    WHERE p.number = of_number AND p.state IN ('failed', 'retrying');
    RETURN FOUND;
END
$$;

-- For operators: an event is given up, and what is held behind it is handled.
CREATE OR REPLACE FUNCTION walrelay.discard_parked(of_number bigint) RETURNS boolean
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT walrelay.inbox_unpark(of_number);
$$;

DO $walrelay$
DECLARE
    name regprocedure;
BEGIN
    FOR name IN
        SELECT p.oid FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'walrelay'::regnamespace
          AND p.proname IN ('inbox_first', 'inbox_begin', 'inbox_begin_foreign', 'inbox_lock_key', 'inbox_text', 'inbox_park', 'inbox_unpark', 'redrive_parked', 'discard_parked')
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', name);
    END LOOP;
END
$walrelay$;
