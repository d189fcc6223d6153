package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
)

func newRunCommand() *cobra.Command {
	var withInit bool
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
	source := addConfigFlags(cmd)
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) error {
		log, err := newLogger(cfg, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		relay, err := walrelay.New(cfg, log)
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
		return relay.Run(ctx)
	})
	return cmd
}
