package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/outboxrows"
	"github.com/walrelay/walrelay/journal"
)

// batch is how many events are looked up at once, and after how many a target is flushed.
const batch = 5000

// Entry is an event to be brought back.
type Entry struct {
	// Event has only its id, table and position if it is lost.
	Event *event.Event
	// Lost says why the event cannot be brought back; empty if it can.
	Lost string
	// Together says that events of its transaction stand beside it.
	Together bool
}

// Source has events to be brought back, in the order of their positions. Next blocks
// until the next one is read, and returns false after the last.
type Source interface {
	Next(ctx context.Context) (Entry, bool, error)
}

// Target takes events, in order. What was put is there for good once Flush has returned.
// Both block.
type Target interface {
	Put(ctx context.Context, entry Entry) error
	Flush(ctx context.Context) error
}

// clerk decides what is put into a target, and notes what the target has.
type clerk interface {
	skip(entry *Entry) (bool, error)
	flushed(n int, last event.Position)
}

// copyAll puts what a source has into a target, and flushes it at the end and from time to
// time.
func copyAll(ctx context.Context, from Source, to Target, clerk clerk) error {
	taken, put := 0, 0
	var last event.Position
	flush := func() error {
		if taken == 0 {
			return nil
		}
		if err := to.Flush(ctx); err != nil {
			return err
		}
		clerk.flushed(put, last)
		taken, put = 0, 0
		return nil
	}
	for {
		entry, ok, err := from.Next(ctx)
		if err != nil {
			return err
		}
		if !ok {
			return flush()
		}
		skip, err := clerk.skip(&entry)
		if err == nil && !skip {
			put++
			err = to.Put(ctx, entry)
		}
		if err != nil {
			return err
		}
		last = entry.Event.Position
		if taken++; taken == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// journalSource has the events that the journal knows, from their rows, which it looks up
// in batches.
type journalSource struct {
	journal *journalReader
	rows    *outboxrows.Reader

	begun bool
	ahead journalled // the entry after the batch, if more
	more  bool
	batch []journalled
	next  int // in batch
}

// Next implements [Source].
func (s *journalSource) Next(ctx context.Context) (Entry, bool, error) {
	if s.next == len(s.batch) {
		if err := s.fill(ctx); err != nil || len(s.batch) == 0 {
			return Entry{}, false, err
		}
	}
	found := s.batch[s.next]
	s.next++
	ev, fault, err := s.rows.Event(found.Entry)
	if err == nil && s.next == len(s.batch) {
		err = s.rows.End()
	}
	if err != nil {
		return Entry{}, false, err
	}
	entry := Entry{Event: ev, Together: found.together}
	if rowErr, ok := errors.AsType[*decode.RowError](fault); ok {
		entry.Lost = fmt.Sprintf("column %s: %v", rowErr.Column, rowErr.Err)
	} else if fault != nil {
		entry.Lost = fault.Error()
	}
	return entry, true, nil
}

// fill reads the next batch of the journal and asks for its rows; an empty one is the end.
func (s *journalSource) fill(ctx context.Context) (err error) {
	s.batch, s.next = s.batch[:0], 0
	if !s.begun {
		s.begun = true
		if s.ahead, s.more, err = s.journal.next(ctx); err != nil {
			return err
		}
	}
	var entries []journal.Entry
	for s.more && len(s.batch) < batch {
		s.batch = append(s.batch, s.ahead)
		entries = append(entries, s.ahead.Entry)
		if s.ahead, s.more, err = s.journal.next(ctx); err != nil {
			return err
		}
		if last := &s.batch[len(s.batch)-1]; s.more && s.ahead.Position.CommitLSN == last.Position.CommitLSN {
			last.together, s.ahead.together = true, true
		}
	}
	if len(entries) == 0 {
		return nil
	}
	return s.rows.Ask(ctx, entries)
}

// Close closes the connections of the source.
func (s *journalSource) Close(ctx context.Context) { s.rows.Close(ctx) }
