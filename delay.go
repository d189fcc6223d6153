package walrelay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
)

// delay is a session's way into the delay table.
//
// Nothing may be stored in a stream after an event that goes to the table,
// before that is committed there: the stream's last message says which of the
// events before it have an outcome. So the first event that goes to the table
// opens a stage, in which it waits with all that follow it; when the stage is
// full, or the server has sent no more, one write takes all that go to the
// table, and the others are published.
//
// The session's reader uses it, and the router from other goroutines by the
// methods Holds and Fail.
type delay struct {
	session *session
	number  int64 // of the session
	table   *retry.Table
	keys    *retry.Keys

	// passed is the LSN below which every event had its outcome in a session
	// before, and known has those above it that are in the table since then.
	passed replication.LSN
	known  map[event.Position]retry.State

	staged []staged
	bytes  int

	// transaction is the one that is being read, if transactions are published
	// whole.
	transaction *transaction
}

// staged is an event in the stage; with an entry it goes to the table.
type staged struct {
	router.Flight
	entry *retry.Entry
	// whole numbers the transaction that the event is published with; 0 if it is
	// published alone.
	whole int
}

// open finds out what the table has.
func (d *delay) open(ctx context.Context, conn *pgx.Conn, passed replication.LSN) error {
	cfg := d.session.relay.cfg
	s := d.session
	table, known, err := retry.Open(ctx, conn, retry.Config{
		Connect:      func(ctx context.Context) (*pgx.Conn, error) { return connect.Durable(ctx, cfg.Postgres) },
		Slot:         cfg.Slot,
		Session:      d.number,
		FailedBlocks: cfg.Retry.FailedHoldsKey,
		Frontier:     s.stream.Frontier(),
		Checkpoint:   s.checkpoint,
		Observe:      &tableObserver{metrics: s.relay.metrics, relay: s.relay, logged: make(map[bool]time.Time)},
	}, passed)
	if err != nil {
		return err
	}
	d.passed, d.known = passed, known
	d.transaction = newTransaction(cfg.Publish)
	d.table, d.keys = table, table.Keys()
	return nil
}

// take gives an event that was read its way: to the table, or to the router.
func (d *delay) take(ctx context.Context, change decode.Change, ticket uint64, fault *decode.RowError) error {
	ev := change.Event
	if replication.LSN(ev.Position.CommitLSN) < d.passed {
		d.session.outcome(ticket, outcomeAlreadyStored, ev)
		return nil
	}
	if len(d.known) > 0 {
		if state, ok := d.known[ev.Position]; ok {
			delete(d.known, ev.Position)
			if state.KeepsBlocked(d.session.relay.cfg.Retry.FailedHoldsKey) {
				d.keys.RestoreFailed(ev.PartitionKey)
			}
			d.transaction.count(ev)
			d.session.outcome(ticket, outcomeAlreadyDelayed, ev)
			return nil
		}
	}
	d.keys.ObserveReleased(ev)
	f := router.Flight{Event: ev, Ticket: ticket}
	switch {
	case fault != nil:
		// Trying again would not help: somebody has to change something.
		reason := fmt.Errorf("column %s: %w", fault.Column, fault.Err)
		entry := failedForGood(ev, reason)
		entry.Kind, entry.Content = string(change.Raw.Kind), change.Raw.Content
		d.fail(staged{Flight: f, entry: &entry}, reason)
		return nil //nolint:nilerr // the fault has become an entry
	case ev.Delay == nil && ev.ScheduledAt.After(ev.CommittedAt):
		entry := retry.NewEntry(ev, retry.Scheduled)
		d.stage(staged{Flight: f, entry: &entry})
		return nil
	case d.transaction != nil:
		return d.gather(ctx, f)
	}
	return d.route(ctx, f)
}

// route publishes an event, or stages it if it must not be published yet.
func (d *delay) route(ctx context.Context, f router.Flight) error {
	for {
		if len(d.staged) > 0 && !d.session.router.Holds(f.Event) {
			d.stage(staged{Flight: f})
			return nil
		}
		if len(d.staged) == 0 {
			if held, err := d.publish(ctx, f); err != nil || !held {
				return err
			}
		}
		if held, err := d.hold(ctx, f); err != nil || held {
			return err
		}
	}
}

// hold stages an event that has to wait behind an earlier one of its key, if it
// still has to.
func (d *delay) hold(ctx context.Context, f router.Flight) (held bool, err error) {
	held, err = d.keys.Hold(ctx, f.Event)
	if held {
		entry := retry.NewEntry(f.Event, retry.Held)
		d.stage(staged{Flight: f, entry: &entry})
	}
	return held, err
}

// publish publishes an event, or stages it as failed. It does neither if the
// event is held.
func (d *delay) publish(ctx context.Context, f router.Flight) (held bool, err error) {
	err = d.session.router.Publish(ctx, f)
	if errors.Is(err, router.ErrHeld) {
		return true, nil
	}
	if poison, ok := errors.AsType[*router.EventError](err); ok && poison.Class == router.Poison {
		d.failed(f, poison.Err)
		return false, nil
	}
	return false, err
}

// failed stages an event that could not be published.
func (d *delay) failed(f router.Flight, reason error) {
	entry := retry.NewFailure(f.Event, d.policy(f.Event), reason)
	d.fail(staged{Flight: f, entry: &entry}, reason)
}

func (d *delay) policy(ev *event.Event) retry.Policy {
	return d.session.relay.plan.Rules.Match(ev).Retry
}

// fail stages an event that has failed.
func (d *delay) fail(s staged, reason error) {
	d.keys.Fail(s.Event.PartitionKey, 0)
	d.session.sayFailed(s.entry, reason)
	d.stage(s)
}

// failedForGood is the entry of an event that is not tried again, whatever its
// row says: alone, without a person, it would not come any further.
func failedForGood(ev *event.Event, reason error) retry.Entry {
	entry := retry.NewFailure(ev, retry.Policy{MaxRetries: -1}, reason)
	entry.State, entry.Wait = retry.Failed, 0
	return entry
}

func (d *delay) stage(s staged) {
	d.staged = append(d.staged, s)
	d.bytes += s.Event.Size()
	if s.entry != nil {
		d.bytes += len(s.entry.Content)
	}
}

// settle empties the stage once it is full, or when idle says that nothing more
// will come for now.
func (d *delay) settle(ctx context.Context, idle bool) error {
	for len(d.staged) > 0 && (idle || len(d.staged) >= config.StagedEvents || d.bytes >= config.StagedBytes) {
		batch := d.staged
		d.staged, d.bytes = nil, 0
		var entries []retry.Entry
		for _, s := range batch {
			if s.entry != nil {
				entries = append(entries, *s.entry)
			}
		}
		if err := d.table.Add(ctx, entries); err != nil {
			return err
		}
		for _, s := range batch {
			if s.entry != nil {
				d.stored(s.Event, s.Ticket, s.entry.State)
			}
		}
		for len(batch) > 0 {
			rest, err := d.routeStaged(ctx, batch)
			if err != nil {
				return err
			}
			batch = rest
		}
	}
	return nil
}

// routeStaged publishes the first of the events that were in the stage, with its
// transaction if they belong together, and returns the rest.
func (d *delay) routeStaged(ctx context.Context, batch []staged) (rest []staged, err error) {
	first := batch[0]
	switch {
	case first.entry != nil:
	case first.whole == 0:
		err = d.route(ctx, first.Flight)
	default:
		flights := []router.Flight{first.Flight}
		for len(batch) > 1 && batch[1].whole == first.whole {
			batch = batch[1:]
			flights = append(flights, batch[0].Flight)
		}
		err = d.routeTransaction(ctx, flights)
	}
	return batch[1:], err
}

// stored gives an event that is in the table its outcome.
func (d *delay) stored(ev *event.Event, ticket uint64, state retry.State) {
	failedBlocks := d.session.relay.cfg.Retry.FailedHoldsKey
	if state == retry.Failed || state.KeepsBlocked(failedBlocks) {
		d.keys.Parked(ev.PartitionKey, !state.KeepsBlocked(failedBlocks))
	}
	d.session.outcome(ticket, string(state), ev)
}

// Holds implements [router.Delay].
func (d *delay) Holds(ev *event.Event) bool { return d.keys.Holds(ev) }

// Fail implements [router.Delay].
func (d *delay) Fail(ctx context.Context, failed []router.Flight, reason error, behind []router.Flight) error {
	if poison, ok := errors.AsType[*router.EventError](reason); ok {
		reason = poison.Err
	}
	waiting := make(map[string]int)
	for _, f := range behind {
		waiting[f.Event.PartitionKey]++
	}
	whole := len(failed) > 1
	entries := make([]retry.Entry, 0, len(failed)+len(behind))
	for _, f := range failed {
		key := f.Event.PartitionKey
		d.keys.Fail(key, waiting[key])
		delete(waiting, key)
		if whole {
			entries = append(entries, failedForGood(f.Event, notWhole(reason)))
		} else {
			entries = append(entries, retry.NewFailure(f.Event, d.policy(f.Event), reason))
		}
	}
	for _, f := range behind {
		entries = append(entries, retry.NewEntry(f.Event, retry.Held))
	}
	if err := d.table.Add(ctx, entries); err != nil {
		return err
	}
	if whole {
		m := d.session.relay.metrics
		m.apart.WithLabelValues(router.SplitRefused).Inc()
		m.failures.WithLabelValues(failureRefused).Add(float64(len(failed)))
		d.session.sayNotWhole(failed[0].Event.Position, reason)
	} else {
		d.session.sayFailed(&entries[0], reason)
	}
	for i, f := range failed {
		d.stored(f.Event, f.Ticket, entries[i].State)
	}
	for _, f := range behind {
		d.stored(f.Event, f.Ticket, retry.Held)
	}
	return nil
}

func (d *delay) close() {
	if d.table == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := d.table.Close(ctx); err != nil {
		d.session.relay.log.Debug().Err(err).Msg("closing the delay table")
	}
}

// sayFailed logs that an event could not be published.
func (s *session) sayFailed(entry *retry.Entry, reason error) {
	class := failureRefused
	if entry.Kind != "" {
		class = failureMalformed
	}
	s.relay.metrics.failures.WithLabelValues(class).Inc()
	s.limits.refused(reason)
	line := s.relay.log.Warn()
	text := "an event could not be published; it is tried again"
	if entry.State == retry.Failed {
		line = s.relay.log.Error()
		text = `an event has failed; see "walrelay delayed show", and redrive or discard it`
	}
	line = line.Str("id", entry.Event.ID).Str("type", entry.Event.Type).
		Str("table", entry.Event.Schema+"."+entry.Event.Table).Int("attempts", entry.Attempts).Str("reason", oneLine(reason))
	if entry.State == retry.Retrying {
		line = line.Stringer("in", entry.Wait.Round(time.Millisecond))
	}
	line.Msg(text)
}

// The labels of failures in the metrics.
const (
	failureMalformed = "malformed"
	failureRefused   = "refused"
)
