package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/child"
)

const (
	// warmUp is how long events are written before they count.
	warmUp = time.Second
	// arrival is how long the last events may take.
	arrival = time.Minute
	// readyWithin is how long a relay may take until its first event is through.
	readyWithin = 30 * time.Second
	// keptFrom is the part of the rate that counts as all of it: the writers
	// end in the middle of a transaction.
	keptFrom = 0.99
)

// errMissing says that events have not come, though others may have.
var errMissing = errors.New("no event arrived")

// ready is the subject of the event that shows that the relay streams.
const ready = "ready"

// live measures how long events take that are written while a relay runs.
func (b *bench) live(ctx context.Context) (result *Live, err error) {
	p := b.opts.Parameters
	load := newWorkload(p)
	arrivals := &arrivals{change: make(chan struct{}, 1)}
	stop, err := b.consume(ctx, arrivals)
	if err != nil {
		return nil, err
	}
	defer stop()
	relay, err := b.startRelay()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, relay.Stop(relay.Terminate, relayStop)) }()

	b.opts.progress("waiting for walrelay to stream …")
	var first batch
	load.fill(&first, 0, 1)
	first.subjects[0] = ready
	if err := first.write(ctx, b.conn); err != nil {
		return nil, err
	}
	if err := arrivals.await(ctx, relay, readyWithin, func() bool { return arrivals.ready }); err != nil {
		return nil, err
	}
	if p.RatePerS > 0 {
		b.opts.progress("writing %d events a second for %v …", p.RatePerS, seconds(p.DurationS))
	} else {
		b.opts.progress("writing events as fast as %d writers can, for %v …", p.Writers, seconds(p.DurationS))
	}
	w := newLiveWriters(p, load, time.Now())
	var before usage
	counting := make(chan struct{})
	go func() { // waited for below
		defer close(counting)
		if sleep(ctx, time.Until(w.counted)) == nil {
			before = b.usage(relay)
		}
	}()
	err = b.writers(ctx, w.write)
	<-counting
	if err != nil {
		return nil, err
	}
	written := int(w.events.Load())
	err = arrivals.await(ctx, relay, arrival, func() bool { return arrivals.distinct >= written })
	if err != nil && !errors.Is(err, errMissing) { // those are counted
		return nil, err
	}
	used := b.usage(relay).since(before)
	stop()
	result = w.result()
	if !b.opts.private() {
		if result.NATSClockAheadUs, result.NATSClockErrorUs, err = b.clock(ctx); err != nil {
			return nil, err
		}
	}
	arrivals.fill(result, w.counted)
	result.Missing = written - arrivals.distinct // nobody adds to it any more
	result.RelayPeakMemoryBytes = child.PeakMemory(relay.PID())
	result.StealRatio = used.steal()
	result.RelayCPUPerEventUs = perEvent(used.relay, result.Events)
	result.PostgresCPUPerEventUs = perEvent(used.postgres, result.Events)
	result.NATSCPUPerEventUs = perEvent(used.nats, result.Events)
	return result, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// liveWriters write transactions on a schedule: each is due at a time that does
// not depend on how long the ones before took.
type liveWriters struct {
	load    *workload
	perTx   int
	every   time.Duration // between two transactions; zero for no schedule
	start   time.Time
	counted time.Time // from when on events count
	end     time.Time
	next    atomic.Int64 // the next transaction
	events  atomic.Int64 // how many were written

	mu      sync.Mutex // guards what the writers leave at their end
	commits []time.Duration
	late    time.Duration // the most that any was sent behind its time
}

func newLiveWriters(p Parameters, load *workload, now time.Time) *liveWriters {
	// By the wall clock, as the times that events carry are.
	w := &liveWriters{load: load, perTx: p.LivePerTx, start: now, counted: now.Add(warmUp).Round(0)}
	w.end = w.counted.Add(seconds(p.DurationS))
	if p.RatePerS > 0 {
		w.every = time.Duration(float64(time.Second) * float64(p.LivePerTx) / float64(p.RatePerS))
	}
	return w
}

// write is one of the writers. The subject of an event says when it was sent,
// and its number.
func (w *liveWriters) write(ctx context.Context, _ int, conn *pgx.Conn) error {
	var tx batch
	var commits []time.Duration
	var late time.Duration
	for {
		n := int(w.next.Add(1)) - 1
		first := n * w.perTx
		w.load.fill(&tx, first, w.perTx)
		due := w.start.Add(time.Duration(n) * w.every)
		if wait := time.Until(due); w.every > 0 && wait > 0 && due.Before(w.end) {
			if err := sleep(ctx, wait); err != nil {
				return err
			}
		}
		sent := time.Now()
		if !sent.Before(w.end) || w.every > 0 && !due.Before(w.end) {
			break
		}
		for i := range tx.subjects {
			tx.subjects[i] = subject(sent, first+i)
		}
		if err := tx.write(ctx, conn); err != nil {
			return err
		}
		w.events.Add(int64(w.perTx))
		if !sent.Before(w.counted) {
			commits = append(commits, time.Since(sent))
			late = max(late, sent.Sub(due))
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.commits = append(w.commits, commits...)
	w.late = max(w.late, late)
	return nil
}

// result is what the writers know.
func (w *liveWriters) result() *Live {
	r := &Live{Events: len(w.commits) * w.perTx, Commit: distribution(w.commits), KeptRate: true}
	r.AchievedPerS = float64(r.Events) / w.end.Sub(w.counted).Seconds()
	if w.every > 0 {
		r.WritersLateMaxUs = float64(w.late.Nanoseconds()) / 1000
		r.KeptRate = r.AchievedPerS >= keptFrom*float64(w.perTx)/w.every.Seconds()
	}
	return r
}

// subject carries when an event was sent, and its number.
func subject(sent time.Time, n int) string {
	return strconv.FormatInt(sent.UnixNano(), 10) + "-" + strconv.Itoa(n)
}

func parseSubject(text string) (sent time.Time, n int, ok bool) {
	left, right, ok := strings.Cut(text, "-")
	nanoseconds, err := strconv.ParseInt(left, 10, 64)
	if !ok || err != nil {
		return time.Time{}, 0, false
	}
	n, err = strconv.Atoi(right)
	return time.Unix(0, nanoseconds), n, err == nil && n >= 0
}

// arrivals is what the consumer has seen.
type arrivals struct {
	change chan struct{} // tells the one who waits; capacity 1, never closed

	mu       sync.Mutex // guards everything below
	ready    bool
	seen     []bool // by number
	distinct int
	doubled  int
	times    []arrivalTimes
}

type arrivalTimes struct{ sent, stored, arrived time.Time }

// consume starts an ordinary consumer of what the relay publishes from now on.
// The caller calls stop, more than once if it likes; it returns when no message
// is being handled any more.
func (b *bench) consume(ctx context.Context, a *arrivals) (stop func(), err error) {
	last, err := b.lastSequence(ctx)
	if err != nil {
		return nil, err
	}
	consumer, err := b.js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: last + 1,
	})
	if err != nil {
		return nil, fmt.Errorf("consuming stream %q: %w", stream, err)
	}
	consuming, err := consumer.Consume(func(msg jetstream.Msg) { a.take(msg, time.Now()) })
	if err != nil {
		return nil, fmt.Errorf("consuming stream %q: %w", stream, err)
	}
	return sync.OnceFunc(func() {
		consuming.Stop()
		<-consuming.Closed()
	}), nil
}

// clock compares the clock of the stream's server with this machine's, by the
// fastest of some requests: the server's time in the answer is of a moment
// between question and answer.
func (b *bench) clock(ctx context.Context) (aheadUs, errorUs float64, err error) {
	const requests = 20
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return 0, 0, fmt.Errorf("asking NATS for stream %q: %w", stream, err)
	}
	fastest := time.Duration(-1)
	for range requests {
		before := time.Now()
		info, err := s.Info(ctx)
		if err != nil {
			return 0, 0, fmt.Errorf("asking NATS for its time: %w", err)
		}
		if took := time.Since(before); fastest < 0 || took < fastest {
			fastest = took
			aheadUs = float64(info.TimeStamp.Sub(before.Add(took/2)).Nanoseconds()) / 1000
			errorUs = float64(took.Nanoseconds()) / 2000
		}
	}
	return aheadUs, errorUs, nil
}

func (a *arrivals) take(msg jetstream.Msg, arrived time.Time) {
	meta, err := msg.Metadata()
	if err != nil {
		return // not of a stream
	}
	text := msg.Headers().Get("ce-subject")
	sent, n, ok := parseSubject(text)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case text == ready:
		a.ready = true
	case !ok: // of a backlog
		return
	default:
		for n >= len(a.seen) {
			a.seen = append(a.seen, make([]bool, 64<<10)...)
		}
		if a.seen[n] {
			a.doubled++
			return
		}
		a.seen[n] = true
		a.distinct++
		a.times = append(a.times, arrivalTimes{sent, meta.Timestamp, arrived})
	}
	select {
	case a.change <- struct{}{}:
	default:
	}
}

// await waits until enough is true, which is asked under the lock, for as long
// as something arrives within the patience.
func (a *arrivals) await(ctx context.Context, relay *child.Process, patience time.Duration, enough func() bool) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		a.mu.Lock()
		done, distinct := enough(), a.distinct
		a.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-a.change:
			timer.Reset(patience)
		case <-timer.C:
			return fmt.Errorf("%w for %v, after %d; the relay said: %s", errMissing, patience, distinct, relay.Words())
		case <-relay.Done():
			return relay.Ended()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// fill adds what the consumer has seen of the events that count.
func (a *arrivals) fill(result *Live, counted time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var stored, arrived []time.Duration
	for _, t := range a.times {
		if !t.sent.Before(counted) {
			stored = append(stored, t.stored.Sub(t.sent))
			arrived = append(arrived, t.arrived.Sub(t.sent))
		}
	}
	result.Duplicated = a.doubled
	result.CommitToStream, result.CommitToConsumer = distribution(stored), distribution(arrived)
}
