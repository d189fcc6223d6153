package bench

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/child"
)

// HandlersCommand is the subcommand of this executable that calls [RunHandler].
const HandlersCommand = "bench-handler"

const (
	handlersStream = "WALRELAY_BENCH_HANDLERS"
	handlersPrefix = "walrelay_bench_handlers."
	handlersSlot   = "walrelay_bench"
	handlersStart  = 60 * time.Second
	// pollDelay is how long is waited between two looks at a number.
	pollDelay = 2 * time.Millisecond
	// parkedEvents is how many are parked while the rate of others is measured.
	parkedEvents = 100_000
	// takeovers is how often each is measured, and liveRate how many events come a second
	// meanwhile.
	takeovers = 3
	liveRate  = 500
)

// Handlers says how fast handlers of package inbox are, with their servers on the same machine, and how
// soon another process takes over.
type Handlers struct {
	Rates []HandlerRate `json:"rates"`
	// The longest time from the end of a process to the first event that another one handles.
	TakeoverKilledS  float64 `json:"takeover_killed_s"`
	TakeoverStoppedS float64 `json:"takeover_stopped_s"`
	// The rate of a once handler while so many events are parked behind one key, and while as many keys are blocked, to
	// the mean of its rates before and after.
	ParkedEvents     int     `json:"parked_events"`
	ParkedRatio      float64 `json:"parked_ratio"`
	BlockedKeysRatio float64 `json:"blocked_keys_ratio"`
}

// HandlerRate is the rate of one kind of handler, from its first event to its last.
type HandlerRate struct {
	Name                  string  `json:"name"`
	Events                int     `json:"events"`
	PerS                  float64 `json:"per_s"`
	HandlerCPUPerEventUs  float64 `json:"handler_cpu_per_event_us,omitempty"`
	PostgresCPUPerEventUs float64 `json:"postgres_cpu_per_event_us,omitempty"`
	NATSCPUPerEventUs     float64 `json:"nats_cpu_per_event_us,omitempty"`
}

// The kinds of handlers.
const (
	kindNoop  = "noop"
	kindOnce  = "once"
	kindBatch = "batch"
	kindTell  = "tell"
)

// RunHandler runs a handler of a kind until the context ends, and writes a line when it has handled
// the given number of events: how many nanoseconds that took from the first. The kind "tell" writes a line for
// each event.
func RunHandler(ctx context.Context, kind, name string, events int, out io.Writer) error {
	connecting, err := pgxpool.ParseConfig(os.Getenv("WALRELAY_BENCH_POSTGRES"))
	if err != nil {
		return fmt.Errorf("connecting to Postgres: %w", err)
	}
	connecting.MaxConns = inbox.DefaultLanes + 4
	pool, err := pgxpool.NewWithConfig(ctx, connecting)
	if err != nil {
		return fmt.Errorf("connecting to Postgres: %w", err)
	}
	defer pool.Close()
	nc, err := nats.Connect(os.Getenv("WALRELAY_BENCH_NATS"), nats.MaxReconnects(-1))
	if err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	defer nc.Close()
	var first, handled atomic.Int64
	count := func(n int) {
		first.CompareAndSwap(0, time.Now().UnixNano())
		if handled.Add(int64(n)) == int64(events) {
			fmt.Fprintln(out, time.Now().UnixNano()-first.Load())
		}
	}
	cfg := inbox.Config{NATS: nc, Pool: pool, Stream: handlersStream, Subject: handlersPrefix + "{type}", Log: slog.New(slog.DiscardHandler)}
	var r inbox.Registry
	switch kind {
	case kindNoop:
		cfg.Pool = nil
		inbox.OnAtLeastOnce(&r, name, inbox.All(), func(context.Context, inbox.Event[[]byte]) error {
			count(1)
			return nil
		})
	case kindOnce:
		inbox.On(&r, name, inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[[]byte]) error {
			_, err := tx.Exec(ctx, "INSERT INTO walrelay_bench_effects (id, key) VALUES ($1, $2)", ev.ID, ev.Key)
			count(1)
			return err
		})
	case kindBatch:
		inbox.OnBatch(&r, name, inbox.All(), func(ctx context.Context, tx pgx.Tx, events []inbox.Event[[]byte]) error {
			ids, keys := make([]string, len(events)), make([]string, len(events))
			for i := range events {
				ids[i], keys[i] = events[i].ID, events[i].Key
			}
			_, err := tx.Exec(ctx, "INSERT INTO walrelay_bench_effects (id, key) SELECT unnest($1::text[]), unnest($2::text[])", ids, keys)
			count(len(events))
			return err
		}, inbox.Lanes(8))
	case kindTell:
		cfg.Pool = nil
		var mu sync.Mutex
		inbox.OnAtLeastOnce(&r, name, inbox.All(), func(_ context.Context, ev inbox.Event[[]byte]) error {
			mu.Lock()
			defer mu.Unlock()
			_, err := fmt.Fprintln(out, ev.ID)
			return err
		})
	default:
		return fmt.Errorf("there is no kind of handlers called %q", kind)
	}
	return inbox.Run(ctx, cfg, &r)
}

// handlers measures them.
func (b *bench) handlers(ctx context.Context) (*Handlers, error) {
	events := b.opts.Parameters.Events
	few := max(events/20, 2)
	b.opts.progress("filling a stream with %d events …", events)
	if err := b.prepareHandlers(ctx, events); err != nil {
		return nil, err
	}
	h := &Handlers{ParkedEvents: parkedEvents}
	for _, one := range []struct {
		name, kind string
		events     int
	}{
		{"at least once, nothing done", kindNoop, events},
		{"once, an event a transaction", kindOnce, few},
		{"once, batches of 100", kindBatch, events},
	} {
		rate, err := b.rate(ctx, one.kind, one.kind, one.events)
		if err != nil {
			return nil, err
		}
		rate.Name = one.name
		h.Rates = append(h.Rates, rate)
	}
	var err error
	if h.ParkedRatio, h.BlockedKeysRatio, err = b.parked(ctx, few); err != nil {
		return nil, err
	}
	if h.TakeoverKilledS, err = b.handlerTakeover(ctx, "killed", func(p *child.Process) error { p.Kill(); return nil }); err != nil {
		return nil, err
	}
	h.TakeoverStoppedS, err = b.handlerTakeover(ctx, "stopped", (*child.Process).Terminate)
	return h, err
}

// prepareHandlers makes a stream of signed events, as a relay writes it, and the tables.
func (b *bench) prepareHandlers(ctx context.Context, events int) error {
	if err := inbox.Migrate(ctx, b.conn, inbox.Roles{}); err != nil {
		return err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // it never fails
	for _, statement := range []string{
		"CREATE TABLE IF NOT EXISTS walrelay.secrets (slot text PRIMARY KEY, key bytea NOT NULL)",
		"CREATE TABLE walrelay_bench_effects (id text, key text)",
	} {
		if _, err := b.conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("making tables: %w", err)
		}
	}
	if _, err := b.conn.Exec(ctx, "INSERT INTO walrelay.secrets (slot, key) VALUES ($1, $2)", handlersSlot, key); err != nil {
		return fmt.Errorf("writing a key: %w", err)
	}
	if _, err := b.js.CreateStream(ctx, jetstream.StreamConfig{Name: handlersStream, Subjects: []string{handlersPrefix + ">"}}); err != nil {
		return fmt.Errorf("making stream %s: %w", handlersStream, err)
	}
	signer := event.NewSigner(handlersStream, key)
	body := []byte(`{"text": "` + strings.Repeat("x", max(b.opts.Parameters.PayloadBytes-12, 0)) + `"}`)
	for i := range events {
		if _, err := b.js.PublishMsgAsync(signedMessage(signer, i, body)); err != nil {
			return fmt.Errorf("filling stream %s: %w", handlersStream, err)
		}
	}
	select {
	case <-b.js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// signedMessage is message i of the stream, as a relay writes it. The signer may be nil.
func signedMessage(signer *event.Signer, i int, body []byte) *nats.Msg {
	stamp := event.Position{CommitLSN: uint64(i) + 1}.String() + " 1 7/" + handlersSlot
	msg := &nats.Msg{Subject: handlersPrefix + "order.placed", Data: body, Header: nats.Header{
		"ce-specversion": {"1.0"}, "ce-id": {"e" + strconv.Itoa(i)}, "ce-source": {"/bench"}, "ce-type": {"order.placed"},
		"ce-datacontenttype": {"application/json"}, "ce-partitionkey": {"k" + strconv.Itoa(i%1000)}, event.PositionHeader: {stamp},
	}}
	if signer != nil {
		msg.Header[event.DigestHeader] = []string{string(signer.Append(nil, strconv.AppendInt(nil, int64(i), 10), []byte(stamp)))}
	}
	return msg
}

// startHandler starts a process with a handler; take gets what it writes, a line each.
func (b *bench) startHandler(kind, name string, events int, take func(string)) (*child.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("looking for this program: %w", err)
	}
	cmd := exec.Command(self, HandlersCommand, kind, name, strconv.Itoa(events))
	cmd.Env = append(os.Environ(), "WALRELAY_BENCH_POSTGRES="+b.postgres, "WALRELAY_BENCH_NATS="+b.nats.URL)
	r, w := io.Pipe()
	cmd.Stdout = w
	go func() { // it ends when the pipe is closed, below
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			take(lines.Text())
		}
	}()
	p, err := child.Start("the handler", cmd, child.Options{})
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	go func() {
		<-p.Done()
		_ = w.Close() // it never fails
	}()
	return p, nil
}

// rate measures one handler.
func (b *bench) rate(ctx context.Context, kind, name string, events int) (HandlerRate, error) {
	b.opts.progress("handling %d events (%s) …", events, name)
	lines := make(chan string, 1)
	before := b.usage(nil)
	p, err := b.startHandler(kind, name, events, func(line string) { lines <- line })
	if err != nil {
		return HandlerRate{}, err
	}
	timer := time.NewTimer(handlersStart + time.Duration(events)*10*time.Millisecond)
	defer timer.Stop()
	var took int64
	select {
	case line := <-lines:
		took, err = strconv.ParseInt(line, 10, 64)
	case <-p.Done(): // stop says how
	case <-timer.C:
		err = errors.New("the handler has not come to the end")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	u := b.usage(p).since(before)
	if err = errors.Join(err, p.Stop(p.Terminate, relayStop)); err != nil {
		return HandlerRate{}, fmt.Errorf("handling events (%s): %w", name, err)
	}
	return HandlerRate{
		Name: name, Events: events, PerS: float64(events) / time.Duration(took).Seconds(),
		HandlerCPUPerEventUs: perEvent(u.relay, events), PostgresCPUPerEventUs: perEvent(u.postgres, events), NATSCPUPerEventUs: perEvent(u.nats, events),
	}, nil
}

// parked measures a once handler, before, while many events are parked, and after.
func (b *bench) parked(ctx context.Context, events int) (behind, blocked float64, err error) {
	var rates []float64
	for _, one := range []struct{ name, key, state string }{
		{"once-before", "", ""},
		{"once-behind", "'one'", "CASE WHEN n = 1 THEN 'failed' ELSE 'held' END"},
		{"once-blocked", "'blocked ' || n", "'failed'"},
		{"once-after", "", ""},
	} {
		if one.key != "" {
			if _, err := b.conn.Exec(ctx, `INSERT INTO walrelay.parked (handler, state, event, key_hash, key, event_id, event_type, source, stream, sequence,
					attempts, next_attempt_at, last_error, subject, headers)
				SELECT $1, `+one.state+`, sha256(n::text::bytea), substr(sha256((`+one.key+`)::bytea), 1, 16), `+one.key+`, n::text, 'order.placed', '/bench', 'S', n,
					1, now(), '', '', '{}' FROM generate_series(1, $2::int) AS n`, one.name, parkedEvents); err != nil {
				return 0, 0, fmt.Errorf("parking events: %w", err)
			}
			if _, err := b.conn.Exec(ctx, "ANALYZE walrelay.parked"); err != nil {
				return 0, 0, fmt.Errorf("parking events: %w", err)
			}
		}
		rate, err := b.rate(ctx, kindOnce, one.name, events)
		if err != nil {
			return 0, 0, err
		}
		rates = append(rates, rate.PerS)
	}
	usual := (rates[0] + rates[3]) / 2
	return rates[1] / usual, rates[2] / usual, nil
}

// handlerTakeover ends the process that handles events, some times, and returns the longest time until
// another one does.
func (b *bench) handlerTakeover(ctx context.Context, how string, end func(*child.Process) error) (longest float64, err error) {
	b.opts.progress("taking over from a process that is %s …", how)
	name := "takeover-" + how
	var mu sync.Mutex
	var last *child.Process // which handled the last event
	var since time.Time
	start := func() (p *child.Process, err error) {
		started := make(chan struct{})
		p, err = b.startHandler(kindTell, name, 0, func(string) {
			<-started
			mu.Lock()
			defer mu.Unlock()
			if last != p {
				last, since = p, time.Now()
			}
		})
		close(started)
		return p, err
	}
	active := func() (*child.Process, time.Time) {
		mu.Lock()
		defer mu.Unlock()
		return last, since
	}
	// New events only: those that are there would be handled first.
	stream, err := b.js.Stream(ctx, handlersStream)
	if err != nil {
		return 0, fmt.Errorf("asking for stream %s: %w", handlersStream, err)
	}
	if err := stream.Purge(ctx); err != nil {
		return 0, fmt.Errorf("emptying stream %s: %w", handlersStream, err)
	}
	publishing, stop := context.WithCancel(ctx)
	var publisher sync.WaitGroup
	publisher.Go(func() {
		ticker := time.NewTicker(time.Second / liveRate)
		defer ticker.Stop()
		for i := 0; publishing.Err() == nil; i++ {
			<-ticker.C
			_, _ = b.js.PublishMsgAsync(signedMessage(nil, i, []byte("{}"))) // what is lost is not missed
		}
	})
	defer publisher.Wait()
	defer stop()
	var running []*child.Process
	defer func() {
		for _, p := range running {
			p.Kill()
		}
	}()
	for range 2 {
		p, err := start()
		if err != nil {
			return 0, err
		}
		running = append(running, p)
	}
	for range takeovers {
		var ending *child.Process
		if err := poll(ctx, "a process handles events", func() bool {
			ending, _ = active()
			return ending != nil
		}); err != nil {
			return 0, err
		}
		ended := time.Now()
		if err := end(ending); err != nil {
			return 0, fmt.Errorf("ending a handler: %w", err)
		}
		var next *child.Process
		var at time.Time
		if err := poll(ctx, "another process takes over", func() bool {
			next, at = active()
			return next != ending && at.After(ended)
		}); err != nil {
			return 0, err
		}
		longest = max(longest, at.Sub(ended).Seconds())
		<-ending.Done()
		for i, p := range running {
			if p == ending {
				if running[i], err = start(); err != nil {
					return 0, err
				}
			}
		}
		// The new one stands by.
		if err := poll(ctx, "both processes run", func() bool {
			c, err := b.js.Consumer(ctx, handlersStream, name)
			return err == nil && c.CachedInfo().NumWaiting >= 2
		}); err != nil {
			return 0, err
		}
	}
	return longest, nil
}

// poll waits until a condition holds.
func poll(ctx context.Context, what string, is func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, handlersStart)
	defer cancel()
	ticker := time.NewTicker(pollDelay)
	defer ticker.Stop()
	for !is() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}
