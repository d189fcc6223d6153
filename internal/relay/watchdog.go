package relay

import (
	"context"
	"time"

	"github.com/rs/zerolog"
)

// stuckAfter is how long no event may be settled, while the server wants to send
// more, before what it sends is discarded.
const stuckAfter = 15 * time.Second

// watched is what a watchdog needs of a stream.
type watched interface {
	// Idle reports whether the server has nothing to send that is not read.
	Idle() bool
	// Discard reads and discards what the server sends, until Interrupt is called or
	// the server ends the stream, which is an error.
	Discard() error
	Interrupt()
}

// watchdog keeps a stream that makes no progress from getting in the server's way:
// a walsender that cannot write keeps the server from shutting down.
type watchdog struct {
	stream  watched
	settled func() uint64
	log     zerolog.Logger
}

// start watches until the context ends or the function that it returns is called,
// which waits for it. It cancels the session when the server has ended the stream
// meanwhile.
func (w *watchdog) start(ctx context.Context, cancel context.CancelCauseFunc) (stop func()) {
	ctx, stopTicking := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.watch(ctx, cancel)
	}()
	return func() {
		stopTicking()
		<-done
	}
}

func (w *watchdog) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	last, since := uint64(0), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if n := w.settled(); n != last || w.stream.Idle() {
			last, since = n, time.Now()
		}
		if time.Since(since) < stuckAfter {
			continue
		}
		w.log.Warn().Stringer("for", stuckAfter).
			Msg("no progress: discarding WAL to keep the walsender responsive; it will be re-read from the slot")
		interrupt := context.AfterFunc(ctx, w.stream.Interrupt)
		err := w.stream.Discard()
		interrupt()
		if err != nil {
			cancel(err)
			return
		}
		since = time.Now()
	}
}
