package router

import (
	"context"
	"errors"
	"strconv"

	"github.com/nats-io/nats.go"
)

// The headers of an atomic batch (nats-architecture-and-design, ADR-50). The
// server stores them with the messages.
const (
	batchIDHeader       = "Nats-Batch-Id"
	batchSequenceHeader = "Nats-Batch-Sequence"
	batchCommitHeader   = "Nats-Batch-Commit"
)

// SplitHeader is the header of a message whose transaction was to be published
// as a whole and was not. Its value says why, in one of the words below.
const SplitHeader = "Walrelay-Split"

// Why a transaction is split.
const (
	SplitEvents  = "events"  // it has more events than a batch may have
	SplitBytes   = "bytes"   // it has more bytes than fit into half of the window
	SplitStreams = "streams" // its events go to several streams
	SplitRefused = "refused" // the stream refuses it as a batch, or one of its events
	SplitRepair  = "repair"  // the stream has lost it, and it is brought back
)

// ErrSeveralStreams says that the events of a transaction go to several
// streams. A batch belongs to one.
var ErrSeveralStreams = errors.New("its events go to several streams")

// TransactionError says which event is why a transaction was not taken.
type TransactionError struct {
	// Flight is the event's index.
	Flight int
	Err    error
}

func (e *TransactionError) Error() string { return e.Err.Error() }

func (e *TransactionError) Unwrap() error { return e.Err }

// PublishTransaction takes the events of a transaction and publishes them as one
// atomic batch: no consumer sees some of them before all are stored. Those that
// the stream has already, and those that a rule drops, are not part of it. There
// may be no more of them than MaxInFlight, and half of MaxInFlightBytes.
//
// As Publish does, it returns when they are sent or are settled, and
// blocks meanwhile. It takes all or none: none if they go to several streams
// ([ErrSeveralStreams]), or if one has to wait behind another, or cannot be
// published for a reason of its own (*[TransactionError] with [ErrBlocked], or with
// an *[EventError] of class [Poison]). Not safe for concurrent use with itself or
// with Publish.
func (r *Router) PublishTransaction(ctx context.Context, flights []Flight) error {
	var writer *writer
	batch := make([]Flight, 0, len(flights))
	targets := make([]*Target, 0, len(flights))
	places := make([]int, 0, len(flights)) // of the batch's events among all
	for i, f := range flights {
		w, target, err := r.route(f.Event)
		switch {
		case err != nil:
			return err
		case w == nil:
			continue
		case writer != nil && writer != w:
			return ErrSeveralStreams
		}
		writer = w
		batch, targets, places = append(batch, f), append(targets, target), append(places, i)
	}
	if writer != nil {
		if err := writer.publishBatch(ctx, batch, targets); err != nil {
			if culprit, ok := errors.AsType[*TransactionError](err); ok {
				culprit.Flight = places[culprit.Flight]
			}
			return err
		}
	}
	for i, f := range flights {
		if len(places) > 0 && places[0] == i {
			places = places[1:]
			continue
		}
		if err := r.drop(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// publishBatch takes events and sends them as a batch.
func (w *writer) publishBatch(ctx context.Context, flights []Flight, targets []*Target) error {
	size := 0
	for i := range flights {
		size += flights[i].Event.Size()
	}
	if err := w.awaitRoom(ctx, len(flights), size); err != nil {
		return err
	}
	has := w.hasOf(flights)
	for i := has; i < len(flights); i++ {
		if w.cfg.parker.Blocked(flights[i].Event) {
			w.mu.Unlock()
			return &TransactionError{Flight: i, Err: ErrBlocked}
		}
		if err := w.check(flights[i], targets[i]); err != nil {
			return &TransactionError{Flight: i, Err: w.behindItsKey(ctx, flights[i].Event, err)}
		}
	}
	defer w.mu.Unlock()
	for _, f := range flights[:has] {
		w.has(f.Event)
		w.cfg.observer.Settled(f.Ticket, AlreadyStored, f.Event, w.cfg.stream, 0)
	}
	if has == len(flights) {
		return nil
	}
	first := w.next
	w.batches++
	w.underWay++
	for i := has; i < len(flights); i++ {
		w.take(flights[i], targets[i], flights[i].Event.Size(), w.batches)
	}
	if err := w.sendBatch(first, w.next); err != nil {
		w.fail(err)
	}
	return nil
}

// hasOf returns how many of the events, which are in order, the stream already
// has, without counting them.
func (w *writer) hasOf(flights []Flight) int {
	beyond := w.skip.count
	for i := range flights {
		switch {
		case flights[i].Event.Position.Compare(w.skip.through) <= 0:
			if !w.skip.has(flights[i].Event.Position) {
				return i
			}
		case beyond > 0:
			beyond--
		default:
			return i
		}
	}
	return len(flights)
}

// check finds out whether an event can be sent at all: what is told later is
// told of the batch, and not of the event. The map of headers is measured only
// when the message may be too large.
func (w *writer) check(f Flight, target *Target) error {
	probe := flight{ev: f.Event, target: target, split: f.Split}
	limit := w.ledger.nc.MaxPayload()
	var err error
	if limit > 0 && 3*int64(f.Event.Size())+maxOwnHeaders < limit {
		w.subject, err = target.Subject.Append(w.subject[:0], f.Event)
	} else if err = w.encode(&probe, w.next, place{id: "0", number: 1}); err == nil && limit > 0 &&
		int64(w.msg.Size()-len(w.msg.Subject)-len(w.msg.Reply))+batchHeaders > limit {
		err = nats.ErrMaxPayload
	}
	if err != nil {
		return w.eventError(&probe, err)
	}
	return nil
}

const (
	// maxOwnHeaders is more than what the headers of a message take beside the
	// attributes of its event, of which a byte may become three.
	maxOwnHeaders = 4096
	// batchHeaders is more than what the headers of a batch take.
	batchHeaders = 256
)

// place is a message's place in a batch. The zero value is that of a message
// sent alone.
type place struct {
	id     string
	number int // from 1
	of     int
}

func (p place) isFirst() bool { return p.number <= 1 }
func (p place) isLast() bool  { return p.number == p.of }

func (p place) next() place {
	p.number++
	return p
}

// place returns the place of the first flight of a batch that is sent now.
func (w *writer) place(first, end uint64) place {
	if end == first+1 {
		return place{}
	}
	// The prefix of the replies is unique among all that write.
	w.batchID++
	id := w.prefix[:len(w.prefix)-1]
	if i := len(id) - maxBatchPrefix; i > 0 {
		id = id[i:]
	}
	return place{id: id + "-" + strconv.FormatUint(w.batchID, 10), number: 1, of: int(end - first)}
}

// maxBatchPrefix is how much of the prefix a batch's id has: it may have 64
// characters. The end of it is the random part.
const maxBatchPrefix = 40

// encodePlace adds the headers of a batch.
func (w *writer) encodePlace(in place) {
	if in.id == "" {
		return
	}
	w.enc.Set(&w.msg, batchIDHeader, in.id)
	w.enc.Set(&w.msg, batchSequenceHeader, strconv.Itoa(in.number))
	if in.isLast() {
		w.enc.Set(&w.msg, batchCommitHeader, "1")
	} else {
		w.msg.Reply = ""
	}
}

// batchEnd returns the end of the batch that begins with flight n; of a flight
// that is sent alone, the next one.
func (w *writer) batchEnd(n uint64) uint64 {
	whole := w.at(n).whole
	end := n + 1
	for whole != 0 && end < w.next && w.at(end).whole == whole {
		end++
	}
	return end
}

// maxOpenBatches is how many batches are under way at most. A nats-server keeps
// each batch of a stream with one replica in files of its own until its end,
// which takes it some milliseconds: docs/atomic.md has the figures. So many must
// be stored well within ack_timeout.
const maxOpenBatches = 16

// countOpen counts the batches that are under way again, after flights were
// taken out of the window.
func (w *writer) countOpen() {
	w.underWay, w.ended = 0, 0
	for n := w.base; n < w.next; n = w.batchEnd(n) {
		if w.at(n).whole != 0 {
			w.underWay++
		}
	}
}

// sendBatch sends the flights of a batch, or the one that is none.
func (w *writer) sendBatch(first, end uint64) error {
	in := w.place(first, end)
	for n := first; n < end; n, in = n+1, in.next() {
		if err := w.send(n, in); err != nil {
			return err
		}
	}
	return nil
}

// markStored says that flight n is stored, and with it its batch.
func (w *writer) markStored(n uint64) {
	whole := w.at(n).whole
	for {
		f := w.at(n)
		if f.whole != whole {
			return
		}
		f.stored = true
		if whole == 0 || n == w.base {
			return
		}
		n--
	}
}

// splitBatch makes flights of a batch such that are sent alone.
func (w *writer) splitBatch(first, end uint64) {
	for n := first; n < end; n++ {
		f := w.at(n)
		f.whole, f.split = 0, SplitRefused
	}
	w.cfg.log.Warn().Str("stream", w.cfg.stream).Uint64("events", end-first).
		Stringer("position", w.at(first).ev.Position).
		Msg("the stream refuses a transaction as a whole; its events are published one by one")
	w.cfg.observer.Split(w.cfg.stream)
}

func (f *flight) taken() Flight { return Flight{Event: f.ev, Ticket: f.ticket, Split: f.split} }
