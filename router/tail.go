package router

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/walrelay/walrelay/event"
)

const (
	// maxTail is how many messages are read at most, and tailRequests how many at a time.
	maxTail      = 500_000
	tailRequests = 32
)

// tail is what stands in a stream after the recorded state.
type tail struct {
	present map[event.Position]struct{}
	foreign uint64 // messages of others
}

// complete reports whether the stream has every event up to the last one: nobody else wrote between
// them. Whose the messages were that are gone is not known: if others wrote as well, they may have been theirs.
func (t *tail) complete() bool { return t.foreign == 0 }

// readTail reads the messages after from, up to and with to.
func (l *ledger) readTail(ctx context.Context, from, to uint64) (tail, error) {
	t := tail{present: make(map[event.Position]struct{}, to-from)}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	next := from
	for range tailRequests {
		group.Go(func() error {
			for {
				mu.Lock()
				next++
				seq := next
				mu.Unlock()
				if seq > to {
					return nil
				}
				msg, err := l.message(ctx, seq)
				mu.Lock()
				var position event.Position
				if err == nil {
					position, err = l.positionOf(msg)
				}
				switch {
				case err == nil:
					t.present[position] = struct{}{}
				case errors.Is(err, errForeign):
					t.foreign++
				case errors.Is(err, errGone): // removed
				default:
					mu.Unlock()
					return err
				}
				mu.Unlock()
			}
		})
	}
	if err := group.Wait(); err != nil {
		return tail{}, fmt.Errorf("reading what stream %q has had since its state was recorded: %w", l.stream, err)
	}
	return t, nil
}

// wantsTail reports whether the messages after a sequence are to be read, up to the last one.
func (w *writer) wantsTail(r reading, from uint64) bool {
	return r.own && !w.cfg.shared && !w.cfg.repair && r.last > from && r.last-from <= maxTail
}
