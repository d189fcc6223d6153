package bench

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/internal/child"
)

const (
	// relayTakeovers is how often each way of ending is measured, and takeoverEvery the
	// time between two events meanwhile.
	relayTakeovers = 3
	takeoverEvery  = 10 * time.Millisecond
	// standbyWithin is how long a relay may take until it stands by.
	standbyWithin = 30 * time.Second
)

// Takeover says how soon a standby goes on after the relay that streams: the longest time
// from the signal until an event was in the stream that was written after it.
type Takeover struct {
	KilledS  float64 `json:"killed_s"`
	StoppedS float64 `json:"stopped_s"`
	Times    int     `json:"times"` // each
}

// takeover measures both.
func (b *bench) takeover(ctx context.Context) (result *Takeover, err error) {
	result = &Takeover{Times: relayTakeovers}
	arrivals := &arrivals{change: make(chan struct{}, 1)}
	stop, err := b.consume(ctx, arrivals)
	if err != nil {
		return nil, err
	}
	defer stop()
	var running []*child.Process
	defer func() {
		for _, p := range running {
			p.Kill()
		}
	}()
	start := func() (*child.Process, error) {
		p, err := b.startRelayAt("info")
		if err == nil {
			running = append(running, p)
		}
		return p, err
	}
	active, err := start()
	if err != nil {
		return nil, err
	}
	writing, end := context.WithCancel(ctx)
	var group sync.WaitGroup
	var writeErr error
	group.Go(func() { writeErr = b.writeSteadily(writing) })
	defer func() {
		end()
		group.Wait()
		if err == nil {
			err = writeErr
		}
	}()
	if err := arrivals.await(ctx, active, readyWithin, func() bool { return arrivals.distinct > 0 }); err != nil {
		return nil, err
	}
	for _, way := range []struct {
		how     string
		end     func(*child.Process) error
		longest *float64
	}{
		{"killed", func(p *child.Process) error { p.Kill(); return nil }, &result.KilledS},
		{"stopped", (*child.Process).Terminate, &result.StoppedS},
	} {
		b.opts.progress("taking over from a relay that is %s …", way.how)
		for range relayTakeovers {
			standby, err := start()
			if err != nil {
				return nil, err
			}
			if err := standsBy(ctx, standby); err != nil {
				return nil, err
			}
			took, err := takenOver(ctx, arrivals, active, standby, way.end)
			if err != nil {
				return nil, err
			}
			*way.longest = max(*way.longest, took.Seconds())
			active = standby
		}
	}
	return result, active.Stop(active.Terminate, relayStop)
}

// takenOver ends the relay that streams, and returns how long it took until the other one
// had an event through.
func takenOver(ctx context.Context, arrivals *arrivals, active, standby *child.Process, end func(*child.Process) error) (time.Duration, error) {
	ended := time.Now().Round(0) // by the wall clock, as the times that events carry are
	if err := end(active); err != nil {
		return 0, fmt.Errorf("ending a relay: %w", err)
	}
	var arrived time.Time
	err := arrivals.await(ctx, standby, readyWithin, func() bool {
		for _, t := range arrivals.times {
			if t.sent.After(ended) {
				arrived = t.arrived
				return true
			}
		}
		return false
	})
	if err != nil {
		return 0, err
	}
	select {
	case <-active.Done():
		return arrived.Sub(ended), nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// standsBy waits until a relay says that another one has the slot.
func standsBy(ctx context.Context, p *child.Process) error {
	ctx, cancel := context.WithTimeout(ctx, standbyWithin)
	defer cancel()
	for !strings.Contains(p.Words(), "waiting as a standby") {
		if err := sleep(ctx, pollDelay); err != nil {
			return fmt.Errorf("waiting until a relay stands by: %w; it said: %s", err, p.Words())
		}
		if !p.Running() {
			return p.Ended()
		}
	}
	return nil
}

// writeSteadily writes an event now and then until the context ends.
func (b *bench) writeSteadily(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.postgres)
	if err != nil {
		return fmt.Errorf("connecting to Postgres: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	load := newWorkload(b.opts.Parameters)
	var tx batch
	for n := 0; ; n++ {
		load.fill(&tx, n, 1)
		tx.subjects[0] = subject(time.Now(), n)
		// Not cut off in the middle: the connection goes on.
		if err := tx.write(context.WithoutCancel(ctx), conn); err != nil {
			return err
		}
		if sleep(ctx, takeoverEvery) != nil {
			return nil
		}
	}
}

func (r *Result) takeoverText(b *strings.Builder) {
	fmt.Fprintf(b, "\nTakeover by a standby, %d times each, until an event was through that was written after the signal\n\n", r.Takeover.Times)
	rows := newRows(b, false)
	rows.row("from a relay that was killed (SIGKILL)", "s, at most", 3, r.Takeover.KilledS)
	rows.row("from one that was stopped (SIGTERM)", "s, at most", 3, r.Takeover.StoppedS)
	rows.flush()
}
