package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/localnats"
	"github.com/walrelay/walrelay/internal/localpg"
	"github.com/walrelay/walrelay/internal/testkit"
)

// kind says which servers a test needs for itself.
type kind int

const (
	// shared: a database of its own in the cluster that tests share.
	shared kind = iota
	// own: a Postgres cluster of its own, to stop and crash.
	own
	// clustered: three nats-servers and a stream with three replicas.
	clustered
)

// env is what one test runs against.
type env struct {
	t       testing.TB
	dir     string
	slot    string
	environ []string
	plain   bool // run the binary without the race detector

	cluster     *localpg.Cluster
	server      *localnats.Server
	servers     *localnats.Cluster
	postgresURL string
	natsURL     string

	conn *nats.Conn
}

// slots counts the slots of the cluster that tests share.
var slots atomic.Int64 // names must differ between tests

func newEnv(t testing.TB, k kind) *env {
	t.Helper()
	e := &env{t: t, dir: t.TempDir(), slot: "walrelay"}
	switch k {
	case shared, clustered:
		e.cluster = testkit.Shared(t)
		e.slot = fmt.Sprintf("walrelay_%d", slots.Add(1))
	case own:
		e.cluster = testkit.Postgres(t)
	}
	e.postgresURL = testkit.Database(t, e.cluster)
	if k == clustered {
		e.servers = testkit.NATSCluster(t, 3)
		e.natsURL = strings.Join(e.servers.URLs(), ",")
		e.writeConfig("streams: [{name: EVENTS, subjects: [\"events.>\"], replicas: 3}]\n")
	} else {
		e.server = testkit.NATS(t)
		e.natsURL = e.server.URL()
	}
	return e
}

// writeConfig writes the walrelay.yaml that every command of the test reads.
func (e *env) writeConfig(text string) {
	e.t.Helper()
	if err := os.WriteFile(filepath.Join(e.dir, "walrelay.yaml"), []byte(text), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// nats is a connection of a client that is not the relay's.
func (e *env) nats() *nats.Conn {
	e.t.Helper()
	if e.conn == nil {
		conn, err := nats.Connect(e.natsURL, nats.Name("e2e"), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
		if err != nil {
			e.t.Fatalf("connecting to NATS: %v", err)
		}
		e.conn = conn
		e.t.Cleanup(conn.Close)
	}
	return e.conn
}

func (e *env) jetstream() jetstream.JetStream {
	e.t.Helper()
	js, err := jetstream.New(e.nats())
	if err != nil {
		e.t.Fatal(err)
	}
	return js
}

func (e *env) updateStream(name string, change func(*jetstream.StreamConfig)) {
	e.t.Helper()
	testkit.UpdateStream(e.t, e.jetstream(), name, change)
}

// messages says how many messages a stream has; -1 while it does not answer.
func (e *env) messages(name string) int {
	return e.streamState(name, func(s jetstream.StreamState) uint64 { return s.Msgs })
}

func (e *env) streamState(name string, value func(jetstream.StreamState) uint64) int {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	stream, err := e.jetstream().Stream(ctx, name)
	if err != nil {
		return -1
	}
	return int(value(stream.CachedInfo().State))
}

func (e *env) awaitMessages(name string, want int) {
	e.t.Helper()
	testkit.Eventually(e.t, 60*time.Second, fmt.Sprintf("stream %s has %d messages", name, want), func() error {
		if n := e.messages(name); n < want {
			return fmt.Errorf("it has %d", n)
		}
		return nil
	})
}

// awaitMore waits until a stream has got that many more messages.
func (e *env) awaitMore(name string, more int) {
	e.t.Helper()
	last := func(s jetstream.StreamState) uint64 { return s.LastSeq }
	start := -1
	testkit.Eventually(e.t, 60*time.Second, fmt.Sprintf("stream %s gets %d more messages", name, more), func() error {
		n := e.streamState(name, last)
		if n >= 0 && start < 0 {
			start = n
		}
		if start < 0 || n < start+more {
			return fmt.Errorf("its last sequence was %d and is %d", start, n)
		}
		return nil
	})
}

// awaitCaughtUp waits until the slot has confirmed everything that is
// committed by now: then every event is settled.
func (e *env) awaitCaughtUp() {
	e.t.Helper()
	target := testkit.Query(e.t, e.postgresURL, "SELECT pg_current_wal_lsn()::text")
	conn := testkit.Connect(e.t, e.postgresURL)
	testkit.Eventually(e.t, 90*time.Second, "the slot has confirmed everything", func() error {
		var behind int64
		err := conn.QueryRow(context.Background(),
			"SELECT ($1::text::pg_lsn - confirmed_flush_lsn)::bigint FROM pg_replication_slots WHERE slot_name = $2", target, e.slot).Scan(&behind)
		if err == nil && behind > 0 {
			err = fmt.Errorf("it is %d bytes behind %s", behind, target)
		}
		return err
	})
}

// awaitPublished waits until it is noted that the events of all rows have an
// outcome.
func (e *env) awaitPublished() {
	e.t.Helper()
	testkit.Eventually(e.t, 30*time.Second, "it is noted that all rows are settled", func() error {
		if noted := testkit.Query(e.t, e.postgresURL, "SELECT coalesce(bool_and(walrelay.is_settled(o.xmin, p.published)), false)::text FROM outbox AS o, walrelay.progress AS p"); noted != "true" {
			return errors.New("it is not")
		}
		return nil
	})
}

// insert commits n small events, in transactions of up to a thousand.
func (e *env) insert(n int) {
	e.t.Helper()
	for n > 0 {
		batch := min(n, 1000)
		testkit.Exec(e.t, e.postgresURL, fmt.Sprintf(
			"INSERT INTO public.outbox (event_type, source, data) SELECT 'order.created', '/e2e', jsonb_build_object('n', n) FROM generate_series(1, %d) AS n", batch))
		n -= batch
	}
}

// walsender is the process that serves the slot.
func (e *env) walsender() string {
	e.t.Helper()
	return testkit.Query(e.t, e.postgresURL, "SELECT active_pid::text FROM pg_replication_slots WHERE slot_name = $1", e.slot)
}

func (e *env) stopPostgres(mode localpg.StopMode) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := e.cluster.Stop(ctx, mode); err != nil {
		e.t.Fatalf("stopping Postgres: %v", err)
	}
}

func (e *env) startPostgres() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := e.cluster.Restart(ctx); err != nil {
		e.t.Fatalf("starting Postgres again: %v", err)
	}
}

func (e *env) restartNATS() {
	e.t.Helper()
	if err := e.server.Restart(); err != nil {
		e.t.Fatalf("starting nats-server again: %v", err)
	}
}

// cutNATSClients closes the connections of the clients with that name, as a
// network that drops them would.
func (e *env) cutNATSClients(name string) {
	e.t.Helper()
	testkit.Eventually(e.t, 10*time.Second, fmt.Sprintf("a client called %q is cut", name), func() error {
		if e.server.CutClients(name) == 0 {
			return errors.New("none is connected")
		}
		return nil
	})
}

// killStreamLeader ends the server that leads the stream, starts it again when
// another leads, and waits until it has the stream.
func (e *env) killStreamLeader(stream string) {
	e.t.Helper()
	leader := func() string {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		s, err := e.jetstream().Stream(ctx, stream)
		if err != nil || s.CachedInfo().Cluster == nil {
			return ""
		}
		return s.CachedInfo().Cluster.Leader
	}
	old := leader()
	if old == "" {
		e.t.Fatal("the stream has no leader; this test shows nothing")
	}
	node, err := e.servers.Node(old)
	if err != nil {
		e.t.Fatal(err)
	}
	e.servers.KillNode(node)
	testkit.Eventually(e.t, 30*time.Second, "another server leads the stream", func() error {
		if now := leader(); now == "" || now == old {
			return errors.New("none does")
		}
		return nil
	})
	if err := e.servers.RestartNode(node); err != nil {
		e.t.Fatalf("starting nats-server again: %v", err)
	}
	// Another one killed before it has the stream again would take the quorum.
	testkit.AwaitReplicas(e.t, e.jetstream(), stream)
}

// tally counts ids.
type tally struct {
	mu    sync.Mutex
	times map[string]int
}

func newTally() *tally { return &tally{times: map[string]int{}} }

func (c *tally) add(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.times[id]++
}

func (c *tally) distinct() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.times)
}

func (c *tally) doubled() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, times := range c.times {
		if times > 1 {
			n++
		}
	}
	return n
}
