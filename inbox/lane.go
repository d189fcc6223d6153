package inbox

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/internal/traceparent"
	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/sql"
)

// lane works on the events of some buckets, one after the other.
type lane struct {
	g        *generation
	c        *consumer
	verifier verifier
	writers  map[string]bool // whose marks exist

	mu      sync.Mutex
	queue   []*item // the first ones are worked on
	working int     // how many
	since   time.Time
	stopped bool
	more    wait.Signal

	passed map[int]uint64 // by bucket: the last stream sequence that is done; run only
	behind bool           // the next events were probably handled before; run only
}

func newLane(g *generation) *lane {
	return &lane{
		g: g, c: g.c, verifier: verifier{ring: g.c.cfg.ring}, writers: make(map[string]bool), more: wait.NewSignal(),
		passed: make(map[int]uint64),
	}
}

// put adds a message. The server bounds how many there are.
func (l *lane) put(it *item) {
	l.mu.Lock()
	l.queue = append(l.queue, it)
	l.mu.Unlock()
	l.more.Send()
}

// stop drops what is not worked on; it comes again.
func (l *lane) stop() {
	l.mu.Lock()
	l.stopped = true
	l.queue = l.queue[:l.working]
	l.mu.Unlock()
	l.more.Send()
}

// take returns the next events, up to n; none when the lane was stopped.
func (l *lane) take(ctx context.Context, n int) []*item {
	for {
		l.mu.Lock()
		if l.stopped {
			l.mu.Unlock()
			return nil
		}
		if len(l.queue) > 0 {
			l.working, l.since = min(n, len(l.queue)), time.Now()
			taken := l.queue[:l.working:l.working]
			l.mu.Unlock()
			return taken
		}
		l.mu.Unlock()
		select {
		case <-l.more:
		case <-ctx.Done():
			return nil
		}
	}
}

// done forgets the events that were worked on, except those that are left.
func (l *lane) done(left []*item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.working - len(left)
	copy(l.queue[first:], left)
	clear(l.queue[:first])
	l.queue = l.queue[first:]
	l.working = 0
}

// touch tells the server that what is held is being worked on.
func (l *lane) touch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, it := range l.queue {
		if now.Sub(it.touched) > ackWait/3 {
			it.touched = now
			_ = it.msg.InProgress() // what the server does not hear comes again
		}
	}
}

// slow says what the lane works on, if it takes longer than a time.
func (l *lane) slow(longer time.Duration) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.working == 0 || time.Since(l.since) <= longer {
		return ""
	}
	it := l.queue[0]
	return fmt.Sprintf("message %d of %s (id %s) for %s", it.sequence, it.stream, event.Clip(first(it.header, "ce-id")), time.Since(l.since).Round(time.Millisecond))
}

// run works until the lane is stopped or the context ends.
func (l *lane) run(ctx context.Context) {
	for {
		n := l.c.h.batch
		if l.behind {
			n = max(n, passBatch)
		}
		items := l.take(ctx, n)
		if len(items) == 0 {
			return
		}
		left := items
		switch {
		case l.behind:
			left = l.passOver(ctx, items)
		case l.together(ctx, items):
			left = nil
		default:
			if l.behind {
				left = l.passOver(ctx, items)
			}
			if len(left) < len(items) {
				break
			}
			for _, it := range items {
				if !l.single(ctx, it) {
					return
				}
			}
			left = nil
		}
		l.done(left)
	}
}

// passBatch is how many events are passed over with one statement.
const passBatch = 200

// passOver passes over the events that were handled before, as the marks say, and returns the others. Of
// a bucket it passes over no event behind one that is left.
func (l *lane) passOver(ctx context.Context, items []*item) (left []*item) {
	var at stamp
	var asked []*item
	var buckets, positions []string
	done := make(map[*item]bool, len(items))
	for _, it := range items {
		r, mine, err := l.prepare(ctx, it)
		switch {
		case err != nil:
		case !mine:
			done[it] = true
		case r.writer == "" || at.writer != "" && !r.sameTimeline(at):
		default:
			at = r.stamp
			asked = append(asked, it)
			buckets, positions = append(buckets, strconv.Itoa(it.bucket)), append(positions, r.position)
		}
	}
	if len(asked) > 0 {
		known, err := l.known(ctx, items[0].stream, at, buckets, positions)
		if err != nil {
			l.behind = false // the next attempt tells what is wrong
			return items
		}
		for _, n := range known {
			done[asked[n-1]] = true
		}
		l.c.repeated.Add(uint64(len(known)))
	}
	open := make(map[int]bool)
	for _, it := range items {
		if done[it] && !open[it.bucket] {
			l.pass(it)
			continue
		}
		open[it.bucket] = true
		left = append(left, it)
	}
	l.behind = len(left) == 0
	return left
}

// known returns which of some positions of buckets were handled: their numbers, from 1.
func (l *lane) known(ctx context.Context, stream string, at stamp, buckets, positions []string) (numbers []int, err error) {
	r, err := l.c.db.query(ctx, sql.InboxKnown, l.c.h.name, stream, at.writer, at.timeline, at.began,
		"{"+strings.Join(buckets, ",")+"}", "{"+strings.Join(positions, ",")+"}")
	if err != nil {
		return nil, err
	}
	defer r.close()
	for r.Next() {
		var n int
		if err := r.Scan(&n); err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	return numbers, r.Err()
}

// ready is an event that can be given to the handler.
type ready struct {
	stamp // zero if the position is not authentic

	it    *item
	ev    CloudEvent
	key   []byte
	event []byte
}

// errUnreadable says that a message is no event.
type unreadableError struct{ err error }

func (e *unreadableError) Error() string { return e.err.Error() }
func (e *unreadableError) Unwrap() error { return e.err }

// prepare reads a message. It returns false if it is not for the handler: done before, or of
// another type. An error is *unreadableError, or may go away.
func (l *lane) prepare(ctx context.Context, it *item) (r ready, mine bool, err error) {
	if it.sequence <= l.passed[it.bucket] {
		return r, false, nil
	}
	r = ready{it: it, key: keyHash(it.key)}
	if l.c.h.mode != atLeastOnce {
		if r.stamp, err = l.verifier.verify(ctx, it); err != nil {
			return r, true, err
		}
		if r.writer != "" {
			if err := l.marks(ctx, it.stream, r.writer); err != nil {
				return r, true, err
			}
		} else {
			l.c.warnOnce("positions are not authentic (a shared stream, another publisher, or no key): handled events are remembered by source and id for a time", "")
		}
	}
	if r.ev, err = DecodeParts(it.header, it.msg.Data()); err != nil {
		r.event = eventHash(it.stream, fmt.Sprint(it.sequence))
		return r, true, &unreadableError{err}
	}
	if !l.c.h.match.Takes(r.ev.Type) {
		return r, false, nil
	}
	r.event = eventHash(r.ev.Source, r.ev.ID)
	return r, true, nil
}

// marks makes the marks of a writer, if it is new.
func (l *lane) marks(ctx context.Context, stream, writer string) error {
	if l.writers[stream+" "+writer] {
		return nil
	}
	if err := l.c.db.exec(ctx, sql.InboxMarks, l.c.h.name, stream, writer, (l.c.partition+1)*buckets, buckets); err != nil {
		return fmt.Errorf("making the marks of %s: %w", writer, err)
	}
	l.writers[stream+" "+writer] = true
	return nil
}

// pass acknowledges an event that is done.
func (l *lane) pass(it *item) {
	l.passed[it.bucket] = max(l.passed[it.bucket], it.sequence)
	_ = it.msg.Ack() // a lost one comes again, and is known
}

// together handles several events in one transaction. It returns false if that is not to be
// done, or failed: they are then handled one by one.
func (l *lane) together(ctx context.Context, items []*item) bool {
	h := l.c.h
	if len(items) < 2 || h.mode == atLeastOnce || l.c.db == nil {
		return false
	}
	marks := newMarks()
	evs := make([]CloudEvent, 0, len(items))
	var at stamp
	for _, it := range items {
		r, mine, err := l.prepare(ctx, it)
		if err != nil {
			return false
		}
		if !mine {
			continue
		}
		if r.writer == "" || at.writer != "" && !r.sameTimeline(at) || !marks.add(it.bucket, r.position) || l.g.isBlocked(r.key) {
			return false
		}
		at = r.stamp
		marks.key(r.key)
		evs = append(evs, r.ev)
	}
	if len(evs) > 0 {
		tx, state, err := l.beginMarked(ctx, items[0].stream, at, marks)
		if err != nil {
			return false
		}
		if state != 0 {
			tx.rollback(ctx)
			l.behind = state == stateDone
			return false
		}
		if err := l.c.h.call(ctx, call{tx: tx.handle(), events: evs, attempt: 1}); err != nil {
			tx.rollback(ctx)
			return false
		}
		if err := tx.commit(ctx); err != nil {
			return false
		}
	}
	l.c.handled.Add(uint64(len(evs)))
	for _, it := range items {
		l.pass(it)
	}
	return true
}

// call runs the handler on some events, with the trace of the first.
func (h *handler) call(ctx context.Context, ca call) error {
	ctx, cancel := context.WithTimeout(withTrace(ctx, &ca.events[0]), h.timeout)
	defer cancel()
	if h.many || len(ca.events) == 1 {
		return h.run(ctx, ca)
	}
	for i := range ca.events {
		one := ca
		one.events = ca.events[i : i+1]
		if err := h.run(ctx, one); err != nil {
			return err
		}
	}
	return nil
}

// withTrace puts the event's trace into the context.
func withTrace(ctx context.Context, ev *CloudEvent) context.Context {
	return traceparent.Context(ctx, ev.Extensions["traceparent"], ev.Extensions["tracestate"])
}

// single handles one event: until it has taken effect or is parked. It returns false if
// the generation or the context ended before.
func (l *lane) single(ctx context.Context, it *item) bool {
	delay := firstWait
	for attempt := 1; ; {
		done, tried, err := l.attempt(ctx, it, attempt)
		switch {
		case done:
			return true
		case ctx.Err() != nil || l.isStopped():
			return false
		case tried:
			attempt++
			l.c.warn("event is not handled; it is tried again", "sequence", it.sequence, "error", err)
		case err != nil:
			l.c.warn("what the handler needs is away; the event is tried again", "sequence", it.sequence, "error", err)
		}
		if err == nil {
			continue // at once
		}
		pause := delay
		if retry, ok := errors.AsType[*laterError](err); ok {
			pause = retry.after
		} else {
			delay = min(2*delay, lastWait)
		}
		if l.pause(ctx, pause) != nil {
			return false
		}
	}
}

// pause waits, or until the lane is stopped.
func (l *lane) pause(ctx context.Context, d time.Duration) error {
	until := time.Now().Add(d)
	for {
		left := time.Until(until)
		if left <= 0 {
			return nil
		}
		if l.isStopped() {
			return errEnded
		}
		if err := wait.For(ctx, min(left, firstWait)); err != nil {
			return err
		}
	}
}

func (l *lane) isStopped() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopped
}

// laterError says when an event of a handler without a database is tried again.
type laterError struct {
	after time.Duration
	err   error
}

func (e *laterError) Error() string { return e.err.Error() }
func (e *laterError) Unwrap() error { return e.err }

// attempt handles an event once. It reports whether the event is done, and whether the
// handler was called.
func (l *lane) attempt(ctx context.Context, it *item, attempt int) (done, tried bool, err error) {
	r, mine, err := l.prepare(ctx, it)
	if _, ok := errors.AsType[*unreadableError](err); ok {
		return l.fail(ctx, &r, attempt, Park(err))
	}
	if err != nil {
		return false, false, err
	}
	if !mine {
		l.pass(it)
		return true, false, nil
	}
	if l.c.db != nil && l.g.isBlocked(r.key) {
		parked, done, err := l.park(ctx, &r, parking{onlyBehind: true})
		if err != nil || done {
			return done, false, err
		}
		if !parked {
			l.g.unblock(r.key)
		}
	}
	if l.c.h.mode == atLeastOnce {
		if !l.g.stillOurs(ctx) {
			l.g.end(end{pin: l.g.pin})
			return false, false, errLost
		}
		if err := l.c.h.call(ctx, call{events: []CloudEvent{r.ev}, attempt: attempt}); err != nil {
			return l.fail(ctx, &r, attempt, err)
		}
		l.c.handled.Add(1)
		l.pass(it)
		return true, true, nil
	}
	tx, state, err := l.begin(ctx, &r)
	if err != nil {
		return false, false, err
	}
	switch state {
	case stateDone:
		tx.rollback(ctx)
		l.behind = r.writer != ""
		l.c.repeated.Add(1)
		l.pass(it)
		return true, false, nil
	case stateBlocked:
		tx.rollback(ctx)
		l.g.block(r.key)
		return false, false, nil
	}
	if err := l.c.h.call(ctx, call{tx: tx.handle(), events: []CloudEvent{r.ev}, attempt: attempt}); err != nil {
		tx.rollback(ctx)
		return l.fail(ctx, &r, attempt, err)
	}
	if err := tx.commit(ctx); err != nil {
		if isOutage(err) {
			return false, false, err // whether it took effect, its mark says
		}
		return l.fail(ctx, &r, attempt, fmt.Errorf("committing: %w", err))
	}
	l.c.handled.Add(1)
	l.pass(it)
	return true, true, nil
}

// What the first statement of a transaction says.
const (
	stateDone    = 1
	stateBlocked = 2
)

// begin starts the transaction in which an event is marked as handled.
func (l *lane) begin(ctx context.Context, r *ready) (transaction, int, error) {
	if r.writer == "" {
		return l.c.db.begin(ctx, sql.InboxBeginForeign, l.c.h.name, r.event, null(r.key), l.c.patience())
	}
	m := newMarks()
	m.add(r.it.bucket, r.position)
	m.key(r.key)
	return l.beginMarked(ctx, r.it.stream, r.stamp, m)
}

// beginMarked starts a transaction that moves marks; at says of which writer and timeline they
// are.
func (l *lane) beginMarked(ctx context.Context, stream string, at stamp, m *marks) (transaction, int, error) {
	return l.c.db.begin(ctx, sql.InboxBegin, l.c.h.name, stream, at.writer, at.timeline, at.began, m.buckets(), m.lowest(), m.highest(), m.keys(), l.c.patience())
}

// isOutage reports whether an error is not the event's: the connection was lost, the server
// is going down or has no room, or transactions were in each other's way.
func isOutage(err error) bool {
	code := sqlState(err)
	if code == "" {
		_, network := errors.AsType[net.Error](err)
		return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, driver.ErrBadConn) ||
			errors.Is(err, errConnectionLost)
	}
	switch code[:2] {
	case sqlstate.ClassConnection, sqlstate.ClassRollback, sqlstate.ClassResources, sqlstate.ClassIntervention, sqlstate.ClassSystem:
		return true
	}
	return code == sqlstate.LockNotAvailable
}
