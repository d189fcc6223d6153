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

// Migrate makes what handlers keep in their database, in the schema walrelay, or brings it
// up to date, and lets the roles run handlers: also read the keys of positions, if the
// outbox is there. Run it as the owner of the schema; it may be run again, also by
// several at a time. It blocks for as long as another one runs.
func Migrate(ctx context.Context, conn Migrator, roles ...string) error {
	text, err := sql.InboxMigrations()
	if err != nil {
		return err
	}
	for _, role := range roles {
		text += sql.InboxGrant(role)
	}
	// Without arguments the statements run as one transaction.
	if _, err := conn.Exec(ctx, "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('walrelay inbox', 0));\n"+text); err != nil {
		return fmt.Errorf("making the tables of handlers: %w", err)
	}
	return nil
}

// MigrationSQL returns the statements of [Migrate], for a migration tool.
func MigrationSQL(roles ...string) (string, error) {
	text, err := sql.InboxMigrations()
	for _, role := range roles {
		text += sql.InboxGrant(role)
	}
	return text, err
}
