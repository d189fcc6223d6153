package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/checkpoint"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/retention"
	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
	"github.com/walrelay/walrelay/sql"
)

const (
	// reportInterval is how often the slot is told how far it may advance.
	reportInterval = time.Second
	// slotInterval is how often the slot's state is looked at, and
	// recheckInterval how often everything that the events depend on in
	// Postgres: a table taken out of the publication sends nothing, silently.
	slotInterval    = 5 * time.Second
	recheckInterval = 20 * time.Second
	// sqlTimeout bounds one statement on the control connection.
	sqlTimeout = 5 * time.Second
	// stoppingGrace is how long a server that shuts down waits for what is in
	// flight.
	stoppingGrace = 2 * time.Second
	// closeGrace bounds the last words to the server.
	closeGrace = 2 * time.Second
)

// session is one stream from the slot, with everything that belongs to it:
// whatever fails, all of it is given up and made anew, and the streams say
// where to go on.
type session struct {
	relay   *Relay
	stream  *replication.Stream
	decoder *decode.Decoder
	router  *router.Router

	control    *pgx.Conn // used by the reporter only; nil while it is lost
	settler    *settler
	table      *retry.Table
	dispatcher *dispatcher
	decoding   decode.Config
	// reportNow asks the reporter not to wait for its next turn, and saveWanted
	// says that somebody waits for the frontier to be saved.
	reportNow  wait.Signal
	saveWanted atomic.Bool

	checkpoint *checkpoint.Checkpoint // saved by the reporter only

	sampled sample // used by the reporter only
}

// sample is a snapshot of the database, and an LSN by which every transaction
// that it sees had committed: once the frontier is there, every event of those
// is settled. (A transaction becomes visible after its commit record is
// in the write-ahead log, whatever synchronous_commit says.)
type sample struct {
	snapshot string
	lsn      replication.LSN
	settled  uint64 // at the time
	// open says that a transaction was under way, of whatever database; oldest is the oldest
	// one: when it has ended, more can be said.
	open   bool
	oldest string
}

// session streams until the context ends, which it does in order, or until
// something fails.
func (r *Relay) session(ctx context.Context, nc *nats.Conn) (err error) {
	s := &session{relay: r, reportNow: wait.NewSignal()}
	defer func() { s.closeTable() }()
	r.health.setPhase("checking Postgres and NATS")
	if err := r.inspectOnce(ctx); err != nil {
		return err
	}
	r.health.setPhase("connecting to Postgres")
	if err := s.connectControl(ctx); err != nil {
		return err
	}
	defer func() { s.closeControl(ctx) }()
	if facts, err := check.Read(ctx, check.Sources{Postgres: s.control}, r.cfg, check.ScopeSlot); err != nil {
		return err
	} else if err := check.Judge(&facts, r.cfg, 0).Err(); err != nil {
		return err
	}
	// Logical messages are asked for only where versions before walrelay.emitted
	// have left some in the WAL.
	before, err := checkpoint.Load(ctx, s.control, r.cfg.Slot)
	if err != nil {
		return err
	}
	legacy := before != nil && before.FlushLSN < before.MessagesUntil
	url, password, err := connect.SlotSecrets(ctx, r.cfg.Postgres)
	if err != nil {
		return err
	}
	s.stream, err = replication.Open(ctx, replication.Config{
		ConnString: url, Password: password,
		Slot:        r.cfg.Slot,
		Publication: r.cfg.Publication,
		Messages:    legacy,
		Unconverted: decode.Converts,
		OnBusy: func(pid string) {
			r.health.setPhase("standby: another session holds the slot")
			r.log.Info().Str("pid", pid).
				Msg("another session holds the slot; waiting as a standby")
		},
		OnNotice: r.notice(),
	})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := s.stream.Close(closeGrace); err == nil && cerr != nil {
			r.log.Debug().Err(cerr).Msg("the stream from Postgres did not end in order")
		}
	}()

	s.settler = &settler{frontier: s.stream.Frontier(), metrics: r.metrics, health: &r.health, log: r.log, limits: newLimits(), burst: newBurst(), tracer: r.tracer}

	// From here on the slot is ours. The parts outlive the context until what
	// is in flight is settled.
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(context.Canceled)
	dog := watchdog{stream: s.stream, settled: s.settler.settled.Load, log: r.log}
	stopWatching := dog.start(work, cancel)
	defer stopWatching()
	stopOpening := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	if err := s.openRouter(work, nc); err != nil {
		stopOpening()
		return err
	}
	defer s.closeRouter()
	stopOpening()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.run(ctx, work, cancel, nc)
}

// inspectOnce checks everything that init makes, until that has succeeded once.
func (r *Relay) inspectOnce(ctx context.Context) error {
	if r.inspected {
		return nil
	}
	results, facts, err := check.Run(ctx, r.cfg)
	if err := errors.Join(results.Err(), err); err != nil {
		return fmt.Errorf("checking Postgres and NATS: %w", err)
	}
	for _, d := range facts.Durabilities(r.cfg) {
		r.log.Info().Str("stream", d.Stream).Str("durability", d.Text).Msg("durability of acknowledgements")
	}
	for _, result := range results.With(check.Warn) {
		r.log.Warn().Str("check", result.ID).Str("subject", result.Subject).Str("reason", result.Text()).Msg("check warns")
	}
	r.partitioned = make(map[tableName]bool)
	for i, t := range r.plan.Decode.Tables {
		if facts.Tables[i].Kind == check.Partitioned {
			r.partitioned[tableName{t.Schema, t.Name}] = true
		}
	}
	r.inspected = true
	return nil
}

// openRouter finds out what the streams have, and writes it down before the
// first event is published.
func (s *session) openRouter(ctx context.Context, nc *nats.Conn) error {
	r, system := s.relay, s.stream.System()
	r.health.setPhase("reading the streams")
	// From here on, an earlier session writes nothing any more. What it wrote
	// until now counts.
	var wal replication.LSN
	var err error
	s.checkpoint, wal, err = checkpoint.Begin(ctx, s.control, r.cfg.Slot, checkpoint.System{ID: system.ID, Timeline: system.Timeline})
	if err != nil {
		return err
	}
	s.checkpoint.OnRequest(func() {
		s.saveWanted.Store(true)
		s.reportNow.Send()
	})
	state := s.checkpoint.State()
	decoding := r.plan.Decode
	decoding.MessagesUntil, decoding.Encoding = uint64(state.MessagesUntil), system.Encoding
	decoding.MaxEventSize = maxEventSize(r.cfg.Publish, nc)
	s.decoding = decoding
	if s.decoder, err = decode.New(decoding); err != nil {
		return fmt.Errorf("preparing the decoder: %w", err)
	}
	passed := max(system.ConfirmedFlush, state.FlushLSN)
	var known map[event.Position]retry.State
	s.table, known, err = retry.Open(ctx, s.control, retry.Config{
		Connect:      func(ctx context.Context) (*pgx.Conn, error) { return connect.Durable(ctx, r.cfg.Postgres) },
		Slot:         r.cfg.Slot,
		Session:      state.Session,
		FailedBlocks: r.cfg.Retry.FailedHoldsKey,
		Frontier:     s.stream.Frontier(),
		Checkpoint:   s.checkpoint,
		Observe:      newTableObserver(r.metrics, &r.health, r.log),
	}, passed)
	if err != nil {
		return err
	}
	parking := &parking{
		table: s.table, keys: s.table.Keys(), observe: s.settler, failedBlocks: r.cfg.Retry.FailedHoldsKey,
		policy: func(ev *event.Event) retry.Policy { return r.plan.Rules.Match(ev).Retry },
	}
	cfg := r.plan.Router(r.cfg, state.Origin(r.cfg.Slot, checkpoint.System{ID: system.ID, Timeline: system.Timeline}, system.Ended, wal))
	cfg.SplitRefused = r.cfg.Publish.AtomicOverflow == config.OverflowSplit
	cfg.JournalFilling = s.reportNow.Send
	cfg.Observer, cfg.Parker, cfg.Log = s.settler, parking, r.log
	s.router = router.New(nc, cfg)
	s.dispatcher = &dispatcher{router: s.router, parking: parking, passed: passed, known: known, recent: newRecent(r.partitioned), batch: newBatch(r.cfg.Publish)}
	if err := s.router.Open(ctx, state.Streams); err != nil {
		s.closeRouter()
		return err
	}
	state.FlushLSN, state.Streams = passed, s.router.Progress()
	if err := s.checkpoint.Save(ctx, s.control, state, nil); err != nil {
		s.closeRouter()
		return err
	}
	if err := s.checkpoint.SaveKey(ctx, s.control); err != nil {
		s.closeRouter()
		return err
	}
	return nil
}

func (s *session) closeTable() {
	if s.table == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	if err := s.table.Close(ctx); err != nil {
		s.relay.log.Debug().Err(err).Msg("closing the delay table")
	}
}

func (s *session) closeRouter() {
	if err := s.router.Close(); err != nil {
		s.relay.log.Debug().Err(err).Msg("closing the router")
	}
}

// run streams: one goroutine reads, decodes and publishes, one keeps the
// streams in order, one reports to the slot.
func (s *session) run(ctx, work context.Context, cancel context.CancelCauseFunc, nc *nats.Conn) error {
	r := s.relay
	if r.streamed {
		r.metrics.Reconnects.WithLabelValues("postgres").Inc()
	}
	r.streamed = true
	r.pulse.begin(time.Now())
	r.current.Store(s)
	defer r.current.Store(nil)
	r.health.setPhase("")
	r.log.Info().Str("publication", r.cfg.Publication).
		Stringer("from", s.stream.System().ConfirmedFlush).Msg("streaming")

	group, work := errgroup.WithContext(work)
	reading, stopReading := context.WithCancelCause(work)
	defer stopReading(context.Canceled)
	stop := context.AfterFunc(ctx, func() { stopReading(context.Cause(ctx)) })
	defer stop()
	interrupt := context.AfterFunc(reading, s.stream.Interrupt)
	defer interrupt()

	group.Go(func() error { return s.router.Run(work) })
	group.Go(func() error { return s.table.Run(work) })
	group.Go(func() error {
		s.cleaner().Run(work)
		return nil
	})
	group.Go(func() error {
		s.settler.limits.watch(work, nc, r.cfg.NATS, r.log)
		return nil
	})
	group.Go(func() error {
		s.settler.burst.run(work, r.log)
		return nil
	})
	reported := make(chan struct{})
	finish := make(chan struct{})
	group.Go(func() error {
		defer close(reported)
		return s.report(work, finish)
	})
	group.Go(func() error {
		err := s.read(reading)
		if work.Err() != nil {
			return context.Cause(work)
		}
		// The others still work: let what is in flight be settled.
		grace := r.cfg.ShutdownTimeout
		switch {
		case ctx.Err() != nil:
			err = nil
		case errors.Is(err, replication.ErrServerStopping):
			grace = stoppingGrace
		default:
			return err
		}
		s.drain(work, grace)
		close(finish)
		select {
		case <-reported:
		case <-work.Done():
		}
		cancel(context.Canceled)
		return err
	})
	err := group.Wait()
	if ctx.Err() != nil {
		r.log.Info().Stringer("flush_lsn", s.stream.Reported()).Int("in_flight", s.router.InFlight()).Msg("stopped")
		if problem.Permanent(err) || errors.Is(err, retry.ErrSuperseded) {
			return err
		}
		return nil
	}
	return err
}

// cleaner returns what cleans up the rows of settled events.
func (s *session) cleaner() *retention.Cleaner {
	r := s.relay
	cfg := retention.Config{
		Connect: func(ctx context.Context) (*pgx.Conn, error) { return connect.Postgres(ctx, r.cfg.Postgres) },
		Slot:    r.cfg.Slot,
		Mode:    retention.Mode(r.cfg.Outbox.AfterPublish),
		Window:  r.cfg.Outbox.RepairWindow,
		Saved: func() replication.LSN {
			lsn, _ := s.checkpoint.Saved()
			return lsn
		},
		Observe: r.metrics,
		Also:    s.table.Count,
		Log:     r.log,
	}
	for _, t := range r.plan.Decode.Tables {
		cfg.Tables = append(cfg.Tables, retention.Table{Schema: t.Schema, Name: t.Name, ID: t.Mapping.Column(event.ColumnID)})
	}
	return retention.New(cfg)
}

// drain waits until nothing is in flight, for at most grace.
func (s *session) drain(ctx context.Context, grace time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.router.InFlight() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// read takes the stream's messages in order, until the context ends or
// something fails.
func (s *session) read(ctx context.Context) error {
	frontier := s.stream.Frontier()
	inTransaction := false
	var commitLSN uint64
	for {
		if err := s.dispatcher.flush(ctx, !s.stream.Buffered()); err != nil {
			return err
		}
		msg, err := s.stream.Receive()
		if err != nil {
			return err
		}
		if msg.Data == nil {
			if err := s.keepalive(msg, inTransaction); err != nil {
				return err
			}
			continue
		}
		change, err := s.decoder.Decode(msg.Data)
		rowErr, isRow := errors.AsType[*decode.RowError](err)
		if err != nil && !isRow {
			return undecodable(err)
		}
		switch change.Kind {
		case decode.Begin:
			inTransaction, commitLSN = true, change.CommitLSN
			s.stream.Age(msg.ServerTime.Sub(change.CommittedAt))
		case decode.Marker:
			if change.Marker == retry.Marker(s.checkpoint.State().Session) {
				s.table.Keys().ReplayedThrough(commitLSN)
			}
		case decode.Insert, decode.Reference:
			if err := s.insert(ctx, change, rowErr); err != nil {
				return err
			}
		case decode.Commit:
			inTransaction = false
			if err := s.dispatcher.commit(ctx); err != nil {
				return err
			}
			if err := frontier.Commit(replication.LSN(change.EndLSN)); err != nil {
				return err
			}
		case decode.Other:
		}
	}
}

// insert takes an event on its way.
func (s *session) insert(ctx context.Context, change decode.Change, rowErr *decode.RowError) (err error) {
	if change.Kind == decode.Reference {
		if change, rowErr, err = s.resolve(ctx, change); err != nil {
			return err
		}
	}
	ticket, err := s.ticket(ctx)
	if err != nil {
		return err
	}
	return s.dispatcher.insert(ctx, change, uint64(ticket), rowErr)
}

// keepalive takes what the server says between the changes.
func (s *session) keepalive(msg replication.Message, inTransaction bool) error {
	frontier := s.stream.Frontier()
	if !inTransaction {
		if err := frontier.Keepalive(msg.WALEnd); err != nil {
			return err
		}
	}
	if msg.ReplyRequested {
		s.reportNow.Send()
	}
	if msg.ServerStopping && frontier.LSN() < frontier.Received() {
		return replication.ErrServerStopping
	}
	return nil
}

// ticket takes the ticket of the next event. It does not wait for those that
// are in the stage: nobody else settles them.
func (s *session) ticket(ctx context.Context) (replication.Ticket, error) {
	frontier := s.stream.Frontier()
	if frontier.Full() {
		if err := s.dispatcher.flush(ctx, true); err != nil {
			return 0, err
		}
	}
	return frontier.Add(ctx)
}

// undecodable says why the relay ends, without a word to the slot: nobody could
// tell what is lost.
func undecodable(err error) error {
	return &problem.Problem{
		ID:   "undecodable",
		What: "what Postgres sent cannot be decoded, and nothing of it is confirmed",
		Fix:  "correct the outbox table or its mapping; if that is not it, please report it",
		Err:  err,
	}
}

// report tells the slot how far it may advance, once a second and when the
// server asks, and watches the slot. It returns after a last report when
// finish is closed.
func (s *session) report(ctx context.Context, finish <-chan struct{}) error {
	ticker := time.NewTicker(reportInterval)
	defer ticker.Stop()
	var looked time.Time
	checked := time.Now()
	for {
		last := false
		select {
		case <-ctx.Done():
			return nil
		case <-finish:
			last = true
		case <-s.reportNow:
		case <-ticker.C:
		}
		s.relay.pulse.tick(time.Now())
		if err := s.samplePublished(ctx); err != nil {
			return err
		}
		if err := s.reportOnce(ctx); err != nil {
			return err
		}
		if last {
			return nil
		}
		if time.Since(looked) >= slotInterval {
			looked = time.Now()
			if err := s.watchSlot(ctx); err != nil {
				return err
			}
		}
		if time.Since(checked) >= recheckInterval {
			checked = time.Now()
			if err := s.recheck(ctx); err != nil {
				return err
			}
		}
	}
}

// reportOnce writes progress down and then tells the slot. While the control
// connection is lost, nothing is told: the slot must not get ahead of what the
// next run knows.
func (s *session) reportOnce(ctx context.Context) error {
	lsn := s.stream.Frontier().LSN()
	saved, _ := s.checkpoint.Saved()
	wanted := s.saveWanted.Swap(false) && lsn > saved
	// A transaction of millions of events moves nothing, and fills the journal.
	if lsn <= s.stream.Reported() && !s.router.MustSave() && !wanted {
		return nil
	}
	if wanted || s.progressed() {
		err := s.withControl(ctx, func(ctx context.Context, conn *pgx.Conn) error { return s.save(ctx, conn, "") })
		switch {
		case errors.Is(err, retry.ErrSuperseded) || errors.Is(err, replication.ErrServerStopping):
			return err
		case err != nil:
			s.relay.log.Warn().Err(err).Msg("the checkpoint is not saved, so the slot is not advanced; trying again")
			return nil
		}
	}
	if lsn <= s.stream.Reported() {
		return nil
	}
	if err := s.stream.Report(lsn); err != nil {
		return err
	}
	s.relay.metrics.FlushLSN.Set(float64(lsn))
	return nil
}

// samplePublished notes, now and then, which transactions have only events with
// an outcome, for the clean-up and for walrelay.event_status.
func (s *session) samplePublished(ctx context.Context) error {
	settled := s.settler.settled.Load() + 1 // so that 0 is before the first sample
	waiting := s.sampled.snapshot != ""
	reached := waiting && s.stream.Frontier().LSN() >= s.sampled.lsn
	if waiting && !reached || !waiting && s.sampled.settled == settled && !s.sampled.open {
		return nil
	}
	err := s.withControl(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if reached {
			published := s.sampled.snapshot
			s.sampled.snapshot = ""
			if err := s.save(ctx, conn, published); err != nil {
				return err
			}
		}
		if s.sampled.settled == settled && !s.sampled.open {
			return nil // nothing has happened since
		}
		next := sample{settled: settled}
		var lsn string
		if err := conn.QueryRow(ctx, "SELECT pg_current_snapshot()::text").Scan(&next.snapshot); err != nil {
			return err
		}
		bounds := strings.SplitN(next.snapshot, ":", 3) // xmin, xmax, and those between that are open
		next.oldest, next.open = bounds[0], len(bounds) > 1 && bounds[0] != bounds[1]
		if s.sampled.settled == settled && s.sampled.oldest == next.oldest {
			return nil // and still is
		}
		err := conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&lsn)
		if err == nil {
			next.lsn, err = pglogrepl.ParseLSN(lsn)
		}
		if err == nil {
			s.sampled = next
		}
		return err
	})
	switch {
	case errors.Is(err, retry.ErrSuperseded) || errors.Is(err, replication.ErrServerStopping):
		return err
	case err != nil:
		s.relay.log.Warn().Err(err).Msg("which rows are published is not written down; trying again")
	}
	return nil
}

// progressed reports whether there is anything to save.
func (s *session) progressed() bool {
	state := s.checkpoint.State()
	return s.router.HasUnsaved() || !state.SameStreams(s.router.Progress())
}

// save saves the checkpoint, with a snapshot of which all is settled if one is
// given. Only the reporter calls it.
func (s *session) save(ctx context.Context, conn checkpoint.Execer, published string) error {
	next := s.checkpoint.State()
	// In this order: what the streams are said to have must not be behind.
	next.FlushLSN = max(next.FlushLSN, s.stream.Frontier().LSN())
	// And the journal must have all that is before the LSN.
	next.Streams = s.router.Progress()
	unsaved := s.router.Unsaved()
	if published != "" {
		next.Published = published
	}
	if err := s.checkpoint.Save(ctx, conn, next, unsaved.Pages); err != nil {
		return err
	}
	s.router.Saved(unsaved)
	return nil
}

// facts asks for facts of the database. Without an answer there are none, which is
// logged; a server that is shutting down is an error.
func (s *session) facts(ctx context.Context, scope check.Scope) (facts check.Facts, ok bool, err error) {
	err = s.withControl(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		facts, err = check.Read(ctx, check.Sources{Postgres: conn}, s.relay.cfg, scope)
		return err
	})
	switch {
	case err == nil:
		return facts, true, nil
	case errors.Is(err, replication.ErrServerStopping) || problem.Permanent(err):
		return facts, false, err
	}
	s.relay.log.Warn().Err(err).Msg("the database could not be checked")
	return facts, false, nil
}

// watchSlot measures how much WAL the slot holds back.
func (s *session) watchSlot(ctx context.Context) error {
	facts, ok, err := s.facts(ctx, check.ScopeSlot)
	if err != nil || !ok || facts.Slot == nil {
		return err
	}
	m, slot := s.relay.metrics, facts.Slot
	if slot.LagBytes != nil && slot.RetainedBytes != nil {
		m.LagBytes.Set(float64(*slot.LagBytes))
		m.RetainedBytes.Set(float64(*slot.RetainedBytes))
	}
	m.SafeBytes.Set(-1)
	if slot.SafeBytes != nil {
		m.SafeBytes.Set(float64(*slot.SafeBytes))
	}
	for _, result := range check.Judge(&facts, s.relay.cfg, 0).With(check.Warn) {
		s.relay.log.Warn().Str("check", result.ID).Str("subject", result.Subject).Str("reason", result.Text()).Msg("check warns")
	}
	return nil
}

// recheck judges again what init has made in Postgres: a table that was taken out
// of the publication sends nothing, silently.
func (s *session) recheck(ctx context.Context) error {
	facts, ok, err := s.facts(ctx, check.ScopeDatabase)
	if err != nil || !ok {
		return err
	}
	version, err := sql.SchemaVersion()
	if err != nil {
		return err
	}
	return check.Judge(&facts, s.relay.cfg, version).Err()
}

// withControl runs f on the control connection, which it makes again when it
// was lost. A server that turns new connections away although it still streams
// is shutting down.
func (s *session) withControl(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, sqlTimeout)
	defer cancel()
	if s.control == nil {
		if err := s.connectControl(ctx); err != nil {
			return err
		}
	}
	err := f(ctx, s.control)
	if err != nil && s.control.IsClosed() {
		s.control = nil
		if cerr := s.connectControl(ctx); errors.Is(cerr, replication.ErrServerStopping) {
			return cerr
		}
	}
	return err
}

func (s *session) connectControl(ctx context.Context) error {
	conn, err := connect.Durable(ctx, s.relay.cfg.Postgres)
	if err != nil {
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == sqlstate.CannotConnectNow && s.stream != nil {
			return replication.ErrServerStopping
		}
		return err
	}
	s.control = conn
	return nil
}

func (s *session) closeControl(ctx context.Context) {
	if s.control == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	if err := s.control.Close(ctx); err != nil {
		s.relay.log.Debug().Err(err).Msg("closing the control connection")
	}
}
