package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime/pprof"
	"sync"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/web"
)

func newRunCommand() *cobra.Command {
	var withInit bool
	var profile string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Stream events until interrupted",
		Long: `Stream committed outbox rows to JetStream until SIGINT or SIGTERM, and then
wait, within shutdown_timeout, for what is in flight. Lost connections are made
again for ever.

The garbage collector is set for the windows of the configuration, and on a
machine of one or two processors one is used; GOGC, GOMEMLIMIT and GOMAXPROCS
say otherwise (docs/performance.md).`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&withInit, "init", false, "first create what does not exist yet, as init does")
	cmd.Flags().StringVar(&profile, "cpuprofile", "", "write a CPU profile, for go tool pprof, into this `FILE` at the end")
	source := addConfigFlags(cmd)
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) (err error) {
		log, flush, err := newPatientLogger(cfg, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		defer flush()
		provider, stopTracing, err := startTracing(ctx, log)
		if err != nil {
			return err
		}
		defer stopTracing()
		relay, err := walrelay.New(cfg, walrelay.Options{Log: log, TracerProvider: provider})
		if err != nil {
			return err
		}
		if withInit {
			report, err := walrelay.Setup(ctx, cfg)
			logReport(log, report)
			if err != nil {
				return err
			}
		}
		tuneRuntime(cfg)
		stop, err := startProfile(profile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
		notifying, stopNotifying := context.WithCancel(ctx)
		var notifier sync.WaitGroup
		notifier.Go(func() { notifySystemd(notifying, log, relay) })
		defer notifier.Wait()
		defer stopNotifying()
		return serveAndRun(ctx, cfg, log, relay)
	})
	return cmd
}

// serveAndRun runs a relay, and serves what it says of itself if it is to.
func serveAndRun(ctx context.Context, cfg walrelay.Config, log zerolog.Logger, relay *walrelay.Relay) error {
	where := cfg.WithDefaults().HTTP
	if where.Addr == "off" {
		return relay.Run(ctx)
	}
	return serveBeside(ctx, where, log, relay.Handler(), relay.Run)
}

// serveBeside serves HTTP while something runs.
func serveBeside(ctx context.Context, where config.HTTP, log zerolog.Logger, handler http.Handler, run func(context.Context) error) error {
	listener, err := web.Listen(ctx, where)
	if err != nil {
		return err
	}
	log.Info().Stringer("addr", listener.Addr()).Msg("serving HTTP")
	group, working := errgroup.WithContext(ctx)
	serving, stop := context.WithCancel(working)
	group.Go(func() error { return web.Serve(serving, listener, handler) })
	group.Go(func() error {
		defer stop()
		return run(working)
	})
	return group.Wait()
}

// startProfile profiles the process until stop is called; it does nothing
// without a file.
func startProfile(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, &usageError{fmt.Sprintf("--cpuprofile: %v", err)}
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the CPU profile: %w", err), file.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		if err := file.Close(); err != nil {
			return fmt.Errorf("writing the CPU profile: %w", err)
		}
		return nil
	}, nil
}
