package relay

import (
	"context"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/telemetry"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/router"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func traced(extensions ...event.Attribute) *event.Event {
	return &event.Event{
		ID: "e1", Type: "order.placed", Source: "/shop", Data: []byte("{}"), Extensions: extensions,
		Position: event.Position{CommitLSN: 16}, CommittedAt: time.Now().Add(-time.Second),
	}
}

func TestTracer_SpanIsAChildOfTheEvents(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	tr := newTracer(provider, "walrelay")
	tr.published(traced(event.Attribute{Name: "traceparent", Value: parent}, event.Attribute{Name: "tracestate", Value: "a=b"}), "EVENTS", 20*time.Millisecond)
	tr.published(traced(), "EVENTS", time.Millisecond)
	tr.published(traced(event.Attribute{Name: "traceparent", Value: "00-wrong"}), "EVENTS", time.Millisecond)
	spans := recorder.Ended()
	if len(spans) != 3 {
		t.Fatalf("%d spans", len(spans))
	}
	first := spans[0]
	if first.SpanContext().TraceID().String() != "0af7651916cd43dd8448eb211c80319c" || first.Parent().SpanID().String() != "b7ad6b7169203331" || !first.Parent().IsRemote() || first.SpanContext().TraceState().String() != "a=b" {
		t.Errorf("the span is no child: %v of %v", first.SpanContext(), first.Parent())
	}
	if took := first.EndTime().Sub(first.StartTime()); took != 20*time.Millisecond || first.SpanKind() != trace.SpanKindProducer || first.Name() != "publish EVENTS" {
		t.Errorf("%s took %s: %s", first.Name(), took, first.SpanKind())
	}
	said := make(map[string]string)
	for _, a := range first.Attributes() {
		said[string(a.Key)] = a.Value.String()
	}
	for key, want := range map[string]string{
		"messaging.system": "nats", "messaging.destination.name": "EVENTS", "messaging.message.id": "e1", "cloudevents.event_type": "order.placed",
		"walrelay.slot": "walrelay", "walrelay.position": "0000000000000010.00000000", "messaging.message.body.size": "2",
	} {
		if said[key] != want {
			t.Errorf("%s is %q, want %q", key, said[key], want)
		}
	}
	if !strings.HasPrefix(said["walrelay.since_commit_seconds"], "1.0") {
		t.Errorf("%s s since the commit", said["walrelay.since_commit_seconds"])
	}
	for _, span := range spans[1:] {
		if span.Parent().IsValid() || !span.SpanContext().IsValid() {
			t.Errorf("a span without a traceparent has the parent %v", span.Parent())
		}
	}
	if newTracer(nil, "walrelay") != nil {
		t.Error("there is a tracer without a provider")
	}
}

// dropped is a frontier that forgets.
type dropped struct{}

func (dropped) Settle(replication.Ticket) {}

// discarded takes spans and does nothing with them.
type discarded struct{}

func (discarded) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (discarded) Shutdown(context.Context) error                             { return nil }

// BenchmarkSettled is what an event that was acknowledged costs: without tracing, with it and a
// trace that is not sampled, and with spans that are exported to nowhere.
func BenchmarkSettled(b *testing.B) {
	none := func() float64 { return 0 }
	sampled := traced(event.Attribute{Name: "traceparent", Value: parent})
	unsampled := traced(event.Attribute{Name: "traceparent", Value: strings.TrimSuffix(parent, "1") + "0"})
	sdk := sdktrace.NewTracerProvider(sdktrace.WithBatcher(discarded{}))
	b.Cleanup(func() { _ = sdk.Shutdown(context.Background()) })
	for name, test := range map[string]struct {
		tracer *tracer
		ev     *event.Event
	}{"off": {nil, sampled}, "not sampled": {newTracer(sdk, "walrelay"), unsampled}, "sampled": {newTracer(sdk, "walrelay"), sampled}} {
		b.Run(name, func(b *testing.B) {
			s := &settler{frontier: dropped{}, metrics: telemetry.New(none, none, none), tracer: test.tracer}
			b.ReportAllocs()
			for b.Loop() {
				s.Settled(1, router.Published, test.ev, "EVENTS", time.Millisecond)
			}
		})
	}
}
