package retry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/sql"
)

const (
	// maintainInterval is how often events are counted; but not more than a part in maintainShare of the time is for that.
	maintainInterval = 10 * time.Second
	maintainShare    = 50
)

// maintain passes notifications on and, now and then, counts events. It has a connection of its own: events are due while a
// million are counted.
func (t *Table) maintain(ctx context.Context) error {
	conn, err := t.connect(ctx)
	if err != nil {
		return fmt.Errorf("connecting for the delay table: %w", err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // nothing is under way
	}()
	if _, err := conn.Exec(ctx, "LISTEN walrelay"); err != nil {
		return fmt.Errorf("listening for changes of the delay table: %w", err)
	}
	t.changed.Send()
	for {
		started := time.Now()
		if err := t.maintainOnce(ctx, conn); err != nil && !isLockTimeout(err) {
			return err
		}
		// A large table is counted less often.
		next := time.Now().Add(max(maintainInterval, maintainShare*time.Since(started)))
		if err := t.listen(ctx, conn, next); err != nil {
			return err
		}
	}
}

// listen passes notifications on until the time.
func (t *Table) listen(ctx context.Context, conn *pgx.Conn, until time.Time) error {
	waiting, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	for {
		_, err := conn.WaitForNotification(waiting)
		switch {
		case err == nil:
			t.changed.Send()
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) && !conn.IsClosed():
			return nil // a wait that ends by its deadline leaves the connection as it is
		default:
			return fmt.Errorf("listening for changes of the delay table: %w", err)
		}
	}
}

func (t *Table) maintainOnce(ctx context.Context, conn *pgx.Conn) error {
	var emitted bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM walrelay.emitted)").Scan(&emitted); err != nil {
		return fmt.Errorf("looking for emitted events: %w", err)
	}
	if emitted {
		t.truncate.Send()
	}
	rows, err := conn.Query(ctx, sql.DelayCounts, t.cfg.Slot)
	if err != nil {
		return fmt.Errorf("counting delayed events: %w", err)
	}
	states := make(map[State]int64)
	var state string
	var count int64
	var late, oldest float64
	if _, err := pgx.ForEachRow(rows, []any{&state, &count, &late}, func() error {
		states[State(state)] = count
		if State(state) == Scheduled || State(state) == Retrying {
			oldest = max(oldest, late)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("counting delayed events: %w", err)
	}
	t.cfg.Observe.Counted(states, t.keys.Len(), oldest)
	return nil
}
