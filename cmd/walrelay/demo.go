package main

import (
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/demo"
)

func newDemoCommand() *cobra.Command {
	var opts demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show everything at work, with throw-away servers",
		Long: `Start a throw-away Postgres, a nats-server, a relay between them, an application
that writes events and a consumer that prints what arrives. Ctrl-C ends and
removes it all. With --postgres-url, the demo uses that database instead; what it
makes there stays.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&opts.PostgresURL, "postgres-url", "", "use this database instead of a throw-away one")
	cmd.Flags().DurationVar(&opts.Pause, "pause", 500*time.Millisecond, "time between two transactions of the application")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := newLogger(walrelay.Config{Log: config.Log{Level: zerolog.LevelWarnValue, Format: "auto"}}, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		opts.Out, opts.Log = cmd.OutOrStdout(), log
		return demo.Run(cmd.Context(), opts)
	}
	return cmd
}
