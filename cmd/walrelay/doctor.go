package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/event"
)

func newDoctorCommand() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check everything that a relay needs, and say what to do",
		Long: `Check both servers, the schema, the outbox tables, the publication, the slot, the streams
and what holds them back. Each check has an identifier that stays the same, passes,
warns or fails, or is skipped if it could not be made, and says why and what to do.
Nothing is changed.

It ends with 0 if nothing fails, and with 1 otherwise.`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.BoolVar(&asJSON, "json", false, "one JSON object a line, one line a check")
	flags.BoolVar(&all, "all", false, "also the checks that pass")
	source := addConfigFlags(cmd)
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) error {
		results, err := walrelay.Doctor(ctx, cfg)
		if err != nil {
			return err
		}
		if asJSON {
			err = writeResultsJSON(cmd.OutOrStdout(), results)
		} else {
			err = writeResults(cmd.OutOrStdout(), results, all)
		}
		if err != nil {
			return fmt.Errorf("writing the results: %w", err)
		}
		for _, r := range results {
			if r.Status == walrelay.CheckFail {
				return errFailed
			}
		}
		return nil
	})
	return cmd
}

// errFailed ends doctor with 1: what fails was written before.
var errFailed = errors.New("at least one check fails")

func writeResultsJSON(out io.Writer, results []walrelay.Result) error {
	encoder := json.NewEncoder(out)
	for i := range results {
		if err := encoder.Encode(&results[i]); err != nil {
			return err
		}
	}
	return nil
}

// writeResults writes results for a person: those that pass as a number, unless all are
// wanted.
func writeResults(out io.Writer, results []walrelay.Result, all bool) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	counts := make(map[walrelay.CheckStatus]int)
	for i := range results {
		r := &results[i]
		counts[r.Status]++
		if r.Status == walrelay.CheckPass && !all {
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.Status, r.ID, event.Printable(r.What))
		if r.Why != "" {
			fmt.Fprintf(w, "\t\twhy: %s\n", event.Printable(r.Why))
		}
		if r.Fix != "" {
			fmt.Fprintf(w, "\t\tfix: %s\n", event.Printable(r.Fix))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d pass, %d warn, %d fail, %d skipped\n",
		counts[walrelay.CheckPass], counts[walrelay.CheckWarn], counts[walrelay.CheckFail], counts[walrelay.CheckSkip])
	return err
}
