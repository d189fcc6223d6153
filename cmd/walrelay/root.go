package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// execute runs one command, until it ends or the process is asked to. A second
// signal ends the process at once.
func execute(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	// What fails before a command has begun is wrong usage.
	begun := false
	root.PersistentPreRun = func(*cobra.Command, []string) { begun = true }

	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	for _, line := range lines(err) {
		fmt.Fprintln(stderr, "walrelay: "+line)
	}
	if !begun || isUsage(err) {
		return exitUsage
	}
	return exitFailed
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "walrelay",
		Short:         "Stream a Postgres outbox to NATS JetStream, in commit order",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newInitCommand(), newRunCommand(), newDelayedCommand(), newDeliverCommand(), newParkedCommand(), newHandlersCommand(), newStatusCommand(), newDoctorCommand(), newTailCommand(), newReplayCommand(), newRepairCommand(), newRecoverCommand(), newHandoverCommand(), newDemoCommand(),
		newBenchCommand(), newBenchServerCommand(), newBenchHandlerCommand(), newVersionCommand())
	return root
}

// usageError is a fault of flags, environment or configuration file.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func isUsage(err error) bool {
	if _, ok := errors.AsType[*usageError](err); ok {
		return true
	}
	_, ok := errors.AsType[*walrelay.ConfigError](err)
	return ok
}

// lines returns one line for each of the errors that err joins.
func lines(err error) []string {
	joined := faults(err)
	texts := make([]string, len(joined))
	for i, fault := range joined {
		text := strings.ReplaceAll(fault.Error(), "\n\nDid you mean this?\n\t", "; did you mean ")
		texts[i] = strings.Join(strings.Fields(text), " ")
	}
	return texts
}

// faults returns the errors that err joins, or err itself.
func faults(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error }) // a wrapped join is one sentence
	if !ok {
		return []error{err}
	}
	var all []error
	for _, fault := range joined.Unwrap() {
		all = append(all, faults(fault)...)
	}
	return all
}
