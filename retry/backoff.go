package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff waits ever longer between attempts: from Initial on twice as long
// each time, up to Max, less a random part of up to half, so that many who
// failed together do not come back together. Not safe for concurrent use.
type Backoff struct {
	Initial, Max time.Duration

	delay time.Duration
}

// NewBackoff returns a backoff that starts at initial and stays at limit once
// there.
func NewBackoff(initial, limit time.Duration) *Backoff {
	return &Backoff{Initial: initial, Max: limit}
}

// Next returns how long to wait before the next attempt.
func (b *Backoff) Next() time.Duration {
	switch {
	case b.delay == 0:
		b.delay = min(b.Initial, b.Max)
	case b.delay > b.Max/2:
		b.delay = b.Max
	default:
		b.delay *= 2
	}
	half := b.delay / 2
	return b.delay - rand.N(half+1)
}

// Reset starts over, after an attempt has succeeded.
func (b *Backoff) Reset() { b.delay = 0 }

// Wait blocks for the next delay or until the context ends, and then returns
// its cause.
func (b *Backoff) Wait(ctx context.Context) error {
	timer := time.NewTimer(b.Next())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
