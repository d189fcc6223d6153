package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/checkpoint"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/sql"
)

// slotPatience is how long the creation of a slot may wait for transactions
// that were writing when it began.
const slotPatience = time.Minute

// lock blocks while another Setup works on the same database. The lock ends with
// the connection.
func (m *maker) lock(ctx context.Context) error {
	if _, err := m.conn.Exec(ctx, sql.Lock); err != nil {
		return fmt.Errorf("waiting for another init: %w", err)
	}
	return nil
}

// database makes what is missing in the database: schema, tables and publication, and
// then, when these are committed, the slot.
func (m *maker) database(ctx context.Context, facts *check.Facts) error {
	if err := m.migrate(ctx, facts.Schema.Version); err != nil {
		return err
	}
	// In one transaction, so that no row can be inserted into a new outbox
	// before the publication has it.
	covered, err := m.cfg.Outboxes()
	if err != nil {
		return err
	}
	// The relay's own role may not write there: what walrelay.event_status reads is
	// said by somebody who may. What is not said is unknown.
	var mayCover bool
	if err := m.conn.QueryRow(ctx, "SELECT has_table_privilege('walrelay.outboxes', 'INSERT')").Scan(&mayCover); err != nil {
		return fmt.Errorf("looking for walrelay.outboxes: %w", err)
	}
	err = pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error {
		if mayCover {
			// A slot of a standby that is not there any more has no say.
			before := covered
			before.Standby = covered.Standby && facts.Slot != nil
			if err := execMade(ctx, tx, before, sql.Uncover); err != nil {
				return err
			}
		}
		if err := m.createTables(ctx, tx, facts.Tables); err != nil {
			return err
		}
		for _, statement := range m.statements {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("preparing the outbox tables: %w", err)
			}
		}
		if err := m.createPublication(ctx, tx, facts); err != nil {
			return err
		}
		statements, err := rolesSQL(m.cfg)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, statements); err != nil {
			return fmt.Errorf("creating roles: %w", err)
		}
		return m.foreignRoles(ctx, tx)
	})
	if err != nil {
		return refusedByPostgres(err, facts.Server.Role)
	}
	if err := m.createSlot(ctx, facts.Slot, slotPatience); err != nil {
		return refusedByPostgres(err, facts.Server.Role)
	}
	if !mayCover {
		return nil
	}
	return refusedByPostgres(execMade(ctx, m.conn, covered, sql.Cover), facts.Server.Role)
}

// foreignRoles reports the roles that are those of another database.
func (m *maker) foreignRoles(ctx context.Context, tx pgx.Tx) error {
	prefix := m.cfg.Postgres.RolePrefix
	if prefix == config.NoRoles {
		return nil
	}
	rows, err := tx.Query(ctx, sql.ForeignRoles, sql.RoleNames(prefix))
	if err != nil {
		return fmt.Errorf("looking for roles: %w", err)
	}
	var roles, database string
	_, err = pgx.ForEachRow(rows, []any{&roles, &database}, func() error {
		m.report.Warnings = append(m.report.Warnings,
			fmt.Sprintf("roles %s are those of database %q and get no rights in this one: set postgres.role_prefix", roles, database))
		return nil
	})
	if err != nil {
		return fmt.Errorf("looking for roles: %w", err)
	}
	return nil
}

// execMade runs the statement that is made of covered tables.
func execMade(ctx context.Context, conn checkpoint.Execer, covered sql.Covered, statement func(sql.Covered) (string, error)) error {
	text, err := statement(covered)
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, text); err != nil {
		return fmt.Errorf("writing walrelay.outboxes: %w", err)
	}
	return nil
}

func (m *maker) migrate(ctx context.Context, version int) error {
	migrations, err := sql.Migrations()
	if err != nil {
		return err
	}
	if version >= len(migrations) {
		m.report.add("schema", sql.OwnSchema, AlreadyThere, fmt.Sprintf("version %d", version))
		return nil
	}
	for _, migration := range migrations[version:] {
		err := pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, migration.SQL); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, sql.RecordMigration, migration.Version, migration.Name)
			return err
		})
		if err != nil {
			return refusedByPostgres(fmt.Errorf("applying migration %d (%s) to the schema %s: %w", migration.Version, migration.Name, sql.OwnSchema, err), m.conn.Config().User)
		}
	}
	action := Created
	if version > 0 {
		action = Changed
	}
	m.report.add("schema", sql.OwnSchema, action, fmt.Sprintf("version %d", len(migrations)))
	return nil
}

func (m *maker) createTables(ctx context.Context, tx pgx.Tx, states []check.Table) error {
	for n, text := range m.cfg.Outbox.Tables {
		if states[n].Kind != "" {
			if err := m.adaptTable(ctx, tx, text, states[n]); err != nil {
				return err
			}
			continue
		}
		statements, err := outboxSQL(text, m.cfg)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, statements); err != nil {
			return fmt.Errorf("creating outbox table %s: %w", text, err)
		}
		m.report.add("table", text, Created, "")
	}
	return nil
}

// adaptTable brings a table that is there to the form of today, if it is of
// walrelay's own.
func (m *maker) adaptTable(ctx context.Context, tx pgx.Tx, text string, state check.Table) error {
	mark := m.cfg.Outbox.AfterPublish == "mark"
	lacks := state.Lacks()
	if !m.cfg.OwnForm(text) || !state.HasXact && (!mark || state.HasMark) && len(lacks) == 0 {
		m.report.add("table", text, AlreadyThere, "")
		return nil
	}
	table, err := config.ParseTable(text)
	if err != nil {
		return err
	}
	var did []string
	if len(lacks) > 0 {
		statements, err := sql.Outbox(table)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, statements); err != nil {
			return fmt.Errorf("adding columns to outbox table %s: %w", text, err)
		}
		did = append(did, "added "+strings.Join(lacks, ", "))
	}
	if state.HasXact {
		statements, err := sql.Slim(table)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, statements); err != nil {
			return fmt.Errorf("dropping column xact_id of outbox table %s: %w", text, err)
		}
		did = append(did, "dropped xact_id, which is not needed any more")
	}
	if mark && !state.HasMark {
		statements, err := sql.Mark(table)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, statements); err != nil {
			return fmt.Errorf("adding column published_at to outbox table %s: %w", text, err)
		}
		did = append(did, "added published_at")
	}
	m.report.add("table", text, Changed, strings.Join(did, ", "))
	return nil
}

func (m *maker) createPublication(ctx context.Context, tx pgx.Tx, facts *check.Facts) error {
	var added []string
	for n, text := range m.cfg.Outbox.Tables {
		if !facts.Tables[n].Published && !facts.Tables[n].Listed {
			added = append(added, text)
		}
	}
	const emitted = sql.OwnSchema + ".emitted"
	if facts.Publication != nil && !facts.Publication.Emitted {
		added = append(added, emitted)
	}
	if facts.Publication != nil && len(added) == 0 {
		m.report.add("publication", m.cfg.Publication, AlreadyThere, "")
		return nil
	}
	// A table that a publication of whole schemas has needs no entry.
	wanted := added
	if facts.Publication == nil {
		wanted = append(slices.Clone(m.cfg.Outbox.Tables), emitted)
	}
	statement, err := publicationSQL(m.cfg.Publication, wanted)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, statement); err != nil {
		return fmt.Errorf("creating publication %q: %w", m.cfg.Publication, err)
	}
	if facts.Publication == nil {
		m.report.add("publication", m.cfg.Publication, Created, "inserts into "+strings.Join(m.cfg.Outbox.Tables, ", "))
		return nil
	}
	m.report.add("publication", m.cfg.Publication, Changed, "added "+strings.Join(added, ", ")+"; rows inserted before are not streamed")
	return nil
}

func (m *maker) createSlot(ctx context.Context, slot *check.Slot, patience time.Duration) error {
	if slot != nil {
		if m.cfg.Failover && slot.Failover != nil && !*slot.Failover && slot.ActivePID == nil {
			return m.setFailover(ctx)
		}
		m.report.add("slot", m.cfg.Slot, AlreadyThere, "")
		return nil
	}
	statement, err := sql.Slot(m.cfg.Slot, m.cfg.Publication, m.cfg.Failover)
	if err != nil {
		return err
	}
	return check.AtSlot(ctx, m.conn, m.cfg.Postgres, func(at *pgx.Conn) error {
		if at != m.conn {
			// The slot needs the publication.
			if err := check.AwaitReplay(ctx, m.conn, at); err != nil {
				return err
			}
		}
		return m.createSlotAt(ctx, at, statement, patience)
	})
}

// setFailover lets a slot that was made without failover fail over.
func (m *maker) setFailover(ctx context.Context) error {
	url, password, err := connect.SlotSecrets(ctx, m.cfg.Postgres)
	if err != nil {
		return err
	}
	if err := replication.SetFailover(ctx, replication.Config{ConnString: url, Password: password, Slot: m.cfg.Slot, Publication: m.cfg.Publication}); err != nil {
		return err
	}
	m.report.add("slot", m.cfg.Slot, Changed, "it fails over")
	return nil
}

// snapshotPoll is the time between two attempts to tell the standby which transactions run.
const snapshotPoll = 200 * time.Millisecond

// logSnapshots lets the primary write into the WAL which transactions are running, until the
// function that it returns is called: a slot on a standby begins there. A role that may not do
// so waits until the server does, every 15 s where something is written.
func (m *maker) logSnapshots(ctx context.Context) (stop func()) {
	enough, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(snapshotPoll)
		defer ticker.Stop()
		for {
			if _, err := m.conn.Exec(ctx, "SELECT pg_catalog.pg_log_standby_snapshot()"); err != nil {
				return
			}
			select {
			case <-ticker.C:
			case <-enough:
				return
			}
		}
	}()
	return func() {
		close(enough)
		<-done
	}
}

func (m *maker) createSlotAt(ctx context.Context, conn *pgx.Conn, statement string, patience time.Duration) error {
	// The server's own timeout, because it takes the unfinished slot away.
	if _, err := conn.Exec(ctx, fmt.Sprintf("SET statement_timeout = %d", patience.Milliseconds())); err != nil {
		return fmt.Errorf("setting statement_timeout: %w", err)
	}
	stop := func() {}
	if conn != m.conn {
		stop = m.logSnapshots(ctx)
	}
	_, err := conn.Exec(ctx, statement)
	stop()
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == sqlstate.QueryCanceled && ctx.Err() == nil {
		return m.blockedSlot(ctx, patience, err)
	}
	if err != nil {
		return fmt.Errorf("creating replication slot %q: %w", m.cfg.Slot, err)
	}
	if _, err := conn.Exec(ctx, "RESET statement_timeout"); err != nil {
		return fmt.Errorf("resetting statement_timeout: %w", err)
	}
	m.report.add("slot", m.cfg.Slot, Created, "events committed from now on are streamed")
	return nil
}

// blockedSlot says which sessions a slot waits for.
func (m *maker) blockedSlot(ctx context.Context, patience time.Duration, cause error) error {
	rows, err := m.conn.Query(ctx, sql.Writers)
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
		What: fmt.Sprintf("replication slot %q could not be created", m.cfg.Slot),
		Why:  why,
		Fix:  "end them, or wait, and run \"walrelay init\" again",
		Err:  cause,
	}
}

// refusedByPostgres turns a lack of rights into a [Problem], and leaves any
// other error as it is.
func refusedByPostgres(err error, role string) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Code != sqlstate.InsufficientPrivilege {
		return err
	}
	return &problem.Problem{
		ID:   "role_create",
		What: fmt.Sprintf("role %q may not create what walrelay needs", role),
		Fix:  "give the output of \"walrelay init --print-sql\" to somebody who may",
		Err:  err,
	}
}
