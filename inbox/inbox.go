package inbox

import (
	"cmp"
	"context"
	stdsql "database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/sqlstate"
)

// DefaultStream is the stream of a [Config] that names none.
const DefaultStream = "EVENTS"

// DefaultSubject is the relay's default template of subjects.
const DefaultSubject = "events.{type}"

// Config says with what handlers are run.
type Config struct {
	// NATS is a connection to the servers; required. It should reconnect for ever
	// (nats.MaxReconnects(-1)). It stays open.
	NATS *nats.Conn
	// Domain is the JetStream domain, if it is not the server's own.
	Domain string
	// Pool is the database of handlers that [On] registers, DB that of those by
	// [OnSQL]; both are of the same database if there are both. Handlers that are at least
	// once park in it; without one they publish to DeadLetters. It has the tables that
	// [Migrate] makes.
	Pool *pgxpool.Pool
	DB   *stdsql.DB
	// Stream is the stream of handlers without one of their own; default "EVENTS".
	Stream string
	// Subject is the relay's template of subjects (publish.subject), by which only events of a
	// handler's types are fetched; default "events.{type}". If it has {partition:N}, each handler has a
	// consumer for each partition, and the processes share them.
	Subject string
	// Keys returns the keys by which positions are authenticated, by slot; default those in
	// walrelay.secrets of the database, if it is the outbox's. Without a key, the handled events of
	// handlers that are once are remembered by source and id for RememberFor.
	Keys func(context.Context) (map[string][]byte, error)
	// RememberFor is how long events without an authentic position are remembered; default
	// a week.
	RememberFor time.Duration
	// DeadLetters is the subject to which handlers without a database publish what they
	// cannot handle, with the handler's name as a further token; default "dead_letters". Some
	// stream must have it.
	DeadLetters string
	// Process names the process to people; default host and process number.
	Process string
	// Grace is how long calls may go on when [Run] is to end; default 10 seconds.
	Grace time.Duration
	// Log takes what a person should know; default [slog.Default].
	Log *slog.Logger
	// Observe is called with the state of each handler about every two seconds, from several
	// goroutines.
	Observe func(Status)

	js   jetstream.JetStream
	ring *keyring
}

// Status is how a handler is doing in this process.
type Status struct {
	Handler, Stream string
	// Partition is from 0 on; -1 if the handler has none.
	Partition int
	// Active says that this process handles its events; others stand by.
	Active bool
	// Trouble says why nothing moves: "" for nothing known, "unreachable" or "stuck".
	Trouble string
	// Lag is how many events wait in the stream, Pending how many of them this process or
	// another one has got and not acknowledged.
	Lag, Pending uint64
	// Handled, Repeated (handled before), Parked, Failures and Removed (from the stream before
	// the handler had them) count events since the start.
	Handled, Repeated, Parked, Failures, Removed uint64
	// Running are the events that handlers work on for longer than their time-out.
	Running []string
	// LastError is the last failure of a call.
	LastError string
}

// Run runs the handlers until the context ends: it then lets calls that are under way end
// for a while, hands over to another process, and returns nil. Mistakes in the registry or
// the configuration are returned at once, all of them; what may go away by itself, such as a
// server that cannot be reached, is logged and waited for.
func Run(ctx context.Context, cfg Config, r *Registry) error {
	if err := cfg.prepare(r); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, h := range r.handlers {
		consumers, err := newConsumers(&cfg, h)
		if err != nil {
			return err
		}
		group.Go(func() error { return runHandler(ctx, consumers) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("running handlers: %w", err)
	}
	return nil
}

// prepare checks the configuration and sets defaults.
func (cfg *Config) prepare(r *Registry) error {
	errs := append([]error(nil), r.errs...)
	if len(r.handlers) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("no handler is registered"))
	}
	if cfg.NATS == nil {
		errs = append(errs, errors.New("Config.NATS is nil"))
	}
	for _, h := range r.handlers {
		switch {
		case h.mode == oncePgx && cfg.Pool == nil:
			errs = append(errs, fmt.Errorf("handler %q: Config.Pool is nil, and On needs it", h.name))
		case h.mode == onceSQL && cfg.DB == nil:
			errs = append(errs, fmt.Errorf("handler %q: Config.DB is nil, and OnSQL needs it", h.name))
		}
	}
	cfg.Stream = cmp.Or(cfg.Stream, DefaultStream)
	cfg.Subject = cmp.Or(cfg.Subject, DefaultSubject)
	cfg.DeadLetters = cmp.Or(cfg.DeadLetters, "dead_letters")
	for _, h := range r.handlers {
		if _, err := newConsumers(cfg, h); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if cfg.RememberFor <= 0 {
		cfg.RememberFor = 7 * 24 * time.Hour
	}
	if cfg.Grace <= 0 {
		cfg.Grace = 10 * time.Second
	}
	if cfg.Process == "" {
		host, _ := os.Hostname() // for people only
		cfg.Process = fmt.Sprintf("%s/%d", host, os.Getpid())
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	var err error
	if cfg.Domain == "" {
		cfg.js, err = jetstream.New(cfg.NATS)
	} else {
		cfg.js, err = jetstream.NewWithDomain(cfg.NATS, cfg.Domain)
	}
	if err != nil {
		return fmt.Errorf("using JetStream: %w", err)
	}
	cfg.ring = &keyring{load: cfg.Keys}
	if db := cfg.database(oncePgx); cfg.Keys == nil && db != nil {
		cfg.ring.load = func(ctx context.Context) (map[string][]byte, error) {
			keys, err := readKeys(ctx, db)
			if code := sqlState(err); code == sqlstate.UndefinedTable || code == sqlstate.InvalidSchemaName || code == sqlstate.InsufficientPrivilege {
				return map[string][]byte{}, nil // nobody has any here
			}
			return keys, err
		}
	}
	return nil
}

// database returns the one for a mode, or else the other; nil for none.
func (cfg *Config) database(m mode) database {
	switch {
	case cfg.DB != nil && (m == onceSQL || cfg.Pool == nil):
		return sqlDatabase{cfg.DB}
	case cfg.Pool != nil:
		return pgxDatabase{cfg.Pool}
	}
	return nil
}

// sqlState returns an error's SQLSTATE, if it is one of Postgres.
func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	var other interface{ SQLState() string } // lib/pq
	if errors.As(err, &other) {
		return other.SQLState()
	}
	return ""
}

// filters returns the subjects that a handler's events have, by the relay's template. No two
// of them overlap, which the server would refuse.
func filters(template string, match Match) ([]string, error) {
	var all []string
	for _, pattern := range match.patterns {
		subject, err := filter(template, pattern)
		if err != nil {
			return nil, err
		}
		all = append(all, subject)
	}
	var kept []string
	for i, subject := range all {
		covered := false
		for j, other := range all {
			if i != j && event.PatternCovers(other, subject) && (!event.PatternCovers(subject, other) || j < i) {
				covered = true
			}
		}
		if !covered {
			kept = append(kept, subject)
		}
	}
	for i, subject := range kept {
		for _, other := range kept[i+1:] {
			if event.PatternsOverlap(subject, other) {
				return []string{widest(template)}, nil
			}
		}
	}
	return kept, nil
}

// filter returns the subject of a type pattern. A token with another placeholder than
// {type} may be anything.
func filter(template, pattern string) (string, error) {
	tokens := strings.Split(template, ".")
	if len(tokens) == 0 || strings.ContainsAny(tokens[0], "{}*>") || tokens[0] == "" {
		return "", fmt.Errorf("template of subjects %q: want that of the relay, whose first token is literal, such as %s", template, DefaultSubject)
	}
	for i, token := range tokens {
		switch {
		case token == "{type}":
			tokens[i] = subjectOfType(pattern)
			if strings.HasSuffix(tokens[i], ">") {
				return strings.Join(tokens[:i+1], "."), nil
			}
		case strings.Contains(token, "{type}"):
			return strings.Join(append(tokens[:i:i], ">"), "."), nil
		case strings.Contains(token, "{"):
			tokens[i] = "*"
		}
	}
	return strings.Join(tokens, "."), nil
}

func subjectOfType(pattern string) string {
	var b []byte
	for i, token := range strings.Split(pattern, ".") {
		if i > 0 {
			b = append(b, '.')
		}
		if token == "*" || token == ">" {
			b = append(b, token...)
		} else {
			b = event.AppendToken(b, token)
		}
	}
	return string(b)
}

// widest covers every subject of a template.
func widest(template string) string {
	first, _, more := strings.Cut(template, ".")
	if !more {
		return first
	}
	return first + ".>"
}
