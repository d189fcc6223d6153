package router

import (
	"context"
	"fmt"
	"sync"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/journal"
)

// dropped is the journal of events that no stream gets. Safe for concurrent use.
type dropped struct {
	mu      sync.Mutex
	journal *journal.Buffer // nil keeps none
	space   wait.Signal
}

// add notes an event. It blocks while the journal is full, until the context
// ends.
func (d *dropped) add(ctx context.Context, ev *event.Event) error {
	for {
		d.mu.Lock()
		room := d.journal.HasRoom()
		if room {
			d.journal.Add(ev)
		}
		d.mu.Unlock()
		if room {
			return nil
		}
		select {
		case <-d.space:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the journal to be saved: %w", context.Cause(ctx))
		}
	}
}

// note notes an event, also if the journal is full: of these there are few.
func (d *dropped) note(ev *event.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.journal.Add(ev)
}

// journals calls f for each journal, while nobody else uses it.
func (r *Router) journals(f func(i int, j *journal.Buffer)) {
	for i, w := range r.ordered {
		w.mu.Lock()
		f(i, w.journal)
		w.mu.Unlock()
	}
	for i, d := range [...]*dropped{&r.dropped, &r.duplicates} {
		d.mu.Lock()
		f(len(r.ordered)+i, d.journal)
		d.mu.Unlock()
	}
}

// Unsaved is what the journals have that is not saved yet.
type Unsaved struct {
	Pages []journal.Page
	of    []int // how many of each journal
}

// Unsaved returns what is to be saved. Until it is given to Saved, it is returned
// again, with what has come meanwhile behind it. Taken after the frontier was
// read, it has every event before that.
func (r *Router) Unsaved() Unsaved {
	u := Unsaved{of: make([]int, len(r.ordered)+2)}
	r.journals(func(i int, j *journal.Buffer) {
		pages := j.Pages()
		u.of[i] = len(pages)
		u.Pages = append(u.Pages, pages...)
	})
	return u
}

// Saved says that it is saved.
func (r *Router) Saved(u Unsaved) {
	r.journals(func(i int, j *journal.Buffer) { j.Saved(u.of[i]) })
	for _, w := range r.ordered {
		signal(w.space)
	}
	r.dropped.space.Send()
}

// MustSave reports whether a journal is filling up, and HasUnsaved whether there
// is anything in one.
func (r *Router) MustSave() (must bool) {
	r.journals(func(_ int, j *journal.Buffer) { must = must || j.Filling() })
	return must
}

// HasUnsaved is described with [Router.MustSave].
func (r *Router) HasUnsaved() (has bool) {
	r.journals(func(_ int, j *journal.Buffer) { has = has || !j.Empty() })
	return has
}
