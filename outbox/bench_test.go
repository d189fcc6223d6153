package outbox_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/outbox"
)

// BenchmarkPublish is what an event costs an application, by how many are published at a
// time; copy is the COPY of the same rows, beside which the statement is to be seen.
func BenchmarkPublish(b *testing.B) {
	conn := connect(b, newDatabase(b))
	type payload struct {
		Number int    `json:"number"`
		Text   string `json:"text"`
	}
	text := fmt.Sprintf("%0200d", 7)
	box := outbox.Outbox{Source: "/bench"}
	for _, n := range []int{1, 10, 100, 1000, 10000} {
		events := make([]outbox.Event, n)
		for i := range events {
			events[i] = outbox.Event{Type: "bench.event", Data: payload{i, text}, Key: "k"}
		}
		perEvent := func(b *testing.B) {
			b.Helper()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n)/1000, "us/event")
		}
		b.Run(fmt.Sprintf("statement/%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := box.PublishAll(b.Context(), conn, events); err != nil {
					b.Fatal(err)
				}
			}
			perEvent(b)
		})
		b.Run(fmt.Sprintf("copy/%d", n), func(b *testing.B) {
			for b.Loop() {
				_, err := conn.CopyFrom(b.Context(), pgx.Identifier{"public", "outbox"}, []string{"event_type", "source", "data", "partition_key"},
					pgx.CopyFromSlice(n, func(i int) ([]any, error) {
						return []any{events[i].Type, "/bench", events[i].Data, events[i].Key}, nil
					}))
				if err != nil {
					b.Fatal(err)
				}
			}
			perEvent(b)
		})
	}
}
