package sql

import (
	"fmt"
	"strings"
)

// InboxMigrations returns the steps of what handlers keep in their database, one after
// the other; each may be run again.
func InboxMigrations() (string, error) {
	text, err := files.ReadFile("inbox/0001_inbox.sql")
	if err != nil {
		return "", fmt.Errorf("reading migration: %w", err)
	}
	return string(text), nil
}

// InboxGrant returns the statements that let a role run handlers. The keys of positions
// are in the outbox's database, if it is this one.
func InboxGrant(role string) string {
	return strings.ReplaceAll(`
GRANT USAGE ON SCHEMA walrelay TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON walrelay.handlers, walrelay.marks, walrelay.handled, walrelay.parked TO {role};
GRANT EXECUTE ON FUNCTION walrelay.inbox_first, walrelay.inbox_begin, walrelay.inbox_begin_foreign, walrelay.inbox_lock_key, walrelay.inbox_text, walrelay.inbox_park, walrelay.inbox_unpark TO {role};
DO $walrelay$
BEGIN
    IF to_regclass('walrelay.secrets') IS NOT NULL THEN
        GRANT SELECT ON walrelay.secrets TO {role};
    END IF;
END
$walrelay$;
`, "{role}", Ident(role))
}

// InboxGrantOperator returns the statements that let a role see handlers and what they have
// parked, redrive and discard it.
func InboxGrantOperator(role string) string {
	return strings.ReplaceAll(`
GRANT USAGE ON SCHEMA walrelay TO {role};
GRANT SELECT ON walrelay.handlers, walrelay.parked TO {role};
GRANT EXECUTE ON FUNCTION walrelay.redrive_parked, walrelay.discard_parked TO {role};
`, "{role}", Ident(role))
}

// parkedFilter is the condition of those parked events that a filter takes: handler, id, type,
// key, a part of the error, state.
const parkedFilter = `($1 = '' OR handler = $1) AND ($2 = '' OR event_id = $2) AND ($3 = '' OR event_type = $3)
    AND ($4 = '' OR key = $4) AND ($5 = '' OR strpos(last_error, $5) > 0) AND ($6 = '' OR state = $6)`

// Statements for operators of handlers.
const (
	// RoleExists: role.
	RoleExists     = "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)"
	InboxInstalled = "SELECT has_table_privilege(c.oid, 'SELECT') FROM pg_catalog.pg_class AS c WHERE c.oid = to_regclass('walrelay.parked')"
	// ParkedList: the filter, number before, limit.
	ParkedList = `SELECT number, handler, state, event_id, event_type, source, key, stream, sequence, attempts, next_attempt_at, last_error, parked_at, subject
FROM walrelay.parked WHERE ` + parkedFilter + ` AND ($7::bigint = 0 OR number < $7) ORDER BY number DESC LIMIT nullif($8::bigint, 0)`
	// ParkedReasons returns why events of the handler $1, or of all, have failed, of the last 10000: reasons that differ
	// only in numbers and in what is quoted are one.
	ParkedReasons = `SELECT reason, count(*), max(event_id) FROM (
    SELECT event_id, regexp_replace(left(last_error, 400), '"[^"]*"|[0-9]+', '*', 'g') AS reason
    FROM walrelay.parked WHERE state = 'failed' AND ($1 = '' OR handler = $1) ORDER BY number DESC LIMIT 10000
) AS failed GROUP BY reason ORDER BY 2 DESC, 1 LIMIT 10`
	// ParkedContent: number.
	ParkedContent = "SELECT headers, data FROM walrelay.parked WHERE number = $1"
	// ParkedCount: the filter, states.
	ParkedCount = "SELECT count(*) FROM walrelay.parked WHERE " + parkedFilter + " AND state = ANY ($7)"
	// ParkedRedrive and ParkedDiscard: the filter, states, number before. They return how many were
	// changed and the lowest number of the page: the last ones come first, so that
	// none gets its turn because an earlier one goes.
	ParkedRedrive = `SELECT count(*) FILTER (WHERE walrelay.redrive_parked(number)), coalesce(min(number), 0) FROM (` + parkedPage + `) AS page`
	ParkedDiscard = `SELECT count(*) FILTER (WHERE walrelay.discard_parked(number)), coalesce(min(number), 0) FROM (` + parkedPage + `) AS page`
	parkedPage    = `SELECT number FROM walrelay.parked WHERE ` + parkedFilter + ` AND state = ANY ($7) AND ($8::bigint = 0 OR number < $8) ORDER BY number DESC LIMIT 1000`
	// HandlerList returns the handlers, with their partitions summed up, and what each has parked.
	HandlerList = `SELECT h.handler, h.stream, h.types, h.mode, h.partitions, h.process, h.active_since, h.seen_at, h.lag, h.removed, h.last_error, h.last_error_at,
    count(p.number), count(DISTINCT p.key_hash)
FROM (
    SELECT handler, max(stream) AS stream, max(types) AS types, max(mode) AS mode, count(*) FILTER (WHERE partition >= 0) AS partitions,
        coalesce(string_agg(DISTINCT nullif(process, ''), ' '), '') AS process, max(active_since) AS active_since, max(seen_at) AS seen_at,
        sum(lag)::bigint AS lag, sum(removed)::bigint AS removed, max(last_error_at) AS last_error_at,
        coalesce((array_agg(last_error ORDER BY last_error_at DESC NULLS LAST))[1], '') AS last_error
    FROM walrelay.handlers GROUP BY handler
) AS h LEFT JOIN walrelay.parked AS p ON p.handler = h.handler
GROUP BY h.handler, h.stream, h.types, h.mode, h.partitions, h.process, h.active_since, h.seen_at, h.lag, h.removed, h.last_error, h.last_error_at
ORDER BY h.handler`
	// HandlerRename: from, to. One transaction; it fails if there are both.
	HandlerRename = `WITH parked AS (UPDATE walrelay.parked SET handler = $2 WHERE handler = $1), marks AS (UPDATE walrelay.marks SET handler = $2 WHERE handler = $1),
    handled AS (UPDATE walrelay.handled SET handler = $2 WHERE handler = $1), named AS (UPDATE walrelay.handlers SET handler = $2, epoch = epoch + 1 WHERE handler = $1 RETURNING 1)
SELECT count(*) FROM named`
	// HandlerRemove: handler. One transaction.
	HandlerRemove = `WITH parked AS (DELETE FROM walrelay.parked WHERE handler = $1 RETURNING 1), marks AS (DELETE FROM walrelay.marks WHERE handler = $1),
    handled AS (DELETE FROM walrelay.handled WHERE handler = $1), gone AS (DELETE FROM walrelay.handlers WHERE handler = $1 RETURNING 1)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM parked)`
)

// Statements of handlers. Arrays are given as text, which every driver has.
const (
	// InboxBegin: handler, stream, writer, timeline, where it began, buckets, lowest, highest, keys, patience.
	InboxBegin = "SELECT walrelay.inbox_begin($1, $2, $3, $4, $5, $6::smallint[], $7::text[], $8::text[], $9::bytea[], $10)"
	// InboxBeginForeign: handler, event, key, patience.
	InboxBeginForeign = "SELECT walrelay.inbox_begin_foreign($1, $2, $3, $4)"
	InboxPark         = "SELECT walrelay.inbox_park($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
	InboxUnpark       = "SELECT walrelay.inbox_unpark($1)"
	// InboxActivate: handler, partition, stream, types with line feeds between them, mode, process.
	InboxActivate = `INSERT INTO walrelay.handlers AS h (handler, partition, stream, types, mode, epoch, process, active_since, seen_at)
VALUES ($1, $2, $3, string_to_array(walrelay.inbox_text($4), E'\n'), $5, 1, walrelay.inbox_text($6), now(), now())
ON CONFLICT (handler, partition) DO UPDATE SET stream = $3, types = excluded.types, mode = $5, epoch = h.epoch + 1, process = excluded.process, active_since = now(), seen_at = now()
RETURNING epoch`
	// InboxMarks: handler, stream, writer, the first bucket, buckets.
	InboxMarks = `INSERT INTO walrelay.marks (handler, stream, writer, bucket, position)
SELECT $1, $2, $3, n, '' FROM generate_series($4::integer, $4::integer + $5::integer - 1) AS n
ON CONFLICT DO NOTHING`
	// InboxKnown: handler, stream, writer, timeline, where it began, buckets, positions. It returns the numbers of
	// the positions, from 1, that a mark says were handled; what moves a mark is in inbox_begin.
	InboxKnown = `SELECT u.n FROM unnest($6::smallint[], $7::text[]) WITH ORDINALITY AS u (bucket, position, n)
JOIN walrelay.marks AS m ON m.handler = $1 AND m.stream = $2 AND m.writer = $3 AND m.bucket = u.bucket
WHERE NOT (m.timeline = $4 AND m.position < u.position OR m.timeline < $4 AND (m.position < u.position OR u.position >= $5))`
	// InboxFence: handler, partition, epoch, patience in milliseconds. It returns 1 if the epoch is
	// the present one, and keeps the next one from beginning until the transaction ends.
	InboxFence = `SELECT CASE WHEN EXISTS (SELECT FROM walrelay.handlers WHERE handler = $1 AND partition = $2 AND epoch = $3 FOR SHARE)
    AND set_config('idle_in_transaction_session_timeout', $4, true) <> '' THEN 1 ELSE 0 END`
	// InboxPatience: milliseconds. It returns a number.
	InboxPatience = "SELECT length(set_config('idle_in_transaction_session_timeout', $1, true))"
	// InboxSeen: handler, partition, lag, removed, last error.
	InboxSeen = `UPDATE walrelay.handlers SET seen_at = now(), lag = $3, removed = removed + $4,
    last_error = CASE WHEN $5::bytea IS NULL THEN last_error ELSE walrelay.inbox_text($5) END, last_error_at = CASE WHEN $5::bytea IS NULL THEN last_error_at ELSE now() END
WHERE handler = $1 AND partition = $2`
	// InboxBlocked: handler.
	InboxBlocked = "SELECT DISTINCT key_hash FROM walrelay.parked WHERE handler = $1 AND key_hash IS NOT NULL"
	// InboxAnyDue and InboxDue: handler.
	InboxAnyDue = "SELECT EXISTS (SELECT FROM walrelay.parked WHERE handler = $1 AND state IN ('retrying', 'ready') AND next_attempt_at <= now() ORDER BY next_attempt_at, number LIMIT 1)"
	InboxDue    = `SELECT number, attempts, subject, headers, data, stream, sequence FROM walrelay.parked
WHERE handler = $1 AND state IN ('retrying', 'ready') AND next_attempt_at <= now()
ORDER BY next_attempt_at, number LIMIT 1 FOR UPDATE SKIP LOCKED`
	// InboxRetry: number, state, attempts, milliseconds, error.
	InboxRetry = `UPDATE walrelay.parked SET state = $2, attempts = $3, last_error = walrelay.inbox_text($5),
    next_attempt_at = clock_timestamp() + make_interval(secs => $4::bigint / 1000.0)
WHERE number = $1 AND state IN ('retrying', 'ready')`
	// InboxForget: handler, seconds.
	InboxForget = `DELETE FROM walrelay.handled WHERE (handler, event) IN (
    SELECT handler, event FROM walrelay.handled
    WHERE handler = $1 AND handled_at < now() - make_interval(secs => $2) LIMIT 5000)`
	InboxKeys = "SELECT slot, key FROM walrelay.secrets"
)
