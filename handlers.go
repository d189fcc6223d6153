package walrelay

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/internal/operate"
)

// ConnectDelayed opens a connection to the database of the configuration, of
// which it needs nothing else, for the functions of package retry that show and
// change delayed events. The caller closes it. The error joins *[ConfigError]
// and *[Problem] values; anything else in it may go away by itself.
func ConnectDelayed(ctx context.Context, cfg Config) (*pgx.Conn, error) {
	return operate.Connect(ctx, cfg, operate.DelayedEvents())
}

// ConnectInbox is [ConnectDelayed] for the functions of package inbox that show and change
// what handlers have parked.
func ConnectInbox(ctx context.Context, cfg Config) (*pgx.Conn, error) {
	return operate.Connect(ctx, cfg, operate.ParkedEvents())
}

// SetupInbox makes the tables of handlers in the database of the configuration, of which it
// needs nothing else, and lets the roles run handlers. The group of operators gets
// its rights, if it exists. It may be run again.
func SetupInbox(ctx context.Context, cfg Config, handlers []string) error {
	return operate.SetupInbox(ctx, cfg, handlers)
}

// RenameHandler renames a handler that no process runs: its consumer, and what the database of the
// configuration knows of it. It may be run again after it was interrupted.
func RenameHandler(ctx context.Context, cfg Config, from, to string) error {
	return operate.RenameHandler(ctx, cfg, from, to)
}

// RemoveHandler removes a handler that no process runs any more: its consumer, and what the
// database of the configuration knows of it. It returns how many parked events went with
// it.
func RemoveHandler(ctx context.Context, cfg Config, handler string) (parked int64, err error) {
	return operate.RemoveHandler(ctx, cfg, handler)
}
