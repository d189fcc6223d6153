package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/walrelay/walrelay/event"
)

// Outcome says what became of an event.
type Outcome uint8

const (
	// Published means that JetStream acknowledged it.
	Published Outcome = iota
	// AlreadyStored means that the stream had it from a run before.
	AlreadyStored
	// Dropped means that a rule says not to publish it.
	Dropped
)

func (o Outcome) String() string {
	switch o {
	case AlreadyStored:
		return "already_stored"
	case Dropped:
		return "dropped"
	case Published:
	}
	return "published"
}

// Sink hears what becomes of events. Its methods must not block, and must be
// safe for concurrent use.
type Sink interface {
	// Done is called once for every ticket. Took is the time from sending to
	// the acknowledgement, if there was one.
	Done(ticket uint64, outcome Outcome, ev *event.Event, took time.Duration)
	// Held is called when a stream is held in place, with the reason, whenever
	// the reason changes, and with nil when it flows again.
	Held(stream string, reason error)
}

// Config of a [Router].
type Config struct {
	// Streams to publish to; the rules may name no others.
	Streams []Stream
	Rules   *Rules
	// Origin names this relay in the messages of owned streams.
	Origin Origin
	// MaxInFlight and MaxInFlightBytes bound, for each stream, the events
	// that are sent and have no outcome. One event larger than the bytes
	// passes alone.
	MaxInFlight, MaxInFlightBytes int
	// AckTimeout is how long an acknowledgement may take before the stream is
	// read to find out.
	AckTimeout time.Duration
	Sink       Sink
	Log        zerolog.Logger
	// Domain is the JetStream domain; empty for the connection's own.
	Domain string
}

// Stream names a stream, and says whether others write into it too.
type Stream struct {
	Name   string
	Shared bool
}

// Router publishes events, each to the stream that the rules say.
type Router struct {
	cfg     Config
	nc      *nats.Conn
	writers map[string]*writer
	ordered []*writer
}

// New returns a router that publishes over nc, which it does not close.
func New(nc *nats.Conn, cfg Config) (*Router, error) {
	var options []nats.JSOpt
	if cfg.Domain != "" {
		options = append(options, nats.Domain(cfg.Domain))
	}
	js, err := nc.JetStream(options...)
	if err != nil {
		return nil, fmt.Errorf("using JetStream: %w", err)
	}
	r := &Router{cfg: cfg, nc: nc, writers: make(map[string]*writer, len(cfg.Streams))}
	for _, stream := range cfg.Streams {
		w := newWriter(nc, js, writerConfig{
			stream:           stream.Name,
			shared:           stream.Shared,
			origin:           cfg.Origin,
			maxInFlight:      cfg.MaxInFlight,
			maxInFlightBytes: cfg.MaxInFlightBytes,
			ackTimeout:       cfg.AckTimeout,
			sink:             cfg.Sink,
			log:              cfg.Log,
		})
		r.writers[stream.Name] = w
		r.ordered = append(r.ordered, w)
	}
	return r, nil
}

// Open finds out what every stream has. It blocks until all have answered;
// those that do not are held. recorded is what is known of the streams from
// runs before. A *ConfigurationError says that retrying is of no use.
func (r *Router) Open(ctx context.Context, recorded map[string]StreamState) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range r.ordered {
		var known *StreamState
		if state, ok := recorded[w.cfg.stream]; ok {
			known = &state
		}
		group.Go(func() error { return w.open(ctx, known) })
	}
	return group.Wait()
}

// Run keeps the streams in order until the context ends; it returns an error
// only when somebody has to change something. Open comes first.
func (r *Router) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range r.ordered {
		group.Go(func() error { return w.run(ctx) })
	}
	changes := r.nc.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING)
	defer r.nc.RemoveStatusListener(changes)
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-changes:
				for _, w := range r.ordered {
					w.interrupted()
				}
			}
		}
	})
	return group.Wait()
}

// Publish takes an event. It returns when the event is sent or has its
// outcome, and blocks while the window of its stream is full or the stream is
// held, until the context ends. Not safe for concurrent use with itself.
func (r *Router) Publish(ctx context.Context, ev *event.Event, ticket uint64) error {
	target := r.cfg.Rules.Match(ev)
	if target.Drop {
		r.cfg.Sink.Done(ticket, Dropped, ev, 0)
		return nil
	}
	w := r.writers[target.Stream]
	if w == nil {
		return &ConfigurationError{
			What:   fmt.Sprintf("a route sends events of type %q to stream %q, which is not configured", ev.Type, target.Stream),
			Remedy: "add it to streams",
		}
	}
	if err := w.awaitSchedule(ctx, ev); err != nil {
		return err
	}
	return w.publish(ctx, ev, target, ticket)
}

// awaitSchedule holds the stream until a scheduled event is due.
func (w *writer) awaitSchedule(ctx context.Context, ev *event.Event) error {
	if ev.ScheduledAt.IsZero() {
		return nil
	}
	wait := time.Until(ev.ScheduledAt)
	if wait <= 0 {
		return nil
	}
	w.cfg.sink.Held(w.cfg.stream, fmt.Errorf("event %q of table %s.%s is scheduled for %s", ev.ID, ev.Schema, ev.Table, ev.ScheduledAt.Format(time.RFC3339)))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		w.cfg.sink.Held(w.cfg.stream, nil)
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for a scheduled event: %w", context.Cause(ctx))
	}
}

// InFlight returns how many events are sent and have no outcome.
func (r *Router) InFlight() int {
	n := 0
	for _, w := range r.ordered {
		n += w.inFlight()
	}
	return n
}

// Progress returns how far each owned stream has come: every event up to there
// has its outcome. A shared stream has no state that a later run could use.
func (r *Router) Progress() map[string]StreamState {
	states := make(map[string]StreamState, len(r.ordered))
	for _, w := range r.ordered {
		if w.cfg.shared {
			continue
		}
		states[w.cfg.stream] = w.progress()
	}
	return states
}

// Close ends the subscriptions. Run has returned before.
func (r *Router) Close() error {
	var errs []error
	for _, w := range r.ordered {
		errs = append(errs, w.close())
	}
	return errors.Join(errs...)
}
