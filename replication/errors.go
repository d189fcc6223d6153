package replication

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// ErrServerStopping says that the server is shutting down and waits for this
// stream to end.
var ErrServerStopping = errors.New("the Postgres server is shutting down")

// ConfigurationError is a fault that no retry mends: somebody has to change
// something first.
type ConfigurationError struct {
	// What is wrong, and Remedy what to do about it; one sentence each.
	What, Remedy string
	Err          error
}

func (e *ConfigurationError) Error() string {
	var b strings.Builder
	b.WriteString(e.What)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Remedy != "" {
		b.WriteString("; ")
		b.WriteString(e.Remedy)
	}
	return b.String()
}

func (e *ConfigurationError) Unwrap() error { return e.Err }

// SQLSTATEs that the stream tells apart (Postgres manual, appendix "PostgreSQL
// Error Codes").
const (
	codeObjectInUse           = "55006"
	codeObjectNotInState      = "55000"
	codeUndefinedObject       = "42704"
	codeInsufficientPrivilege = "42501"
	codeInvalidCatalogName    = "3D000"
	codeFeatureNotSupported   = "0A000"
	classInvalidAuthorization = "28"
)

// classify turns a server's error into a ConfigurationError when only a person
// can mend it, and returns every other error as it is.
func classify(slot, publication string, err error) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	switch {
	case pgErr.Code == codeUndefinedObject && strings.Contains(pgErr.Message, "publication"):
		return &ConfigurationError{
			What:   fmt.Sprintf("publication %q did not exist when the events that slot %q is about to read were written", publication, slot),
			Remedy: "the slot cannot go past this place: see docs/operations.md, \"A publication was dropped\"",
			Err:    err,
		}
	case pgErr.Code == codeUndefinedObject:
		return &ConfigurationError{
			What:   fmt.Sprintf("replication slot %q does not exist", slot),
			Remedy: "run \"walrelay init\"; if it existed before, events written since it was dropped will not be streamed: see docs/operations.md, \"A slot was lost\"",
			Err:    err,
		}
	case pgErr.Code == codeObjectNotInState:
		return &ConfigurationError{
			What:   fmt.Sprintf("replication slot %q cannot be read", slot),
			Remedy: "see docs/operations.md, \"A slot was lost\"",
			Err:    err,
		}
	case pgErr.Code == codeInsufficientPrivilege || strings.HasPrefix(pgErr.Code, classInvalidAuthorization):
		return &ConfigurationError{
			What:   "Postgres refuses the connection",
			Remedy: "the role needs LOGIN and REPLICATION, and pg_hba.conf a line for it and this database",
			Err:    err,
		}
	case pgErr.Code == codeInvalidCatalogName:
		return &ConfigurationError{What: "the database does not exist", Remedy: "correct postgres.url", Err: err}
	case pgErr.Code == codeFeatureNotSupported:
		return &ConfigurationError{What: "the server cannot stream what walrelay asks for", Remedy: "Postgres 14 or newer is needed", Err: err}
	}
	return err
}
