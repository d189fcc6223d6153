package replication

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pglogrepl"
)

// LSN is a position in the write-ahead log, one past the last byte of what it
// ends (Postgres manual, "Streaming Replication Protocol").
type LSN = pglogrepl.LSN

// Ticket stands for one event that was taken from the stream and has no
// outcome yet.
type Ticket uint64

// Frontier computes the LSN below which every event is settled. The
// reader of the stream calls Add, Commit and Keepalive in the order in which
// the server sent them; Settle may be called from any goroutine, in any order.
//
// Its memory is fixed: one bit for each event of the window, and at most one
// mark for each.
type Frontier struct {
	mu    sync.Mutex
	done  []uint64 // a ring of bits: ticket t is bit t % capacity
	next  Ticket   // the next ticket to hand out
	low   Ticket   // every ticket below is settled
	marks []mark   // ends of transactions and keepalives, in order
	first int      // the first of marks that is not reached

	lsn      LSN // the frontier
	received LSN // the highest LSN that this connection has ended something with

	// space tells a waiting Add that low has moved, and moved whoever waits for
	// it that lsn has. Capacity 1, never closed.
	space, moved chan struct{}
}

// mark says: when every ticket below through is settled, everything before
// lsn has.
type mark struct {
	through Ticket
	lsn     LSN
}

// NewFrontier returns a frontier at start, the position from which the server
// streams. At most window events, rounded up to a multiple of 64, are without
// an outcome at a time.
func NewFrontier(start LSN, window int) *Frontier {
	words := max(1, (window+63)/64)
	return &Frontier{
		done:     make([]uint64, words),
		lsn:      start,
		received: start,
		space:    make(chan struct{}, 1),
		moved:    make(chan struct{}, 1),
	}
}

func (f *Frontier) capacity() Ticket { return Ticket(len(f.done)) * 64 }

// Add hands out the ticket of the next event. It blocks while the window is
// full, until an event is settled or the context ends. Not safe for
// concurrent use with itself.
func (f *Frontier) Add(ctx context.Context) (Ticket, error) {
	for {
		f.mu.Lock()
		if f.next-f.low < f.capacity() {
			t := f.next
			f.next++
			f.mu.Unlock()
			return t, nil
		}
		f.mu.Unlock()
		select {
		case <-f.space:
		case <-ctx.Done():
			return 0, fmt.Errorf("waiting for an event to be settled: %w", context.Cause(ctx))
		}
	}
}

// Settle says that the event of the ticket is settled. Each ticket is done
// once; anything else is a fault in the program that could lose events, so it
// panics.
func (f *Frontier) Settle(t Ticket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t < f.low || t >= f.next {
		panic(fmt.Sprintf("replication: ticket %d is settled, but only %d to %d are open", t, f.low, f.next))
	}
	word, bit := f.slot(t)
	if f.done[word]&bit != 0 {
		panic(fmt.Sprintf("replication: ticket %d has two outcomes", t))
	}
	f.done[word] |= bit
	if t != f.low {
		return
	}
	for f.low < f.next {
		word, bit := f.slot(f.low)
		if f.done[word]&bit == 0 {
			break
		}
		f.done[word] &^= bit
		f.low++
	}
	f.reach()
	select {
	case f.space <- struct{}{}:
	default:
	}
}

// Full reports whether Add would block.
func (f *Frontier) Full() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next-f.low >= f.capacity()
}

func (f *Frontier) slot(t Ticket) (word int, bit uint64) {
	i := uint64(t % f.capacity())
	return int(i / 64), 1 << (i % 64)
}

// reach moves the frontier over every mark whose tickets are done.
func (f *Frontier) reach() {
	before := f.lsn
	for f.first < len(f.marks) && f.marks[f.first].through <= f.low {
		f.lsn = f.marks[f.first].lsn
		f.first++
	}
	if f.first == len(f.marks) {
		f.marks, f.first = f.marks[:0], 0
	} else if f.first >= 64 && f.first >= len(f.marks)/2 {
		n := copy(f.marks, f.marks[f.first:])
		f.marks, f.first = f.marks[:n], 0
	}
	if f.lsn != before {
		select {
		case f.moved <- struct{}{}:
		default:
		}
	}
}

// Moved returns a channel that has a value when LSN has moved since the last
// one was taken from it.
func (f *Frontier) Moved() <-chan struct{} { return f.moved }

// Commit says that a transaction ended at end (the end LSN of the Commit
// message, not its commit LSN: the server sends a transaction again unless the
// start of its commit record is below the reported LSN). Every ticket added
// since the previous Commit belongs to it.
func (f *Frontier) Commit(end LSN) error { return f.mark(end) }

// Keepalive says that the server has sent everything before lsn. It must not
// be called between Begin and Commit of a transaction.
func (f *Frontier) Keepalive(lsn LSN) error {
	if lsn <= f.Received() {
		return nil // the server repeats what it said
	}
	return f.mark(lsn)
}

func (f *Frontier) mark(lsn LSN) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if lsn < f.received {
		return fmt.Errorf("the server went back in the write-ahead log, from %s to %s", f.received, lsn)
	}
	f.received = lsn
	if last := len(f.marks) - 1; last >= f.first && f.marks[last].through == f.next {
		f.marks[last].lsn = lsn
		return nil
	}
	f.marks = append(f.marks, mark{through: f.next, lsn: lsn})
	f.reach()
	return nil
}

// LSN returns the frontier: the slot may advance to it, and no further.
func (f *Frontier) LSN() LSN {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lsn
}

// Received returns the highest LSN up to which this connection has sent
// whole transactions.
func (f *Frontier) Received() LSN {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.received
}

// Pending returns how many events are not settled yet.
func (f *Frontier) Pending() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int(f.next - f.low)
}
