//go:build servers && !windows

package main

import (
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/demo"
	"github.com/walrelay/walrelay/internal/localnats"
)

// serverCommand is the subcommand that is a nats-server.
const serverCommand = "bench-nats-server"

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

// newBenchServerCommand is what bench starts for its nats-server to have a
// process of its own.
func newBenchServerCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:    serverCommand,
		Short:  "Run a nats-server for bench until standard input ends",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return localnats.Serve(dir, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&dir, "store-dir", "", "folder for the streams; default a new one")
	return cmd
}
