package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/inbox/inboxmetrics"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/deliver"
	"github.com/walrelay/walrelay/internal/web"
)

func newDeliverCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "deliver",
		Short: "Hand events to HTTP endpoints, in order for each key",
		Long: `Hand events to the HTTP endpoints of a file, until SIGINT or SIGTERM: each event at
least once, in order for each key, as a CloudEvent in binary mode. What an
endpoint does not take is tried again, or parked (walrelay parked).
Several processes may run: one is active for each handler.

Needs NATS, and a database with the tables of handlers (walrelay init --inbox).
Health and metrics are served if --http-addr says where.
The file is described in docs/deliver.md.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&path, "handlers", "handlers.yaml", "the `FILE` of handlers")
	source := addConfigFlags(cmd)
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) error {
		handlers, err := deliver.Load(path)
		if err != nil {
			return &usageError{err.Error()}
		}
		log, flush, err := newPatientLogger(cfg, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		defer flush()
		addr := cfg.HTTP.Addr
		if addr == "off" {
			addr = ""
		}
		return serveDeliver(ctx, cfg.WithDefaults(), config.HTTP{Addr: addr, TLS: cfg.HTTP.TLS}, handlers, log)
	})
	return cmd
}

// serveDeliver runs the handlers, and serves what they say of themselves if there is an address: the relay of
// the same machine has the default one.
func serveDeliver(ctx context.Context, cfg walrelay.Config, where config.HTTP, handlers []deliver.Handler, log zerolog.Logger) error {
	metrics := inboxmetrics.New()
	if where.Addr == "" {
		return runDeliver(ctx, cfg, handlers, metrics.Observe, log)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return serveBeside(ctx, where, log, web.Handler(web.Source{
		Reasons: func() []string { return notReady(metrics.States()) },
		Status:  func(context.Context) any { return metrics.States() },
		Metrics: registry,
	}), func(ctx context.Context) error { return runDeliver(ctx, cfg, handlers, metrics.Observe, log) })
}

// notReady says why handlers are not.
func notReady(states []inbox.Status) []string {
	if len(states) == 0 {
		return []string{"no handler has been looked at yet"}
	}
	var reasons []string
	for _, s := range states {
		if s.Trouble != "" {
			reasons = append(reasons, fmt.Sprintf("handler %s is %s", s.Handler, s.Trouble))
		}
	}
	return reasons
}

func runDeliver(ctx context.Context, cfg walrelay.Config, handlers []deliver.Handler, observe func(inbox.Status), log zerolog.Logger) error {
	if !cfg.Postgres.Given() {
		return &walrelay.ConfigError{Key: "postgres.url", Problem: "must be set: failed events are parked there"}
	}
	requests := 0
	for _, h := range handlers {
		requests += h.Concurrency
	}
	pool, err := connect.Pool(ctx, cfg.Postgres, 8)
	if err != nil {
		return err
	}
	defer pool.Close()
	nc, err := connect.NATS(ctx, cfg.NATS, nats.RetryOnFailedConnect(true))
	if err != nil {
		return err
	}
	defer nc.Close()
	client := deliver.Client(requests)
	defer client.CloseIdleConnections()
	var registry inbox.Registry
	deliver.Register(&registry, handlers, client)
	log.Info().Int("handlers", len(handlers)).Msg("delivering")
	err = inbox.Run(ctx, inbox.Config{
		NATS: nc, Domain: cfg.NATS.Domain, Pool: pool, Subject: cfg.Publish.Subject, Grace: cfg.ShutdownTimeout,
		Log: slog.New(zerolog.NewSlogHandler(log)), Observe: observe,
	}, &registry)
	if err != nil {
		return fmt.Errorf("delivering: %w", err)
	}
	log.Info().Msg("stopped")
	return nil
}
