package walrelay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
	"github.com/walrelay/walrelay/sql"
)

// progress is the row of walrelay.progress of one slot: what the relay knows
// of itself and of its streams, for the next run. It is written before the
// slot is told of the same LSN, so that it is never behind the slot; and with it
// the journal of what the streams have got.
type progress struct {
	session  int64
	systemID string
	timeline int32
	flushLSN replication.LSN
	streams  map[string]router.StreamState
	// published is a snapshot: every event of a transaction that it sees has an
	// outcome. Empty before the first.
	published string
	// noted says that the row of walrelay.published of that is written.
	noted bool
	// outboxes describes the outbox tables, for walrelay.event_status.
	outboxes []outboxColumns
}

// outboxColumns says where an outbox table has what.
type outboxColumns struct {
	Table string `json:"table"`
	ID    string `json:"id"`
	// Xact is the column of the inserting transaction; empty without one.
	Xact string `json:"xact,omitempty"`
}

// execer is a connection or a transaction.
type execer interface {
	Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error)
}

// loadProgress reads the row of the slot; nil when there is none.
func loadProgress(ctx context.Context, conn *pgx.Conn, slot string) (*progress, error) {
	var p progress
	var lsn string
	var streams []byte
	err := conn.QueryRow(ctx,
		"SELECT session, system_identifier, timeline, flush_lsn::text, streams, coalesce(published::text, '') FROM walrelay.progress WHERE slot = $1", slot).
		Scan(&p.session, &p.systemID, &p.timeline, &lsn, &streams, &p.published)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // no row is no error
	}
	if err != nil {
		return nil, fmt.Errorf("reading walrelay.progress: %w", err)
	}
	if p.flushLSN, err = pglogrepl.ParseLSN(lsn); err != nil {
		return nil, fmt.Errorf("reading walrelay.progress: %w", err)
	}
	if err := json.Unmarshal(streams, &p.streams); err != nil {
		return nil, fmt.Errorf("reading walrelay.progress: streams: %w", err)
	}
	return &p, nil
}

// walEnd returns the end of the database's write-ahead log. Asked for while the
// slot is ours, it is past every event that anybody can have published from it.
func walEnd(ctx context.Context, conn *pgx.Conn) (replication.LSN, error) {
	var text string
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&text); err != nil {
		return 0, fmt.Errorf("reading the end of the write-ahead log: %w", err)
	}
	lsn, err := pglogrepl.ParseLSN(text)
	if err != nil {
		return 0, fmt.Errorf("reading the end of the write-ahead log: %w", err)
	}
	return lsn, nil
}

// fits says whether what was recorded belongs to the system that the slot now
// lives on, whose write-ahead log ends at wal.
func (p *progress) fits(slot string, system replication.System, wal replication.LSN) error {
	switch {
	case p.systemID != system.ID:
		return &problem.Problem{
			ID: "system_changed",
			What: fmt.Sprintf("slot %q was last read in the database cluster with system identifier %s, and this one is %s",
				slot, p.systemID, system.ID),
			Fix: "connect to the cluster that it was, or see docs/operations.md, \"A database was restored\"",
		}
	case p.flushLSN > wal:
		return &problem.Problem{
			ID: "database_went_back",
			What: fmt.Sprintf("slot %q was read up to %s, but the database's write-ahead log ends at %s",
				slot, p.flushLSN, wal),
			Fix: "the database went back in time: see docs/operations.md, \"A database was restored\"",
		}
	}
	return nil
}

// takeOver begins a session of the slot and returns its number. What an earlier
// session has not committed by then, it never will.
func takeOver(ctx context.Context, conn *pgx.Conn, slot string, system replication.System) (session int64, err error) {
	err = conn.QueryRow(ctx, `
		INSERT INTO walrelay.progress AS p (slot, system_identifier, timeline, flush_lsn, session)
		VALUES ($1, $2, $3, '0/0', 1)
		ON CONFLICT (slot) DO UPDATE
		SET session = p.session + 1
		RETURNING session`, slot, system.ID, system.Timeline).Scan(&session)
	if err != nil {
		return 0, fmt.Errorf("writing walrelay.progress: %w", err)
	}
	return session, nil
}

// save writes the row and pages of the journal, at once, unless the slot has a
// later session.
func (p *progress) save(ctx context.Context, conn execer, slot string, pages []router.JournalPage) error {
	streams, err := json.Marshal(p.streams)
	if err != nil {
		return fmt.Errorf("writing walrelay.progress: %w", err)
	}
	outboxes, err := json.Marshal(p.outboxes)
	if err != nil {
		return fmt.Errorf("writing walrelay.progress: %w", err)
	}
	var (
		names, first, last []string
		events             []int32
		entries            [][]byte
	)
	for i := range pages {
		page := &pages[i]
		names = append(names, page.Stream)
		first, last = append(first, page.First.String()), append(last, page.Last.String())
		events = append(events, int32(page.Events))
		entries = append(entries, page.Entries)
	}
	tag, err := conn.Exec(ctx, sql.JournalSave,
		slot, p.session, p.systemID, p.timeline, p.flushLSN.String(), streams, p.published, outboxes,
		names, first, last, events, entries, p.published != "" && !p.noted)
	if err != nil {
		return fmt.Errorf("writing walrelay.progress: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("writing walrelay.progress: %w", retry.ErrSuperseded)
	}
	p.noted = true
	return nil
}

// sameStreams reports whether nothing was published since p.
func (p *progress) sameStreams(streams map[string]router.StreamState) bool {
	return maps.EqualFunc(p.streams, streams, func(a, b router.StreamState) bool {
		return a.Created.Equal(b.Created) && a.LastSequence == b.LastSequence && a.Position == b.Position && a.Repairing == b.Repairing
	})
}
