package e2e_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/internal/child"
	"github.com/walrelay/walrelay/internal/testkit"
)

// newBench is newEnv for benchmarks, with settings as a database server has
// them.
func newBench(b *testing.B) *env {
	b.Helper()
	e := newEnv(b, own)
	e.plain = true
	return e
}

// benchEvents is how many events a backlog has; WALRELAY_TEST_BENCH_EVENTS changes it.
func benchEvents(b *testing.B) int {
	b.Helper()
	text := os.Getenv("WALRELAY_TEST_BENCH_EVENTS")
	if text == "" {
		return 400_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkDrain publishes a backlog of events of 300 bytes, with Postgres,
// nats-server and the relay on this machine, and reads the same backlog with a
// reader of pgoutput that does nothing else.
func BenchmarkDrain(b *testing.B) {
	for _, perTransaction := range []int{1000, 1} {
		b.Run(fmt.Sprintf("transactions_of_%d", perTransaction), func(b *testing.B) {
			for range b.N {
				drain(b, perTransaction)
			}
		})
	}
}

func drain(b *testing.B, perTransaction int) {
	e := newBench(b)
	e.init()
	testkit.Exec(b, e.postgresURL, "SELECT pg_create_logical_replication_slot('bare', 'pgoutput')")
	events := benchEvents(b)
	if perTransaction == 1 {
		events /= 4
	}
	testkit.Exec(b, e.postgresURL, `
		CREATE PROCEDURE fill(events int, per int) LANGUAGE plpgsql AS $$
		BEGIN
			FOR i IN 1 .. events / per LOOP
				INSERT INTO public.outbox (event_type, source, subject, data)
				SELECT 'order.created', '/bench', n::text, jsonb_build_object('order', n, 'pad', repeat('x', 270))
				FROM generate_series(1, per) AS n;
				COMMIT;
			END LOOP;
		END $$`)
	testkit.Exec(b, e.postgresURL, fmt.Sprintf("CALL fill(%d, %d)", events, perTransaction))
	testkit.Exec(b, e.postgresURL, "CHECKPOINT")

	started := time.Now()
	bareRead(b, e, events)
	bare := time.Since(started)

	r := e.start()
	started = time.Time{}
	var taken time.Duration
	testkit.Eventually(b, 5*time.Minute, "the backlog is in the stream", func() error {
		n := e.messages("EVENTS")
		if n > 0 && started.IsZero() {
			started = time.Now()
		}
		if n < events {
			return fmt.Errorf("%d of %d events are", n, events)
		}
		taken = time.Since(started)
		return nil
	})
	rate := float64(events) / taken.Seconds()
	bareRate := float64(events) / bare.Seconds()
	b.ReportMetric(rate, "events/s")
	b.ReportMetric(bareRate, "bare-events/s")
	b.ReportMetric(rate/bareRate, "of-bare")
	b.ReportMetric(float64(child.PeakMemory(r.PID()))/(1<<20), "MiB-peak")
	b.ReportMetric(child.ProcessorTime(r.PID(), false).Seconds()*1e6/float64(events), "µs-cpu/event")
	b.ReportMetric(0, "ns/op")
	r.Kill()
}

// bareRead reads the slot "bare" with as little as reading takes.
func bareRead(b *testing.B, e *env, events int) {
	b.Helper()
	ctx := context.Background()
	config, err := pgconn.ParseConfig(e.postgresURL)
	if err != nil {
		b.Fatal(err)
	}
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	err = pglogrepl.StartReplication(ctx, conn, "bare", 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names '" + e.slot + "'"},
	})
	if err != nil {
		b.Fatal(err)
	}
	for n := 0; n < events; {
		msg, err := conn.ReceiveMessage(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if data, ok := msg.(*pgproto3.CopyData); ok && data.Data[0] == pglogrepl.XLogDataByteID && data.Data[25] == 'I' {
			n++
		}
	}
}

// BenchmarkLatency writes single-event transactions at a steady rate and
// measures from before the INSERT is sent until a consumer has the event.
func BenchmarkLatency(b *testing.B) {
	const rate, seconds = 1000, 15
	for range b.N {
		e := newBench(b)
		e.init()
		r := e.run()
		sent := make([]time.Time, rate*seconds)
		taken := make([]time.Duration, rate*seconds)
		var mu sync.Mutex
		got := 0
		js, err := e.nats().JetStream()
		if err != nil {
			b.Fatal(err)
		}
		sub, err := js.Subscribe("events.>", func(msg *nats.Msg) {
			now := time.Now()
			n, err := strconv.Atoi(msg.Header.Get("ce-subject"))
			if err != nil {
				return
			}
			mu.Lock()
			taken[n] = now.Sub(sent[n])
			got++
			mu.Unlock()
		}, nats.OrderedConsumer())
		if err != nil {
			b.Fatal(err)
		}
		writeAtRate(b, e.postgresURL, rate, func(n int) {
			mu.Lock()
			sent[n] = time.Now()
			mu.Unlock()
		}, len(sent))
		testkit.Eventually(b, time.Minute, "the consumer has every event", func() error {
			mu.Lock()
			defer mu.Unlock()
			if got < len(sent) {
				return fmt.Errorf("it has %d of %d", got, len(sent))
			}
			return nil
		})
		_ = sub.Unsubscribe()
		slices.Sort(taken)
		b.ReportMetric(milliseconds(taken, 0.5), "ms-p50")
		b.ReportMetric(milliseconds(taken, 0.99), "ms-p99")
		b.ReportMetric(milliseconds(taken, 1), "ms-max")
		b.ReportMetric(0, "ns/op")
		r.Kill()
	}
}

// milliseconds returns a quantile of sorted durations.
func milliseconds(sorted []time.Duration, quantile float64) float64 {
	return float64(sorted[int(quantile*float64(len(sorted)-1))].Microseconds()) / 1000
}

// writeAtRate inserts n events, each a transaction, at a rate per second.
func writeAtRate(b *testing.B, url string, rate int, before func(int), n int) {
	b.Helper()
	const workers = 4
	work := make(chan int, n)
	var group sync.WaitGroup
	for range workers {
		conn, err := pgx.Connect(context.Background(), url)
		if err != nil {
			b.Fatal(err)
		}
		group.Go(func() {
			defer func() { _ = conn.Close(context.Background()) }()
			pad := strings.Repeat("x", 270)
			for i := range work {
				before(i)
				_, err := conn.Exec(context.Background(),
					"INSERT INTO public.outbox (event_type, source, subject, data) VALUES ('order.created', '/bench', $1, jsonb_build_object('pad', $2::text))",
					strconv.Itoa(i), pad)
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	start := time.Now()
	for i := range n {
		if wait := time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(rate))); wait > 0 {
			time.Sleep(wait)
		}
		work <- i
	}
	close(work)
	group.Wait()
}
