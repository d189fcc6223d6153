package retry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/sql"
)

// State says why an event is in the delay table.
type State string

// The states of events in the delay table.
const (
	Scheduled State = "scheduled"
	Retrying  State = "retrying"
	Held      State = "held"
	Failed    State = "failed"
	Discarded State = "discarded"
)

// ErrSuperseded says that another relay has taken over the slot.
var ErrSuperseded = errors.New("another relay has taken over the slot")

const (
	// maxFailures is how many attempts are remembered with an event.
	maxFailures = 20
	// maxError bounds the text of an attempt.
	maxError = 2000
	// maxBatch and maxBatchBytes bound what one statement adds.
	maxBatch      = 1000
	maxBatchBytes = 8 << 20
)

// Entry is an event on its way into the delay table.
type Entry struct {
	Event *event.Event
	State State
	// Wait is in how long a retrying event is due.
	Wait time.Duration
	// Attempts, Failures and the last error are those of a failed attempt; of
	// any other entry, what the event brings with it.
	Attempts int
	Failures []event.Failure
	// Kind and Content are set for what cannot be decoded.
	Kind    string
	Content []byte
}

// NewFailure returns the entry of an event that could not be published.
func NewFailure(ev *event.Event, policy Policy, reason error) Entry {
	e := Entry{Event: ev, State: Retrying, Attempts: 1}
	if ev.Delay != nil {
		e.Attempts += ev.Delay.Attempts
		e.Failures = ev.Delay.Failures
	}
	e.Failures = append(slices.Clip(e.Failures), event.Failure{At: time.Now().UTC(), Error: clean(reason.Error())})
	e.Failures = e.Failures[max(0, len(e.Failures)-maxFailures):]
	if policy.Exhausted(e.Attempts, ev.MaxRetries) {
		e.State = Failed
	} else {
		e.Wait = policy.Delay(e.Attempts)
	}
	return e
}

// NewEntry returns the entry of an event that waits without having failed.
func NewEntry(ev *event.Event, state State) Entry {
	e := Entry{Event: ev, State: state}
	if ev.Delay != nil {
		e.Attempts, e.Failures = ev.Delay.Attempts, ev.Delay.Failures
	}
	return e
}

// clean makes a text that Postgres takes.
func clean(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if len(text) > maxError {
		text = strings.ToValidUTF8(text[:maxError], "") + "…"
	}
	return text
}

// Store writes to the delay table of one slot, as one session of it. Safe for
// concurrent use; what several want to write waits for its turn.
type Store struct {
	cfg StoreConfig

	mu   sync.Mutex
	conn *pgx.Conn // for Add; nil until the first

	// wake tells the timer that an event is due at another time. Capacity 1,
	// never closed.
	wake chan struct{}
	next time.Time // when the next event is due, as far as is known; guarded by mu
}

// StoreConfig says what a store belongs to.
type StoreConfig struct {
	// Connect opens a connection to the database, which synchronously commits.
	Connect func(context.Context) (*pgx.Conn, error)
	Slot    string
	// Session of the slot: once walrelay.progress has a later one, nothing is
	// written any more.
	Session int64
	// FailedHolds says that a failed event goes on holding its key.
	FailedHolds bool
}

// NewStore returns a store. It connects when something is to be written.
func NewStore(cfg StoreConfig) *Store {
	return &Store{cfg: cfg, wake: make(chan struct{}, 1)}
}

// Prefix is the prefix of the logical messages of a slot.
func Prefix(slot string) string { return "walrelay." + slot }

// Close ends the connection.
func (s *Store) Close(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	if err := s.conn.Close(ctx); err != nil {
		return fmt.Errorf("closing the connection of the delay table: %w", err)
	}
	return nil
}

// Add puts events into the table and blocks until they are committed. Events
// that are there already stay as they are.
func (s *Store) Add(ctx context.Context, entries []Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(entries) > 0 {
		n, bytes := 0, 0
		for n < len(entries) && n < maxBatch && bytes < maxBatchBytes {
			bytes += entries[n].Event.Size() + len(entries[n].Content)
			n++
		}
		err := s.add(ctx, entries[:n])
		if err != nil && s.conn != nil && s.conn.IsClosed() && ctx.Err() == nil {
			// The connection had been lost before; adding twice does no harm.
			s.conn = nil
			err = s.add(ctx, entries[:n])
		}
		if err != nil {
			return fmt.Errorf("writing %d events to walrelay.delayed: %w", n, err)
		}
		entries = entries[n:]
	}
	return nil
}

func (s *Store) add(ctx context.Context, entries []Entry) error {
	if s.conn == nil || s.conn.IsClosed() {
		conn, err := s.cfg.Connect(ctx)
		if err != nil {
			return err
		}
		s.conn = conn
	}
	rows, keys, err := columns(entries, s.cfg.FailedHolds)
	if err != nil {
		return err
	}
	// One round trip, one transaction.
	var batch pgx.Batch
	var session int64
	var due *float64
	owned := false
	batch.Queue(sql.DelayOwner, s.cfg.Slot, s.cfg.Session).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&session)
		owned = err == nil
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	batch.Queue(sql.DelayInsert, append([]any{s.cfg.Slot, s.cfg.Session}, rows...)...).QueryRow(func(row pgx.Row) error { return row.Scan(&due) })
	if len(keys) > 0 {
		batch.Queue(sql.DelayHold, s.cfg.Slot, s.cfg.Session, keys)
	}
	if err := s.conn.SendBatch(ctx, &batch).Close(); err != nil {
		return err
	}
	if !owned {
		return ErrSuperseded
	}
	if due != nil {
		at := time.Now().Add(time.Duration(*due * float64(time.Second)))
		if s.next.IsZero() || at.Before(s.next) {
			s.next = at
			select {
			case s.wake <- struct{}{}:
			default:
			}
		}
	}
	return nil
}

// columns turns entries into the arrays of the statement, and lists the keys
// that they hold.
func columns(entries []Entry, failedHolds bool) (rows []any, keys []int64, err error) {
	var (
		position, origin, state, id, typ, source, schema, table, failures, kind []string
		partitionKey, lastError                                                 []*string
		keyHash                                                                 []*int64
		due                                                                     []*time.Time
		wait                                                                    []float64
		attempts                                                                []int32
		maxRetries                                                              []*int32
		content                                                                 [][]byte
	)
	for i := range entries {
		e := &entries[i]
		ev := e.Event
		position = append(position, ev.Position.String())
		origin = append(origin, ev.Origin().String())
		state = append(state, string(e.State))
		id, typ, source = append(id, ev.ID), append(typ, ev.Type), append(source, ev.Source)
		schema, table = append(schema, ev.Schema), append(table, ev.Table)
		wait = append(wait, e.Wait.Seconds())
		attempts = append(attempts, int32(e.Attempts))
		var at *time.Time
		if e.State == Scheduled {
			at = &ev.ScheduledAt
		}
		due = append(due, at)
		var retries *int32
		if ev.MaxRetries >= 0 {
			n := int32(ev.MaxRetries)
			retries = &n
		}
		maxRetries = append(maxRetries, retries)
		var key *string
		var hash *int64
		if ev.PartitionKey != "" {
			key = &ev.PartitionKey
			h := KeyHash(ev.PartitionKey)
			hash = &h
			if e.State == Retrying || e.State == Held || e.State == Failed && failedHolds {
				keys = append(keys, h)
			}
		}
		partitionKey, keyHash = append(partitionKey, key), append(keyHash, hash)
		var last *string
		list := e.Failures
		if n := len(list); n > 0 {
			last = &list[n-1].Error
		} else {
			list = []event.Failure{}
		}
		lastError = append(lastError, last)
		text, err := json.Marshal(list)
		if err != nil {
			return nil, nil, fmt.Errorf("writing the failures of event %q: %w", ev.ID, err)
		}
		failures = append(failures, string(text))
		body, what := e.Content, e.Kind
		if what == "" {
			what = "event"
			body = ev.AppendJSON(nil)
		}
		kind, content = append(kind, what), append(content, body)
	}
	return []any{
		position, origin, state, due, wait, id, typ, source, partitionKey, keyHash, schema, table,
		attempts, maxRetries, lastError, failures, kind, content,
	}, keys, nil
}

// Load reads, over a connection that may be used for it, which keys are held,
// and which positions from lsn on are in the table already, and in which state.
// It then marks the write-ahead log with the session's number.
func Load(ctx context.Context, conn *pgx.Conn, slot string, session int64, lsn uint64) (keys []int64, positions map[event.Position]State, err error) {
	rows, err := conn.Query(ctx, sql.DelayKeys, slot)
	if err == nil {
		keys, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading walrelay.keys: %w", err)
	}
	rows, err = conn.Query(ctx, sql.DelayPositions, slot, hexLSN(lsn))
	if err != nil {
		return nil, nil, fmt.Errorf("reading walrelay.delayed: %w", err)
	}
	positions = make(map[event.Position]State)
	var text, state string
	if _, err := pgx.ForEachRow(rows, []any{&text, &state}, func() error {
		position, err := event.ParsePosition(text)
		positions[position] = State(state)
		return err
	}); err != nil {
		return nil, nil, fmt.Errorf("reading walrelay.delayed: %w", err)
	}
	if _, err := conn.Exec(ctx, sql.DelayMarker, Prefix(slot), Marker(session)); err != nil {
		return nil, nil, fmt.Errorf("marking the write-ahead log: %w", err)
	}
	return keys, positions, nil
}

// Marker is the text of the marker of a session.
func Marker(session int64) string { return fmt.Sprintf("session %d", session) }

// hexLSN writes an LSN as positions do.
func hexLSN(lsn uint64) string { return fmt.Sprintf("%016X", lsn) }
