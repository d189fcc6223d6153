package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/sql"
)

const (
	// group is the priority group in which one client of a consumer is pinned.
	group = "walrelay"
	// A pin is renewed by pull requests only: its time must be more than twice theirs.
	pinnedTTL     = 5 * time.Second
	pullExpiry    = 2 * time.Second
	pullHeartbeat = time.Second
	ackWait       = time.Minute
	// maxPull messages are asked for at a time, and maxAckPending may be unacknowledged; partitions share
	// them, and have no less than minPull and twice that.
	maxPull       = 2000
	maxAckPending = 5000
	minPull       = 100
	// attendInterval is how often the consumer is looked at, standInterval by those that
	// stand by, silence how long nothing may
	// come although something waits.
	attendInterval = 2 * time.Second
	standInterval  = time.Second
	silence        = 4 * time.Second
	apiTimeout     = 2 * time.Second
	// endTimeout bounds what is done at the end, and noteInterval is how often the handler's
	// row is brought up to date.
	endTimeout   = 5 * time.Second
	noteInterval = 10 * time.Second
	// Waits after something failed.
	firstWait, lastWait = 200 * time.Millisecond, 5 * time.Second
)

// consumer runs one handler by a durable consumer.
type consumer struct {
	cfg *Config
	h   *handler
	db  database // nil for none
	// stream and subjects are what it consumes, by the consumer called durable: of one partition, if members is
	// not nil.
	stream    string
	subjects  []string
	durable   string
	partition int
	members   *members
	// pull and pending are how many messages are asked for, and how many may be
	// unacknowledged.
	pull, pending int
	// pinned says that the server keeps others away while this process is the active one, and can start a
	// consumer over: from 2.14 on. Without the latter a takeover would delete the consumer, and with it the
	// pin that it is to follow.
	pinned bool

	// The rest belongs to run.
	created  time.Time
	noted    time.Time // when the handler's row was written
	counted  uint64    // up to where removed events were counted
	recorded uint64    // of removed, in the handler's row

	handled, repeated, parked, failures, removed atomic.Uint64

	mu        sync.Mutex
	lastError string
	newError  bool // it is not in the handler's row
	warned    map[string]bool
	repeats   map[string]*repeat
}

// newConsumers returns those of a handler: one, or one for each partition.
func newConsumers(cfg *Config, h *handler) ([]*consumer, error) {
	template := cmp.Or(h.subject, cfg.Subject)
	n, placeholder, err := partitionsOf(template)
	if err != nil {
		return nil, fmt.Errorf("handler %q: template of subjects %q: %w", h.name, template, err)
	}
	if n == 0 {
		c, err := newConsumer(cfg, h, template, unpartitioned)
		return []*consumer{c}, err
	}
	var all []*consumer
	for partition := range n {
		c, err := newConsumer(cfg, h, strings.Replace(template, placeholder, strconv.Itoa(partition), 1), partition)
		if err != nil {
			return nil, err
		}
		c.pull, c.pending = max(maxPull/n, minPull), max(maxAckPending/n, 2*minPull)
		all = append(all, c)
	}
	spread := newMembers(all[0], n)
	for _, c := range all {
		c.members = spread
	}
	return all, nil
}

func newConsumer(cfg *Config, h *handler, template string, partition int) (*consumer, error) {
	subjects, err := filters(template, h.match)
	if err != nil {
		return nil, fmt.Errorf("handler %q: %w", h.name, err)
	}
	return &consumer{
		cfg: cfg, h: h, db: cfg.database(h.mode), stream: cmp.Or(h.stream, cfg.Stream), subjects: subjects,
		durable: durable(h.name, partition), partition: partition, pull: maxPull, pending: maxAckPending,
		warned: make(map[string]bool), repeats: make(map[string]*repeat),
	}, nil
}

// runHandler runs the consumers of a handler until the context ends.
func runHandler(ctx context.Context, consumers []*consumer) error {
	c := consumers[0]
	group, ctx := errgroup.WithContext(ctx)
	if c.db != nil {
		group.Go(func() error {
			(&drain{c}).run(ctx)
			return nil
		})
	}
	if c.members != nil {
		group.Go(func() error {
			c.members.run(ctx)
			return nil
		})
	}
	for _, c := range consumers {
		group.Go(func() error { return c.run(ctx) })
	}
	return group.Wait()
}

// run attends to the consumer until the context ends.
func (c *consumer) run(ctx context.Context) error {
	delay := firstWait
	for ctx.Err() == nil {
		started := time.Now()
		err := c.attend(ctx)
		if hung, ok := errors.AsType[*hungError](err); ok {
			return hung
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // what failed is what the end of the context interrupted
		}
		if err == nil {
			return nil
		}
		c.cfg.Log.Warn("handler does not run; it is tried again", "handler", c.h.name, "consumer", c.durable, "stream", c.stream, "error", err)
		if time.Since(started) > lastWait {
			delay = firstWait
		}
		_ = wait.For(ctx, delay) // the loop asks the context
		delay = min(2*delay, lastWait)
	}
	return nil
}

// end says why a generation ended.
type end struct {
	// pin is that of the next one; "" to stand by.
	pin string
	// lost says that another process may have the pin, back that others are to have it.
	lost, back bool
	err        error
}

// attend makes the consumer if it is missing, and consumes in one generation after the
// other, until the context ends or something fails.
func (c *consumer) attend(ctx context.Context) error {
	cons, err := c.ensure(ctx)
	if err != nil {
		return err
	}
	pin := ""
	defer func() { c.unpin(ctx, pin) }()
	for ctx.Err() == nil {
		if pin == "" && c.members != nil && !c.members.mayStand(c.partition) {
			c.observe(c.status())
			_ = wait.For(ctx, shareInterval) // the loop asks the context
			continue
		}
		g := newGeneration(c, pin)
		e, err := c.generation(ctx, g, cons)
		if err != nil {
			return err
		}
		if e.back {
			c.unpin(ctx, pin)
			e.pin = ""
		}
		if ctx.Err() == nil || e.pin != "" {
			pin = e.pin
		}
	}
	return nil
}

// generation begins and consumes one.
func (c *consumer) generation(ctx context.Context, g *generation, cons jetstream.Consumer) (end, error) {
	if g.active {
		if c.members != nil {
			c.members.activate(c.partition)
			defer c.members.deactivate(c.partition)
		}
		if err := c.begin(ctx, g); err != nil {
			return end{}, err
		}
	}
	e := g.consume(ctx, cons)
	return e, e.err
}

// ensure returns the consumer, made or brought up to date.
func (c *consumer) ensure(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	c.pinned = c.serverHas(2, 14)
	if !c.pinned {
		c.warnOnce("this server cannot hand a handler's events from one process to another (2.14 can); run one process only", "")
	}
	stream, err := c.cfg.js.Stream(ctx, c.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("stream %q does not exist; the relay makes it (walrelay init)", c.stream)
	}
	if err != nil {
		return nil, fmt.Errorf("asking for stream %q: %w", c.stream, err)
	}
	want := jetstream.ConsumerConfig{
		Durable: c.durable, Description: "walrelay handler", AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1,
		MaxAckPending: c.pending, FilterSubjects: c.subjects,
	}
	if c.h.fromNow {
		want.DeliverPolicy = jetstream.DeliverNewPolicy
	}
	if c.pinned {
		want.PriorityPolicy, want.PriorityGroups, want.PinnedTTL = jetstream.PriorityPolicyPinned, []string{group}, pinnedTTL
	}
	cons, err := stream.Consumer(ctx, c.durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		if cons, err = stream.CreateConsumer(ctx, want); err == nil {
			c.cfg.Log.Info("consumer made", "handler", c.h.name, "consumer", c.durable, "stream", c.stream, "subjects", strings.Join(c.subjects, " "))
		}
	} else if err == nil {
		have := cons.CachedInfo().Config
		want.DeliverPolicy, want.OptStartSeq, want.OptStartTime = have.DeliverPolicy, have.OptStartSeq, have.OptStartTime // these cannot change
		want.Metadata, want.Replicas = have.Metadata, have.Replicas
		if c.differs(have, want) {
			if cons, err = stream.UpdateConsumer(ctx, want); err == nil {
				c.cfg.Log.Info("consumer changed", "handler", c.h.name, "consumer", c.durable, "stream", c.stream, "subjects", strings.Join(c.subjects, " "))
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("making consumer %q of stream %q: %w", c.durable, c.stream, err)
	}
	c.created = cons.CachedInfo().Created
	if c.partition <= 0 {
		c.warnLeft(ctx, stream)
	}
	return cons, nil
}

// warnLeft warns of consumers that the handler had before its partitions were changed, and whose
// events nobody handles.
func (c *consumer) warnLeft(ctx context.Context, stream jetstream.Stream) {
	present := map[string]bool{c.durable: true}
	if c.members != nil {
		for i := range c.members.partitions {
			present[durable(c.h.name, i)] = true
		}
	}
	names := stream.ConsumerNames(ctx)
	for name := range names.Name() {
		if HandlerOf(name) != c.h.name || present[name] {
			continue
		}
		left, err := stream.Consumer(ctx, name)
		if err != nil {
			continue // it is looked for again at the next start
		}
		if info := left.CachedInfo(); info.NumPending > 0 || info.NumAckPending > 0 {
			c.cfg.Log.Warn("a consumer from before the partitions were changed has events that nobody handles; run the handler with the former template of subjects until its lag is 0",
				"handler", c.h.name, "consumer", name, "events", info.NumPending+uint64(info.NumAckPending))
		}
	}
}

func (c *consumer) differs(have, want jetstream.ConsumerConfig) bool {
	subjects := have.FilterSubjects
	if have.FilterSubject != "" {
		subjects = []string{have.FilterSubject}
	}
	return !slices.Equal(subjects, want.FilterSubjects) || have.AckWait != want.AckWait || have.MaxAckPending != want.MaxAckPending ||
		have.MaxDeliver != want.MaxDeliver || have.AckPolicy != want.AckPolicy ||
		have.PriorityPolicy != want.PriorityPolicy || !slices.Equal(have.PriorityGroups, want.PriorityGroups) || have.PinnedTTL != want.PinnedTTL
}

// serverHas reports whether the server's version is at least the given one.
func (c *consumer) serverHas(major, minor int) bool {
	var haveMajor, haveMinor int
	if n, _ := fmt.Sscanf(c.cfg.NATS.ConnectedServerVersion(), "%d.%d", &haveMajor, &haveMinor); n < 2 {
		return true // not connected at this moment
	}
	return haveMajor > major || haveMajor == major && haveMinor >= minor
}

// begin makes this process the active one: what another one parks from then on is refused,
// and everything that is not acknowledged comes again, in order.
func (c *consumer) begin(ctx context.Context, g *generation) error {
	c.warnMode()
	if c.db != nil {
		r, err := c.db.query(ctx, sql.InboxActivate, c.h.name, c.partition, c.stream, []byte(strings.Join(c.h.match.patterns, "\n")), c.h.mode.String(), clean(c.cfg.Process))
		if _, err := one(r, err, &g.epoch); err != nil {
			return fmt.Errorf("becoming the active process: %w", withoutTables(err))
		}
	}
	if err := c.reset(ctx); err != nil {
		return err
	}
	if c.db != nil {
		r, err := c.db.query(ctx, sql.InboxBlocked, c.h.name)
		if err != nil {
			return fmt.Errorf("reading blocked keys: %w", err)
		}
		defer r.close()
		for r.Next() {
			var hash []byte
			if err := r.Scan(&hash); err != nil {
				return fmt.Errorf("reading blocked keys: %w", err)
			}
			g.block(hash)
		}
		if err := r.Err(); err != nil {
			return fmt.Errorf("reading blocked keys: %w", err)
		}
	}
	return nil
}

// reset lets the consumer begin after its acknowledgement floor, in order.
func (c *consumer) reset(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	stream, err := c.cfg.js.Stream(ctx, c.stream)
	if err != nil {
		return fmt.Errorf("asking for stream %q: %w", c.stream, err)
	}
	cons, err := stream.Consumer(ctx, c.durable)
	if err != nil {
		return fmt.Errorf("asking for consumer %q: %w", c.durable, err)
	}
	info := cons.CachedInfo()
	c.countRemoved(info, stream.CachedInfo().State.FirstSeq)
	if c.pinned {
		if _, err := stream.ResetConsumer(ctx, c.durable); err != nil {
			return fmt.Errorf("resetting consumer %q: %w", c.durable, err)
		}
		return nil
	}
	next := info.Config
	if floor := info.AckFloor.Stream; floor > 0 {
		next.DeliverPolicy, next.OptStartSeq, next.OptStartTime = jetstream.DeliverByStartSequencePolicy, floor+1, nil
	}
	if err := stream.DeleteConsumer(ctx, c.durable); err != nil {
		return fmt.Errorf("starting consumer %q over: %w", c.durable, err)
	}
	if _, err := stream.CreateConsumer(ctx, next); err != nil {
		return fmt.Errorf("starting consumer %q over: %w", c.durable, err)
	}
	return nil
}

// countRemoved counts what the stream does not have any more, and the handler did not have.
func (c *consumer) countRemoved(info *jetstream.ConsumerInfo, firstSequence uint64) {
	floor := max(info.AckFloor.Stream, c.counted)
	if info.AckFloor.Stream == 0 && info.Delivered.Consumer == 0 || firstSequence <= floor+1 {
		return
	}
	n := firstSequence - 1 - floor
	c.counted = firstSequence - 1
	c.removed.Add(n)
	c.cfg.Log.Warn("events were removed before this handler had them; it was away for longer than the stream keeps them (some may have been of other types)",
		"handler", c.h.name, "consumer", c.durable, "stream", c.stream, "events", n)
}

// unpin lets another process take over at once.
func (c *consumer) unpin(ctx context.Context, pin string) {
	if pin == "" || !c.cfg.NATS.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiTimeout)
	defer cancel()
	_ = c.reset(ctx) // what was received and not handled is the other's at once
	if stream, err := c.cfg.js.Stream(ctx, c.stream); err == nil {
		_ = stream.UnpinConsumer(ctx, c.durable, group) // the pin ends by itself, too
	}
}

func (c *consumer) warnMode() {
	if c.db == nil {
		c.warnOnce("this handler has no database: an event that it cannot handle holds its lane while it is retried, and is then published to the subject for dead letters",
			c.cfg.DeadLetters+"."+c.h.name)
	}
}

func (c *consumer) warnOnce(message, subject string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.warned[message] {
		return
	}
	c.warned[message] = true
	args := []any{"handler", c.h.name}
	if subject != "" {
		args = append(args, "subject", subject)
	}
	c.cfg.Log.Warn(message, args...)
}

// repeat is a line of the log that may come often.
type repeat struct {
	last    time.Time
	left    int // lines in this interval
	omitted int
}

const (
	// repeatLines of a message are logged in repeatInterval; the rest are counted.
	repeatLines    = 10
	repeatInterval = 10 * time.Second
)

// warn logs what may come for each of many events: the first lines of each interval, and how many
// were left out of the one before.
func (c *consumer) warn(message string, args ...any) {
	c.mu.Lock()
	r := c.repeats[message]
	if r == nil {
		r = &repeat{}
		c.repeats[message] = r
	}
	if time.Since(r.last) > repeatInterval {
		if r.omitted > 0 {
			args = append(args, "omitted_before", r.omitted)
		}
		r.last, r.left, r.omitted = time.Now(), repeatLines, 0
	}
	r.left--
	if r.left < 0 {
		r.omitted++
	}
	say := r.left >= 0
	c.mu.Unlock()
	if say {
		c.cfg.Log.Warn(message, append([]any{"handler", c.h.name}, args...)...)
	}
}

// failed notes the failure of a call.
func (c *consumer) failed(err error) {
	c.failures.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastError, c.newError = string(clean(err.Error())), true
}

// note writes the handler's row now and then.
func (c *consumer) note(ctx context.Context, lag uint64) {
	if c.db == nil || time.Since(c.noted) < noteInterval {
		return
	}
	c.noted = time.Now()
	c.mu.Lock()
	var last any
	if c.newError {
		last = []byte(c.lastError)
	}
	c.newError = false
	c.mu.Unlock()
	removed := c.removed.Load()
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if err := c.db.exec(ctx, sql.InboxSeen, c.h.name, c.partition, int64(lag), int64(removed-c.recorded), last); err == nil {
		c.recorded = removed
	}
	if err := c.db.exec(ctx, sql.InboxForget, c.h.name, c.cfg.RememberFor.Seconds()); err != nil && ctx.Err() == nil {
		c.cfg.Log.Debug("old handled events are not removed", "handler", c.h.name, "error", err)
	}
}

// flush waits until the server has what was acknowledged.
func flush(ctx context.Context, nc *nats.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiTimeout)
	defer cancel()
	_ = nc.FlushWithContext(ctx) // what is lost comes again
}

// hungError says that a handler did not return.
type hungError struct{ handler, events string }

func (e *hungError) Error() string {
	return fmt.Sprintf("handler %q has not returned although its context has ended; it works on %s", e.handler, e.events)
}

// patience is for how long, in milliseconds, a transaction may stay open while the process
// does nothing: it may be frozen, and others wait.
func (c *consumer) patience() string {
	return strconv.FormatInt((c.h.timeout + c.cfg.Grace).Milliseconds(), 10)
}

// withoutTables says what to do if the database has not the tables of handlers.
func withoutTables(err error) error {
	if code := sqlState(err); code == sqlstate.UndefinedTable || code == sqlstate.InvalidSchemaName || code == sqlstate.UndefinedFunction {
		return fmt.Errorf("the database has not the tables of handlers: call inbox.Migrate, or run \"walrelay init --inbox\": %w", err)
	}
	return err
}

// null makes no bytes NULL, whatever the driver.
func null(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}
