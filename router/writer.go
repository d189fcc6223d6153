package router

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/retry"
)

// flight is an event that was taken and has no outcome yet.
type flight struct {
	ev     *event.Event
	target *Target
	ticket uint64
	size   int
	first  time.Time // when it was first sent
	sent   time.Time // when it was last sent
	// What the server answered in this epoch: that it is stored, although
	// earlier ones may not be, or that it is refused.
	stored, refused bool
}

// writer publishes to one stream. Publish appends to the window and sends;
// acknowledgements arrive on a subscription; run, the one goroutine that the
// writer starts, puts things right when one is missing.
//
// Flights are numbered from 0 without gaps. In an owned stream flight n is
// sent so that it can only be stored with sequence n + offset.
type writer struct {
	cfg    writerConfig
	ledger ledger
	acks   ackReader
	sub    *nats.Subscription
	prefix string // of the reply subjects; epoch and number follow

	// broken tells run that the window needs repair; space tells Publish that
	// the window moved or flows again; drained tells a repair that the last
	// answer came in. Each has capacity 1 and is never closed.
	broken, space, drained chan struct{}

	mu      sync.Mutex // guards everything below
	ring    []flight   // flight n is at n % len(ring)
	base    uint64     // the first flight without an outcome
	next    uint64     // the number of the next flight
	bytes   int        // the sizes of the flights between
	offset  uint64     // sequence of flight n, minus n
	epoch   uint64     // answers to earlier epochs are void
	sent    uint64     // the number after the last flight sent in this epoch
	heard   uint64     // the number after the last flight answered in it
	flows   bool       // false while the window is under repair
	cause   error      // why it is
	held    error      // what was last said about that
	created time.Time  // the stream's creation
	reached reached    // everything before base
	skip    skip       // what a replay brings although the stream has it
	enc     Encoder
	msg     nats.Msg
	subject []byte
	scratch []byte
}

// skip says which events of a replay the stream already has: those up to a
// position and, when the last message itself is gone, a number of events after
// it.
type skip struct {
	through event.Position
	count   uint64
}

// reached is the sequence up to which the stream is known, and the position of
// the last event that it has there.
type reached struct {
	sequence uint64
	position event.Position
}

type writerConfig struct {
	stream           string
	shared           bool
	origin           Origin
	maxInFlight      int
	maxInFlightBytes int
	ackTimeout       time.Duration
	sink             Sink
	log              zerolog.Logger
}

func newWriter(nc *nats.Conn, js nats.JetStreamContext, cfg writerConfig) *writer {
	return &writer{
		cfg:     cfg,
		ledger:  ledger{nc: nc, js: js, stream: cfg.stream, origin: cfg.origin},
		acks:    newAckReader(cfg.stream),
		broken:  make(chan struct{}, 1),
		space:   make(chan struct{}, 1),
		drained: make(chan struct{}, 1),
		ring:    make([]flight, cfg.maxInFlight),
	}
}

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
	if recorded != nil {
		w.created, known.sequence = recorded.Created, recorded.LastSequence
		if known.position, err = event.ParsePosition(recorded.Position); err != nil {
			return fmt.Errorf("the recorded state of stream %q: %w", w.cfg.stream, err)
		}
	}
	r, err := w.readLedger(ctx, known.sequence)
	if err != nil {
		return err
	}
	w.hold(nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.created = r.created
	w.flows = true
	w.reached = reached{sequence: r.last, position: known.position}
	switch {
	case w.cfg.shared:
	case r.own:
		if r.position.CommitLSN > w.cfg.origin.WAL {
			return &ConfigurationError{
				What: fmt.Sprintf("stream %q has an event from position %s of the write-ahead log, but the database ends at %X/%X",
					w.cfg.stream, r.position, w.cfg.origin.WAL>>32, uint32(w.cfg.origin.WAL)),
				Remedy: "the database went back in time: see docs/operations.md, \"A database was restored\"",
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
	w.skip.through = w.reached.position
	w.offset = r.last + 1
	if w.cfg.shared {
		w.cfg.log.Warn().Str("stream", w.cfg.stream).Dur("duplicate_window", r.window).
			Msg("the stream is shared with other writers: only its duplicate window keeps events from being stored twice, and one that is sent again may stand after later ones")
	} else if r.foreign > 0 {
		w.warnForeign(r.foreign)
	}
	return nil
}

// readLedger reads the stream until it answers, and until its answer fits what
// is known or has failed to for longer than a server takes to recover.
func (w *writer) readLedger(ctx context.Context, sequence uint64) (reading, error) {
	backoff := retry.NewBackoff(50*time.Millisecond, time.Second)
	floor := sequence
	if w.cfg.shared {
		floor = math.MaxUint64 // the messages of a shared stream say nothing
	}
	var suspect time.Time
	for {
		r, err := w.ledger.read(ctx, floor)
		if err == nil && !w.cfg.shared {
			err = w.lostMessages(r, sequence)
		}
		if err == nil {
			return r, nil
		}
		if isDone(ctx) {
			return reading{}, fmt.Errorf("reading stream %q: %w", w.cfg.stream, context.Cause(ctx))
		}
		if !w.ledger.nc.IsConnected() {
			err = errNotConnected
		}
		if isAPIError(err, codeStreamNotFound) {
			err = &ConfigurationError{
				What:   fmt.Sprintf("stream %q does not exist", w.cfg.stream),
				Remedy: "run \"walrelay init\" to create it; if it existed before, see docs/operations.md, \"A stream lost messages\"",
			}
		}
		if classify(err) == Configuration {
			if suspect.IsZero() {
				suspect = time.Now()
			}
			if time.Since(suspect) > patience {
				return reading{}, err
			}
		} else {
			suspect = time.Time{}
		}
		w.hold(err)
		if err := backoff.Wait(ctx); err != nil {
			return reading{}, fmt.Errorf("reading stream %q: %w", w.cfg.stream, err)
		}
	}
}

// lostMessages compares what the stream has with what it is known to have had.
func (w *writer) lostMessages(r reading, sequence uint64) error {
	const remedy = "see docs/operations.md, \"A stream lost messages\""
	switch {
	case w.created.IsZero():
		return nil
	case !r.created.Equal(w.created):
		return &ConfigurationError{
			What: fmt.Sprintf("stream %q was deleted and created again at %s: acknowledged events up to sequence %d are not in it",
				w.cfg.stream, r.created.UTC().Format(time.RFC3339), sequence),
			Remedy: remedy,
		}
	case r.last < sequence:
		return &ConfigurationError{
			What: fmt.Sprintf("stream %q lost acknowledged events: it had reached sequence %d, and is now at %d",
				w.cfg.stream, sequence, r.last),
			Remedy: remedy,
		}
	}
	return nil
}

// publish takes an event and sends it. It blocks while the window is full or
// under repair, until the context ends. Not safe for concurrent use with
// itself.
func (w *writer) publish(ctx context.Context, ev *event.Event, target *Target, ticket uint64) error {
	size := ev.Size()
	w.mu.Lock()
	for !w.hasRoom(size) {
		w.mu.Unlock()
		select {
		case <-w.space:
		case <-ctx.Done():
			return fmt.Errorf("waiting for room in the window of stream %q: %w", w.cfg.stream, context.Cause(ctx))
		}
		w.mu.Lock()
	}
	if w.has(ev) {
		w.mu.Unlock()
		w.cfg.sink.Done(ticket, AlreadyStored, ev, 0)
		return nil
	}
	n := w.next
	w.ring[n%uint64(len(w.ring))] = flight{ev: ev, target: target, ticket: ticket, size: size}
	w.next++
	w.bytes += size
	if err := w.send(n); err != nil {
		w.fail(err)
	}
	w.mu.Unlock()
	return nil
}

func (w *writer) hasRoom(size int) bool {
	if !w.flows {
		return false
	}
	inFlight := w.next - w.base
	return inFlight == 0 ||
		inFlight < uint64(len(w.ring)) && w.bytes+size <= w.cfg.maxInFlightBytes
}

// has reports whether the stream already has the event, from a run before, and
// if so counts it as the last that it has.
func (w *writer) has(ev *event.Event) bool {
	if w.cfg.shared {
		return false
	}
	if ev.Position.Compare(w.skip.through) <= 0 {
		return true
	}
	if w.skip.count == 0 {
		return false
	}
	w.skip.count--
	w.skip.through = ev.Position
	w.reached = reached{sequence: w.reached.sequence + 1, position: ev.Position}
	return true
}

// send encodes and sends flight n. It waits for the connection's buffer at
// most, never for an answer.
func (w *writer) send(n uint64) error {
	f := &w.ring[n%uint64(len(w.ring))]
	reply, err := w.encode(f, n)
	if err != nil {
		return &EventError{Class: classify(err), Schema: f.ev.Schema, Table: f.ev.Table, ID: f.ev.ID, Err: err}
	}
	w.msg.Reply = reply
	f.sent = time.Now()
	if f.first.IsZero() {
		f.first = f.sent
	}
	if err := w.ledger.nc.PublishMsg(&w.msg); err != nil {
		return w.eventError(f, err)
	}
	w.sent = n + 1
	return nil
}

func (w *writer) eventError(f *flight, err error) error {
	class := classify(err)
	if class != Poison {
		return err
	}
	return &EventError{Class: class, Schema: f.ev.Schema, Table: f.ev.Table, ID: f.ev.ID, Err: err}
}

// encode makes the message of flight n and returns its reply subject. The
// texts of one message are parts of one string.
func (w *writer) encode(f *flight, n uint64) (reply string, err error) {
	if w.subject, err = f.target.Subject.Append(w.subject[:0], f.ev); err != nil {
		return "", err
	}
	if err := w.enc.Encode(&w.msg, f.ev, f.target.Mode); err != nil {
		return "", err
	}
	b := w.scratch[:0]
	b = append(b, w.subject...)
	endSubject := len(b)
	b = append(b, w.prefix...)
	b = strconv.AppendUint(b, w.epoch, 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, n, 10)
	endReply := len(b)
	if !w.cfg.shared {
		b = strconv.AppendUint(b, n+w.offset-1, 10)
	}
	endSequence := len(b)
	if !w.cfg.shared {
		b = w.cfg.origin.appendPosition(b, f.ev.Position)
	}
	w.scratch = b
	text := string(b)
	w.msg.Subject = text[:endSubject]
	w.enc.Set(&w.msg, nats.MsgIdHdr, f.ev.ID)
	w.enc.Set(&w.msg, nats.ExpectedStreamHdr, w.cfg.stream)
	if !w.cfg.shared {
		w.enc.Set(&w.msg, nats.ExpectedLastSeqHdr, text[endReply:endSequence])
		w.enc.Set(&w.msg, PositionHeader, text[endSequence:])
	}
	w.enc.Finish(&w.msg)
	return text[endSubject:endReply], nil
}

// answer takes the server's answer to one message. The NATS client calls it
// from one goroutine.
func (w *writer) answer(msg *nats.Msg) {
	epoch, n, ok := parseReply(msg.Subject, w.prefix)
	if !ok {
		return
	}
	got, err := w.acks.read(msg)
	w.mu.Lock()
	defer w.mu.Unlock()
	if epoch != w.epoch || n < w.base || n >= w.next {
		return // of a message that was given up; reading the stream decides
	}
	if w.heard = max(w.heard, n+1); w.heard == w.sent {
		signal(w.drained)
	}
	f := &w.ring[n%uint64(len(w.ring))]
	switch {
	case err != nil:
		f.refused = true
		w.fail(w.eventError(f, err))
	case w.cfg.shared:
		f.stored = true
		w.settleStored()
	case got.duplicate || got.sequence != n+w.offset:
		f.refused = true
		w.fail(errWrongLastSequence)
	case w.flows:
		// Stored with the predicted sequence, and nothing was refused: so is
		// all that was sent before.
		w.settle(n + 1)
	default:
		// Something before it was refused, and yet its prediction came true:
		// another message took the refused one's place.
		f.stored = true
	}
}

// settle gives the outcome to every flight before end.
func (w *writer) settle(end uint64) {
	if end <= w.base {
		return
	}
	for ; w.base < end; w.base++ {
		w.done(&w.ring[w.base%uint64(len(w.ring))], w.base+w.offset)
	}
	signal(w.space)
}

// done gives a flight its outcome: it is stored with the sequence.
func (w *writer) done(f *flight, sequence uint64) {
	w.bytes -= f.size
	if w.reached.position.Compare(f.ev.Position) < 0 {
		w.reached = reached{sequence: sequence, position: f.ev.Position}
	}
	w.cfg.sink.Done(f.ticket, Published, f.ev, time.Since(f.sent))
	*f = flight{}
}

// settleStored gives the outcome to the flights up to the first one of a
// shared stream that is not acknowledged.
func (w *writer) settleStored() {
	end := w.base
	for end < w.next && w.ring[end%uint64(len(w.ring))].stored {
		end++
	}
	w.settle(end)
}

// fail stops the flow and asks for a repair. The first cause is kept: what
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

// hold says that the stream is held, and why, once for each reason.
func (w *writer) hold(err error) {
	if w.held != nil && err != nil && w.held.Error() == err.Error() {
		return
	}
	if w.held == nil && err == nil {
		return
	}
	w.held = err
	w.cfg.sink.Held(w.cfg.stream, err)
}

// run repairs the window whenever it is broken, until the context ends or
// somebody has to change something.
func (w *writer) run(ctx context.Context) error {
	ticker := time.NewTicker(w.cfg.ackTimeout / 4)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			w.expire()
		case <-w.broken:
			if err := w.repair(ctx); err != nil {
				if isDone(ctx) {
					return nil
				}
				return err
			}
		}
	}
}

// expire breaks the window when its oldest message was not answered in time.
func (w *writer) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.base < w.next && w.flows && time.Since(w.ring[w.base%uint64(len(w.ring))].sent) > w.cfg.ackTimeout {
		w.fail(fmt.Errorf("stream %q: %w", w.cfg.stream, nats.ErrTimeout))
	}
}

// repair brings the window back in order: it waits for the answers under way,
// reads what the stream has, sends the first event that is missing alone until
// it is stored, and then the rest.
func (w *writer) repair(ctx context.Context) error {
	w.awaitAnswers(ctx)
	w.mu.Lock()
	cause := w.cause
	w.mu.Unlock()
	w.cfg.log.Debug().Str("stream", w.cfg.stream).AnErr("cause", cause).Msg("reading the stream to go on after what it has")
	backoff := retry.NewBackoff(50*time.Millisecond, 5*time.Second)
	for {
		if err := w.resync(ctx); err != nil {
			return err
		}
		err := w.probe(ctx)
		if err == nil {
			break
		}
		if isDone(ctx) {
			return context.Cause(ctx)
		}
		if classify(err) == Configuration {
			return err
		}
		if !errors.Is(err, errWrongLastSequence) {
			w.hold(err)
		}
		if err := backoff.Wait(ctx); err != nil {
			return err
		}
	}
	w.hold(nil)
	w.resume()
	return nil
}

// awaitAnswers waits until the last message sent is answered, or the answer
// is unlikely to come.
func (w *writer) awaitAnswers(ctx context.Context) {
	w.mu.Lock()
	hopeless := errors.Is(w.cause, nats.ErrDisconnected) || errors.Is(w.cause, nats.ErrTimeout)
	w.mu.Unlock()
	timer := time.NewTimer(min(time.Second, w.cfg.ackTimeout))
	defer timer.Stop()
	for !hopeless && w.ledger.nc.IsConnected() && w.unanswered() {
		select {
		case <-w.drained:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (w *writer) unanswered() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard < w.sent
}

// resync voids every answer under way, reads what the stream has, and gives
// the outcome to the flights that it has. The others close ranks.
func (w *writer) resync(ctx context.Context) error {
	w.mu.Lock()
	w.epoch++
	known := w.reached.sequence
	w.mu.Unlock()
	r, err := w.readLedger(ctx, known)
	if err != nil {
		return err
	}
	if r.foreign > 0 && !w.cfg.shared {
		w.warnForeign(r.foreign)
	}
	if err := w.resolveRefused(ctx, r); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	end := w.base
	for n := w.base; n < w.next; n++ {
		f := &w.ring[n%uint64(len(w.ring))]
		if f.stored || !w.cfg.shared && !f.refused && w.covers(r, n) {
			w.done(f, n+w.offset)
			continue
		}
		f.stored, f.refused = false, false
		if n != end {
			w.ring[end%uint64(len(w.ring))] = *f
			*f = flight{}
		}
		end++
	}
	w.next = end
	w.sent, w.heard = w.base, w.base
	w.offset = r.last + 1 - w.base
	w.reached.sequence = r.last
	signal(w.space)
	return nil
}

// covers reports whether the stream's last message says that flight n is
// stored, unless it was refused.
func (w *writer) covers(r reading, n uint64) bool {
	f := &w.ring[n%uint64(len(w.ring))]
	switch {
	case r.own:
		return f.ev.Position.Compare(r.position) <= 0
	case r.foreign > 0:
		// Everything after what we know is of others.
		return false
	case time.Since(f.first) < r.window:
		// The last message is gone already. Sent again within the duplicate
		// window, this one is stored or called a duplicate: probe finds out,
		// and loses nothing even if somebody else wrote.
		return false
	}
	// Too late for that. Only we write into the stream, so a sequence that was
	// predicted says whose message it was.
	return n+w.offset <= r.last
}

// resolveRefused finds out about flights that were refused although later ones
// are stored: either a copy of their own, late from an earlier epoch, stands
// in their place, or a message of somebody else. In the latter case they are
// published now, after events that they should precede: out of order, but not
// lost.
func (w *writer) resolveRefused(ctx context.Context, r reading) error {
	w.mu.Lock()
	type suspect struct {
		f        *flight
		sequence uint64
	}
	var suspects []suspect
	for n := w.base; n < w.next && !w.cfg.shared; n++ {
		f := &w.ring[n%uint64(len(w.ring))]
		if f.refused && w.covers(r, n) {
			suspects = append(suspects, suspect{f, n + w.offset})
		}
	}
	w.mu.Unlock()
	// Nobody else changes the flights while the window is under repair.
	for _, s := range suspects {
		position, err := w.ledger.position(ctx, s.sequence)
		switch {
		case err == nil && position == s.f.ev.Position:
			s.f.stored = true
		case err == nil || errors.Is(err, errForeign) || errors.Is(err, nats.ErrMsgNotFound):
			w.cfg.log.Error().Str("stream", w.cfg.stream).Str("id", s.f.ev.ID).Uint64("sequence", s.sequence).
				Msg("a message of somebody else took the place of this event, which now follows out of order")
		default:
			return err
		}
	}
	return nil
}

func (w *writer) warnForeign(messages uint64) {
	w.cfg.log.Warn().Str("stream", w.cfg.stream).Uint64("messages", messages).
		Msg("somebody else writes into a stream that walrelay owns; declare it shared, or keep others out")
}

// probe sends the first flight and waits for its answer. Nil means that it is
// stored, or that there is none.
func (w *writer) probe(ctx context.Context) error {
	w.mu.Lock()
	if w.base == w.next {
		w.mu.Unlock()
		return nil
	}
	n := w.base
	f := &w.ring[n%uint64(len(w.ring))]
	_, err := w.encode(f, n)
	if err != nil {
		err = w.eventError(f, err)
		w.mu.Unlock()
		return err
	}
	f.sent = time.Now()
	if f.first.IsZero() {
		f.first = f.sent
	}
	msg := &nats.Msg{Subject: w.msg.Subject, Data: w.msg.Data, Header: nats.Header{}}
	for k, v := range w.msg.Header {
		msg.Header[k] = append([]string(nil), v...)
	}
	w.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, w.cfg.ackTimeout)
	defer cancel()
	answer, err := w.ledger.nc.RequestMsgWithContext(ctx, msg)
	if errors.Is(err, nats.ErrNoResponders) {
		err = w.explainNoResponders(ctx, msg.Subject)
	}
	if err != nil {
		return w.eventError(f, fmt.Errorf("publishing to stream %q: %w", w.cfg.stream, err))
	}
	got, err := w.acks.read(answer)
	if err != nil {
		return w.eventError(f, err)
	}
	if got.duplicate && !w.cfg.shared {
		return w.confirmDuplicate(ctx, n, got.sequence)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cfg.shared && got.sequence != n+w.offset {
		return errWrongLastSequence
	}
	w.settle(n + 1)
	return nil
}

func (w *writer) explainNoResponders(ctx context.Context, subject string) error {
	if w.ledger.nc.IsConnected() {
		if err := w.ledger.takes(ctx, subject); err != nil {
			return err
		}
	}
	return nats.ErrNoResponders
}

// confirmDuplicate handles an event that the server calls a duplicate although
// no message of the stream has its position: another row with the same id was
// published within the duplicate window. The event counts as published, as
// CloudEvents identifies events by source and id, once it is sure that the
// message named in the answer has that id or is gone.
func (w *writer) confirmDuplicate(ctx context.Context, n, sequence uint64) error {
	id, err := w.ledger.messageID(ctx, sequence)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	f := &w.ring[n%uint64(len(w.ring))]
	if id != "" && id != f.ev.ID {
		return fmt.Errorf("stream %q calls event %q a duplicate of message %d, which has id %q", w.cfg.stream, f.ev.ID, sequence, id)
	}
	w.cfg.log.Warn().Str("stream", w.cfg.stream).Str("id", f.ev.ID).Str("table", f.ev.Schema+"."+f.ev.Table).Uint64("sequence", sequence).
		Msg("an event with this id is in the stream already; this one is not stored again")
	last := w.reached.sequence
	w.settle(n + 1)
	w.reached.sequence = last
	w.offset = last + 1 - w.base
	return nil
}

// resume sends every flight again and lets the window flow.
func (w *writer) resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flows, w.cause = true, nil
	for n := w.base; n < w.next; n++ {
		if err := w.send(n); err != nil {
			w.fail(err)
			break
		}
	}
	signal(w.space)
}

// inFlight returns how many events have no outcome.
func (w *writer) inFlight() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int(w.next - w.base)
}

// progress returns how far the stream has come.
func (w *writer) progress() StreamState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return StreamState{Created: w.created, LastSequence: w.reached.sequence, Position: w.reached.position.String()}
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

// parseReply reads epoch and number from a reply subject.
func parseReply(subject, prefix string) (epoch, n uint64, ok bool) {
	rest, ok := strings.CutPrefix(subject, prefix)
	if !ok {
		return 0, 0, false
	}
	first, second, ok := strings.Cut(rest, ".")
	if !ok {
		return 0, 0, false
	}
	epoch, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	n, err = strconv.ParseUint(second, 10, 64)
	return epoch, n, err == nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
