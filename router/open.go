package router

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/retry"
)

// open subscribes to the acknowledgements and finds out what the stream has.
// It blocks until the stream answers. recorded is what the relay knew of the
// stream when it last wrote that down; nil if it never did.
func (w *writer) open(ctx context.Context, recorded *StreamState) error {
	w.prefix = w.ledger.nc.NewInbox() + "."
	sub, err := w.ledger.nc.Subscribe(w.prefix+"*.*", w.answer)
	if err != nil {
		return fmt.Errorf("subscribing to the acknowledgements of stream %q: %w", w.cfg.stream, err)
	}
	w.sub = sub
	// An answer is a few dozen bytes and its number bounded by the window.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return fmt.Errorf("subscribing to the acknowledgements of stream %q: %w", w.cfg.stream, err)
	}
	var known reached
	w.ledger.known = recorded != nil
	if recorded != nil {
		if recorded.Repairing && !w.cfg.repair {
			return w.unrepaired()
		}
		w.created, known.sequence = recorded.Created, recorded.LastSequence
		if known.position, err = event.ParsePosition(recorded.Position); err != nil {
			return fmt.Errorf("the recorded state of stream %q: %w", w.cfg.stream, err)
		}
	}
	r, err := w.readLedger(ctx, known.sequence, recorded != nil)
	if err != nil {
		return err
	}
	w.pause(nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acks = newAckReader(w.cfg.stream, r.domain)
	w.created = r.created
	w.begin()
	w.flows = true
	w.reached = reached{sequence: r.last, position: known.position}
	switch {
	case w.cfg.shared:
	case r.own:
		if r.position.CommitLSN > w.cfg.origin.WAL {
			return &problem.Problem{
				ID: "database_behind_stream",
				What: fmt.Sprintf("stream %q has an event from position %s of the write-ahead log, but the database ends at %X/%X",
					w.cfg.stream, r.position, w.cfg.origin.WAL>>32, uint32(w.cfg.origin.WAL)),
				Fix: "the database went back in time: see docs/operations.md, \"A database was restored\"",
			}
		}
		w.reached.position = r.position
	case recorded != nil && r.foreign == 0:
		// Our last message is gone, or there was none. Only we write into
		// the stream, one message an event: what it has beyond the recorded
		// sequence are the events that follow the recorded position.
		w.reached.sequence = known.sequence
		w.skip.count = r.last - known.sequence
		if w.skip.count > 0 {
			w.cfg.log.Info().Str("stream", w.cfg.stream).Uint64("events", w.skip.count).Stringer("position", known.position).
				Msg("the stream's last message is gone; by its sequence, it has had this many events after the recorded position")
		}
	}
	w.skipThrough(w.reached.position, known.position, &r.tail)
	if w.skip.present != nil {
		w.before = &known
	}
	w.offset = r.last + 1
	if w.cfg.shared {
		w.cfg.log.Warn().Str("stream", w.cfg.stream).Dur("duplicate_window", r.window).
			Msg("the stream is shared with other writers: only its duplicate window keeps events from being stored twice, and one that is sent again may stand after later ones")
	} else if foreign := max(r.foreign, r.tail.foreign); foreign > 0 {
		w.warnForeign(foreign)
	}
	return nil
}

// readLedger reads the stream until it answers, and until its answer fits what
// is known or has failed to for longer than a server takes to recover. With tail it
// also reads the messages after the known sequence.
func (w *writer) readLedger(ctx context.Context, sequence uint64, tail bool) (reading, error) {
	backoff := retry.NewBackoff(50*time.Millisecond, time.Second)
	floor := sequence
	if w.cfg.shared {
		floor = math.MaxUint64 // the messages of a shared stream say nothing
	}
	var suspect time.Time
	for {
		r, err := w.ledger.read(ctx, floor)
		var doubt *problem.Problem
		if err == nil && !w.cfg.shared {
			doubt = w.lostMessages(r, sequence)
		}
		if err == nil && doubt == nil && tail && w.wantsTail(r, sequence) {
			r.tail, err = w.ledger.readTail(ctx, sequence, r.last)
		}
		switch {
		case err == nil && doubt == nil:
			return r, nil
		case isDone(ctx):
			return reading{}, fmt.Errorf("reading stream %q: %w", w.cfg.stream, context.Cause(ctx))
		case w.ledger.nc.IsClosed():
			return reading{}, fmt.Errorf("reading stream %q: %w", w.cfg.stream, errClosed)
		case !w.ledger.nc.IsConnected():
			err, doubt = errNotConnected, nil
		case isAPIError(err, codeStreamNotFound):
			doubt = w.lostStream(sequence)
		case doubt == nil && classify(err) == Configuration:
			return reading{}, err
		}
		switch {
		case doubt == nil:
			suspect = time.Time{}
		case suspect.IsZero():
			suspect = time.Now()
			err = doubt
		case time.Since(suspect) > patience:
			return reading{}, doubt
		default:
			err = doubt
		}
		w.pause(err)
		if err := backoff.Wait(ctx); err != nil {
			return reading{}, fmt.Errorf("reading stream %q: %w", w.cfg.stream, err)
		}
	}
}
