package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/sql"
)

// The names of everything that the bench makes, besides the schema that Setup makes
// where there is none.
const (
	schema        = "walrelay_bench"
	table         = schema + ".outbox"
	publication   = "walrelay_bench"
	slot          = "walrelay_bench"
	bareSlot      = "walrelay_bench_bare"
	stream        = "WALRELAY_BENCH"
	subjectPrefix = "walrelay-bench."
	subjects      = subjectPrefix + ">"
	bareStream    = "WALRELAY_BENCH_BARE"
	barePrefix    = "walrelay-bench-bare."
)

// slotPatience is how long a slot may be in use after its reader was ended.
const slotPatience = 5 * time.Second

// made says which of the things that a user may have too were made by the
// bench. It is kept as the comment on the schema walrelay_bench, so that the
// bench after one that was killed knows as well.
type made struct {
	Schema bool `json:"schema"`
}

const madePrefix = "Made by walrelay bench, and removed by it: "

// claim makes sure that no other bench uses the servers, and removes what one
// that was killed has left.
func (b *bench) claim(ctx context.Context) error {
	var ours bool
	if err := b.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtextextended('walrelay.bench', 0))").Scan(&ours); err != nil {
		return fmt.Errorf("asking whether another bench is running: %w", err)
	}
	if !ours {
		return errors.New("another walrelay bench is running on this database; only one can")
	}
	for _, name := range []string{slot, bareSlot} {
		if err := b.awaitUnused(ctx, name); err != nil {
			return err
		}
	}
	_, err := b.js.AccountInfo(ctx)
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
		return &problem.Problem{
			ID:   "bench_leftovers",
			What: fmt.Sprintf("NATS at %s has no JetStream", b.nats.Address()),
			Fix:  "start nats-server with -js, or correct nats.url or nats.domain",
		}
	}
	if err != nil {
		return fmt.Errorf("asking NATS for JetStream: %w", err)
	}
	if _, err := b.remove(ctx); err != nil {
		return fmt.Errorf("removing what an earlier bench has left: %w", err)
	}
	return nil
}

// awaitUnused waits a while until nobody uses a slot with a name of the bench's,
// and says why it must be left alone; nil if there is none.
func (b *bench) awaitUnused(ctx context.Context, name string) error {
	deadline := time.Now().Add(slotPatience)
	for {
		var database, current, user string
		var pid *int
		err := b.conn.QueryRow(ctx, `
			SELECT coalesce(s.database, ''), current_database()::text, s.active_pid,
			       concat_ws(', ', nullif(a.usename::text, ''), nullif(a.application_name, ''), host(a.client_addr))
			FROM pg_catalog.pg_replication_slots AS s
			LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.active_pid
			WHERE s.slot_name = $1`, name).Scan(&database, &current, &pid, &user)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return nil
		case err != nil:
			return fmt.Errorf("looking for slot %q: %w", name, err)
		case database != current:
			return fmt.Errorf("slot %q belongs to database %q: a bench is running there, or was killed; run one there, which removes it, or drop it", name, database)
		case pid == nil:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("slot %q is in use by process %d of Postgres (%s); end that first", name, *pid, user)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// prepare makes everything that the relay needs, and the slot that is beside
// its own.
func (b *bench) prepare(ctx context.Context) error {
	m, err := b.willMake(ctx)
	if err != nil {
		return err
	}
	note, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("noting what is made: %w", err)
	}
	_, err = b.conn.Exec(ctx, "CREATE SCHEMA "+schema+"; COMMENT ON SCHEMA "+schema+" IS "+sql.Literal(madePrefix+string(note)), pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return fmt.Errorf("creating schema %s: %w", schema, err)
	}
	if _, err := walrelay.Setup(ctx, relayConfig(b.opts, b.postgres, b.nats)); err != nil {
		return err
	}
	// Vacuum would come at some time and take a share of what is measured.
	if _, err := b.conn.Exec(ctx, "ALTER TABLE "+table+" SET (autovacuum_enabled = false)"); err != nil {
		return fmt.Errorf("keeping vacuum from %s: %w", table, err)
	}
	if _, err := b.conn.Exec(ctx, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", bareSlot); err != nil {
		return fmt.Errorf("creating slot %q: %w", bareSlot, err)
	}
	return nil
}

// willMake says what Setup is about to make, and refuses to let it change a
// schema that is somebody's.
func (b *bench) willMake(ctx context.Context) (made, error) {
	var m made
	var version *int
	err := b.conn.QueryRow(ctx, "SELECT to_regnamespace('walrelay') IS NULL").Scan(&m.Schema)
	if err == nil && !m.Schema {
		err = b.conn.QueryRow(ctx, "SELECT max(version) FROM walrelay.migrations").Scan(&version)
	}
	if err != nil {
		return m, fmt.Errorf("looking for the schema walrelay: %w", err)
	}
	migrations, err := sql.Migrations()
	if err != nil {
		return m, err
	}
	if !m.Schema && (version == nil || *version < len(migrations)) {
		return m, errors.New(`the schema walrelay is of an older version, and bench does not change it; run "walrelay init" first`)
	}
	return m, nil
}

// remove takes away everything with the bench's names. It tries all of it, and
// returns what it had to leave although the bench made it, with the reasons.
func (b *bench) remove(ctx context.Context) (left []string, err error) {
	var errs []error
	for _, name := range []string{stream, bareStream} {
		if err := b.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			errs = append(errs, fmt.Errorf("deleting stream %q: %w", name, err))
		}
	}
	for _, name := range []string{slot, bareSlot} {
		err := b.awaitUnused(ctx, name)
		if err == nil {
			_, err = b.conn.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1", name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("dropping slot %q: %w", name, err))
		}
	}
	m, err := b.wasMade(ctx)
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	if _, err := b.conn.Exec(ctx, "DROP PUBLICATION IF EXISTS "+publication); err != nil {
		errs = append(errs, fmt.Errorf("dropping publication %q: %w", publication, err))
	}
	left, err = b.removeSchemas(ctx, m)
	errs = append(errs, err)
	return left, errors.Join(errs...)
}

// wasMade reads what the bench noted, or one before it; nil if there was none.
func (b *bench) wasMade(ctx context.Context) (*made, error) {
	var comment string
	err := b.conn.QueryRow(ctx, `
		SELECT coalesce(obj_description(oid, 'pg_namespace'), '')
		FROM pg_catalog.pg_namespace
		WHERE nspname = $1`, schema).Scan(&comment)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // nothing was made
	}
	if err != nil {
		return nil, fmt.Errorf("looking for schema %s: %w", schema, err)
	}
	note, ok := strings.CutPrefix(comment, madePrefix)
	if !ok {
		return nil, fmt.Errorf("schema %s is not of walrelay bench, and is left alone; rename it to run one", schema)
	}
	var m made
	if err := json.Unmarshal([]byte(note), &m); err != nil {
		return nil, fmt.Errorf("reading the comment on schema %s: %w", schema, err)
	}
	return &m, nil
}

// removeSchemas removes the table and what the relay has written down, and the
// schema walrelay, if that was made for the bench and nobody has begun to use it.
func (b *bench) removeSchemas(ctx context.Context, m *made) (left []string, err error) {
	if m == nil {
		return nil, nil
	}
	err = pgx.BeginFunc(ctx, b.conn, func(tx pgx.Tx) error {
		// The same lock as init takes.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended('walrelay.init', 0))"); err != nil {
			return fmt.Errorf("waiting for init: %w", err)
		}
		var present bool
		if err := tx.QueryRow(ctx, "SELECT to_regclass('walrelay.delayed') IS NOT NULL").Scan(&present); err != nil {
			return fmt.Errorf("looking for the schema walrelay: %w", err)
		}
		if present {
			for _, name := range []string{"delayed", "keys", "progress"} {
				if _, err := tx.Exec(ctx, "DELETE FROM walrelay."+name+" WHERE slot = $1", slot); err != nil {
					return fmt.Errorf("removing the rows of the bench from walrelay.%s: %w", name, err)
				}
			}
		}
		if present && m.Schema {
			var used bool
			if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM walrelay.progress) OR EXISTS (SELECT FROM walrelay.delayed)").Scan(&used); err != nil {
				return fmt.Errorf("looking into the schema walrelay: %w", err)
			}
			if used {
				left = append(left, "schema walrelay: a relay uses it by now")
			} else if _, err := tx.Exec(ctx, "DROP SCHEMA walrelay CASCADE"); err != nil {
				return fmt.Errorf("dropping schema walrelay: %w", err)
			}
		}
		if _, err := tx.Exec(ctx, "DROP SCHEMA "+schema+" CASCADE"); err != nil {
			return fmt.Errorf("dropping schema %s: %w", schema, err)
		}
		return nil
	})
	if err != nil {
		return left, err
	}
	return left, nil
}

// sleep waits, for no longer than the context lasts.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
