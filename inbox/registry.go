package inbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/event"
)

// Event is an event as its handler gets it.
type Event[T any] struct {
	CloudEvent
	// Data is the payload, read from JSON; as it came if T is []byte, [json.RawMessage] or
	// string. The zero value if there is none. (CloudEvent.Data has the bytes.)
	Data T
	// Attempt counts how often the handler got the event, from 1. After a crash it may
	// begin anew.
	Attempt int
}

// Match says which event types a handler takes.
type Match struct{ patterns []string }

// All takes every event.
func All() Match { return Match{patterns: []string{">"}} }

// Types takes the given types, or those that a pattern describes: as in a subject of NATS, *
// stands for one part between dots, and > for all that follow ("order.*", "order.>").
func Types(types ...string) Match { return Match{patterns: types} }

// Strings returns the patterns.
func (m Match) Strings() []string { return append([]string(nil), m.patterns...) }

// TakesAll reports whether it takes every event.
func (m Match) TakesAll() bool { return slices.Contains(m.patterns, ">") }

// Subjects returns the subjects that the events have by a relay's template of subjects (publish.subject), with
// wildcards: for a consumer of one's own. No two of them overlap.
func (m Match) Subjects(template string) ([]string, error) { return filters(template, m) }

// Check returns what is wrong with the patterns; nil for nothing.
func (m Match) Check() error {
	if len(m.patterns) == 0 {
		return errors.New("it takes no type: give Types at least one, or use All")
	}
	for _, pattern := range m.patterns {
		if pattern == "" {
			return errors.New("a type is empty")
		}
		tokens := strings.Split(pattern, ".")
		for i, token := range tokens {
			switch {
			case token == ">" && i < len(tokens)-1:
				return fmt.Errorf("type pattern %q: > stands at the end only", pattern)
			case token != "*" && token != ">" && strings.ContainsAny(token, "*>"):
				return fmt.Errorf("type pattern %q: * and > stand for whole parts between dots", pattern)
			}
		}
		if err := event.CheckText(pattern); err != nil {
			return fmt.Errorf("type pattern %q: %w", event.Clip(pattern), err)
		}
	}
	return nil
}

// Takes reports whether events of a type are among them.
func (m Match) Takes(eventType string) bool {
	for _, pattern := range m.patterns {
		if event.PatternCovers(pattern, eventType) {
			return true
		}
	}
	return false
}

// Registry has the handlers of an application. The zero value is ready. It is filled before
// it is run.
type Registry struct {
	handlers []*handler
	errs     []error
}

// mode is how often an event takes effect.
type mode uint8

const (
	// atLeastOnce handlers have no transaction.
	atLeastOnce mode = iota
	// oncePgx and onceSQL handlers get the transaction in which the event is marked as
	// handled.
	oncePgx
	onceSQL
)

func (m mode) String() string {
	if m == atLeastOnce {
		return "at least once"
	}
	return "once"
}

// call is one run of a handler: a transaction, if its mode has one, and its events.
type call struct {
	tx      any
	events  []CloudEvent
	attempt int
}

// handler is what a registry knows of one.
type handler struct {
	name  string
	match Match
	mode  mode
	many  bool // it takes several events in one call
	run   func(context.Context, call) error
	options
}

type options struct {
	stream     string
	subject    string
	lanes      int
	batch      int
	timeout    time.Duration
	maxRetries int
	backoff    func(attempt int) time.Duration
	fromNow    bool
	middleware []Middleware
}

// Defaults of handlers.
const (
	DefaultLanes      = 16
	DefaultTimeout    = time.Minute
	DefaultMaxRetries = 10
	// MaxBatch is the most events of one transaction.
	MaxBatch = 100
)

// Option changes how a handler is run.
type Option func(*options) error

// Lanes is how many events of a handler are worked on at a time in a process: from 1 to
// 64, default 16; of each partition, if there are some. Events of one key are worked on one after the other.
func Lanes(n int) Option {
	return func(o *options) error {
		if n < 1 || n > buckets {
			return fmt.Errorf("Lanes(%d): want from 1 to %d", n, buckets)
		}
		o.lanes = n
		return nil
	}
}

// Batch is how many events may share a transaction, if as many wait: up to 100, default 1.
// If one of them fails, none took effect, and they are handled one by one.
func Batch(n int) Option {
	return func(o *options) error {
		if n < 1 || n > MaxBatch {
			return fmt.Errorf("Batch(%d): want from 1 to %d", n, MaxBatch)
		}
		o.batch = n
		return nil
	}
}

// Timeout is after which time the context of a call ends; default a minute.
func Timeout(d time.Duration) Option {
	return func(o *options) error {
		if d <= 0 {
			return fmt.Errorf("Timeout(%v): want more than nothing", d)
		}
		o.timeout = d
		return nil
	}
}

// MaxRetries is how often an event is tried again before it is parked for good; default 10.
func MaxRetries(n int) Option {
	return func(o *options) error {
		if n < 0 {
			return fmt.Errorf("MaxRetries(%d): want no less than 0", n)
		}
		o.maxRetries = n
		return nil
	}
}

// Backoff says how long to wait before attempt n+1, after attempt n failed; default a second,
// doubled each time up to five minutes, less a random part of up to a half.
func Backoff(f func(n int) time.Duration) Option {
	return func(o *options) error {
		if f == nil {
			return errors.New("Backoff(nil)")
		}
		o.backoff = f
		return nil
	}
}

// Stream is the stream from which the events come; default that of [Config].
func Stream(name string) Option {
	return func(o *options) error {
		if name == "" {
			return errors.New("Stream: it has no name")
		}
		o.stream = name
		return nil
	}
}

// Subject is the relay's template of subjects for the handler's events, if a route gives them another
// one than [Config] has.
func Subject(template string) Option {
	return func(o *options) error {
		if template == "" {
			return errors.New("Subject: it is empty")
		}
		o.subject = template
		return nil
	}
}

// FromNow lets a handler that is new begin with events from then on; default with all that
// the stream has.
func FromNow() Option {
	return func(o *options) error {
		o.fromNow = true
		return nil
	}
}

// Func is a handler as middleware sees it.
type Func func(ctx context.Context, events []CloudEvent) error

// Middleware wraps handlers. It may change the context, but not the events.
type Middleware func(next Func) Func

// Use wraps the handler's calls; the first is the outermost.
func Use(middleware ...Middleware) Option {
	return func(o *options) error {
		o.middleware = append(o.middleware, middleware...)
		return nil
	}
}

// On registers a handler that takes effect once for each event: what it does with the
// transaction, READ COMMITTED, commits together with the note that the event was handled.
// The handler must neither commit nor roll back. An event that does not read as a T is parked
// at once. The name is that of the durable consumer, and what the database knows the
// handler by: change it by "walrelay handlers rename". Mistakes are returned by [Run], all at once.
func On[T any](r *Registry, name string, match Match, f func(ctx context.Context, tx pgx.Tx, ev Event[T]) error, opts ...Option) {
	add(r, name, match, oncePgx, false, f == nil, func(ctx context.Context, c call) error {
		tx, _ := c.tx.(pgx.Tx)
		return each(c, func(ev Event[T]) error { return f(ctx, tx, ev) })
	}, opts)
}

// OnBatch is [On] for a handler that takes several events at a time, of one or of several
// keys, in order: up to 100, or as many as [Batch] says.
func OnBatch[T any](r *Registry, name string, match Match, f func(ctx context.Context, tx pgx.Tx, events []Event[T]) error, opts ...Option) {
	opts = append([]Option{Batch(MaxBatch)}, opts...)
	add(r, name, match, oncePgx, true, f == nil, func(ctx context.Context, c call) error {
		tx, _ := c.tx.(pgx.Tx)
		typed := make([]Event[T], len(c.events))
		for i, ev := range c.events {
			var err error
			if typed[i], err = typedEvent[T](ev, c.attempt); err != nil {
				return err
			}
		}
		return f(ctx, tx, typed)
	}, opts)
}

// OnSQL is [On] for database/sql. The handler must neither commit nor roll back.
func OnSQL[T any](r *Registry, name string, match Match, f func(ctx context.Context, tx *sql.Tx, ev Event[T]) error, opts ...Option) {
	add(r, name, match, onceSQL, false, f == nil, func(ctx context.Context, c call) error {
		tx, _ := c.tx.(*sql.Tx)
		return each(c, func(ev Event[T]) error { return f(ctx, tx, ev) })
	}, opts)
}

// OnAtLeastOnce registers a handler without a transaction, for effects elsewhere: in order
// for each key, and again after a crash or when another process takes over. Make the effect
// idempotent by source and id.
func OnAtLeastOnce[T any](r *Registry, name string, match Match, f func(ctx context.Context, ev Event[T]) error, opts ...Option) {
	add(r, name, match, atLeastOnce, false, f == nil, func(ctx context.Context, c call) error {
		return each(c, func(ev Event[T]) error { return f(ctx, ev) })
	}, opts)
}

func each[T any](c call, f func(Event[T]) error) error {
	for _, ev := range c.events {
		typed, err := typedEvent[T](ev, c.attempt)
		if err != nil {
			return err
		}
		if err := f(typed); err != nil {
			return err
		}
	}
	return nil
}

// typedEvent reads the payload.
func typedEvent[T any](ev CloudEvent, attempt int) (Event[T], error) {
	typed := Event[T]{CloudEvent: ev, Attempt: attempt}
	switch into := any(&typed.Data).(type) {
	case *[]byte:
		*into = ev.Data
	case *json.RawMessage:
		*into = ev.Data
	case *string:
		*into = string(ev.Data)
	default:
		if ev.Data != nil {
			if err := ev.Unmarshal(&typed.Data); err != nil {
				return typed, Park(err)
			}
		}
	}
	return typed, nil
}

// Call calls a handler on an event, for tests: as [Run] does, with its middleware, the payload read into its type, and a
// panic as an error, but without NATS, marks and parking. tx is what the handler takes: a pgx.Tx, a *sql.Tx, or nil. The
// error says what would become of the event: [ParkError], [RetryError], [PauseError], or another one for the
// handler's backoff.
func (r *Registry) Call(ctx context.Context, name string, tx any, events ...CloudEvent) error {
	if err := errors.Join(r.errs...); err != nil {
		return err
	}
	i := slices.IndexFunc(r.handlers, func(h *handler) bool { return h.name == name })
	if i < 0 {
		return fmt.Errorf("handler %q: it is not registered", event.Clip(name))
	}
	h := r.handlers[i]
	for _, ev := range events {
		if !h.match.Takes(ev.Type) {
			return fmt.Errorf("handler %q: it does not take events of type %q", name, event.Clip(ev.Type))
		}
	}
	if len(events) == 0 {
		return fmt.Errorf("handler %q: there is no event to call it with", name)
	}
	return h.call(ctx, call{tx: tx, events: events, attempt: 1})
}

// A handler's name is that of a consumer, a token of subjects.
var handlerName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func add(r *Registry, name string, match Match, m mode, many, missing bool, run func(context.Context, call) error, opts []Option) {
	h := &handler{name: name, match: match, mode: m, many: many, options: options{
		lanes: DefaultLanes, batch: 1, timeout: DefaultTimeout, maxRetries: DefaultMaxRetries, backoff: defaultBackoff,
	}}
	wrong := func(err error) { r.errs = append(r.errs, fmt.Errorf("handler %q: %w", event.Clip(name), err)) }
	if !handlerName.MatchString(name) {
		wrong(errors.New("its name must have from 1 to 64 letters, digits, - and _"))
	}
	for _, other := range r.handlers {
		if other.name == name {
			wrong(errors.New("it is registered twice: each handler has a name of its own"))
		}
	}
	if missing {
		wrong(errors.New("its function is nil"))
	}
	if err := match.Check(); err != nil {
		wrong(err)
	}
	for _, opt := range opts {
		if err := opt(&h.options); err != nil {
			wrong(err)
		}
	}
	h.run = h.wrap(run)
	r.handlers = append(r.handlers, h)
}

// wrap puts the middleware, and what every call has, around the function.
func (h *handler) wrap(run func(context.Context, call) error) func(context.Context, call) error {
	return func(ctx context.Context, c call) error {
		f := Func(func(ctx context.Context, _ []CloudEvent) error { return run(ctx, c) })
		for _, middleware := range slices.Backward(h.middleware) {
			f = middleware(f)
		}
		return recovered(f)(ctx, c.events)
	}
}
