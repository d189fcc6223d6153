package relay

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// stalled is a stream of which nobody reads.
type stalled struct {
	idle        atomic.Bool
	discards    atomic.Int64
	interrupted chan struct{}
	ended       chan error // the server ends the stream
}

func (s *stalled) Idle() bool { return s.idle.Load() }

func (s *stalled) Discard() error {
	s.discards.Add(1)
	select {
	case err := <-s.ended:
		return err
	case <-s.interrupted:
		return nil
	}
}

func (s *stalled) Interrupt() { close(s.interrupted) }

func TestWatchdog(t *testing.T) {
	for name, test := range map[string]struct {
		idle     bool
		progress time.Duration // between two settled events; 0 for never
		ended    error
		discards int64
	}{
		"nothing to read":       {idle: true},
		"progress":              {progress: 10 * time.Second},
		"no progress":           {discards: 1},
		"server ends meanwhile": {ended: errors.New("terminating connection"), discards: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stream := &stalled{interrupted: make(chan struct{}), ended: make(chan error, 1)}
				stream.idle.Store(test.idle)
				start := time.Now()
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				dog := watchdog{stream: stream, log: zerolog.Nop(), settled: func() uint64 {
					if test.progress == 0 {
						return 0
					}
					return uint64(time.Since(start) / test.progress)
				}}
				stop := dog.start(ctx, cancel)
				time.Sleep(stuckAfter - time.Second)
				if n := stream.discards.Load(); n != 0 {
					t.Errorf("it discards after %v", time.Since(start))
				}
				time.Sleep(5 * time.Second)
				if test.ended != nil {
					stream.ended <- test.ended
					synctest.Wait()
					if !errors.Is(context.Cause(ctx), test.ended) {
						t.Errorf("the session ends with %v", context.Cause(ctx))
					}
				}
				if n := stream.discards.Load(); n != test.discards {
					t.Errorf("it discards %d times, want %d", n, test.discards)
				}
				stop()
			})
		})
	}
}
