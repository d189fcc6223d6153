package operate

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/sql"
)

// SetupInbox makes the tables of handlers in the database of the configuration, of which it
// needs nothing else, and lets the roles run handlers. The group of operators gets
// its rights, if it exists. It may be run again.
func SetupInbox(ctx context.Context, cfg config.Config, handlers []string) error {
	if !cfg.Postgres.Given() {
		return &config.Error{Key: "postgres.url", Problem: "must be set"}
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

// RenameHandler renames a handler that no process runs: its consumer, and what the database of the
// configuration knows of it. It may be run again after it was interrupted.
func RenameHandler(ctx context.Context, cfg config.Config, from, to string) error {
	return withHandler(ctx, cfg, from, func(conn *pgx.Conn, js *connect.JetStream, stream string) error {
		consumers, err := consumersOf(ctx, js, stream, from)
		if err != nil {
			return err
		}
		for _, name := range consumers {
			waiting, err := js.CopyConsumer(ctx, stream, name, to+strings.TrimPrefix(name, from))
			if err := runs(from, waiting, err); err != nil {
				return err
			}
		}
		if err := inbox.RenameHandler(ctx, conn, from, to); err != nil {
			return err
		}
		return deleteConsumers(ctx, js, stream, from)
	})
}

// RemoveHandler removes a handler that no process runs any more: its consumer, and what the
// database of the configuration knows of it. It returns how many parked events went with
// it.
func RemoveHandler(ctx context.Context, cfg config.Config, handler string) (parked int64, err error) {
	err = withHandler(ctx, cfg, handler, func(conn *pgx.Conn, js *connect.JetStream, stream string) error {
		if err := deleteConsumers(ctx, js, stream, handler); err != nil {
			return err
		}
		var err error
		parked, err = inbox.RemoveHandler(ctx, conn, handler)
		return err
	})
	return parked, err
}

// consumersOf returns the names of a handler's consumers.
func consumersOf(ctx context.Context, js *connect.JetStream, stream, handler string) ([]string, error) {
	return js.Consumers(ctx, stream, func(name string) bool { return inbox.HandlerOf(name) == handler })
}

// deleteConsumers deletes the consumers of a handler.
func deleteConsumers(ctx context.Context, js *connect.JetStream, stream, handler string) error {
	consumers, err := consumersOf(ctx, js, stream, handler)
	if err != nil {
		return err
	}
	for _, name := range consumers {
		waiting, err := js.DeleteConsumer(ctx, stream, name)
		if err := runs(handler, waiting, err); err != nil {
			return err
		}
	}
	return nil
}

// withHandler calls do with the connections, and the stream of a handler that the database
// knows.
func withHandler(ctx context.Context, cfg config.Config, handler string, do func(conn *pgx.Conn, js *connect.JetStream, stream string) error) error {
	conn, err := Connect(ctx, cfg, ParkedEvents())
	if err != nil {
		return err
	}
	defer connect.ClosePostgres(conn)
	known, err := inbox.ListHandlers(ctx, conn)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(known, func(h inbox.HandlerState) bool { return h.Handler == handler })
	if i < 0 {
		return fmt.Errorf("handler %q: %w", handler, inbox.ErrNoHandler)
	}
	nc, err := connect.NATS(ctx, cfg.NATS)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := connect.NewJetStream(nc, cfg.NATS)
	if err != nil {
		return err
	}
	return do(conn, js, known[i].Stream)
}

// runs is the problem of a handler for whose messages clients wait.
func runs(handler string, waiting int, err error) error {
	if err != nil || waiting == 0 {
		return err
	}
	return &problem.Problem{
		ID: "handler_runs", What: fmt.Sprintf("handler %q runs: its consumer has %d requests waiting", handler, waiting), Fix: "stop its processes first",
	}
}
