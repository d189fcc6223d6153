//go:build !windows

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/internal/bench"
)

func newBenchCommand() *cobra.Command {
	opts := bench.Options{Parameters: bench.DefaultParameters()}
	p := &opts.Parameters
	var duration time.Duration
	var asJSON, handlers bool
	var only, plot string
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure throughput and latency, beside what the servers can do at most",
		Long: `Measure how fast a relay drains a backlog, beside a reader of the slot and a
publisher that do nothing else and a relay that waits for each acknowledgement;
how long an event takes, from its transaction to the stream and to a
consumer, while others are written at a steady rate; and how soon a standby takes
over. With --handlers, it measures
handlers (package inbox) instead: their rates, how soon another process takes
over, and what parked events cost others.

It measures the configured servers, or throw-away ones when none is configured (in a
walrelay that was built with -tags servers).
On configured servers it uses a table, slots, a publication and streams of its
own (walrelay_bench, WALRELAY_BENCH) and removes them at the end; of the
configuration it takes the connections and the publishing window. The servers
have the load of it, and keep the backlog three times: in the table, as
write-ahead log and in a stream. Method and meaning: docs/performance.md.`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.BoolVar(&opts.Private, "private", false, "throw-away servers, also when others are configured")
	flags.StringVar(&only, "only", "", "one part only: drain, live or takeover")
	flags.BoolVar(&handlers, "handlers", false, "measure handlers, on throw-away servers, and nothing else")
	flags.BoolVar(&asJSON, "json", false, "print one JSON object with everything")
	flags.StringVar(&plot, "plot", "", "also draw the result into this `FILE.svg`")
	flags.StringVar(&opts.CPUProfile, "cpuprofile", "", "also profile the relay (the last one that runs) into this `FILE`, for go tool pprof")
	flags.IntVar(&p.PayloadBytes, "payload", p.PayloadBytes, "bytes of an event's data")
	flags.IntVar(&p.Subjects, "subjects", p.Subjects, "different event types")
	flags.IntVar(&p.Writers, "writers", p.Writers, "connections that write")
	flags.IntVar(&p.Replicas, "replicas", p.Replicas, "replicas of the streams")
	flags.BoolVar(&p.Atomic, "atomic", p.Atomic, "walrelay publishes each transaction as one atomic batch")
	flags.IntVar(&p.Events, "events", p.Events, "drain: events of the backlog")
	flags.IntVar(&p.PerTx, "per-tx", p.PerTx, "drain: events of a transaction")
	flags.IntVar(&p.SyncEvents, "sync-events", p.SyncEvents, "drain: events that are relayed one by one, at most")
	flags.IntVar(&p.Rounds, "rounds", p.Rounds, "drain: how often; medians are reported")
	flags.IntVar(&p.RatePerS, "rate", p.RatePerS, "live: events a second; 0 for as fast as the writers can")
	flags.DurationVar(&duration, "duration", 10*time.Second, "live: how long, after a second that does not count")
	flags.IntVar(&p.LivePerTx, "live-per-tx", p.LivePerTx, "live: events of a transaction")
	source := addConfigFlags(cmd, "postgres.", "nats.", "publish.max_in_flight", "publish.ack_timeout")
	flags.Lookup(flagName("postgres.url")).Usage = "Postgres URL or keyword string (without this and nats-url: throw-away servers)"
	flags.Lookup(flagName("nats.url")).Usage = "NATS URL, or several separated by commas"
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) error {
		p.DurationS = duration.Seconds()
		switch only {
		case "", "drain", "live", "takeover":
			is := func(part string) bool { return !handlers && (only == "" || only == part) }
			opts.Drain, opts.Live, opts.Takeover, opts.Handlers = is("drain"), is("live"), is("takeover"), handlers
		default:
			return &usageError{fmt.Sprintf("--only: %q is none of drain, live and takeover", only)}
		}
		opts.Config, opts.Version, opts.Progress, opts.ServerCommand = cfg, versionText(), cmd.ErrOrStderr(), serverCommand
		if err := benchUsage(opts.Validate()); err != nil {
			return err
		}
		file, err := createPlot(plot)
		if err != nil {
			return err
		}
		result, err := bench.Run(ctx, opts)
		if err != nil {
			return errors.Join(err, discardPlot(file))
		}
		if file != nil {
			if err := errors.Join(result.WriteSVG(file), file.Close()); err != nil {
				return err
			}
		}
		if asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(result)
		}
		return result.WriteText(cmd.OutOrStdout())
	})
	return cmd
}

// benchUsage turns the faults of options into those of flags.
func benchUsage(err error) error {
	if err == nil {
		return nil
	}
	all := faults(err)
	for i, fault := range all {
		if option, ok := errors.AsType[*bench.OptionError](fault); ok {
			all[i] = &usageError{"--" + option.Name + ": " + option.Problem}
		}
	}
	return errors.Join(all...)
}

// createPlot opens the file before anything is measured, so that a wrong path
// costs nobody minutes; nil without a path.
func createPlot(path string) (*os.File, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // no plot is asked for
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, &usageError{fmt.Sprintf("--plot: %v", err)}
	}
	return file, nil
}

func discardPlot(file *os.File) error {
	if file == nil {
		return nil
	}
	return errors.Join(file.Close(), os.Remove(file.Name()))
}

// newBenchHandlerCommand is what bench starts for its handlers to have processes
// of their own.
func newBenchHandlerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    bench.HandlersCommand + " KIND NAME EVENTS",
		Short:  "Run a handler for bench",
		Args:   cobra.ExactArgs(3),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			events, err := strconv.Atoi(args[2])
			if err != nil {
				return &usageError{fmt.Sprintf("EVENTS: %q is not a number", args[2])}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM)
			defer stop()
			return bench.RunHandler(ctx, args[0], args[1], events, cmd.OutOrStdout())
		},
	}
}
