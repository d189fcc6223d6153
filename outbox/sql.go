package outbox

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SQLTx is a transaction of database/sql (*sql.Tx, *sql.Conn, *sql.DB), or what embeds or
// hands out one: bun.Tx, sqlx.Tx, the ConnPool of a GORM statement.
type SQLTx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// SQL makes a [Tx] of a transaction of database/sql, with any driver for Postgres that
// takes parameters as $1.
func SQL(tx SQLTx) Tx { return sqlTx{tx} }

type sqlTx struct{ SQLTx }

func (t sqlTx) Exec(ctx context.Context, statement string, args ...any) (pgconn.CommandTag, error) {
	result, err := t.ExecContext(ctx, statement, args...)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	n, err := result.RowsAffected()
	if err != nil {
		return pgconn.CommandTag{}, fmt.Errorf("counting rows: %w", err)
	}
	return pgconn.NewCommandTag(fmt.Sprintf("INSERT 0 %d", n)), nil
}

func (t sqlTx) QueryRow(ctx context.Context, statement string, args ...any) pgx.Row {
	return t.QueryRowContext(ctx, statement, args...)
}
