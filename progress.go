package walrelay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/router"
)

// progress is the row of walrelay.progress of one slot: what the relay knows
// of itself and of its streams, for the next run. It is written before the
// slot is told of the same LSN, so that it is never behind the slot.
type progress struct {
	systemID string
	timeline int32
	flushLSN replication.LSN
	streams  map[string]router.StreamState
}

// errSuperseded says that another relay has written further progress.
var errSuperseded = errors.New("another relay has taken over the slot")

// loadProgress reads the row of the slot; nil when there is none.
func loadProgress(ctx context.Context, conn *pgx.Conn, slot string) (*progress, error) {
	var p progress
	var lsn string
	var streams []byte
	err := conn.QueryRow(ctx,
		"SELECT system_identifier, timeline, flush_lsn::text, streams FROM walrelay.progress WHERE slot = $1", slot).
		Scan(&p.systemID, &p.timeline, &lsn, &streams)
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
		return &replication.ConfigurationError{
			What: fmt.Sprintf("slot %q was last read in the database cluster with system identifier %s, and this one is %s",
				slot, p.systemID, system.ID),
			Remedy: "connect to the cluster that it was, or see docs/operations.md, \"A database was restored\"",
		}
	case p.flushLSN > wal:
		return &replication.ConfigurationError{
			What: fmt.Sprintf("slot %q was read up to %s, but the database's write-ahead log ends at %s",
				slot, p.flushLSN, wal),
			Remedy: "the database went back in time: see docs/operations.md, \"A database was restored\"",
		}
	}
	return nil
}

// save writes the row, unless another relay has written a later one.
func (p *progress) save(ctx context.Context, conn *pgx.Conn, slot string) error {
	streams, err := json.Marshal(p.streams)
	if err != nil {
		return fmt.Errorf("writing walrelay.progress: %w", err)
	}
	tag, err := conn.Exec(ctx, `
		INSERT INTO walrelay.progress AS p (slot, system_identifier, timeline, flush_lsn, streams, updated_at)
		VALUES ($1, $2, $3, $4::text::pg_lsn, $5, now())
		ON CONFLICT (slot) DO UPDATE
		SET system_identifier = excluded.system_identifier,
		    timeline = excluded.timeline,
		    flush_lsn = excluded.flush_lsn,
		    streams = excluded.streams,
		    updated_at = excluded.updated_at
		WHERE p.flush_lsn <= excluded.flush_lsn`,
		slot, p.systemID, p.timeline, p.flushLSN.String(), streams)
	if err != nil {
		return fmt.Errorf("writing walrelay.progress: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("writing walrelay.progress: %w", errSuperseded)
	}
	return nil
}

// sameStreams reports whether nothing was published since p.
func (p *progress) sameStreams(streams map[string]router.StreamState) bool {
	return maps.EqualFunc(p.streams, streams, func(a, b router.StreamState) bool {
		return a.Created.Equal(b.Created) && a.LastSequence == b.LastSequence && a.Position == b.Position
	})
}
