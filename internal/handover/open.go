package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/checkpoint"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/provision"
	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/router"
	"github.com/walrelay/walrelay/sql"
)

// OpenOptions say where the closed slot is.
type OpenOptions struct {
	// From is used for how to reach the database that was closed, and for the slot; nil says
	// that this database is a copy of that one, made after Close, or that one itself.
	From *config.Config

	step func(name string) error // of a test
}

// Open has the slot of the configuration go on where a closed one has ended. It makes what
// [provision.Setup] makes, and at last has the outbox tables take events. No relay may run.
// Of a Close that was broken off it only does the last, so that the slot goes on as before.
// The error joins *[config.Error] and *[problem.Problem] values.
func Open(ctx context.Context, cfg config.Config, options OpenOptions) (Report, error) {
	cfg = cfg.WithDefaults()
	o := &opening{cfg: cfg, source: cfg, copied: options.From == nil, step: options.step}
	if !o.copied {
		o.source = options.From.WithDefaults()
	}
	sources, err := check.Connect(ctx, cfg)
	if err != nil {
		return Report{}, err
	}
	defer sources.Close()
	o.conn, o.js = sources.Postgres, sources.NATS
	if o.old, err = connect.Durable(ctx, o.source.Postgres); err != nil {
		return Report{}, err
	}
	defer connect.ClosePostgres(o.old)
	done, err := o.read(ctx)
	if found, ok := problem.Find(err); ok && found.ID == "handover_open" && o.copied {
		if half, halfErr := o.halfClosed(ctx); halfErr != nil || half {
			return Report{From: o.writer(), To: o.writer()}, errors.Join(halfErr, o.admitEvents(ctx))
		}
		if kept, keptErr := o.closeKept(ctx); keptErr != nil {
			return Report{}, keptErr
		} else if kept {
			done, err = o.read(ctx)
		}
	}
	if err == nil && !done {
		err = o.refuse(ctx)
	}
	if err != nil {
		return Report{}, err
	}
	var refuse []string
	if !done {
		tables, err := outboxTables(cfg)
		if err != nil {
			return Report{}, err
		}
		for _, t := range tables {
			refuse = append(refuse, t.refuse)
		}
	}
	// The slot comes before what is emitted below, which it is to read; and before the first
	// event of an application, which the outbox tables refuse until then.
	if _, err := provision.Reopen(ctx, cfg, refuse); err != nil {
		return Report{}, err
	}
	if err := step(o.step, "set up"); err != nil {
		return Report{}, err
	}
	if !done {
		if err := o.takeOver(ctx); err != nil {
			return Report{}, err
		}
	}
	if err := step(o.step, "taken over"); err != nil {
		return Report{}, err
	}
	if err := o.admitEvents(ctx); err != nil {
		return Report{}, err
	}
	found, err := report(ctx, o.conn, &checkpoint.Handover{SystemID: o.handover.SystemID, Slot: cfg.Slot, Streams: o.handover.Streams, To: o.writer()})
	found.From = checkpoint.Writer(o.handover.SystemID, o.handover.Slot)
	return found, err
}

type opening struct {
	cfg    config.Config
	source config.Config // of the closed slot
	copied bool
	conn   *pgx.Conn
	old    *pgx.Conn // to the database of the closed slot
	js     *connect.JetStream
	step   func(name string) error

	systemID string
	timeline int32
	handover *checkpoint.Handover
	key      []byte
}

// writer is who goes on.
func (o *opening) writer() string { return checkpoint.Writer(o.systemID, o.cfg.Slot) }

// refuse finds out whether the streams can be taken over.
func (o *opening) refuse(ctx context.Context) error {
	if err := verify(ctx, o.js, o.cfg, o.handover, o.key); err != nil {
		return err
	}
	return check.RefuseRelay(ctx, o.conn, o.cfg)
}

// takeOver writes down what the slot has to know.
func (o *opening) takeOver(ctx context.Context) error {
	if !o.copied {
		// From here on no other database can open it.
		var claimed *checkpoint.Handover
		err := o.old.QueryRow(ctx, sql.HandoverClaim, o.source.Slot, o.writer()).Scan(&claimed)
		if errors.Is(err, pgx.ErrNoRows) {
			return o.taken("another one")
		}
		if err != nil {
			return fmt.Errorf("writing walrelay.progress of the closed slot: %w", err)
		}
	}
	if err := step(o.step, "claimed"); err != nil {
		return err
	}
	err := pgx.BeginFunc(ctx, o.conn, func(tx pgx.Tx) error { return o.write(ctx, tx) })
	if err != nil {
		return fmt.Errorf("taking over what writer %s has handed over: %w", checkpoint.Writer(o.handover.SystemID, o.handover.Slot), err)
	}
	return nil
}

func (o *opening) taken(to string) error {
	return &problem.Problem{
		ID: "handover_taken", What: fmt.Sprintf("writer %s has gone on where slot %q has ended", to, o.source.Slot), Fix: "run the relay there",
	}
}

// read reads what was handed over; done says that this slot has taken it over before.
func (o *opening) read(ctx context.Context) (done bool, err error) {
	if err := o.conn.QueryRow(ctx, sql.HandoverSystem).Scan(&o.systemID, &o.timeline); err != nil {
		return false, fmt.Errorf("asking which cluster this is: %w", err)
	}
	var before *checkpoint.Handover
	err = o.conn.QueryRow(ctx, sql.HandoverTaken, o.cfg.Slot, o.systemID).Scan(&before)
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == sqlstate.InsufficientPrivilege {
		return false, &problem.Problem{
			ID: "handover_rights", What: fmt.Sprintf("role %q may not take over", o.conn.Config().User), Fix: "run this as the role that ran init", Err: err,
		}
	}
	if err != nil && !absent(err) {
		return false, fmt.Errorf("reading walrelay.progress: %w", err)
	}
	err = o.old.QueryRow(ctx, sql.HandoverSource, o.source.Slot).Scan(&o.handover, &o.key)
	if absent(err) && o.copied && before != nil {
		o.handover = before
		return true, nil
	}
	if absent(err) {
		return false, &problem.Problem{
			ID: "handover_open", What: fmt.Sprintf("slot %q is not closed there", o.source.Slot),
			Fix: "run \"walrelay handover close\" with the configuration of the old relay first; a copy of its database has to be made after that",
		}
	}
	if err != nil {
		return false, fmt.Errorf("reading walrelay.progress of the closed slot: %w", err)
	}
	if to := o.handover.To; to != "" && (o.copied || to != o.writer()) {
		return false, o.taken(to)
	}
	return before != nil && !o.copied && before.At.Equal(o.handover.At) && o.handover.To == o.writer(), nil
}

// halfClosed reports whether Close has begun here and has not come to its end: the outbox
// tables refuse events, and the slot is as it was.
func (o *opening) halfClosed(ctx context.Context) (half bool, err error) {
	err = o.conn.QueryRow(ctx, sql.HandoverHalf, o.cfg.Slot, o.systemID, trigger).Scan(&half)
	if absent(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for a close that was broken off: %w", err)
	}
	return half, nil
}

// closeKept closes the slot of another cluster whose database this one has, and that is here as
// it was: pg_upgrade keeps it, from Postgres 17 on, if it had read everything. What it has still
// to read was written here. It reports whether there is one.
func (o *opening) closeKept(ctx context.Context) (kept bool, err error) {
	state, err := checkpoint.Load(ctx, o.conn, o.cfg.Slot)
	switch {
	case absent(err):
		return false, nil
	case err != nil:
		return false, err
	case state == nil || state.SystemID == o.systemID || state.HandedOver != nil:
		return false, nil
	}
	slot, err := check.FindSlot(ctx, o.conn, o.cfg)
	if err != nil || slot == nil {
		return false, err
	}
	confirmed, err := pglogrepl.ParseLSN(slot.ConfirmedFlush)
	if err != nil {
		return false, fmt.Errorf("reading what slot %q has confirmed: %w", o.cfg.Slot, err)
	}
	if confirmed < state.FlushLSN {
		return false, nil
	}
	if err := slot.RefuseRelay(o.cfg.Slot); err != nil {
		return false, err
	}
	h := &checkpoint.Handover{At: time.Now().UTC(), SystemID: state.SystemID, Slot: o.cfg.Slot, Streams: state.Streams}
	if err := verify(ctx, o.js, o.cfg, h, state.Key); err != nil {
		return false, err
	}
	err = pgx.BeginFunc(ctx, o.conn, func(tx pgx.Tx) error {
		var systemID, passed string
		if err := tx.QueryRow(ctx, sql.HandoverLock, o.cfg.Slot).Scan(&systemID, &passed); err != nil {
			return fmt.Errorf("locking walrelay.progress: %w", err)
		}
		if systemID != state.SystemID || passed != state.FlushLSN.String() {
			return errors.New("walrelay.progress has changed meanwhile: run this again")
		}
		// What was emitted before is settled, and what was emitted here the slot reads.
		if _, err := tx.Exec(ctx, sql.HandoverForget, o.cfg.Slot, []string{}, []string{}, []string{}, []int32{}); err != nil {
			return fmt.Errorf("deleting settled events of walrelay.emitted: %w", err)
		}
		if _, err := tx.Exec(ctx, sql.HandoverClose, o.cfg.Slot, h); err != nil {
			return fmt.Errorf("writing walrelay.progress: %w", err)
		}
		return nil
	})
	return err == nil, err
}

// absent reports whether there is no row, or not even the table or the column: the database
// has nothing of walrelay's, or of an earlier version.
func absent(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return errors.Is(err, pgx.ErrNoRows) || ok && sqlstate.OfMissing(pgErr.Code)
}

// write takes over, in one transaction: the delay table, what was emitted, the journal and
// the key; and where the streams are.
func (o *opening) write(ctx context.Context, tx pgx.Tx) error {
	for _, table := range []string{"delayed", "keys", "emitted", "journal"} {
		if err := o.copy(ctx, tx, table); err != nil {
			return fmt.Errorf("table walrelay.%s: %w", table, err)
		}
	}
	if o.key != nil {
		// Handlers that know the key go on.
		if _, err := tx.Exec(ctx, sql.HandoverKey, o.cfg.Slot, o.key); err != nil {
			return fmt.Errorf("table walrelay.secrets: %w", err)
		}
	}
	streams := make(map[string]router.StreamState)
	for name, s := range o.handover.Streams {
		// The sequence is the stream's, whoever wrote; positions of another cluster mean nothing.
		s.Position = event.Position{}.String()
		streams[name] = s
	}
	if _, err := tx.Exec(ctx, sql.HandoverBegin, o.cfg.Slot, o.systemID, o.timeline, streams, o.handover); err != nil {
		return fmt.Errorf("table walrelay.progress: %w", err)
	}
	return nil
}

// copy replaces what the table has of the slot by what the closed one has.
func (o *opening) copy(ctx context.Context, tx pgx.Tx, table string) error {
	columns, err := columnsOf(ctx, o.conn, table)
	if err != nil {
		return err
	}
	theirs, err := columnsOf(ctx, o.old, table)
	if err != nil {
		return err
	}
	if !slices.Equal(columns, theirs) {
		return &problem.Problem{
			ID: "handover_version", What: "the two databases have other versions of the schema walrelay", Fix: "run \"walrelay init\" of one version at both",
		}
	}
	var names, values []string
	for _, name := range columns {
		names, values = append(names, sql.Ident(name)), append(values, o.value(table, name))
	}
	if _, err := tx.Exec(ctx, "DELETE FROM walrelay."+table+" WHERE slot = $1", o.cfg.Slot); err != nil {
		return err
	}
	read := o.query(table, strings.Join(values, ", "))
	write := fmt.Sprintf("COPY walrelay.%s (%s) FROM STDIN", table, strings.Join(names, ", "))
	reader, writer := io.Pipe()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		_, err := o.old.PgConn().CopyTo(ctx, writer, read)
		_ = writer.CloseWithError(err)
		return err
	})
	group.Go(func() error {
		_, err := tx.Conn().PgConn().CopyFrom(ctx, reader, write)
		_ = reader.CloseWithError(err)
		return err
	})
	return group.Wait()
}

// query reads the rows of the closed slot. Positions of another cluster come before all of
// this one, in their order: origins stand at LSN 1, and where events were delayed at LSN 2.
func (o *opening) query(table, values string) string {
	slot := sql.Literal(o.source.Slot)
	more, order := "", ""
	switch table {
	case "delayed":
		order = " ORDER BY o.position"
	case "emitted":
		more = " AND o.kind <> 'marker'"
	case "journal":
		order = " ORDER BY o.id"
	}
	if table == "delayed" || table == "emitted" {
		// The order of an event that was emitted among those that are still delayed.
		return fmt.Sprintf(`COPY (
			WITH origins AS (
				SELECT d.origin FROM walrelay.delayed AS d WHERE d.slot = %[1]s
				UNION SELECT e.origin FROM walrelay.emitted AS e WHERE e.slot = %[1]s AND e.origin IS NOT NULL
			), ranks AS (
				SELECT s.origin, row_number() OVER (ORDER BY s.origin) AS rank FROM origins AS s
			)
			SELECT %[2]s FROM walrelay.%[3]s AS o LEFT JOIN ranks AS r ON r.origin = o.origin WHERE o.slot = %[1]s%[4]s%[5]s
		) TO STDOUT`, slot, values, table, more, order)
	}
	return fmt.Sprintf("COPY (SELECT %s FROM walrelay.%s AS o WHERE o.slot = %s%s%s) TO STDOUT", values, table, slot, more, order)
}

// value is what a column of a row becomes, as SQL.
func (o *opening) value(table, column string) string {
	switch table + "." + column {
	case table + ".slot":
		return sql.Literal(o.cfg.Slot)
	case "delayed.position":
		return "'0000000000000002.' || lpad(upper(to_hex(row_number() OVER (ORDER BY o.position))), 8, '0')"
	case "delayed.origin", "emitted.origin":
		return "'0000000000000001.' || lpad(upper(to_hex(r.rank)), 8, '0')"
	case "journal.stream":
		// No repair brings back what another writer wrote: names of streams have no space.
		return "CASE WHEN o.stream = '' OR o.stream LIKE 'handed over %' THEN o.stream ELSE 'handed over ' || o.stream END"
	}
	return "o." + sql.Ident(column)
}

func columnsOf(ctx context.Context, conn *pgx.Conn, table string) ([]string, error) {
	rows, err := conn.Query(ctx, sql.HandoverColumns, table)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// admitEvents has the outbox tables take events again.
func (o *opening) admitEvents(ctx context.Context) error {
	tables, err := outboxTables(o.cfg)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if _, err := o.conn.Exec(ctx, t.admit); err != nil {
			return fmt.Errorf("having outbox table %s take events: %w", t.name, err)
		}
	}
	return nil
}
