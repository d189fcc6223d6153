package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/testkit"
)

// watchWhole looks again and again what the last message of the stream is, until
// the test says that it may end: it must be the last one of a transaction.
func (e *env) watchWhole() (end func()) {
	e.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	looked := make(chan int, 1)
	stream, err := e.jetstream().Stream(ctx, "EVENTS")
	if err != nil {
		e.t.Fatal(err)
	}
	go func() {
		seen := map[uint64]bool{}
		for ctx.Err() == nil {
			last, err := stream.GetLastMsgForSubject(ctx, ">")
			var p payload
			if err != nil || json.Unmarshal(last.Data, &p) != nil {
				continue // no leader, or no message yet
			}
			seen[last.Sequence] = true
			if p.Index != p.Of-1 {
				e.t.Errorf("the stream ended with event %d of %d of transaction %d of writer %d", p.Index, p.Of, p.Tx, p.Writer)
			}
		}
		looked <- len(seen)
	}()
	return func() {
		e.t.Helper()
		cancel()
		if n := <-looked; n < 10 {
			e.t.Errorf("the stream was seen in %d states only; this test shows nothing", n)
		}
	}
}

func TestAtomic_RelayKilled(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig("publish: {atomic: true}\n")
	e.init()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 100 * time.Millisecond })
	endWatching := e.watchWhole()
	w := startWriters(t, e.postgresURL, 2, 20*time.Millisecond)
	for range 6 {
		r := e.run()
		e.awaitMore("EVENTS", 50)
		r.Kill()
	}
	e.run()
	e.awaitMore("EVENTS", 50)
	e.cutNATSClients("walrelay")
	e.awaitMore("EVENTS", 50)
	w.end()
	e.awaitLedger()
	endWatching()
}

func TestAtomic_LeadersKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("Postgres has no part in it")
	}
	t.Parallel()
	e := newEnv(t, clustered)
	e.writeConfig("publish: {atomic: true}\nstreams: [{name: EVENTS, subjects: [\"events.>\"], replicas: 3}]\n")
	e.init()
	e.run()
	endWatching := e.watchWhole()
	w := startWriters(t, e.postgresURL, 4, 0)
	for range 2 {
		e.awaitMore("EVENTS", 300)
		e.killStreamLeader("EVENTS")
	}
	e.awaitMore("EVENTS", 300)
	w.end()
	e.awaitLedger()
	endWatching()
}

// transactionOf writes a transaction of n events on a subject of their own.
func transactionOf(subject string, n int) string {
	return fmt.Sprintf(`INSERT INTO public.outbox (event_type, source, subject, data)
		SELECT 'order.created', '/e2e', '%s', to_jsonb(n) FROM generate_series(1, %d) AS n`, subject, n)
}

func TestAtomic_CannotBeOneBatch(t *testing.T) {
	if testing.Short() {
		t.Skip("Postgres has no part in it")
	}
	t.Parallel()
	for name, test := range map[string]struct {
		config string
		write  string // beside two small transactions
		events int
		split  string // the mark
		reason string
	}{
		"too many events": {
			config: "publish: {atomic: true, atomic_max_events: 100, atomic_overflow: %s}\n",
			write:  transactionOf("bad", 2500), events: 2500, split: "events", reason: "it has more than 100 events",
		},
		"too many events for the server": {
			config: "publish: {atomic: true, atomic_max_events: 3000, atomic_overflow: %s}\n",
			write:  transactionOf("bad", 1001), events: 1001, split: "refused", reason: "batch",
		},
		"too many bytes": {
			config: "publish: {atomic: true, max_in_flight_bytes: 100KiB, atomic_overflow: %s}\n",
			write:  strings.Replace(transactionOf("bad", 20), "to_jsonb(n)", "to_jsonb(repeat('x', 5000))", 1), events: 20,
			split: "bytes", reason: "it has more than 51200 bytes",
		},
		"several streams": {
			config: `publish: {atomic: true, atomic_overflow: %s}
streams: [{name: EVENTS, subjects: ["events.>"]}, {name: OTHER, subjects: ["other.>"]}]
routes: [{type: "user.*", stream: OTHER, subject: "other.{type}"}]
`,
			write: transactionOf("bad", 3) + "; " + strings.ReplaceAll(transactionOf("bad", 2), "order.", "user."), events: 5,
			split: "streams", reason: "its events go to several streams",
		},
		"an event that is too large": {
			config: "publish: {atomic: true, atomic_overflow: %s}\nretry: {max_retries: -1}\n",
			write: transactionOf("bad", 3) + "; " +
				"INSERT INTO outbox (event_type, source, subject, data) VALUES ('order.created', '/e2e', 'bad', to_jsonb(repeat('x', 2000000)))", events: 4,
			split: "refused", reason: "the event is too large",
		},
	} {
		for _, overflow := range []string{"delay", "split"} {
			t.Run(name+", "+overflow, func(t *testing.T) {
				t.Parallel()
				e := newEnv(t, shared)
				e.writeConfig(fmt.Sprintf(test.config, overflow))
				e.init()
				r := e.run()
				testkit.Exec(t, e.postgresURL, transactionOf("small", 4))
				testkit.Exec(t, e.postgresURL, test.write)
				testkit.Exec(t, e.postgresURL, transactionOf("small", 3))
				e.awaitCaughtUp()
				failed := 0
				switch {
				case overflow == "delay":
					failed = test.events
				case strings.Contains(name, "too large"):
					failed = 1
				}
				e.awaitDelayed(wantFailed(failed))
				checkApart(t, e, test.events-failed, test.split)
				if failed > 0 {
					if got := testkit.Query(t, e.postgresURL, "SELECT string_agg(DISTINCT last_error, '|') FROM walrelay.delayed"); !strings.Contains(got, test.reason) {
						t.Errorf("the events failed because %q, want %q", got, test.reason)
					}
				}
				if apart, err := r.metric(fmt.Sprintf("walrelay_transactions_split_total{reason=%q}", test.split)); err != nil || apart != 1 {
					t.Errorf("%v transactions were counted as not whole (%v), want 1", apart, err)
				}
			})
		}
	}
}

func wantFailed(n int) map[string]int {
	if n == 0 {
		return map[string]int{}
	}
	return map[string]int{"failed": n}
}

// checkApart checks that the two small transactions are batches, and that so
// many events of the other are there, marked.
func checkApart(t *testing.T, e *env, want int, mark string) {
	t.Helper()
	batches, marked := map[string]int{}, 0
	messages := readStream(t, e.nats(), "EVENTS")
	if strings.Contains(mark, "streams") {
		messages = append(messages, readStream(t, e.nats(), "OTHER")...)
	}
	for _, m := range messages {
		switch subject, got := m.header.Get("ce-subject"), m.header.Get("Walrelay-Split"); {
		case subject == "small":
			batches[m.header.Get("Nats-Batch-Id")]++
			if got != "" {
				t.Errorf("an event of a small transaction is marked %q", got)
			}
		case got == mark:
			marked++
		default:
			t.Errorf("an event of the other transaction is marked %q, want %q", got, mark)
		}
	}
	if len(batches) != 2 || batches[""] != 0 {
		t.Errorf("the small transactions are in the batches %v, want one for each", batches)
	}
	if marked != want {
		t.Errorf("%d events of the other transaction are in the stream, want %d", marked, want)
	}
}

// Events that failed with their transaction are published when somebody says
// so, one by one.
func TestAtomic_FailedIsRedriven(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig("publish: {atomic: true, atomic_max_events: 5}\n")
	e.init()
	e.run()
	testkit.Exec(t, e.postgresURL, transactionOf("bad", 20))
	e.awaitDelayed(map[string]int{"failed": 20})
	if n := testkit.Query(t, e.postgresURL, "SELECT walrelay.redrive(error => 'cannot be one batch')::text"); n != "20" {
		t.Errorf("redrive changed %s events, want 20", n)
	}
	e.awaitDelayed(map[string]int{})
	e.awaitCaughtUp()
	checkOnce(t, e, 20)
}

func TestAtomic_StreamDoesNotAllowBatches(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.writeConfig("publish: {atomic: true}\n")
	if output, code := e.walrelay("run"); code != 1 || !strings.Contains(output, `stream "EVENTS" does not allow atomic batches`) ||
		!strings.Contains(output, "nats stream edit EVENTS --allow-batch") {
		t.Errorf("run ends with %d and says %s; want 1, and what to do", code, output)
	}
}
