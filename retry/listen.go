package retry

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// listen passes notifications on, until the context ends or something fails. It waits on the
// table's connection, and lets go of it when somebody wants that; what arrives meanwhile is
// taken afterwards.
func (t *Table) listen(ctx context.Context) error {
	for ctx.Err() == nil {
		for t.wanted.Load() > 0 {
			select {
			case <-t.idle:
			case <-ctx.Done():
				return nil
			}
		}
		if err := t.waitForNotification(ctx); err != nil {
			return err
		}
	}
	return nil
}

// waitForNotification waits until there is one, or somebody wants the connection.
func (t *Table) waitForNotification(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.open(ctx); err != nil {
		return err
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	t.listening.Store(&cancel)
	defer t.listening.Store(nil)
	if t.wanted.Load() > 0 {
		return nil // it did not see stop
	}
	_, err := t.conn.WaitForNotification(waiting)
	switch {
	case err == nil:
		t.changed.Send()
	case waiting.Err() != nil && !t.conn.IsClosed():
		// A wait that is cancelled leaves the connection as it is.
	case ctx.Err() == nil:
		return fmt.Errorf("listening for changes of the delay table: %w", err)
	}
	return nil
}

// takeNotifications passes on what has arrived while the connection was used.
func (t *Table) takeNotifications(conn *pgx.Conn) {
	none, cancel := context.WithCancel(context.Background())
	cancel() // it waits for nothing
	for !conn.IsClosed() {
		if _, err := conn.WaitForNotification(none); err != nil {
			return
		}
		t.changed.Send()
	}
}
