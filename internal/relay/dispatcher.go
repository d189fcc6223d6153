package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
)

// sender publishes events, as [router.Router] does.
type sender interface {
	Publish(ctx context.Context, f router.Flight) error
	PublishTransaction(ctx context.Context, flights []router.Flight) error
	Blocked(ev *event.Event) bool
}

// dispatcher takes every event that is read its way: to its stream, or into the
// delay table.
//
// Nothing may be stored in a stream after an event that goes to the table, before
// that is committed there: the stream's last message says which of the events
// before it are settled. So the first event that goes to the table puts up a
// barrier, at which it waits with all that follow it; when there are many, or the
// server has sent no more, one write takes all that go to the table, and the others
// are published.
//
// Used by one goroutine. It owns no connection and no session.
type dispatcher struct {
	router  sender
	parking *parking

	// passed is the LSN below which every event was settled in a session before,
	// and known has those above it that are in the table since then.
	passed replication.LSN
	known  map[event.Position]retry.State

	barrier []waiting
	bytes   int // of the events there

	// recent knows rows that were read, as far as they may move.
	recent *recent

	// batch is the transaction that is being read, if transactions are published as
	// batches; nil otherwise.
	batch *batch
}

// waiting is an event at the barrier; with an entry it goes to the table.
type waiting struct {
	router.Flight

	entry *retry.Entry
	// batch numbers the batch that the event is published with; 0 if it is
	// published alone.
	batch int
}

// insert dispatches an event that was read, with its ticket. rowErr is why it could
// not be decoded, if so.
func (d *dispatcher) insert(ctx context.Context, change decode.Change, ticket uint64, rowErr *decode.RowError) error {
	ev := change.Event
	d.parking.observe.read(ev)
	if replication.LSN(ev.Position.CommitLSN) < d.passed {
		d.parking.observe.settle(ticket, outcomeAlreadyStored, ev)
		return nil
	}
	if len(d.known) > 0 {
		if state, ok := d.known[ev.Position]; ok {
			delete(d.known, ev.Position)
			if state.KeepsBlocked(d.parking.failedBlocks) {
				d.parking.keys.RestoreFailed(ev.PartitionKey)
			}
			d.batch.count(ev)
			d.parking.observe.settle(ticket, outcomeAlreadyDelayed, ev)
			return nil
		}
	}
	d.parking.keys.ObserveReleased(ev)
	f := router.Flight{Event: ev, Ticket: ticket}
	if rowErr == nil && d.recent.moved(ev) {
		d.parking.observe.settle(ticket, outcomeMoved, ev)
		return nil
	}
	switch {
	case rowErr != nil:
		// Trying again would not help: somebody has to change something.
		reason := fmt.Errorf("column %s: %w", rowErr.Column, rowErr.Err)
		entry := failedForGood(ev, reason)
		entry.Kind, entry.Content = string(change.Raw.Kind), change.Raw.Content
		d.fail(waiting{Flight: f, entry: &entry}, reason)
		if errors.Is(rowErr, decode.ErrTooLarge) {
			return d.spoil(ctx, ev, reason)
		}
		return nil
	case ev.Delay == nil && ev.ScheduledAt.After(ev.CommittedAt):
		entry := retry.NewEntry(ev, retry.Scheduled)
		d.wait(waiting{Flight: f, entry: &entry})
		return nil
	case d.batch != nil:
		return d.gather(ctx, f)
	}
	return d.dispatch(ctx, f)
}

// dispatch publishes an event, or has it wait at the barrier if it must not be
// published yet.
func (d *dispatcher) dispatch(ctx context.Context, f router.Flight) error {
	for {
		if len(d.barrier) > 0 && !d.router.Blocked(f.Event) {
			d.wait(waiting{Flight: f})
			return nil
		}
		if len(d.barrier) == 0 {
			if blocked, err := d.publish(ctx, f); err != nil || !blocked {
				return err
			}
		}
		if held, err := d.hold(ctx, f); err != nil || held {
			return err
		}
	}
}

// hold sends an event to the table that has to wait behind an earlier one of its
// key, if it still has to.
func (d *dispatcher) hold(ctx context.Context, f router.Flight) (held bool, err error) {
	held, err = d.parking.keys.Hold(ctx, f.Event)
	if held {
		entry := retry.NewEntry(f.Event, retry.Held)
		d.wait(waiting{Flight: f, entry: &entry})
	}
	return held, err
}

// publish publishes an event, or sends it to the table as failed. It does neither
// if the event's key is blocked.
func (d *dispatcher) publish(ctx context.Context, f router.Flight) (blocked bool, err error) {
	err = d.router.Publish(ctx, f)
	if errors.Is(err, router.ErrBlocked) {
		return true, nil
	}
	if poison, ok := errors.AsType[*router.EventError](err); ok && poison.Class == router.Poison {
		d.failed(f, poison.Err)
		return false, nil
	}
	return false, err
}

// failed sends an event to the table that could not be published.
func (d *dispatcher) failed(f router.Flight, reason error) {
	entry := retry.NewFailure(f.Event, d.parking.policy(f.Event), reason)
	d.fail(waiting{Flight: f, entry: &entry}, reason)
}

// fail sends an event to the table that has failed.
func (d *dispatcher) fail(w waiting, reason error) {
	d.parking.keys.Fail(w.Event.PartitionKey, 0)
	d.parking.observe.failed(w.entry, reason)
	d.wait(w)
}

// wait adds an event to those at the barrier.
func (d *dispatcher) wait(w waiting) {
	d.barrier = append(d.barrier, w)
	d.bytes += w.Event.Size()
	if w.entry != nil {
		d.bytes += len(w.entry.Content)
	}
}

// flush takes the barrier down once many events wait there, or when idle says that
// nothing more will come for now.
func (d *dispatcher) flush(ctx context.Context, idle bool) error {
	for len(d.barrier) > 0 && (idle || len(d.barrier) >= config.StagedEvents || d.bytes >= config.StagedBytes) {
		events := d.barrier
		d.barrier, d.bytes = nil, 0
		var entries []retry.Entry
		for _, w := range events {
			if w.entry != nil {
				entries = append(entries, *w.entry)
			}
		}
		if err := d.parking.table.Add(ctx, entries); err != nil {
			return err
		}
		for _, w := range events {
			if w.entry != nil {
				d.parking.added(w.Flight, w.entry.State, &entries[0])
				entries = entries[1:]
			}
		}
		for len(events) > 0 {
			rest, err := d.dispatchFirst(ctx, events)
			if err != nil {
				return err
			}
			events = rest
		}
	}
	return nil
}

// dispatchFirst publishes the first of the events that were at the barrier, with
// its batch if it has one, and returns the rest.
func (d *dispatcher) dispatchFirst(ctx context.Context, events []waiting) (rest []waiting, err error) {
	first := events[0]
	switch {
	case first.entry != nil:
	case first.batch == 0:
		err = d.dispatch(ctx, first.Flight)
	default:
		flights := []router.Flight{first.Flight}
		for len(events) > 1 && events[1].batch == first.batch {
			events = events[1:]
			flights = append(flights, events[0].Flight)
		}
		err = d.dispatchBatch(ctx, flights)
	}
	return events[1:], err
}
