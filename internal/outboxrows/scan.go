package outboxrows

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/sql"
)

// Scan has the rows of an outbox table, in the order in which they were created.
type Scan struct {
	conn   *pgconn.PgConn
	rows   *decode.Rows
	result *pgconn.ResultReader
	name   sql.Table
}

// Scan reads the rows of an outbox table that were created from a time on and before
// another one; zero times are no limits. Rows whose events are in the delay table, or on
// their way out of it, are left out. The caller closes the scan.
func (r *Reader) Scan(ctx context.Context, name sql.Table, from, before time.Time) (*Scan, error) {
	mapped, ok := r.mapped(name)
	if !ok {
		return nil, &problem.Problem{ID: "outbox_unknown", What: fmt.Sprintf("table %s is not an outbox table", name), Fix: "name one of outbox.tables"}
	}
	id, created := mapped.Mapping.Column(event.ColumnID), mapped.Mapping.Column(event.ColumnTime)
	conn, err := connect.PostgresWith(ctx, r.cfg.Postgres, replication.Settings())
	if err != nil {
		return nil, err
	}
	list, _, rows, err := r.columns(ctx, conn, name, id)
	if err == nil && rows == nil {
		err = &problem.Problem{ID: "outbox_missing", What: fmt.Sprintf("outbox table %s does not exist", name), Fix: "run \"walrelay init\", or correct outbox.tables"}
	}
	if err == nil && created == "" {
		err = &problem.Problem{
			ID: "replay_order", What: fmt.Sprintf("outbox table %s has no column that says when a row was created", name),
			Why: "nobody knows the order of its events", Fix: "map time to a column",
		}
	}
	if err != nil {
		connect.ClosePostgres(conn)
		return nil, err
	}
	ident, at := "o."+sql.Ident(id), "o."+sql.Ident(created)
	var query strings.Builder
	query.WriteString("SELECT " + at + "::text" + list + " FROM " + name.Ident() + " AS o WHERE true")
	for _, other := range []string{"delayed", "underway"} {
		fmt.Fprintf(&query, " AND NOT EXISTS (SELECT FROM walrelay.%s AS d WHERE d.slot = %s AND d.id = format('%%s', %s) AND d.table_schema = %s AND d.table_name = %s)",
			other, sql.Literal(r.cfg.Slot), ident, sql.Literal(name.Schema), sql.Literal(name.Name))
	}
	if !from.IsZero() {
		query.WriteString(" AND " + at + " >= " + sql.Literal(from.UTC().Format(time.RFC3339Nano)))
	}
	if !before.IsZero() {
		query.WriteString(" AND " + at + " < " + sql.Literal(before.UTC().Format(time.RFC3339Nano)))
	}
	query.WriteString(" ORDER BY " + at + ", " + ident)
	return &Scan{conn: conn.PgConn(), rows: rows, result: conn.PgConn().ExecParams(ctx, query.String(), nil, nil, nil, nil), name: name}, nil
}

// Next returns the event of the next row, and false after the last. With a
// *[decode.RowError] the row makes no event, and the next one may be asked for. It blocks.
func (s *Scan) Next() (ev *event.Event, ok bool, err error) {
	if s.result.NextRow() {
		ev, err = s.rows.Event(event.Position{}, s.result.Values()[1:])
		return ev, true, err
	}
	if _, err := s.result.Close(); err != nil {
		return nil, false, fmt.Errorf("reading the rows of %s: %w", s.name, err)
	}
	return nil, false, nil
}

// Close closes the connection.
func (s *Scan) Close(ctx context.Context) { _ = s.conn.Close(context.WithoutCancel(ctx)) }
