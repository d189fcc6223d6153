package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/sql"
)

// parking says how an event is parked.
type parking struct {
	// onlyBehind parks it only behind another one of its key.
	onlyBehind bool
	outcome    outcome
	attempts   int
	err        []byte
}

func (p parking) state() string {
	if p.outcome.failed {
		return "failed"
	}
	return "retrying"
}

// clean makes a text, in UTF-8, that Postgres takes and a person can read.
func clean(s string) []byte {
	const most = 2000
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "�")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + " …"
	}
	return []byte(s)
}

// fail decides what becomes of an event whose handler failed.
func (l *lane) fail(ctx context.Context, r *ready, attempts int, err error) (done, tried bool, _ error) {
	if ctx.Err() != nil {
		return false, false, context.Cause(ctx) // it was cut short
	}
	if code := sqlState(err); code == sqlstate.SerializationFailure || code == sqlstate.DeadlockDetected {
		return false, false, err // transactions were in each other's way: at once again
	}
	l.c.failed(err)
	if _, ok := errors.AsType[*PauseError](err); ok {
		return false, false, err
	}
	verdict := l.c.h.judge(err, attempts)
	if l.c.db == nil {
		if !verdict.failed {
			return false, true, &laterError{verdict.after, err}
		}
		if err := l.deadLetter(ctx, r, err); err != nil {
			return false, false, err
		}
		return true, true, nil
	}
	parked, done, problem := l.park(ctx, r, parking{outcome: verdict, attempts: attempts, err: clean(err.Error())})
	if problem != nil {
		return false, true, fmt.Errorf("parking after %q: %w", event.Clip(err.Error()), problem)
	}
	if parked {
		l.c.warn("event parked", "type", event.Clip(r.ev.Type), "id", event.Clip(r.ev.ID), "key", event.Clip(r.it.key),
			"state", parking{outcome: verdict}.state(), "attempts", attempts, "error", event.Clip(err.Error()))
	}
	return done, true, nil
}

// park parks an event in the transaction that moves its mark. It reports whether it did, and
// whether the event is done: it may have been before.
func (l *lane) park(ctx context.Context, r *ready, p parking) (parked, done bool, err error) {
	tx, state, err := l.beginParking(ctx, r)
	if err != nil {
		return false, false, err
	}
	defer tx.rollback(ctx)
	if state == stateDone {
		l.c.repeated.Add(1)
		l.pass(r.it)
		return false, true, nil
	}
	headers, err := json.Marshal(r.it.header)
	if err != nil {
		return false, false, fmt.Errorf("writing headers: %w", err)
	}
	kept, err := tx.query(ctx, sql.InboxPark, l.c.h.name, p.onlyBehind, p.state(), r.event, null(r.key), clean(r.it.key), clean(r.ev.ID), clean(r.ev.Type),
		clean(r.ev.Source), r.it.stream, int64(r.it.sequence), p.attempts, p.outcome.after.Milliseconds(), p.err,
		clean(r.it.msg.Subject()), headers, r.it.msg.Data())
	if _, err := one(kept, err, &parked); err != nil {
		return false, false, err
	}
	if !parked {
		return false, false, nil
	}
	if err := tx.commit(ctx); err != nil {
		return false, false, err
	}
	l.g.block(r.key)
	l.c.parked.Add(1)
	l.pass(r.it)
	return true, true, nil
}

// beginParking starts the transaction: of a handler that is once, by moving the mark; of
// another, by looking whether this process is still the active one.
func (l *lane) beginParking(ctx context.Context, r *ready) (transaction, int, error) {
	if l.c.h.mode != atLeastOnce {
		return l.begin(ctx, r)
	}
	tx, ours, err := l.c.db.begin(ctx, sql.InboxFence, l.c.h.name, l.c.partition, l.g.epoch, l.c.patience())
	if err != nil {
		return nil, 0, fmt.Errorf("asking whether this process is the active one: %w", err)
	}
	if ours != 1 {
		tx.rollback(ctx)
		l.g.end(end{lost: true})
		return nil, 0, errLost
	}
	return tx, 0, nil
}

// deadLetter publishes an event that the handler cannot handle, and waits for the
// acknowledgement.
func (l *lane) deadLetter(ctx context.Context, r *ready, reason error) error {
	msg := nats.NewMsg(l.c.cfg.DeadLetters + "." + l.c.h.name)
	for name, values := range r.it.header {
		// What addressed the message within its stream means nothing elsewhere.
		if !strings.HasPrefix(strings.ToLower(name), "nats-") && !strings.HasPrefix(name, "Walrelay-") {
			msg.Header[name] = values
		}
	}
	msg.Header.Set("Walrelay-Handler", l.c.h.name)
	msg.Header.Set("Walrelay-Error", headerText(reason.Error()))
	msg.Header.Set("Walrelay-Subject", r.it.msg.Subject())
	msg.Data = r.it.msg.Data()
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	if _, err := l.c.cfg.js.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("publishing to %s: %w", msg.Subject, err)
	}
	l.c.parked.Add(1)
	l.pass(r.it)
	return nil
}

// headerText makes a header's value.
func headerText(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7F {
			return ' '
		}
		return c
	}, string(clean(s)))
}

// drain handles parked events whose turn has come. Each process has one for each handler,
// whether it is active or not: while the stream is quiet, none is. The lock of the row keeps them
// apart, and only the first of a key has its turn.
type drain struct{ c *consumer }

const (
	// drainInterval is how often it is asked for them.
	drainInterval = time.Second
	// drainers is how many of them, of different keys, are handled at a time.
	drainers = 4
)

// run works until the context ends. A call that is under way then may go on for a while.
func (d *drain) run(ctx context.Context) {
	working, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		_ = wait.For(working, d.c.cfg.Grace) // it ends one way or the other
		cancel(errEnded)
	})
	defer stop()
	delay := drainInterval
	for ctx.Err() == nil {
		err := d.all(ctx, working)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			d.c.warn("parked events are not handled; it is tried again", "error", withoutTables(err))
			delay = min(2*delay, lastWait)
		default:
			delay = drainInterval
		}
		_ = wait.For(ctx, delay) // the loop asks the context
	}
}

// all handles what is due, until nothing is or the context ends.
func (d *drain) all(ctx, working context.Context) error {
	var some bool
	exists, err := d.c.db.query(working, sql.InboxAnyDue, d.c.h.name)
	if _, err := one(exists, err, &some); err != nil || !some {
		return err
	}
	var group errgroup.Group
	for range min(drainers, d.c.h.lanes) {
		group.Go(func() error {
			for ctx.Err() == nil {
				if more, err := d.next(working); err != nil || !more {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// due is a parked event.
type due struct {
	number   int64
	attempts int
	header   nats.Header
	data     []byte
	ev       CloudEvent
}

// next handles one parked event; false if none is due.
func (d *drain) next(ctx context.Context) (bool, error) {
	c := d.c
	tx, _, err := c.db.begin(ctx, sql.InboxPatience, c.patience())
	if err != nil {
		return false, err
	}
	defer func() { tx.rollback(ctx) }()
	var p due
	var headers []byte
	var subject, stream string
	var sequence int64
	r, err := tx.query(ctx, sql.InboxDue, c.h.name)
	found, err := one(r, err, &p.number, &p.attempts, &subject, &headers, &p.data, &stream, &sequence)
	if !found || err != nil {
		return false, err
	}
	if err := json.Unmarshal(headers, &p.header); err != nil {
		return false, fmt.Errorf("reading the headers of parked event %d: %w", p.number, err)
	}
	// If the handler fails, the row stays locked until that is noted: another process would take it at once.
	if err := tx.exec(ctx, "SAVEPOINT "+savepoint); err != nil {
		return false, fmt.Errorf("handling parked event %d: %w", p.number, err)
	}
	if p.ev, err = DecodeParts(p.header, p.data); err == nil {
		err = c.h.call(ctx, call{tx: d.handle(tx), events: []CloudEvent{p.ev}, attempt: p.attempts + 1})
	} else {
		err = Park(err)
	}
	if err == nil {
		if err = tx.exec(ctx, sql.InboxUnpark, p.number); err == nil {
			if err = tx.commit(ctx); err == nil {
				c.handled.Add(1)
				return true, nil
			}
		}
		if isOutage(err) {
			return false, fmt.Errorf("handling parked event %d: %w", p.number, err)
		}
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	c.failed(err)
	if _, ok := errors.AsType[*PauseError](err); ok {
		return false, err
	}
	return true, d.retry(ctx, tx, &p, err)
}

const savepoint = "walrelay_parked"

// handle returns what the handler gets of the transaction: nothing if it is not for
// handlers.
func (d *drain) handle(tx transaction) any {
	if d.c.h.mode == atLeastOnce {
		return nil
	}
	return tx.handle()
}

// retry notes that a parked event failed again, and ends the transaction.
func (d *drain) retry(ctx context.Context, tx transaction, p *due, err error) error {
	verdict := d.c.h.judge(err, p.attempts+1)
	state := parking{outcome: verdict}.state()
	d.c.warn("parked event failed again", "type", event.Clip(p.ev.Type), "id", event.Clip(p.ev.ID),
		"state", state, "attempts", p.attempts+1, "error", event.Clip(err.Error()))
	args := []any{p.number, state, p.attempts + 1, verdict.after.Milliseconds(), clean(err.Error())}
	problem := tx.exec(ctx, "ROLLBACK TO SAVEPOINT "+savepoint)
	if problem == nil {
		if problem = tx.exec(ctx, sql.InboxRetry, args...); problem == nil {
			problem = tx.commit(ctx)
		}
	}
	if problem != nil {
		// The handler, or what befell it, has ended the transaction.
		tx.rollback(ctx)
		problem = d.c.db.exec(ctx, sql.InboxRetry, args...)
	}
	if problem != nil {
		return fmt.Errorf("noting that parked event %d failed: %w", p.number, problem)
	}
	return nil
}
