package walrelay

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/router"
)

// transaction collects the events of the transaction that is being read, so that
// they are published as one batch when its end has been read. Events that wait
// for something else, a time or an earlier event of their key, are not among
// them: they go to the delay table, and come back in other transactions.
type transaction struct {
	maxEvents, maxBytes int
	overflow            string

	flights []router.Flight
	// events and bytes are those of all its events, also of such that a session
	// before has put into the delay table.
	events, bytes int
	// verdict says why it cannot be one batch; nil while it can.
	verdict *verdict
	staged  int // numbers the transactions in the stage
}

// verdict says why a transaction cannot be one batch: in the router's word, and
// in a sentence.
type verdict struct {
	split  string
	reason error
}

// newTransaction returns nil if transactions are not published whole.
func newTransaction(cfg config.Publish) *transaction {
	if !cfg.Atomic {
		return nil
	}
	return &transaction{maxEvents: cfg.AtomicMaxEvents, maxBytes: cfg.MaxInFlightBytes / 2, overflow: cfg.AtomicOverflow}
}

// count counts an event.
func (t *transaction) count(ev *event.Event) {
	if t == nil {
		return
	}
	t.events++
	t.bytes += ev.Size()
}

// judge says why the transaction, as far as it was read, cannot be one batch.
func (t *transaction) judge() *verdict {
	switch {
	case t.events <= 1:
	case t.events > t.maxEvents:
		return &verdict{router.SplitEvents, fmt.Errorf("it has more than %d events (publish.atomic_max_events)", t.maxEvents)}
	case t.bytes > t.maxBytes:
		return &verdict{router.SplitBytes, fmt.Errorf("it has more than %d bytes (half of publish.max_in_flight_bytes)", t.maxBytes)}
	}
	return nil
}

// gather adds an event to the transaction.
func (d *delay) gather(ctx context.Context, f router.Flight) error {
	t := d.transaction
	if f.Event.Delay != nil && len(t.flights) == 0 {
		// What the delay table gives back was not together before.
		return d.route(ctx, f)
	}
	t.count(f.Event)
	if t.verdict != nil {
		return d.publishApart(ctx, f, *t.verdict)
	}
	t.flights = append(t.flights, f)
	if t.verdict = t.judge(); t.verdict == nil {
		return nil
	}
	flights := t.flights
	t.flights = nil
	return d.overflow(ctx, flights, *t.verdict)
}

// commit says that the end of the transaction was read.
func (d *delay) commit(ctx context.Context) error {
	t := d.transaction
	if t == nil {
		return nil
	}
	flights := t.flights
	t.flights, t.events, t.bytes, t.verdict = nil, 0, 0, nil
	return d.routeTransaction(ctx, flights)
}

// routeTransaction publishes events as one batch, or stages them if they must
// not be published yet.
func (d *delay) routeTransaction(ctx context.Context, flights []router.Flight) error {
	for len(flights) > 1 {
		if len(d.staged) > 0 {
			return d.stageTransaction(ctx, flights)
		}
		err := d.session.router.PublishTransaction(ctx, flights)
		culprit, isOne := errors.AsType[*router.TransactionError](err)
		switch {
		case err == nil:
			return nil
		case isOne && errors.Is(err, router.ErrHeld):
			held, err := d.hold(ctx, flights[culprit.Flight])
			if err != nil {
				return err
			}
			if held {
				flights = slices.Delete(flights, culprit.Flight, culprit.Flight+1)
			}
			continue
		}
		return d.refuse(ctx, flights, err)
	}
	for _, f := range flights {
		if err := d.route(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// stageTransaction stages events that are to be published as one batch.
func (d *delay) stageTransaction(ctx context.Context, flights []router.Flight) error {
	d.transaction.staged++
	for _, f := range flights {
		if d.session.router.Holds(f.Event) {
			held, err := d.hold(ctx, f)
			if err != nil {
				return err
			}
			if held {
				continue
			}
		}
		d.stage(staged{Flight: f, whole: d.transaction.staged})
	}
	return nil
}

// refuse deals with a transaction that the router did not take.
func (d *delay) refuse(ctx context.Context, flights []router.Flight, err error) error {
	if errors.Is(err, router.ErrSeveralStreams) {
		return d.overflow(ctx, flights, verdict{router.SplitStreams, err})
	}
	culprit, isOne := errors.AsType[*router.TransactionError](err)
	poison, isEvent := errors.AsType[*router.EventError](err)
	if !isOne || !isEvent || poison.Class != router.Poison {
		return err
	}
	if d.transaction.overflow == config.OverflowSplit {
		// The event goes first: it opens the stage in which the others wait.
		d.failed(flights[culprit.Flight], poison.Err)
		flights = slices.Delete(flights, culprit.Flight, culprit.Flight+1)
	}
	return d.overflow(ctx, flights, verdict{router.SplitRefused, fmt.Errorf("event %q: %w", poison.ID, poison.Err)})
}

// overflow deals with a transaction that cannot be one batch, as far as it was
// read.
func (d *delay) overflow(ctx context.Context, flights []router.Flight, v verdict) error {
	at := flights[0].Event.Position
	d.session.relay.metrics.apart.WithLabelValues(v.split).Inc()
	if d.transaction.overflow == config.OverflowSplit {
		d.session.relay.log.Warn().Stringer("position", at).Str("reason", oneLine(v.reason)).
			Msg("a transaction cannot be published as a whole; its events are published one by one")
	} else {
		d.session.sayNotWhole(at, v.reason)
	}
	for _, f := range flights {
		if err := d.publishApart(ctx, f, v); err != nil {
			return err
		}
	}
	return nil
}

// publishApart deals with one event of a transaction that cannot be one batch.
func (d *delay) publishApart(ctx context.Context, f router.Flight, v verdict) error {
	if d.transaction.overflow == config.OverflowSplit {
		f.Split = v.split
		return d.route(ctx, f)
	}
	entry := failedForGood(f.Event, notWhole(v.reason))
	d.keys.Fail(f.Event.PartitionKey, 0)
	d.session.relay.metrics.failures.WithLabelValues(failureRefused).Inc()
	d.stage(staged{Flight: f, entry: &entry})
	return nil
}

// notWhole is the reason why each event of a transaction fails.
func notWhole(reason error) error {
	return fmt.Errorf("its transaction cannot be published as a whole: %w; redrive its events to publish them one by one, or set publish.atomic_overflow to split", reason)
}

// sayNotWhole logs that a transaction has failed.
func (s *session) sayNotWhole(at event.Position, reason error) {
	s.relay.log.Error().Stringer("position", at).Str("reason", oneLine(reason)).
		Msg(`a transaction cannot be published as a whole, and its events have failed; see "walrelay delayed list", and redrive or discard them`)
}
