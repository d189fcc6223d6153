package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"time"
)

// ParkError is what [Park] makes.
type ParkError struct{ Err error }

func (e *ParkError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ParkError) Unwrap() error { return e.Err }

// Park says that trying again is useless: the event is parked as failed at once. Nil stays
// nil.
func Park(err error) error {
	if err == nil {
		return nil
	}
	return &ParkError{err}
}

// RetryError is what [RetryAfter] makes.
type RetryError struct {
	After time.Duration
	Err   error
}

func (e *RetryError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *RetryError) Unwrap() error { return e.Err }

// RetryAfter says when to try again, in place of the handler's backoff. It counts as an
// attempt. Nil stays nil.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &RetryError{max(d, 0), err}
}

// PauseError is what [Pause] makes.
type PauseError struct{ Err error }

func (e *PauseError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PauseError) Unwrap() error { return e.Err }

// Pause says that what the handler needs is away, for this event and for others: the event
// keeps its place, and is tried again until it is there. It counts as no attempt, and nothing is
// parked. Nil stays nil.
func Pause(err error) error {
	if err == nil {
		return nil
	}
	return &PauseError{err}
}

// PanicError is a panic of a handler. It is an error like any other.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// recovered makes an error of a panic.
func recovered(next Func) Func {
	return func(ctx context.Context, events []CloudEvent) (err error) {
		defer func() {
			if value := recover(); value != nil {
				err = &PanicError{value, debug.Stack()}
			}
		}()
		return next(ctx, events)
	}
}

// Log logs each call: at debug level, one that fails at warn level.
func Log(log *slog.Logger) Middleware {
	return func(next Func) Func {
		return func(ctx context.Context, events []CloudEvent) error {
			started := time.Now()
			err := next(ctx, events)
			level, attrs := slog.LevelDebug, []slog.Attr{
				slog.String("type", events[0].Type), slog.String("id", events[0].ID), slog.Int("events", len(events)),
				slog.Duration("took", time.Since(started)),
			}
			if err != nil {
				level = slog.LevelWarn
				attrs = append(attrs, slog.Any("error", err))
			}
			log.LogAttrs(ctx, level, "handler called", attrs...)
			return err
		}
	}
}

// outcome is what becomes of an event whose handler failed.
type outcome struct {
	failed bool // for good
	after  time.Duration
}

// judge decides it, after a number of attempts.
func (h *handler) judge(err error, attempts int) outcome {
	if _, ok := errors.AsType[*ParkError](err); ok || attempts > h.maxRetries {
		return outcome{failed: true}
	}
	if retry, ok := errors.AsType[*RetryError](err); ok {
		return outcome{after: retry.After}
	}
	return outcome{after: h.backoff(attempts)}
}

// Bounds of the default backoff.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

func defaultBackoff(attempts int) time.Duration {
	d := lastRetry
	if attempts < 10 {
		d = min(lastRetry, firstRetry<<(attempts-1))
	}
	return d - rand.N(d/2+1)
}
