package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/internal/status"
	"github.com/walrelay/walrelay/internal/wait"
)

// ratesAfter is how long rates are measured for a single document.
const ratesAfter = time.Second

func newStatusCommand() *cobra.Command {
	var asJSON bool
	var watch time.Duration
	var relay string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the relay, the slot, the streams and the delayed events stand",
		Long: `Show who reads the slot, how far it is behind and what it holds back, the delayed events
by state and why some have failed, the streams with their consumers, and what the checks
find. It asks both servers, whether or not a relay runs, and changes nothing.

It ends with 1 if one of the servers could not be asked.`,
		Example: `  walrelay status
  walrelay status --watch
  walrelay status --json | jq .slot.lag_bytes
  walrelay status --relay http://10.0.0.7:8080`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.BoolVar(&asJSON, "json", false, "one JSON object a line, see docs/status.md")
	flags.DurationVar(&watch, "watch", 0, "show it again after each interval (2s without a value), until SIGINT")
	flags.Lookup("watch").NoOptDefVal = "2s"
	flags.StringVar(&relay, "relay", "", "show what the relay at this HTTP address says (http.addr), in place of asking the servers")
	source := addConfigFlags(cmd)
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) error {
		if watch < 0 || watch > 0 && watch < ratesAfter {
			return &usageError{fmt.Sprintf("--watch %v: want %v or more", watch, ratesAfter)}
		}
		if relay != "" {
			return relayStatus(ctx, cmd.OutOrStdout(), relay, asJSON, watch)
		}
		reader, err := walrelay.NewStatusReader(cfg)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		interval := ratesAfter
		for first := true; ; first = false {
			document := reader.Read(ctx)
			// The first one has no rates; without an answer there will be none.
			single := watch == 0 && (!first || len(document.Unknown) > 0)
			if single || watch > 0 {
				if err := writeStatus(out, &document, asJSON, watch > 0); err != nil {
					return err
				}
			}
			if single {
				return unasked(&document)
			}
			if watch > 0 {
				interval = watch
			}
			if err := wait.For(ctx, interval); err != nil {
				if watch > 0 {
					return nil // that is how watching ends
				}
				return err
			}
		}
	})
	return cmd
}

// relayStatus shows what a relay says; watching ends with the context.
func relayStatus(ctx context.Context, out io.Writer, relay string, asJSON bool, watch time.Duration) error {
	for {
		document, raw, err := status.Fetch(ctx, relay)
		switch {
		case err != nil:
		case asJSON:
			if _, err = out.Write(raw); err != nil {
				err = fmt.Errorf("writing the status: %w", err)
			}
		default:
			err = writeStatus(out, &document, false, watch > 0)
		}
		if err == nil && watch == 0 {
			return unasked(&document)
		}
		if err == nil {
			err = wait.For(ctx, watch)
		}
		if watch > 0 && ctx.Err() != nil {
			return nil //nolint:nilerr // that is how watching ends
		}
		if err != nil {
			return err
		}
	}
}

// writeStatus writes one document; a watched one clears the screen of a terminal first.
func writeStatus(out io.Writer, document *walrelay.StatusDocument, asJSON, watched bool) error {
	if asJSON {
		return writeJSON(out, document, "the status")
	}
	var b strings.Builder
	if watched && isTerminal(out) {
		b.WriteString("\x1b[H\x1b[2J") // cursor to the top, clear (ECMA-48)
	}
	if err := document.Write(&b); err != nil {
		return err
	}
	if _, err := io.WriteString(out, b.String()); err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	return nil
}

// unasked is an error that says what could not be asked; nil if everything was.
func unasked(document *walrelay.StatusDocument) error {
	var errs []error
	for _, why := range document.Unknown {
		errs = append(errs, errors.New(why))
	}
	return errors.Join(errs...)
}
