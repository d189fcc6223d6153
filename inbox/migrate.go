package inbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/sql"
)

// Migrator runs statements: a pgx.Conn, a pgxpool.Pool, a pgx.Tx.
type Migrator interface {
	Exec(ctx context.Context, statement string, args ...any) (pgconn.CommandTag, error)
}

// Roles are the roles that get rights by [Migrate].
type Roles struct {
	// Handlers may run handlers: also read the keys of positions, if the outbox is there.
	Handlers []string
	// Operators may see handlers and what they have parked, redrive and discard it.
	Operators []string
}

// Migrate makes what handlers keep in their database, in the schema walrelay, or brings it
// up to date, and gives rights to roles. Run it as the owner of the schema; it may be run
// again, also by several at a time. It blocks for as long as another one runs.
func Migrate(ctx context.Context, conn Migrator, roles Roles) error {
	text, err := MigrationSQL(roles)
	if err != nil {
		return err
	}
	// Without arguments the statements run as one transaction.
	if _, err := conn.Exec(ctx, "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('walrelay inbox', 0));\n"+text); err != nil {
		return fmt.Errorf("making the tables of handlers: %w", err)
	}
	return nil
}

// MigrationSQL returns the statements of [Migrate], for a migration tool or for somebody else
// to run.
func MigrationSQL(roles Roles) (string, error) {
	text, err := sql.InboxMigrations()
	for _, role := range roles.Handlers {
		text += sql.InboxGrant(role)
	}
	for _, role := range roles.Operators {
		text += sql.InboxGrantOperator(role)
	}
	return text, err
}
