// Package traceparent reads the trace of an event (CloudEvents extension "Distributed Tracing",
// which is W3C Trace Context).
//
// Input: the values of traceparent and tracestate. Output: a context. Promises: what is wrong is no
// trace, and no error. The package must not import anything of walrelay's.
package traceparent

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/trace"
)

// Context returns a context with the remote span of an event; the one that is given if the
// event has none.
func Context(ctx context.Context, parent, tracestate string) context.Context {
	// version, trace, span, flags, in hex (W3C Trace Context, section 3.2)
	if len(parent) != 55 || parent[:3] != "00-" || parent[35] != '-' || parent[52] != '-' {
		return ctx
	}
	traceID, err1 := trace.TraceIDFromHex(parent[3:35])
	spanID, err2 := trace.SpanIDFromHex(parent[36:52])
	if err := errors.Join(err1, err2); err != nil {
		return ctx
	}
	flags := trace.TraceFlags(0)
	if parent[54]&1 == 1 {
		flags = trace.FlagsSampled
	}
	state, _ := trace.ParseTraceState(tracestate) // one that is wrong is none
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: spanID, TraceFlags: flags, TraceState: state, Remote: true,
	}))
}
