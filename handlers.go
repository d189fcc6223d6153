package walrelay

import (
	"context"
	"fmt"

	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/sql"
)

// SetupInbox makes the tables of handlers in the database of the configuration, of which it
// needs nothing else, and lets the roles run handlers. The group of operators gets
// its rights, if it exists. It may be run again.
func SetupInbox(ctx context.Context, cfg Config, handlers []string) error {
	if cfg.Postgres.URL == "" {
		return &ConfigError{Key: "postgres.url", Problem: "must be set"}
	}
	conn, err := connect.Postgres(ctx, cfg.Postgres)
	if err != nil {
		return err
	}
	defer connect.ClosePostgres(conn)
	roles := inbox.Roles{Handlers: handlers}
	operators := cfg.WithDefaults().Postgres.RolePrefix + "_operator"
	var exists bool
	if err := conn.QueryRow(ctx, sql.RoleExists, operators).Scan(&exists); err != nil {
		return fmt.Errorf("looking for role %q: %w", operators, err)
	}
	if exists {
		roles.Operators = []string{operators}
	}
	return inbox.Migrate(ctx, conn, roles)
}

// RemoveHandler removes a handler that no process runs any more: its consumer, and what the
// database of the configuration knows of it. It returns how many parked events went with
// it.
func RemoveHandler(ctx context.Context, cfg Config, handler string) (parked int64, err error) {
	conn, err := ConnectInbox(ctx, cfg)
	if err != nil {
		return 0, err
	}
	defer connect.ClosePostgres(conn)
	known, err := inbox.ListHandlers(ctx, conn)
	if err != nil {
		return 0, err
	}
	for i := range known {
		if known[i].Handler != handler {
			continue
		}
		if err := removeConsumer(ctx, cfg, known[i].Stream, handler); err != nil {
			return 0, err
		}
	}
	return inbox.RemoveHandler(ctx, conn, handler)
}

func removeConsumer(ctx context.Context, cfg Config, stream, handler string) error {
	nc, err := connect.NATS(ctx, cfg.NATS)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := connect.NewJetStream(nc, cfg.NATS)
	if err != nil {
		return err
	}
	waiting, err := js.DeleteConsumer(ctx, stream, handler)
	if err != nil {
		return err
	}
	if waiting > 0 {
		return &problem.Problem{
			ID: "handler_runs", What: fmt.Sprintf("handler %q runs: its consumer has %d requests waiting", handler, waiting), Fix: "stop its processes first",
		}
	}
	return nil
}
