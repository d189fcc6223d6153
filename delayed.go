package walrelay

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/sql"
)

// ConnectDelayed opens a connection to the database of the configuration, of
// which it needs nothing else, for the functions of package retry that show and
// change delayed events. The caller closes it. The error joins *[ConfigError]
// and *[SetupError] values; anything else in it may go away by itself.
func ConnectDelayed(ctx context.Context, cfg Config) (*pgx.Conn, error) {
	cfg = cfg.WithDefaults()
	var v validator
	v.postgres(cfg.Postgres)
	if err := errors.Join(v.faults...); err != nil {
		return nil, err
	}
	conn, err := connectPostgres(ctx, cfg)
	if err != nil {
		return nil, err
	}
	var allowed bool
	err = conn.QueryRow(ctx, sql.DelayAccess).Scan(&allowed)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		err = &SetupError{What: "this database has no table walrelay.delayed", Remedy: "run \"walrelay init\", or correct postgres.url"}
	case err != nil:
		err = fmt.Errorf("looking for walrelay.delayed: %w", err)
	case !allowed:
		role := conn.Config().User
		err = &SetupError{
			What:   fmt.Sprintf("role %q may not see or change delayed events", role),
			Remedy: "GRANT walrelay_operator TO " + sql.Ident(role),
		}
	}
	if err != nil {
		closePostgres(conn)
		return nil, err
	}
	return conn, nil
}
