// Package outboxrows reads rows of outbox tables again, by the ids of their events.
//
// Input: table and id of each event. Output: the events that the inserts of these rows
// made. Promises: values are written as replication writes them; no more than one row
// of each table is in memory; what a row lacks is said of that row. The package must not
// import what publishes events.
package outboxrows

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/journal"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/sql"
)

// Reader finds the rows of events again. Each table has a connection of its
// own, from which the rows of a batch come in the order of their events: so no
// more than one row of each table is in memory.
type Reader struct {
	cfg      config.Config
	decoding decode.Config
	decoder  *decode.Decoder
	tables   map[sql.Table]*rowsOf
}

// New returns a reader. It connects when it is first asked for rows of a table.
func New(cfg config.Config, decoding decode.Config) (*Reader, error) {
	decoder, err := decode.New(decoding)
	if err != nil {
		return nil, fmt.Errorf("preparing the decoder: %w", err)
	}
	return &Reader{cfg: cfg, decoding: decoding, decoder: decoder, tables: make(map[sql.Table]*rowsOf)}, nil
}

// rowsOf reads the rows of one table.
type rowsOf struct {
	conn  *pgconn.PgConn
	rows  *decode.Rows
	query string
	// fault says why there are no events in this table, if so.
	fault string

	ids    []string // of the batch
	asked  int      // how many of them were asked for
	result *pgconn.ResultReader
	at     int // which of them the row at hand is for; past the last at the end
}

// Ask finds the rows of these events: then Event is called for each of them, in
// order, and End.
func (r *Reader) Ask(ctx context.Context, entries []journal.Entry) error {
	for _, t := range r.tables {
		t.ids, t.asked = t.ids[:0], 0
	}
	for _, e := range entries {
		t, err := r.table(ctx, e)
		if err != nil {
			return err
		}
		if t.fault == "" {
			t.ids = append(t.ids, e.ID)
		}
	}
	for _, t := range r.tables {
		if len(t.ids) == 0 {
			continue
		}
		t.result = t.conn.ExecParams(ctx, t.query, [][]byte{textArray(t.ids)}, nil, nil, nil)
		t.at = 0
		if err := t.nextRow(); err != nil {
			return err
		}
	}
	return nil
}

// End ends what was asked for, all of whose events were asked for or not.
func (r *Reader) End() error {
	var errs []error
	for _, t := range r.tables {
		if t.result != nil {
			_, err := t.result.Close()
			errs = append(errs, err)
			t.result = nil
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reading rows of the outbox: %w", err)
	}
	return nil
}

// Close closes the connections.
func (r *Reader) Close(ctx context.Context) {
	for _, t := range r.tables {
		if t.conn != nil {
			_ = t.conn.Close(context.WithoutCancel(ctx)) // nothing is under way
		}
	}
}

// Event returns the event of an entry. A fault says why there is none, then with what
// is known of it: a *[decode.RowError], or an error that says what became of the row.
func (r *Reader) Event(entry journal.Entry) (ev *event.Event, fault, err error) {
	unknown := &event.Event{ID: entry.ID, Position: entry.Position, Schema: entry.Schema, Table: entry.Table}
	t := r.tables[sql.Table{Schema: entry.Schema, Name: entry.Table}]
	if t.fault != "" {
		return unknown, errors.New(t.fault), nil
	}
	t.asked++
	if t.at != t.asked {
		return unknown, nil, fmt.Errorf("reading rows of %s.%s: row %d came for event %d", entry.Schema, entry.Table, t.at, t.asked)
	}
	values := t.result.Values()[1:]
	if values[0] == nil {
		return unknown, errors.New("its row is gone"), t.nextRow()
	}
	ev, err = t.rows.Event(entry.Position, values[1:])
	if rowErr, ok := errors.AsType[*decode.RowError](err); ok {
		fault, err = rowErr, nil
	}
	if err == nil {
		err = t.nextRow()
	}
	for err == nil && t.at == t.asked {
		fault = errors.New("several rows have its id")
		err = t.nextRow()
	}
	if ev != nil && ev.ID == "" {
		ev.ID = entry.ID
	}
	return ev, fault, err
}

func (t *rowsOf) nextRow() error {
	if !t.result.NextRow() {
		t.at = len(t.ids) + 1
		if _, err := t.result.Close(); err != nil {
			return fmt.Errorf("reading rows of the outbox: %w", err)
		}
		return nil
	}
	var err error
	t.at, err = strconv.Atoi(string(t.result.Values()[0]))
	return err
}

// table returns what reads the rows of an entry's table.
func (r *Reader) table(ctx context.Context, entry journal.Entry) (*rowsOf, error) {
	name := sql.Table{Schema: entry.Schema, Name: entry.Table}
	if t, ok := r.tables[name]; ok {
		return t, nil
	}
	t := &rowsOf{}
	var err error
	mapped, ok := r.mapped(name)
	switch {
	case ok:
		t, err = r.open(ctx, name, mapped.Mapping.Column(event.ColumnID))
	case name.Schema == sql.OwnSchema && name.Name == event.ReplayTable:
		t.fault = "it was replayed; its original may still be there"
	case name.Schema == sql.OwnSchema:
		t.fault = "it was emitted without a row (walrelay.emit_event)"
	case name.Schema == "pg_catalog":
		t.fault = "it was emitted without a row (pg_logical_emit_message)"
	default:
		t.fault = fmt.Sprintf("table %s is not an outbox table any more", name)
	}
	if err != nil {
		return nil, err
	}
	r.tables[name] = t
	return t, nil
}

func (r *Reader) mapped(name sql.Table) (decode.Table, bool) {
	for _, t := range r.decoding.Tables {
		if t.Schema == name.Schema && t.Name == name.Name {
			return t, true
		}
	}
	return decode.Table{}, false
}

// open connects with the settings that replication has, so that values are
// written in the same way.
func (r *Reader) open(ctx context.Context, name sql.Table, id string) (*rowsOf, error) {
	conn, err := connect.PostgresWith(ctx, r.cfg.Postgres, replication.Settings())
	if err != nil {
		return nil, err
	}
	t := &rowsOf{}
	if t.query, t.rows, err = r.prepare(ctx, conn, name, id); err != nil {
		connect.ClosePostgres(conn)
		if fault, ok := errors.AsType[*decode.TableError](err); ok {
			return &rowsOf{fault: fault.Error()}, nil
		}
		return nil, err
	}
	if t.rows == nil {
		t.fault = fmt.Sprintf("table %s does not exist any more", name)
	}
	t.conn = conn.PgConn()
	return t, nil
}

// prepare returns the query for a table's rows: the number of the event, its id,
// null without a row, and the columns. There are no rows if there is no table.
func (r *Reader) prepare(ctx context.Context, conn *pgx.Conn, name sql.Table, id string) (string, *decode.Rows, error) {
	list, idType, read, err := r.columns(ctx, conn, name, id)
	if err != nil || read == nil {
		return "", nil, err
	}
	ident := "o." + sql.Ident(id)
	return "SELECT w.n, " + ident + list +
		" FROM unnest($1::text[]::" + idType + "[]) WITH ORDINALITY AS w (id, n) LEFT JOIN " + name.Ident() +
		" AS o ON " + ident + " = w.id ORDER BY w.n", read, nil
}

// columns returns the columns of a table as the end of a list for a query, the type of the
// id, and what makes events of the rows; nil if there is no table.
func (r *Reader) columns(ctx context.Context, conn *pgx.Conn, name sql.Table, id string) (list, idType string, read *decode.Rows, err error) {
	rows, err := conn.Query(ctx, sql.JournalColumns, name.Schema, name.Name, r.cfg.Publication)
	if err != nil {
		return "", "", nil, fmt.Errorf("reading the columns of table %s: %w", name, err)
	}
	var columns []decode.Column
	var column decode.Column
	var typ string
	var b strings.Builder
	if _, err := pgx.ForEachRow(rows, []any{&column.Name, &typ, &column.Type}, func() error {
		columns = append(columns, column)
		if column.Name == id {
			idType = typ
		}
		b.WriteString(", o." + sql.Ident(column.Name))
		return nil
	}); err != nil {
		return "", "", nil, fmt.Errorf("reading the columns of table %s: %w", name, err)
	}
	if len(columns) == 0 {
		return "", "", nil, nil
	}
	read, err = r.decoder.Rows(name.Schema, name.Name, columns)
	return b.String(), idType, read, err
}

// textArray writes an array of texts as Postgres reads it.
func textArray(texts []string) []byte {
	b := []byte{'{'}
	for i, text := range texts {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		for j := range len(text) {
			if text[j] == '"' || text[j] == '\\' {
				b = append(b, '\\')
			}
			b = append(b, text[j])
		}
		b = append(b, '"')
	}
	return append(b, '}')
}
