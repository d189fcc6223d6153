// Package wait has the two ways in which parts of the relay wait: for a time, and
// for a signal. The package imports nothing of the project.
package wait

import (
	"context"
	"time"
)

// For blocks for a time, or until the context ends; then it returns the cause.
func For(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Signal says that something has happened since it was last looked at. Signals
// that nobody has looked at count as one. Safe for concurrent use.
type Signal chan struct{}

// NewSignal returns a signal that has not been sent.
func NewSignal() Signal { return make(Signal, 1) }

// Send sends the signal. It does not block.
func (s Signal) Send() {
	select {
	case s <- struct{}{}:
	default:
	}
}
