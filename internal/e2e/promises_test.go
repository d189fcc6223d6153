package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/child"
	"github.com/walrelay/walrelay/internal/localpg"
	"github.com/walrelay/walrelay/internal/testkit"
)

func TestP3_EightWriters(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.run()
	w := startWriters(t, e.postgresURL, 8, 0)
	e.awaitMessages("EVENTS", 3000)
	w.end()
	e.awaitLedger()
}

func TestP1_RelayKilledEveryHalfSecond(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	// A duplicate window that is long over at the next start: it must not be
	// what keeps events from being stored twice.
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 200 * time.Millisecond })
	w := startWriters(t, e.postgresURL, 4, 2*time.Millisecond)
	for range 12 {
		r := e.start()
		time.Sleep(500 * time.Millisecond) // not for a condition: the fault comes at any moment
		r.Kill()
	}
	e.run()
	w.end()
	e.awaitLedger()
}

func TestP1_NATSRestarted(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	r := e.run()
	w := startWriters(t, e.postgresURL, 4, time.Millisecond)
	for range 3 {
		e.awaitMore("EVENTS", 200)
		e.server.Stop()
		testkit.Eventually(t, 10*time.Second, "the relay says that it is not ready", func() error {
			if status, _ := r.get("/readyz"); status != 503 {
				return fmt.Errorf("/readyz says %d", status)
			}
			return nil
		})
		e.restartNATS()
	}
	e.awaitMore("EVENTS", 200)
	w.end()
	e.awaitLedger()
}

func TestP1_PostgresCrashed(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.init()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 200 * time.Millisecond })
	e.run()
	w := startWriters(t, e.postgresURL, 4, time.Millisecond)
	for range 3 {
		e.awaitMore("EVENTS", 200)
		e.stopPostgres(localpg.Immediate)
		e.startPostgres()
	}
	e.awaitMore("EVENTS", 200)
	w.end()
	e.awaitLedger()
}

// Postgres up to 16 forgets at a clean restart what the slot had confirmed
// since the last checkpoint, and sends it again.
func TestP2_PostgresRestarted(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.init()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 100 * time.Millisecond })
	e.run()
	e.insert(50)
	e.awaitCaughtUp()
	e.stopPostgres(localpg.Fast)
	e.startPostgres()
	e.insert(50)
	e.awaitCaughtUp()
	checkOnce(t, e, 100)
}

func TestP4_MillionEventsInOneTransaction(t *testing.T) {
	if testing.Short() {
		t.Skip("a million events take half a minute")
	}
	e := newEnv(t, own)
	e.plain = true
	e.init()
	r := e.run()
	const events = 1_000_000
	testkit.Exec(t, e.postgresURL, fmt.Sprintf(`
		INSERT INTO public.outbox (event_type, source, data)
		SELECT 'order.created', '/e2e', jsonb_build_object('n', n, 'pad', repeat('x', 250))
		FROM generate_series(1, %d) AS n`, events))
	testkit.Eventually(t, 3*time.Minute, "a million events are in the stream", func() error {
		if n := e.messages("EVENTS"); n != events {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	if peak := child.PeakMemory(r.PID()); peak > 128<<20 {
		t.Errorf("the relay's peak memory is %d MiB, want at most 128", peak>>20)
	} else {
		t.Logf("peak memory: %d MiB", peak>>20)
	}
	e.awaitCaughtUp()
	if code := r.stop(); code != 0 {
		t.Errorf("the relay ended with %d, want 0", code)
	}
}

func TestStandby_TakesOverWithinFiveSeconds(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	first := e.run()
	standby := e.start()
	standby.awaitLog("waiting as a standby")
	if status, body := standby.get("/readyz?standby=ok"); status != 200 || !strings.Contains(body, "standby") {
		t.Errorf("the standby's /readyz?standby=ok says %d %q", status, body)
	}
	if status, body := standby.get("/readyz"); status != 503 || !strings.Contains(body, "standby") {
		t.Errorf("the standby's /readyz says %d %q, want 503 and that it is a standby", status, body)
	}
	w := startWriters(t, e.postgresURL, 2, time.Millisecond)
	e.awaitMore("EVENTS", 200)
	first.Kill()
	killed := time.Now()
	standby.awaitReady()
	if took := time.Since(killed); took > 5*time.Second {
		t.Errorf("the standby took over after %s, want at most 5s", took)
	}
	e.awaitMore("EVENTS", 200)
	w.end()
	e.awaitLedger()
}

// A relay that was frozen with messages under way wakes up after another has
// taken the slot: nothing of its own may be stored any more.
func TestP3_RelayThatLostItsSlotStoresNothing(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 100 * time.Millisecond })
	w := startWriters(t, e.postgresURL, 4, 0)
	for range 3 {
		frozen := e.run()
		e.awaitMore("EVENTS", 300)
		frozen.Signal(syscall.SIGSTOP)
		pid := testkit.Query(t, e.postgresURL, "SELECT active_pid::text FROM pg_replication_slots WHERE slot_name = $1", e.slot)
		if pid == "" {
			t.Fatal("the frozen relay does not hold the slot; this test shows nothing")
		}
		testkit.Exec(t, e.postgresURL, "SELECT pg_terminate_backend("+pid+")")
		second := e.run()
		e.awaitMore("EVENTS", 300)
		frozen.Signal(syscall.SIGCONT)
		e.awaitMore("EVENTS", 300)
		frozen.Kill()
		second.Kill()
	}
	w.end()
	e.run()
	e.awaitLedger()
}

func TestRun_SIGTERMUnderLoad(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 100 * time.Millisecond })
	w := startWriters(t, e.postgresURL, 4, 0)
	for range 3 {
		r := e.run()
		e.awaitMore("EVENTS", 300)
		asked := time.Now()
		if code := r.stop(); code != 0 {
			t.Errorf("the relay ended with %d after SIGTERM, want 0", code)
		}
		if took := time.Since(asked); took > 5*time.Second {
			t.Errorf("the relay took %s to end, want seconds", took)
		}
		if logs := r.logs.String(); !strings.Contains(logs, `"message":"stopped"`) || !strings.Contains(logs, "flush_lsn") {
			t.Errorf("the relay does not say up to where it came:\n%s", r.logs.Tail(5))
		}
	}
	w.end()
	e.run()
	e.awaitLedger()
}

func TestP6_PostgresStopsWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	for name, events := range map[string]int{
		"with a few events waiting":   10,
		"with the window overflowing": 60_000,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, own)
			e.init()
			e.run()
			e.server.Stop()
			e.insert(events)
			stopped := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := e.cluster.Stop(ctx, localpg.Fast); err != nil {
				t.Fatalf("Postgres does not stop while NATS is away: %v", err)
			}
			if took := time.Since(stopped); took > 10*time.Second {
				t.Errorf("Postgres took %s to stop, want at most 10s", took)
			}
			e.restartNATS()
			e.startPostgres()
			e.awaitCaughtUp()
			checkOnce(t, e, events)
		})
	}
}

func TestP6_SlowNATSKeepsTheWalsender(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	testkit.AlterSystem(t, e.postgresURL, "SET wal_sender_timeout = '2s'")
	e.init()
	e.run()
	e.server.Stop()
	// More than the window, so that the relay stops reading; and quickly: after 15
	// seconds unsettled it would read again, and drop what it reads.
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (event_type, source) SELECT 'order.created', '/e2e' FROM generate_series(1, 60000)")
	pid := e.walsender()
	deadline := time.Now().Add(7 * time.Second)
	for time.Now().Before(deadline) {
		if now := e.walsender(); now != pid {
			t.Fatalf("the walsender was %q and is %q now: the connection was lost", pid, now)
		}
		time.Sleep(100 * time.Millisecond)
	}
	e.restartNATS()
	e.awaitCaughtUp()
	checkOnce(t, e, 60_000)
	if now := e.walsender(); now != pid {
		t.Errorf("the walsender was %q and is %q now: the connection was lost", pid, now)
	}
}

func TestP6_IdleSlotAdvances(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(*env){
		"and the database is busy": func(e *env) {
			testkit.Exec(t, e.postgresURL, "CREATE TABLE IF NOT EXISTS busy (pad text); INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1, 2000)")
		},
		"and another database is busy": func(e *env) {
			testkit.Exec(t, e.cluster.URL("postgres"), "CREATE TABLE IF NOT EXISTS busy (pad text); INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1, 2000)")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, own)
			e.init()
			e.run()
			before := testkit.Query(t, e.postgresURL, "SELECT pg_current_wal_lsn()::text")
			write(e)
			testkit.Eventually(t, 15*time.Second, "the slot confirms what it has nothing to do with", func() error {
				ahead := testkit.Query(t, e.postgresURL,
					"SELECT (confirmed_flush_lsn - $1::text::pg_lsn)::text FROM pg_replication_slots WHERE slot_name = $2", before, e.slot)
				if len(ahead) < 7 { // a megabyte
					return fmt.Errorf("it is %s bytes past where it was", ahead)
				}
				return nil
			})
		})
	}
}

// Keepalives go on while publishing hangs; they must not move the slot past
// events that nobody has.
func TestP1_SlotStaysWhilePublishingHangs(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.init()
	r := e.run()
	e.server.Stop()
	e.insert(10)
	testkit.Exec(t, e.cluster.URL("postgres"), "CREATE TABLE busy (pad text)")
	for range 15 {
		testkit.Exec(t, e.cluster.URL("postgres"), "INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1, 500)")
		time.Sleep(200 * time.Millisecond) // several reports long
	}
	r.Kill()
	e.restartNATS()
	e.run()
	e.awaitCaughtUp()
	checkOnce(t, e, 10)
}

func TestP6_LostSlotEndsTheRelay(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	r := e.run()
	pid := e.walsender()
	testkit.Exec(t, e.postgresURL, fmt.Sprintf("SELECT pg_terminate_backend(%s); ", pid))
	testkit.Eventually(t, 10*time.Second, "the slot can be dropped", func() error {
		out := testkit.Query(t, e.postgresURL, "SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = $1", e.slot)
		if out == "0" {
			return nil
		}
		conn := testkit.Connect(t, e.postgresURL)
		_, err := conn.Exec(t.Context(), "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '"+e.slot+"' AND active")
		if err == nil {
			_, err = conn.Exec(t.Context(), "SELECT pg_drop_replication_slot('"+e.slot+"')")
		}
		return err
	})
	if code := r.wait(20 * time.Second); code != 1 {
		t.Errorf("the relay ended with %d, want 1", code)
	}
	if logs := r.logs.String(); !strings.Contains(logs, "does not exist") || !strings.Contains(logs, "walrelay init") {
		t.Errorf("the relay does not say what is wrong and what to do:\n%s", r.logs.Tail(5))
	}
	if n := testkit.Query(t, e.postgresURL, "SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = $1", e.slot); n != "0" {
		t.Error("the relay made the slot again, as if nothing had been lost")
	}
}

func TestP7_DeletedStreamEndsTheRelay(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	r := e.run()
	e.insert(20)
	e.awaitCaughtUp()
	if err := e.jetstream().DeleteStream(t.Context(), "EVENTS"); err != nil {
		t.Fatal(err)
	}
	e.insert(20)
	if code := r.wait(40 * time.Second); code != 1 {
		t.Errorf("the relay ended with %d, want 1", code)
	}
	if logs := r.logs.String(); !strings.Contains(logs, `does not exist`) || !strings.Contains(logs, "docs/operations.md") {
		t.Errorf("the relay does not say what is wrong and what to do:\n%s", r.logs.Tail(5))
	}
}

func TestP2_PurgedStream(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 100 * time.Millisecond })
	r := e.run()
	e.insert(20)
	e.awaitCaughtUp()
	stream, err := e.jetstream().Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.insert(10)
	e.awaitMessages("EVENTS", 10)
	r.Kill() // so that the slot sends again what it was not told of
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.run()
	e.insert(10)
	e.awaitCaughtUp()
	if n := e.messages("EVENTS"); n != 10 {
		t.Errorf("the stream has %d messages after a purge and 10 new events, want 10", n)
	}
}

func TestP9_ForeignMessageIsReported(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	r := e.run()
	for range 5 {
		e.insert(20)
		if _, err := e.jetstream().Publish(t.Context(), "events.foreign", []byte("not yours")); err != nil {
			t.Fatal(err)
		}
	}
	e.awaitCaughtUp()
	r.awaitLog("somebody else writes into a stream that walrelay owns")
	e.awaitMessages("EVENTS", 105)
	checkEachOnce(t, e, 100)
}

func TestP1_LeaderKilled(t *testing.T) {
	t.Parallel()
	e := newEnv(t, clustered)
	e.init()
	e.run()
	w := startWriters(t, e.postgresURL, 4, 0)
	for range 4 {
		e.awaitMore("EVENTS", 500)
		e.killStreamLeader("EVENTS")
	}
	e.awaitMore("EVENTS", 500)
	w.end()
	e.awaitLedger()
}

func TestP5_FullStreamPauses(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgs, cfg.Discard = 50, jetstream.DiscardNew })
	r := e.run()
	e.insert(200)
	r.awaitLog("maximum messages exceeded")
	if n := e.messages("EVENTS"); n != 50 {
		t.Errorf("the full stream has %d messages, want 50", n)
	}
	if status, body := r.get("/readyz"); status != 503 || !strings.Contains(body, "EVENTS") {
		t.Errorf("/readyz says %d %q, want 503 and the stream's name", status, body)
	}
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgs = -1 })
	r.awaitLog("stream resumed")
	e.awaitCaughtUp()
	checkOnce(t, e, 200)
}

func TestP2_WorkQueue(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	js := e.jetstream()
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "EVENTS", Subjects: []string{"events.>"}, Retention: jetstream.WorkQueuePolicy, Duplicates: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	e.init()
	consumer, err := js.CreateConsumer(t.Context(), "EVENTS", jetstream.ConsumerConfig{Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	seen := newTally()
	consuming, err := consumer.Consume(func(msg jetstream.Msg) {
		seen.add(msg.Headers().Get("ce-id"))
		_ = msg.Ack()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer consuming.Stop()
	for range 6 {
		r := e.run()
		e.insert(100)
		time.Sleep(200 * time.Millisecond) // not for a condition: the fault comes at any moment
		r.Kill()
	}
	e.run()
	e.awaitCaughtUp()
	testkit.Eventually(t, 10*time.Second, "the consumer has seen 600 events", func() error {
		if n := seen.distinct(); n != 600 {
			return fmt.Errorf("it has seen %d", n)
		}
		return nil
	})
	if doubled := seen.doubled(); doubled > 0 {
		t.Errorf("%d of 600 events were consumed twice", doubled)
	}
}

func TestSharedStream(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig("streams: [{name: EVENTS, subjects: [\"events.>\"], shared: true}]\n")
	e.init()
	r := e.run()
	r.awaitLog("shared")
	for range 5 {
		e.insert(20)
		if _, err := e.jetstream().Publish(t.Context(), "events.foreign", []byte("mine")); err != nil {
			t.Fatal(err)
		}
	}
	e.awaitCaughtUp()
	e.awaitMessages("EVENTS", 105)
	checkEachOnce(t, e, 100)
}

func TestRoutes_SeveralStreams(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig(`
publish: {subject: "orders.other.{type}"}
streams:
  - {name: ORDERS, subjects: ["orders.>"]}
  - {name: USERS, subjects: ["users.>"]}
routes:
  - {type: "order.debug", drop: true}
  - {type: "order.*", stream: ORDERS, subject: "orders.{type}.{partition_key}"}
  - {type: "user.*", stream: USERS, subject: "users.{type}", mode: structured}
`)
	e.init()
	w := func(typ string) string {
		return "INSERT INTO public.outbox (event_type, source, data, partition_key) SELECT '" + typ +
			"', '/e2e', jsonb_build_object('n', n), 'k' || n % 3 FROM generate_series(1, 40) AS n;"
	}
	for range 4 {
		r := e.run()
		testkit.Exec(t, e.postgresURL, w("order.created")+w("user.created")+w("order.debug"))
		time.Sleep(100 * time.Millisecond) // not for a condition: the fault comes at any moment
		r.Kill()
	}
	e.run()
	e.awaitCaughtUp()
	for stream, want := range map[string]string{"ORDERS": "orders.order.created.k", "USERS": "users.user.created"} {
		messages := readStream(t, e.nats(), stream)
		if len(messages) != 160 {
			t.Errorf("stream %s has %d messages, want 160", stream, len(messages))
		}
		for _, m := range messages {
			if !strings.HasPrefix(m.subject, want) {
				t.Errorf("stream %s has a message on %s, want %s…", stream, m.subject, want)
				break
			}
		}
	}
}

func TestP1_NATSConnectionsCut(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 100 * time.Millisecond })
	e.run()
	w := startWriters(t, e.postgresURL, 4, 0)
	for range 5 {
		e.awaitMore("EVENTS", 300)
		e.cutNATSClients("walrelay")
	}
	e.awaitMore("EVENTS", 300)
	w.end()
	e.awaitLedger()
}

// checkOnce checks that the stream has each of the inserted events once, in
// the order of their positions, and nothing else.
func checkOnce(t *testing.T, e *env, want int) {
	t.Helper()
	messages := readStream(t, e.nats(), "EVENTS")
	if len(messages) != want {
		t.Errorf("the stream has %d messages, want %d", len(messages), want)
	}
	checkEachOnce(t, e, want)
	last := ""
	for i, m := range messages {
		if m.position <= last {
			t.Errorf("message %d has position %q after %q", i+1, m.position, last)
			break
		}
		last = m.position
	}
}

func checkEachOnce(t *testing.T, e *env, want int) {
	t.Helper()
	ids := outboxIDs(t, e.postgresURL)
	if len(ids) != want {
		t.Errorf("the outbox has %d rows, want %d; this test shows nothing", len(ids), want)
	}
	times := map[string]int{}
	for _, m := range readStream(t, e.nats(), "EVENTS") {
		if m.id != "" {
			times[m.id]++
		}
	}
	missing, doubled := 0, 0
	for id := range ids {
		switch times[id] {
		case 0:
			missing++
		case 1:
		default:
			doubled++
		}
	}
	if missing+doubled > 0 {
		t.Errorf("of %d events %d are missing and %d doubled", len(ids), missing, doubled)
	}
}
