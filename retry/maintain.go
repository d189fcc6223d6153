package retry

import (
	"context"
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

// Count counts the events of the table now and then, for the observer, over a connection that
// others may use in between: a million of them take a second. It is called from one
// goroutine, again and again.
func (t *Table) Count(ctx context.Context, conn *pgx.Conn) error {
	started := time.Now()
	if started.Before(t.nextCount) {
		return nil
	}
	err := t.count(ctx, conn)
	// A large table is counted less often.
	t.nextCount = time.Now().Add(max(maintainInterval, maintainShare*time.Since(started)))
	if isLockTimeout(err) {
		return nil
	}
	return err
}

func (t *Table) count(ctx context.Context, conn *pgx.Conn) error {
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
