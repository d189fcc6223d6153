//go:build !servers || windows

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// serverCommand is empty: what runs beside a production database has no nats-server in it.
const serverCommand = ""

// errNoServers says where the servers are.
var errNoServers = errors.New("this walrelay was built without a nats-server: run make demo, or build it with make build TAGS=servers")

func newDemoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show everything at work, with throw-away servers (built with -tags servers only)",
		Args:  cobra.ArbitraryArgs,
		// Flags of the other build are not wrong usage.
		DisableFlagParsing: true,
		RunE:               func(*cobra.Command, []string) error { return errNoServers },
	}
}

// newBenchServerCommand is nothing that can be called.
func newBenchServerCommand() *cobra.Command {
	return &cobra.Command{Use: "bench-nats-server", Hidden: true, RunE: func(*cobra.Command, []string) error { return errNoServers }}
}
