package walrelay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/sql"
)

// slotPatience is how long the creation of a slot may wait for transactions
// that were writing when it began.
const slotPatience = time.Minute

// lockSetup blocks while another Setup works on the same database. The lock
// ends with the connection.
func lockSetup(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, sql.Lock); err != nil {
		return fmt.Errorf("waiting for another init: %w", err)
	}
	return nil
}

// createInPostgres makes what is missing: schema, tables and publication, and
// then, when these are committed, the slot.
func (i *inspector) createInPostgres(ctx context.Context, state postgresState, report *Report) error {
	if err := i.migrate(ctx, state.schema, report); err != nil {
		return err
	}
	// In one transaction, so that no row can be inserted into a new outbox
	// before the publication has it.
	err := pgx.BeginFunc(ctx, i.conn, func(tx pgx.Tx) error {
		if err := i.createTables(ctx, tx, state.tables, report); err != nil {
			return err
		}
		if err := i.createPublication(ctx, tx, state, report); err != nil {
			return err
		}
		statements, err := rolesSQL(i.cfg.Outbox.Tables)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, statements); err != nil {
			return fmt.Errorf("creating roles: %w", err)
		}
		return nil
	})
	if err != nil {
		return refusedByPostgres(err, state.server)
	}
	return refusedByPostgres(i.createSlot(ctx, state.slot, slotPatience, report), state.server)
}

func (i *inspector) migrate(ctx context.Context, state schemaState, report *Report) error {
	migrations, err := sql.Migrations()
	if err != nil {
		return err
	}
	if state.version >= len(migrations) {
		report.add("schema", sql.OwnSchema, AlreadyThere, fmt.Sprintf("version %d", state.version))
		return nil
	}
	for _, m := range migrations[state.version:] {
		err := pgx.BeginFunc(ctx, i.conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, m.SQL); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, sql.RecordMigration, m.Version, m.Name)
			return err
		})
		if err != nil {
			return refusedByPostgres(fmt.Errorf("applying migration %d (%s) to the schema %s: %w", m.Version, m.Name, sql.OwnSchema, err), serverState{Role: i.conn.Config().User})
		}
	}
	action := Created
	if state.version > 0 {
		action = Changed
	}
	report.add("schema", sql.OwnSchema, action, fmt.Sprintf("version %d", len(migrations)))
	return nil
}

func (i *inspector) createTables(ctx context.Context, tx pgx.Tx, states []tableState, report *Report) error {
	for n, text := range i.cfg.Outbox.Tables {
		if states[n].Kind != "" {
			report.add("table", text, AlreadyThere, "")
			continue
		}
		statements, err := outboxSQL(text, i.cfg)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, statements); err != nil {
			return fmt.Errorf("creating outbox table %s: %w", text, err)
		}
		report.add("table", text, Created, "")
	}
	return nil
}

func (i *inspector) createPublication(ctx context.Context, tx pgx.Tx, state postgresState, report *Report) error {
	var added []string
	for n, text := range i.cfg.Outbox.Tables {
		if !state.tables[n].Published && !state.tables[n].Listed {
			added = append(added, text)
		}
	}
	const emitted = sql.OwnSchema + ".emitted"
	if state.publication != nil && !state.publication.Emitted {
		added = append(added, emitted)
	}
	if state.publication != nil && len(added) == 0 {
		report.add("publication", i.cfg.Publication, AlreadyThere, "")
		return nil
	}
	// A table that a publication of whole schemas has needs no entry.
	wanted := added
	if state.publication == nil {
		wanted = append(slices.Clone(i.cfg.Outbox.Tables), emitted)
	}
	statement, err := publicationSQL(i.cfg.Publication, wanted)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, statement); err != nil {
		return fmt.Errorf("creating publication %q: %w", i.cfg.Publication, err)
	}
	if state.publication == nil {
		report.add("publication", i.cfg.Publication, Created, "inserts into "+strings.Join(i.cfg.Outbox.Tables, ", "))
		return nil
	}
	report.add("publication", i.cfg.Publication, Changed, "added "+strings.Join(added, ", ")+"; rows inserted before are not streamed")
	return nil
}

func (i *inspector) createSlot(ctx context.Context, slot *slotState, patience time.Duration, report *Report) error {
	if slot != nil {
		report.add("slot", i.cfg.Slot, AlreadyThere, "")
		return nil
	}
	statement, err := sql.Slot(i.cfg.Slot, i.cfg.Publication, i.cfg.Failover)
	if err != nil {
		return err
	}
	// The server's own timeout, because it takes the unfinished slot away.
	if _, err := i.conn.Exec(ctx, fmt.Sprintf("SET statement_timeout = %d", patience.Milliseconds())); err != nil {
		return fmt.Errorf("setting statement_timeout: %w", err)
	}
	_, err = i.conn.Exec(ctx, statement)
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == sqlstate.QueryCanceled && ctx.Err() == nil {
		return i.blockedSlot(ctx, patience, err)
	}
	if err != nil {
		return fmt.Errorf("creating replication slot %q: %w", i.cfg.Slot, err)
	}
	if _, err := i.conn.Exec(ctx, "RESET statement_timeout"); err != nil {
		return fmt.Errorf("resetting statement_timeout: %w", err)
	}
	report.add("slot", i.cfg.Slot, Created, "events committed from now on are streamed")
	return nil
}

// blockedSlot says which sessions a slot waits for.
func (i *inspector) blockedSlot(ctx context.Context, patience time.Duration, cause error) error {
	rows, err := i.conn.Query(ctx, sql.Writers)
	if err != nil {
		return fmt.Errorf("listing writing transactions: %w", err)
	}
	var writers []string
	var pid int
	var role, application string
	_, err = pgx.ForEachRow(rows, []any{&pid, &role, &application}, func() error {
		writers = append(writers, strings.TrimSpace(fmt.Sprintf("pid %d of %s %s", pid, role, application)))
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing writing transactions: %w", err)
	}
	why := fmt.Sprintf("for %v it waited for transactions that were writing before", patience)
	if len(writers) > 0 {
		why += " (" + strings.Join(writers, ", ") + ")"
	}
	return &problem.Problem{
		ID:   "slot_blocked",
		What: fmt.Sprintf("replication slot %q could not be created", i.cfg.Slot),
		Why:  why,
		Fix:  "end them, or wait, and run \"walrelay init\" again",
		Err:  cause,
	}
}

// refusedByPostgres turns a lack of rights into a [Problem], and leaves any
// other error as it is.
func refusedByPostgres(err error, server serverState) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Code != sqlstate.InsufficientPrivilege {
		return err
	}
	return &problem.Problem{
		ID:   "role_create",
		What: fmt.Sprintf("role %q may not create what walrelay needs", server.Role),
		Why:  err.Error(),
		Fix:  "give the output of \"walrelay init --print-sql\" to somebody who may",
		Err:  err,
	}
}
