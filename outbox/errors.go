package outbox

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// explain says what to do about an error of the driver.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrTxClosed), errors.Is(err, sql.ErrTxDone):
		return fmt.Errorf("%w: it was committed or rolled back before; publish inside of it: %w", ErrNoTransaction, err)
	}
	state, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err)
	if !ok {
		return err
	}
	switch state.SQLState() {
	case "42P01", "3F000", "42883", "42703": // table, schema, function, column
		return fmt.Errorf(`%w: %w; run "walrelay init" in this database, or name the right table`, ErrNotInstalled, err)
	case "42501":
		return fmt.Errorf("%w; give the role of this connection the rights of an application: GRANT walrelay_app TO it", err)
	case "23505":
		return fmt.Errorf("%w; an event with this id is in the table already", err)
	case "25P02":
		return fmt.Errorf("%w; an earlier statement has failed, and nothing of this transaction can be committed", err)
	}
	return err
}
