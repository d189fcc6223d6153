package inbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// item is a message that was received.
type item struct {
	msg      jetstream.Msg
	header   nats.Header
	stream   string
	sequence uint64
	received time.Time
	touched  time.Time // when the server last heard of it; the lane's mutex is held
	key      string
	bucket   int
}

// generation is the time from a reset of the consumer to the next. Its deliveries are
// consecutive, and under one pin: what comes otherwise ends it, and comes again in order.
type generation struct {
	c      *consumer
	pin    string
	epoch  int64
	active bool
	lanes  []*lane

	over  atomic.Bool
	ended chan end // the first counts

	last     uint64       // consumer sequence; the callback's
	lastSeen atomic.Int64 // when something came, in nanoseconds
	// confirmed is when the pin was last seen to be ours, in nanoseconds.
	confirmed atomic.Int64

	mu      sync.Mutex
	blocked map[string]struct{} // hashes of keys that may be blocked
	info    *jetstream.ConsumerInfo
}

func newGeneration(c *consumer, pin string) *generation {
	g := &generation{c: c, pin: pin, active: pin != "" || !c.pinned, ended: make(chan end, 1), blocked: make(map[string]struct{})}
	g.lastSeen.Store(time.Now().UnixNano())
	g.confirmed.Store(time.Now().UnixNano())
	for range c.h.lanes {
		g.lanes = append(g.lanes, newLane(g))
	}
	return g
}

func (g *generation) block(hash []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.blocked[string(hash)] = struct{}{}
}

func (g *generation) unblock(hash []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.blocked, string(hash))
}

func (g *generation) isBlocked(hash []byte) bool {
	if len(hash) == 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	_, is := g.blocked[string(hash)]
	return is
}

// end ends the generation; the first reason counts.
func (g *generation) end(e end) {
	g.over.Store(true)
	select {
	case g.ended <- e:
	default:
	}
}

// receive takes a message from the client's goroutine. It does not block.
func (g *generation) receive(msg jetstream.Msg) {
	if g.over.Load() {
		return
	}
	header := msg.Headers()
	if g.c.pinned {
		if pin := first(header, "Nats-Pin-Id"); pin != g.pin {
			g.end(end{pin: pin})
			return
		}
	}
	meta, err := msg.Metadata()
	if err != nil || meta.Sequence.Consumer != g.last+1 {
		g.end(end{pin: g.pin})
		return
	}
	g.last++
	now := time.Now()
	g.lastSeen.Store(now.UnixNano())
	it := &item{msg: msg, header: header, stream: meta.Stream, sequence: meta.Sequence.Stream, received: now, touched: now}
	var id string
	it.key, id = keyOf(header, msg.Data())
	it.bucket = (g.c.partition+1)*buckets + bucketOf(it.key, id)
	g.lanes[it.bucket%len(g.lanes)].put(it)
}

// keyOf returns a message's key, and else what tells it from others.
func keyOf(header nats.Header, data []byte) (key, id string) {
	if id = first(header, "ce-id"); id != "" {
		return textOf(first(header, "ce-partitionkey")), id
	}
	ev, err := DecodeParts(header, data) // structured, or written by others
	if err != nil {
		return "", ""
	}
	return ev.Key, ev.ID
}

func textOf(value string) string {
	if text, err := unescape(value); err == nil {
		return text
	}
	return value
}

// consume receives messages until the generation or the context ends.
func (g *generation) consume(ctx context.Context, cons jetstream.Consumer) end {
	// Calls go on for a while after the context has ended.
	working, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	failures := make(chan error, 16)
	options := []jetstream.PullConsumeOpt{
		jetstream.PullMaxMessages(g.c.pull), jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			select {
			case failures <- err:
			default: // it is one of many
			}
		}),
	}
	if g.c.pinned {
		options = append(options, jetstream.PullPriorityGroup(group))
	}
	cc, err := cons.Consume(g.receive, options...)
	if err != nil {
		return end{err: fmt.Errorf("consuming: %w", err)}
	}
	var lanes sync.WaitGroup
	if g.active {
		for _, l := range g.lanes {
			lanes.Go(func() { l.run(working) })
		}
	}
	e := g.supervise(ctx, cons, cc, failures)
	cc.Stop()
	g.over.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		lanes.Wait()
	}()
	<-cc.Closed()
	for _, l := range g.lanes {
		l.stop()
	}
	if e.lost {
		cancel(errLost)
	}
	if !g.await(done, g.c.cfg.Grace) {
		cancel(errEnded)
		for !g.await(done, g.c.cfg.Grace) {
			hung := &hungError{g.c.h.name, strings.Join(g.running(0), ", ")}
			if ctx.Err() != nil {
				return end{err: hung}
			}
			g.c.cfg.Log.Error("handler does not return; nothing else of it is handled meanwhile", "error", hung)
		}
	}
	flush(ctx, g.c.cfg.NATS)
	return e
}

var (
	errLost  = errors.New("another process handles the event")
	errEnded = errors.New("the handlers are to end")
)

func (g *generation) await(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// supervise looks after the consumer until the generation or the context ends.
func (g *generation) supervise(ctx context.Context, cons jetstream.Consumer, cc jetstream.ConsumeContext, failures <-chan error) end {
	interval := attendInterval
	if !g.active {
		interval = standInterval
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return end{pin: g.pin}
		case e := <-g.ended:
			return e
		case <-cc.Closed():
			return end{err: errors.New("the consumer or its stream was deleted, or the connection was closed")}
		case err := <-failures:
			if errors.Is(err, jetstream.ErrPinIDMismatch) && g.pin != "" {
				return end{lost: true}
			}
			if errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, jetstream.ErrConsumerNotFound) {
				return end{err: err}
			}
		case <-ticker.C:
		}
		if e, over := g.look(ctx, cons); over {
			return e
		}
	}
}

// look asks the server for the consumer's state.
func (g *generation) look(ctx context.Context, cons jetstream.Consumer) (end, bool) {
	for _, l := range g.lanes {
		l.touch()
	}
	asking, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	info, err := cons.Info(asking)
	status := g.status()
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound):
		return end{err: fmt.Errorf("the consumer is gone: %w", err)}, true
	case err != nil:
		status.Trouble = "unreachable"
		g.c.observe(status)
		return end{}, false
	case !info.Created.Equal(g.c.created) && g.c.pinned:
		return end{err: errors.New("the consumer was made anew")}, true
	}
	g.mu.Lock()
	before := g.info
	g.info = info
	g.mu.Unlock()
	if g.pin != "" {
		if pinned := pinnedClient(info); pinned != g.pin {
			return end{lost: true}, true
		}
		g.confirmed.Store(time.Now().UnixNano())
	}
	if m := g.c.members; m != nil && (g.active && m.giveBack(g.c.partition) || !g.active && !m.mayStand(g.c.partition)) {
		return end{back: true}, true
	}
	status.Lag, status.Pending = info.NumPending+uint64(info.NumAckPending), uint64(info.NumAckPending)
	if !g.active && pinnedClient(info) == "" && info.NumAckPending > 0 {
		// What another process has got and left comes to one of those that stand by.
		if err := g.c.reset(ctx); err != nil {
			g.c.warn("events that another process has left are not taken over; it is tried again", "error", err)
		}
	}
	quiet := time.Since(time.Unix(0, g.lastSeen.Load())) > silence
	if g.active && quiet && info.NumPending > 0 {
		if info.NumWaiting == 0 && info.NumAckPending < g.c.pending {
			return end{pin: g.pin}, true // the pull request was lost
		}
		if before != nil && before.AckFloor.Consumer == info.AckFloor.Consumer && info.NumAckPending >= g.c.pending {
			status.Trouble = "stuck"
		}
	}
	if len(status.Running) > 0 {
		g.c.warn("handler works on events for longer than its timeout", "events", status.Running)
	}
	g.c.observe(status)
	if g.active || pinnedClient(info) == "" {
		g.c.note(ctx, status.Lag)
	}
	return end{}, false
}

func pinnedClient(info *jetstream.ConsumerInfo) string {
	for _, of := range info.PriorityGroups {
		if of.Group == group {
			return of.PinnedClientID
		}
	}
	return ""
}

// stillOurs reports whether the pin is; it asks the server if that was seen too long ago. For
// handlers whose effects nothing else guards.
func (g *generation) stillOurs(ctx context.Context) bool {
	const fresh = attendInterval + apiTimeout
	if g.over.Load() {
		return false
	}
	if g.pin == "" || time.Since(time.Unix(0, g.confirmed.Load())) < fresh {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	cons, err := g.c.cfg.js.Consumer(ctx, g.c.stream, g.c.durable)
	if err != nil {
		return false
	}
	if pinnedClient(cons.CachedInfo()) != g.pin {
		g.end(end{lost: true})
		return false
	}
	g.confirmed.Store(time.Now().UnixNano())
	return true
}

func (g *generation) status() Status {
	s := g.c.status()
	s.Active, s.Running = g.active, g.running(g.c.h.timeout)
	return s
}

// status returns that of a process that stands by.
func (c *consumer) status() Status {
	s := Status{
		Handler: c.h.name, Partition: c.partition, Stream: c.stream, Handled: c.handled.Load(), Repeated: c.repeated.Load(),
		Parked: c.parked.Load(), Failures: c.failures.Load(), Removed: c.removed.Load(),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.LastError = c.lastError
	return s
}

// running returns the events whose calls take longer than a time.
func (g *generation) running(longer time.Duration) []string {
	var all []string
	for _, l := range g.lanes {
		if what := l.slow(longer); what != "" {
			all = append(all, what)
		}
	}
	return all
}

func (c *consumer) observe(s Status) {
	if c.cfg.Observe != nil {
		c.cfg.Observe(s)
	}
}
