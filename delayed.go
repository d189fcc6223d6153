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
	if cfg.Postgres.URL == "" {
		return nil, &ConfigError{Key: "postgres.url", Problem: "must be set"}
	}
	conn, err := connect.Postgres(ctx, cfg.Postgres)
	if err != nil {
		return nil, err
	}
	var allowed bool
	err = conn.QueryRow(ctx, sql.DelayAccess).Scan(&allowed)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		err = &problem.Problem{ID: "delay_table_missing", What: "this database has no table walrelay.delayed", Fix: "run \"walrelay init\", or correct postgres.url"}
	case err != nil:
		err = fmt.Errorf("looking for walrelay.delayed: %w", err)
	case !allowed:
		role := conn.Config().User
		err = &problem.Problem{
			ID:   "delay_table_rights",
			What: fmt.Sprintf("role %q may not see or change delayed events", role),
			Fix:  fmt.Sprintf("GRANT %s TO %s", sql.Ident(cfg.WithDefaults().Postgres.RolePrefix+"_operator"), sql.Ident(role)),
		}
	}
	if err != nil {
		connect.ClosePostgres(conn)
		return nil, err
	}
	return conn, nil
}
