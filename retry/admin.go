package retry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/sql"
)

// Filter says which delayed events are meant; an empty field takes every one.
type Filter struct {
	ID           string
	State        State
	Type         string
	PartitionKey string
	// Error is a part of the last error, in any case of letters.
	Error string
	Slot  string
	// Table is the outbox table, as schema.table.
	Table string
}

// args are the parameters of walrelay.find_delayed.
func (f Filter) args() []any {
	args := make([]any, 0, 10)
	for _, text := range []string{f.ID, string(f.State), f.Type, f.PartitionKey, f.Error, f.Slot, f.Table} {
		if text == "" {
			args = append(args, nil)
			continue
		}
		args = append(args, text)
	}
	return args
}

// Delayed is an event in the delay table.
type Delayed struct {
	Slot         string     `db:"slot"          json:"slot"`
	Position     string     `db:"position"      json:"position"`
	State        State      `db:"state"         json:"state"`
	DueAt        *time.Time `db:"due_at"        json:"due_at,omitempty"`
	ID           string     `db:"id"            json:"id"`
	Type         string     `db:"event_type"    json:"type"`
	Source       string     `db:"source"        json:"source"`
	PartitionKey string     `db:"partition_key" json:"partition_key,omitempty"`
	Schema       string     `db:"table_schema"  json:"table_schema"`
	Table        string     `db:"table_name"    json:"table_name"`
	Attempts     int        `db:"attempts"      json:"attempts"`
	MaxRetries   *int       `db:"max_retries"   json:"max_retries,omitempty"`
	LastError    string     `db:"last_error"    json:"last_error,omitempty"`
	CreatedAt    time.Time  `db:"created_at"    json:"created_at"`
	UpdatedAt    time.Time  `db:"updated_at"    json:"updated_at"`
}

// Detail is all that is known of an event in the delay table.
type Detail struct {
	Delayed

	// Origin is where the event first stood in the write-ahead log.
	Origin string `db:"origin" json:"origin"`
	// Kind says what Content is: an event in the JSON format of CloudEvents, or
	// the row or message that cannot become one.
	Kind     string          `db:"kind"     json:"kind"`
	Content  []byte          `db:"content"  json:"-"`
	Failures []event.Failure `db:"failures" json:"failures"`
}

// MarshalJSON writes the content as JSON where it is, and else as a text.
func (d Detail) MarshalJSON() ([]byte, error) {
	type plain Detail
	var content any = json.RawMessage(d.Content)
	if !json.Valid(d.Content) {
		content = string(d.Content)
	}
	return json.Marshal(struct {
		plain

		Content any `json:"content"`
	}{plain(d), content})
}

// List returns up to limit delayed events, newest position first, from the one
// after the last of the page before, if that is given.
func List(ctx context.Context, conn *pgx.Conn, filter Filter, last *Delayed, limit int) ([]Delayed, error) {
	args := append(filter.args(), nil, nil, limit)
	if last != nil {
		args[7], args[8] = last.Position, last.Slot
	}
	rows, err := conn.Query(ctx, sql.DelayList, args...)
	if err != nil {
		return nil, fmt.Errorf("listing delayed events: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Delayed])
	if err != nil {
		return nil, fmt.Errorf("listing delayed events: %w", err)
	}
	return list, nil
}

// Show returns the delayed events with the id, in the order of their positions.
func Show(ctx context.Context, conn *pgx.Conn, id string) ([]Detail, error) {
	rows, err := conn.Query(ctx, sql.DelayShow, id)
	if err != nil {
		return nil, fmt.Errorf("reading event %q: %w", id, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Detail])
	if err != nil {
		return nil, fmt.Errorf("reading event %q: %w", id, err)
	}
	return list, nil
}

// Reason is why events have failed. Numbers and what is quoted are left out of it.
type Reason struct {
	Reason  string `json:"reason"`
	Events  int64  `json:"events"`
	Example string `json:"example"` // the id of one of them
}

// Reasons returns why events of a slot have failed, the most frequent reason first.
func Reasons(ctx context.Context, conn *pgx.Conn, slot string) ([]Reason, error) {
	rows, err := conn.Query(ctx, sql.StatusFailed, slot)
	if err != nil {
		return nil, fmt.Errorf("reading why events have failed: %w", err)
	}
	reasons, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Reason])
	if err != nil {
		return nil, fmt.Errorf("reading why events have failed: %w", err)
	}
	return reasons, nil
}

// Action is what a person does to delayed events.
type Action string

// The actions, which are SQL functions of the same names too.
const (
	// Redrive tries failed events again, and retrying ones at once.
	Redrive Action = "redrive"
	// Discard gives failed, retrying and held events up.
	Discard Action = "discard"
	// Cancel takes scheduled events back.
	Cancel Action = "cancel"
	// Reschedule moves scheduled and retrying events to another time.
	Reschedule Action = "reschedule"
)

// ParseTime reads the time of [Reschedule]: as in RFC 3339, or how long from now.
func ParseTime(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(d), nil
	}
	return time.Time{}, fmt.Errorf("%q is neither a time, such as 2030-01-02T15:04:05Z, nor a duration, such as 10m", text)
}

// Takes reports whether an action can be done to events in a state.
func (a Action) Takes(state State) bool { return slices.Contains(a.states(), string(state)) }

// states are those that an action takes.
func (a Action) states() []string {
	switch a {
	case Redrive:
		return []string{string(Failed), string(Retrying)}
	case Discard:
		return []string{string(Failed), string(Retrying), string(Held)}
	case Cancel:
		return []string{string(Scheduled)}
	case Reschedule:
		return []string{string(Scheduled), string(Retrying)}
	}
	return nil
}

// Count returns how many events an action would change.
func Count(ctx context.Context, conn *pgx.Conn, action Action, filter Filter) (n int64, err error) {
	if err := conn.QueryRow(ctx, sql.DelayFind, append(filter.args(), action.states())...).Scan(&n); err != nil {
		return 0, fmt.Errorf("counting delayed events: %w", err)
	}
	return n, nil
}

// Do runs an action on all events that the filter takes, and returns how many
// it changed. at is the time of Reschedule.
func Do(ctx context.Context, conn *pgx.Conn, action Action, filter Filter, at time.Time) (n int64, err error) {
	statement := "SELECT walrelay." + string(action) + "($1, $2, $3, $4, $5, $6, outbox => $7, everything => true)"
	args := filter.args()
	if action == Reschedule {
		statement = "SELECT walrelay.reschedule($8, $1, $2, $3, $4, $5, $6, outbox => $7, everything => true)"
		args = append(args, at)
	}
	if action.states() == nil {
		return 0, fmt.Errorf("%q is no action", action)
	}
	if err := conn.QueryRow(ctx, statement, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("changing delayed events: %w", err)
	}
	return n, nil
}

// Adopt hands the delayed events of a slot that does not exist any more over to another
// one, whose relay must not run, and returns how many there are.
func Adopt(ctx context.Context, conn *pgx.Conn, from, to string) (n int64, err error) {
	if err := conn.QueryRow(ctx, "SELECT walrelay.adopt($1, $2)", from, to).Scan(&n); err != nil {
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Hint != "" {
			return 0, fmt.Errorf("taking over delayed events: %s; %s", pgErr.Message, pgErr.Hint)
		}
		return 0, fmt.Errorf("taking over delayed events: %w", err)
	}
	return n, nil
}
