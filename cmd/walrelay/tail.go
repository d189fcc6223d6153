package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/tail"
)

func newTailCommand() *cobra.Command {
	var o tail.Options
	var from string
	cmd := &cobra.Command{
		Use:   "tail [TYPE …]",
		Short: "Show events as they arrive in the stream",
		Long: `Show events as they arrive in the stream, in its order, until SIGINT: all, or those of
the types or patterns that are given (order.placed, order.*, order.>).
Nothing is changed in NATS.`,
		Example: `  walrelay tail
  walrelay tail 'order.*' --from 10m --whole
  walrelay tail --from start --no-follow --json | jq .event`,
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Stream, "stream", "", "the stream; default the first one of the configuration")
	flags.StringVar(&from, "from", "now", "`WHERE` to begin: now, start, a sequence, a time (RFC 3339), or how long ago (10m)")
	flags.IntVarP(&o.Limit, "limit", "n", 0, "end after so many events; 0 for never")
	flags.BoolVar(&o.NoFollow, "no-follow", false, "end at the end of the stream")
	flags.BoolVar(&o.JSON, "json", false, "one JSON object a line")
	flags.BoolVar(&o.Whole, "whole", false, "all attributes and the payload of each event")
	source := addConfigFlags(cmd, "nats.", "publish.subject")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return source.command(func(ctx context.Context, cfg walrelay.Config) error {
			var err error
			if o.From, err = tail.ParseFrom(from, time.Now()); err != nil {
				return &usageError{"--from " + err.Error()}
			}
			if o.Limit < 0 || o.JSON && o.Whole {
				return &usageError{fmt.Sprintf("--limit %d: want no less than 0; and either --json or --whole", o.Limit)}
			}
			o.Types = inbox.All()
			if len(args) > 0 {
				o.Types = inbox.Types(args...)
			}
			o.Color = isTerminal(cmd.OutOrStdout()) && os.Getenv("NO_COLOR") == ""
			if err := o.Types.Check(); err != nil {
				return &usageError{err.Error()}
			}
			return walrelay.Tail(ctx, cfg, o, cmd.OutOrStdout())
		})(cmd, args)
	}
	return cmd
}
