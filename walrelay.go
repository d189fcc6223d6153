package walrelay

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/console"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/provision"
	"github.com/walrelay/walrelay/internal/recovery"
	"github.com/walrelay/walrelay/internal/relay"
	"github.com/walrelay/walrelay/internal/restore"
	"github.com/walrelay/walrelay/internal/service"
	"github.com/walrelay/walrelay/internal/status"
	"github.com/walrelay/walrelay/internal/web"
)

// Aliases, so that a program that embeds a relay imports one package.
type (
	// Config says everything that a relay needs to know.
	Config = config.Config
	// ConfigError says what is wrong with one key of the configuration.
	ConfigError = config.Error
	// Problem is an error that no retry mends: somebody has to change something
	// first. Its ID stays the same across releases.
	Problem = problem.Problem
	// Report says what [Setup] found and did.
	Report = provision.Report
	// Result is what one check found about one object.
	Result = check.Result
	// Status is what a relay is doing.
	Status = relay.Status
	// RepairOptions say what [Repair] does, and RepairReport what it has done.
	RepairOptions = restore.RepairOptions
	// RepairReport is described with [RepairOptions].
	RepairReport = restore.RepairReport
	// StreamRepair says what a stream had lost, and what became of it.
	StreamRepair = restore.StreamRepair
	// MissingEvent is an event that a stream has lost.
	MissingEvent = restore.MissingEvent
	// RecoverOptions say what [Recover] does, and RecoverReport what it has found.
	RecoverOptions = recovery.Options
	// RecoverReport is described with [RecoverOptions].
	RecoverReport = recovery.Report
	// IncompleteError says that a repair would not bring everything back.
	IncompleteError = restore.IncompleteError
)

// Options are what a relay uses of the program that it runs in.
type Options struct {
	// Log gets the relay's log lines, each with the slot; the zero value logs nothing.
	Log zerolog.Logger
	// TracerProvider makes a span for each event that is published, a child of the event's
	// traceparent; nil makes none.
	TracerProvider trace.TracerProvider
}

// Relay streams the outbox to JetStream. Create it with [New], run it once with
// [Relay.Run]. Several may run in one process. Safe for concurrent use.
type Relay struct {
	cfg    Config
	log    zerolog.Logger
	inner  *relay.Relay
	status *status.Reader
	// console is nil without one.
	console *console.Console
}

// New returns a relay. It checks the configuration, reports all its problems at
// once, as *[ConfigError] values that are joined, and connects to nothing. Of
// Config.HTTP nothing is used: see [Relay.Handler]. Of what Config names it reads the token
// of the console.
func New(cfg Config, options Options) (*Relay, error) {
	cfg = cfg.WithDefaults()
	options.Log = options.Log.With().Str("slot", cfg.Slot).Logger()
	inner, err := relay.New(cfg, options.Log, options.TracerProvider)
	if err != nil {
		return nil, err
	}
	r := &Relay{cfg: cfg, log: options.Log, inner: inner, status: status.NewReader(cfg)}
	if *cfg.Console.Enabled {
		if r.console, err = console.New(r.consoleSource()); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Run streams until the context ends, and then returns nil once everything in
// flight is settled or Config.ShutdownTimeout has passed, and the slot knows. Lost
// connections are made again for ever. Run returns an error, which is or wraps a
// *[Problem], only when somebody has to change something first.
func (r *Relay) Run(ctx context.Context) error {
	serving, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	if r.cfg.NATS.Service {
		group.Go(func() {
			service.Run(serving, service.Options{NATS: r.cfg.NATS, Slot: r.cfg.Slot, Version: status.Version, Status: r.document, Log: r.log})
		})
	}
	if r.console != nil {
		group.Go(func() { r.console.Run(serving) })
	}
	if err := r.inner.Run(ctx); err != nil {
		return restore.Explain(ctx, r.cfg, r.log, err)
	}
	return nil
}

// Ready says why the relay does not stream at the moment; nothing when it does. It
// does not block.
func (r *Relay) Ready() []string { return r.inner.Ready() }

// Hung says what hangs in the relay, so that only another process goes on; nothing while it
// streams, waits for a server, or as a standby. It does not block; ask it every few seconds. /healthz says it.
func (r *Relay) Hung() string { return r.inner.Hung() }

// Status returns what the relay is doing. It does not block.
func (r *Relay) Status() Status { return r.inner.Status() }

// Handler serves /healthz, /readyz, /status (a [StatusDocument]) and /metrics, and the
// console at /console/ by the rules of docs/console.md. No listener is opened: the program
// serves it where it wants to.
func (r *Relay) Handler() http.Handler {
	source := web.Source{
		Hung:    r.inner.Hung,
		Reasons: r.inner.Ready,
		Status:  r.document,
		Metrics: r.inner.Metrics().Registry,
	}
	if r.console != nil {
		source.Console = r.console.Handler()
	}
	return web.Handler(source)
}

func (r *Relay) consoleSource() console.Source {
	return console.Source{
		Config: r.cfg, Log: r.log, Sample: r.inner.Metrics().Sample, Status: r.status.Read,
		Relay: func() console.Relay {
			s := r.inner.Status()
			return console.Relay{LagSeconds: s.LagSeconds, Reasons: s.Reasons}
		},
	}
}

// Repair publishes again what the streams have lost, from the rows of the outbox
// tables, in commit order. No relay may run, except beside a dry run; one that is started meanwhile waits as
// a standby. It may be interrupted at any time and called again. The error joins an
// *[IncompleteError] for each stream of which something cannot be brought back,
// unless that is accepted, and others, as that of [Setup].
func Repair(ctx context.Context, cfg Config, options RepairOptions) (RepairReport, error) {
	return restore.Repair(ctx, cfg, options)
}

// Recover re-emits the rows of the outbox tables that are not settled and that the
// slot does not read, such as those from before the first [Setup] or from while there
// was no slot. A relay publishes them, in the order in which they were created. It
// blocks until the relay has settled what is in the WAL, unless in a dry run, may be
// interrupted at any time and called again. The error is that of [Setup].
func Recover(ctx context.Context, cfg Config, options RecoverOptions) (RecoverReport, error) {
	return recovery.Recover(ctx, cfg, options)
}

// Setup makes what a relay needs and does not exist: the schema walrelay, the
// outbox tables of walrelay's own form, the publication, the slot and the streams.
// What exists is checked, and left as it is, except that tables are added to the
// publication and brought to the form of today. Nothing is made if anything that
// exists is wrong.
//
// It may be called again, also by several at a time. It blocks until everything is
// done, and for up to a minute while other transactions keep the slot from being
// created. The error is nil, or joins *[ConfigError] and *[Problem] values;
// anything else in it, such as a server that cannot be reached, may go away by
// itself. The report tells also what was done before an error.
func Setup(ctx context.Context, cfg Config) (Report, error) { return provision.Setup(ctx, cfg) }

// PrintSQL returns the SQL by which somebody with the rights for it makes
// everything in the database that [Setup] would: a script for psql, which may be
// run again. It connects to nothing; of the connection settings it uses only the
// role of postgres.url, if that is set, to whom it grants what a relay needs. The
// error joins *[ConfigError] values.
func PrintSQL(cfg Config) (string, error) { return provision.PrintSQL(cfg) }

// Check reports what is as it should be in Postgres and NATS, and what is not, and
// changes nothing. The error joins a *[Problem] for each result that fails, and
// the errors of [Setup].
func Check(ctx context.Context, cfg Config) ([]Result, error) {
	results, _, err := check.Run(ctx, cfg)
	return results, errors.Join(results.Err(), err)
}
