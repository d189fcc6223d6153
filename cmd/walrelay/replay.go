package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/tail"
)

func newReplayCommand() *cobra.Command {
	var o walrelay.ReplayOptions
	var from, until string
	var asJSON, yes bool
	cmd := &cobra.Command{
		Use:   "replay [TYPE …]",
		Short: "Publish events again, on purpose",
		Long: `Publish events again, on purpose: those of the stream, or the rows of an outbox
table, of all types or of the types and patterns that are given, in their order. Each
has the extension attribute walrelayreplay, and handlers handle it again.

They go through the WAL, and the relay publishes them: all of them, or none if replay is
interrupted. With --to they go into another stream, to which nobody else writes
meanwhile; run it again with the same --name to go on after an interruption.`,
		Example: `  walrelay replay --from 2h --dry-run
  walrelay replay 'order.*' --key customer-8 --from 2026-11-27T10:00:00Z --until 2026-11-27T11:00:00Z
  walrelay replay --table public.outbox --from 24h
  walrelay replay --to AUDIT --subject 'audit.{type}'`,
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Name, "name", "", "name of the replay, the value of walrelayreplay; default the present time")
	flags.StringVar(&o.Stream, "stream", "", "the stream; default the first one of the configuration")
	flags.StringVar(&o.Table, "table", "", "replay the rows of this outbox table instead")
	flags.StringVar(&from, "from", "start", "`WHERE` to begin: start, a sequence, a time (RFC 3339), or how long ago (10m)")
	flags.StringVar(&until, "until", "now", "`WHERE` to end: now, or as --from; what is there is not replayed")
	flags.StringArrayVar(&o.Keys, "key", nil, "only events with this partition key (may be repeated)")
	flags.StringArrayVar(&o.IDs, "id", nil, "only the event with this id (may be repeated)")
	flags.StringVar(&o.To, "to", "", "another stream, which must exist, in place of the WAL")
	flags.StringVar(&o.Subject, "subject", "", "with --to: subject of the messages, a template as publish.subject is one")
	flags.BoolVar(&o.DryRun, "dry-run", false, "count what would be replayed, and change nothing")
	flags.BoolVar(&yes, "yes", false, "do not ask")
	flags.BoolVar(&asJSON, "json", false, "print the result as JSON")
	source := addConfigFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return source.command(func(ctx context.Context, cfg walrelay.Config) (err error) {
			if err := parseReplay(&o, from, until, args); err != nil {
				return &usageError{err.Error()}
			}
			if !o.DryRun && !yes {
				if !isTerminal(cmd.InOrStdin()) {
					return errNoTerminal()
				}
				o.Confirm = func(report walrelay.ReplayReport) error {
					printReplay(cmd, report)
					if !confirm(cmd, fmt.Sprintf("replay %d %s into %s?", report.Events, events(int64(report.Events)), report.To)) {
						return errors.New("nothing was replayed")
					}
					return nil
				}
			}
			report, err := walrelay.Replay(ctx, cfg, o)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), report, "what was replayed")
			}
			if o.DryRun || report.Events == 0 {
				printReplay(cmd, report)
			} else {
				printReplayed(cmd, report, o.To == "")
			}
			return nil
		})(cmd, args)
	}
	return cmd
}

// parseReplay reads what the flags and the arguments say.
func parseReplay(o *walrelay.ReplayOptions, from, until string, types []string) (err error) {
	now := time.Now()
	if o.From, err = tail.ParseFrom(from, now); err != nil {
		return fmt.Errorf("--from %w", err)
	}
	if o.Until, err = tail.ParseFrom(until, now); err != nil {
		return fmt.Errorf("--until %w", err)
	}
	if o.Until.Start {
		return errors.New("--until start: nothing comes before it")
	}
	if o.Types = inbox.All(); len(types) > 0 {
		o.Types = inbox.Types(types...)
	}
	return errors.Join(o.Types.Check(), o.Check())
}

// printReplayed prints what was replayed.
func printReplayed(cmd *cobra.Command, report walrelay.ReplayReport, throughWAL bool) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "replay %q: %d of %d %s written into %s\n", report.Name, report.Replayed, report.Events, events(int64(report.Events)), report.To)
	if report.Skipped > 0 {
		fmt.Fprintf(out, "%d were there already\n", report.Skipped)
	}
	if throughWAL {
		fmt.Fprintln(out, "the relay publishes them")
	}
}

// mostTypes is how many types are listed.
const mostTypes = 10

// printReplay prints what would be replayed.
func printReplay(cmd *cobra.Command, report walrelay.ReplayReport) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%d %s in %s", report.Events, events(int64(report.Events)), report.From)
	if report.First != nil {
		fmt.Fprintf(out, ", from %s to %s", report.First.UTC().Format(time.RFC3339), report.Last.UTC().Format(time.RFC3339))
	}
	fmt.Fprintln(out)
	if report.Unreadable > 0 {
		fmt.Fprintf(out, "  %d more are no events, and are left out\n", report.Unreadable)
	}
	if report.Skipped > 0 {
		fmt.Fprintf(out, "  %d of them are in %s already\n", report.Skipped, report.To)
	}
	for i, name := range report.MostTypes() {
		if i == mostTypes {
			fmt.Fprintf(out, "  %8s  %d types more\n", "…", len(report.Types)-mostTypes)
			break
		}
		fmt.Fprintf(out, "  %8d  %s\n", report.Types[name], short(name, 60))
	}
}
