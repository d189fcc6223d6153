package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/router"
)

// batch collects the events of the transaction that is being read, so that
// they are published as one batch when its end has been read. Events that wait
// for something else, a time or an earlier event of their key, are not among
// them: they go to the delay table, and come back in other transactions.
type batch struct {
	maxEvents, maxBytes int
	overflow            string

	flights []router.Flight
	// events and bytes are those of all its events, also of such that a session
	// before has put into the delay table.
	events, bytes int
	// reason says why it cannot be one batch; nil while it can.
	reason *splitReason
	// spoilt is the reason as long as no other event of the transaction was read.
	spoilt *splitReason
	number int // of the last batch at the barrier
}

// splitReason says why a transaction cannot be one batch: in the router's word, and
// in a sentence.
type splitReason struct {
	word string
	err  error
}

// newBatch returns nil if transactions are not published as batches.
func newBatch(cfg config.Publish) *batch {
	if !cfg.Atomic {
		return nil
	}
	return &batch{maxEvents: cfg.AtomicMaxEvents, maxBytes: cfg.MaxInFlightBytes / 2, overflow: cfg.AtomicOverflow}
}

// count counts an event.
func (t *batch) count(ev *event.Event) {
	if t == nil {
		return
	}
	t.events++
	t.bytes += ev.Size()
}

// judge says why the transaction, as far as it was read, cannot be one batch.
func (t *batch) judge() *splitReason {
	switch {
	case t.events <= 1:
	case t.events > t.maxEvents:
		return &splitReason{router.SplitEvents, fmt.Errorf("it has more than %d events (publish.atomic_max_events)", t.maxEvents)}
	case t.bytes > t.maxBytes:
		return &splitReason{router.SplitBytes, fmt.Errorf("it has more than %d bytes (half of publish.max_in_flight_bytes)", t.maxBytes)}
	}
	return nil
}

// gather adds an event to the transaction.
func (d *dispatcher) gather(ctx context.Context, f router.Flight) error {
	t := d.batch
	if f.Event.Delay != nil && len(t.flights) == 0 {
		// What is re-emitted was not together before.
		return d.dispatch(ctx, f)
	}
	t.count(f.Event)
	if t.spoilt != nil {
		t.reason, t.spoilt = t.spoilt, nil
		return d.split(ctx, []router.Flight{f}, *t.reason)
	}
	if t.reason != nil {
		return d.dispatchSplit(ctx, f, *t.reason)
	}
	t.flights = append(t.flights, f)
	if t.reason = t.judge(); t.reason == nil {
		return nil
	}
	flights := t.flights
	t.flights = nil
	return d.split(ctx, flights, *t.reason)
}

// spoil says that one event of the transaction, which has gone to the delay table, can be
// in no batch.
func (d *dispatcher) spoil(ctx context.Context, ev *event.Event, reason error) error {
	t := d.batch
	if t == nil || ev.Delay != nil || t.reason != nil || t.spoilt != nil {
		return nil
	}
	t.events++
	why := &splitReason{router.SplitRefused, fmt.Errorf("event %q: %w", ev.ID, reason)}
	flights := t.flights
	if len(flights) == 0 {
		t.spoilt = why
		return nil
	}
	t.flights, t.reason = nil, why
	return d.split(ctx, flights, *why)
}

// commit says that the end of the transaction was read.
func (d *dispatcher) commit(ctx context.Context) error {
	t := d.batch
	if t == nil {
		return nil
	}
	flights := t.flights
	t.flights, t.events, t.bytes, t.reason, t.spoilt = nil, 0, 0, nil, nil
	return d.dispatchBatch(ctx, flights)
}

// dispatchBatch publishes events as one batch, or stages them if they must
// not be published yet.
func (d *dispatcher) dispatchBatch(ctx context.Context, flights []router.Flight) error {
	for len(flights) > 1 {
		if len(d.barrier) > 0 {
			return d.waitAsBatch(ctx, flights)
		}
		err := d.router.PublishTransaction(ctx, flights)
		failed, isOne := errors.AsType[*router.TransactionError](err)
		switch {
		case err == nil:
			return nil
		case isOne && errors.Is(err, router.ErrBlocked):
			held, err := d.hold(ctx, flights[failed.Flight])
			if err != nil {
				return err
			}
			if held {
				flights = slices.Delete(flights, failed.Flight, failed.Flight+1)
			}
			continue
		}
		return d.refuse(ctx, flights, err)
	}
	for _, f := range flights {
		if err := d.dispatch(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// waitAsBatch stages events that are to be published as one batch.
func (d *dispatcher) waitAsBatch(ctx context.Context, flights []router.Flight) error {
	d.batch.number++
	for _, f := range flights {
		if d.router.Blocked(f.Event) {
			held, err := d.hold(ctx, f)
			if err != nil {
				return err
			}
			if held {
				continue
			}
		}
		d.wait(waiting{Flight: f, batch: d.batch.number})
	}
	return nil
}

// refuse deals with a transaction that the router did not take.
func (d *dispatcher) refuse(ctx context.Context, flights []router.Flight, err error) error {
	if errors.Is(err, router.ErrSeveralStreams) {
		return d.split(ctx, flights, splitReason{router.SplitStreams, err})
	}
	failed, isOne := errors.AsType[*router.TransactionError](err)
	poison, isEvent := errors.AsType[*router.EventError](err)
	if !isOne || !isEvent || poison.Class != router.Poison {
		return err
	}
	if d.batch.overflow == config.OverflowSplit {
		// The event goes first: it opens the stage in which the others wait.
		d.failed(flights[failed.Flight], poison.Err)
		flights = slices.Delete(flights, failed.Flight, failed.Flight+1)
	}
	return d.split(ctx, flights, splitReason{router.SplitRefused, fmt.Errorf("event %q: %w", poison.ID, poison.Err)})
}

// split deals with a transaction that cannot be one batch, as far as it was read.
func (d *dispatcher) split(ctx context.Context, flights []router.Flight, why splitReason) error {
	at := flights[0].Event.Position
	if d.batch.overflow == config.OverflowSplit {
		d.parking.observe.batchSplit(at, why.word, why.err)
	} else {
		d.parking.observe.batchFailed(at, why.word, why.err, 0)
	}
	for _, f := range flights {
		if err := d.dispatchSplit(ctx, f, why); err != nil {
			return err
		}
	}
	return nil
}

// dispatchSplit deals with one event of a transaction that cannot be one batch.
func (d *dispatcher) dispatchSplit(ctx context.Context, f router.Flight, why splitReason) error {
	if d.batch.overflow == config.OverflowSplit {
		f.Split = why.word
		return d.dispatch(ctx, f)
	}
	entry := failedForGood(f.Event, notOneBatch(why.err))
	d.parking.keys.Fail(f.Event.PartitionKey, 0)
	d.parking.observe.batchFailedMore(1)
	d.wait(waiting{Flight: f, entry: &entry})
	return nil
}
