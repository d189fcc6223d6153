package retry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/sql"
)

// ErrSuperseded says that another relay has taken over the slot.
var ErrSuperseded = errors.New("another relay has taken over the slot")

const (
	// maxBatch and maxBatchBytes bound what one statement adds.
	maxBatch      = 1000
	maxBatchBytes = 8 << 20
	// lockTimeout is how long a statement waits for a lock of somebody else. It is
	// then tried again: meanwhile a relay that takes over need not wait for it.
	lockTimeout = 2 * time.Second
)

// Config says what a table belongs to, and with what it works.
type Config struct {
	// Connect opens a connection to the database whose commits are on disk when
	// they return.
	Connect func(context.Context) (*pgx.Conn, error)
	Slot    string
	// Session of the slot: once walrelay.progress has a later one, nothing is
	// written any more.
	Session int64
	// FailedBlocks says that a failed event goes on blocking its key.
	FailedBlocks bool

	Frontier   Frontier
	Checkpoint Checkpoint
	Observe    Observer
}

// Frontier tells below which LSN every event is settled.
type Frontier interface {
	LSN() pglogrepl.LSN
	Moved() <-chan struct{}
}

// Checkpoint tells what of the frontier is saved.
type Checkpoint interface {
	// Saved returns the LSN that is saved, and a channel that is closed when a
	// later one is.
	Saved() (pglogrepl.LSN, <-chan struct{})
	// RequestSave asks for the frontier to be saved soon. It does not block.
	RequestSave()
}

// Observer hears what the table does. Its methods must not block.
type Observer interface {
	// Emitted says by how much each emitted event was late.
	Emitted(late []time.Duration)
	// Counted says how many events are in each state, how many keys are blocked,
	// and for how many seconds the oldest due event has been due.
	Counted(states map[State]int64, keys int, oldest float64)
	// Blocked says that somebody's locks keep the table waiting, for how long, and
	// who that may be. It is said again and again until Unblocked. Adding says that
	// an event cannot be written, so that no later one is published.
	Blocked(adding bool, since time.Duration, by []Blocker)
	Unblocked(adding bool)
}

// Blocker is a session that holds locks on the delay table.
type Blocker struct {
	PID         int     `db:"pid"`
	Role        string  `db:"role"`
	Application string  `db:"application"`
	Seconds     float64 `db:"seconds"` // of its transaction; 0 if that is not known
	Modes       string  `db:"modes"`
}

func (b Blocker) String() string {
	text := fmt.Sprintf("pid %d of role %q", b.PID, b.Role)
	if b.Application != "" {
		text += fmt.Sprintf(" (%s)", clean(b.Application, 64))
	}
	if b.Seconds > 0 {
		text += fmt.Sprintf(", in a transaction for %s", (time.Duration(b.Seconds) * time.Second).String())
	}
	return text
}

// Table is the delay table of one slot, for one session of it. Add is safe for
// concurrent use, also beside Run.
type Table struct {
	cfg  Config
	keys *Keys

	mu        sync.Mutex
	conn      *pgx.Conn                          // for Add, emission and listening; nil until the first
	wanted    atomic.Int32                       // how many want it, beside who listens
	listening atomic.Pointer[context.CancelFunc] // lets go of it
	idle      wait.Signal                        // nobody wants it any more

	dueMu sync.Mutex
	due   time.Time // when the next event is due, as far as is known

	wake     wait.Signal // an event is due earlier
	changed  wait.Signal // somebody has notified the channel walrelay
	truncate wait.Signal // walrelay.emitted has rows

	// The rest belongs to the emitting goroutine of Run.
	emitting []pglogrepl.LSN // ends of the last emissions, in order
	emitted  int             // rows since walrelay.emitted was emptied
	emptied  time.Time       // when that was
	stalled  time.Time       // since when due events cannot be emitted
	blamed   time.Time       // when it was last asked who is in the way

	nextCount time.Time // Count only
}

// Open reads, over a connection that is free for it, which keys are blocked and
// which positions from passed on are in the table already, and in which state. It
// then marks the WAL with the session's number: what earlier sessions have emitted
// stands before the marker.
func Open(ctx context.Context, conn *pgx.Conn, cfg Config, passed pglogrepl.LSN) (*Table, map[event.Position]State, error) {
	rows, err := conn.Query(ctx, sql.DelayKeys, cfg.Slot)
	var hashes []int64
	if err == nil {
		hashes, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading walrelay.keys: %w", err)
	}
	known := make(map[event.Position]State)
	rows, err = conn.Query(ctx, sql.DelayPositions, cfg.Slot, hexLSN(passed))
	if err == nil {
		var text, state string
		_, err = pgx.ForEachRow(rows, []any{&text, &state}, func() error {
			position, err := event.ParsePosition(text)
			known[position] = State(state)
			return err
		})
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading walrelay.delayed: %w", err)
	}
	if _, err := conn.Exec(ctx, sql.DelayMarker, cfg.Slot, Marker(cfg.Session)); err != nil {
		return nil, nil, fmt.Errorf("marking the WAL: %w", err)
	}
	return &Table{
		cfg: cfg, keys: NewKeys(hashes), wake: wait.NewSignal(), changed: wait.NewSignal(), truncate: wait.NewSignal(), idle: wait.NewSignal(),
	}, known, nil
}

// Keys returns the blocked keys.
func (t *Table) Keys() *Keys { return t.keys }

// Marker is the text of the marker of a session.
func Marker(session int64) string { return fmt.Sprintf("session %d", session) }

// hexLSN writes an LSN as positions do.
func hexLSN(lsn pglogrepl.LSN) string { return fmt.Sprintf("%016X", uint64(lsn)) }

// Close ends the connection. It is called when nothing else is any more.
func (t *Table) Close(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return nil
	}
	if err := t.conn.Close(ctx); err != nil {
		return fmt.Errorf("closing the connection of the delay table: %w", err)
	}
	return nil
}

// Add puts events into the table and blocks until they are committed, also while
// somebody else's locks keep it waiting. Events that are there already stay as
// they are. [ErrSuperseded] says that the slot has a later session.
//
// An entry that Postgres refuses for what it is, is written in a plainer form, in the
// end as a failed event: Add changes that entry, and its State says so.
func (t *Table) Add(ctx context.Context, entries []Entry) error {
	for len(entries) > 0 {
		n, bytes := 0, 0
		for n < len(entries) && n < maxBatch && bytes < maxBatchBytes {
			bytes += entries[n].Event.Size() + len(entries[n].Content)
			n++
		}
		if err := t.addTaken(ctx, entries[:n]); err != nil {
			return fmt.Errorf("writing %d events to walrelay.delayed: %w", n, err)
		}
		entries = entries[n:]
	}
	return nil
}

// addTaken adds a batch and finds the entries in it that the table refuses.
func (t *Table) addTaken(ctx context.Context, entries []Entry) error {
	err := t.addBatch(ctx, entries)
	if !refuses(err) {
		return err
	}
	if n := len(entries); n > 1 {
		if err := t.addTaken(ctx, entries[:n/2]); err != nil {
			return err
		}
		return t.addTaken(ctx, entries[n/2:])
	}
	for _, form := range plainForms {
		form(&entries[0], err)
		if err = t.addBatch(ctx, entries); !refuses(err) {
			return err
		}
	}
	return err
}

func (t *Table) addBatch(ctx context.Context, entries []Entry) error {
	columns, err := newColumns(entries, t.cfg.FailedBlocks)
	if err != nil {
		return err
	}
	started := time.Now()
	blocked, again := false, false
	for {
		err := t.locked(ctx, func(conn *pgx.Conn) error {
			err := t.add(ctx, conn, columns)
			if isLockTimeout(err) {
				t.cfg.Observe.Blocked(true, time.Since(started), t.blockers(ctx, conn))
			}
			return err
		})
		switch {
		case isLockTimeout(err):
			blocked = true
			continue
		case err != nil && errors.Is(err, errConnectionLost) && !again && ctx.Err() == nil:
			// It had been lost before; adding twice does no harm.
			again = true
			continue
		case blocked:
			t.cfg.Observe.Unblocked(true)
		}
		return err
	}
}

// errConnectionLost says that the connection is closed.
var errConnectionLost = errors.New("the connection is lost")

// locked runs f with the connection, which nobody else uses meanwhile.
func (t *Table) locked(ctx context.Context, f func(*pgx.Conn) error) error {
	t.wanted.Add(1)
	if stop := t.listening.Load(); stop != nil {
		(*stop)()
	}
	t.mu.Lock()
	defer func() {
		t.mu.Unlock()
		if t.wanted.Add(-1) == 0 {
			t.idle.Send()
		}
	}()
	if err := t.open(ctx); err != nil {
		return err
	}
	err := f(t.conn)
	t.takeNotifications(t.conn)
	if err != nil && t.conn.IsClosed() {
		err = errors.Join(err, errConnectionLost)
	}
	return err
}

// open makes the connection if there is none. t.mu is held.
func (t *Table) open(ctx context.Context) error {
	if t.conn != nil && !t.conn.IsClosed() {
		return nil
	}
	t.conn = nil
	conn, err := t.connect(ctx)
	if err != nil {
		return err
	}
	t.conn = conn
	t.changed.Send() // somebody may have changed something before it listened
	return nil
}

// connect opens a connection that listens, and on which statements do not wait for locks
// for long.
func (t *Table) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := t.cfg.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, fmt.Sprintf("SET lock_timeout = %d", lockTimeout.Milliseconds())); err != nil {
		_ = conn.Close(context.WithoutCancel(ctx)) // nothing is under way
		return nil, fmt.Errorf("setting lock_timeout: %w", err)
	}
	if _, err := conn.Exec(ctx, "LISTEN walrelay"); err != nil {
		_ = conn.Close(context.WithoutCancel(ctx)) // nothing is under way
		return nil, fmt.Errorf("listening for changes of the delay table: %w", err)
	}
	return conn, nil
}

// add writes a batch in one round trip and one transaction, which also keeps the
// session from being superseded until it ends.
func (t *Table) add(ctx context.Context, conn *pgx.Conn, columns *columns) error {
	var batch pgx.Batch
	var due *float64
	owned := false
	batch.Queue(sql.DelayOwner, t.cfg.Slot, t.cfg.Session).QueryRow(func(row pgx.Row) (err error) {
		owned, err = owns(row)
		return err
	})
	batch.Queue(sql.DelayInsert, columns.arguments(t.cfg.Slot, t.cfg.Session)).QueryRow(func(row pgx.Row) error { return row.Scan(&due) })
	if len(columns.blocked) > 0 {
		batch.Queue(sql.DelayHold, t.cfg.Slot, t.cfg.Session, columns.blocked)
	}
	if err := conn.SendBatch(ctx, &batch).Close(); err != nil {
		return err
	}
	if !owned {
		return ErrSuperseded
	}
	if due != nil {
		t.dueAt(time.Now().Add(time.Duration(*due * float64(time.Second))))
	}
	return nil
}

// owns reads the row of sql.DelayOwner.
func owns(row pgx.Row) (bool, error) {
	var session int64
	err := row.Scan(&session)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// dueAt says when an event is due.
func (t *Table) dueAt(at time.Time) {
	t.dueMu.Lock()
	defer t.dueMu.Unlock()
	if t.due.IsZero() || at.Before(t.due) {
		t.due = at
		t.wake.Send()
	}
}

// blockers asks who may keep the table waiting. What cannot be found out is left
// out.
func (t *Table) blockers(ctx context.Context, conn *pgx.Conn) []Blocker {
	rows, err := conn.Query(ctx, sql.DelayBlockers, conn.Config().RuntimeParams["application_name"])
	if err != nil {
		return nil
	}
	blockers, err := pgx.CollectRows(rows, pgx.RowToStructByName[Blocker])
	if err != nil {
		return nil
	}
	return blockers
}

func isLockTimeout(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == sqlstate.LockNotAvailable
}
