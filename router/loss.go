package router

import (
	"context"
	"fmt"
	"time"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/problem"
)

// Loss says that a stream has less than it is known to have had, and what it
// still has.
type Loss struct {
	Stream string
	// Recorded is what was known of the stream.
	Recorded StreamState
	// Created and LastSequence are what it says now; zero if it does not exist.
	Created      time.Time
	LastSequence uint64
	// After is the position of the last of our events that it has; zero without
	// one. If Counted, that message is gone, and by the sequences the last Count
	// events up to the recorded position are missing.
	After   event.Position
	Counted bool
	Count   uint64
}

// Recreated reports whether the stream was deleted and made again.
func (l *Loss) Recreated() bool { return !l.Created.IsZero() && !l.Created.Equal(l.Recorded.Created) }

// Error says what happened to the stream.
func (l *Loss) Error() string {
	switch {
	case l.Created.IsZero():
		return fmt.Sprintf("stream %q does not exist, and had reached sequence %d", l.Stream, l.Recorded.LastSequence)
	case l.Recreated():
		return fmt.Sprintf("stream %q was deleted and created again at %s: acknowledged events up to sequence %d are not in it",
			l.Stream, l.Created.UTC().Format(time.RFC3339), l.Recorded.LastSequence)
	case l.LastSequence < l.Recorded.LastSequence:
		return fmt.Sprintf("stream %q lost acknowledged events: it had reached sequence %d, and is now at %d",
			l.Stream, l.Recorded.LastSequence, l.LastSequence)
	}
	return fmt.Sprintf(unfinished, l.Stream)
}

// unfinished is what is said of a stream whose repair was interrupted.
const unfinished = "stream %q lost acknowledged events, and the repair that was begun is not finished"

// Losses compares the owned streams with what is recorded of them, and returns
// those that lost events or are being repaired. A *[problem.Problem] says that
// what a stream has cannot be told.
func (r *Router) Losses(ctx context.Context, recorded map[string]StreamState) ([]Loss, error) {
	var losses []Loss
	for _, w := range r.ordered {
		known, ok := recorded[w.cfg.stream]
		if w.cfg.shared || !ok || known.Created.IsZero() {
			continue
		}
		reading, err := w.ledger.read(ctx, 0)
		if err != nil {
			return nil, err
		}
		if reading.created.Equal(known.Created) && reading.last >= known.LastSequence && !known.Repairing {
			continue
		}
		loss, err := w.loss(reading, known)
		if err != nil {
			return nil, err
		}
		losses = append(losses, loss)
	}
	return losses, nil
}

func (w *writer) loss(r reading, known StreamState) (Loss, error) {
	loss := Loss{Stream: w.cfg.stream, Recorded: known, Created: r.created, LastSequence: r.last, After: r.position}
	switch {
	case r.own:
	case r.foreign > 0 && r.last > w.ledger.lookBack:
		return loss, &problem.Problem{
			ID:   "stream_foreign_end",
			What: fmt.Sprintf("the last %d messages of stream %q are of somebody else: which events it has cannot be told", r.foreign, w.cfg.stream),
			Fix:  "keep others out of the stream, and remove their messages from its end",
		}
	case r.foreign > 0 || r.last == 0 || loss.Recreated():
	case r.last < known.LastSequence:
		loss.Counted, loss.Count = true, known.LastSequence-r.last
	default:
		// A repair that was interrupted, in a stream that is emptied meanwhile:
		// the writer counts what it has had since.
		position, err := event.ParsePosition(known.Position)
		if err != nil {
			return loss, fmt.Errorf("the recorded state of stream %q: %w", w.cfg.stream, err)
		}
		loss.After = position
	}
	return loss, nil
}

const lossRemedy = `run "walrelay repair --dry-run" to see them, and "walrelay repair" to bring them back; see docs/operations.md, "A stream lost messages"`

// lostMessages compares what the stream has with what it is known to have had.
func (w *writer) lostMessages(r reading, sequence uint64) *problem.Problem {
	if w.created.IsZero() || r.created.Equal(w.created) && r.last >= sequence {
		return nil
	}
	loss, err := w.loss(r, StreamState{Created: w.created, LastSequence: sequence, Position: event.Position{}.String()})
	if doubt, ok := problem.Find(err); ok {
		return doubt
	}
	return &problem.Problem{ID: "stream_lost_events", What: loss.Error(), Fix: lossRemedy, Err: &loss}
}

// lostStream says that the stream does not exist.
func (w *writer) lostStream(sequence uint64) *problem.Problem {
	if w.created.IsZero() {
		return &problem.Problem{
			ID:   "stream_missing",
			What: fmt.Sprintf("stream %q does not exist", w.cfg.stream),
			Fix:  `run "walrelay init" to create it; if it existed before, see docs/operations.md, "A stream lost messages"`,
		}
	}
	loss := Loss{Stream: w.cfg.stream, Recorded: StreamState{Created: w.created, LastSequence: sequence}}
	return &problem.Problem{ID: "stream_lost_events", What: loss.Error(), Fix: `run "walrelay init" to create it, and then ` + lossRemedy[len("run "):], Err: &loss}
}

// unrepaired says that a repair has not come to its end.
func (w *writer) unrepaired() *problem.Problem {
	return &problem.Problem{
		ID:   "repair_unfinished",
		What: fmt.Sprintf(unfinished, w.cfg.stream),
		Fix:  `run "walrelay repair" again; see docs/operations.md, "A stream lost messages"`,
	}
}
