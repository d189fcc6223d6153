package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/walrelay/walrelay/sql"
)

// State says what has become of an event.
type State string

// The states; docs/delay.md says what each means.
const (
	Pending   State = "pending"   // the relay has still to read it
	Scheduled State = "scheduled" // its time has not come
	Retrying  State = "retrying"  // it could not be published, and is tried again
	Held      State = "held"      // it waits behind an earlier event of its key
	Failed    State = "failed"    // it is not tried again, unless somebody redrives it
	Discarded State = "discarded" // somebody gave it up
	Published State = "published"
	Dropped   State = "dropped"   // a route drops it
	Duplicate State = "duplicate" // the stream has another event with its source and id
	Unknown   State = "unknown"   // Reason says why
)

// Status says what has become of an event.
type Status struct {
	State State
	// Attempts is how often publishing has failed, and LastError how the last time.
	Attempts  int
	LastError string
	// NextAttempt is when a scheduled or retrying event is due; nil for any other.
	NextAttempt *time.Time
	// Reason says why the state is not known.
	Reason string
}

// Status returns what has become of an event of this table. In the transaction that
// publishes it, it is pending.
func (o Outbox) Status(ctx context.Context, tx Tx, id string) (Status, error) {
	var s Status
	table, err := o.asked(tx)
	if err == nil {
		err = tx.QueryRow(ctx, sql.OutboxStatus, id, table.Ident()).Scan(&s.State, &s.Attempts, &s.LastError, &s.NextAttempt, &s.Reason)
		err = explain(err)
	}
	if err != nil {
		return Status{}, fmt.Errorf("asking for the status of event %q: %w", id, err)
	}
	return s, nil
}

// Cancel takes a scheduled event back. False means that it was too late, or that there is
// no such event.
func (o Outbox) Cancel(ctx context.Context, tx Tx, id string) (bool, error) {
	var n int64
	table, err := o.asked(tx)
	if err == nil {
		err = explain(tx.QueryRow(ctx, sql.OutboxCancel, id, table.String()).Scan(&n))
	}
	if err != nil {
		return false, fmt.Errorf("cancelling event %q: %w", id, err)
	}
	return n > 0, nil
}

// Reschedule moves a scheduled or retrying event to another time. False means that it
// was too late, or that there is no such event.
func (o Outbox) Reschedule(ctx context.Context, tx Tx, id string, at time.Time) (bool, error) {
	var n int64
	table, err := o.asked(tx)
	if err == nil {
		err = explain(tx.QueryRow(ctx, sql.OutboxReschedule, id, table.String(), at.UTC()).Scan(&n))
	}
	if err != nil {
		return false, fmt.Errorf("rescheduling event %q: %w", id, err)
	}
	return n > 0, nil
}

func (o Outbox) asked(tx Tx) (sql.Table, error) {
	table, err := o.table()
	if err == nil && isNil(tx) {
		err = fmt.Errorf("%w: it is nil", ErrNoTransaction)
	}
	return table, err
}
