// Package relaytest runs a relay in the process of a test, against real servers.
package relaytest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/provision"
	"github.com/walrelay/walrelay/internal/relay"
	"github.com/walrelay/walrelay/internal/testkit"
)

// World is a database and a nats-server with everything that a relay needs. The package of
// the test calls [testkit.Main].
type World struct {
	Config config.Config
	JS     jetstream.JetStream

	t testing.TB
}

// New makes a world. Run before init, if not empty, is SQL that runs before there is
// anything of walrelay's.
func New(t testing.TB, cfg config.Config, before string) *World {
	t.Helper()
	server := testkit.NATS(t)
	cfg.Postgres.URL, cfg.NATS.URL = testkit.Database(t, testkit.Shared(t)), server.URL()
	if cfg.Slot == "" { // slots belong to the cluster, which tests share
		name := testkit.Query(t, cfg.Postgres.URL, "SELECT current_database()")
		cfg.Slot, cfg.Publication = "walrelay_"+name, "walrelay_"+name
	}
	w := &World{Config: cfg, t: t}
	_, w.JS = testkit.JetStream(t, server.URL())
	if before != "" {
		w.Exec(before)
	}
	w.Init()
	return w
}

// Init is "walrelay init".
func (w *World) Init() {
	w.t.Helper()
	if _, err := provision.Setup(w.t.Context(), w.Config); err != nil {
		w.t.Fatal(err)
	}
}

// With returns another world with the same streams: nothing is made in its database.
func (w *World) With(cfg config.Config) *World { return &World{Config: cfg, JS: w.JS, t: w.t} }

// Start runs a relay until the function that it returns is called.
func (w *World) Start() (stop func()) {
	w.t.Helper()
	r, err := relay.New(w.Config.WithDefaults(), zerolog.New(zerolog.NewTestWriter(w.t)), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	return func() {
		w.t.Helper()
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the relay ended with %v", err)
		}
	}
}

// Publish runs a relay until everything that is committed is settled.
func (w *World) Publish() {
	w.t.Helper()
	stop := w.Start()
	defer stop()
	w.AwaitSettled()
}

// AwaitSettled waits until the slot has passed everything that is committed.
func (w *World) AwaitSettled() {
	w.t.Helper()
	end := w.Query("SELECT pg_current_wal_insert_lsn()::text")
	testkit.Eventually(w.t, time.Minute, "the slot has passed "+end, func() error {
		if w.Query("SELECT (confirmed_flush_lsn >= $1::text::pg_lsn)::text FROM pg_replication_slots WHERE slot_name = $2", end, w.Config.Slot) != "true" {
			return errors.New("it has not")
		}
		return nil
	})
}

// Exec runs statements in the database.
func (w *World) Exec(statements string) {
	w.t.Helper()
	testkit.Exec(w.t, w.Config.Postgres.URL, statements)
}

// Query returns the one value of a query.
func (w *World) Query(query string, args ...any) string {
	w.t.Helper()
	return testkit.Query(w.t, w.Config.Postgres.URL, query, args...)
}

// Insert commits an event with the number as its id, and the rest of the columns.
func (w *World) Insert(n int, columns, values string) {
	w.t.Helper()
	if columns != "" {
		columns, values = ", "+columns, ", "+values
	}
	w.Exec(fmt.Sprintf("INSERT INTO public.outbox (id, event_type, source%s) VALUES ('%s', 'a', '/s'%s)", columns, ID(n), values))
}

// ID is the id of an event with a number.
func ID(n int) string { return fmt.Sprintf("00000000-0000-0000-0000-%012d", n) }

// Count returns how many messages a stream has.
func (w *World) Count(name string) int {
	w.t.Helper()
	stream, err := w.JS.Stream(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return int(stream.CachedInfo().State.Msgs)
}

// Stream returns the ids of the events in a stream, in order.
func (w *World) Stream(name string) []string {
	w.t.Helper()
	return w.messages(name, func(msg *jetstream.RawStreamMsg) string { return msg.Header.Get("ce-id") })
}

// Data returns the data of the messages of a stream, in order.
func (w *World) Data(name string) []string {
	w.t.Helper()
	return w.messages(name, func(msg *jetstream.RawStreamMsg) string { return string(msg.Data) })
}

func (w *World) messages(name string, of func(*jetstream.RawStreamMsg) string) (all []string) {
	w.t.Helper()
	stream, err := w.JS.Stream(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	state := stream.CachedInfo().State
	for seq := max(state.FirstSeq, 1); seq <= state.LastSeq; seq++ {
		msg, err := stream.GetMsg(w.t.Context(), seq)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, of(msg))
	}
	return all
}

// Recreate deletes a stream and makes it again, as it was, changed.
func (w *World) Recreate(name string, change func(*jetstream.StreamConfig)) {
	w.t.Helper()
	stream, err := w.JS.Stream(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	if change != nil {
		change(&cfg)
	}
	if err := w.JS.DeleteStream(w.t.Context(), name); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.JS.CreateStream(w.t.Context(), cfg); err != nil {
		w.t.Fatal(err)
	}
}
