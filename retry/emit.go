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
	// frontierPoll is the time between two steps that only wait for the frontier.
	frontierPoll = 3 * time.Millisecond
	// maxSleep is how long the emitting goroutine sleeps at most: a schedule may be
	// moved by somebody who notifies nobody.
	maxSleep = time.Minute
	// stalledAfter is for how long due events cannot be emitted before somebody is
	// blamed for it.
	stalledAfter = 3 * time.Second
	// walrelay.emitted is emptied after so many rows, or after a while.
	emptyRows     = 10_000
	emptyInterval = 10 * time.Second
	// maxRows is for how many rows emission waits until it is emptied.
	maxRows = 200_000
	// emptyTimeout is how long emptying waits for writers, who wait behind it.
	emptyTimeout = 100 * time.Millisecond
)

// Run emits events when they are due, and those that were held when nothing
// blocks their key any more, until the context ends or something fails. It sleeps until the next event is due, until somebody notifies
// the channel walrelay, or until the frontier moves if something waits for that.
func (t *Table) Run(ctx context.Context) error {
	if !t.keys.awaitReplayed(ctx) {
		return nil
	}
	group, working := errgroup.WithContext(ctx)
	group.Go(func() error { return t.emitLoop(working) })
	group.Go(func() error { return t.listen(working) })
	if err := group.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

func (t *Table) emitLoop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	// Earlier sessions may have emitted what is not settled yet.
	if err := t.noteEmission(ctx); err != nil {
		return err
	}
	look := true // at keys that somebody changed
	for {
		out, err := t.step(ctx, look)
		if err != nil {
			return err
		}
		look = out.look
		if out.more {
			continue
		}
		pause := out.wait
		var moved, saved <-chan struct{}
		if out.blocked || t.keys.Len() > 0 {
			var lsn pglogrepl.LSN
			moved = t.cfg.Frontier.Moved()
			lsn, saved = t.cfg.Checkpoint.Saved()
			if out.blocked {
				pause = time.Second
				if t.cfg.Frontier.LSN() > lsn {
					t.cfg.Checkpoint.RequestSave()
				}
			}
			// Not at every move: under load it moves thousands of times a second.
			timer.Reset(frontierPoll)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil
			}
		}
		timer.Reset(max(0, pause))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-moved:
		case <-saved:
		case <-t.wake:
		case <-t.keys.wake:
		case <-t.truncate:
			t.emitted = max(t.emitted, 1)
		case <-t.changed:
			look = true
		}
	}
}

// stepped is what a step leads to.
type stepped struct {
	// more says that there is more to do at once, and blocked that something
	// waits for the frontier, or for somebody's lock.
	more, blocked bool
	// look says that keys which somebody changed are still to be looked at.
	look bool
	// wait is for how long nothing more will be due.
	wait time.Duration
}

// step emits what is due and what is not held any more. look asks for keys that
// somebody changed.
func (t *Table) step(ctx context.Context, look bool) (out stepped, err error) {
	lsn := t.cfg.Frontier.LSN()
	for len(t.emitting) > 0 && t.emitting[0] <= lsn {
		t.emitting = t.emitting[1:]
	}
	if len(t.emitting) == 0 {
		if err := t.empty(ctx); err != nil {
			return stepped{}, err
		}
	}
	t.dueMu.Lock()
	if look {
		t.due = time.Time{} // somebody may have changed that, too
	}
	due := !time.Now().Before(t.due)
	t.dueMu.Unlock()
	if len(t.emitting) > 0 && t.emitted >= maxRows || len(t.emitting) >= maxEmitting && !look {
		return stepped{blocked: true, look: look}, nil
	}
	all, free := t.keys.take(uint64(lsn), keyBatch)
	var e emission
	defer func() { t.keys.endScan(all, e.freed, e.again) }()
	if due || look || len(all) > 0 {
		err := t.locked(ctx, func(conn *pgx.Conn) (err error) {
			e, err = t.emit(ctx, conn, look, all, free)
			if isLockTimeout(err) {
				t.stall(ctx, conn)
			}
			return err
		})
		if isLockTimeout(err) {
			e = emission{again: all}
			return stepped{blocked: true, look: look}, nil
		}
		if err != nil {
			e = emission{}
			return stepped{}, err
		}
		t.keys.look(e.released)
	}
	if out.wait, err = t.untilDue(ctx, due); isLockTimeout(err) {
		return stepped{blocked: true}, nil
	} else if err != nil {
		return stepped{}, err
	}
	out.more = e.due == emitBatch || len(e.released) > 0 || len(all) == keyBatch
	out.blocked = out.wait <= 0 || len(e.again) > 0
	if out.blocked && !out.more && e.due+e.held == 0 {
		return out, t.locked(ctx, func(conn *pgx.Conn) error {
			t.stall(ctx, conn)
			return nil
		})
	}
	if !t.stalled.IsZero() {
		t.stalled = time.Time{}
		t.cfg.Observe.Unblocked(false)
	}
	return out, nil
}

// stall notes that what could be emitted is not, and finds out, after a while,
// whether somebody's locks are why.
func (t *Table) stall(ctx context.Context, conn *pgx.Conn) {
	if t.stalled.IsZero() {
		t.stalled = time.Now()
	}
	if since := time.Since(t.stalled); since >= stalledAfter && time.Since(t.blamed) >= time.Second {
		t.blamed = time.Now()
		if by := t.blockers(ctx, conn); len(by) > 0 {
			t.cfg.Observe.Blocked(false, since, by)
		}
	}
}

// untilDue returns for how long nothing is due: what is known of it or, when
// that time has passed, what the table says.
func (t *Table) untilDue(ctx context.Context, ask bool) (pause time.Duration, err error) {
	// Add may find an earlier one meanwhile, and must not be overwritten.
	t.dueMu.Lock()
	known := t.due
	t.dueMu.Unlock()
	if !ask {
		return time.Until(known), nil
	}
	var seconds *float64
	err = t.locked(ctx, func(conn *pgx.Conn) error {
		t.dueMu.Lock()
		t.due = time.Now().Add(maxSleep)
		t.dueMu.Unlock()
		return conn.QueryRow(ctx, sql.DelayNext, t.cfg.Slot).Scan(&seconds)
	})
	if err != nil {
		t.dueMu.Lock()
		t.due = time.Time{}
		t.dueMu.Unlock()
		return 0, fmt.Errorf("reading when the next event is due: %w", err)
	}
	pause = maxSleep
	if seconds != nil && *seconds < maxSleep.Seconds() {
		pause = time.Duration(*seconds * float64(time.Second))
		t.dueMu.Lock()
		if at := time.Now().Add(pause); at.Before(t.due) {
			t.due = at
		}
		t.dueMu.Unlock()
	}
	return pause, nil
}

// emission is what one transaction did.
type emission struct {
	due, held int64   // how many due and held events it emitted
	freed     []int64 // keys that are not blocked any more
	again     []int64 // keys to be looked at again when the frontier has moved
	released  []int64 // keys that somebody changed
}

// emit runs one transaction.
//
// It emits rows whose position is below what the checkpoint has saved, and no
// others: the next session reads the WAL from there on or from later, so it does
// not read the insert again that put the row into the table, and does not put it
// there a second time. The frontier alone is not enough for that: it is in memory.
// The checkpoint was committed before this transaction began, so nothing of it is
// written here, and whoever keeps this transaction waiting keeps only this
// transaction waiting. The session is verified in the transaction and cannot be
// superseded before its end; so no relay that was superseded emits.
func (t *Table) emit(ctx context.Context, conn *pgx.Conn, look bool, all, free []int64) (e emission, err error) {
	cfg := &t.cfg
	saved, _ := cfg.Checkpoint.Saved()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return e, fmt.Errorf("emitting delayed events: %w", err)
	}
	committed := false
	defer func() {
		if !committed {
			_ = tx.Rollback(context.WithoutCancel(ctx)) // nothing has been written
		}
	}()
	owned, err := owns(tx.QueryRow(ctx, sql.DelayOwner, cfg.Slot, cfg.Session))
	if err != nil {
		return e, fmt.Errorf("emitting delayed events: %w", err)
	}
	if !owned {
		return e, fmt.Errorf("emitting delayed events: %w", ErrSuperseded)
	}
	if look {
		if e.released, err = hashes(tx.Query(ctx, sql.DelayReleased, cfg.Slot)); err != nil {
			return e, fmt.Errorf("reading which keys were released: %w", err)
		}
	}
	var retried, emittedKeys []int64
	var due []time.Time
	var now time.Time
	if err := tx.QueryRow(ctx, sql.DelayEmitDue, cfg.Slot, hexLSN(saved), emitBatch).Scan(&e.due, &retried, &due, &now); err != nil {
		return e, fmt.Errorf("emitting due events: %w", err)
	}
	if len(all) > 0 {
		if err := tx.QueryRow(ctx, sql.DelayEmitHeld, cfg.Slot, hexLSN(saved), heldBatch, all, cfg.FailedBlocks).
			Scan(&e.held, &emittedKeys); err != nil {
			return e, fmt.Errorf("emitting held events: %w", err)
		}
		if err := t.release(ctx, tx, all, free, slices.Concat(emittedKeys, retried), &e); err != nil {
			return e, err
		}
	}
	t.keys.reemit(retried)
	t.keys.reemit(emittedKeys)
	if err := tx.Commit(ctx); err != nil {
		return e, fmt.Errorf("emitting delayed events: %w", err)
	}
	committed = true
	if n := e.due + e.held; n > 0 {
		if err := t.note(ctx, conn); err != nil {
			return e, err
		}
		t.emitted += int(n)
		late := make([]time.Duration, len(due))
		for i, at := range due {
			late[i] = now.Sub(at)
		}
		cfg.Observe.Emitted(late)
	}
	return e, nil
}

// noteEmission is note for a caller that does not hold the connection.
func (t *Table) noteEmission(ctx context.Context) error {
	return t.locked(ctx, func(conn *pgx.Conn) error { return t.note(ctx, conn) })
}

// note notes the end of the WAL: everything that is committed by now is below it. Until
// the frontier has reached it, walrelay.emitted says of events that they are on their
// way, and is not emptied.
func (t *Table) note(ctx context.Context, conn *pgx.Conn) error {
	var end string
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_current_wal_insert_lsn()::text").Scan(&end); err != nil {
		return fmt.Errorf("noting where emitted events end: %w", err)
	}
	lsn, err := pglogrepl.ParseLSN(end)
	if err != nil {
		return fmt.Errorf("noting where emitted events end: %w", err)
	}
	t.emitting = append(t.emitting, lsn)
	return nil
}

// hashes collects rows of key hashes.
func hashes(rows pgx.Rows, err error) ([]int64, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// release forgets those of the free keys that nothing blocks, and finds out
// which of the others are to be looked at again.
func (t *Table) release(ctx context.Context, tx pgx.Tx, all, free, emitted []int64, e *emission) (err error) {
	if rest := without(free, emitted); len(rest) > 0 {
		if e.freed, err = hashes(tx.Query(ctx, sql.DelayRelease, t.cfg.Slot, rest, t.cfg.FailedBlocks)); err != nil {
			return fmt.Errorf("releasing keys: %w", err)
		}
	}
	if rest := without(without(all, emitted), e.freed); len(rest) > 0 {
		if e.again, err = hashes(tx.Query(ctx, sql.DelayWaiting, t.cfg.Slot, rest, t.cfg.FailedBlocks)); err != nil {
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

// empty removes the rows of walrelay.emitted, when everything that was emitted is
// settled and there are many, or there have been some for a while. What was
// inserted is in the WAL and is decoded from there, TOAST values included. Whoever
// writes at this moment makes it wait only shortly: then it is tried again later.
func (t *Table) empty(ctx context.Context) error {
	if t.emitted == 0 || t.emitted < emptyRows && time.Since(t.emptied) < emptyInterval {
		return nil
	}
	err := t.locked(ctx, func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", emptyTimeout.Milliseconds())); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "LOCK TABLE walrelay.emitted IN ACCESS EXCLUSIVE MODE"); err != nil {
				return err
			}
			var others bool // of other slots, that are not settled
			if err := tx.QueryRow(ctx, sql.DelayEmitted, t.cfg.Slot).Scan(&others); err != nil || others {
				return err
			}
			_, err := tx.Exec(ctx, "TRUNCATE walrelay.emitted")
			return err
		})
	})
	if err != nil && !isLockTimeout(err) {
		return fmt.Errorf("emptying walrelay.emitted: %w", err)
	}
	t.emptied = time.Now()
	if err == nil || t.emitted >= maxRows {
		t.emitted = 0
	}
	return nil
}
