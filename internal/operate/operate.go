// Package operate does what an operator asks for: connections for what shows and changes
// delayed and parked events, and the handlers of package inbox.
//
// Input: the configuration, of which it needs how to reach the servers. Output: connections,
// and handlers that are set up, renamed or removed. Promises: nothing is done to a handler
// that runs; what was interrupted may be run again. The package must not import what runs a
// relay.
package operate

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/sql"
)

// Purpose is what a connection is for: a table, and whether the role may see it.
type Purpose struct {
	access, table, what string
	// missing and rights are the problems without the table, and without the right.
	missing, rights problem.Problem
}

// DelayedEvents is for the functions of package retry that show and change delayed events.
func DelayedEvents() Purpose {
	return Purpose{
		access: sql.DelayAccess, table: "walrelay.delayed", what: "delayed events",
		missing: problem.Problem{ID: "delay_table_missing", Fix: "run \"walrelay init\", or correct postgres.url"},
		rights:  problem.Problem{ID: "delay_table_rights"},
	}
}

// ParkedEvents is for the functions of package inbox that show and change what handlers have
// parked.
func ParkedEvents() Purpose {
	return Purpose{
		access: sql.InboxInstalled, table: "walrelay.parked", what: "parked events",
		missing: problem.Problem{ID: "inbox_tables_missing", Fix: "run \"walrelay init --inbox\", call inbox.Migrate, or correct postgres.url"},
		rights:  problem.Problem{ID: "inbox_tables_rights"},
	}
}

// IsMissing reports whether an error says that the database has no such table.
func (p *Purpose) IsMissing(err error) bool {
	found, ok := errors.AsType[*problem.Problem](err)
	return ok && found.ID == p.missing.ID
}

// Connect opens a connection for a purpose. The caller closes it.
func Connect(ctx context.Context, cfg config.Config, p Purpose) (*pgx.Conn, error) {
	if !cfg.Postgres.Given() {
		return nil, &config.Error{Key: "postgres.url", Problem: "must be set"}
	}
	conn, err := connect.Postgres(ctx, cfg.Postgres)
	if err != nil {
		return nil, err
	}
	var allowed bool
	err = conn.QueryRow(ctx, p.access).Scan(&allowed)
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == sqlstate.InsufficientPrivilege {
		err = nil // not even the schema
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		p.missing.What = "this database has no table " + p.table
		err = &p.missing
	case err != nil:
		err = fmt.Errorf("looking for %s: %w", p.table, err)
	case !allowed:
		role := conn.Config().User
		p.rights.What = fmt.Sprintf("role %q may not see or change %s", role, p.what)
		p.rights.Fix = fmt.Sprintf("GRANT %s TO %s", sql.Ident(cfg.WithDefaults().Postgres.RolePrefix+"_operator"), sql.Ident(role))
		err = &p.rights
	}
	if err != nil {
		connect.ClosePostgres(conn)
		return nil, err
	}
	return conn, nil
}
