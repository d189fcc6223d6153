package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/wait"
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
func (p *restorer) Settled(uint64, router.Outcome, *event.Event, string, time.Duration) {}

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
		return p.each(working, &fencedTarget{restorer: p, router: rt})
	})
	return group.Wait()
}

// each puts what is missing after the last position into a target.
func (p *restorer) each(ctx context.Context, target Target) error {
	source, err := p.repair.source(p.stream, p.last)
	if err != nil {
		return err
	}
	defer source.Close(ctx)
	return copyAll(ctx, source, target, p)
}

// skip reports whether an event is not put into the target: it is lost, or NATS does not
// take it. What is lost is counted and said once.
func (p *restorer) skip(entry *Entry) (bool, error) {
	position := entry.Event.Position
	if p.refused[position] {
		return true, nil
	}
	if target := p.repair.plan.Rules.Match(entry.Event); entry.Lost == "" && (target.Drop || target.Stream != p.stream) {
		entry.Lost = "a route sends it elsewhere now"
	}
	if entry.Lost == "" || position.Compare(p.said) <= 0 {
		return entry.Lost != "", nil
	}
	p.said = position
	return true, p.lose(entry.Event, entry.Lost)
}

// flushed counts what a target has taken for good.
func (p *restorer) flushed(n int, last event.Position) { p.restored, p.last = p.restored+n, last }

// fencedTarget publishes into the stream that has lost events.
type fencedTarget struct {
	restorer *restorer
	router   *router.Router
}

// Put implements [Target].
func (t *fencedTarget) Put(ctx context.Context, entry Entry) error {
	flight := router.Flight{Event: entry.Event}
	if entry.Together && t.restorer.repair.cfg.Publish.Atomic {
		flight.Split = router.SplitRepair
	}
	err := t.router.Publish(ctx, flight)
	if poison, ok := errors.AsType[*router.EventError](err); ok && poison.Class == router.Poison {
		return &refusal{entry.Event, poison.Err}
	}
	return err
}

// Flush implements [Target]: it waits until everything that was published is stored, and
// saves how far that is.
func (t *fencedTarget) Flush(ctx context.Context) error {
	for t.router.InFlight() > 0 {
		if err := wait.For(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	state := t.router.Progress()[t.restorer.stream]
	state.Repairing = true
	return t.restorer.repair.save(ctx, t.restorer.stream, state)
}

// dryTarget takes everything and publishes nothing.
type dryTarget struct {
	say func(*event.Event) error // nil to say nothing
}

// Put implements [Target].
func (t dryTarget) Put(_ context.Context, entry Entry) error {
	if t.say == nil {
		return nil
	}
	return t.say(entry.Event)
}

// Flush implements [Target].
func (dryTarget) Flush(context.Context) error { return nil }

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
