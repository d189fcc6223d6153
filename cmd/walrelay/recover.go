package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
)

func newRecoverCommand() *cobra.Command {
	var options walrelay.RecoverOptions
	var asJSON, yes bool
	var since string
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Publish rows that the slot never read",
		Long: `Publish the rows of the outbox tables that are not settled and were never read by
the slot: rows from before the first init, from while there was no slot, or of a
table that was replaced. The relay publishes them like any other event, in the order
in which they were created, which need not be commit order. Run it beside the relay;
it waits until that has settled what is in the WAL, and may be interrupted, and run
again: each row is emitted once.`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.BoolVar(&options.DryRun, "dry-run", false, "list what would be published, and change nothing")
	flags.BoolVar(&yes, "yes", false, "do not ask")
	flags.StringVar(&since, "since", "", "only rows created since then: a time, such as 2030-01-02T15:04:05Z, or a duration before now, such as 24h")
	flags.BoolVar(&asJSON, "json", false, "print the result as JSON")
	source := addConfigFlags(cmd)
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) (err error) {
		if since != "" {
			if options.Since, err = parseSince(since); err != nil {
				return err
			}
		}
		if !options.DryRun && !yes && !isTerminal(cmd.InOrStdin()) {
			return errNoTerminal()
		}
		if !asJSON {
			options.Waiting = func(running bool) { fmt.Fprintln(cmd.ErrOrStderr(), waitingText(running)) }
		}
		options.Confirm = func(report walrelay.RecoverReport) error {
			if yes {
				return nil
			}
			printRecovery(cmd, report, false)
			if !confirm(cmd, fmt.Sprintf("publish %d %s?", report.Rows(), events(int64(report.Rows())))) {
				return errors.New("nothing was changed")
			}
			return nil
		}
		report, err := walrelay.Recover(ctx, cfg, options)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(cmd.OutOrStdout(), report, "what was found")
		}
		printRecovery(cmd, report, !options.DryRun)
		return nil
	})
	return cmd
}

func waitingText(running bool) string {
	if running {
		return "waiting until the relay has settled what is in the WAL"
	}
	return "waiting until a relay has settled what is in the WAL; none is running: start one with \"walrelay run\""
}

// printRecovery prints a line or two for each table.
func printRecovery(cmd *cobra.Command, report walrelay.RecoverReport, done bool) {
	out := cmd.OutOrStdout()
	for _, t := range report.Tables {
		switch {
		case t.Rows == 0:
			fmt.Fprintf(out, "%s: every row is settled, or the slot reads it\n", t.Table)
			continue
		case done:
			fmt.Fprintf(out, "%s: %d of %d %s emitted; the relay publishes them\n", t.Table, t.Emitted, t.Rows, events(int64(t.Rows)))
			continue
		}
		fmt.Fprintf(out, "%s: %d unsettled %s, which the slot does not read", t.Table, t.Rows, events(int64(t.Rows)))
		if t.Oldest != nil {
			fmt.Fprintf(out, ", created from %s to %s", t.Oldest.UTC().Format(time.RFC3339), t.Newest.UTC().Format(time.RFC3339))
		}
		var ids []string
		for _, id := range t.Examples {
			ids = append(ids, short(id, 40))
		}
		if t.Rows > len(ids) {
			ids = append(ids, "…")
		}
		fmt.Fprintf(out, "\n  %s\n", strings.Join(ids, " "))
	}
	if !done && report.Rows() > 0 {
		fmt.Fprintln(out, "they are published in the order in which they were created, which need not be commit order")
	}
}

// parseSince reads a time, or a duration before now.
func parseSince(text string) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	return time.Time{}, &usageError{fmt.Sprintf("--since: %q is neither a time, such as 2030-01-02T15:04:05Z, nor a duration, such as 24h", text)}
}
