package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// flushSpans is how long spans may take to be exported at the end.
const flushSpans = 3 * time.Second

// startTracing exports spans as the OTEL_ variables say (OpenTelemetry, "Environment variable
// specification"); nil without them, or where they say so. stop exports what is left. It never blocks
// the relay: what cannot be exported in time is dropped.
func startTracing(ctx context.Context, log zerolog.Logger) (provider trace.TracerProvider, stop func(), err error) {
	none := func() {}
	exporter := os.Getenv("OTEL_TRACES_EXPORTER")
	endpoint := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"))
	switch {
	case os.Getenv("OTEL_SDK_DISABLED") == "true", exporter == "none", exporter == "" && endpoint == "":
		return nil, none, nil
	case exporter != "" && exporter != "otlp":
		return nil, none, &usageError{fmt.Sprintf("OTEL_TRACES_EXPORTER: %q is not one of otlp, none", exporter)}
	}
	if protocol := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")); protocol != "" && protocol != "http/protobuf" {
		return nil, none, &usageError{fmt.Sprintf("OTEL_EXPORTER_OTLP_PROTOCOL: %q is not http/protobuf, which is the only one here (port 4318)", protocol)}
	}
	client, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, none, fmt.Errorf("preparing the export of spans (OTEL_EXPORTER_OTLP_…): %w", err)
	}
	// The later one counts.
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "walrelay"), attribute.String("service.version", versionText())), resource.WithFromEnv())
	if err != nil {
		return nil, none, &usageError{fmt.Sprintf("OTEL_RESOURCE_ATTRIBUTES: %v", err)}
	}
	otel.SetErrorHandler(&spanErrors{log: log})
	sdk := sdktrace.NewTracerProvider(sdktrace.WithBatcher(client), sdktrace.WithResource(about))
	log.Info().Str("endpoint", cmp.Or(endpoint, "http://localhost:4318")).Msg("exporting spans")
	return sdk, func() {
		flushing, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushSpans)
		defer cancel()
		if err := sdk.Shutdown(flushing); err != nil {
			log.Warn().Err(err).Msg("the last spans are not exported")
		}
	}, nil
}

// spanErrors logs that spans are not exported, once a minute at most. The SDK calls it from one
// goroutine at a time.
type spanErrors struct {
	log  zerolog.Logger
	last time.Time
}

func (e *spanErrors) Handle(err error) {
	if time.Since(e.last) > time.Minute {
		e.last = time.Now()
		e.log.Warn().Err(err).Msg("spans are not exported")
	}
}
