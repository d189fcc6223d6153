// Package recovery re-emits what stands in the outbox tables and was never read by
// the slot: rows from before it, as after a lost slot or a replaced table.
//
// Input: the outbox tables, the journal and the delay table. Output: rows of
// walrelay.emitted, which the relay publishes like any other event. Promises: a row
// that is settled, or that the slot reads by itself, is not touched; each row is
// emitted once, also when recovery is killed and begun again, and beside live traffic.
// The package must not import what publishes events.
package recovery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/settled"
	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/journal"
	"github.com/walrelay/walrelay/sql"
)

const (
	// chunk is how many rows are looked up in the journal at a time, and batch how many
	// of them one transaction emits.
	chunk = 50_000
	batch = 500
	// lockPatience is how long the session of a recovery that was killed may last.
	lockPatience = 10 * time.Second
	// poll is the time between two looks at the slot.
	poll = 200 * time.Millisecond
	// examples is how many ids of a table are shown.
	examples = 5
)

// Options say what a recovery does.
type Options struct {
	// DryRun emits nothing.
	DryRun bool
	// Since, if not zero, leaves out rows that were created before.
	Since time.Time
	// Waiting, if not nil, is called when the relay has still to settle what is in the
	// WAL up to now; running says that there is one.
	Waiting func(running bool)
	// Confirm, if not nil, is asked before anything is emitted.
	Confirm func(Report) error
}

// Table says what was found in an outbox table.
type Table struct {
	Table string `json:"table"`
	// Rows are not settled, and the slot does not read them. Emitted of them were
	// re-emitted.
	Rows    int `json:"rows"`
	Emitted int `json:"emitted"`
	// Oldest and Newest are when the first and the last of them were created, as far as
	// the table says so.
	Oldest *time.Time `json:"oldest,omitempty"`
	Newest *time.Time `json:"newest,omitempty"`
	// Examples are the ids of the first of them.
	Examples []string `json:"examples,omitempty"`
}

// Report says what was found.
type Report struct {
	Tables []Table `json:"tables"`
}

// Rows is the number of rows in all tables.
func (r Report) Rows() (n int) {
	for _, t := range r.Tables {
		n += t.Rows
	}
	return n
}

// Recover re-emits the rows of the outbox tables that are not settled and that the
// slot does not read, in the order in which they were created, which need not be
// commit order. Unless in a dry run it first blocks until the relay has settled
// everything that is in the WAL at the moment: what an earlier recovery has emitted is
// known then. The error joins *[config.Error] and *[problem.Problem] values.
func Recover(ctx context.Context, cfg config.Config, options Options) (Report, error) {
	var report Report
	cfg = cfg.WithDefaults()
	results, _, err := check.Run(ctx, cfg)
	if err := errors.Join(results.Err(), err); err != nil {
		return report, err
	}
	if cfg.Outbox.AfterPublish == "keep" && options.Since.IsZero() {
		return report, &problem.Problem{
			ID:   "recover_since",
			What: "published rows are kept (outbox.after_publish: keep), so that nobody can tell those of long ago from rows that were not published",
			Fix:  "say since when rows are missing: --since TIME",
		}
	}
	conn, err := connect.Durable(ctx, cfg.Postgres)
	if err != nil {
		return report, err
	}
	defer connect.ClosePostgres(conn)
	r := &recovery{cfg: cfg, options: options, conn: conn}
	if err := r.lock(ctx); err != nil {
		return report, err
	}
	tables, err := r.tables(ctx)
	if err != nil {
		return report, err
	}
	if !options.DryRun {
		if err := settled.Await(ctx, conn, cfg, options.Waiting); err != nil {
			return report, err
		}
	}
	for i := range tables {
		found := Table{Table: tables[i].name.String()}
		if err := r.each(ctx, &tables[i], &found, nil); err != nil {
			return report, err
		}
		report.Tables = append(report.Tables, found)
	}
	if options.DryRun || report.Rows() == 0 {
		return report, nil
	}
	if options.Confirm != nil {
		if err := options.Confirm(report); err != nil {
			return report, err
		}
	}
	for i := range tables {
		found := &report.Tables[i]
		var below string
		if err := conn.QueryRow(ctx, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text").Scan(&below); err != nil {
			return report, fmt.Errorf("reading the snapshot: %w", err)
		}
		if err := r.each(ctx, &tables[i], &Table{}, func(ids []string) error {
			n, err := r.emit(ctx, &tables[i], ids)
			found.Emitted += n
			return err
		}); err != nil {
			return report, err
		}
		if !options.Since.IsZero() {
			continue // what is older was not emitted
		}
		if _, err := conn.Exec(ctx, sql.RecoverNote, cfg.Slot, tables[i].name.Schema, tables[i].name.Name, below); err != nil {
			return report, fmt.Errorf("writing walrelay.recovered: %w", err)
		}
	}
	return report, nil
}

type recovery struct {
	cfg     config.Config
	options Options
	conn    *pgx.Conn
}

// table is an outbox table that the slot reads.
type table struct {
	name    sql.Table
	only    string // "ONLY " for a table that is not partitioned
	covered string // the transaction from which on the slot reads it
	id      string // column
	created string // column; empty without one
	marked  bool   // it has the column published_at
	columns []column
	idType  string
}

type column struct {
	name string
	oid  uint32
}

// lock refuses a second recovery of the slot. The lock ends with the connection.
func (r *recovery) lock(ctx context.Context) error {
	for deadline := time.Now().Add(lockPatience); ; {
		var free bool
		if err := r.conn.QueryRow(ctx, sql.RecoverLock, r.cfg.Slot).Scan(&free); err != nil {
			return fmt.Errorf("looking for another recovery: %w", err)
		}
		if free {
			return nil
		}
		if time.Now().Before(deadline) {
			if err := wait.For(ctx, poll); err != nil {
				return fmt.Errorf("waiting for another recovery: %w", err)
			}
			continue
		}
		return &problem.Problem{ID: "recover_running", What: fmt.Sprintf("another recovery of slot %q is running", r.cfg.Slot), Fix: "wait until it has ended"}
	}
}

// tables returns the outbox tables that the slot reads.
func (r *recovery) tables(ctx context.Context) ([]table, error) {
	var tables []table
	for _, name := range r.cfg.Outbox.Tables {
		mapping, err := r.cfg.Mapping(name)
		if err != nil {
			return nil, err
		}
		parsed, err := config.ParseTable(name)
		if err != nil {
			return nil, err
		}
		t := table{name: parsed, id: mapping.Column(event.ColumnID)}
		var kind string
		err = r.conn.QueryRow(ctx, sql.RecoverTable, r.cfg.Slot, parsed.Schema, parsed.Name).Scan(&kind, &t.covered, &t.marked)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, &problem.Problem{
				ID: "outbox_uncovered", What: fmt.Sprintf("since when slot %q reads outbox table %s is not known", r.cfg.Slot, name),
				Fix: `run "walrelay init" as the owner of the schema walrelay`,
			}
		}
		if err != nil {
			return nil, fmt.Errorf("reading walrelay.outboxes: %w", err)
		}
		if kind == "r" {
			t.only = "ONLY "
		}
		if err := r.columns(ctx, &t, mapping); err != nil {
			return nil, err
		}
		if t.created == "" && !r.options.Since.IsZero() {
			return nil, &problem.Problem{
				ID: "recover_since", What: fmt.Sprintf("outbox table %s has no column that says when a row was created", name), Fix: "leave --since out, or map time to a column",
			}
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// columns finds the columns that make events.
func (r *recovery) columns(ctx context.Context, t *table, mapping decode.Mapping) error {
	wanted := make(map[string]bool)
	for _, c := range mapping.Columns() {
		wanted[c.Name] = true
	}
	rows, err := r.conn.Query(ctx, sql.JournalColumns, t.name.Schema, t.name.Name, r.cfg.Publication)
	if err != nil {
		return fmt.Errorf("reading the columns of table %s: %w", t.name, err)
	}
	var c column
	var typ string
	_, err = pgx.ForEachRow(rows, []any{&c.name, &typ, &c.oid}, func() error {
		if c.name == t.id {
			t.idType = typ
		}
		if c.name == mapping.Column(event.ColumnTime) && strings.HasPrefix(typ, "timestamp") {
			t.created = c.name
		}
		if wanted[c.name] {
			t.columns = append(t.columns, c)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the columns of table %s: %w", t.name, err)
	}
	return nil
}

// each calls do with the ids of unsettled rows, in the order in which they
// were created, and says what they are.
func (r *recovery) each(ctx context.Context, t *table, found *Table, do func(ids []string) error) error {
	// The server keeps the result, and no snapshot: the database is not held back.
	if _, err := r.conn.Exec(ctx, r.cursor(t)); err != nil {
		return fmt.Errorf("reading outbox table %s: %w", t.name, err)
	}
	defer func() { _, _ = r.conn.Exec(context.WithoutCancel(ctx), "CLOSE walrelay_recover") }() // ends with the connection
	for {
		rows, err := r.conn.Query(ctx, fmt.Sprintf("FETCH %d FROM walrelay_recover", chunk))
		if err != nil {
			return fmt.Errorf("reading outbox table %s: %w", t.name, err)
		}
		type row struct {
			ID      string
			Created *time.Time
		}
		candidates, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
		if err != nil {
			return fmt.Errorf("reading outbox table %s: %w", t.name, err)
		}
		if len(candidates) == 0 {
			return nil
		}
		left := make(map[string]bool, len(candidates))
		for _, c := range candidates {
			left[c.ID] = true
		}
		if err := r.journalled(ctx, t.name, left); err != nil {
			return err
		}
		var ids []string
		for _, c := range candidates {
			if !left[c.ID] {
				continue
			}
			ids = append(ids, c.ID)
			found.Rows++
			if len(found.Examples) < examples {
				found.Examples = append(found.Examples, c.ID)
			}
			if c.Created != nil {
				if found.Oldest == nil {
					found.Oldest = c.Created
				}
				found.Newest = c.Created
			}
		}
		for do != nil && len(ids) > 0 {
			n := min(batch, len(ids))
			if err := do(ids[:n]); err != nil {
				return err
			}
			ids = ids[n:]
		}
	}
}

// cursor is the statement that reads which rows the slot does not read, and which are
// not in the delay table or on their way.
func (r *recovery) cursor(t *table) string {
	created := "NULL::timestamptz"
	if t.created != "" {
		created = "o." + sql.Ident(t.created) + "::timestamptz"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `DECLARE walrelay_recover NO SCROLL CURSOR WITH HOLD FOR
		SELECT format('%%s', o.%[1]s), CASE WHEN isfinite(%[2]s) THEN %[2]s END
		FROM %[3]s%[4]s AS o
		WHERE %[5]s`, sql.Ident(t.id), created, t.only, t.name.Ident(), unread(t))
	if !r.options.Since.IsZero() {
		fmt.Fprintf(&b, "\n\t\t  AND %s >= %s", created, sql.Literal(r.options.Since.UTC().Format(time.RFC3339Nano)))
	}
	for _, other := range []string{"delayed", "underway"} {
		fmt.Fprintf(&b, `
		  AND NOT EXISTS (
		    SELECT FROM walrelay.%s AS d
		    WHERE d.slot = %s AND d.id = format('%%s', o.%s) AND d.table_schema = %s AND d.table_name = %s
		  )`, other, sql.Literal(r.cfg.Slot), sql.Ident(t.id), sql.Literal(t.name.Schema), sql.Literal(t.name.Name))
	}
	fmt.Fprintf(&b, "\n\t\tORDER BY %s, o.%s", created, sql.Ident(t.id))
	return b.String()
}

// unread is the condition of rows that the slot does not read, and that are not marked
// as published.
func unread(t *table) string {
	text := fmt.Sprintf("walrelay.full_xid(o.xmin) < %s", t.covered)
	if t.marked {
		text += " AND o.published_at IS NULL"
	}
	return text
}

// journalled removes the ids of a table of which the journal has the outcome.
func (r *recovery) journalled(ctx context.Context, name sql.Table, ids map[string]bool) error {
	after := int64(-1)
	for {
		rows, err := r.conn.Query(ctx, sql.RecoverJournal, r.cfg.Slot, after)
		if err != nil {
			return fmt.Errorf("reading walrelay.journal: %w", err)
		}
		var page journal.Page
		var first, last string
		pages := 0
		_, err = pgx.ForEachRow(rows, []any{&after, &page.Stream, &first, &last, &page.Events, &page.Entries}, func() (err error) {
			pages++
			if page.First, err = event.ParsePosition(first); err != nil {
				return err
			}
			if page.Last, err = event.ParsePosition(last); err != nil {
				return err
			}
			reader := page.Read()
			for {
				entry, ok, err := reader.Next()
				if err != nil || !ok {
					return err
				}
				if entry.Schema == name.Schema && entry.Table == name.Name {
					delete(ids, entry.ID)
				}
			}
		})
		if err != nil {
			return fmt.Errorf("reading walrelay.journal: %w", err)
		}
		if pages == 0 {
			return nil
		}
	}
}

// emit inserts rows into walrelay.emitted, in one transaction, and returns how many: a
// row that was deleted meanwhile is none.
func (r *recovery) emit(ctx context.Context, t *table, ids []string) (int, error) {
	var content strings.Builder
	for i, c := range t.columns {
		if i > 0 {
			content.WriteString(", ")
		}
		// As replication writes it: a cast to text is not what the type's output
		// function does.
		ident := "o." + sql.Ident(c.name)
		fmt.Fprintf(&content, "json_build_array(%s, %d, CASE WHEN %s IS NOT NULL THEN format('%%s', %[3]s) END)", sql.Literal(c.name), c.oid, ident)
	}
	tag, err := r.conn.Exec(ctx, fmt.Sprintf(`
		INSERT INTO walrelay.emitted (slot, kind, id, table_schema, table_name, content_bytes)
		SELECT $1, 'row', w.id, $2, $3, convert_to(json_build_array(%s)::text, 'UTF8')
		FROM unnest($4::text[]) WITH ORDINALITY AS w (id, n)
		JOIN %s%s AS o ON o.%s = w.id::%s
		WHERE %s
		ORDER BY w.n`, content.String(), t.only, t.name.Ident(), sql.Ident(t.id), t.idType, unread(t)),
		r.cfg.Slot, t.name.Schema, t.name.Name, ids)
	if err != nil {
		return 0, fmt.Errorf("emitting rows of outbox table %s: %w", t.name, err)
	}
	return int(tag.RowsAffected()), nil
}
