package router

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/journal"
)

// flight is an event that was taken and is not settled yet.
type flight struct {
	ev     *event.Event
	target *Target
	ticket uint64
	size   int
	first  time.Time // when it was first sent
	sent   time.Time // when it was last sent
	// whole numbers the batch that the flight belongs to, with those beside it;
	// 0 if it is sent alone.
	whole uint64
	// split says why it is published apart from its transaction, if it is.
	split string
	// stored says that the server acknowledged it in this epoch, although
	// earlier ones may not be stored.
	stored bool
	// elsewhere says that it counts as published because the stream has another
	// message with its id.
	elsewhere bool
}

// writer publishes to one stream. Publish appends to the window and sends;
// acknowledgements arrive on a subscription; run, the one goroutine that the
// writer starts, puts things right when one is missing.
//
// Flights are numbered from 0 without gaps. In an owned stream flight n is
// sent so that it can only be stored with sequence n + offset: so the sequence
// in an acknowledgement names its flight, and all flights of an epoch share one
// reply subject, which costs the server less than one for each.
type writer struct {
	cfg    writerConfig
	ledger ledger
	acks   ackReader
	sub    *nats.Subscription
	prefix string // of the reply subjects; the epoch follows and, in a shared stream, the number

	// broken tells run that the window needs a resync; space tells Publish that
	// the window moved or flows again; drained tells a resync that the last
	// answer came in. Each has capacity 1 and is never closed.
	broken, space, drained chan struct{}
	// denials are subjects that the server has just refused; it is never closed, and
	// one that finds it full is left out.
	denials chan string

	mu sync.Mutex // guards everything below
	window
	offset   uint64          // sequence of flight n, minus n
	epoch    uint64          // answers to earlier epochs are void
	reply    string          // the reply subject of this epoch
	sent     int             // how many messages were sent in this epoch
	heard    int             // how many answers to them came in
	refused  bool            // one of them was no acknowledgement
	full     bool            // the window was full, and has not drained by a quarter
	batches  uint64          // the number of the last batch that was taken
	underWay int             // how many batches have unsettled flights
	ended    uint64          // the number of the last batch of which one was settled
	batchID  uint64          // the number of the last batch that was sent
	flows    bool            // false during a resync
	cause    error           // why it is
	paused   error           // what was last said about that
	denied   map[string]bool // subjects that were refused since something was stored
	// askUserAfter is when to ask again what the NATS user may do; of the loop alone.
	askUserAfter time.Time
	created      time.Time       // the stream's creation
	reached      reached         // everything before base
	before       *reached        // as it was before the first of those that come late; nil if none does
	lates        int             // how many flights come late
	refusals     refusals        // what the server would refuse again
	late         late            // what may be stored although it is in the delay table
	skip         skip            // what a replay brings although the stream has it
	journal      *journal.Buffer // what the stream has got; nil keeps none
	enc          Encoder
	signer       *event.Signer // nil signs nothing
	msg          nats.Msg
	subject      []byte
	scratch      []byte
	texts        texts
}

// skip says which events of a replay the stream already has: those up to a
// position and, when the last message itself is gone, a number of events after
// it.
type skip struct {
	through event.Position
	count   uint64
	// present are those that it has after from; nil if it has all.
	present map[event.Position]struct{}
	from    event.Position
}

// has reports whether it has an event up to through.
func (s *skip) has(p event.Position) bool {
	if s.present == nil || p.Compare(s.from) <= 0 {
		return true
	}
	_, ok := s.present[p]
	return ok
}

// reached is the sequence up to which the stream is known, and the position of
// the last event that it has there.
type reached struct {
	sequence uint64
	position event.Position
}

type writerConfig struct {
	stream           string
	domain           string
	shared           bool
	origin           Origin
	maxInFlight      int
	maxInFlightBytes int
	ackTimeout       time.Duration
	splitRefused     bool
	omitMessageID    bool
	observer         Observer
	parker           Parker
	log              zerolog.Logger
	// unstored notes an event that is settled and not stored. It must not block.
	unstored func(*event.Event)
	// repair says that events are brought back that the stream lost.
	repair bool
}

func newWriter(nc *nats.Conn, cfg writerConfig) *writer {
	back := uint64(lookBack)
	if cfg.repair {
		back = repairLookBack
	}
	return &writer{
		cfg:     cfg,
		ledger:  ledger{api: newAPI(nc, cfg.domain, cfg.stream), origin: cfg.origin, signer: event.NewSigner(cfg.stream, cfg.origin.Key), lookBack: back},
		signer:  event.NewSigner(cfg.stream, cfg.origin.Key),
		acks:    newAckReader(cfg.stream, ""),
		broken:  make(chan struct{}, 1),
		space:   make(chan struct{}, 1),
		drained: make(chan struct{}, 1),
		denials: make(chan string, 16),
		window:  window{ring: make([]flight, cfg.maxInFlight)},
	}
}

// publish takes an event and sends it. It blocks while the window is full or
// during a resync, until the context ends. Not safe for concurrent use with
// itself.
func (w *writer) publish(ctx context.Context, taken Flight, target *Target) error {
	ev := taken.Event
	size := ev.Size()
	if err := w.awaitRoom(ctx, 1, size); err != nil {
		return err
	}
	if w.has(ev) || w.late.takes(ev) {
		w.mu.Unlock()
		w.cfg.observer.Settled(taken.Ticket, AlreadyStored, ev, w.cfg.stream, 0)
		return nil
	}
	if w.cfg.parker.Blocked(ev) {
		w.mu.Unlock()
		return ErrBlocked
	}
	n := w.take(taken, target, size, 0)
	err := w.send(n, place{})
	if poison, ok := errors.AsType[*EventError](err); ok && poison.Class == Poison {
		// Nothing was sent.
		w.settleLate(ev)
		w.pop()
		return w.behindItsKey(ctx, ev, err)
	}
	if err != nil {
		w.fail(err)
	}
	w.mu.Unlock()
	return nil
}

// behindItsKey returns the fault of an event that was not sent, once nothing of its key is
// under way any more: an earlier event may fail yet, and then comes back later than this one
// would. It is called with the lock held, and returns without it.
func (w *writer) behindItsKey(ctx context.Context, ev *event.Event, fault error) error {
	for w.hasKey(ev.PartitionKey) {
		w.mu.Unlock()
		select {
		case <-w.space:
		case <-ctx.Done():
			return fmt.Errorf("waiting for earlier events of a key in stream %q: %w", w.cfg.stream, context.Cause(ctx))
		}
		if err := w.awaitRoom(ctx, 1, 0); err != nil {
			return err
		}
	}
	blocked := w.cfg.parker.Blocked(ev)
	w.mu.Unlock()
	if blocked {
		return ErrBlocked
	}
	return fault
}

// awaitRoom blocks until the window has room for so many events and bytes, and
// returns with the lock held; with an error, without it.
func (w *writer) awaitRoom(ctx context.Context, events, size int) error {
	w.mu.Lock()
	for !w.hasRoom(events, size) {
		w.mu.Unlock()
		select {
		case <-w.space:
		case <-ctx.Done():
			return fmt.Errorf("waiting for room in the window of stream %q: %w", w.cfg.stream, context.Cause(ctx))
		}
		w.mu.Lock()
	}
	return nil
}

// take appends an event to the window, and returns the number of its flight.
func (w *writer) take(taken Flight, target *Target, size int, whole uint64) uint64 {
	if w.isLate(taken.Event) {
		w.lates++
	}
	return w.push(flight{ev: taken.Event, ticket: taken.Ticket, split: taken.Split, target: target, size: size, whole: whole})
}

// isLate reports whether the stream has a later event already: one of somebody else took
// the event's place.
func (w *writer) isLate(ev *event.Event) bool {
	return !w.cfg.shared && !w.cfg.repair && ev.Position.Compare(w.reached.position) < 0
}

// settleLate notes that an event, if it came late, is settled.
func (w *writer) settleLate(ev *event.Event) {
	if w.lates > 0 && w.isLate(ev) {
		w.lates--
	}
	if w.lates == 0 && w.skip.present == nil {
		w.before = nil
	}
}

// mayHave reports whether the stream may have the event from a run before.
func (w *writer) mayHave(ev *event.Event) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.cfg.shared && (w.skip.count > 0 || ev.Position.Compare(w.skip.through) <= 0)
}

// hasRoom reports whether more events may be appended. Once the window was full,
// it must have drained by a quarter first: otherwise each acknowledgement would
// wake the sender for one event, and each event cost a write of its own.
func (w *writer) hasRoom(more, size int) bool {
	if more > 1 && w.underWay >= maxOpenBatches {
		return false
	}
	events, bytes := len(w.ring), w.cfg.maxInFlightBytes
	if w.full {
		events, bytes = events-events/4, bytes-bytes/4
	}
	inFlight := int(w.next - w.base)
	room := inFlight == 0 || inFlight+more <= events && w.bytes+size <= bytes
	w.full = !room
	return room && w.flows && w.journal.HasRoom()
}

// has reports whether the stream already has the event, from a run before, and
// if so counts it as the last that it has.
func (w *writer) has(ev *event.Event) bool {
	if w.cfg.shared {
		return false
	}
	if ev.Position.Compare(w.skip.through) <= 0 {
		if !w.skip.has(ev.Position) {
			w.reportLate(ev)
			return false
		}
		w.journal.Add(ev)
		return true
	}
	if w.skip.present != nil {
		w.skip.present = nil
		w.settleLate(ev)
	}
	if w.skip.count == 0 {
		return false
	}
	w.journal.Add(ev)
	w.skip.count--
	w.skip.through = ev.Position
	w.reached = reached{sequence: w.reached.sequence + 1, position: ev.Position}
	return true
}

// send encodes and sends flight n. It waits for the connection's buffer at
// most, never for an answer.
func (w *writer) send(n uint64, in place) error {
	f := w.at(n)
	if err := w.encode(f, n, in); err != nil {
		if classify(err) == Poison {
			return w.eventError(f, err)
		}
		return &EventError{Class: classify(err), Schema: f.ev.Schema, Table: f.ev.Table, ID: f.ev.ID, Err: err}
	}
	f.stamp()
	if err := w.ledger.nc.PublishMsg(&w.msg); err != nil {
		return w.eventError(f, err)
	}
	if in.isLast() {
		w.sent++
	}
	return nil
}

// stamp notes that the flight is sent now.
func (f *flight) stamp() {
	f.sent = time.Now()
	if f.first.IsZero() {
		f.first = f.sent
	}
}

// eventError says of an event that it is the reason for a failure, if it is.
func (w *writer) eventError(f *flight, err error) error {
	class := classify(err)
	if class != Poison {
		return err
	}
	switch size := f.ev.Size(); {
	case errors.Is(err, nats.ErrMaxPayload):
		err = fmt.Errorf("%w: the event has %d bytes, and max_payload of the NATS server is %d", err, size, w.ledger.nc.MaxPayload())
	case isAPIError(err, codeWrongStream):
		err = fmt.Errorf("%w: its subject belongs to another stream than %q; correct the route's stream or subject", err, w.cfg.stream)
	case isAPIError(err, codeMessageTooLarge):
		err = fmt.Errorf("%w: the event has %d bytes, and max_msg_size of stream %q is less", err, size, w.cfg.stream)
	}
	return &EventError{Class: class, Schema: f.ev.Schema, Table: f.ev.Table, ID: f.ev.ID, Err: err}
}

// encode makes the message of flight n. Its texts are parts of one string.
func (w *writer) encode(f *flight, n uint64, in place) (err error) {
	if w.subject, err = f.target.Subject.Append(w.subject[:0], f.ev); err != nil {
		return err
	}
	w.enc.Encode(&w.msg, f.ev, f.target.Mode)
	w.enc.Set(&w.msg, nats.ExpectedStreamHdr, w.cfg.stream)
	b := w.scratch[:0]
	if w.cfg.shared || !w.cfg.omitMessageID {
		b = appendMessageID(b, f.ev)
	}
	endID := len(b)
	b = append(b, w.subject...)
	if w.cfg.shared {
		end := len(b)
		b = append(b, w.reply...)
		b = strconv.AppendUint(b, n, 10)
		text := w.texts.string(b)
		w.enc.Set(&w.msg, nats.MsgIdHdr, text[:endID])
		w.msg.Subject, w.msg.Reply = text[endID:end], text[end:]
	} else {
		endSubject := len(b)
		b = strconv.AppendUint(b, n+w.offset-1, 10)
		endSequence := len(b)
		b = w.cfg.origin.appendPosition(b, f.ev.Position)
		if w.isLate(f.ev) {
			b = append(b, event.LateSuffix...)
		}
		endPosition := len(b)
		if w.signer != nil {
			b = w.signer.Append(b, b[endSubject:endSequence], b[endSequence:endPosition])
		}
		text := w.texts.string(b)
		if endID > 0 {
			w.enc.Set(&w.msg, nats.MsgIdHdr, text[:endID])
		}
		w.msg.Subject, w.msg.Reply = text[endID:endSubject], w.reply
		if in.isFirst() {
			w.enc.Set(&w.msg, nats.ExpectedLastSeqHdr, text[endSubject:endSequence])
		}
		w.enc.Set(&w.msg, event.PositionHeader, text[endSequence:endPosition])
		if w.signer != nil {
			w.enc.Set(&w.msg, event.DigestHeader, text[endPosition:])
		}
		w.encodePlace(in)
	}
	if f.split != "" {
		w.enc.Set(&w.msg, SplitHeader, f.split)
	}
	w.scratch = b
	w.enc.Finish(&w.msg)
	if f.ev.Delay != nil {
		return nil // it comes back to find out
	}
	return w.refusals.check(&w.msg)
}

// begin starts an epoch: the answers to what was sent before are void.
func (w *writer) begin() {
	w.epoch++
	w.reply = w.prefix + strconv.FormatUint(w.epoch, 10) + "."
	if !w.cfg.shared {
		w.reply += "0"
	}
	w.sent, w.heard, w.refused = 0, 0, false
}

// answer takes the server's answer to one message. The NATS client calls it
// from one goroutine.
func (w *writer) answer(msg *nats.Msg) {
	got, err := w.acks.read(msg)
	w.mu.Lock()
	defer w.mu.Unlock()
	number, ok := strings.CutPrefix(msg.Subject, w.reply)
	if !ok {
		return // of a message that was given up; reading the stream decides
	}
	if w.heard++; w.heard == w.sent {
		signal(w.drained)
	}
	if err != nil || got.duplicate && !w.cfg.shared {
		if err == nil {
			err = errWrongLastSequence
		}
		w.refused = true
		w.fail(err)
		return
	}
	n := got.sequence - w.offset
	if w.cfg.shared {
		if n, err = strconv.ParseUint(number, 10, 64); err != nil {
			return
		}
	}
	switch f := w.at(n); {
	case n < w.base || n >= w.next:
	case w.cfg.shared:
		f.stored = true
		w.settleStored()
	case w.flows:
		// Stored with the predicted sequence, and nothing was refused: so is
		// all that was sent before.
		w.settle(n + 1)
	default:
		// Something was refused, and yet this prediction came true: it is of
		// before that, or another message took the refused one's place.
		w.markStored(n)
	}
}

// settle gives the outcome to every flight before end.
func (w *writer) settle(end uint64) {
	if end <= w.base {
		return
	}
	for ; w.base < end; w.base++ {
		w.done(w.at(w.base), w.base+w.offset)
	}
	if !w.full || w.hasRoom(1, 0) {
		signal(w.space)
	}
}

// done settles a flight: it is stored with the sequence.
func (w *writer) done(f *flight, sequence uint64) {
	w.bytes -= f.size
	if f.whole > w.ended {
		w.ended = f.whole
		w.underWay--
	}
	if w.reached.position.Compare(f.ev.Position) < 0 {
		w.reached = reached{sequence: sequence, position: f.ev.Position}
	} else {
		w.settleLate(f.ev)
	}
	outcome := Published
	if f.elsewhere {
		outcome = Duplicate
		w.cfg.unstored(f.ev)
	} else {
		w.journal.Add(f.ev)
	}
	w.denied = nil
	w.cfg.observer.Settled(f.ticket, outcome, f.ev, w.cfg.stream, time.Since(f.sent))
	*f = flight{}
}

// settleStored gives the outcome to the flights up to the first one of a
// shared stream that is not acknowledged.
func (w *writer) settleStored() {
	end := w.base
	for end < w.next && w.at(end).stored {
		end++
	}
	w.settle(end)
}

// fail stops the flow and asks for a resync. The first cause is kept: what
// follows it is its consequence.
func (w *writer) fail(err error) {
	if !w.flows {
		return
	}
	w.flows = false
	w.cause = err
	signal(w.broken)
}

// interrupted says that the connection was lost, so answers may be missing.
func (w *writer) interrupted() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next > w.base {
		w.fail(nats.ErrDisconnected)
	}
}

// pause says that the stream is paused, and why, once for each reason.
func (w *writer) pause(err error) {
	if w.paused != nil && err != nil && w.paused.Error() == err.Error() {
		return
	}
	if w.paused == nil && err == nil {
		return
	}
	w.paused = err
	w.cfg.observer.Paused(w.cfg.stream, err)
}

// inFlight returns how many events are not settled.
func (w *writer) inFlight() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int(w.next - w.base)
}

// progress returns how far the stream has come.
func (w *writer) progress() StreamState {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := w.reached
	if w.before != nil {
		at = *w.before
	}
	return StreamState{Created: w.created, LastSequence: at.sequence, Position: at.position.String()}
}

func (w *writer) close() error {
	if w.sub == nil {
		return nil
	}
	if err := w.sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("ending the subscription to the acknowledgements of stream %q: %w", w.cfg.stream, err)
	}
	return nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
