package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
)

func newHandoverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "handover",
		Short: "Move to another database cluster: close the old slot, open the new one",
		Long: `Have a slot of another database cluster go on in the same streams: after pg_upgrade,
a dump and restore, or into a new cluster. First close the old slot, then open the new
one. No event is lost, none comes twice, and the order stays.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newHandoverCloseCommand(), newHandoverOpenCommand())
	return cmd
}

func newHandoverCloseCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "close",
		Short: "End the old slot: its outbox tables refuse events from then on",
		Long: `End a slot, so that another one can go on in its streams. From then on its outbox
tables refuse events. The relay settles what is there, then it is to be stopped, and at
last the slot is dropped. It needs the role that ran init, and may be interrupted and
run again. "walrelay handover open" at the same database takes it back.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	source := addConfigFlags(cmd)
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) error {
		report, err := walrelay.HandoverClose(ctx, cfg, walrelay.HandoverCloseOptions{
			Settling: func(running bool) {
				fmt.Fprintln(cmd.ErrOrStderr(), "the outbox tables refuse events now;", waitingText(running))
			},
			Stopping: func() {
				fmt.Fprintln(cmd.ErrOrStderr(), "everything is settled: stop the relay now, its standbys too")
			},
		})
		if err != nil {
			return err
		}
		return printHandover(cmd.OutOrStdout(), report, asJSON, "closed")
	})
	return cmd
}

func newHandoverOpenCommand() *cobra.Command {
	var asJSON bool
	var from string
	cmd := &cobra.Command{
		Use:   "open",
		Short: "Have the new slot go on where the closed one has ended",
		Long: `Have the slot of this configuration go on in the streams where a closed one has
ended, with its delayed events, its journal and its key. It makes what init makes, and
may be interrupted and run again. --from names the configuration file of the old relay;
without it, this database is a copy of the old one that was made after the close, or the
old one itself.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&from, "from", "", "configuration `FILE` of the relay that was closed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	source := addConfigFlags(cmd)
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) error {
		var options walrelay.HandoverOpenOptions
		if from != "" {
			old, err := (&configSource{schema: configSchema(), path: from}).load(nil)
			if err != nil {
				return err
			}
			options.From = &old
		}
		report, err := walrelay.HandoverOpen(ctx, cfg, options)
		if err != nil {
			return err
		}
		return printHandover(cmd.OutOrStdout(), report, asJSON, "opened")
	})
	return cmd
}

func printHandover(out io.Writer, report walrelay.HandoverReport, asJSON bool, done string) error {
	if asJSON {
		return writeJSON(out, report, "what was done")
	}
	if report.From == report.To {
		fmt.Fprintf(out, "taken back: writer %s goes on, and its outbox tables take events again\n", report.To)
		return nil
	}
	if report.To == "" {
		fmt.Fprintf(out, "%s: writer %s has ended\n", done, report.From)
	} else {
		fmt.Fprintf(out, "%s: writer %s goes on where %s has ended\n", done, report.To, report.From)
	}
	for _, name := range slices.Sorted(maps.Keys(report.Streams)) {
		fmt.Fprintf(out, "  stream %s: message %d is the last one of %s\n", name, report.Streams[name], report.From)
	}
	fmt.Fprintf(out, "  %d delayed %s, and %d on the way out of the delay table, go along\n", report.Delayed, events(report.Delayed), report.Emitted)
	switch {
	case done == "closed" && report.To == "":
		fmt.Fprintln(out, "next: walrelay handover open, with the configuration of the new relay")
	case done == "opened":
		fmt.Fprintln(out, "next: start the new relay, and have applications write there")
	}
	return nil
}
