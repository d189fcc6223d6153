package router

import (
	"context"
	"errors"

	"github.com/walrelay/walrelay/event"
)

// late knows the events that went to the delay table after they were sent: a copy under
// way then may be stored afterwards. Such an event is not published again when it comes
// back from the table. The writer's lock guards it.
type late struct {
	parked []*event.Event              // the last of them
	stored map[event.Position]struct{} // the origins of those of which a copy was stored
}

// maxLate bounds both: what is older is not known any more, and may be stored twice.
const maxLate = 1024

func (l *late) park(f *flight) {
	if f.first.IsZero() {
		return // it was never sent
	}
	if len(l.parked) == maxLate {
		l.parked = append(l.parked[:0], l.parked[maxLate/2:]...)
	}
	l.parked = append(l.parked, f.ev)
}

// takes reports whether the stream has the event from then.
func (l *late) takes(ev *event.Event) bool {
	if len(l.stored) == 0 || ev.Delay == nil {
		return false
	}
	_, ok := l.stored[ev.Origin()]
	delete(l.stored, ev.Origin())
	return ok
}

// findLate looks for copies that were stored with a sequence after known: no more than
// the window can hold.
func (w *writer) findLate(ctx context.Context, known uint64, r reading) error {
	w.mu.Lock()
	parked := make(map[event.Position]*event.Event, len(w.late.parked))
	for _, ev := range w.late.parked {
		parked[ev.Position] = ev
	}
	most := uint64(len(w.ring))
	w.mu.Unlock()
	if len(parked) == 0 || w.cfg.shared {
		return nil
	}
	for seq := known + 1; seq <= r.last && seq-known <= most; seq++ {
		position, err := w.ledger.position(ctx, seq)
		switch {
		case err == nil:
		case errors.Is(err, errGone), errors.Is(err, errForeign):
			continue
		default:
			return err
		}
		ev := parked[position]
		if ev == nil {
			return nil // copies under way stand before whatever is sent after them
		}
		w.cfg.log.Warn().Str("stream", w.cfg.stream).Str("id", ev.ID).Str("lsn", ev.Position.LSN()).Uint64("sequence", seq).
			Msg("the stream has an event after all that was given to the delay table; it is not published again")
		w.mu.Lock()
		if w.late.stored == nil {
			w.late.stored = make(map[event.Position]struct{})
		}
		if len(w.late.stored) < maxLate {
			w.late.stored[ev.Origin()] = struct{}{}
		}
		w.journal.Add(ev)
		w.mu.Unlock()
	}
	return nil
}
