package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
)

func newRepairCommand() *cobra.Command {
	var options walrelay.RepairOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Bring back events that a stream has lost",
		Long: `Publish again, in commit order, the acknowledged events that a stream has lost:
because it was deleted, restored from a backup, or its server had a power cut.
They come from the rows of the outbox that are kept for outbox.repair_window.
No relay may run meanwhile, except beside a dry run. It may be interrupted, and
run again.

If something cannot be brought back, it says what, publishes nothing and ends
with 1, unless --accept-loss is given.`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.BoolVar(&options.DryRun, "dry-run", false, "list what is missing, and change nothing")
	flags.BoolVar(&options.AcceptLoss, "accept-loss", false, "go on without what cannot be brought back")
	flags.StringVar(&options.Stream, "stream", "", "only this stream")
	flags.BoolVar(&asJSON, "json", false, "one JSON object a line: events, and then each stream")
	source := addConfigFlags(cmd)
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) (err error) {
		if options.Log, err = newLogger(cfg, cmd.ErrOrStderr()); err != nil {
			return err
		}
		out := bufio.NewWriter(cmd.OutOrStdout())
		p := repairPrinter{out: out, dryRun: options.DryRun}
		options.Begin, options.Event = p.begin, p.event
		encoder := json.NewEncoder(out)
		if asJSON {
			options.Begin = nil
			options.Event = func(e walrelay.MissingEvent) error { return encoder.Encode(map[string]any{"event": e}) }
		}
		report, err := walrelay.Repair(ctx, cfg, options)
		for _, s := range report.Streams {
			if asJSON {
				err = errors.Join(err, encoder.Encode(map[string]any{"repair": s}))
			} else {
				p.end(s)
			}
		}
		if err == nil && len(report.Streams) == 0 && !asJSON {
			fmt.Fprintln(out, "nothing is missing: every stream has what it had acknowledged")
		}
		if ferr := out.Flush(); ferr != nil {
			err = errors.Join(err, fmt.Errorf("writing what was found: %w", ferr))
		}
		return err
	})
	return cmd
}

// repairPrinter writes for people.
type repairPrinter struct {
	out    io.Writer
	dryRun bool
	listed bool
}

func (p *repairPrinter) begin(s walrelay.StreamRepair) error {
	p.listed = false
	fmt.Fprintln(p.out, s.What)
	if s.Missing > 0 {
		fmt.Fprintf(p.out, "missing: %d %s, from position %s to %s, published since %s\n",
			s.Missing, events(int64(s.Missing)), s.First, s.Last, s.Since.UTC().Format(time.RFC3339))
	}
	if s.Unknown > 0 {
		fmt.Fprintf(p.out, "%d messages more, from before the journal begins: which they were is not known\n", s.Unknown)
	}
	return nil
}

// event writes a line of a table whose rows come one by one.
func (p *repairPrinter) event(e walrelay.MissingEvent) error {
	const line = "%-25s  %-36s  %-24s  %-20s  %s\n"
	if !p.listed {
		p.listed = true
		fmt.Fprintf(p.out, line, "POSITION", "ID", "TYPE", "TABLE", "CAN BE BROUGHT BACK")
	}
	back := "yes"
	if e.Lost != "" {
		back = "no: " + short(e.Lost, 120)
	}
	_, err := fmt.Fprintf(p.out, line, e.Position, short(e.ID, 60), short(e.Type, 60), short(e.Table, 60), back)
	return err
}

func (p *repairPrinter) end(s walrelay.StreamRepair) {
	switch {
	case p.dryRun:
		fmt.Fprintf(p.out, "stream %s: %d %s can be brought back, %d cannot; nothing was changed\n", s.Stream, s.Restored, events(int64(s.Restored)), s.Lost)
	case s.Done:
		fmt.Fprintf(p.out, "stream %s: %d %s brought back, %d lost; the relay may start\n", s.Stream, s.Restored, events(int64(s.Restored)), s.Lost)
	default:
		fmt.Fprintf(p.out, "stream %s: %d %s brought back; it is not complete\n", s.Stream, s.Restored, events(int64(s.Restored)))
	}
}
