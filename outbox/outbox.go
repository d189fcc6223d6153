package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/sql"
)

// DefaultTable is the outbox table of an [Outbox] that names none.
const DefaultTable = "public.outbox"

// maxStatement is how many events one statement inserts.
const maxStatement = 1000

// Outbox is an outbox table, and what its events have in common. The zero value is
// ready. Safe for concurrent use.
type Outbox struct {
	// Table is the outbox table with its schema; default "public.outbox". It has
	// walrelay's own form, as "walrelay init" makes it.
	Table string
	// Source is that of events without one.
	Source string
}

// Event is what is published: a CloudEvents 1.0 event, and when and how.
type Event struct {
	// ID is a UUID; default a new one of version 7. A second event with the id of one
	// that is still in the table is refused.
	ID string
	// Type says what happened, such as "order.placed"; required.
	Type string
	// Source says where, as a URI reference such as "/orders"; required, here or in
	// [Outbox].
	Source string
	// Subject says what within the source the event is about.
	Subject string
	// Time is when it happened; default the start of the transaction.
	Time time.Time

	// Data is the payload; nil for none. Any value is written as JSON, a
	// [json.RawMessage] as it is. Bytes are a payload of their own ContentType, and so is a
	// string with a ContentType that is not JSON.
	Data any
	// ContentType is the payload's media type; default "application/json", of bytes
	// "application/octet-stream".
	ContentType string
	// DataSchema is an absolute URI.
	DataSchema string

	// Extensions are CloudEvents extension attributes: names of lower-case letters and
	// digits; strings, booleans and 32-bit integers.
	Extensions map[string]any

	// Key is the partition key: events of one key keep their order for ever, retries
	// included.
	Key string
	// At is the time before which the event is not published; zero for at once.
	At time.Time
	// MaxRetries is how often publishing is tried again; nil for the relay's default.
	MaxRetries *int
}

// Tx is a transaction of pgx, or what else has these methods; see [SQL] for
// database/sql.
type Tx interface {
	Exec(ctx context.Context, statement string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, statement string, args ...any) pgx.Row
}

// Errors that the errors of this package wrap. Those of the driver are wrapped, too.
var (
	// ErrInvalid says that an event breaks a rule of CloudEvents or of walrelay.
	ErrInvalid = errors.New("the event is not valid")
	// ErrNoTransaction says that the transaction is nil, or was finished before.
	ErrNoTransaction = errors.New("no transaction")
	// ErrNotInstalled says that the database lacks the table, or a part of it or of the
	// schema walrelay.
	ErrNotInstalled = errors.New("walrelay is not installed there")
)

// Publish writes an event into the transaction and returns its id. With an error nothing
// was written; one of the database has aborted the transaction. It blocks as long as the
// database does. The context's span of OpenTelemetry, if it has one, becomes the extension
// traceparent.
func (o Outbox) Publish(ctx context.Context, tx Tx, ev Event) (id string, err error) {
	ids, err := o.PublishAll(ctx, tx, []Event{ev})
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

// PublishAll is [Outbox.Publish] for many events, which keep their order: one statement
// for each thousand, or from 200 on one COPY, if the transaction is one of pgx and no event
// has a Time. (A table with row-level security takes no COPY.) All are checked before the first is written, and all faults are
// returned at once.
func (o Outbox) PublishAll(ctx context.Context, tx Tx, events []Event) (ids []string, err error) {
	table, err := o.table()
	if err != nil {
		return nil, err
	}
	if isNil(tx) {
		return nil, fmt.Errorf("publishing to %s: %w: it is nil", table, ErrNoTransaction)
	}
	rows := make([]row, len(events))
	ids = make([]string, len(events))
	var faults []error
	for i := range events {
		if rows[i], err = o.row(ctx, &events[i]); err != nil {
			if len(events) > 1 {
				err = fmt.Errorf("event %d of %d: %w", i+1, len(events), err)
			}
			faults = append(faults, err)
			continue
		}
		ids[i] = rows[i].ID
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if err := write(ctx, tx, table, rows); err != nil {
		return nil, fmt.Errorf("publishing to %s: %w", table, explain(err))
	}
	return ids, nil
}

func write(ctx context.Context, tx Tx, table sql.Table, rows []row) error {
	if to, ok := tx.(copier); ok && copyable(rows) {
		return copyRows(ctx, to, table, rows)
	}
	statement, err := sql.OutboxInsert(table)
	if err != nil {
		return err
	}
	for len(rows) > 0 {
		n := min(len(rows), maxStatement)
		content, err := json.Marshal(rows[:n])
		if err != nil {
			return fmt.Errorf("writing %d events as JSON: %w", n, err)
		}
		if _, err := tx.Exec(ctx, statement, string(content)); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// table returns the table's name.
func (o Outbox) table() (sql.Table, error) {
	name := o.Table
	if name == "" {
		name = DefaultTable
	}
	schema, table, ok := strings.Cut(name, ".")
	if !ok || schema == "" || table == "" || strings.ContainsAny(name, "\"\x00") || strings.Contains(table, ".") {
		return sql.Table{}, fmt.Errorf("outbox table %q: write the table with its schema, such as %s", name, DefaultTable)
	}
	return sql.Table{Schema: schema, Name: table}, nil
}

// isNil reports whether there is no transaction, also behind an interface.
func isNil(tx any) bool {
	if wrapped, ok := tx.(sqlTx); ok {
		tx = wrapped.SQLTx
	}
	if tx == nil {
		return true
	}
	v := reflect.ValueOf(tx)
	return v.Kind() == reflect.Pointer && v.IsNil()
}
