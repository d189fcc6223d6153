// Package retention decides what becomes of the rows of the outbox tables once
// their events are settled: they are deleted, marked, or kept.
//
// Input: pages of the journal, and discarded rows of the delay table: the evidence
// of what has become of each event. Output: rows deleted or marked, by table and
// id, and the pages that are done with. Promises: no row is touched without
// evidence for that very event, nor while the delay table or walrelay.emitted has
// the event; what somebody has locked, or what the database refuses to delete, is
// left for later, and keeps nothing else from being deleted; work is done in small
// transactions, on a connection of its own, beside which nothing waits. The package
// must not import what reads or publishes events.
package retention

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/journal"
	"github.com/walrelay/walrelay/sql"
)

const (
	// interval is the time between two rounds when there is little to do, pause
	// that between two statements, for others to have the disk.
	interval = 5 * time.Second
	pause    = 10 * time.Millisecond
	// batch is how many rows one statement takes.
	batch = 5000
	// retryAfter is when rows that stay are tried again.
	retryAfter = time.Minute
	// warnInterval is how often it is logged that rows cannot be cleaned up.
	warnInterval = time.Minute
)

// Mode says what becomes of a row.
type Mode string

// The modes.
const (
	Delete Mode = "delete" // when the window has passed
	Mark   Mode = "mark"   // at once, in published_at; and delete as well
	Keep   Mode = "keep"
)

// Config says what is cleaned up, and how.
type Config struct {
	// Connect opens a connection to the database.
	Connect func(context.Context) (*pgx.Conn, error)
	Slot    string
	Mode    Mode
	// Window is how long a row is kept after its event was settled.
	Window time.Duration
	Tables []Table
	// Saved is the LSN that the checkpoint has saved.
	Saved   func() pglogrepl.LSN
	Observe Observer
	// Also, if set, is called between the rounds, with the connection: for other work that
	// can wait.
	Also func(context.Context, *pgx.Conn) error
	Log  zerolog.Logger
}

// Table is an outbox table, and its column of the id.
type Table struct {
	Schema, Name string
	ID           string
}

// Observer hears of what is done. Its methods must not block.
type Observer interface {
	// Cleaned says how many rows were deleted or marked.
	Cleaned(rows int)
	// Round says that everything that was due was looked at, and how many rows
	// stay that the database refuses to change.
	Round(refused int)
}

// Cleaner cleans up. It is run once.
type Cleaner struct {
	cfg  Config
	conn *pgx.Conn

	marked    int64     // the page up to which this pass has marked
	discarded time.Time // up to when discarded events are marked
	refused   int       // rows of this round
	warned    time.Time
}

// New returns a cleaner.
func New(cfg Config) *Cleaner { return &Cleaner{cfg: cfg} }

// Run works until the context ends. What cannot be done now is done later.
func (c *Cleaner) Run(ctx context.Context) {
	defer c.disconnect(ctx)
	for {
		more, err := c.step(ctx)
		if err != nil && ctx.Err() == nil {
			c.warn("published rows are not cleaned up", err, "")
			c.disconnect(ctx)
		}
		if err == nil && c.cfg.Also != nil {
			if err := c.cfg.Also(ctx, c.conn); err != nil && ctx.Err() == nil {
				c.cfg.Log.Debug().Err(err).Msg("work beside the clean-up failed; it is tried again")
			}
		}
		next := interval
		if more && err == nil {
			next = pause
		}
		if wait.For(ctx, next) != nil {
			return
		}
	}
}

func (c *Cleaner) disconnect(ctx context.Context) {
	if c.conn == nil {
		return
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = c.conn.Close(closing) // nothing is under way
	c.conn = nil
}

func (c *Cleaner) warn(message string, err error, table string) {
	if time.Since(c.warned) < warnInterval {
		return
	}
	c.warned = time.Now()
	line := c.cfg.Log.Warn().Err(err)
	if table != "" {
		line = line.Str("table", table).Int("rows", c.refused)
	}
	line.Msg(message)
}

// step does what is due next, and reports whether there is more.
func (c *Cleaner) step(ctx context.Context) (more bool, err error) {
	if c.conn == nil || c.conn.IsClosed() {
		if c.conn, err = c.cfg.Connect(ctx); err != nil {
			return false, err
		}
	}
	for _, work := range []func(context.Context) (bool, error){c.mark, c.markDiscarded, c.expire, c.expireDiscarded} {
		again, err := work(ctx)
		if err != nil {
			return false, err
		}
		more = more || again
	}
	if !more {
		c.cfg.Observe.Round(c.refused)
		c.refused = 0
	}
	return more, nil
}

// page is a page of the journal.
type page struct {
	journal.Page

	id int64
}

// next reads a page; nil if there is none.
func (c *Cleaner) next(ctx context.Context, query string, args ...any) (*page, error) {
	var p page
	var first, last string
	err := c.conn.QueryRow(ctx, query, args...).Scan(&p.id, &p.Stream, &first, &last, &p.Events, &p.Entries)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // no page is an answer
	}
	if err == nil {
		p.First, err = event.ParsePosition(first)
	}
	if err == nil {
		p.Last, err = event.ParsePosition(last)
	}
	if err != nil {
		return nil, fmt.Errorf("reading walrelay.journal: %w", err)
	}
	return &p, nil
}

// mark marks the rows of the next page of this pass.
func (c *Cleaner) mark(ctx context.Context) (more bool, err error) {
	if c.cfg.Mode != Mark {
		return false, nil
	}
	p, err := c.next(ctx, sql.RetentionUnmarked, c.cfg.Slot, c.marked)
	if err != nil {
		return false, err
	}
	if p == nil {
		c.marked = 0
		return false, nil
	}
	left, err := c.clean(ctx, p, sql.RetentionMark)
	if err != nil {
		return false, err
	}
	c.marked = p.id
	if len(left) == 0 {
		if _, err := c.conn.Exec(ctx, "UPDATE walrelay.journal SET marked = true WHERE slot = $1 AND id = $2", c.cfg.Slot, p.id); err != nil {
			return false, fmt.Errorf("writing walrelay.journal: %w", err)
		}
	}
	return true, nil
}

// expire deletes the rows of the oldest page whose window has passed, and then
// the page. Rows that stay go into a page of their own, for later.
func (c *Cleaner) expire(ctx context.Context) (more bool, err error) {
	p, err := c.next(ctx, sql.RetentionExpired, c.cfg.Slot, c.cfg.Window.Seconds(), c.cfg.Mode == Keep)
	if err != nil || p == nil {
		return false, err
	}
	var left []journal.Entry
	if c.cfg.Mode != Keep {
		if left, err = c.clean(ctx, p, sql.RetentionDelete); err != nil {
			return false, err
		}
	}
	buffer := journal.NewBuffer(p.Stream, func() {})
	for _, e := range left {
		buffer.Add(&event.Event{Position: e.Position, Schema: e.Schema, Table: e.Table, ID: e.ID})
	}
	err = pgx.BeginFunc(ctx, c.conn, func(tx pgx.Tx) error {
		for _, rest := range buffer.Pages() {
			if _, err := tx.Exec(ctx, sql.RetentionPostpone, c.cfg.Slot, rest.Stream, rest.First.String(), rest.Last.String(),
				rest.Events, rest.Entries, c.cfg.Window.Seconds(), retryAfter.Seconds()); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "DELETE FROM walrelay.journal WHERE slot = $1 AND id = $2", c.cfg.Slot, p.id)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("writing walrelay.journal: %w", err)
	}
	return true, nil
}

// clean runs a statement for the rows of a page, table by table, and returns the
// entries whose rows stay.
func (c *Cleaner) clean(ctx context.Context, p *page, statement string) (left []journal.Entry, err error) {
	type name struct{ schema, table string }
	entries := make(map[name][]journal.Entry)
	flush := func(n name) error {
		rest, err := c.rows(ctx, n.schema, n.table, entries[n], statement)
		left = append(left, rest...)
		entries[n] = entries[n][:0]
		return err
	}
	reader := p.Read()
	for {
		e, ok, err := reader.Next()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		n := name{e.Schema, e.Table}
		entries[n] = append(entries[n], e)
		if len(entries[n]) == batch {
			if err := flush(n); err != nil {
				return nil, err
			}
			if err := wait.For(ctx, pause); err != nil {
				return nil, err
			}
		}
	}
	for n := range entries {
		if len(entries[n]) > 0 {
			if err := flush(n); err != nil {
				return nil, err
			}
		}
	}
	return left, nil
}

// rows runs a statement for rows of one table, and returns the entries of those
// that stay. A table that is no outbox of the configuration is left alone.
func (c *Cleaner) rows(ctx context.Context, schema, table string, entries []journal.Entry, template string) (left []journal.Entry, err error) {
	statement, err := c.statement(ctx, schema, table, template)
	if err != nil || statement == "" {
		return nil, err
	}
	ids := make([]string, len(entries))
	for i := range entries {
		ids[i] = entries[i].ID
	}
	stay := make(map[string]bool)
	if err := c.bisect(ctx, sql.Table{Schema: schema, Name: table}, statement, ids, stay); err != nil {
		return nil, err
	}
	for i := range entries {
		if stay[entries[i].ID] {
			left = append(left, entries[i])
		}
	}
	return left, nil
}

// statement fills in a template for a table; nothing if there is no such outbox
// table.
func (c *Cleaner) statement(ctx context.Context, schema, table, template string) (string, error) {
	for _, t := range c.cfg.Tables {
		if t.Schema != schema || t.Name != table {
			continue
		}
		var kind, idType string
		var marked bool
		err := c.conn.QueryRow(ctx, sql.RetentionTable, schema, table, t.ID).Scan(&kind, &idType, &marked)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && template == sql.RetentionMark && !marked {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("reading the columns of table %s.%s: %w", schema, table, err)
		}
		name := sql.Table{Schema: schema, Name: table}.Ident()
		if kind != "p" {
			name = "ONLY " + name // rows of tables that inherit from it are not published
		}
		return strings.NewReplacer("{{table}}", name, "{{id}}", sql.Ident(t.ID), "{{type}}", idType).Replace(template), nil
	}
	return "", nil
}

// bisect runs a statement for ids, and collects those whose rows stay. If the
// database refuses it because of a row, it is run for either half.
func (c *Cleaner) bisect(ctx context.Context, table sql.Table, statement string, ids []string, stay map[string]bool) error {
	var done int
	var left []string
	err := c.conn.QueryRow(ctx, statement, ids, c.cfg.Slot, table.Schema, table.Name).Scan(&done, &left)
	switch {
	case err == nil:
		c.cfg.Observe.Cleaned(done)
		for _, id := range left {
			stay[id] = true
		}
		return nil
	case !isRowFault(err):
		return fmt.Errorf("cleaning up table %s: %w", table, err)
	case len(ids) == 1:
		stay[ids[0]] = true
		c.refused++
		c.warn("a published row cannot be cleaned up; others are", err, table.String())
		return nil
	}
	if err := c.bisect(ctx, table, statement, ids[:len(ids)/2], stay); err != nil {
		return err
	}
	return c.bisect(ctx, table, statement, ids[len(ids)/2:], stay)
}

// isRowFault reports whether the database refuses something because of a row, or
// whatever the application has put behind it: a foreign key, a trigger.
func isRowFault(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (sqlstate.OfData(pgErr.Code) || strings.HasPrefix(pgErr.Code, sqlstate.ClassPLpgSQL))
}

// discardedEvent is an event that a person has given up.
type discardedEvent struct {
	Position  string    `db:"position"`
	Schema    string    `db:"table_schema"`
	Table     string    `db:"table_name"`
	ID        string    `db:"id"`
	UpdatedAt time.Time `db:"updated_at"`
}

// markDiscarded marks rows of events that were discarded since the last time.
func (c *Cleaner) markDiscarded(ctx context.Context) (more bool, err error) {
	if c.cfg.Mode != Mark {
		return false, nil
	}
	events, err := c.listDiscarded(ctx, sql.RetentionDiscarded, c.cfg.Slot, c.hexSaved(), c.discarded)
	if err != nil || len(events) == 0 {
		return false, err
	}
	left, err := c.cleanDiscarded(ctx, events, sql.RetentionMark)
	if err != nil {
		return false, err
	}
	if len(left) == 0 {
		c.discarded = events[len(events)-1].UpdatedAt
	}
	return false, nil
}

// expireDiscarded removes discarded events, and their rows, once the window has
// passed. Where rows are kept, the events stay too: nothing else says what became of
// these rows.
func (c *Cleaner) expireDiscarded(ctx context.Context) (more bool, err error) {
	if c.cfg.Mode == Keep {
		return false, nil
	}
	events, err := c.listDiscarded(ctx, sql.RetentionDiscardedExpired, c.cfg.Slot, c.hexSaved(), c.cfg.Window.Seconds())
	if err != nil || len(events) == 0 {
		return false, err
	}
	left, err := c.cleanDiscarded(ctx, events, sql.RetentionDelete)
	if err != nil {
		return false, err
	}
	var gone []string
	for _, e := range events {
		if !left[e.Position] {
			gone = append(gone, e.Position)
		}
	}
	if _, err := c.conn.Exec(ctx, sql.RetentionForget, c.cfg.Slot, gone); err != nil {
		return false, fmt.Errorf("removing discarded events: %w", err)
	}
	return len(gone) > 0, nil
}

func (c *Cleaner) hexSaved() string { return fmt.Sprintf("%016X", uint64(c.cfg.Saved())) }

func (c *Cleaner) listDiscarded(ctx context.Context, query string, args ...any) ([]discardedEvent, error) {
	rows, err := c.conn.Query(ctx, query, args...)
	var events []discardedEvent
	if err == nil {
		events, err = pgx.CollectRows(rows, pgx.RowToStructByName[discardedEvent])
	}
	if err != nil {
		return nil, fmt.Errorf("reading discarded events: %w", err)
	}
	return events, nil
}

// cleanDiscarded runs a statement for the rows of discarded events, and returns
// the positions of those whose rows stay.
func (c *Cleaner) cleanDiscarded(ctx context.Context, events []discardedEvent, statement string) (left map[string]bool, err error) {
	left = make(map[string]bool)
	byTable := make(map[sql.Table][]journal.Entry)
	for _, e := range events {
		position, err := event.ParsePosition(e.Position)
		if err != nil {
			return nil, fmt.Errorf("reading discarded events: %w", err)
		}
		table := sql.Table{Schema: e.Schema, Name: e.Table}
		byTable[table] = append(byTable[table], journal.Entry{Position: position, Schema: e.Schema, Table: e.Table, ID: e.ID})
	}
	for table, entries := range byTable {
		rest, err := c.rows(ctx, table.Schema, table.Name, entries, statement)
		if err != nil {
			return nil, err
		}
		for _, e := range rest {
			left[e.Position.String()] = true
		}
	}
	return left, nil
}
