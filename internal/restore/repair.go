// Package restore brings back what a stream has lost.
//
// Input: the journal, and the rows of the outbox tables. Output: the events that
// are missing, published again in commit order through a fenced writer, while no
// relay runs. Promises: each event once, also when it is interrupted and begun
// again; nothing is published if something cannot be brought back, unless that is
// accepted. The package must not import what runs a relay.
package restore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/checkpoint"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/outboxrows"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/router"
)

const (
	// repairPatience is how long a relay that has just ended may hold the slot,
	// and a stream be without an answer.
	repairPatience = 5 * time.Second
	// closeGrace bounds the last words to the server.
	closeGrace = 2 * time.Second
)

// RepairOptions say what a repair does.
type RepairOptions struct {
	// DryRun changes nothing, and calls Event for each missing event.
	DryRun bool
	// AcceptLoss publishes what there is also if something cannot be brought
	// back. Otherwise nothing is published then.
	AcceptLoss bool
	// Stream, if not empty, is the only one to be repaired.
	Stream string
	// Begin, if not nil, is called for each stream that has lost something, with
	// what is missing.
	Begin func(StreamRepair) error
	// Event, if not nil, is called for each event that cannot be brought back;
	// in a dry run, for each that is missing. An error ends the repair.
	Event func(MissingEvent) error
	Log   zerolog.Logger
}

// MissingEvent is an event that a stream has lost.
type MissingEvent struct {
	Stream   string `json:"stream"`
	Position string `json:"position"`
	ID       string `json:"id"`
	// Type is empty if its row is gone.
	Type  string `json:"type,omitempty"`
	Table string `json:"table"`
	// Lost says why it cannot be brought back; empty if it can.
	Lost string `json:"lost,omitempty"`
}

// RepairReport says what was missing, for each stream that had lost something.
type RepairReport struct {
	Streams []StreamRepair `json:"streams"`
}

// StreamRepair says what a stream had lost, and what became of it.
type StreamRepair struct {
	Stream string `json:"stream"`
	// What happened to the stream, in words.
	What string `json:"what"`
	// AfterSequence is the last sequence that the stream had, and
	// RecordedSequence the one that it had reached before.
	AfterSequence    uint64 `json:"after_sequence"`
	RecordedSequence uint64 `json:"recorded_sequence"`
	// Missing events are known by the journal: the first and the last one, and
	// when the first was written down there.
	Missing int        `json:"missing"`
	First   string     `json:"first,omitempty"`
	Last    string     `json:"last,omitempty"`
	Since   *time.Time `json:"since,omitempty"`
	// Unknown is how many messages more the stream had, of which the journal
	// says nothing.
	Unknown uint64 `json:"unknown,omitempty"`
	// Restored events are in the stream again, or can be; Lost ones cannot.
	Restored int `json:"restored"`
	Lost     int `json:"lost"`
	// Done says that the stream is complete again, or as complete as was
	// accepted: a relay goes on.
	Done bool `json:"done"`
}

// IncompleteError says that a repair would not bring everything back.
type IncompleteError struct {
	Stream  string
	Lost    int
	Unknown uint64
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("stream %q: %s cannot be brought back, so nothing is published; put their rows back (with the same id) and run \"walrelay repair\" again, or go on without them: \"walrelay repair --accept-loss\"",
		e.Stream, losses(e.Lost, e.Unknown))
}

// losses counts what cannot be brought back.
func losses(lost int, unknown uint64) string {
	text := counted(lost, "event")
	if unknown == 0 {
		return text
	}
	before := counted(int(unknown), "message") + " from before the journal begins"
	if lost == 0 {
		return before
	}
	return text + " and " + before
}

// Repair publishes again what the streams have lost, from the rows of the outbox
// tables, in commit order. No relay may run, except beside a dry run; one that is started meanwhile waits
// as a standby, so newer events follow. The report is empty if no stream has lost
// anything.
//
// It may be interrupted at any time and called again. The error joins an
// *[IncompleteError] for each stream of which something cannot be brought back,
// unless that is accepted, and others, as that of [Setup].
func Repair(ctx context.Context, cfg config.Config, options RepairOptions) (RepairReport, error) {
	var report RepairReport
	cfg = cfg.WithDefaults()
	if results, _, err := check.Run(ctx, cfg); err != nil || results.Err() != nil {
		return report, errors.Join(results.Err(), err)
	}
	nc, err := connect.NATS(ctx, cfg.NATS)
	if err != nil {
		return report, connect.Refused(cfg.NATS, err)
	}
	defer nc.Close()
	r := &repair{cfg: cfg, options: options, nc: nc}
	if r.plan, err = r.cfg.Compile(); err != nil {
		return report, err
	}
	defer r.close()
	if err := r.open(ctx); err != nil {
		return report, err
	}
	ctx, release := r.keepSlot(ctx)
	defer release()
	losses, err := r.losses(ctx)
	if err != nil {
		return report, err
	}
	var incomplete []error
	for n := range losses {
		s, err := r.stream(ctx, &losses[n])
		report.Streams = append(report.Streams, s)
		if _, ok := errors.AsType[*IncompleteError](err); ok {
			incomplete = append(incomplete, err)
			continue
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return report, err
		}
	}
	return report, errors.Join(incomplete...)
}

// repair brings back what streams have lost.
type repair struct {
	cfg     config.Config
	plan    *config.Plan
	options RepairOptions
	nc      *nats.Conn
	conn    *pgx.Conn           // for progress and the journal
	slot    *replication.Stream // nil in a dry run

	system     replication.System
	wal        replication.LSN
	checkpoint *checkpoint.Checkpoint // nil in a dry run
	recorded   checkpoint.State
	// passed is the LSN from which on the slot sends events again.
	passed replication.LSN
}

// open finds out where the slot stands, and takes it over unless in a dry run:
// a relay that wakes up then writes nothing any more.
func (r *repair) open(ctx context.Context) (err error) {
	if r.conn, err = connect.Durable(ctx, r.cfg.Postgres); err != nil {
		return err
	}
	if r.system, err = r.takeSlot(ctx); err != nil {
		return err
	}
	system := checkpoint.System{ID: r.system.ID, Timeline: r.system.Timeline}
	recorded, err := checkpoint.Load(ctx, r.conn, r.cfg.Slot)
	if err != nil || recorded == nil {
		return err
	}
	if r.options.DryRun {
		if r.wal, err = checkpoint.WALEnd(ctx, r.conn); err == nil {
			err = recorded.Fits(r.cfg.Slot, system, r.wal)
		}
		r.recorded = *recorded
	} else {
		if r.checkpoint, r.wal, err = checkpoint.Begin(ctx, r.conn, r.cfg.Slot, system); err == nil {
			r.recorded = r.checkpoint.State()
		}
	}
	if err != nil {
		return err
	}
	r.passed = max(r.system.ConfirmedFlush, r.recorded.FlushLSN)
	return nil
}

func (r *repair) close() {
	if r.slot != nil {
		if err := r.slot.Close(closeGrace); err != nil {
			r.options.Log.Debug().Err(err).Msg("the stream from Postgres did not end in order")
		}
	}
	if r.conn != nil {
		connect.ClosePostgres(r.conn)
	}
}

// takeSlot returns what the server is. Unless in a dry run it waits until no relay has
// the slot, and then holds it, so that a relay that is started meanwhile waits as a
// standby. What the server sends is thrown away: it sends it again later. (A dry run
// beside a relay reads what is recorded before it asks the streams, which are then
// further, if anything.)
func (r *repair) takeSlot(ctx context.Context) (replication.System, error) {
	pid := ""
	url, password, err := connect.SlotSecrets(ctx, r.cfg.Postgres)
	if err != nil {
		return replication.System{}, err
	}
	cfg := replication.Config{
		ConnString: url, Password: password, Slot: r.cfg.Slot, Publication: r.cfg.Publication,
		OnBusy: func(holder string) { pid = holder },
	}
	if r.options.DryRun {
		return replication.Identify(ctx, cfg)
	}
	waiting, cancel := context.WithTimeout(ctx, repairPatience)
	defer cancel()
	stream, err := replication.Open(waiting, cfg)
	switch {
	case err != nil && pid != "" && waiting.Err() != nil && ctx.Err() == nil:
		return replication.System{}, &problem.Problem{
			ID:   "relay_running",
			What: fmt.Sprintf("a relay is running: it holds slot %q (its walsender has pid %s)", r.cfg.Slot, pid),
			Fix:  "stop it, its standbys too, and run this again",
		}
	case err != nil:
		return replication.System{}, err
	}
	r.slot = stream
	return stream.System(), nil
}

// keepSlot ends the context with an error when the server ends the stream from
// the slot, until the function that it returns is called.
func (r *repair) keepSlot(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if r.slot == nil {
		return ctx, func() { cancel(nil) }
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.slot.Discard(); err != nil {
			cancel(err)
		}
	}()
	return ctx, func() {
		r.slot.Interrupt()
		<-done
		cancel(nil)
	}
}

// router returns one for the streams. It is opened for a repair.
func (r *repair) router(p *restorer, streams ...router.Stream) *router.Router {
	cfg := r.plan.Router(r.cfg, r.recorded.Origin(r.cfg.Slot, checkpoint.System{ID: r.system.ID, Timeline: r.system.Timeline}, r.system.Ended, r.wal))
	cfg.Streams, cfg.Repair = streams, true
	cfg.Observer, cfg.Parker, cfg.Log = p, p, r.options.Log
	return router.New(r.nc, cfg)
}

// losses asks the streams what they have.
func (r *repair) losses(ctx context.Context) ([]router.Loss, error) {
	var streams []router.Stream
	found := false
	for _, s := range r.plan.Streams {
		if r.options.Stream != "" && s.Name != r.options.Stream {
			continue
		}
		found = true
		if s.Shared && r.options.Stream != "" {
			return nil, &problem.Problem{
				ID:   "stream_shared",
				What: fmt.Sprintf("stream %q is shared with others", s.Name),
				Fix:  "only what is missing in streams that walrelay owns can be told",
			}
		}
		streams = append(streams, s)
	}
	if !found {
		return nil, &config.Error{Key: "streams", Problem: fmt.Sprintf("there is none with the name %q", r.options.Stream)}
	}
	rt := r.router(&restorer{}, streams...)
	for deadline := time.Now().Add(repairPatience); ; {
		losses, err := rt.Losses(ctx, r.recorded.Streams)
		if err == nil || problem.Permanent(err) || time.Now().After(deadline) {
			return losses, err
		}
		if err := wait.For(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// source reads what a stream has lost after a position.
func (r *repair) source(stream string, after event.Position) (*journalSource, error) {
	rows, err := outboxrows.New(r.cfg, r.plan.Decode)
	if err != nil {
		return nil, err
	}
	journal := &journalReader{conn: r.conn, slot: r.cfg.Slot, stream: stream, after: after, before: r.passed}
	return &journalSource{journal: journal, rows: rows}, nil
}

// stream repairs one stream.
func (r *repair) stream(ctx context.Context, loss *router.Loss) (StreamRepair, error) {
	s, err := survey(ctx, r.conn, r.cfg.Slot, loss, r.passed)
	if err != nil {
		return s, err
	}
	if r.options.Begin != nil {
		if err := r.options.Begin(s); err != nil {
			return s, err
		}
	}
	if r.options.DryRun || !r.options.AcceptLoss {
		// Without publishing, to find out whether anything cannot be brought back.
		p := &restorer{repair: r, stream: loss.Stream, last: loss.After, said: loss.After}
		var target dryTarget
		if r.options.DryRun {
			target.say = func(ev *event.Event) error { return p.tell(ev, "") }
		}
		if err := p.each(ctx, target); err != nil {
			return s, err
		}
		s.Restored, s.Lost = p.restored, p.lost
		if !r.options.AcceptLoss && (s.Lost > 0 || s.Unknown > 0) {
			err = &IncompleteError{Stream: loss.Stream, Lost: s.Lost, Unknown: s.Unknown}
		}
		if r.options.DryRun {
			return s, err
		}
		if err != nil {
			s.Restored = 0
			return s, err
		}
	}
	p := &restorer{repair: r, stream: loss.Stream, refused: make(map[event.Position]bool)}
	err = p.restore(ctx, loss)
	s.Restored, s.Lost = p.restored, p.lost
	s.Done = err == nil
	return s, err
}

// save writes down how far a stream has come.
func (r *repair) save(ctx context.Context, stream string, state router.StreamState) error {
	next := r.recorded
	next.Streams = maps.Clone(r.recorded.Streams)
	next.Streams[stream] = state
	if err := r.checkpoint.Save(ctx, r.conn, next, nil); err != nil {
		return err
	}
	r.recorded = next
	return nil
}
