package replication

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/sqlstate"
)

// ErrServerStopping says that the server is shutting down and waits for this
// stream to end.
var ErrServerStopping = errors.New("the Postgres server is shutting down")

// awaitsStandbys is the function of Postgres 17 and newer that complains of standbys in
// synchronized_standby_slots that are away: as a warning, and as an error when the server
// stops. That says nothing of the slot.
const awaitsStandbys = "StandbySlotsHaveCaughtup"

// ToTheServer is what to do about a connection that a connection pooler does not pass.
const ToTheServer = "connect to the server itself: connection poolers (PgBouncer before 1.23, RDS Proxy, pooled hosts of Neon and Supabase) do not pass replication"

// Pooler turns the refusal of a connection pooler into a [problem.Problem]; nil if it is none.
// PgBouncer gives many errors one code, and its words are always English.
func Pooler(err error) *problem.Problem {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Code != sqlstate.ProtocolViolation || !strings.Contains(pgErr.Message, "unsupported startup parameter") {
		return nil
	}
	return &problem.Problem{
		ID:   "replication_connection",
		What: "a connection pooler answers, which does not take what a relay sets for its connections",
		Err:  pgErr,
		Fix:  ToTheServer,
	}
}

// classify turns a server's error into a [problem.Problem] when only a person
// can mend it, and returns every other error as it is.
func classify(slot, publication string, err error) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	if p := Pooler(err); p != nil {
		return p
	}
	switch {
	case pgErr.Code == sqlstate.UndefinedObject && strings.HasPrefix(pgErr.Routine, "get_publication"):
		return &problem.Problem{
			ID:   "publication_too_late",
			What: fmt.Sprintf("publication %q did not exist when the events that slot %q is about to read were written", publication, slot),
			Fix:  "the slot cannot go past this place: see docs/operations.md, \"A publication was dropped\"",
			Err:  err,
		}
	case pgErr.Code == sqlstate.UndefinedObject:
		return &problem.Problem{
			ID:   "slot_missing",
			What: fmt.Sprintf("replication slot %q does not exist", slot),
			Fix:  "run \"walrelay init\"; if it existed before, events written since it was dropped will not be streamed: see docs/operations.md, \"A slot was lost\"",
			Err:  err,
		}
	case pgErr.Code == sqlstate.ObjectNotInPrerequisite && pgErr.Routine == awaitsStandbys:
		return err
	case pgErr.Code == sqlstate.ObjectNotInPrerequisite:
		return &problem.Problem{
			ID:   "slot_lost",
			What: fmt.Sprintf("replication slot %q cannot be read", slot),
			Fix:  "see docs/operations.md, \"A slot was lost\"",
			Err:  err,
		}
	case pgErr.Code == sqlstate.InsufficientPrivilege || strings.HasPrefix(pgErr.Code, sqlstate.ClassInvalidAuthorization):
		return &problem.Problem{
			ID:   "postgres_refused",
			What: "Postgres refuses the connection",
			Fix:  "the role needs LOGIN and REPLICATION, and pg_hba.conf a line for it and this database",
			Err:  err,
		}
	case pgErr.Code == sqlstate.InvalidCatalogName:
		return &problem.Problem{ID: "database_missing", What: "the database does not exist", Fix: "correct postgres.url", Err: err}
	case pgErr.Code == sqlstate.FeatureNotSupported:
		return &problem.Problem{ID: "server_version", What: "the server cannot stream what walrelay asks for", Fix: "Postgres 14 or newer is needed", Err: err}
	}
	return err
}
