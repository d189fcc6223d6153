// Package checkpoint saves what the next session of a slot has to know: how far
// every event is settled, what each stream has, and the journal.
//
// Input: a connection, and what the relay knows of itself. Output: the row of
// walrelay.progress, and pages of walrelay.journal.
// Promises: the row is saved before the slot is told of the same LSN, so it is
// never behind the slot; only the latest session of a slot saves; a session that
// has begun waits for what an earlier one is writing, and for nothing else. Only
// the relay's reporter saves, and repair while no relay runs. The package must not
// import what reads or publishes events.
package checkpoint

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/journal"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
	"github.com/walrelay/walrelay/sql"
)

// State is what is saved.
type State struct {
	// Session counts the sessions of the slot.
	Session int64
	// SystemID and Timeline are those of the database cluster that the positions
	// belong to (IDENTIFY_SYSTEM).
	SystemID string
	Timeline int32
	// FlushLSN is the LSN below which every event is settled.
	FlushLSN pglogrepl.LSN
	// Streams are the streams, by name.
	Streams map[string]router.StreamState
	// Published is a snapshot: every event of a transaction that had ended then is
	// settled. Empty before the first.
	Published string
	// MessagesUntil is the LSN before which logical messages are read; 0 if none
	// are.
	MessagesUntil pglogrepl.LSN
	// Key is the slot's: it authenticates the positions of messages.
	Key []byte
	// Fresh says that the key is new, and not saved yet.
	Fresh bool
	// HandedOver says that the slot is closed, and who goes on; nil if it is not.
	HandedOver *Handover
}

// Handover is what is known of a writer that has ended: where, and who goes on.
type Handover struct {
	At       time.Time                     `json:"at"`
	SystemID string                        `json:"system_identifier"`
	Slot     string                        `json:"slot"`
	Streams  map[string]router.StreamState `json:"streams"`
	// To is the writer that goes on, once one does: its system identifier and slot.
	To string `json:"to,omitempty"`
}

// Writer names a slot of a database cluster, as messages do.
func Writer(systemID, slot string) string { return systemID + "/" + slot }

// SameStreams reports whether nothing was published since the state.
func (s *State) SameStreams(streams map[string]router.StreamState) bool {
	return maps.EqualFunc(s.Streams, streams, func(a, b router.StreamState) bool {
		return a.Created.Equal(b.Created) && a.LastSequence == b.LastSequence && a.Position == b.Position && a.Repairing == b.Repairing
	})
}

// System identifies a database cluster, as IDENTIFY_SYSTEM does.
type System struct {
	ID       string
	Timeline int32
}

// Origin says where the events come from that are published from the slot: a
// cluster with the ends of its earlier timelines, and the end of its WAL.
func (s *State) Origin(slot string, system System, ended map[int32]pglogrepl.LSN, end pglogrepl.LSN) router.Origin {
	origin := router.Origin{
		SystemID: system.ID, Slot: slot, Timeline: system.Timeline, Ended: make(map[int32]uint64, len(ended)), WAL: uint64(end),
		Key: s.Key, Unsigned: s.Fresh,
	}
	for timeline, lsn := range ended {
		origin.Ended[timeline] = uint64(lsn)
	}
	return origin
}

// Execer is a connection or a transaction.
type Execer interface {
	Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error)
}

// Checkpoint is that of one slot. Safe for concurrent use; Save has one caller at
// a time.
type Checkpoint struct {
	slot string

	mu      sync.Mutex
	state   State
	saved   chan struct{} // closed and made anew when a later LSN is saved
	request func()
}

// Load reads what is saved of a slot; nil if there is nothing.
func Load(ctx context.Context, conn *pgx.Conn, slot string) (*State, error) {
	state, err := scan(conn.QueryRow(ctx, sql.CheckpointLoad, slot))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // nothing saved is no error
	}
	if err != nil {
		return nil, fmt.Errorf("reading walrelay.progress: %w", err)
	}
	return state, state.loadKey(ctx, conn, slot)
}

// keySize is the size of a slot's key, in bytes.
const keySize = 32

// loadKey reads the slot's key; a new one if it has none.
func (s *State) loadKey(ctx context.Context, conn *pgx.Conn, slot string) error {
	err := conn.QueryRow(ctx, "SELECT key FROM walrelay.secrets WHERE slot = $1", slot).Scan(&s.Key)
	if errors.Is(err, pgx.ErrNoRows) {
		s.Key, s.Fresh = make([]byte, keySize), true
		_, err = rand.Read(s.Key)
	}
	if err != nil {
		return fmt.Errorf("reading walrelay.secrets: %w", err)
	}
	return nil
}

// SaveKey saves a key that is new. It comes after the first Save: what the streams
// had before has no digest, and is known by what is saved.
func (c *Checkpoint) SaveKey(ctx context.Context, conn Execer) error {
	state := c.State()
	if !state.Fresh {
		return nil
	}
	tag, err := conn.Exec(ctx, sql.CheckpointKey, c.slot, state.Session, state.Key)
	if err != nil {
		return fmt.Errorf("writing walrelay.secrets: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("writing walrelay.secrets: %w", retry.ErrSuperseded)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Fresh = false
	return nil
}

func scan(row pgx.Row) (*State, error) {
	var s State
	var lsn, until string
	var streams []byte
	if err := row.Scan(&s.Session, &s.SystemID, &s.Timeline, &lsn, &streams, &s.Published, &until, &s.HandedOver); err != nil {
		return nil, err
	}
	var err error
	if s.FlushLSN, err = pglogrepl.ParseLSN(lsn); err != nil {
		return nil, fmt.Errorf("flush_lsn: %w", err)
	}
	if s.MessagesUntil, err = pglogrepl.ParseLSN(until); err != nil {
		return nil, fmt.Errorf("messages_until: %w", err)
	}
	if err := json.Unmarshal(streams, &s.Streams); err != nil {
		return nil, fmt.Errorf("streams: %w", err)
	}
	return &s, nil
}

// WALEnd returns the end of the database's WAL. Asked for while the slot is ours,
// it is past every event that anybody can have published from it.
func WALEnd(ctx context.Context, conn *pgx.Conn) (pglogrepl.LSN, error) {
	var text string
	err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_current_wal_flush_lsn()::text").Scan(&text)
	var lsn pglogrepl.LSN
	if err == nil {
		lsn, err = pglogrepl.ParseLSN(text)
	}
	if err != nil {
		return 0, fmt.Errorf("reading the end of the WAL: %w", err)
	}
	return lsn, nil
}

// Closed is the problem of a slot that was closed at a time.
func Closed(slot string, at time.Time) *problem.Problem {
	return &problem.Problem{
		ID: "handed_over", What: fmt.Sprintf("replication slot %q is closed since %s", slot, at.UTC().Format(time.RFC3339)),
		Why: "its streams were handed over", Fix: `run the relay where they were handed over to; or take them back with "walrelay handover open"`,
	}
}

// Fits says whether the state belongs to the cluster that the slot now lives on,
// whose WAL ends at end: nil, or a *[problem.Problem].
func (s *State) Fits(slot string, system System, end pglogrepl.LSN) error {
	switch {
	case s.HandedOver != nil:
		return Closed(slot, s.HandedOver.At)
	case s.SystemID != system.ID:
		return &problem.Problem{
			ID: "system_changed",
			What: fmt.Sprintf("slot %q was last read in the database cluster with system identifier %s, and this one is %s",
				slot, s.SystemID, system.ID),
			Fix: "connect to the cluster that it was; after pg_upgrade run \"walrelay handover open\"; or see docs/operations.md, \"A database was restored\"",
		}
	case s.FlushLSN > end:
		return &problem.Problem{
			ID:   "database_went_back",
			What: fmt.Sprintf("slot %q was read up to %s, but the database's WAL ends at %s", slot, s.FlushLSN, end),
			Fix:  "the database went back in time: see docs/operations.md, \"A database was restored\"",
		}
	}
	return nil
}

// Begin begins a session of the slot, and returns what is saved and the end of the
// WAL. What an earlier session has not committed by then, it never will: Begin
// waits for what it is writing. A *[problem.Problem] says that what is saved
// belongs to another cluster, or to a later time of it; then nothing is changed.
func Begin(ctx context.Context, conn *pgx.Conn, slot string, system System) (*Checkpoint, pglogrepl.LSN, error) {
	end, err := WALEnd(ctx, conn)
	if err != nil {
		return nil, 0, err
	}
	state, err := scan(conn.QueryRow(ctx, sql.CheckpointBegin, slot, system.ID, system.Timeline, end.String()))
	if errors.Is(err, pgx.ErrNoRows) {
		state, err := Load(ctx, conn, slot)
		if err == nil && state != nil {
			err = state.Fits(slot, system, end)
		}
		if err == nil {
			err = errors.New("beginning a session: walrelay.progress has changed meanwhile")
		}
		return nil, 0, err
	}
	if err != nil {
		return nil, 0, fmt.Errorf("beginning a session in walrelay.progress: %w", err)
	}
	if err := state.loadKey(ctx, conn, slot); err != nil {
		return nil, 0, err
	}
	state.SystemID, state.Timeline = system.ID, system.Timeline
	return &Checkpoint{slot: slot, state: *state, saved: make(chan struct{})}, end, nil
}

// OnRequest says what asks for a save.
func (c *Checkpoint) OnRequest(request func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.request = request
}

// RequestSave asks for a save soon. It does not block.
func (c *Checkpoint) RequestSave() {
	c.mu.Lock()
	request := c.request
	c.mu.Unlock()
	if request != nil {
		request()
	}
}

// State returns what is saved.
func (c *Checkpoint) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Saved returns the LSN that is saved, and a channel that is closed when a later
// one is. It is on the disk of the database: whatever happens, the next session
// reads no event before it.
func (c *Checkpoint) Saved() (pglogrepl.LSN, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.FlushLSN, c.saved
}

// Save saves the state and pages of the journal in one statement.
// [retry.ErrSuperseded] says that the slot has a later session; then nothing is
// saved. The lock of the row that it takes is held for that statement only.
func (c *Checkpoint) Save(ctx context.Context, conn Execer, next State, pages []journal.Page) error {
	streams, err := json.Marshal(next.Streams)
	if err != nil {
		return fmt.Errorf("writing walrelay.progress: %w", err)
	}
	var (
		names, first, last []string
		events             []int32
		entries            [][]byte
		ids                []*string // of each page a JSON array, or null
	)
	for i := range pages {
		page := &pages[i]
		names = append(names, page.Stream)
		first, last = append(first, page.First.String()), append(last, page.Last.String())
		events = append(events, int32(page.Events))
		entries = append(entries, page.Entries)
		list, err := pageIDs(page)
		if err != nil {
			return fmt.Errorf("writing walrelay.journal: %w", err)
		}
		ids = append(ids, list)
	}
	tag, err := conn.Exec(ctx, sql.CheckpointSave, pgx.NamedArgs{
		"slot": c.slot, "session": next.Session, "system_identifier": next.SystemID, "timeline": next.Timeline,
		"flush_lsn": next.FlushLSN.String(), "streams": streams, "published": next.Published,
		"page_streams": names, "page_first": first, "page_last": last, "page_events": events, "page_entries": entries,
		"page_ids": ids,
	})
	if err != nil {
		return fmt.Errorf("writing walrelay.progress: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("writing walrelay.progress: %w", retry.ErrSuperseded)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	later := next.FlushLSN > c.state.FlushLSN
	c.state = next
	if later {
		close(c.saved)
		c.saved = make(chan struct{})
	}
	return nil
}

// pageIDs returns the ids of a page that is no stream's, as a JSON array; nil for any other.
func pageIDs(page *journal.Page) (*string, error) {
	ids, err := page.IDs()
	if err != nil || ids == nil {
		return nil, err
	}
	text, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	return new(string(text)), nil
}
