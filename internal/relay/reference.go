package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/outboxrows"
	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/journal"
)

// smallestLimit is the size below which an event is not too large by default: one that
// the server does not take for now is tried again.
const smallestLimit = 1 << 20

// maxEventSize returns how many bytes an event may have.
func maxEventSize(cfg config.Publish, nc *nats.Conn) func() int64 {
	return func() int64 {
		if cfg.MaxEventSize > 0 {
			return int64(cfg.MaxEventSize)
		}
		return max(nc.MaxPayload(), smallestLimit)
	}
}

// resolve reads the row of an event whose content was left there. It blocks for as long
// as Postgres does. What only this row causes is a *decode.RowError.
func (s *session) resolve(ctx context.Context, change decode.Change) (decode.Change, *decode.RowError, error) {
	ev := change.Event
	entry := journal.Entry{Position: ev.Position, Schema: ev.Schema, Table: ev.Table, ID: ev.ID}
	rows, err := outboxrows.New(s.relay.cfg, s.decoding)
	if err != nil {
		return change, nil, err
	}
	defer rows.Close(ctx)
	var fault error
	if err = rows.Ask(ctx, []journal.Entry{entry}); err == nil {
		ev, fault, err = rows.Event(entry)
	}
	if err == nil {
		err = rows.End()
	}
	// A value that is too large for memory is an internal error.
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && (sqlstate.OfData(pgErr.Code) || pgErr.Code == sqlstate.InternalError) {
		ev, fault, err = nil, fmt.Errorf("its row cannot be read: %w", pgErr), nil
	}
	if err != nil {
		return change, nil, fmt.Errorf("reading the row of event %q: %w", entry.ID, err)
	}
	rowErr, ok := errors.AsType[*decode.RowError](fault)
	if fault != nil && !ok {
		ev, rowErr = nil, &decode.RowError{
			Position: entry.Position, Schema: entry.Schema, Table: entry.Table, ID: entry.ID, Column: event.ColumnID.String(),
			Err: fmt.Errorf("%w; insert the event again, and discard this one", fault),
		}
	}
	return decode.Resolve(change, ev, rowErr), rowErr, nil
}
