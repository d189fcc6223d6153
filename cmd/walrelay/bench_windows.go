package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// newBenchCommand says that there is none: it starts processes and reads /proc.
func newBenchCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "bench",
		Short:              "Measure throughput and latency (not on Windows)",
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("bench does not run on Windows: run it on Linux or macOS")
		},
	}
}

func newBenchHandlerCommand() *cobra.Command {
	return &cobra.Command{Use: "bench-handler", Hidden: true}
}
