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
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/journal"
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
	// Duplicate means that the stream has an event with the same source and id,
	// which came from another row, and does not store this one.
	Duplicate
)

// Outcomes is how many there are.
const Outcomes = int(Duplicate) + 1

func (o Outcome) String() string {
	switch o {
	case AlreadyStored:
		return "already_stored"
	case Duplicate:
		return "duplicate"
	case Dropped:
		return "dropped"
	case Published:
	}
	return "published"
}

// Observer hears what becomes of events. Its methods must not block, and must be
// safe for concurrent use.
type Observer interface {
	// Settled is called once for every ticket. Took is the time from sending to
	// the acknowledgement, if there was one; stream is empty for an event that no stream gets.
	Settled(ticket uint64, outcome Outcome, ev *event.Event, stream string, took time.Duration)
	// Paused is called when a stream is paused, with the reason, whenever
	// the reason changes, and with nil when it is resumed.
	Paused(stream string, reason error)
	// Split is called when a stream refuses a transaction as one batch, and its
	// events are published one by one.
	Split(stream string)
}

// Flight is an event on its way, not settled.
type Flight struct {
	Event  *event.Event
	Ticket uint64
	// Split says, in a word, why the event is published apart from its
	// transaction although transactions are published whole; empty if it is not.
	Split string
}

// Parker takes events out of the streams' way.
type Parker interface {
	// Blocked reports whether an event has to wait behind an earlier one of its
	// key. It must not block.
	Blocked(ev *event.Event) bool
	// Park records that an event could not be published, for a reason of its
	// own, or those of a transaction that could not be published whole, and with
	// it the events of their keys that were taken after them. It blocks until
	// that cannot be lost any more, and settles them; until then
	// nothing more is stored in the stream.
	Park(ctx context.Context, failed []Flight, reason error, behind []Flight) error
}

// ErrBlocked says that an event was not taken because it has to wait behind an
// earlier one of its key.
var ErrBlocked = errors.New("an earlier event of the key is not published yet")

// Config of a [Router].
type Config struct {
	// Streams to publish to; the rules may name no others.
	Streams []Stream
	Rules   *Rules
	// Origin names this relay in the messages of owned streams.
	Origin Origin
	// MaxInFlight and MaxInFlightBytes bound, for each stream, the events
	// that are sent and are not settled. One event larger than the bytes
	// passes alone.
	MaxInFlight, MaxInFlightBytes int
	// AckTimeout is how long an acknowledgement may take before the stream is
	// read to find out.
	AckTimeout time.Duration
	// SplitRefused says what becomes of a transaction that a stream refuses as
	// one batch: its events are published one by one, or, if false, fail.
	SplitRefused bool
	// OmitMessageID leaves Nats-Msg-Id out of the messages of owned streams.
	OmitMessageID bool
	Observer      Observer
	Parker        Parker
	Log           zerolog.Logger
	// Domain is the JetStream domain; empty for the connection's own.
	Domain string
	// JournalFilling, if not nil, makes the router keep journals of its
	// streams, see [Router.Unsaved]. It is called when one is filling up, and must
	// not block: while one is full, its stream takes no events.
	JournalFilling func()
	// Repair says that the router brings events back that the streams lost:
	// otherwise it takes no stream of which that is known not to be finished.
	Repair bool
}

// Stream names a stream, and says whether others write into it too.
type Stream struct {
	Name   string
	Shared bool
}

// Router publishes events, each to the stream that the rules say.
type Router struct {
	cfg                 Config
	nc                  *nats.Conn
	writers             map[string]*writer
	ordered             []*writer
	dropped, duplicates dropped
}

// New returns a router that publishes over nc, which it does not close.
func New(nc *nats.Conn, cfg Config) *Router {
	r := &Router{cfg: cfg, nc: nc, writers: make(map[string]*writer, len(cfg.Streams))}
	for _, stream := range cfg.Streams {
		w := newWriter(nc, writerConfig{
			stream:           stream.Name,
			domain:           cfg.Domain,
			shared:           stream.Shared,
			origin:           cfg.Origin,
			maxInFlight:      cfg.MaxInFlight,
			maxInFlightBytes: cfg.MaxInFlightBytes,
			ackTimeout:       cfg.AckTimeout,
			splitRefused:     cfg.SplitRefused,
			omitMessageID:    cfg.OmitMessageID,
			observer:         cfg.Observer,
			parker:           cfg.Parker,
			log:              cfg.Log,
			unstored:         r.duplicates.note,
			repair:           cfg.Repair,
		})
		if cfg.JournalFilling != nil {
			w.journal = journal.NewBuffer(stream.Name, cfg.JournalFilling)
		}
		r.writers[stream.Name] = w
		r.ordered = append(r.ordered, w)
	}
	r.dropped.space = wait.NewSignal()
	if cfg.JournalFilling != nil {
		r.dropped.journal = journal.NewBuffer(journal.Dropped, cfg.JournalFilling)
		r.duplicates.journal = journal.NewBuffer(journal.Duplicates, cfg.JournalFilling)
	}
	return r
}

// Open finds out what every stream has. It blocks until all have answered;
// those that do not are paused. recorded is what is known of the streams from
// runs before. A *[problem.Problem] says that retrying is of no use.
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
// when somebody has to change something (*[problem.Problem]), or when the
// connection is closed for good. Open comes first.
func (r *Router) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range r.ordered {
		group.Go(func() error { return w.run(ctx) })
	}
	changes := r.nc.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer r.nc.RemoveStatusListener(changes)
	defer r.hearDenials()()
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-changes:
				if r.nc.IsClosed() {
					return errClosed
				}
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
// paused, until the context ends. It does not take the event when it has to wait
// behind another ([ErrBlocked]), or cannot be published for a reason of its own
// (*[EventError] of class [Poison]): nothing that comes after it may be
// published then before it has another outcome. Not safe for concurrent use
// with itself.
func (r *Router) Publish(ctx context.Context, f Flight) error {
	w, target, err := r.route(f.Event)
	if err != nil {
		return err
	}
	if w == nil {
		return r.drop(ctx, f)
	}
	return w.publish(ctx, f, target)
}

// drop settles an event that a rule drops.
func (r *Router) drop(ctx context.Context, f Flight) error {
	if err := r.dropped.add(ctx, f.Event); err != nil {
		return err
	}
	r.cfg.Observer.Settled(f.Ticket, Dropped, f.Event, "", 0)
	return nil
}

// Blocked reports whether Publish would not take the event at this moment,
// because it has to wait behind another.
func (r *Router) Blocked(ev *event.Event) bool {
	if !r.cfg.Parker.Blocked(ev) {
		return false
	}
	w, _, err := r.route(ev)
	return err == nil && w != nil && !w.mayHave(ev)
}

// route returns the writer and the target of an event; no writer if it is
// dropped.
func (r *Router) route(ev *event.Event) (*writer, *Target, error) {
	target := r.cfg.Rules.Match(ev)
	if target.Drop {
		return nil, target, nil
	}
	w := r.writers[target.Stream]
	if w == nil {
		return nil, nil, &problem.Problem{
			ID:   "stream_unconfigured",
			What: fmt.Sprintf("a route sends events of type %q to stream %q, which is not configured", ev.Type, target.Stream),
			Fix:  "add it to streams",
		}
	}
	return w, target, nil
}

// InFlight returns how many events are sent and are not settled.
func (r *Router) InFlight() int {
	n := 0
	for _, w := range r.ordered {
		n += w.inFlight()
	}
	return n
}

// Progress returns how far each owned stream has come: every event up to there
// is settled. A shared stream has no state that a later run could use.
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
