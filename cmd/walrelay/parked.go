package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/inbox"
)

func newParkedCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "parked",
		Short: "See and change events that handlers could not handle",
		Long: `See and change the events that handlers of package inbox have parked: failed for
good, waiting to be tried again, or held behind an earlier event of their key.
Needs only the handlers' database. The same can be done in SQL: see docs/inbox.md.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newParkedListCommand(), newParkedShowCommand(),
		newParkedChangeCommand(inbox.Redrive, "Handle failed events again, and retrying ones at once; then what is held behind them", "redriven"),
		newParkedChangeCommand(inbox.Discard, "Give parked events up for good; what is held behind them is handled", "discarded"),
	)
	return cmd
}

func addParkedFilterFlags(cmd *cobra.Command) *inbox.Filter {
	filter := &inbox.Filter{}
	flags := cmd.Flags()
	flags.StringVar(&filter.Handler, "handler", "", "events of this handler")
	flags.StringVar(&filter.State, "state", "", "failed, retrying, ready or held")
	flags.StringVar(&filter.Type, "type", "", "event type")
	flags.StringVar(&filter.Key, "key", "", "partition key")
	flags.StringVar(&filter.Error, "error", "", "a part of the last error")
	return filter
}

func checkParkedState(state string) error {
	if state == "" || slices.Contains([]string{"failed", "retrying", "ready", "held"}, state) {
		return nil
	}
	return &usageError{fmt.Sprintf("--state: %q is not a state; there are failed, retrying, ready and held", state)}
}

// withInbox runs do on a connection to the handlers' database.
func withInbox(ctx context.Context, cfg walrelay.Config, do func(conn *pgx.Conn) error) error {
	return withConnection(ctx, cfg, walrelay.ConnectInbox, do)
}

func newParkedListCommand() *cobra.Command {
	var asJSON bool
	limit, before := 50, int64(0)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List parked events, the last one first",
		Args:  cobra.NoArgs,
	}
	filter := addParkedFilterFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	cmd.Flags().IntVar(&limit, "limit", limit, "how many at most; 0 for all")
	cmd.Flags().Int64Var(&before, "before", 0, "go on before this number of an earlier list")
	source := addConfigFlags(cmd)
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) error {
		if err := checkParkedState(filter.State); err != nil {
			return err
		}
		if limit < 0 || before < 0 {
			return &usageError{fmt.Sprintf("--limit %d --before %d: want no less than 0", limit, before)}
		}
		return withInbox(ctx, cfg, func(conn *pgx.Conn) error {
			return listParked(ctx, conn, *filter, before, limit, asJSON, cmd.OutOrStdout(), cmd.ErrOrStderr())
		})
	})
	return cmd
}

func listParked(ctx context.Context, conn *pgx.Conn, filter inbox.Filter, before int64, limit int, asJSON bool, stdout, stderr io.Writer) error {
	out := bufio.NewWriter(stdout)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	encoder := json.NewEncoder(out)
	take := func(p *inbox.Parked) error { return encoder.Encode(p) }
	if !asJSON {
		fmt.Fprintln(table, "NUMBER\tHANDLER\tID\tTYPE\tSTATE\tNEXT\tATTEMPTS\tKEY\tLAST ERROR")
		take = func(p *inbox.Parked) error {
			printParked(table, p)
			return nil
		}
	}
	next, err := pages(limit, &inbox.Parked{Number: before}, func(last *inbox.Parked, size int) ([]inbox.Parked, error) {
		return inbox.ListParked(ctx, conn, filter, last.Number, size)
	}, take)
	if err != nil {
		return err
	}
	if err := errors.Join(table.Flush(), out.Flush()); err != nil {
		return fmt.Errorf("writing the list: %w", err)
	}
	if next != nil {
		fmt.Fprintf(stderr, "there are more; see them with --before %d or a higher --limit, or narrow the list with --handler, --state, --type, --key or --error\n", next.Number)
	}
	return nil
}

func printParked(w io.Writer, p *inbox.Parked) {
	next := ""
	if p.State == "retrying" || p.State == "ready" {
		next = p.NextAttemptAt.UTC().Format(time.RFC3339)
	}
	fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", p.Number, p.Handler, short(p.ID, 40), short(p.Type, 40), p.State, next, p.Attempts, short(p.Key, 30), short(p.LastError, 80))
}

func newParkedShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show parked events with their content, for each handler",
		Args:  cobra.ExactArgs(1),
	}
	source := addConfigFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return source.command(func(ctx context.Context, cfg walrelay.Config) error {
			return withInbox(ctx, cfg, func(conn *pgx.Conn) error {
				list, err := inbox.ListParked(ctx, conn, inbox.Filter{ID: args[0]}, 0, 0)
				if err != nil {
					return err
				}
				if len(list) == 0 {
					return fmt.Errorf("no handler has parked an event with the id %q", args[0])
				}
				for i := range list {
					if err := showParked(ctx, conn, cmd.OutOrStdout(), &list[i]); err != nil {
						return err
					}
				}
				return nil
			})
		})(cmd, args)
	}
	return cmd
}

func showParked(ctx context.Context, conn *pgx.Conn, w io.Writer, p *inbox.Parked) error {
	header, data, err := inbox.ParkedContent(ctx, conn, p.Number)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name string, value any) { fmt.Fprintf(table, "%s\t%s\n", name, event.Printable(fmt.Sprint(value))) }
	row("number", p.Number)
	row("handler", p.Handler)
	row("id", p.ID)
	row("type", p.Type)
	row("source", p.Source)
	if p.Key != "" {
		row("partition key", short(p.Key, 200))
	}
	row("message", fmt.Sprintf("%d of stream %s, subject %s", p.Sequence, p.Stream, p.Subject))
	row("state", p.State)
	row("attempts", p.Attempts)
	if p.State == "retrying" || p.State == "ready" {
		row("next attempt", p.NextAttemptAt.UTC().Format(time.RFC3339Nano))
	}
	row("parked", p.ParkedAt.UTC().Format(time.RFC3339Nano))
	if p.LastError != "" {
		row("last error", p.LastError)
	}
	for _, name := range slices.Sorted(maps.Keys(header)) {
		row("header "+name, strings.Join(header[name], ", "))
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing event %q: %w", p.ID, err)
	}
	fmt.Fprintf(w, "%s\n\n", event.Printable(string(data)))
	return nil
}

func newParkedChangeCommand(action inbox.Action, what, done string) *cobra.Command {
	var all, yes bool
	cmd := &cobra.Command{
		Use:   string(action) + " [ID]",
		Short: what,
		Long: what + `: one event by its id, those that a filter takes, or all.
Says how many there are and asks, unless --yes is given.`,
		Args: cobra.MaximumNArgs(1),
	}
	filter := addParkedFilterFlags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "every event that this can be done to")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	source := addConfigFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return source.command(func(ctx context.Context, cfg walrelay.Config) error {
			if len(args) == 1 {
				filter.ID = args[0]
			}
			if err := checkParkedState(filter.State); err != nil {
				return err
			}
			if (*filter == inbox.Filter{}) != all {
				return &usageError{"name an event by its id, or several by --handler, --state, --type, --key or --error, or say --all; not both"}
			}
			return withInbox(ctx, cfg, func(conn *pgx.Conn) error {
				return changeEvents(cmd, yes, change{
					what: string(action), kind: "parked", done: done,
					count: func() (int64, error) { return inbox.CountParked(ctx, conn, action, *filter) },
					do:    func() (int64, error) { return inbox.ChangeParked(ctx, conn, action, *filter) },
				})
			})
		})(cmd, args)
	}
	return cmd
}

func newHandlersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "handlers",
		Short: "See the handlers of applications, rename and remove them",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newHandlersListCommand(), newHandlersRenameCommand(), newHandlersRemoveCommand())
	return cmd
}

func newHandlersListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the handlers that the database knows",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	source := addConfigFlags(cmd)
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) error {
		return withInbox(ctx, cfg, func(conn *pgx.Conn) error {
			list, err := inbox.ListHandlers(ctx, conn)
			if err != nil {
				return err
			}
			if asJSON {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				for i := range list {
					if err := encoder.Encode(list[i]); err != nil {
						return fmt.Errorf("writing the list: %w", err)
					}
				}
				return nil
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "HANDLER\tSTREAM\tTYPES\tMODE\tPROCESS\tSEEN\tLAG\tPARKED\tBLOCKED KEYS\tREMOVED\tLAST ERROR")
			for i := range list {
				h := &list[i]
				seen := ""
				if h.SeenAt != nil {
					seen = h.SeenAt.UTC().Format(time.RFC3339)
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", h.Handler, h.Stream, short(strings.Join(h.Types, ","), 40), h.Mode, short(h.Process, 40), seen,
					h.Lag, h.Parked, h.BlockedKeys, h.Removed, short(h.LastError, 80))
			}
			if err := table.Flush(); err != nil {
				return fmt.Errorf("writing the list: %w", err)
			}
			return nil
		})
	})
	return cmd
}

func newHandlersRenameCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rename FROM TO",
		Short: "Rename a handler that does not run: its consumer, marks and parked events",
		Args:  cobra.ExactArgs(2),
	}
	source := addConfigFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return source.command(func(ctx context.Context, cfg walrelay.Config) error {
			if err := walrelay.RenameHandler(ctx, cfg, args[0], args[1]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "handler %s is now %s\n", event.Printable(args[0]), event.Printable(args[1]))
			return nil
		})(cmd, args)
	}
	return cmd
}

func newHandlersRemoveCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove HANDLER",
		Short: "Remove a handler that does not run any more: its consumer, marks and parked events",
		Args:  cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	source := addConfigFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return source.command(func(ctx context.Context, cfg walrelay.Config) error {
			if !yes && !confirm(cmd, fmt.Sprintf("remove handler %q with its parked events?", event.Printable(args[0]))) {
				return errors.New("nothing was changed")
			}
			parked, err := walrelay.RemoveHandler(ctx, cfg, args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "handler %s is removed, and %d parked %s\n", event.Printable(args[0]), parked, events(parked))
			return nil
		})(cmd, args)
	}
	return cmd
}
