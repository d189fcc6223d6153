package walrelay

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/sql"
)

// ConnectDelayed opens a connection to the database of the configuration, of
// which it needs nothing else, for the functions of package retry that show and
// change delayed events. The caller closes it. The error joins *[ConfigError]
// and *[Problem] values; anything else in it may go away by itself.
func ConnectDelayed(ctx context.Context, cfg Config) (*pgx.Conn, error) {
	return connectFor(ctx, cfg, purpose{
		access: sql.DelayAccess, id: "delay_table", table: "walrelay.delayed", what: "delayed events", fix: "run \"walrelay init\", or correct postgres.url",
	})
}

// ConnectInbox is [ConnectDelayed] for the functions of package inbox that show and change
// what handlers have parked.
func ConnectInbox(ctx context.Context, cfg Config) (*pgx.Conn, error) {
	return connectFor(ctx, cfg, purpose{
		access: sql.InboxInstalled, id: "inbox_tables", table: "walrelay.parked", what: "parked events",
		fix: "run \"walrelay init --inbox\", call inbox.Migrate, or correct postgres.url",
	})
}

// purpose is what a connection is for: a table, and whether the role may see it.
type purpose struct{ access, id, table, what, fix string }

func connectFor(ctx context.Context, cfg Config, p purpose) (*pgx.Conn, error) {
	if !cfg.Postgres.Given() {
		return nil, &ConfigError{Key: "postgres.url", Problem: "must be set"}
	}
	conn, err := connect.Postgres(ctx, cfg.Postgres)
	if err != nil {
		return nil, err
	}
	var allowed bool
	err = conn.QueryRow(ctx, p.access).Scan(&allowed)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		err = &problem.Problem{ID: p.id + "_missing", What: "this database has no table " + p.table, Fix: p.fix}
	case err != nil:
		err = fmt.Errorf("looking for %s: %w", p.table, err)
	case !allowed:
		role := conn.Config().User
		err = &problem.Problem{
			ID:   p.id + "_rights",
			What: fmt.Sprintf("role %q may not see or change %s", role, p.what),
			Fix:  fmt.Sprintf("GRANT %s TO %s", sql.Ident(cfg.WithDefaults().Postgres.RolePrefix+"_operator"), sql.Ident(role)),
		}
	}
	if err != nil {
		connect.ClosePostgres(conn)
		return nil, err
	}
	return conn, nil
}
