// Package relay streams events from a replication slot to JetStream: it composes
// replication, decode, router, retry, checkpoint and retention.
//
// Input: a configuration that is valid. Output: events in their streams and in the
// delay table, the slot's progress, log lines, metrics. Promises: a session dies
// as a whole and is made anew; the slot is told of nothing that is not settled and
// saved. The package opens no listener, and must not import commands or flags.
package relay

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/telemetry"
	"github.com/walrelay/walrelay/retry"
)

// Relay streams the outbox to JetStream. Create it with [New], run it once
// with [Relay.Run].
type Relay struct {
	cfg     config.Config
	log     zerolog.Logger
	plan    *config.Plan
	metrics *telemetry.Metrics
	tracer  *tracer // nil for none
	health  health
	pulse   pulse

	// streamed says that a session has streamed before; Run only.
	streamed bool
	// inspected says that the checks at the start have passed; Run only.
	inspected bool
	// partitioned are the outbox tables that were partitioned then; Run only.
	partitioned map[tableName]bool
	// current is the session that streams; nil between sessions.
	current atomic.Pointer[session]
}

// New returns a relay. It checks the configuration, reports all its problems at
// once, and connects to nothing. The provider makes the tracer of publishing; nil for none.
func New(cfg config.Config, log zerolog.Logger, provider trace.TracerProvider) (*Relay, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	plan, err := cfg.Compile()
	if err != nil {
		return nil, err
	}
	r := &Relay{cfg: cfg, log: log, plan: plan, tracer: newTracer(provider, cfg.Slot)}
	r.health.setPhase("starting")
	r.metrics = telemetry.New(r.inFlight, r.lagSeconds, r.readyValue)
	return r, nil
}

// Ready says why the relay does not stream at the moment; nothing when it
// does. Safe for concurrent use.
func (r *Relay) Ready() []string { return r.health.reasons() }

// Metrics returns the relay's metrics.
func (r *Relay) Metrics() *telemetry.Metrics { return r.metrics }

// Status is what a relay is doing.
type Status struct {
	// Reasons say why the relay is not ready; none when it is.
	Reasons []string `json:"reasons,omitempty"`
	Slot    string   `json:"slot"`
	// Session counts the sessions of the slot, and is 0 while none streams. What
	// follows is 0 then, too.
	Session int64 `json:"session,omitempty"`
	// FrontierLSN is the LSN below which every event is settled, SavedLSN the one
	// that the checkpoint has saved, and ReportedLSN the one that the slot was told.
	FrontierLSN string `json:"frontier_lsn,omitempty"`
	SavedLSN    string `json:"saved_lsn,omitempty"`
	ReportedLSN string `json:"reported_lsn,omitempty"`
	// InFlight events are sent and not settled; LagSeconds is the age of the last
	// settled event while others wait.
	InFlight   int     `json:"in_flight"`
	LagSeconds float64 `json:"lag_seconds"`
}

// Status returns what the relay is doing. It does not block, and is safe for
// concurrent use.
func (r *Relay) Status() Status {
	status := Status{Reasons: r.Ready(), Slot: r.cfg.Slot}
	if s := r.current.Load(); s != nil {
		saved, _ := s.checkpoint.Saved()
		status.Session = s.checkpoint.State().Session
		status.FrontierLSN, status.SavedLSN, status.ReportedLSN = s.stream.Frontier().LSN().String(), saved.String(), s.stream.Reported().String()
		status.InFlight, status.LagSeconds = s.router.InFlight(), r.lagSeconds()
	}
	return status
}

// Run streams until the context ends, and then returns nil once everything in
// flight is settled or ShutdownTimeout has passed, and the slot knows. It runs one
// session after the other: lost connections are made again for ever. Run returns
// an error only when somebody has to change something first.
func (r *Relay) Run(ctx context.Context) error {
	if err := connect.CheckFiles(r.cfg.Postgres); err != nil {
		return fmt.Errorf("connecting to Postgres: %w", err)
	}
	nc, err := r.connectNATS(ctx)
	if err != nil {
		return err
	}
	defer func() { nc.Close() }()
	backoff := retry.NewBackoff(100*time.Millisecond, 5*time.Second)
	var last repeated
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
			return err
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
		if last.says(text) {
			r.log.Warn().Str("error", text).Msg("not streaming; trying again")
		}
		if backoff.Wait(ctx) != nil {
			return nil
		}
	}
}

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
			r.metrics.Reconnects.WithLabelValues("nats").Inc()
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

func (r *Relay) inFlight() float64 {
	if s := r.current.Load(); s != nil {
		return float64(s.router.InFlight())
	}
	return 0
}

// lagSeconds is how far the last published event is behind, while others wait.
func (r *Relay) lagSeconds() float64 {
	s := r.current.Load()
	if s == nil {
		return 0
	}
	last := s.settler.lastCommit.Load()
	if last == 0 || s.stream.Frontier().Pending() == 0 {
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
