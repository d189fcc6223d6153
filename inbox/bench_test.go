package inbox_test

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/inbox"
)

// BenchmarkHandlers is the way from the stream to the handler and back: events that wait in a
// stream are handled. Postgres and nats-server run on the same machine.
func BenchmarkHandlers(b *testing.B) {
	insert := func(ctx context.Context, tx pgx.Tx, ev inbox.Event[[]byte]) error {
		_, err := tx.Exec(ctx, "INSERT INTO effects (id, key) VALUES ($1, $2)", ev.ID, ev.Key)
		return err
	}
	for _, bench := range []struct {
		name   string
		events int
		on     func(*inbox.Registry, *atomic.Int64)
	}{
		{"at least once, nothing done", 100_000, func(r *inbox.Registry, n *atomic.Int64) {
			inbox.OnAtLeastOnce(r, "bench", inbox.All(), func(context.Context, inbox.Event[[]byte]) error { n.Add(1); return nil })
		}},
		{"once, an event a transaction", 10_000, func(r *inbox.Registry, n *atomic.Int64) {
			inbox.On(r, "bench", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[[]byte]) error {
				n.Add(1)
				return insert(ctx, tx, ev)
			})
		}},
		{"once, batches of a hundred", 100_000, func(r *inbox.Registry, n *atomic.Int64) {
			inbox.OnBatch(r, "bench", inbox.All(), func(ctx context.Context, tx pgx.Tx, events []inbox.Event[[]byte]) error {
				n.Add(int64(len(events)))
				ids, keys := make([]string, len(events)), make([]string, len(events))
				for i := range events {
					ids[i], keys[i] = events[i].ID, events[i].Key
				}
				_, err := tx.Exec(ctx, "INSERT INTO effects (id, key) SELECT unnest($1::text[]), unnest($2::text[])", ids, keys)
				return err
			}, inbox.Lanes(8))
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				w := newWorld(b)
				w.fill(b, bench.events)
				var r inbox.Registry
				var n atomic.Int64
				bench.on(&r, &n)
				ctx, cancel := context.WithCancel(b.Context())
				done := make(chan error, 1)
				b.StartTimer()
				started := time.Now()
				go func() {
					done <- inbox.Run(ctx, inbox.Config{NATS: w.nc, Pool: w.pool, Log: slog.New(slog.DiscardHandler)}, &r)
				}()
				for n.Load() < int64(bench.events) {
					time.Sleep(time.Millisecond)
				}
				b.ReportMetric(float64(bench.events)/time.Since(started).Seconds(), "events/s")
				b.StopTimer()
				cancel()
				if err := <-done; err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// fill puts signed events of 300 bytes into the stream.
func (w *world) fill(b testing.TB, n int) {
	b.Helper()
	signer := event.NewSigner("EVENTS", key)
	body := []byte(`{"text": "` + strings.Repeat("x", 288) + `"}`)
	for i := range n {
		stamp := event.Position{CommitLSN: uint64(i + 1)}.String() + " 1 7/" + slot
		msg := &nats.Msg{Subject: "events.order.placed", Data: body, Header: nats.Header{
			"ce-specversion": {"1.0"}, "ce-id": {"e" + strconv.Itoa(i)}, "ce-source": {"/s"}, "ce-type": {"order.placed"}, "ce-datacontenttype": {"application/json"},
			"ce-partitionkey": {"k" + strconv.Itoa(i%1000)}, event.PositionHeader: {stamp},
			event.DigestHeader: {string(signer.Append(nil, strconv.AppendInt(nil, int64(i), 10), []byte(stamp)))},
		}}
		if _, err := w.js.PublishMsgAsync(msg); err != nil {
			b.Fatal(err)
		}
	}
	<-w.js.PublishAsyncComplete()
}
