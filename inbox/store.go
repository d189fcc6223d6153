package inbox

import (
	"context"
	stdsql "database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// database is where a handler's effects and marks are.
type database interface {
	// begin starts a READ COMMITTED transaction with a statement that returns a
	// number, and returns the number.
	begin(ctx context.Context, statement string, args ...any) (transaction, int, error)
	exec(ctx context.Context, statement string, args ...any) error
	query(ctx context.Context, statement string, args ...any) (rows, error)
}

// transaction is one of a database.
type transaction interface {
	// handle is what a handler gets.
	handle() any
	exec(ctx context.Context, statement string, args ...any) error
	query(ctx context.Context, statement string, args ...any) (rows, error)
	commit(ctx context.Context) error
	// rollback ends the transaction if it is open.
	rollback(ctx context.Context)
}

// rows is what a query returns; it must be closed.
type rows interface {
	Next() bool
	Scan(into ...any) error
	Err() error
	close()
}

// one reads a single row; false if there is none.
func one(r rows, err error, into ...any) (bool, error) {
	if err != nil {
		return false, err
	}
	defer r.close()
	if !r.Next() {
		return false, r.Err()
	}
	if err := r.Scan(into...); err != nil {
		return false, err
	}
	for r.Next() {
	}
	return true, r.Err()
}

const beginStatement = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"

// pgxDatabase is a database by way of pgx.
type pgxDatabase struct{ pool *pgxpool.Pool }

func (d pgxDatabase) begin(ctx context.Context, statement string, args ...any) (transaction, int, error) {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("connecting: %w", err)
	}
	var n int
	batch := &pgx.Batch{}
	batch.Queue(beginStatement)
	batch.Queue(statement, args...).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
	tx := &pgxTx{pooled: conn, conn: conn.Conn()}
	if err := tx.conn.SendBatch(ctx, batch).Close(); err != nil {
		tx.rollback(ctx)
		return nil, 0, err
	}
	return tx, n, nil
}

func (d pgxDatabase) exec(ctx context.Context, statement string, args ...any) error {
	_, err := d.pool.Exec(ctx, statement, args...)
	return err
}

func (d pgxDatabase) query(ctx context.Context, statement string, args ...any) (rows, error) {
	r, err := d.pool.Query(ctx, statement, args...)
	return pgxRows{r}, err
}

type pgxRows struct{ pgx.Rows }

func (r pgxRows) close() { r.Close() }

// errNotYours says that a handler must leave the transaction open.
var errNotYours = errors.New("the transaction is the inbox's: return nil to commit it, or an error to roll it back")

// pgxTx is a transaction that was begun together with its first statement.
type pgxTx struct {
	pooled *pgxpool.Conn
	conn   *pgx.Conn
	ended  bool
}

var _ pgx.Tx = handlerTx{}

// handlerTx is the transaction as a handler gets it.
type handlerTx struct{ *pgxTx }

func (t *pgxTx) handle() any { return handlerTx{t} }

func (t *pgxTx) exec(ctx context.Context, statement string, args ...any) error {
	_, err := t.conn.Exec(ctx, statement, args...)
	return err
}

func (t *pgxTx) query(ctx context.Context, statement string, args ...any) (rows, error) {
	r, err := t.conn.Query(ctx, statement, args...)
	return pgxRows{r}, err
}

func (t *pgxTx) commit(ctx context.Context) error {
	tag, err := t.conn.Exec(ctx, "COMMIT")
	if err == nil && tag.String() != "COMMIT" {
		err = errors.New("the transaction was aborted: a statement of the handler failed, and the handler returned no error")
	}
	if err != nil && t.conn.IsClosed() {
		err = errors.Join(err, errConnectionLost)
	}
	t.release(ctx)
	return err
}

// errConnectionLost says that the connection is closed.
var errConnectionLost = errors.New("the connection is lost")

func (t *pgxTx) rollback(ctx context.Context) { t.release(ctx) }

// release gives the connection back; the pool closes it if a transaction is open that
// cannot be rolled back.
func (t *pgxTx) release(ctx context.Context) {
	if t.ended {
		return
	}
	t.ended = true
	if !t.conn.IsClosed() && t.conn.PgConn().TxStatus() != 'I' {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		_, _ = t.conn.Exec(ending, "ROLLBACK") // a connection in doubt is closed by the pool
	}
	t.pooled.Release()
}

// inner returns a transaction of pgx's own on the connection, which is in one already.
func (t handlerTx) inner(ctx context.Context) (pgx.Tx, error) {
	return t.conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: "SELECT 1"})
}

// Begin sets a savepoint.
func (t handlerTx) Begin(ctx context.Context) (pgx.Tx, error) {
	inner, err := t.inner(ctx)
	if err != nil {
		return nil, err
	}
	return inner.Begin(ctx)
}

// Commit refuses.
func (t handlerTx) Commit(context.Context) error { return errNotYours }

// Rollback refuses.
func (t handlerTx) Rollback(context.Context) error { return errNotYours }

func (t handlerTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, from pgx.CopyFromSource) (int64, error) {
	return t.conn.CopyFrom(ctx, table, columns, from)
}

func (t handlerTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	return t.conn.SendBatch(ctx, b)
}

func (t handlerTx) LargeObjects() pgx.LargeObjects {
	inner, err := t.inner(context.Background())
	if err != nil {
		return pgx.LargeObjects{} // whatever it does fails with the connection
	}
	return inner.LargeObjects()
}

func (t handlerTx) Prepare(ctx context.Context, name, statement string) (*pgconn.StatementDescription, error) {
	return t.conn.Prepare(ctx, name, statement)
}

func (t handlerTx) Exec(ctx context.Context, statement string, args ...any) (pgconn.CommandTag, error) {
	return t.conn.Exec(ctx, statement, args...)
}

func (t handlerTx) Query(ctx context.Context, statement string, args ...any) (pgx.Rows, error) {
	return t.conn.Query(ctx, statement, args...)
}

func (t handlerTx) QueryRow(ctx context.Context, statement string, args ...any) pgx.Row {
	return t.conn.QueryRow(ctx, statement, args...)
}

func (t handlerTx) Conn() *pgx.Conn { return t.conn }

// sqlDatabase is a database by way of database/sql.
type sqlDatabase struct{ db *stdsql.DB }

func (d sqlDatabase) begin(ctx context.Context, statement string, args ...any) (transaction, int, error) {
	// The context of a transaction of database/sql rolls it back when it ends, also
	// while it commits.
	tx, err := d.db.BeginTx(context.WithoutCancel(ctx), &stdsql.TxOptions{Isolation: stdsql.LevelReadCommitted})
	if err != nil {
		return nil, 0, fmt.Errorf("connecting: %w", err)
	}
	var n int
	if err := tx.QueryRowContext(ctx, statement, args...).Scan(&n); err != nil {
		_ = tx.Rollback() // err says what is wrong
		return nil, 0, err
	}
	return sqlTx{tx}, n, nil
}

func (d sqlDatabase) exec(ctx context.Context, statement string, args ...any) error {
	_, err := d.db.ExecContext(ctx, statement, args...)
	return err
}

func (d sqlDatabase) query(ctx context.Context, statement string, args ...any) (rows, error) {
	r, err := d.db.QueryContext(ctx, statement, args...) //nolint:rowserrcheck // who reads them asks
	return sqlRows{r}, err
}

type sqlRows struct{ *stdsql.Rows }

func (r sqlRows) close() { _ = r.Close() } // Err has told

type sqlTx struct{ tx *stdsql.Tx }

func (t sqlTx) handle() any { return t.tx }

func (t sqlTx) exec(ctx context.Context, statement string, args ...any) error {
	_, err := t.tx.ExecContext(ctx, statement, args...)
	return err
}

func (t sqlTx) query(ctx context.Context, statement string, args ...any) (rows, error) {
	r, err := t.tx.QueryContext(ctx, statement, args...) //nolint:rowserrcheck // who reads them asks
	return sqlRows{r}, err
}

func (t sqlTx) commit(context.Context) error { return t.tx.Commit() }

func (t sqlTx) rollback(context.Context) { _ = t.tx.Rollback() } // it may have ended
