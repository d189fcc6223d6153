// Package replay publishes events again on purpose: those that a stream has, or the rows
// that an outbox table has.
//
// Input: a stream or an outbox table, and what of it is wanted. Output: rows of
// walrelay.emitted, which the relay publishes like any other event, or messages of another
// stream. Promises: each event has the extension attribute walrelayreplay; the order stays;
// a replay through the WAL happens as a whole or not at all; one into another stream may be
// interrupted and run again. Nothing is written into a stream that a relay owns: that would
// break the order of its positions. It must not import the relay.
package replay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/tail"
	"github.com/walrelay/walrelay/sql"
)

// Options say what is replayed, and where to.
type Options struct {
	// Name marks the events; default the present time.
	Name string

	// Stream whose messages are replayed; default the first one of the configuration. Table
	// is the outbox table whose rows are, instead.
	Stream, Table string
	// From and Until bound what is replayed: Until is exclusive. Of a table they are times,
	// those of its rows; of a stream also sequences.
	From, Until tail.From
	// Types are those of the events. Keys and IDs, if there are any, are the only ones that
	// are taken.
	Types     inbox.Match
	Keys, IDs []string

	// To is another stream, on subjects that Subject makes; without it the events go through
	// the WAL and the relay.
	To, Subject string

	// DryRun counts.
	DryRun bool
	// Confirm, if not nil, is asked before anything is replayed.
	Confirm func(Report) error
}

// Report says what was found and replayed.
type Report struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
	// Events were found, Replayed of them now, and Skipped by a replay of that name before.
	Events   int `json:"events"`
	Replayed int `json:"replayed"`
	Skipped  int `json:"skipped,omitempty"`
	// Unreadable are messages that are no events, or rows that make none.
	Unreadable int            `json:"unreadable,omitempty"`
	First      *time.Time     `json:"first,omitempty"`
	Last       *time.Time     `json:"last,omitempty"`
	Types      map[string]int `json:"types"`
}

// maxName is how long the name of a replay may be.
const maxName = 100

// Run replays. It blocks until everything is written, which is before the relay has
// published it. The error joins *[config.Error] and *[problem.Problem] values.
func Run(ctx context.Context, cfg config.Config, o Options) (Report, error) {
	cfg = cfg.WithDefaults()
	if o.Name == "" {
		o.Name = time.Now().UTC().Format(time.RFC3339)
	}
	if o.Table == "" && o.Stream == "" {
		o.Stream = cfg.Streams[0].Name
	}
	if len(o.Types.Strings()) == 0 {
		o.Types = inbox.All()
	}
	r := &replay{cfg: cfg, options: o, report: Report{Name: o.Name, From: "stream " + o.Stream, To: "the WAL", Types: make(map[string]int)}}
	if o.Table != "" {
		r.report.From = "table " + o.Table
	}
	if o.To != "" {
		r.report.To = "stream " + o.To
	}
	if err := errors.Join(o.Check(), r.checkTarget()); err != nil {
		return r.report, err
	}
	if o.Table != "" || o.To == "" {
		results, _, err := check.Run(ctx, cfg)
		if err := errors.Join(results.Err(), err); err != nil {
			return r.report, err
		}
	}
	if o.Table == "" || o.To != "" {
		nc, err := connect.NATS(ctx, cfg.NATS)
		if err != nil {
			return r.report, err
		}
		defer nc.Close()
		if r.js, err = connect.JetStreamContext(nc, cfg.NATS); err != nil {
			return r.report, err
		}
	}
	err := r.run(ctx)
	return r.report, err
}

// Check reports what is wrong with the options themselves.
func (o *Options) Check() error {
	var errs []error
	if len(o.Name) > maxName || event.CheckText(o.Name) != nil || strings.TrimSpace(o.Name) != o.Name {
		errs = append(errs, fmt.Errorf("the name %q: want a text of at most %d bytes without control characters", event.Clip(o.Name), maxName))
	}
	if o.Table != "" && o.Stream != "" {
		errs = append(errs, errors.New("either a stream or a table is replayed"))
	}
	if o.Table != "" && (o.From.Sequence > 0 || o.Until.Sequence > 0) {
		errs = append(errs, errors.New("rows of a table have no sequence: give times"))
	}
	if (o.To == "") != (o.Subject == "") {
		errs = append(errs, errors.New("another stream and the subject of its messages go together, such as --to AUDIT --subject 'audit.{type}'"))
	}
	return errors.Join(errs...)
}

// checkTarget refuses to replay into a stream that the relay writes to, or through the WAL
// where a replayed event would go elsewhere than its original: its table is not known any
// more.
func (r *replay) checkTarget() error {
	for _, s := range r.cfg.Streams {
		if r.options.To == s.Name {
			return owned(fmt.Sprintf("stream %q is one of the relay's", s.Name))
		}
	}
	if r.options.To != "" {
		return nil
	}
	found := usesTable(r.cfg.Publish.Subject)
	for _, route := range r.cfg.Routes {
		found = found || route.Table != "" || usesTable(route.Subject)
	}
	if !found {
		return nil
	}
	return &problem.Problem{
		ID: "replay_table", What: "publish.subject or a route depends on the table of an event", Why: "a replayed event has none, so it would go elsewhere than its original",
		Fix: "replay into another stream: --to STREAM --subject TEMPLATE",
	}
}

// usesTable reports whether a template of subjects depends on the table of an event.
func usesTable(template string) bool {
	return strings.Contains(template, "{table}") || strings.Contains(template, "{schema}")
}

func owned(what string) error {
	return &problem.Problem{
		ID: "replay_owned", What: what, Why: "messages of others would break the order of its positions",
		Fix: "leave --to out, so that the events go through the WAL; or name a stream that no relay writes to",
	}
}

type replay struct {
	cfg     config.Config
	options Options
	report  Report
	js      jetstream.JetStream
}

func (r *replay) run(ctx context.Context) error {
	o := &r.options
	var to target
	if o.To != "" {
		other, err := openStream(ctx, r.js, o)
		if err != nil {
			return err
		}
		to = other
	} else {
		to = &throughWAL{cfg: r.cfg}
	}
	if o.DryRun || o.Confirm != nil {
		err := r.each(ctx, to.mark(), func(entry) error { return nil })
		if err != nil || o.DryRun || r.report.Events == 0 {
			return err
		}
		if err := o.Confirm(r.report); err != nil {
			return err
		}
	}
	r.report.Events, r.report.Skipped, r.report.Unreadable, r.report.First = 0, 0, 0, nil
	clear(r.report.Types)
	if err := to.begin(ctx); err != nil {
		return err
	}
	defer to.close()
	err := r.each(ctx, to.mark(), func(e entry) error { return to.put(ctx, e) })
	if err == nil {
		err = to.end(ctx)
	}
	r.report.Replayed = to.done()
	return err
}

// entry is an event to be replayed.
type entry struct {
	ev *event.Event // nil for what makes no event
	at time.Time
	// mark says where it stands in its source: a sequence, or an id.
	mark string
}

// target takes the events of a replay.
type target interface {
	// mark is that of the last event which the target has already; "" for none.
	mark() string
	begin(ctx context.Context) error
	put(ctx context.Context, e entry) error
	// end makes what was put last. It blocks.
	end(ctx context.Context) error
	// done is how many events are there for good.
	done() int
	close()
}

// each calls do with every event that is wanted and comes after the mark.
func (r *replay) each(ctx context.Context, mark string, do func(entry) error) error {
	from, err := r.source(ctx)
	if err != nil {
		return err
	}
	defer from.close()
	passed := mark == ""
	for {
		e, ok, err := from.next(ctx)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		switch {
		case e.ev == nil:
			r.report.Unreadable++
			continue
		case !r.wants(e.ev):
			continue
		}
		r.count(e)
		if !passed {
			r.report.Skipped++
			passed = e.mark == mark
			continue
		}
		e.ev.Replayed(r.options.Name)
		if err := do(e); err != nil {
			return err
		}
	}
	if !passed {
		return &problem.Problem{
			ID: "replay_interrupted", What: fmt.Sprintf("replay %q was interrupted after %s, which is not there any more", r.options.Name, mark),
			Fix: "begin after it with --from, and with another name",
		}
	}
	return nil
}

func (r *replay) count(e entry) {
	if r.report.Events++; r.report.First == nil {
		r.report.First = &e.at
	}
	r.report.Last = &e.at
	r.report.Types[e.ev.Type]++
}

func (r *replay) wants(ev *event.Event) bool {
	o := &r.options
	return o.Types.Takes(ev.Type) && (len(o.Keys) == 0 || slices.Contains(o.Keys, ev.PartitionKey)) && (len(o.IDs) == 0 || slices.Contains(o.IDs, ev.ID))
}

// MostTypes returns the types of the report, the most frequent first.
func (r *Report) MostTypes() []string {
	return slices.SortedFunc(maps.Keys(r.Types), func(a, b string) int {
		if r.Types[a] != r.Types[b] {
			return r.Types[b] - r.Types[a]
		}
		return strings.Compare(a, b)
	})
}

// throughWAL inserts events into walrelay.emitted, all in one transaction.
type throughWAL struct {
	cfg  config.Config
	conn *pgx.Conn

	entries chan entry
	copied  chan struct{} // closed when COPY has ended with err
	err     error
	stop    context.CancelFunc
	n       int
	ended   bool
}

func (*throughWAL) mark() string { return "" }

func (w *throughWAL) begin(ctx context.Context) (err error) {
	if w.conn, err = connect.Durable(ctx, w.cfg.Postgres); err != nil {
		return err
	}
	ctx, w.stop = context.WithCancel(ctx)
	w.entries, w.copied = make(chan entry, 64), make(chan struct{})
	go func() {
		columns := []string{"slot", "kind", "id", "table_schema", "table_name", "content_bytes"}
		// COPY is one statement: it happens as a whole or not at all.
		_, w.err = w.conn.CopyFrom(ctx, pgx.Identifier{sql.OwnSchema, "emitted"}, columns, pgx.CopyFromFunc(func() ([]any, error) {
			select {
			case e, ok := <-w.entries:
				if !ok {
					return nil, nil
				}
				return []any{w.cfg.Slot, "event", e.ev.ID, sql.OwnSchema, event.ReplayTable, e.ev.AppendJSON(nil)}, nil
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}))
		close(w.copied)
	}()
	return nil
}

func (w *throughWAL) put(ctx context.Context, e entry) error {
	select {
	case w.entries <- e:
		w.n++
		return nil
	case <-w.copied:
		return fmt.Errorf("inserting into walrelay.emitted: %w", w.err)
	case <-ctx.Done():
		return fmt.Errorf("inserting into walrelay.emitted: %w", context.Cause(ctx))
	}
}

func (w *throughWAL) end(context.Context) error {
	close(w.entries)
	<-w.copied
	if w.err != nil {
		return fmt.Errorf("inserting into walrelay.emitted: %w", w.err)
	}
	w.ended = true
	return nil
}

func (w *throughWAL) done() int {
	if w.ended {
		return w.n
	}
	return 0
}

func (w *throughWAL) close() {
	w.stop()
	<-w.copied
	connect.ClosePostgres(w.conn)
}
