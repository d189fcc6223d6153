package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/inbox"
)

func newInitCommand() *cobra.Command {
	var printSQL, withExisting, handlers bool
	var roles []string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Create what walrelay needs in Postgres and NATS",
		Long: `Create what walrelay needs and does not exist yet: its schema, the outbox
table, the publication and the replication slot in Postgres, and the stream in
NATS. What exists is checked and left as it is, so init may be run again.

With --inbox it makes instead what handlers of package inbox need in this
database, which may be another one: no slot, no outbox table, nothing in NATS.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&printSQL, "print-sql", false, "print the SQL for Postgres instead, for somebody else to run in psql")
	cmd.Flags().BoolVar(&withExisting, "with-existing", false, "then publish the rows that the outbox tables have already, as \"walrelay recover --yes\" does")
	cmd.Flags().BoolVar(&handlers, "inbox", false, "make the tables of handlers, and nothing else")
	cmd.Flags().StringArrayVar(&roles, "handler-role", nil, "with --inbox: a role that may run handlers (may be repeated)")
	source := addConfigFlags(cmd)
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) error {
		switch {
		case handlers && withExisting:
			return &usageError{"--inbox and --with-existing cannot be used together: --inbox makes the tables of handlers only"}
		case !handlers && len(roles) > 0:
			return &usageError{"--handler-role is for --inbox"}
		case handlers && printSQL:
			script, err := inbox.MigrationSQL(inbox.Roles{Handlers: roles})
			if err == nil {
				_, err = io.WriteString(cmd.OutOrStdout(), script)
			}
			return err
		case handlers:
			if err := walrelay.SetupInbox(ctx, cfg, roles); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "the tables of handlers are there")
			return nil
		}
		if printSQL && withExisting {
			return &usageError{"--print-sql and --with-existing cannot be used together: the printed SQL publishes nothing"}
		}
		if printSQL {
			script, err := walrelay.PrintSQL(cfg)
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), script)
			return err
		}
		report, err := walrelay.Setup(ctx, cfg)
		printReport(cmd, report)
		if err != nil || !withExisting {
			return err
		}
		found, err := walrelay.Recover(ctx, cfg, walrelay.RecoverOptions{
			Waiting: func(running bool) { fmt.Fprintln(cmd.ErrOrStderr(), waitingText(running)) },
		})
		if err != nil {
			return err
		}
		printRecovery(cmd, found, true)
		return nil
	})
	return cmd
}

// printReport writes a line for each object, and the warnings to standard
// error.
func printReport(cmd *cobra.Command, report walrelay.Report) {
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	for _, item := range report.Items {
		detail := ""
		if item.Detail != "" {
			detail = "\t" + item.Detail
		}
		fmt.Fprintf(table, "%s\t%s\t%s%s\n", item.Kind, item.Name, item.Action, detail)
	}
	_ = table.Flush() // nothing can be done about a closed standard output
	for _, d := range report.Durability {
		fmt.Fprintf(cmd.OutOrStdout(), "\nStream %s: %s.\n", d.Stream, d.Text)
	}
	for _, warning := range report.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+warning)
	}
}
