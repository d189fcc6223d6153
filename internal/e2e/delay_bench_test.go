package e2e_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/child"
	"github.com/walrelay/walrelay/internal/testkit"
)

// BenchmarkReemission measures how fast events go into the delay table and come
// out of it again: due at the same moment (published, or dropped by a route, which
// shows it without NATS), held behind one event of their key, and each held behind
// a failed event of its own key.
func BenchmarkReemission(b *testing.B) {
	const due, held = 200_000, 100_000
	scheduled := func(b *testing.B, e *env) {
		fill(b, e, due, "scheduled_at", "clock_timestamp() + interval '1 hour'")
		awaitTable(b, e, "scheduled", due)
		testkit.Exec(b, e.postgresURL, "VACUUM ANALYZE walrelay.delayed")
	}
	now := func(e *env) {
		testkit.Exec(e.t, e.postgresURL, "SELECT walrelay.reschedule(clock_timestamp() + interval '15 s', everything => true)")
	}
	for name, way := range map[string]struct {
		config string
		into   func(b *testing.B, e *env)
		out    func(e *env)
		events int
	}{
		"due_at_once":             {into: scheduled, out: now, events: due},
		"due_at_once_and_dropped": {config: "routes: [{drop: true}]\n", into: scheduled, out: now, events: due},
		"held_of_one_key": {
			config: "retry: {initial: 1s, max: 1s, max_retries: 100000}\n",
			into: func(b *testing.B, e *env) {
				e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgSize = 1 })
				fill(b, e, held, "partition_key", "'k'")
				awaitTable(b, e, "held", held-1)
			},
			out: func(e *env) {
				e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgSize = -1 })
			},
			events: held,
		},
		"held_of_as_many_keys": {
			config: "retry: {failed_holds_key: true}\n",
			into: func(b *testing.B, e *env) {
				fill(b, e, held, "partition_key, extensions", "'k' || n, '[]'")
				awaitTable(b, e, "failed", held)
				fill(b, e, held, "partition_key", "'k' || n")
				awaitTable(b, e, "held", held)
			},
			out: func(e *env) {
				testkit.Exec(e.t, e.postgresURL, "SELECT walrelay.discard(state => 'failed')")
			},
			events: held,
		},
	} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				e := newBench(b)
				e.writeConfig(way.config)
				e.init()
				r := e.run()
				began := time.Now()
				way.into(b, e)
				filled := time.Since(began)
				way.out(e)
				var first time.Time                            // when one was settled
				pace := time.NewTicker(100 * time.Millisecond) // to ask costs the relay something
				defer pace.Stop()
				testkit.Eventually(b, 10*time.Minute, "all events are settled", func() error {
					<-pace.C
					dropped, err := r.metric(`walrelay_events_total{outcome="dropped"}`)
					if err != nil {
						return err
					}
					got := e.messages("EVENTS") + int(dropped)
					if got > 0 && first.IsZero() {
						first = time.Now()
					}
					if got < way.events {
						return fmt.Errorf("%d of %d events have", got, way.events)
					}
					return nil
				})
				b.ReportMetric(float64(way.events)/filled.Seconds(), "in/s")
				b.ReportMetric(float64(way.events)/time.Since(first).Seconds(), "out/s")
				b.ReportMetric(float64(child.PeakMemory(r.PID()))/(1<<20), "MiB-peak")
				b.ReportMetric(0, "ns/op")
				r.Kill()
			}
		})
	}
}

// fill inserts n events, in transactions of 1 000, with more columns than all
// have; n in their values is the number of the event.
func fill(b *testing.B, e *env, n int, columns, values string) {
	b.Helper()
	for from := 0; from < n; from += 1000 {
		testkit.Exec(b, e.postgresURL, fmt.Sprintf(`
			INSERT INTO public.outbox (event_type, source, subject, data, %s)
			SELECT 'order.created', '/bench', n::text, jsonb_build_object('order', n, 'pad', repeat('x', 270)), %s
			FROM generate_series(%d, %d) AS n`, columns, values, from, from+999))
	}
}

func awaitTable(b *testing.B, e *env, state string, n int) {
	b.Helper()
	testkit.Eventually(b, 10*time.Minute, fmt.Sprintf("%d events are %s", n, state), func() error {
		if states := e.delayed(); states[state] < n {
			return fmt.Errorf("the table has %v", states)
		}
		return nil
	})
}

// BenchmarkLateness schedules 1 000 events a second while a million others wait,
// and measures from when each is due until a consumer has it.
func BenchmarkLateness(b *testing.B) {
	const waiting, rate, seconds = 1_000_000, 1000, 10
	for range b.N {
		e := newBench(b)
		e.init()
		r := e.run()
		testkit.Exec(b, e.postgresURL, fmt.Sprintf(`
			INSERT INTO walrelay.delayed (slot, position, origin, state, due_at, id, event_type, source, table_schema, table_name, content)
			SELECT '%s', p, p, 'scheduled', now() + interval '1 day' + n * interval '1 ms', n::text, 'order.created', '/bench', 'public', 'outbox',
				convert_to(format('{"specversion":"1.0","id":"%%s","source":"/bench","type":"order.created","data":"%%s"}', n, repeat('x', 270)), 'UTF8')
			FROM generate_series(1, %d) AS n, format('0000000000000001.%%s', lpad(upper(to_hex(n)), 8, '0')) AS p`, e.slot, waiting))
		late := make([]time.Duration, 0, rate*seconds)
		arrived := make(chan time.Duration, cap(late))
		js, err := e.nats().JetStream()
		if err != nil {
			b.Fatal(err)
		}
		sub, err := js.Subscribe("events.>", func(msg *nats.Msg) {
			nanoseconds, err := strconv.ParseInt(msg.Header.Get("ce-subject"), 10, 64)
			if err != nil {
				b.Error(err)
			}
			arrived <- time.Since(time.Unix(0, nanoseconds*1000))
		}, nats.OrderedConsumer())
		if err != nil {
			b.Fatal(err)
		}
		testkit.Exec(b, e.postgresURL, fmt.Sprintf(`
			INSERT INTO public.outbox (event_type, source, subject, data, scheduled_at)
			SELECT 'order.created', '/bench', (extract(epoch FROM at) * 1000000)::bigint::text, jsonb_build_object('pad', repeat('x', 270)), at
			FROM generate_series(1, %d) AS n, LATERAL (SELECT clock_timestamp() + interval '5 s' + n * interval '1 s' / %d AS at) AS at`, cap(late), rate))
		for len(late) < cap(late) {
			late = append(late, <-arrived)
		}
		_ = sub.Unsubscribe()
		slices.Sort(late)
		if late[0] < 0 {
			b.Errorf("an event came %v early", -late[0])
		}
		b.ReportMetric(milliseconds(late, 0.5), "ms-p50")
		b.ReportMetric(milliseconds(late, 0.99), "ms-p99")
		b.ReportMetric(milliseconds(late, 1), "ms-max")
		b.ReportMetric(child.ProcessorTime(r.PID(), false).Seconds(), "s-cpu")
		b.ReportMetric(0, "ns/op")
		r.Kill()
	}
}
