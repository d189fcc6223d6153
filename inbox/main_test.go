package inbox_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/localnats"
	"github.com/walrelay/walrelay/internal/testkit"
)

func TestMain(m *testing.M) {
	if database, server, ok := strings.Cut(os.Getenv(childEnv), " "); ok {
		if err := handleInChild(database, server); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(testkit.Main(m))
}

// slot and key are those of the relay whose part the tests play.
const slot = "walrelay"

var key = []byte("0123456789abcdef0123456789abcdef")

// world is a database with the tables of handlers, and a server with the stream EVENTS.
type world struct {
	t      testing.TB
	url    string
	pool   *pgxpool.Pool
	server *localnats.Server
	nc     *nats.Conn
	js     jetstream.JetStream
	lsn    uint64
	// partitions is how many the subjects have; 0 for none.
	partitions int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, nil)
}

// newWorldWith is newWorld with a server of other options.
func newWorldWith(t testing.TB, configure func(*server.Options)) *world {
	t.Helper()
	w := &world{t: t, url: testkit.Database(t, testkit.Shared(t))}
	var err error
	if w.pool, err = pgxpool.New(t.Context(), w.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.pool.Close)
	if err := inbox.Migrate(t.Context(), w.pool, inbox.Roles{}); err != nil {
		t.Fatal(err)
	}
	w.exec("CREATE TABLE walrelay.secrets (slot text PRIMARY KEY, key bytea NOT NULL)")
	w.exec("INSERT INTO walrelay.secrets VALUES ($1, $2)", slot, key)
	w.exec("CREATE TABLE effects (n bigint GENERATED ALWAYS AS IDENTITY, id text, key text)")
	w.server = testkit.NATS(t, configure)
	w.nc = w.connect()
	if w.js, err = jetstream.New(w.nc); err != nil {
		t.Fatal(err)
	}
	w.makeStream()
	return w
}

func (w *world) makeStream() {
	w.t.Helper()
	if _, err := w.js.CreateStream(w.t.Context(), jetstream.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) connect() *nats.Conn {
	w.t.Helper()
	nc, err := nats.Connect(w.server.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(nc.Close)
	return nc
}

func (w *world) exec(statement string, args ...any) {
	w.t.Helper()
	if _, err := w.pool.Exec(w.t.Context(), statement, args...); err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
}

// count returns what a query counts.
func (w *world) count(query string, args ...any) int {
	w.t.Helper()
	var n int
	if err := w.pool.QueryRow(w.t.Context(), query, args...).Scan(&n); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// texts returns what a query of one column returns.
func (w *world) texts(query string, args ...any) []string {
	w.t.Helper()
	rows, err := w.pool.Query(w.t.Context(), query, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, s)
	}
	if err := rows.Err(); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// sent is an event as the relay publishes it.
type sent struct {
	id, kind, key string
	data          any
	position      uint64 // 0 for the next
	unsigned      bool   // as another publisher writes it
	timeline      string // default the first
}

// publish publishes events as the relay does, one after the other.
func (w *world) publish(messages ...sent) {
	w.t.Helper()
	for _, m := range messages {
		if m.position == 0 {
			w.lsn++
			m.position = w.lsn
		}
		body, err := json.Marshal(m.data)
		if err != nil {
			w.t.Fatal(err)
		}
		subject := "events." + m.kind
		if w.partitions > 0 {
			subject = fmt.Sprintf("events.%d.%s", event.Partition(m.key, m.id, w.partitions), m.kind)
		}
		msg := nats.NewMsg(subject)
		msg.Data = body
		for name, value := range map[string]string{"ce-specversion": "1.0", "ce-id": m.id, "ce-source": "/s", "ce-type": m.kind, "ce-datacontenttype": "application/json", "ce-partitionkey": m.key} {
			if value != "" {
				msg.Header[name] = []string{value}
			}
		}
		var last uint64
		eventually(w.t, "the stream answers", func() bool {
			stream, err := w.js.Stream(w.t.Context(), "EVENTS")
			if err == nil {
				last = stream.CachedInfo().State.LastSeq
			}
			return err == nil
		})
		if !m.unsigned {
			stamp := event.Position{CommitLSN: m.position}.String() + " " + cmp.Or(m.timeline, "1") + " 7/" + slot
			msg.Header[event.PositionHeader] = []string{stamp}
			digest := event.NewSigner("EVENTS", key).Append(nil, strconv.AppendUint(nil, last, 10), []byte(stamp))
			msg.Header[event.DigestHeader] = []string{string(digest)}
		}
		// The connection may be cut before the acknowledgement is there.
		eventually(w.t, "the stream has taken "+m.id, func() bool {
			ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Second)
			defer cancel()
			_, err := w.js.PublishMsg(ctx, msg, jetstream.WithMsgID(fmt.Sprint(m.id, m.position)))
			return err == nil
		})
	}
}

// process runs a registry until stop is called.
type process struct {
	t      testing.TB
	cancel context.CancelFunc
	done   chan error
	nc     *nats.Conn
	status sync.Map // handler, or handler@partition: inbox.Status
}

// start runs a registry; change may change the configuration.
func (w *world) start(r *inbox.Registry, change ...func(*inbox.Config)) *process {
	w.t.Helper()
	p := &process{t: w.t, done: make(chan error, 1), nc: w.connect()}
	cfg := inbox.Config{NATS: p.nc, Pool: w.pool, Log: slog.New(slog.NewTextHandler(logWriter{w.t}, nil)), Observe: func(s inbox.Status) {
		name := s.Handler
		if s.Partition >= 0 {
			name += "@" + strconv.Itoa(s.Partition)
		}
		p.status.Store(name, s)
	}}
	for _, f := range change {
		f(&cfg)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	p.cancel = cancel
	go func() { p.done <- inbox.Run(ctx, cfg, r) }()
	w.t.Cleanup(p.stop)
	return p
}

func (p *process) stop() {
	p.t.Helper()
	if p.cancel == nil {
		return
	}
	p.cancel()
	p.cancel = nil
	if err := <-p.done; err != nil {
		p.t.Errorf("the handlers ended: %v", err)
	}
	p.nc.Close()
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("not within 30 s: %s", what)
}

// explain logs, after a failure, how things stand.
func (w *world) explain(handler string) {
	if !w.t.Failed() {
		return
	}
	w.t.Logf("effects: %d, parked: %v", w.count("SELECT count(*) FROM effects"), w.texts("SELECT event_id || ' ' || state || ' ' || next_attempt_at || ' ' || last_error FROM walrelay.parked ORDER BY number"))
	if c, err := w.js.Consumer(w.t.Context(), "EVENTS", handler); err != nil {
		w.t.Log(err)
	} else {
		w.t.Logf("consumer: %+v", *c.CachedInfo())
	}
	if s, err := w.js.Stream(w.t.Context(), "EVENTS"); err == nil {
		w.t.Logf("stream: %+v", s.CachedInfo().State)
	}
}
