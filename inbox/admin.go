package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/sql"
)

// Querier asks a handler's database: a pgx.Conn, a pgxpool.Pool, a pgx.Tx.
type Querier interface {
	Query(ctx context.Context, statement string, args ...any) (pgx.Rows, error)
}

// Filter says which parked events are meant; empty fields take all.
type Filter struct {
	Handler, ID, Type, Key string
	// Error is a part of the last error.
	Error string
	// State is retrying, ready, held or failed.
	State string
}

func (f Filter) args(more ...any) []any {
	return append([]any{f.Handler, f.ID, f.Type, f.Key, f.Error, f.State}, more...)
}

// Parked is a parked event.
type Parked struct {
	Number        int64     `json:"number"`
	Handler       string    `json:"handler"`
	State         string    `json:"state"`
	ID            string    `json:"id"`
	Type          string    `json:"type"`
	Source        string    `json:"source"`
	Key           string    `json:"key"`
	Stream        string    `json:"stream"`
	Sequence      int64     `json:"sequence"`
	Attempts      int       `json:"attempts"`
	NextAttemptAt time.Time `json:"next_attempt_at"`
	LastError     string    `json:"last_error"`
	ParkedAt      time.Time `json:"parked_at"`
	Subject       string    `json:"subject"`
}

// ListParked returns parked events, the last one first: those before the number, if it is
// not 0, and up to the limit, if that is not.
func ListParked(ctx context.Context, conn Querier, f Filter, before int64, limit int) ([]Parked, error) {
	r, err := conn.Query(ctx, sql.ParkedList, f.args(before, limit)...)
	if err != nil {
		return nil, fmt.Errorf("reading walrelay.parked: %w", err)
	}
	list, err := pgx.CollectRows(r, pgx.RowToStructByPos[Parked])
	if err != nil {
		return nil, fmt.Errorf("reading walrelay.parked: %w", err)
	}
	return list, nil
}

// Reason is why events have failed. Numbers and what is quoted are left out of it.
type Reason struct {
	Reason  string `json:"reason"`
	Events  int64  `json:"events"`
	Example string `json:"example"` // the id of one of them
}

// ParkedReasons returns why events of a handler, or of all, have failed, the most frequent
// reason first.
func ParkedReasons(ctx context.Context, conn Querier, handler string) ([]Reason, error) {
	rows, err := conn.Query(ctx, sql.ParkedReasons, handler)
	if err != nil {
		return nil, fmt.Errorf("reading why events are parked: %w", err)
	}
	reasons, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Reason])
	if err != nil {
		return nil, fmt.Errorf("reading why events are parked: %w", err)
	}
	return reasons, nil
}

// Takes reports whether an action can be done to events in a state.
func (a Action) Takes(state string) bool { return slices.Contains(a.states(), state) }

// ParkedContent returns the message of a parked event; nothing if it is not parked any more.
func ParkedContent(ctx context.Context, conn Querier, number int64) (header nats.Header, data []byte, err error) {
	var text []byte
	r, err := conn.Query(ctx, sql.ParkedContent, number)
	if _, err := one(pgxRows{r}, err, &text, &data); err != nil {
		return nil, nil, fmt.Errorf("reading walrelay.parked: %w", err)
	}
	if text == nil {
		return nil, nil, nil
	}
	if err := json.Unmarshal(text, &header); err != nil {
		return nil, nil, fmt.Errorf("parked event %d: reading its headers: %w", number, err)
	}
	return header, data, nil
}

// Action is what an operator does to parked events.
type Action string

// Redrive handles failed and retrying events again, and then what is held behind them.
// Discard gives events up: what is held behind them is handled.
const (
	Redrive Action = "redrive"
	Discard Action = "discard"
)

func (a Action) states() []string {
	if a == Redrive {
		return []string{"failed", "retrying"}
	}
	return []string{"failed", "retrying", "ready", "held"}
}

// CountParked returns how many events an action would change.
func CountParked(ctx context.Context, conn Querier, a Action, f Filter) (int64, error) {
	var n int64
	r, err := conn.Query(ctx, sql.ParkedCount, f.args(a.states())...)
	if _, err := one(pgxRows{r}, err, &n); err != nil {
		return 0, fmt.Errorf("counting walrelay.parked: %w", err)
	}
	return n, nil
}

// ChangeParked does it, a thousand events at a time, and returns how many it changed.
func ChangeParked(ctx context.Context, conn Querier, a Action, f Filter) (int64, error) {
	statement := sql.ParkedDiscard
	if a == Redrive {
		statement = sql.ParkedRedrive
	}
	total, before := int64(0), int64(0)
	for {
		var n int64
		r, err := conn.Query(ctx, statement, f.args(a.states(), before)...)
		if _, err := one(pgxRows{r}, err, &n, &before); err != nil {
			return total, fmt.Errorf("changing walrelay.parked: %w", err)
		}
		total += n
		if before == 0 {
			return total, nil
		}
	}
}

// HandlerState is what the database knows of a handler.
type HandlerState struct {
	Handler string   `json:"handler"`
	Stream  string   `json:"stream"`
	Types   []string `json:"types"`
	Mode    string   `json:"mode"`
	// Partitions is how many consumers the handler has by the partition of its events; 0 for a
	// single one of all.
	Partitions int `json:"partitions"`
	// Process is the active one, since ActiveSince; SeenAt is when it last said so. With partitions, there may
	// be several, with spaces between them.
	Process     string     `json:"process"`
	ActiveSince *time.Time `json:"active_since"`
	SeenAt      *time.Time `json:"seen_at"`
	// Lag is how many events wait in the stream, Removed how many it lost before the handler
	// had them.
	Lag         int64      `json:"lag"`
	Removed     int64      `json:"removed"`
	LastError   string     `json:"last_error"`
	LastErrorAt *time.Time `json:"last_error_at"`
	Parked      int        `json:"parked"`
	BlockedKeys int        `json:"blocked_keys"`
}

// ListHandlers returns the handlers that a database knows.
func ListHandlers(ctx context.Context, conn Querier) ([]HandlerState, error) {
	r, err := conn.Query(ctx, sql.HandlerList)
	if err != nil {
		return nil, fmt.Errorf("reading walrelay.handlers: %w", err)
	}
	list, err := pgx.CollectRows(r, pgx.RowToStructByPos[HandlerState])
	if err != nil {
		return nil, fmt.Errorf("reading walrelay.handlers: %w", err)
	}
	return list, nil
}

// ErrNoHandler says that a database does not know a handler.
var ErrNoHandler = errors.New("the database does not know the handler")

// RemoveHandler removes what a database knows of a handler that does not run any more: its marks and
// its parked events, whose number it returns. Delete its consumer first: a handler of
// that name would otherwise handle again what the consumer has yet to acknowledge.
func RemoveHandler(ctx context.Context, conn Querier, handler string) (parked int64, err error) {
	var gone int
	r, err := conn.Query(ctx, sql.HandlerRemove, handler)
	if _, err := one(pgxRows{r}, err, &gone, &parked); err != nil {
		return 0, fmt.Errorf("removing handler %q: %w", handler, err)
	}
	if gone == 0 {
		return 0, fmt.Errorf("handler %q: %w", handler, ErrNoHandler)
	}
	return parked, nil
}

// RenameHandler gives what a database knows of a handler that does not run to another name: marks
// and parked events. Copy its consumer first.
func RenameHandler(ctx context.Context, conn Querier, from, to string) error {
	if !handlerName.MatchString(to) {
		return fmt.Errorf("handler %q: its name must have from 1 to 64 letters, digits, - and _", to)
	}
	var n int
	r, err := conn.Query(ctx, sql.HandlerRename, from, to)
	if _, err := one(pgxRows{r}, err, &n); err != nil {
		if sqlState(err) == sqlstate.UniqueViolation {
			return fmt.Errorf("renaming handler %q: there is a handler %q", from, to)
		}
		return fmt.Errorf("renaming handler %q: %w", from, err)
	}
	if n == 0 {
		return fmt.Errorf("handler %q: %w", from, ErrNoHandler)
	}
	return nil
}
