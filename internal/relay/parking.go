package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
)

// table is the delay table.
type table interface {
	// Add puts events into the table and blocks until they are committed.
	Add(ctx context.Context, entries []retry.Entry) error
}

// dispatchObserver hears of each event that is read, and what becomes of those that no stream
// gets.
type dispatchObserver interface {
	read(ev *event.Event)
	settle(ticket uint64, outcome string, ev *event.Event)
	failed(entry *retry.Entry, reason error)
	batchSplit(at event.Position, split string, reason error)
	batchFailed(at event.Position, split string, reason error, events int)
	batchFailedMore(events int)
}

// parking takes events out of the streams' way, into the delay table. The
// dispatcher uses it, and the router from other goroutines: safe for concurrent
// use.
type parking struct {
	table   table
	keys    *retry.Keys
	observe dispatchObserver
	// policy says when an event that could not be published is tried again.
	policy func(*event.Event) retry.Policy
	// failedBlocks says that a failed event goes on blocking its key.
	failedBlocks bool
}

// Blocked implements [router.Parker].
func (p *parking) Blocked(ev *event.Event) bool { return p.keys.Blocked(ev) }

// Park implements [router.Parker].
func (p *parking) Park(ctx context.Context, failed []router.Flight, reason error, behind []router.Flight) error {
	if poison, ok := errors.AsType[*router.EventError](reason); ok {
		reason = poison.Err
	}
	waiting := make(map[string]int)
	for _, f := range behind {
		waiting[f.Event.PartitionKey]++
	}
	batch := len(failed) > 1
	entries := make([]retry.Entry, 0, len(failed)+len(behind))
	for _, f := range failed {
		key := f.Event.PartitionKey
		p.keys.Fail(key, waiting[key])
		delete(waiting, key)
		if batch {
			entries = append(entries, failedForGood(f.Event, notOneBatch(reason)))
		} else {
			entries = append(entries, retry.NewFailure(f.Event, p.policy(f.Event), reason))
		}
	}
	for _, f := range behind {
		entries = append(entries, retry.NewEntry(f.Event, retry.Held))
	}
	if err := p.table.Add(ctx, entries); err != nil {
		return err
	}
	if batch {
		p.observe.batchFailed(failed[0].Event.Position, router.SplitRefused, reason, len(failed))
	} else {
		p.observe.failed(&entries[0], reason)
	}
	for i, f := range failed {
		p.parked(f, entries[i].State)
	}
	for i, f := range behind {
		p.added(f, retry.Held, &entries[len(failed)+i])
	}
	return nil
}

// added settles an event that is in the table, whose state was to be wanted: an entry
// that the table does not take as it is has become a failed one.
func (p *parking) added(f router.Flight, wanted retry.State, entry *retry.Entry) {
	if entry.State != wanted {
		if wanted == retry.Scheduled {
			p.keys.Fail(f.Event.PartitionKey, 0)
		}
		p.observe.failed(entry, errors.New(entry.Failures[len(entry.Failures)-1].Error))
	}
	p.parked(f, entry.State)
}

// parked settles an event that is in the table.
func (p *parking) parked(f router.Flight, state retry.State) {
	if state == retry.Failed || state.KeepsBlocked(p.failedBlocks) {
		p.keys.Parked(f.Event.PartitionKey, !state.KeepsBlocked(p.failedBlocks))
	}
	p.observe.settle(f.Ticket, string(state), f.Event)
}

// failedForGood is the entry of an event that is not tried again, whatever its
// row says: alone, without a person, it would not come any further.
func failedForGood(ev *event.Event, reason error) retry.Entry {
	entry := retry.NewFailure(ev, retry.Policy{MaxRetries: -1}, reason)
	entry.State, entry.Wait = retry.Failed, 0
	return entry
}

// notOneBatch is the reason why each event of a transaction fails.
func notOneBatch(reason error) error {
	return fmt.Errorf("its transaction cannot be one batch: %w; redrive its events to publish them one by one, or set publish.atomic_overflow to split", reason)
}
