package retry

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/walrelay/walrelay/sql"
)

const (
	// emitBatch is how many due events one transaction emits, keyBatch how many
	// keys one looks at, and heldBatch how many held events of one key it emits.
	emitBatch = 5000
	keyBatch  = 200
	heldBatch = 500
	// maxEmitting is how many such transactions may be ahead of the frontier.
	maxEmitting = 3
	// pace is the time between two steps that only wait for the frontier.
	pace = 3 * time.Millisecond
	// housekeeping is how often discarded events are removed and events are
	// counted; but not more than a part in housekept of the time is for that.
	housekeeping = 10 * time.Second
	housekept    = 50
	// longest is how long the timer sleeps at most: a schedule may be moved by
	// somebody who tells nobody.
	longest = time.Minute
)

// Frontier tells below which LSN every event has an outcome.
type Frontier interface {
	LSN() pglogrepl.LSN
	Moved() <-chan struct{}
}

// TimerConfig says what a timer works with.
type TimerConfig struct {
	Store    *Store
	Keys     *Keys
	Frontier Frontier
	// Save writes progress down in the transaction, and returns up to which LSN
	// every event has an outcome then. done is called when the transaction has
	// ended. [ErrSuperseded] says that the session is over.
	Save func(ctx context.Context, tx pgx.Tx) (lsn pglogrepl.LSN, done func(committed bool), err error)
	// KeepDiscarded is how long discarded events stay visible.
	KeepDiscarded time.Duration
	Observe       Observer
}

// Observer hears what the timer does. Its methods must not block.
type Observer interface {
	// Emitted says by how much each emitted event was late.
	Emitted(late []time.Duration)
	// Counted says how many events are in each state, how many keys are held,
	// and for how many seconds the oldest due event has been due.
	Counted(states map[State]int64, keys int, oldest float64)
}

// Timer emits events when they are due, and those that were held when nothing
// holds them any more.
type Timer struct {
	cfg      TimerConfig
	conn     *pgx.Conn
	notified chan struct{}
	emitting []pglogrepl.LSN // of the last transactions that emitted, in order
}

// NewTimer returns a timer.
func NewTimer(cfg TimerConfig) *Timer {
	return &Timer{cfg: cfg, notified: make(chan struct{}, 1)}
}

// Run works until the context ends, or something fails. It sleeps until the next
// event is due, until somebody notifies the channel walrelay, or until the
// frontier moves if something waits for that.
func (t *Timer) Run(ctx context.Context) error {
	if !t.cfg.Keys.awaitMarked(ctx) {
		return nil
	}
	// Each has a connection of its own: events are due while a million are counted.
	group, working := errgroup.WithContext(ctx)
	for _, work := range []func(context.Context, *pgx.Conn) error{t.loop, t.listen, t.keepHouse} {
		group.Go(func() error {
			conn, err := t.cfg.Store.cfg.Connect(working)
			if err != nil {
				return fmt.Errorf("connecting for the delay table: %w", err)
			}
			defer func() {
				closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
				defer cancel()
				_ = conn.Close(closing)
			}()
			return work(working, conn)
		})
	}
	if err := group.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

// listen passes notifications on.
func (t *Timer) listen(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, "LISTEN walrelay"); err != nil {
		return fmt.Errorf("listening for changes of the delay table: %w", err)
	}
	for {
		select {
		case t.notified <- struct{}{}:
		default:
		}
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return fmt.Errorf("listening for changes of the delay table: %w", err)
		}
	}
}

// loop emits.
func (t *Timer) loop(ctx context.Context, conn *pgx.Conn) error {
	t.conn = conn
	timer := time.NewTimer(0)
	defer timer.Stop()
	look := true // at keys that somebody changed
	for {
		out, err := t.step(ctx, look)
		if err != nil {
			return err
		}
		look = false
		if out.more {
			continue
		}
		wait := out.wait
		var moved <-chan struct{}
		if out.blocked || t.cfg.Keys.Len() > 0 {
			moved = t.cfg.Frontier.Moved()
			if out.blocked {
				wait = time.Second
			}
			// Not at every move: under load it moves thousands of times a second.
			timer.Reset(pace)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil
			}
		}
		timer.Reset(max(0, wait))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-moved:
		case <-t.cfg.Store.wake:
		case <-t.notified:
			look = true
		}
	}
}

// stepped is what a step leads to.
type stepped struct {
	// more says that there is more to do at once, and blocked that something
	// waits for the frontier.
	more, blocked bool
	// wait is for how long nothing more will be due.
	wait time.Duration
}

// step emits what is due and what is not held any more. look asks for keys that
// somebody changed.
func (t *Timer) step(ctx context.Context, look bool) (out stepped, err error) {
	s := t.cfg.Store
	lsn := t.cfg.Frontier.LSN()
	for len(t.emitting) > 0 && t.emitting[0] < lsn {
		t.emitting = t.emitting[1:]
	}
	s.mu.Lock()
	if look {
		s.next = time.Time{} // somebody may have changed that, too
	}
	due := !time.Now().Before(s.next)
	s.mu.Unlock()
	if len(t.emitting) >= maxEmitting && !look {
		return stepped{blocked: true}, nil
	}
	all, free := t.cfg.Keys.take(uint64(lsn), keyBatch)
	var e emission
	defer func() { t.cfg.Keys.looked(all, e.freed, e.again) }()
	if due || look || len(all) > 0 {
		if e, err = t.emit(ctx, look, all, free); err != nil {
			e = emission{}
			return stepped{}, err
		}
		t.cfg.Keys.look(e.released)
	}
	if out.wait, err = t.untilDue(ctx, due); err != nil {
		return stepped{}, err
	}
	out.more = e.due == emitBatch || len(e.released) > 0 || len(all) == keyBatch
	out.blocked = out.wait <= 0 || len(e.again) > 0
	return out, nil
}

// untilDue returns for how long nothing is due: what is known of it or, when
// that time has passed, what the table says.
func (t *Timer) untilDue(ctx context.Context, ask bool) (time.Duration, error) {
	s := t.cfg.Store
	if !ask {
		s.mu.Lock()
		defer s.mu.Unlock()
		return time.Until(s.next), nil
	}
	// Add may find an earlier one meanwhile, and must not be overwritten.
	s.mu.Lock()
	defer s.mu.Unlock()
	var seconds *float64
	if err := t.conn.QueryRow(ctx, sql.DelayNext, s.cfg.Slot).Scan(&seconds); err != nil {
		return 0, fmt.Errorf("reading when the next event is due: %w", err)
	}
	wait := longest
	if seconds != nil && *seconds < longest.Seconds() {
		wait = time.Duration(*seconds * float64(time.Second))
	}
	s.next = time.Now().Add(wait)
	return wait, nil
}

// emission is what one transaction did.
type emission struct {
	due      int64   // how many due events it emitted
	freed    []int64 // keys that are not held any more
	again    []int64 // keys to be looked at again when the frontier has moved
	released []int64 // keys that somebody changed
}

// emit runs one transaction.
func (t *Timer) emit(ctx context.Context, look bool, all, free []int64) (e emission, err error) {
	cfg := t.cfg.Store.cfg
	tx, err := t.conn.Begin(ctx)
	if err != nil {
		return e, fmt.Errorf("emitting delayed events: %w", err)
	}
	ended := func(bool) {}
	committed := false
	defer func() {
		if !committed {
			_ = tx.Rollback(context.WithoutCancel(ctx)) // the connection is given up
		}
		ended(committed)
	}()
	frontier, done, err := t.cfg.Save(ctx, tx)
	if err != nil {
		return e, err
	}
	ended = done
	if look {
		if e.released, err = hashes(tx.Query(ctx, sql.DelayReleased, cfg.Slot)); err != nil {
			return e, fmt.Errorf("reading which keys were released: %w", err)
		}
	}
	var held int64
	var last, lastHeld string
	var retried, given []int64
	var due []time.Time
	var now time.Time
	if err := tx.QueryRow(ctx, sql.DelayEmitDue, cfg.Slot, hexLSN(uint64(frontier)), Prefix(cfg.Slot), emitBatch).
		Scan(&e.due, &last, &retried, &due, &now); err != nil {
		return e, fmt.Errorf("emitting due events: %w", err)
	}
	if len(all) > 0 {
		if err := tx.QueryRow(ctx, sql.DelayEmitHeld, cfg.Slot, hexLSN(uint64(frontier)), Prefix(cfg.Slot), heldBatch, all, cfg.FailedHolds).
			Scan(&held, &lastHeld, &given); err != nil {
			return e, fmt.Errorf("emitting held events: %w", err)
		}
		if held > 0 {
			last = lastHeld
		}
		if err := t.release(ctx, tx, all, free, slices.Concat(given, retried), &e); err != nil {
			return e, err
		}
	}
	lsn, err := pglogrepl.ParseLSN(last)
	if err != nil {
		return e, fmt.Errorf("emitting delayed events: %w", err)
	}
	t.cfg.Keys.giveBack(retried)
	t.cfg.Keys.giveBack(given)
	if err := tx.Commit(ctx); err != nil {
		return e, fmt.Errorf("emitting delayed events: %w", err)
	}
	committed = true
	if e.due+held > 0 {
		t.emitting = append(t.emitting, lsn)
		late := make([]time.Duration, len(due))
		for i, at := range due {
			late[i] = now.Sub(at)
		}
		t.cfg.Observe.Emitted(late)
	}
	return e, nil
}

// hashes collects rows of key hashes.
func hashes(rows pgx.Rows, err error) ([]int64, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// release forgets those of the free keys that nothing holds, and finds out
// which of the others are to be looked at again.
func (t *Timer) release(ctx context.Context, tx pgx.Tx, all, free, given []int64, e *emission) (err error) {
	cfg := t.cfg.Store.cfg
	if rest := without(free, given); len(rest) > 0 {
		if e.freed, err = hashes(tx.Query(ctx, sql.DelayRelease, cfg.Slot, rest, cfg.FailedHolds)); err != nil {
			return fmt.Errorf("releasing keys: %w", err)
		}
	}
	if rest := without(without(all, given), e.freed); len(rest) > 0 {
		if e.again, err = hashes(tx.Query(ctx, sql.DelayWaiting, cfg.Slot, rest, cfg.FailedHolds)); err != nil {
			return fmt.Errorf("releasing keys: %w", err)
		}
	}
	return nil
}

// without returns those of a that are not in b.
func without(a, b []int64) []int64 {
	if len(b) == 0 {
		return a
	}
	gone := make(map[int64]bool, len(b))
	for _, n := range b {
		gone[n] = true
	}
	var rest []int64
	for _, n := range a {
		if !gone[n] {
			rest = append(rest, n)
		}
	}
	return rest
}

// keepHouse removes discarded events, forgets those that were given back and have
// an outcome, and counts the others, now and then.
func (t *Timer) keepHouse(ctx context.Context, conn *pgx.Conn) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		started := time.Now()
		if _, err := conn.Exec(ctx, sql.DelayPurge, t.cfg.Store.cfg.Slot, hexLSN(uint64(t.cfg.Frontier.LSN())), t.cfg.KeepDiscarded.Seconds()); err != nil {
			return fmt.Errorf("removing discarded events: %w", err)
		}
		if _, err := conn.Exec(ctx, sql.DelayForget, t.cfg.Store.cfg.Slot); err != nil {
			return fmt.Errorf("forgetting events that were given back: %w", err)
		}
		if err := t.count(ctx, conn); err != nil {
			return fmt.Errorf("counting delayed events: %w", err)
		}
		// A large table is counted less often.
		timer.Reset(max(housekeeping, housekept*time.Since(started)))
	}
}

func (t *Timer) count(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, sql.DelayCounts, t.cfg.Store.cfg.Slot)
	if err != nil {
		return err
	}
	states := make(map[State]int64)
	var state string
	var count int64
	var late, oldest float64
	if _, err := pgx.ForEachRow(rows, []any{&state, &count, &late}, func() error {
		states[State(state)] = count
		if State(state) == Scheduled || State(state) == Retrying {
			oldest = max(oldest, late)
		}
		return nil
	}); err != nil {
		return err
	}
	t.cfg.Observe.Counted(states, t.cfg.Keys.Len(), oldest)
	return nil
}
