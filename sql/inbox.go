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
DO $walrelay$
BEGIN
    IF to_regclass('walrelay.secrets') IS NOT NULL THEN
        GRANT SELECT ON walrelay.secrets TO {role};
    END IF;
END
$walrelay$;
`, "{role}", Ident(role))
}

// Statements of handlers. Arrays are given as text, which every driver has.
const (
	// InboxBegin: handler, stream, writer, buckets, lowest, highest, keys, patience.
	InboxBegin = "SELECT walrelay.inbox_begin($1, $2, $3, $4::smallint[], $5::text[], $6::text[], $7::bytea[], $8)"
	// InboxBeginForeign: handler, event, key, patience.
	InboxBeginForeign = "SELECT walrelay.inbox_begin_foreign($1, $2, $3, $4)"
	InboxPark         = "SELECT walrelay.inbox_park($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
	InboxUnpark       = "SELECT walrelay.inbox_unpark($1)"
	// InboxActivate: handler, stream, types, mode, process.
	InboxActivate = `INSERT INTO walrelay.handlers AS h (handler, stream, types, mode, epoch, process, active_since, seen_at)
VALUES ($1, $2, $3::text[], $4, 1, $5, now(), now())
ON CONFLICT (handler) DO UPDATE SET stream = $2, types = $3::text[], mode = $4, epoch = h.epoch + 1, process = $5, active_since = now(), seen_at = now()
RETURNING epoch`
	// InboxMarks: handler, stream, writer, buckets.
	InboxMarks = `INSERT INTO walrelay.marks (handler, stream, writer, bucket, position)
SELECT $1, $2, $3, n, '' FROM generate_series(0, $4::integer - 1) AS n
ON CONFLICT DO NOTHING`
	// InboxFence: handler, epoch, patience in milliseconds. It returns 1 if the epoch is
	// the present one, and keeps the next one from beginning until the transaction ends.
	InboxFence = `SELECT CASE WHEN EXISTS (SELECT FROM walrelay.handlers WHERE handler = $1 AND epoch = $2 FOR SHARE)
    AND set_config('idle_in_transaction_session_timeout', $3, true) <> '' THEN 1 ELSE 0 END`
	// InboxCurrent is the same, and keeps nothing from beginning.
	InboxCurrent = `SELECT CASE WHEN EXISTS (SELECT FROM walrelay.handlers WHERE handler = $1 AND epoch = $2)
    AND set_config('idle_in_transaction_session_timeout', $3, true) <> '' THEN 1 ELSE 0 END`
	// InboxSeen: handler, epoch, lag, removed, last error.
	InboxSeen = `UPDATE walrelay.handlers SET seen_at = now(), lag = $3, removed = removed + $4,
    last_error = coalesce($5, last_error), last_error_at = CASE WHEN $5::text IS NULL THEN last_error_at ELSE now() END
WHERE handler = $1 AND epoch = $2`
	// InboxBlocked: handler.
	InboxBlocked = "SELECT DISTINCT key_hash FROM walrelay.parked WHERE handler = $1 AND key_hash IS NOT NULL"
	// InboxDue: handler.
	InboxDue = `SELECT number, attempts, subject, headers, data, stream, sequence FROM walrelay.parked
WHERE handler = $1 AND state IN ('retrying', 'ready') AND next_attempt_at <= now()
ORDER BY next_attempt_at, number LIMIT 1 FOR UPDATE SKIP LOCKED`
	// InboxRetry: number, state, attempts, milliseconds, error.
	InboxRetry = `UPDATE walrelay.parked SET state = $2, attempts = $3, last_error = $5,
    next_attempt_at = clock_timestamp() + make_interval(secs => $4::bigint / 1000.0)
WHERE number = $1 AND state IN ('retrying', 'ready')`
	// InboxForget: handler, seconds.
	InboxForget = `DELETE FROM walrelay.handled WHERE (handler, event) IN (
    SELECT handler, event FROM walrelay.handled
    WHERE handler = $1 AND handled_at < now() - make_interval(secs => $2) LIMIT 5000)`
	InboxKeys = "SELECT slot, key FROM walrelay.secrets"
)
