package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/retry"
)

func newDelayedCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delayed",
		Short: "See and change events that are scheduled, retrying, held or failed",
		Long: `See and change the events in the delay table: scheduled for later, waiting to be
tried again, held behind an earlier event of their key, or out of retries.
Needs only the database. The same can be done in SQL: see docs/delay.md.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newDelayedListCommand(),
		newDelayedShowCommand(),
		newDelayedChangeCommand(retry.Redrive, "Try failed events again, and retrying ones at once", "tried again"),
		newDelayedChangeCommand(retry.Discard, "Give failed, retrying or held events up for good", "discarded"),
		newDelayedChangeCommand(retry.Cancel, "Take scheduled events back", "cancelled"),
		newDelayedChangeCommand(retry.Reschedule, "Move scheduled or retrying events to another time", "moved"),
		newDelayedAdoptCommand(),
	)
	return cmd
}

// addFilterFlags adds the flags that say which events are meant.
func addFilterFlags(cmd *cobra.Command) *retry.Filter {
	filter := &retry.Filter{}
	flags := cmd.Flags()
	flags.StringVar((*string)(&filter.State), "state", "", "scheduled, retrying, held, failed or discarded")
	flags.StringVar(&filter.Type, "type", "", "event type")
	flags.StringVar(&filter.PartitionKey, "key", "", "partition key")
	flags.StringVar(&filter.Error, "error", "", "a part of the last error")
	flags.StringVar(&filter.Table, "table", "", "outbox table, such as public.outbox")
	flags.StringVar(&filter.Slot, "of-slot", "", "events of this slot only")
	return filter
}

func checkState(state retry.State) error {
	switch state {
	case "", retry.Scheduled, retry.Retrying, retry.Held, retry.Failed, retry.Discarded:
		return nil
	}
	return &usageError{fmt.Sprintf("--state: %q is not a state; there are scheduled, retrying, held, failed and discarded", state)}
}

// withDelayed runs do on a connection to the database.
func withDelayed(ctx context.Context, cfg walrelay.Config, do func(conn *pgx.Conn) error) error {
	return withConnection(ctx, cfg, walrelay.ConnectDelayed, do)
}

// withConnection runs do on a connection of its own.
func withConnection(ctx context.Context, cfg walrelay.Config, connect func(context.Context, walrelay.Config) (*pgx.Conn, error), do func(conn *pgx.Conn) error) error {
	conn, err := connect(ctx, cfg)
	if err != nil {
		return err
	}
	return errors.Join(do(conn), conn.Close(context.WithoutCancel(ctx)))
}

func newDelayedListCommand() *cobra.Command {
	var asJSON bool
	var before string
	limit := 50
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List delayed events, the newest first",
		Args:  cobra.NoArgs,
	}
	filter := addFilterFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	cmd.Flags().IntVar(&limit, "limit", limit, "how many at most; 0 for all")
	cmd.Flags().StringVar(&before, "before", "", "go on before this `POSITION/SLOT` of an earlier list")
	source := addConfigFlags(cmd)
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) error {
		if err := checkState(filter.State); err != nil {
			return err
		}
		if limit < 0 {
			return &usageError{fmt.Sprintf("--limit %d: want no less than 0", limit)}
		}
		var last *retry.Delayed
		if before != "" {
			position, slot, found := strings.Cut(before, "/")
			if _, err := event.ParsePosition(position); err != nil || !found || slot == "" {
				return &usageError{fmt.Sprintf("--before %q: want what an earlier list says, such as 00000000019553D8.00000000/walrelay", before)}
			}
			last = &retry.Delayed{Position: position, Slot: slot}
		}
		return withDelayed(ctx, cfg, func(conn *pgx.Conn) error {
			return listDelayed(ctx, conn, *filter, last, limit, asJSON, cmd.OutOrStdout(), cmd.ErrOrStderr())
		})
	})
	return cmd
}

// pageSize is how many events are read at a time.
const pageSize = 500

// pages reads a list, page by page, and takes up to limit entries of it; 0 for all. If there are more, it returns
// the last one that was taken.
func pages[T any](limit int, last *T, read func(last *T, size int) ([]T, error), take func(*T) error) (before *T, err error) {
	for n := 0; ; {
		size := pageSize
		if limit > 0 {
			size = min(pageSize, limit-n+1) // one more tells whether there are more
		}
		list, err := read(last, size)
		if err != nil {
			return nil, err
		}
		for i := range list {
			if limit > 0 && n == limit {
				return last, nil
			}
			if err := take(&list[i]); err != nil {
				return nil, fmt.Errorf("writing the list: %w", err)
			}
			n++
			last = &list[i]
		}
		if len(list) < size {
			return nil, nil //nolint:nilnil // there are no more
		}
	}
}

func listDelayed(ctx context.Context, conn *pgx.Conn, filter retry.Filter, last *retry.Delayed, limit int, asJSON bool, stdout, stderr io.Writer) error {
	out := bufio.NewWriter(stdout)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	encoder := json.NewEncoder(out)
	take := func(d *retry.Delayed) error { return encoder.Encode(d) }
	if !asJSON {
		fmt.Fprintln(table, "ID\tTYPE\tSTATE\tDUE\tATTEMPTS\tKEY\tLAST ERROR")
		take = func(d *retry.Delayed) error {
			printDelayed(table, d)
			return nil
		}
	}
	before, err := pages(limit, last, func(last *retry.Delayed, size int) ([]retry.Delayed, error) {
		return retry.List(ctx, conn, filter, last, size)
	}, take)
	if err != nil {
		return err
	}
	if err := errors.Join(table.Flush(), out.Flush()); err != nil {
		return fmt.Errorf("writing the list: %w", err)
	}
	if before != nil {
		fmt.Fprintf(stderr, "there are more; see them with --before %s/%s or a higher --limit, or narrow the list with --state, --type, --key or --error\n", before.Position, before.Slot)
	}
	return nil
}

func printDelayed(w io.Writer, d *retry.Delayed) {
	due := ""
	if d.DueAt != nil && (d.State == retry.Scheduled || d.State == retry.Retrying) {
		due = d.DueAt.UTC().Format(time.RFC3339)
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", short(d.ID, 40), short(d.Type, 40), d.State, due, d.Attempts, short(d.PartitionKey, 30), short(d.LastError, 80))
}

// short makes a text fit into a cell: on one line, and no longer than n.
func short(text string, n int) string {
	text = event.Printable(strings.Join(strings.Fields(text), " "))
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return text
}

func newDelayedShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show an event with all its attempts",
		Args:  cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	source := addConfigFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return source.command(func(ctx context.Context, cfg walrelay.Config) error {
			return withDelayed(ctx, cfg, func(conn *pgx.Conn) error {
				list, err := retry.Show(ctx, conn, args[0])
				if err != nil {
					return err
				}
				if len(list) == 0 {
					return fmt.Errorf("no delayed event has the id %q: it is published, discarded and cleaned away, or was never committed; ask SELECT state FROM walrelay.event_status('%s')", args[0], args[0])
				}
				for _, detail := range list {
					if err := printDetail(cmd.OutOrStdout(), detail, asJSON); err != nil {
						return err
					}
				}
				return nil
			})
		})(cmd, args)
	}
	return cmd
}

func printDetail(w io.Writer, d retry.Detail, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(d); err != nil {
			return fmt.Errorf("writing event %q: %w", d.ID, err)
		}
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name string, value any) { fmt.Fprintf(table, "%s\t%s\n", name, event.Printable(fmt.Sprint(value))) }
	row("id", d.ID)
	row("type", d.Type)
	row("source", d.Source)
	if d.PartitionKey != "" {
		row("partition key", short(d.PartitionKey, 200))
	}
	row("table", d.Schema+"."+d.Table)
	row("slot", d.Slot)
	row("state", d.State)
	if d.DueAt != nil && (d.State == retry.Scheduled || d.State == retry.Retrying) {
		row("due", d.DueAt.UTC().Format(time.RFC3339Nano))
	}
	row("attempts", d.Attempts)
	if d.MaxRetries != nil {
		row("max retries", *d.MaxRetries)
	}
	row("since", d.CreatedAt.UTC().Format(time.RFC3339Nano))
	for _, failure := range d.Failures {
		row("failed", failure.At.UTC().Format(time.RFC3339Nano)+"  "+failure.Error)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing event %q: %w", d.ID, err)
	}
	fmt.Fprintf(w, "%s\n%s\n\n", d.Kind, event.Printable(string(d.Content)))
	return nil
}

func newDelayedChangeCommand(action retry.Action, what, done string) *cobra.Command {
	var all, yes bool
	var at string
	use := string(action) + " [ID]"
	if action == retry.Reschedule {
		use += " --at TIME"
	}
	cmd := &cobra.Command{
		Use:   use,
		Short: what,
		Long: what + `: one event by its id, those that a filter takes, or all.
Says how many there are and asks, unless --yes is given.`,
		Args: cobra.MaximumNArgs(1),
	}
	filter := addFilterFlags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "every event that this can be done to")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	if action == retry.Reschedule {
		cmd.Flags().StringVar(&at, "at", "", "the new time, such as 2030-01-02T15:04:05Z, or a duration from now, such as 10m")
	}
	source := addConfigFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return source.command(func(ctx context.Context, cfg walrelay.Config) error {
			if len(args) == 1 {
				filter.ID = args[0]
			}
			if err := checkState(filter.State); err != nil {
				return err
			}
			if (*filter == retry.Filter{}) != all {
				return &usageError{"name an event by its id, or several by --state, --type, --key, --error or --of-slot, or say --all; not both"}
			}
			var when time.Time
			if action == retry.Reschedule {
				var err error
				if when, err = retry.ParseTime(at, time.Now()); err != nil {
					return &usageError{"--at: " + err.Error()}
				}
			}
			return withDelayed(ctx, cfg, func(conn *pgx.Conn) error {
				return changeEvents(cmd, yes, change{
					what: string(action), kind: "delayed", done: done,
					count: func() (int64, error) { return retry.Count(ctx, conn, action, *filter) },
					do:    func() (int64, error) { return retry.Do(ctx, conn, action, *filter, when) },
				})
			})
		})(cmd, args)
	}
	return cmd
}

// change is what a command does to events of a kind.
type change struct {
	what, kind, done string
	count, do        func() (int64, error)
}

// changeEvents says how many there are, asks unless yes is given, and changes them.
func changeEvents(cmd *cobra.Command, yes bool, c change) error {
	n, err := c.count()
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("no %s event that this takes can be %s", c.kind, c.done)
	}
	if !yes && !confirm(cmd, fmt.Sprintf("%s: %d %s?", c.what, n, events(n))) {
		return errors.New("nothing was changed")
	}
	if n, err = c.do(); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%d %s %s\n", n, events(n), c.done)
	return nil
}

func newDelayedAdoptCommand() *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "adopt --from SLOT",
		Short: "Take over the delayed events of a slot that does not exist any more",
		Long: `Take over the delayed events of a slot that does not exist any more, as after
a change of its name: what is scheduled, retrying, held or failed there becomes
this slot's. The relay of this slot must not run meanwhile.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&from, "from", "", "the slot that does not exist any more")
	source := addConfigFlags(cmd)
	cmd.RunE = source.command(func(ctx context.Context, cfg walrelay.Config) error {
		if from == "" {
			return &usageError{"--from: name the slot whose events are to be taken over"}
		}
		return withDelayed(ctx, cfg, func(conn *pgx.Conn) error {
			if err := check.RefuseRelay(ctx, conn, cfg); err != nil {
				return err
			}
			n, err := retry.Adopt(ctx, conn, from, cfg.Slot)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d %s of slot %q taken over by slot %q\n", n, events(n), from, cfg.Slot)
			return nil
		})
	})
	return cmd
}

func events(n int64) string {
	if n == 1 {
		return "event"
	}
	return "events"
}

// errNoTerminal is what a command says that would ask before it does something.
func errNoTerminal() error {
	return &usageError{"there is no terminal to ask on; look with --dry-run, and then give --yes"}
}

// writeJSON writes a value in a line; what says in an error what it is.
func writeJSON(out io.Writer, value any, what string) error {
	if err := json.NewEncoder(out).Encode(value); err != nil {
		return fmt.Errorf("writing %s: %w", what, err)
	}
	return nil
}

// confirm asks on the terminal; no answer is a no.
func confirm(cmd *cobra.Command, question string) bool {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true
	}
	return false
}
