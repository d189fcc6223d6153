package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/localpg"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/provision"
	"github.com/walrelay/walrelay/internal/recovery"
	"github.com/walrelay/walrelay/internal/relay"
	"github.com/walrelay/walrelay/internal/relay/relaytest"
	"github.com/walrelay/walrelay/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// TestHandover_ToAnotherCluster has the tests that share one.
func TestHandover_ToAnotherCluster(t *testing.T) {
	t.Parallel()
	cluster := testkit.Newer(t)
	// other is a database of it whose relay writes into the same streams.
	other := func(t *testing.T, w *relaytest.World) *relaytest.World {
		t.Helper()
		cfg := w.Config
		cfg.Postgres.URL = testkit.Database(t, cluster)
		return w.With(cfg)
	}
	for name, test := range map[string]func(*testing.T, func(*testing.T, *relaytest.World) *relaytest.World){
		"under load": underLoad, "delayed events": delayedEvents, "refuses": refuses, "dump and restore": dumpAndRestore,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, other)
		})
	}
}

// writers commit events, of four keys, to the first database that takes them.
type writers struct {
	t         *testing.T
	databases []string
	written   atomic.Int64
	stop      context.CancelFunc
	group     sync.WaitGroup
}

func write(t *testing.T, worlds ...*relaytest.World) *writers {
	t.Helper()
	w := &writers{t: t}
	for _, world := range worlds {
		w.databases = append(w.databases, world.Config.Postgres.URL)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	for key := range 4 {
		w.group.Go(func() { w.run(ctx, key) })
	}
	return w
}

func (w *writers) run(ctx context.Context, key int) {
	var conn *pgx.Conn
	at := 0
	defer func() {
		if conn != nil {
			_ = conn.Close(context.Background())
		}
	}()
	for n := 1; ctx.Err() == nil; {
		var err error
		if conn == nil {
			if conn, err = pgx.Connect(context.Background(), w.databases[at]); err != nil {
				w.t.Errorf("connecting: %v", err)
				return
			}
		}
		// Every fifth event is scheduled: it is in the delay table for a moment.
		_, err = conn.Exec(context.Background(), `INSERT INTO public.outbox (event_type, source, data, partition_key, scheduled_at)
			VALUES ('a', '/s', jsonb_build_object('key', $1::int, 'n', $2::int), 'k' || $1::int, CASE WHEN $2::int % 5 = 0 THEN now() + interval '300 ms' END)`, key, n)
		if err == nil {
			w.written.Add(1)
			n++
			continue
		}
		// Closed, or not open yet: the application goes to the next one.
		_ = conn.Close(context.Background())
		conn, at = nil, (at+1)%len(w.databases)
		time.Sleep(20 * time.Millisecond) // as an application would
	}
}

// end ends the writers and returns how many events they have committed.
func (w *writers) end() int {
	w.stop()
	w.group.Wait()
	return int(w.written.Load())
}

// await waits until so many events more are in the stream.
func (w *writers) await(world *relaytest.World, more int) {
	w.t.Helper()
	want := world.Count("EVENTS") + more
	testkit.Eventually(w.t, time.Minute, fmt.Sprintf("%d events are in the stream", want), func() error {
		if n := world.Count("EVENTS"); n < want {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
}

// move hands over from one world to the other, interrupted at each step and called again.
func move(t *testing.T, from, to *relaytest.World, stop func()) {
	t.Helper()
	broken := errors.New("interrupted")
	seen := make(map[string]bool)
	hook := func(name string) error {
		if !seen[name] {
			seen[name] = true
			return broken
		}
		return nil
	}
	stopOnce := sync.OnceFunc(stop)
	for {
		report, err := Close(t.Context(), from.Config, CloseOptions{Stopping: stopOnce, step: hook})
		if errors.Is(err, broken) {
			continue
		}
		if err != nil {
			t.Fatalf("closing: %v", err)
		}
		t.Logf("closed: %+v", report)
		break
	}
	for {
		report, err := Open(t.Context(), to.Config, OpenOptions{From: &from.Config, step: hook})
		if errors.Is(err, broken) {
			continue
		}
		if err != nil {
			t.Fatalf("opening: %v", err)
		}
		t.Logf("opened: %+v", report)
		break
	}
	if len(seen) != 6 {
		t.Errorf("it was interrupted at %v", seen)
	}
}

// handle runs a handler that has one effect for each event, and returns the URL of its
// database. It has the key of the first database only.
func handle(t *testing.T, w *relaytest.World) (url string) {
	t.Helper()
	url = testkit.Database(t, testkit.Shared(t))
	conn := testkit.Connect(t, url)
	if err := inbox.Migrate(t.Context(), conn, inbox.Roles{}); err != nil {
		t.Fatal(err)
	}
	testkit.Exec(t, url, "CREATE TABLE effects (id uuid)")
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	nc, _ := testkit.JetStream(t, w.Config.NATS.URL)
	var registry inbox.Registry
	inbox.On(&registry, "effects", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[json.RawMessage]) error {
		_, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1)", ev.ID)
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- inbox.Run(ctx, inbox.Config{NATS: nc, Pool: pool, Log: slog.New(slog.DiscardHandler), Keys: func(ctx context.Context) (map[string][]byte, error) {
			conn, err := pgx.Connect(ctx, w.Config.Postgres.URL)
			if err != nil {
				return nil, err
			}
			defer func() { _ = conn.Close(ctx) }()
			var key []byte
			if err := conn.QueryRow(ctx, "SELECT key FROM walrelay.secrets WHERE slot = $1", w.Config.Slot).Scan(&key); err != nil {
				return nil, err
			}
			return map[string][]byte{w.Config.Slot: key}, nil
		}}, &registry)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the handler ended with %v", err)
		}
		pool.Close()
	})
	return url
}

// Under load, interrupted at each step, to another cluster and back: nothing is lost, nothing
// comes twice, and each key keeps its order.
func underLoad(t *testing.T, other func(*testing.T, *relaytest.World) *relaytest.World) {
	t.Helper()
	a := relaytest.New(t, config.Config{}, "")
	b := other(t, a)
	effects := handle(t, a)
	load := write(t, a, b)
	stop := a.Start()
	load.await(a, 200)
	move(t, a, b, stop)
	stop = b.Start()
	load.await(a, 200)
	move(t, b, a, stop)
	stop = a.Start()
	load.await(a, 200)
	total := load.end()
	testkit.Eventually(t, time.Minute, fmt.Sprintf("%d events are in the stream", total), func() error {
		if n := a.Count("EVENTS"); n < total {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	a.AwaitSettled()
	stop()
	last := make(map[int]int)
	seen := make(map[string]bool)
	for i, data := range a.Data("EVENTS") {
		var key, n int
		if _, err := fmt.Sscanf(data, `{"n": %d, "key": %d}`, &n, &key); err != nil {
			t.Fatalf("message %d is %s: %v", i+1, data, err)
		}
		if seen[data] {
			t.Errorf("message %d is event %d of key %d again", i+1, n, key)
		}
		seen[data] = true
		if n%5 == 0 {
			continue
		}
		if n <= last[key] {
			t.Errorf("message %d is event %d of key %d, after %d", i+1, n, key, last[key])
		}
		last[key] = n
	}
	if got := a.Count("EVENTS"); got != total {
		t.Errorf("the stream has %d messages of %d events", got, total)
	}
	testkit.Eventually(t, time.Minute, "the handler has had every event", func() error {
		got := testkit.Query(t, effects, "SELECT count(*) || ' ' || count(DISTINCT id) FROM effects")
		if want := fmt.Sprintf("%d %[1]d", total); got != want {
			return fmt.Errorf("events and different ones: %s, want %s", got, want)
		}
		return nil
	})
}

// hand closes one world and opens the other.
func hand(t *testing.T, from, to *relaytest.World, options OpenOptions) Report {
	t.Helper()
	stop := from.Start()
	if _, err := Close(t.Context(), from.Config, CloseOptions{Stopping: sync.OnceFunc(stop)}); err != nil {
		t.Fatalf("closing: %v", err)
	}
	report, err := Open(t.Context(), to.Config, options)
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	return report
}

// delay has events of which one is retrying, two are held behind it, and one is scheduled.
func delay(t *testing.T, w *relaytest.World) {
	t.Helper()
	testkit.UpdateStream(t, w.JS, "EVENTS", func(c *jetstream.StreamConfig) { c.MaxMsgSize = 2000 })
	w.Insert(1, "partition_key, data", "'k', to_jsonb(repeat('x', 4000))")
	w.Insert(2, "partition_key", "'k'")
	w.Insert(3, "partition_key", "'k'")
	w.Insert(4, "scheduled_at", "now() + interval '1 hour'")
	w.Insert(5, "", "")
	w.Publish()
}

// checkDelayed checks that the events of delay are in the delay table, and go on from there.
func checkDelayed(t *testing.T, w *relaytest.World) {
	t.Helper()
	const states = "SELECT string_agg(right(id, 1) || ' ' || state, ', ' ORDER BY position) FROM walrelay.delayed"
	if got, want := w.Query(states), "1 retrying, 2 held, 3 held, 4 scheduled"; got != want {
		t.Errorf("the delay table has %s, want %s", got, want)
	}
	stop := w.Start()
	defer stop()
	w.Insert(6, "partition_key", "'k'")
	w.Insert(7, "", "")
	w.AwaitSettled()
	if got := w.Query(states); got != "1 retrying, 2 held, 3 held, 4 scheduled, 6 held" {
		t.Errorf("with a later event of the key, it has %s", got)
	}
	w.Exec("SELECT walrelay.discard('" + relaytest.ID(1) + "'::text)")
	w.Exec("SELECT walrelay.reschedule(now(), '" + relaytest.ID(4) + "'::text)")
	testkit.Eventually(t, time.Minute, "every event is in the stream", func() error {
		if n := w.Count("EVENTS"); n < 6 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	var got []string
	for _, id := range w.Stream("EVENTS") {
		if n := id[len(id)-1:]; n != "4" { // it comes when it comes
			got = append(got, n)
		}
	}
	if strings.Join(got, " ") != "5 7 2 3 6" {
		t.Errorf("the stream has %v", got)
	}
	testkit.Eventually(t, time.Minute, "the states are known", func() error {
		got := w.Query("SELECT string_agg(state, ' ' ORDER BY n) FROM (VALUES (5), (7)) AS v (n), walrelay.event_status('00000000-0000-0000-0000-00000000000' || n)")
		if got != "unknown published" {
			return fmt.Errorf("they are %s", got)
		}
		return nil
	})
}

func delayedEvents(t *testing.T, other func(*testing.T, *relaytest.World) *relaytest.World) {
	t.Helper()
	a := relaytest.New(t, config.Config{Retry: config.Retry{Initial: time.Hour}}, "")
	delay(t, a)
	b := other(t, a)
	report := hand(t, a, b, OpenOptions{From: &a.Config})
	if report.Delayed != 4 || report.Streams["EVENTS"] != 1 {
		t.Errorf("%+v", report)
	}
	// The row of the event that is in the stream was not copied: nobody knows of it there.
	checkDelayed(t, b)
}

// A closed slot that nobody has taken over goes on where it was.
func TestHandover_TakenBack(t *testing.T) {
	t.Parallel()
	a := relaytest.New(t, config.Config{Outbox: config.Outbox{AfterPublish: "keep"}, Retry: config.Retry{Initial: time.Hour}}, "")
	delay(t, a)
	hand(t, a, a, OpenOptions{})
	checkDelayed(t, a)
}

func refuses(t *testing.T, other func(*testing.T, *relaytest.World) *relaytest.World) {
	t.Helper()
	a := relaytest.New(t, config.Config{}, "")
	b, c := other(t, a), other(t, a)
	c.Config.Slot += "_c" // slots belong to the cluster
	want := func(err error, id string) {
		t.Helper()
		if found, ok := problem.Find(err); !ok || found.ID != id {
			t.Errorf("want %s, got %v", id, err)
		}
	}
	_, err := Close(t.Context(), a.Config, CloseOptions{})
	want(err, "handover_nothing")
	a.Insert(1, "", "")
	a.Publish()
	_, err = Open(t.Context(), b.Config, OpenOptions{From: &a.Config})
	want(err, "handover_open")
	_, err = Open(t.Context(), a.Config, OpenOptions{})
	want(err, "handover_open")

	// The relay is killed: the stream has more than is saved.
	recorded := a.Query("SELECT streams::text FROM walrelay.progress")
	a.Insert(2, "", "")
	stop := a.Start()
	_, err = Close(t.Context(), a.Config, CloseOptions{Stopping: sync.OnceFunc(func() {
		stop()
		a.Exec("UPDATE walrelay.progress SET streams = '" + recorded + "'")
	})})
	want(err, "handover_stream")
	if _, err := pgxExec(t, a, "INSERT INTO public.outbox (event_type, source) VALUES ('a', '/s')"); err == nil || !strings.Contains(err.Error(), "is closed") {
		t.Errorf("an event for a closed outbox: %v", err)
	}
	if _, err := pgxExec(t, a, "SELECT walrelay.publish_event('a', '/s')"); err == nil {
		t.Error("publish_event writes into a closed outbox")
	}
	stop = a.Start() // it ends in order now
	if _, err := Close(t.Context(), a.Config, CloseOptions{Stopping: sync.OnceFunc(stop)}); err != nil {
		t.Fatal(err)
	}
	// Again, it says the same.
	if report, err := Close(t.Context(), a.Config, CloseOptions{}); err != nil || report.Streams["EVENTS"] != 2 {
		t.Errorf("closing again: %+v, %v", report, err)
	}
	if _, err := pgxExec(t, a, "SELECT walrelay.emit_event('{}')"); err == nil {
		t.Error("emit_event takes events of a closed slot")
	}
	_, err = provision.Setup(t.Context(), a.Config)
	want(err, "handed_over")
	// Somebody gives the old cluster a slot again.
	a.Exec("SELECT pg_create_logical_replication_slot('" + a.Config.Slot + "', 'pgoutput')")
	r, err := relay.New(a.Config.WithDefaults(), zerolog.Nop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want(r.Run(t.Context()), "handed_over")

	// Until it is open, the new outbox takes nothing: there is perhaps no slot yet.
	broken := errors.New("interrupted")
	_, err = Open(t.Context(), b.Config, OpenOptions{From: &a.Config, step: func(string) error { return broken }})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if _, err := pgxExec(t, b, "INSERT INTO public.outbox (event_type, source) VALUES ('a', '/s')"); err == nil || !strings.Contains(err.Error(), "is closed") {
		t.Errorf("an event before the slot is open: %v", err)
	}
	for range 2 { // again, it says the same
		if report, err := Open(t.Context(), b.Config, OpenOptions{From: &a.Config}); err != nil || report.Streams["EVENTS"] != 2 {
			t.Fatalf("opening: %+v, %v", report, err)
		}
	}
	_, err = Open(t.Context(), c.Config, OpenOptions{From: &a.Config})
	want(err, "handover_taken")
	b.Insert(3, "", "")
	b.Publish()
	// It takes nothing back that it has handed over.
	_, err = Open(t.Context(), a.Config, OpenOptions{})
	want(err, "handover_taken")
	if got := strings.Join(b.Stream("EVENTS"), " "); got != strings.Join([]string{relaytest.ID(1), relaytest.ID(2), relaytest.ID(3)}, " ") {
		t.Errorf("the stream has %s", got)
	}
}

func pgxExec(t *testing.T, w *relaytest.World, statement string) (string, error) {
	t.Helper()
	tag, err := testkit.Connect(t, w.Config.Postgres.URL).Exec(t.Context(), statement)
	return tag.String(), err
}

// The database is dumped after the close and restored in another cluster.
func dumpAndRestore(t *testing.T, other func(*testing.T, *relaytest.World) *relaytest.World) {
	t.Helper()
	bin := testkit.Shared(t).BinDir()
	if _, err := exec.LookPath(filepath.Join(bin, "pg_dump")); err != nil {
		t.Skip("these binaries of Postgres have no pg_dump")
	}
	a := relaytest.New(t, config.Config{Outbox: config.Outbox{AfterPublish: "keep"}, Retry: config.Retry{Initial: time.Hour}}, "")
	delay(t, a)
	b := other(t, a)
	dump := func() {
		t.Helper()
		b.Exec("DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS walrelay CASCADE; DROP PUBLICATION IF EXISTS " + a.Config.Publication)
		// Roles belong to the cluster. (That of the superuser is there.)
		out, err := exec.CommandContext(t.Context(), "sh", "-c", fmt.Sprintf("%[1]s/pg_dumpall --roles-only -d '%[2]s' | %[1]s/psql -q '%[3]s' && "+
			"%[1]s/pg_dump '%[2]s' | %[1]s/psql -q -v ON_ERROR_STOP=1 '%[3]s'", bin, a.Config.Postgres.URL, b.Config.Postgres.URL)).CombinedOutput()
		if err != nil {
			t.Fatalf("copying the database: %v\n%s", err, out)
		}
	}
	// A copy from before the close is none.
	dump()
	stop := a.Start()
	if _, err := Close(t.Context(), a.Config, CloseOptions{Stopping: sync.OnceFunc(stop)}); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), b.Config, OpenOptions{})
	if found, ok := problem.Find(err); !ok || found.ID != "handover_open" {
		t.Errorf("a copy from before the close: %v", err)
	}
	dump()
	if report, err := Open(t.Context(), b.Config, OpenOptions{}); err != nil || report.Delayed != 4 {
		t.Fatalf("opening: %+v, %v", report, err)
	}
	checkDelayed(t, b)
}

// The cluster is upgraded with pg_upgrade.
func TestHandover_PgUpgrade(t *testing.T) {
	t.Parallel()
	upgrade := func(t *testing.T, stop func(*relaytest.World)) *relaytest.World {
		t.Helper()
		before, after := testkit.Postgres(t), testkit.Postgres(t)
		if _, err := exec.LookPath(filepath.Join(after.BinDir(), "pg_upgrade")); err != nil {
			t.Skip("these binaries of Postgres have no pg_upgrade")
		}
		base := relaytest.New(t, config.Config{Outbox: config.Outbox{AfterPublish: "keep"}, Retry: config.Retry{Initial: time.Hour}}, "")
		cfg := base.Config
		cfg.Postgres.URL = testkit.Database(t, before)
		no := false
		cfg.Publish.MessageID = &no // so that the stream would have what is published twice
		a := base.With(cfg)
		a.Init()
		delay(t, a)
		stop(a)
		for _, c := range []*localpg.Cluster{before, after} {
			if err := c.Stop(t.Context(), localpg.Fast); err != nil {
				t.Fatal(err)
			}
		}
		if err := after.Upgrade(t.Context(), before); err != nil {
			t.Fatal(err)
		}
		if err := after.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		cfg.Postgres.URL = strings.Replace(cfg.Postgres.URL, fmt.Sprint(before.Port()), fmt.Sprint(after.Port()), 1)
		return base.With(cfg)
	}
	t.Run("closed", func(t *testing.T) {
		t.Parallel()
		b := upgrade(t, func(a *relaytest.World) {
			if _, err := Close(t.Context(), a.Config, CloseOptions{Stopping: sync.OnceFunc(a.Start())}); err != nil {
				t.Fatal(err)
			}
		})
		if report, err := Open(t.Context(), b.Config, OpenOptions{}); err != nil || report.Delayed != 4 {
			t.Fatalf("opening: %+v, %v", report, err)
		}
		checkDelayed(t, b)
	})
	// From Postgres 17 on pg_upgrade keeps a slot that has read everything: it makes one of that name
	// in the new cluster, as this test does.
	t.Run("kept", func(t *testing.T) {
		t.Parallel()
		var slot string
		b := upgrade(t, func(a *relaytest.World) {
			slot = a.Config.Slot
			a.Exec("SELECT pg_drop_replication_slot('" + slot + "')")
		})
		if _, err := Open(t.Context(), b.Config, OpenOptions{}); err == nil || !strings.Contains(err.Error(), "is not closed there") {
			t.Errorf("a slot that is neither closed nor here is opened: %v", err)
		}
		b.Exec("SELECT pg_create_logical_replication_slot('" + slot + "', 'pgoutput')")
		// An application that does not wait.
		b.Exec("SELECT walrelay.emit_event('early', '/s', slot => '" + slot + "', id => '" + relaytest.ID(8) + "')")
		r, err := relay.New(b.Config.WithDefaults(), zerolog.Nop(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), `after pg_upgrade run "walrelay handover open"`) {
			t.Errorf("the relay says %v", err)
		}
		broken := errors.New("interrupted")
		for _, at := range []string{"set up", "claimed", "taken over"} {
			if _, err := Open(t.Context(), b.Config, OpenOptions{step: func(name string) error {
				if name == at {
					return broken
				}
				return nil
			}}); !errors.Is(err, broken) {
				t.Fatalf("%s: %v", at, err)
			}
		}
		if report, err := Open(t.Context(), b.Config, OpenOptions{}); err != nil || report.Delayed != 4 {
			t.Fatalf("opening: %+v, %v", report, err)
		}
		b.Publish()
		if got := b.Stream("EVENTS"); !slices.Equal(got, []string{relaytest.ID(5), relaytest.ID(8)}) {
			t.Fatalf("the stream has %v", got)
		}
	})
}

// A close that is broken off before the slot is closed is taken back.
func TestHandover_BrokenOff(t *testing.T) {
	t.Parallel()
	a := relaytest.New(t, config.Config{}, "")
	a.Insert(1, "", "")
	a.Publish()
	broken := errors.New("interrupted")
	_, err := Close(t.Context(), a.Config, CloseOptions{step: func(string) error { return broken }})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if _, err := pgxExec(t, a, "INSERT INTO public.outbox (event_type, source) VALUES ('a', '/s')"); err == nil {
		t.Error("the outbox takes events")
	}
	report, err := Open(t.Context(), a.Config, OpenOptions{})
	if err != nil || report.From != report.To {
		t.Errorf("%+v, %v", report, err)
	}
	a.Insert(2, "", "")
	a.Publish()
	if got := a.Count("EVENTS"); got != 2 {
		t.Errorf("the stream has %d messages", got)
	}
	if _, err := Open(t.Context(), a.Config, OpenOptions{}); err == nil {
		t.Error("what is not closed was opened")
	}
}

// Another slot of the same database goes on.
func TestHandover_OtherSlot(t *testing.T) {
	t.Parallel()
	a := relaytest.New(t, config.Config{Outbox: config.Outbox{AfterPublish: "keep"}, Retry: config.Retry{Initial: time.Hour}}, "")
	delay(t, a)
	cfg := a.Config
	cfg.Slot += "_new"
	b := a.With(cfg)
	if report := hand(t, a, b, OpenOptions{From: &a.Config}); report.Delayed != 4 {
		t.Errorf("%+v", report)
	}
	a.Exec("DELETE FROM walrelay.delayed WHERE slot = '" + a.Config.Slot + "'") // what the test counts
	checkDelayed(t, b)
}

// The database is lost, and a backup of it is restored: what docs/operations.md says, step by
// step ("A database was restored").
func TestDatabaseRestored_ByThePage(t *testing.T) {
	t.Parallel()
	base := relaytest.New(t, config.Config{Retry: config.Retry{Initial: time.Hour}}, "")
	before := testkit.Postgres(t)
	cfg := base.Config
	cfg.Postgres.URL = testkit.Database(t, before)
	a := base.With(cfg)
	a.Init()
	a.Insert(1, "", "")
	a.Insert(2, "scheduled_at", "now() + interval '1 hour'")
	a.Publish()
	a.Insert(3, "", "") // in the backup, and not published
	if err := before.Stop(t.Context(), localpg.Fast); err != nil {
		t.Fatal(err)
	}
	restored := testkit.Copy(t, before)
	if err := before.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.Exec("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))")
	a.Insert(4, "", "")
	a.Publish()
	if got := a.Count("EVENTS"); got != 3 {
		t.Fatalf("the stream has %d messages before the disaster", got)
	}

	cfg.Postgres.URL = strings.Replace(cfg.Postgres.URL, fmt.Sprint(before.Port()), fmt.Sprint(restored.Port()), 1)
	b := base.With(cfg)
	r, err := relay.New(b.Config.WithDefaults(), zerolog.Nop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if found, ok := problem.Find(r.Run(t.Context())); !ok || found.ID != "database_behind_stream" {
		t.Fatalf("the relay ends with %v", found)
	}

	b.Exec("SELECT pg_drop_replication_slot('" + cfg.Slot + "')")
	stream, err := b.JS.Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := cfg.Slot
	cfg.Slot += "_2"
	b = base.With(cfg)
	b.Init()
	if n := b.Query("SELECT walrelay.adopt($1, $2)::text", old, cfg.Slot); n != "1" {
		t.Errorf("%s events were adopted", n)
	}
	stop := b.Start()
	defer stop()
	b.Insert(5, "", "")
	report, err := recovery.Recover(t.Context(), b.Config, recovery.Options{})
	if err != nil || report.Rows() != 1 {
		t.Errorf("recover: %+v, %v", report, err)
	}
	b.AwaitSettled()
	// The lost database had published 3, which nobody knows any more: it comes again, unless
	// the stream's duplicate window still knows its id.
	if got := b.Stream("EVENTS"); len(got) == 0 || got[0] != relaytest.ID(5) || len(got) > 2 || len(got) == 2 && got[1] != relaytest.ID(3) {
		t.Errorf("the stream has %v", got)
	}
	if got := b.Query("SELECT string_agg(right(id, 1) || ' ' || state, ', ') FROM walrelay.delayed"); got != "2 scheduled" {
		t.Errorf("the delay table has %s", got)
	}
}
