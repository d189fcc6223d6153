package relay

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/traceparent"
)

// tracerName is the name of the instrumentation.
const tracerName = "github.com/walrelay/walrelay"

// published makes the span of an event that was published: from when it was sent until it was
// acknowledged, a child of the event's traceparent, or a root without one (OpenTelemetry, "Semantic
// conventions for messaging spans").
func (t *tracer) published(ev *event.Event, stream string, took time.Duration) {
	var parent, state string
	for i := range ev.Extensions {
		switch ev.Extensions[i].Name {
		case "traceparent":
			parent = ev.Extensions[i].Value
		case "tracestate":
			state = ev.Extensions[i].Value
		}
	}
	now := time.Now()
	ctx := traceparent.Context(context.Background(), parent, state)
	_, span := t.otel.Start(ctx, "publish "+stream, trace.WithSpanKind(trace.SpanKindProducer), trace.WithTimestamp(now.Add(-took)))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("messaging.system", "nats"),
			attribute.String("messaging.operation.name", "publish"),
			attribute.String("messaging.operation.type", "send"),
			attribute.String("messaging.destination.name", stream),
			attribute.String("messaging.message.id", clip(ev.ID)),
			attribute.Int("messaging.message.body.size", len(ev.Data)),
			attribute.String("cloudevents.event_id", clip(ev.ID)),
			attribute.String("cloudevents.event_source", clip(ev.Source)),
			attribute.String("cloudevents.event_type", clip(ev.Type)),
			attribute.String("walrelay.slot", t.slot),
			attribute.String("walrelay.position", ev.Position.String()),
			attribute.Float64("walrelay.since_commit_seconds", max(0, now.Sub(ev.CommittedAt).Seconds())),
		)
	}
	span.End(trace.WithTimestamp(now))
}

// tracer makes spans; nil makes none. Safe for concurrent use.
type tracer struct {
	otel trace.Tracer
	slot string
}

// newTracer returns nil without a provider.
func newTracer(provider trace.TracerProvider, slot string) *tracer {
	if provider == nil {
		return nil
	}
	return &tracer{otel: provider.Tracer(tracerName), slot: slot}
}
