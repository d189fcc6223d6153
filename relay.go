package walrelay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
)

// Relay streams the outbox to JetStream. Create it with [New], run it once
// with [Relay.Run].
type Relay struct {
	cfg     Config
	log     zerolog.Logger
	plan    *config.Plan
	metrics *metrics
	health  health

	// streamed says that a session has streamed before; Run only.
	streamed bool
	// inspected says that the checks at the start have passed; Run only.
	inspected bool
	// current is the session that streams; nil between sessions.
	current atomic.Pointer[session]
	// lastCommit is when the last published event's transaction committed, in
	// nanoseconds of Unix time.
	lastCommit atomic.Int64
}

// New returns a relay. It checks the configuration, reports all its faults at
// once, and connects to nothing.
func New(cfg Config, log zerolog.Logger) (*Relay, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	plan, err := cfg.Compile()
	if err != nil {
		return nil, err
	}
	r := &Relay{cfg: cfg, log: log, plan: plan}
	r.health.setPhase("starting")
	r.metrics = newMetrics(r.inFlight, r.lagSeconds, r.readyValue)
	return r, nil
}

// Ready says why the relay does not stream at the moment; nothing when it
// does. Safe for concurrent use.
func (r *Relay) Ready() []string { return r.health.reasons() }

// Run streams until the context ends, and then returns nil once everything in
// flight has its outcome or ShutdownTimeout has passed, and the slot knows.
// Lost connections are made again for ever. Run returns an error only when
// somebody has to change something first.
func (r *Relay) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	if r.cfg.HTTP.Addr != "off" {
		var lc net.ListenConfig
		listener, err := lc.Listen(ctx, "tcp", r.cfg.HTTP.Addr)
		if err != nil {
			return fmt.Errorf("listening for HTTP (http.addr): %w", err)
		}
		r.log.Info().Stringer("addr", listener.Addr()).Msg("serving /healthz, /readyz and /metrics")
		group.Go(func() error { return r.serve(ctx, listener) })
	}
	group.Go(func() error {
		if err := r.supervise(ctx); err != nil {
			return err
		}
		return context.Cause(ctx)
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// supervise runs one session after the other, until the context ends or a
// session fails for a reason that only a person can mend.
func (r *Relay) supervise(ctx context.Context) error {
	nc, err := r.connectNATS(ctx)
	if err != nil {
		return err
	}
	defer func() { nc.Close() }()
	backoff := retry.NewBackoff(100*time.Millisecond, 5*time.Second)
	said, saidAt := "", time.Time{}
	for {
		if nc.IsClosed() {
			// The client gives up for good on some protocol errors.
			if nc, err = r.connectNATS(ctx); err != nil {
				return err
			}
		}
		started := time.Now()
		err := r.session(ctx, nc)
		r.health.release()
		switch {
		case problem.Permanent(err):
			return r.explainLoss(ctx, err)
		case ctx.Err() != nil:
			return nil
		case err == nil:
			err = errors.New("it ended without a reason")
		}
		text := oneLine(err)
		r.health.setPhase("not streaming: " + text)
		if time.Since(started) > 10*time.Second {
			backoff.Reset()
		}
		// An outage may last: what was said once is said again each minute.
		if text != said || time.Since(saidAt) > time.Minute {
			said, saidAt = text, time.Now()
			r.log.Warn().Str("error", text).Msg("not streaming; trying again")
		}
		if backoff.Wait(ctx) != nil {
			return nil
		}
	}
}

// oneLine puts the text of an error that lists several attempts on one line.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// connectNATS returns a connection that is made, and made again, in the
// background.
func (r *Relay) connectNATS(ctx context.Context) (*nats.Conn, error) {
	nc, err := connect.NATS(ctx, r.cfg.NATS, nats.RetryOnFailedConnect(true),
		nats.SetCustomDialer(connect.PacedDialer()),
		nats.ConnectHandler(func(*nats.Conn) {
			r.health.setNATS(true)
			r.log.Info().Msg("connected to NATS")
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			r.health.setNATS(true)
			r.metrics.reconnects.WithLabelValues("nats").Inc()
			r.log.Info().Msg("connected to NATS again")
		}),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			r.health.setNATS(false)
			// Closed is what we close ourselves, when the reason is said.
			if ctx.Err() == nil && !nc.IsClosed() {
				r.log.Warn().AnErr("cause", err).Msg("lost the connection to NATS; connecting again")
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			// Refused permissions are told here only: the publish itself
			// just gets no answer.
			r.log.Error().Err(err).Msg("NATS reports an error")
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	r.health.setNATS(nc.IsConnected())
	return nc, nil
}

// Done implements [router.Sink] for the session.
func (s *session) Done(ticket uint64, outcome router.Outcome, ev *event.Event, took time.Duration) {
	m := s.relay.metrics
	m.outcomes[outcome].Inc()
	if outcome == router.Published {
		m.published(took, ev.CommittedAt)
	}
	s.done(ticket, ev)
}

// Outcomes that the router does not know.
const (
	outcomeAlreadyStored  = "already_stored"
	outcomeAlreadyDelayed = "already_delayed"
)

// outcome gives an event that the router does not get its outcome.
func (s *session) outcome(ticket uint64, outcome string, ev *event.Event) {
	s.relay.metrics.events.WithLabelValues(outcome).Inc()
	s.done(ticket, ev)
}

func (s *session) done(ticket uint64, ev *event.Event) {
	s.outcomes.Add(1)
	s.relay.lastCommit.Store(ev.CommittedAt.UnixNano())
	s.stream.Frontier().Done(replication.Ticket(ticket))
}

// Held implements [router.Sink] for the session.
func (s *session) Held(stream string, reason error) {
	s.relay.health.setHeld(stream, reason)
	gauge := s.relay.metrics.held.WithLabelValues(stream)
	if reason == nil {
		gauge.Set(0)
		s.relay.log.Info().Str("stream", stream).Msg("the stream flows again")
		return
	}
	gauge.Set(1)
	text := "the stream is held in place and tried again; nothing is lost"
	if _, ok := errors.AsType[*router.Loss](reason); ok {
		text = "the stream is held in place; it is looked at again before this is believed"
	}
	s.relay.log.Warn().Str("stream", stream).Err(reason).Msg(text)
}

// Split implements [router.Sink] for the session.
func (s *session) Split(string) { s.relay.metrics.apart.WithLabelValues(router.SplitRefused).Inc() }

func (r *Relay) inFlight() float64 {
	if s := r.current.Load(); s != nil {
		return float64(s.router.InFlight())
	}
	return 0
}

// lagSeconds is how far the last published event is behind, while others wait.
func (r *Relay) lagSeconds() float64 {
	s := r.current.Load()
	last := r.lastCommit.Load()
	if s == nil || last == 0 || s.stream.Frontier().Pending() == 0 {
		return 0
	}
	return max(0, time.Since(time.Unix(0, last)).Seconds())
}

func (r *Relay) readyValue() float64 {
	if len(r.health.reasons()) == 0 {
		return 1
	}
	return 0
}
