// Package bench measures a relay against what its servers can do at most.
//
// In come options, which may name a Postgres and a NATS; out goes a [Result]:
// how fast a backlog drains beside a reader and a publisher that do nothing
// else, and how long an event takes while others are being written. The relay
// under test is a process of its own, so that its processor time and memory are
// its own too; so are the servers, when they are throw-away ones.
//
// On servers that are somebody's it makes objects of its own names only, and
// removes them however the measurement ends. It knows neither flags nor
// configuration files.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/child"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/localpg"
)

// removeTimeout bounds the removal of what the bench made.
const removeTimeout = 30 * time.Second

// bench is one measurement.
type bench struct {
	opts     Options
	postgres string // URL
	nats     config.NATS
	cluster  *localpg.Cluster // nil unless throw-away
	server   *child.Process   // the nats-server; nil unless throw-away
	dir      string           // for what children read and write

	stopServer func() error // asks the nats-server to end

	conn *pgx.Conn // for all that is not measured
	nc   *nats.Conn
	js   jetstream.JetStream
}

// Run measures, and returns what it found. It blocks until everything that it
// started has ended and everything that it made is removed, also when the
// context ends. Its errors are those of [Options.Validate] and
// [walrelay.Setup], and of the servers.
func Run(ctx context.Context, opts Options) (result *Result, err error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	b := &bench{opts: opts, postgres: opts.Config.Postgres.URL, nats: opts.Config.NATS}
	if b.dir, err = os.MkdirTemp("", "walrelay-bench-"); err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if opts.private() {
		defer func() { err = errors.Join(err, b.stopServers()) }()
		if err := b.startServers(ctx); err != nil {
			return nil, interrupted(ctx, err)
		}
	}
	defer b.disconnect(ctx)
	if err := b.connect(ctx); err != nil {
		return nil, interrupted(ctx, err)
	}
	return b.measure(ctx)
}

// interrupted says so, instead of what the interruption made fail.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

func (b *bench) connect(ctx context.Context) (err error) {
	if b.conn, err = pgx.Connect(ctx, b.postgres); err != nil {
		return fmt.Errorf("connecting to Postgres: %w", err)
	}
	if b.nc, err = connect.NATS(ctx, b.nats, nats.Name("walrelay bench")); err != nil {
		return err
	}
	b.js, err = b.jetstream()
	return err
}

// reconnect connects to Postgres again if the connection is closed, as it is
// when a query was interrupted.
func (b *bench) reconnect(ctx context.Context) error {
	if !b.conn.IsClosed() {
		return nil
	}
	conn, err := pgx.Connect(ctx, b.postgres)
	if err != nil {
		return fmt.Errorf("connecting to Postgres again: %w", err)
	}
	b.conn = conn
	return nil
}

func (b *bench) jetstream(opts ...jetstream.JetStreamOpt) (js jetstream.JetStream, err error) {
	if b.nats.Domain != "" {
		js, err = jetstream.NewWithDomain(b.nc, b.nats.Domain, opts...)
	} else {
		js, err = jetstream.New(b.nc, opts...)
	}
	if err != nil {
		return nil, fmt.Errorf("using JetStream: %w", err)
	}
	return js, nil
}

func (b *bench) disconnect(ctx context.Context) {
	if b.nc != nil {
		b.nc.Close()
	}
	if b.conn != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = b.conn.Close(ctx) // nothing is under way
	}
}

// measure makes what is needed, measures, and removes what it made.
func (b *bench) measure(ctx context.Context) (*Result, error) {
	if b.opts.private() { // the servers go as they are
		result, err := b.parts(ctx)
		return result, interrupted(ctx, err)
	}
	if err := b.claim(ctx); err != nil {
		return nil, interrupted(ctx, err)
	}
	result, err := b.parts(ctx)
	err = interrupted(ctx, err)
	removing, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	b.opts.progress("removing what the bench made …")
	var left []string
	rerr := b.reconnect(removing)
	if rerr == nil {
		left, rerr = b.remove(removing)
	}
	if rerr != nil {
		err = errors.Join(err, fmt.Errorf("removing what the bench made: %w", rerr))
	}
	if err != nil && len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("left behind: %s", strings.Join(left, ", ")))
	}
	if err != nil {
		return nil, err
	}
	result.LeftBehind = left
	return result, nil
}

// parts measures the parts that are asked for.
func (b *bench) parts(ctx context.Context) (result *Result, err error) {
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	result = &Result{StartedAt: time.Now().UTC().Truncate(time.Second), Parameters: b.opts.Parameters}
	if result.Environment, err = b.environment(ctx); err != nil {
		return nil, err
	}
	if b.opts.Drain {
		if result.Drain, err = b.drain(ctx); err != nil {
			return nil, fmt.Errorf("measuring how a backlog drains: %w", err)
		}
	}
	if b.opts.Live {
		if result.Live, err = b.live(ctx); err != nil {
			return nil, fmt.Errorf("measuring live events: %w", err)
		}
	}
	if b.opts.Takeover {
		if result.Takeover, err = b.takeover(ctx); err != nil {
			return nil, fmt.Errorf("measuring takeovers: %w", err)
		}
	}
	if b.opts.Handlers {
		if result.Handlers, err = b.handlers(ctx); err != nil {
			return nil, fmt.Errorf("measuring handlers: %w", err)
		}
	}
	return result, nil
}
