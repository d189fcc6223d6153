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
	counts, err := CountStates(ctx, conn, t.cfg.Slot)
	if err != nil {
		return err
	}
	t.cfg.Observe.Counted(counts.States, t.keys.Len(), counts.OverdueSeconds)
	return nil
}

// Counts says how many events are in the delay table.
type Counts struct {
	States map[State]int64
	// OverdueSeconds is how long the oldest event that is due has been; 0 if none is.
	OverdueSeconds float64
}

// CountStates counts the events of a slot. It reads the whole table.
func CountStates(ctx context.Context, conn *pgx.Conn, slot string) (Counts, error) {
	counts := Counts{States: make(map[State]int64)}
	rows, err := conn.Query(ctx, sql.DelayCounts, slot)
	if err != nil {
		return counts, fmt.Errorf("counting delayed events: %w", err)
	}
	var state string
	var count int64
	var late float64
	if _, err := pgx.ForEachRow(rows, []any{&state, &count, &late}, func() error {
		counts.States[State(state)] = count
		if State(state) == Scheduled || State(state) == Retrying {
			counts.OverdueSeconds = max(counts.OverdueSeconds, late)
		}
		return nil
	}); err != nil {
		return counts, fmt.Errorf("counting delayed events: %w", err)
	}
	return counts, nil
}
