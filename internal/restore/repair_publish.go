package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/outboxrows"
	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/journal"
	"github.com/walrelay/walrelay/router"
)

// restorer publishes what one stream has lost, and counts.
type restorer struct {
	repair *repair
	stream string

	restored, lost int // also of those that would be
	// last is the position up to which everything is counted, and said the one
	// up to which it is said what is lost.
	last, said event.Position
	// refused are events that NATS does not take.
	refused map[event.Position]bool
}

// refusal says that NATS does not take an event.
type refusal struct {
	ev  *event.Event
	err error
}

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

// Settled implements [router.Observer].
func (p *restorer) Settled(uint64, router.Outcome, *event.Event, time.Duration) {}

// Paused implements [router.Observer].
func (p *restorer) Paused(stream string, reason error) {
	if reason == nil {
		p.repair.options.Log.Info().Str("stream", stream).Msg("the stream is resumed")
		return
	}
	p.repair.options.Log.Warn().Str("stream", stream).Err(reason).Msg("the stream is paused and tried again")
}

// Split implements [router.Observer]: nothing is sent as a batch here.
func (p *restorer) Split(string) {}

// Blocked implements [router.Parker].
func (p *restorer) Blocked(*event.Event) bool { return false }

// Park implements [router.Parker]. Those behind the event are read again.
func (p *restorer) Park(_ context.Context, failed []router.Flight, reason error, _ []router.Flight) error {
	if poison, ok := errors.AsType[*router.EventError](reason); ok {
		reason = poison.Err
	}
	return &refusal{failed[0].Event, reason}
}

// restore publishes. The stream counts as incomplete until it returns nil.
func (p *restorer) restore(ctx context.Context, loss *router.Loss) error {
	state := router.StreamState{
		Created: loss.Created, LastSequence: loss.LastSequence, Position: loss.After.String(), Repairing: true,
	}
	if loss.Recorded.Repairing && !loss.Recreated() && loss.LastSequence >= loss.Recorded.LastSequence {
		// If the messages are gone, the writer counts from what was recorded.
		state.LastSequence, state.Position = loss.Recorded.LastSequence, loss.Recorded.Position
	}
	if err := p.repair.save(ctx, p.stream, state); err != nil {
		return err
	}
	if err := p.repair.checkpoint.SaveKey(ctx, p.repair.conn); err != nil {
		return err
	}
	p.last, p.said = loss.After, loss.After
	for {
		err := p.round(ctx)
		refused, ok := errors.AsType[*refusal](err)
		switch {
		case err == nil:
			state := p.repair.recorded.Streams[p.stream]
			state.Repairing = false
			return p.repair.save(ctx, p.stream, state)
		case !ok:
			return err
		case !p.repair.options.AcceptLoss:
			return fmt.Errorf("event %q of table %s.%s is refused: %w; change that and run \"walrelay repair\" again, or go on without it: \"walrelay repair --accept-loss\"",
				refused.ev.ID, refused.ev.Schema, refused.ev.Table, refused.err)
		}
		// Again, from what was written down on, without that event. What was under
		// way on the connection was cancelled.
		if p.repair.conn.IsClosed() {
			if p.repair.conn, err = connect.Durable(ctx, p.repair.cfg.Postgres); err != nil {
				return err
			}
		}
		p.refused[refused.ev.Position] = true
		if err := p.lose(refused.ev, refused.Error()); err != nil {
			return err
		}
	}
}

// round opens the stream, and publishes what is missing after the last position
// that is written down, until all of it is stored or something fails.
func (p *restorer) round(ctx context.Context) (err error) {
	rt := p.repair.router(p, router.Stream{Name: p.stream})
	defer func() { err = errors.Join(err, rt.Close()) }()
	if err := rt.Open(ctx, p.repair.recorded.Streams); err != nil {
		return err
	}
	group, working := errgroup.WithContext(ctx)
	running, stop := context.WithCancel(working)
	group.Go(func() error { return rt.Run(running) })
	group.Go(func() error {
		defer stop()
		return p.each(working, rt)
	})
	return group.Wait()
}

// each goes through what is missing, in batches. Without a router it only finds
// out what can be brought back.
func (p *restorer) each(ctx context.Context, rt *router.Router) error {
	rows, err := outboxrows.New(p.repair.cfg, p.repair.plan.Decode)
	if err != nil {
		return err
	}
	defer rows.Close(ctx)
	journal := p.repair.journal(p.stream, p.last)
	ahead, more, err := journal.next(ctx)
	if err != nil {
		return err
	}
	for more {
		var batch []journalled
		for more && len(batch) < repairBatch {
			batch = append(batch, ahead)
			if ahead, more, err = journal.next(ctx); err != nil {
				return err
			}
			if more && ahead.Position.CommitLSN == batch[len(batch)-1].Position.CommitLSN {
				batch[len(batch)-1].together, ahead.together = true, true
			}
		}
		restored, err := p.batch(ctx, rt, rows, batch)
		if err != nil {
			return err
		}
		if rt != nil {
			if err := p.settle(ctx, rt); err != nil {
				return err
			}
		}
		p.restored += restored
		p.last = batch[len(batch)-1].Position
	}
	return nil
}

// batch publishes the events of a batch, and returns how many there are.
func (p *restorer) batch(ctx context.Context, rt *router.Router, rows *outboxrows.Reader, batch []journalled) (restored int, err error) {
	entries := make([]journal.Entry, len(batch))
	for i := range batch {
		entries[i] = batch[i].Entry
	}
	if err := rows.Ask(ctx, entries); err != nil {
		return 0, err
	}
	for _, entry := range batch {
		ev, fault, err := rows.Event(entry.Entry)
		if err != nil {
			return 0, err
		}
		why := ""
		if rowErr, ok := errors.AsType[*decode.RowError](fault); ok {
			why = fmt.Sprintf("column %s: %v", rowErr.Column, rowErr.Err)
		} else if fault != nil {
			why = fault.Error()
		}
		if target := p.repair.plan.Rules.Match(ev); why == "" && (target.Drop || target.Stream != p.stream) {
			why = "a route sends it elsewhere now"
		}
		switch {
		case p.refused[entry.Position]:
		case why != "":
			if entry.Position.Compare(p.said) > 0 {
				err = p.lose(ev, why)
				p.said = entry.Position
			}
		default:
			restored++
			err = p.restoreOne(ctx, rt, ev, entry.together)
		}
		if err != nil {
			return 0, err
		}
	}
	return restored, rows.End()
}

// restoreOne publishes one event; without a router, it says that it would.
func (p *restorer) restoreOne(ctx context.Context, rt *router.Router, ev *event.Event, together bool) error {
	if rt == nil {
		if p.repair.options.DryRun {
			return p.tell(ev, "")
		}
		return nil
	}
	flight := router.Flight{Event: ev}
	if together && p.repair.cfg.Publish.Atomic {
		flight.Split = router.SplitRepair
	}
	err := rt.Publish(ctx, flight)
	if poison, ok := errors.AsType[*router.EventError](err); ok && poison.Class == router.Poison {
		return &refusal{ev, poison.Err}
	}
	return err
}

// settle waits until everything that was published is stored, and writes down
// how far that is.
func (p *restorer) settle(ctx context.Context, rt *router.Router) error {
	for rt.InFlight() > 0 {
		if err := wait.For(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	state := rt.Progress()[p.stream]
	state.Repairing = true
	return p.repair.save(ctx, p.stream, state)
}

// lose counts an event that cannot be brought back, and says so.
func (p *restorer) lose(ev *event.Event, why string) error {
	p.lost++
	return p.tell(ev, why)
}

func (p *restorer) tell(ev *event.Event, why string) error {
	if p.repair.options.Event == nil {
		return nil
	}
	return p.repair.options.Event(MissingEvent{
		Stream: p.stream, Position: ev.Position.String(), ID: ev.ID, Type: ev.Type, Table: ev.Schema + "." + ev.Table, Lost: why,
	})
}
