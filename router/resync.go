package router

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/retry"
)

// run repairs the window whenever it is broken, until the context ends or
// somebody has to change something.
func (w *writer) run(ctx context.Context) error {
	ticker, idle := time.NewTicker(w.cfg.ackTimeout/4), time.NewTicker(lookInterval)
	defer ticker.Stop()
	defer idle.Stop()
	probed := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			w.expire()
		case <-idle.C:
			probed = w.probeIdle(probed)
		case <-w.broken:
			if err := w.resync(ctx); err != nil {
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
	if w.base < w.next && w.flows && time.Since(w.at(w.base).sent) > w.cfg.ackTimeout {
		w.fail(fmt.Errorf("stream %q: %w", w.cfg.stream, nats.ErrTimeout))
	}
}

// lookInterval is how often a stream to which nothing is published is read.
const lookInterval = 10 * time.Second

var errIdle = errors.New("nothing was published for a while")

// probeIdle asks for a resync of a window that is empty and has been so since the
// last look, which returned the number of the next flight then. There is nothing
// to resync, but it reads the stream: whoever waits for the next event to find
// out that the stream is gone would find out when it hurts.
func (w *writer) probeIdle(last uint64) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cfg.shared && w.base == w.next && w.next == last {
		w.fail(errIdle)
	}
	return w.next
}

// resync brings the window back in order: it waits for the answers under way,
// reads what the stream has, sends the first event that is missing alone until
// it is stored, and then the rest.
func (w *writer) resync(ctx context.Context) error {
	w.awaitAnswers(ctx)
	w.mu.Lock()
	cause := w.cause
	w.mu.Unlock()
	w.cfg.log.Debug().Str("stream", w.cfg.stream).AnErr("cause", cause).Msg("reading the stream to go on after what it has")
	backoff := retry.NewBackoff(50*time.Millisecond, 5*time.Second)
	doubted, read := false, true
	for {
		if read {
			if err := w.reconcile(ctx); err != nil {
				return err
			}
		}
		read = true
		err := w.probe(ctx)
		if err == nil {
			break
		}
		if isDone(ctx) {
			return context.Cause(ctx)
		}
		if isAPIError(err, codeBatchDuplicate) && !doubted {
			// It may have been sent before, and stored since the stream was read.
			doubted = true
			continue
		}
		doubted = false
		class := classify(err)
		if w.deniedToAll(ctx, err) {
			class = Outage
		}
		switch class {
		case Configuration:
			return w.asProblem(err)
		case Poison:
			// Nothing was sent since the stream was read, if the refusal is known.
			_, known := errors.AsType[*knownRefusal](err)
			read = !known
			if err := w.evict(ctx, err); err != nil {
				return err
			}
			backoff.Reset()
			continue
		case Outage:
		}
		if !errors.Is(err, errWrongLastSequence) {
			w.pause(err)
		}
		if err := backoff.Wait(ctx); err != nil {
			return err
		}
	}
	w.pause(nil)
	w.resume()
	return nil
}

// asProblem says that somebody has to change something, if err does not.
func (w *writer) asProblem(err error) error {
	if _, ok := problem.Find(err); ok {
		return err
	}
	return &problem.Problem{
		ID:   "stream_refuses",
		What: fmt.Sprintf("stream %q does not take what is published to it: %v", w.cfg.stream, err),
		Fix:  "change the stream, or the route",
	}
}

// evict gives the first flight, which cannot be published, to the delay, and
// with it the later ones of its key. A batch goes as a whole, or is split. One
// with an id that the stream remembers is split in any case: it may be all
// stored, with its acknowledgement lost, and sent alone its events find out.
func (w *writer) evict(ctx context.Context, reason error) error {
	w.mu.Lock()
	first := w.base
	refused := w.batchEnd(first)
	if refused > first+1 && (w.cfg.splitRefused || isAPIError(reason, codeBatchDuplicate)) {
		w.splitBatch(first, refused)
		w.mu.Unlock()
		return nil
	}
	var failed, behind []Flight
	keys := make(map[string]bool)
	w.retain(func(n uint64, f *flight) bool {
		key := f.ev.PartitionKey
		switch {
		case n < refused:
			w.late.park(f)
			w.settleLate(f.ev)
			failed = append(failed, f.taken())
			keys[key] = key != ""
		case keys[key]:
			w.late.park(f)
			w.settleLate(f.ev)
			behind = append(behind, f.taken())
		default:
			return true
		}
		w.bytes -= f.size
		*f = flight{}
		return false
	})
	w.mu.Unlock()
	return w.cfg.parker.Park(ctx, failed, reason, behind)
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

// reconcile voids every answer under way, reads what the stream has, and gives
// the outcome to the flights that it has. The others close ranks.
func (w *writer) reconcile(ctx context.Context) error {
	w.mu.Lock()
	before, refused := w.reached, w.refused
	known := before.sequence
	w.begin()
	w.mu.Unlock()
	r, err := w.readLedger(ctx, known, true)
	if err != nil {
		return err
	}
	if w.cfg.shared {
		r.foreign = 0
	}
	if refused {
		inPlace, err := w.confirm(ctx, r)
		if err != nil {
			return err
		}
		r.foreign += inPlace
	}
	if foreign := max(r.foreign, r.tail.foreign); foreign > 0 {
		w.warnForeign(foreign)
	}
	if err := w.findLate(ctx, known, r); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.retain(func(n uint64, f *flight) bool {
		if f.stored || !refused && w.covers(r, n) {
			w.done(f, n+w.offset)
			return false
		}
		f.stored = false
		if !refused && r.own && f.ev.Position.Compare(r.position) < 0 {
			w.reportLate(f.ev)
		}
		return true
	})
	w.offset = r.last + 1 - w.base
	w.reached.sequence = r.last
	if r.own && !w.cfg.shared && w.reached.position.Compare(r.position) < 0 {
		// A relay that lost its slot to us was ahead of us: what it stored
		// beyond our window is still to be read.
		w.skipThrough(r.position, w.reached.position, &r.tail)
		w.reached.position = r.position
	}
	w.countLate(before)
	signal(w.space)
	return nil
}

// covers reports whether the stream's last message says that flight n is
// stored, if nothing was refused.
func (w *writer) covers(r reading, n uint64) bool {
	f := w.at(n)
	switch {
	case w.cfg.shared:
		return false
	case r.own:
		if _, ok := r.tail.present[f.ev.Position]; ok {
			return true
		}
		return f.ev.Position.Compare(r.position) <= 0 && r.tail.complete() && !w.isLate(f.ev)
	case r.foreign > 0:
		// Everything after what we know is of others.
		return false
	case w.isRemembered(f, r):
		// The last message is gone already. Sent again, this one is stored or
		// called a duplicate: probe finds out, and loses nothing even if
		// somebody else wrote.
		return false
	}
	// Too late for that. Only we write into the stream, so a sequence that was
	// predicted says whose message it was.
	return n+w.offset <= r.last
}

// isRemembered reports whether the stream surely remembers the flight's id, if it
// has it, also when the message that asks for it takes long to get there: no
// longer than half of the duplicate window.
func (w *writer) isRemembered(f *flight, r reading) bool {
	return !w.cfg.omitMessageID && time.Since(f.first)+w.cfg.ackTimeout < r.window/2
}

// confirm finds out, after a refusal, about flights that were not acknowledged
// although later ones are stored: either they are stored too, and the answer
// was lost, or a message of somebody else stands in their place. In the latter
// case they are published now, after events that they should precede: out of
// order, but not lost. It returns the number of such messages.
func (w *writer) confirm(ctx context.Context, r reading) (foreign uint64, err error) {
	w.mu.Lock()
	type suspect struct {
		f        *flight
		sequence uint64
	}
	var suspects []suspect
	for n := w.base; n < w.next; n++ {
		f := w.at(n)
		if !f.stored && w.covers(r, n) {
			suspects = append(suspects, suspect{f, n + w.offset})
		}
	}
	w.mu.Unlock()
	// Nobody else changes the flights during a resync.
	for _, s := range suspects {
		position, err := w.ledger.position(ctx, s.sequence)
		switch {
		case err == nil && position == s.f.ev.Position:
			s.f.stored = true
		case errors.Is(err, errGone):
			// Removed already, whoever's it was. If it is not too long ago, it
			// is sent again, and stored or called a duplicate. Otherwise the
			// sequence says that it was ours.
			s.f.stored = !w.isRemembered(s.f, r)
		case err == nil || errors.Is(err, errForeign):
			foreign++
			w.reportLate(s.f.ev)
		default:
			return foreign, err
		}
	}
	return foreign, nil
}

// skipThrough says that the stream has the events up to a position; after from, those of the tail.
func (w *writer) skipThrough(through, from event.Position, t *tail) {
	w.skip.through, w.skip.from, w.skip.present = through, from, nil
	if !t.complete() {
		w.skip.present = t.present
	}
}

// countLate counts the flights that come late, and keeps what was reached before them.
func (w *writer) countLate(before reached) {
	w.lates = 0
	for n := w.base; n < w.next; n++ {
		if w.isLate(w.at(n).ev) {
			w.lates++
		}
	}
	switch {
	case w.lates == 0 && w.skip.present == nil:
		w.before = nil
	case w.before == nil:
		w.before = &before
	}
}

func (w *writer) reportLate(ev *event.Event) {
	w.cfg.log.Error().Str("stream", w.cfg.stream).Str("id", ev.ID).Str("lsn", ev.Position.LSN()).
		Msg("a message of somebody else took the place of this event, which now follows out of order")
}

func (w *writer) warnForeign(messages uint64) {
	w.cfg.log.Warn().Str("stream", w.cfg.stream).Uint64("messages", messages).
		Msg("somebody else writes into a stream that walrelay owns; declare it shared, or keep others out")
}

// probe sends the first flight, or the first batch, and waits for the answer. Nil
// means that it is stored, or that there is none.
func (w *writer) probe(ctx context.Context) error {
	w.mu.Lock()
	n, end := w.base, w.base
	if n < w.next {
		end = w.batchEnd(n)
	}
	w.mu.Unlock()
	if n == end {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, w.cfg.ackTimeout)
	defer cancel()
	answered, got, err := w.ask(ctx, n, end)
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if end == n+1 {
			w.refusals.learn(&w.msg, err)
		}
		return w.eventError(w.at(answered), err)
	}
	if got.duplicate && !w.cfg.shared {
		return w.confirmDuplicate(ctx, n, got.sequence)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cfg.shared && got.sequence != end-1+w.offset {
		return errWrongLastSequence
	}
	w.settle(end)
	return nil
}

// ask sends the flights of a batch, or the one that is none, and returns the
// acknowledgement of the last; or the first that is answered by an error. Each
// has a reply subject here: what the server has against one of a batch, it says
// in its answer to that one.
func (w *writer) ask(ctx context.Context, first, end uint64) (uint64, ack, error) {
	inbox := w.ledger.nc.NewInbox() + "."
	answers := make(chan *nats.Msg, end-first+1) // never closed
	sub, err := w.ledger.nc.ChanSubscribe(inbox+"*", answers)
	if err != nil {
		return first, ack{}, fmt.Errorf("subscribing to the answers of stream %q: %w", w.cfg.stream, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only with the connection
	w.forgetDenials()
	n, err := w.sendAsking(first, end, inbox)
	if err != nil {
		return n, ack{}, fmt.Errorf("publishing to stream %q: %w", w.cfg.stream, err)
	}
	for {
		var answer *nats.Msg
		select {
		case answer = <-answers:
		case subject := <-w.denials:
			w.mu.Lock()
			n, ok := w.denies(subject, first, end)
			w.mu.Unlock()
			if ok {
				return n, ack{}, fmt.Errorf("publishing to stream %q: %w", w.cfg.stream, &deniedError{subject})
			}
			continue
		case <-ctx.Done():
			return end - 1, ack{}, fmt.Errorf("publishing to stream %q: %w", w.cfg.stream, context.Cause(ctx))
		}
		if n, err = strconv.ParseUint(strings.TrimPrefix(answer.Subject, inbox), 10, 64); err != nil || n < first || n >= end {
			continue
		}
		if n < end-1 && len(answer.Data) == 0 && len(answer.Header) == 0 {
			continue // the server has it, and waits for the end of the batch
		}
		got, err := w.acks.read(answer)
		if errors.Is(err, nats.ErrNoResponders) {
			err = fmt.Errorf("publishing to stream %q: %w", w.cfg.stream, w.explainNoResponders(ctx, n))
		}
		return n, got, err
	}
}

// forgetDenials forgets what was refused before.
func (w *writer) forgetDenials() {
	for {
		select {
		case <-w.denials:
		default:
			return
		}
	}
}

// sendAsking sends flights whose answers go to inbox, with their numbers. With
// an error it returns the flight that is its reason.
func (w *writer) sendAsking(first, end uint64, inbox string) (n uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := w.place(first, end)
	for n = first; n < end; n, in = n+1, in.next() {
		f := w.at(n)
		if err := w.encode(f, n, in); err != nil {
			return n, err
		}
		f.stamp()
		w.msg.Reply = inbox + strconv.FormatUint(n, 10)
		if err := w.ledger.nc.PublishMsg(&w.msg); err != nil {
			return n, err
		}
	}
	return n, nil
}

// explainNoResponders says why nobody answered to flight n.
func (w *writer) explainNoResponders(ctx context.Context, n uint64) error {
	f := w.at(n)
	subject, err := f.target.Subject.Append(nil, f.ev)
	if err != nil {
		return err
	}
	if w.ledger.nc.IsConnected() {
		if err := w.ledger.takes(ctx, string(subject)); err != nil {
			return err
		}
	}
	return nats.ErrNoResponders
}

// confirmDuplicate handles an event that the server calls a duplicate although
// no message of the stream has its position: another row with the same id was
// published within the duplicate window. The event counts as published, as
// CloudEvents identifies events by source and id, once it is sure that the
// message named in the answer has that id or is gone. A message with the event's own
// position is the event itself: the state of the stream that was read before was not
// the present one (a leader that was frozen), and is read again.
func (w *writer) confirmDuplicate(ctx context.Context, n, sequence uint64) error {
	id, err := w.ledger.messageID(ctx, sequence)
	if err != nil {
		return err
	}
	// Whatever else stands there is not this event's position.
	position, positionErr := w.ledger.position(ctx, sequence)
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.at(n)
	if positionErr == nil && position == f.ev.Position {
		return errWrongLastSequence
	}
	if id != "" && id != string(appendMessageID(nil, f.ev)) {
		return fmt.Errorf("stream %q calls event %q a duplicate of message %d, which has id %q", w.cfg.stream, f.ev.ID, sequence, id)
	}
	w.cfg.log.Warn().Str("stream", w.cfg.stream).Str("id", f.ev.ID).Str("source", f.ev.Source).Str("table", f.ev.Schema+"."+f.ev.Table).Str("lsn", f.ev.Position.LSN()).Uint64("sequence", sequence).
		Msg("duplicate: the stream has an event with this source and id; this one is not stored")
	last := w.reached.sequence
	f.elsewhere = true
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
	w.countOpen()
	for n := w.base; n < w.next; {
		end := w.batchEnd(n)
		if err := w.sendBatch(n, end); err != nil {
			w.fail(err)
			break
		}
		n = end
	}
	signal(w.space)
}
