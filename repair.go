package walrelay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/router"
)

const (
	// repairBatch is how many events are looked up at once; after them, how far
	// the repair has come is written down.
	repairBatch = 5000
	// repairPatience is how long a relay that has just ended may hold the slot,
	// and a stream be without an answer.
	repairPatience = 5 * time.Second
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
	before := counted(int(unknown), "message") + " from before the journal begins" //nolint:gosec // a number of messages
	if lost == 0 {
		return before
	}
	return text + " and " + before
}

// Repair publishes again what the streams have lost, from the rows of the outbox
// tables, in commit order. No relay may run; one
// that is started meanwhile waits as a standby, so newer events follow. The report is empty if no stream has lost anything.
//
// It may be interrupted at any time and called again. The error is an
// *[IncompleteError] if something cannot be brought back and that is not
// accepted; or joins *[ConfigError], *[SetupError] and others, as that of
// [Setup].
func Repair(ctx context.Context, cfg Config, options RepairOptions) (RepairReport, error) {
	var report RepairReport
	i, err := newInspector(ctx, cfg)
	if err != nil {
		return report, err
	}
	defer i.close()
	if _, err := i.inspect(ctx, false); err != nil {
		return report, err
	}
	r := &repair{cfg: i.cfg, options: options, nc: i.nc}
	if r.plan, err = newPlan(r.cfg); err != nil {
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
	for n := range losses {
		s, err := r.stream(ctx, &losses[n])
		report.Streams = append(report.Streams, s)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return report, err
		}
	}
	return report, nil
}

// repair brings back what streams have lost.
type repair struct {
	cfg     Config
	plan    plan
	options RepairOptions
	nc      *nats.Conn
	conn    *pgx.Conn           // for progress and the journal
	slot    *replication.Stream // nil in a dry run

	system   replication.System
	wal      replication.LSN
	recorded progress
	// passed is the LSN from which on the slot sends events again.
	passed replication.LSN
}

// open finds out where the slot stands, and takes it over unless in a dry run:
// a relay that wakes up then writes nothing any more.
func (r *repair) open(ctx context.Context) (err error) {
	if r.conn, err = connectDurably(ctx, r.cfg); err != nil {
		return err
	}
	if r.system, err = r.takeSlot(ctx); err != nil {
		return err
	}
	if r.wal, err = walEnd(ctx, r.conn); err != nil {
		return err
	}
	recorded, err := loadProgress(ctx, r.conn, r.cfg.Slot)
	if err != nil || recorded == nil {
		return err
	}
	if err := recorded.fits(r.cfg.Slot, r.system, r.wal); err != nil {
		return err
	}
	if !r.options.DryRun {
		session, err := takeOver(ctx, r.conn, r.cfg.Slot, r.system)
		if err != nil {
			return err
		}
		if recorded, err = loadProgress(ctx, r.conn, r.cfg.Slot); err != nil {
			return err
		}
		recorded.session = session
	}
	r.recorded = *recorded
	r.passed = max(r.system.ConfirmedFlush, r.recorded.flushLSN)
	return nil
}

func (r *repair) close() {
	if r.slot != nil {
		if err := r.slot.Close(closeGrace); err != nil {
			r.options.Log.Debug().Err(err).Msg("the stream from Postgres did not end in order")
		}
	}
	if r.conn != nil {
		closePostgres(r.conn)
	}
}

// takeSlot returns what the server is, once no relay has the slot. Unless in a
// dry run it then holds the slot, so that a relay that is started meanwhile waits
// as a standby. What the server sends is thrown away: it sends it again later.
func (r *repair) takeSlot(ctx context.Context) (replication.System, error) {
	pid := ""
	cfg := replication.Config{
		ConnString: r.cfg.Postgres.URL, Slot: r.cfg.Slot, Publication: r.cfg.Publication, Messages: true,
		OnBusy: func(holder string) { pid = holder },
	}
	busy := func() error {
		return &SetupError{
			What:   fmt.Sprintf("a relay is running: it holds slot %q (its walsender has pid %s)", r.cfg.Slot, pid),
			Remedy: "stop it, its standbys too, and run this again",
		}
	}
	if !r.options.DryRun {
		waiting, cancel := context.WithTimeout(ctx, repairPatience)
		defer cancel()
		stream, err := replication.Open(waiting, cfg)
		switch {
		case err != nil && pid != "" && waiting.Err() != nil && ctx.Err() == nil:
			return replication.System{}, busy()
		case err != nil:
			return replication.System{}, err
		}
		r.slot = stream
		return stream.System(), nil
	}
	for deadline := time.Now().Add(repairPatience); ; {
		var holder *int
		if err := r.conn.QueryRow(ctx, "SELECT active_pid FROM pg_catalog.pg_replication_slots WHERE slot_name = $1", r.cfg.Slot).Scan(&holder); err != nil {
			return replication.System{}, fmt.Errorf("looking for who holds slot %q: %w", r.cfg.Slot, err)
		}
		if holder == nil {
			return replication.Identify(ctx, cfg)
		}
		pid = strconv.Itoa(*holder)
		if time.Now().After(deadline) {
			return replication.System{}, busy()
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return replication.System{}, err
		}
	}
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

// pause waits, unless the context ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// router returns one for the streams. It is opened for a repair.
func (r *repair) router(p *restorer, streams ...router.Stream) (*router.Router, error) {
	ended := make(map[int32]uint64, len(r.system.Ended))
	for timeline, lsn := range r.system.Ended {
		ended[timeline] = uint64(lsn)
	}
	rt, err := router.New(r.nc, router.Config{
		Streams: streams,
		Rules:   r.plan.rules,
		Origin: router.Origin{
			SystemID: r.system.ID, Slot: r.cfg.Slot, Timeline: r.system.Timeline, Ended: ended, WAL: uint64(r.wal),
		},
		MaxInFlight:      r.cfg.Publish.MaxInFlight,
		MaxInFlightBytes: r.cfg.Publish.MaxInFlightBytes,
		AckTimeout:       r.cfg.Publish.AckTimeout,
		Domain:           r.cfg.NATS.Domain,
		Sink:             p,
		Delay:            p,
		Log:              r.options.Log,
		Repair:           true,
	})
	if err != nil {
		return nil, fmt.Errorf("preparing to publish: %w", err)
	}
	return rt, nil
}

// losses asks the streams what they have.
func (r *repair) losses(ctx context.Context) ([]router.Loss, error) {
	var streams []router.Stream
	found := false
	for _, s := range r.plan.streams {
		if r.options.Stream != "" && s.Name != r.options.Stream {
			continue
		}
		found = true
		if s.Shared && r.options.Stream != "" {
			return nil, &SetupError{
				What:   fmt.Sprintf("stream %q is shared with others", s.Name),
				Remedy: "only what is missing in streams that walrelay owns can be told",
			}
		}
		streams = append(streams, s)
	}
	if !found {
		return nil, &ConfigError{Key: "streams", Problem: fmt.Sprintf("there is none with the name %q", r.options.Stream)}
	}
	rt, err := r.router(&restorer{}, streams...)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(repairPatience); ; {
		losses, err := rt.Losses(ctx, r.recorded.streams)
		if err == nil || isConfiguration(err) || time.Now().After(deadline) {
			return losses, err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// journal reads what the stream has lost.
func (r *repair) journal(stream string, after event.Position) *journalReader {
	return &journalReader{conn: r.conn, slot: r.cfg.Slot, stream: stream, after: after, before: r.passed}
}

// survey counts what the journal says is missing. It finds the position after
// which that begins, if only the number of events is known.
func survey(ctx context.Context, conn *pgx.Conn, slot string, loss *router.Loss, passed replication.LSN) (s StreamRepair, err error) {
	s = StreamRepair{
		Stream: loss.Stream, What: loss.String(), AfterSequence: loss.LastSequence, RecordedSequence: loss.Recorded.LastSequence,
	}
	through := event.Position{}
	if loss.Recorded.Position != "" {
		if through, err = event.ParsePosition(loss.Recorded.Position); err != nil {
			return s, fmt.Errorf("the recorded state of stream %q: %w", loss.Stream, err)
		}
	}
	if loss.Counted {
		if err := findStart(ctx, conn, slot, loss, through); err != nil {
			return s, err
		}
	}
	// The slot brings those again that it has not passed; but the sequence that
	// is recorded counts them.
	j := &journalReader{conn: conn, slot: slot, stream: loss.Stream, after: loss.After, before: ^replication.LSN(0)}
	known := uint64(0)
	for {
		entry, ok, err := j.next(ctx)
		if err != nil {
			return s, err
		}
		if !ok {
			break
		}
		if entry.Position.Compare(through) <= 0 {
			known++
		}
		if replication.LSN(entry.Position.CommitLSN) >= passed {
			continue
		}
		if s.Missing++; s.Missing == 1 {
			s.First, s.Since = entry.Position.String(), &entry.writtenAt
		}
		s.Last = entry.Position.String()
	}
	had := loss.Recorded.LastSequence
	if !loss.Recreated() {
		had -= min(had, loss.LastSequence)
	}
	if !loss.Recorded.Repairing && had > known {
		s.Unknown = had - known
	}
	return s, nil
}

// findStart finds out behind which event the last ones up to a position begin,
// of which only the number is known.
func findStart(ctx context.Context, conn *pgx.Conn, slot string, loss *router.Loss, through event.Position) error {
	count := func(n uint64) (seen uint64, last event.Position, err error) {
		j := &journalReader{conn: conn, slot: slot, stream: loss.Stream, before: ^replication.LSN(0)}
		for seen < n {
			entry, ok, err := j.next(ctx)
			if err != nil {
				return 0, last, err
			}
			if !ok || entry.Position.Compare(through) > 0 {
				break
			}
			seen, last = seen+1, entry.Position
		}
		return seen, last, nil
	}
	all, _, err := count(^uint64(0))
	if err != nil {
		return err
	}
	_, loss.After, err = count(all - min(all, loss.Count))
	return err
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
		if err := p.each(ctx, nil); err != nil {
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
	next.streams = maps.Clone(r.recorded.streams)
	next.streams[stream] = state
	if err := next.save(ctx, r.conn, r.cfg.Slot, nil); err != nil {
		return err
	}
	r.recorded = next
	return nil
}

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

// Done implements [router.Sink].
func (p *restorer) Done(uint64, router.Outcome, *event.Event, time.Duration) {}

// Held implements [router.Sink].
func (p *restorer) Held(stream string, reason error) {
	if reason == nil {
		p.repair.options.Log.Info().Str("stream", stream).Msg("the stream flows again")
		return
	}
	p.repair.options.Log.Warn().Str("stream", stream).Err(reason).Msg("the stream is held in place and tried again")
}

// Holds implements [router.Delay].
func (p *restorer) Holds(*event.Event) bool { return false }

// Fail implements [router.Delay]. Those behind the event are read again.
func (p *restorer) Fail(_ context.Context, failed router.Flight, reason error, _ []router.Flight) error {
	if poison, ok := errors.AsType[*router.EventError](reason); ok {
		reason = poison.Err
	}
	return &refusal{failed.Event, reason}
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
	p.last, p.said = loss.After, loss.After
	for {
		err := p.round(ctx)
		refused, ok := errors.AsType[*refusal](err)
		switch {
		case err == nil:
			state := p.repair.recorded.streams[p.stream]
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
			if p.repair.conn, err = connectDurably(ctx, p.repair.cfg); err != nil {
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
	rt, err := p.repair.router(p, router.Stream{Name: p.stream})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rt.Close()) }()
	if err := rt.Open(ctx, p.repair.recorded.streams); err != nil {
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
	rows, err := newOutboxRows(p.repair.cfg, p.repair.plan.decode)
	if err != nil {
		return err
	}
	defer rows.close(ctx)
	journal := p.repair.journal(p.stream, p.last)
	for more := true; more; {
		var batch []journalled
		for more && len(batch) < repairBatch {
			entry, ok, err := journal.next(ctx)
			if err != nil {
				return err
			}
			if more = ok; ok {
				batch = append(batch, entry)
			}
		}
		if len(batch) == 0 {
			break
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
func (p *restorer) batch(ctx context.Context, rt *router.Router, rows *outboxRows, batch []journalled) (restored int, err error) {
	if err := rows.batch(ctx, batch); err != nil {
		return 0, err
	}
	for _, entry := range batch {
		ev, why, err := rows.event(entry)
		if err != nil {
			return 0, err
		}
		if target := p.repair.plan.rules.Match(ev); why == "" && (target.Drop || target.Stream != p.stream) {
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
			err = p.restoreOne(ctx, rt, ev)
		}
		if err != nil {
			return 0, err
		}
	}
	return restored, rows.end()
}

// restoreOne publishes one event; without a router, it says that it would.
func (p *restorer) restoreOne(ctx context.Context, rt *router.Router, ev *event.Event) error {
	if rt == nil {
		if p.repair.options.DryRun {
			return p.tell(ev, "")
		}
		return nil
	}
	err := rt.Publish(ctx, ev, 0)
	if poison, ok := errors.AsType[*router.EventError](err); ok && poison.Class == router.Poison {
		return &refusal{ev, poison.Err}
	}
	return err
}

// settle waits until everything that was published is stored, and writes down
// how far that is.
func (p *restorer) settle(ctx context.Context, rt *router.Router) error {
	for rt.InFlight() > 0 {
		if err := pause(ctx, 2*time.Millisecond); err != nil {
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
