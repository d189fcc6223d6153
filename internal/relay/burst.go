package relay

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/retry"
)

const (
	// burstLines is how many failures of one kind are logged one by one in a
	// burstWindow; those that follow are counted, and logged as one line at its end.
	burstLines  = 10
	burstWindow = 10 * time.Second
	// burstKinds bounds how many kinds are told apart at a time.
	burstKinds = 100
)

// burst keeps failures that repeat themselves from filling the log. Safe for concurrent
// use; the zero value is not ready.
type burst struct {
	mu    sync.Mutex
	kinds map[failureKind]*burstCount
	begun wait.Signal // there is something to say at the end of the window
}

// failureKind is what failures of one kind have in common.
type failureKind struct {
	table, typ string
	state      retry.State
}

type burstCount struct {
	seen int
	left int64
	last string // reason
}

func newBurst() *burst {
	return &burst{kinds: make(map[failureKind]*burstCount), begun: wait.NewSignal()}
}

// admit reports whether a failure is to be logged, and counts it if not.
func (b *burst) admit(kind failureKind, reason string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	count, ok := b.kinds[kind]
	if !ok {
		if len(b.kinds) >= burstKinds {
			kind = failureKind{state: kind.state}
			count = b.kinds[kind]
		}
		if count == nil {
			count = &burstCount{}
			b.kinds[kind] = count
		}
	}
	b.begun.Send()
	if count.seen++; count.seen <= burstLines {
		return true
	}
	count.left++
	count.last = reason
	return false
}

// run logs what was counted, at the end of each window and when the context ends.
func (b *burst) run(ctx context.Context, log zerolog.Logger) {
	for {
		select {
		case <-ctx.Done():
			b.end(log)
			return
		case <-b.begun:
		}
		ended := wait.For(ctx, burstWindow) != nil
		b.end(log)
		if ended {
			return
		}
	}
}

// end ends a window.
func (b *burst) end(log zerolog.Logger) {
	b.mu.Lock()
	kinds := b.kinds
	b.kinds = make(map[failureKind]*burstCount)
	b.mu.Unlock()
	for kind, count := range kinds {
		if count.left == 0 {
			continue
		}
		level := zerolog.WarnLevel
		if kind.state == retry.Failed {
			level = zerolog.ErrorLevel
		}
		log.WithLevel(level).Int64("events", count.left).Str("type", kind.typ).Str("table", kind.table).Str("state", string(kind.state)).
			Str("last_reason", count.last).Msg(`more events failed in the same way; see "walrelay delayed list"`)
	}
}
