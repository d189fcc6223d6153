// Package handover moves the writing of streams from one slot to another, mostly of another
// database cluster, without a purge: Close ends the one, Open begins the other.
//
// Input: the configuration of each. Output: a closed slot, whose outbox tables refuse
// events; and a slot that goes on in the streams after the last message of the closed one,
// with its delayed events and its journal. Promises: no event is lost, none is published by
// both, and the order stays; a stream that has more than the closed slot knows of is not
// taken over; one closed slot is opened by one other; each may be interrupted and called
// again. The package must not import what runs a relay.
package handover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/checkpoint"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/settled"
	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/router"
	"github.com/walrelay/walrelay/sql"
)

const (
	// poll is the time between two looks at the slot.
	poll = 200 * time.Millisecond
	// lockPatience is how long writers may keep an outbox table from being closed.
	lockPatience = 10 * time.Second
	// dropPatience is how long a relay that has been told that the slot is closed may
	// keep it.
	dropPatience = time.Minute
	// maxOthers bounds how many messages of others are passed over at the end of a stream.
	maxOthers = 1000
)

// Report says where the writing of the streams stands.
type Report struct {
	// From and To are writers: a system identifier and a slot.
	From string `json:"from"`
	To   string `json:"to,omitempty"`
	// Streams are the sequences of the last messages.
	Streams map[string]uint64 `json:"streams"`
	// Delayed events are in the delay table, Emitted ones were on their way out of it.
	Delayed int64 `json:"delayed"`
	Emitted int64 `json:"emitted"`
}

// CloseOptions are told how Close comes along; each may be nil.
type CloseOptions struct {
	// Settling: the relay has still to settle what is in the WAL; running says that one
	// runs.
	Settling func(running bool)
	// Stopping: everything is settled, and the relay is to be stopped now.
	Stopping func()

	step func(name string) error // of a test
}

// step calls the hook of a test.
func step(hook func(name string) error, name string) error {
	if hook == nil {
		return nil
	}
	return hook(name)
}

// Close ends the writing of a slot. From then on its outbox tables refuse events. It blocks
// until a relay has settled everything, and then until that is stopped, in order. At last it
// drops the slot. The error joins *[config.Error] and *[problem.Problem] values.
func Close(ctx context.Context, cfg config.Config, options CloseOptions) (Report, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return Report{}, err
	}
	c := &closing{cfg: cfg, options: options}
	sources, err := check.Connect(ctx, cfg)
	if err != nil {
		return Report{}, err
	}
	defer sources.Close()
	c.conn, c.js = sources.Postgres, sources.NATS
	version, err := sql.SchemaVersion()
	if err != nil {
		return Report{}, err
	}
	// The slot may be gone: this may be the second call.
	facts, err := check.Read(ctx, sources, cfg, check.ScopePostgres)
	if err := errors.Join(check.Judge(&facts, cfg, version).Err(), err); err != nil {
		return Report{}, err
	}
	state, err := checkpoint.Load(ctx, c.conn, cfg.Slot)
	switch {
	case err != nil:
		return Report{}, err
	case state == nil:
		return Report{}, &problem.Problem{
			ID: "handover_nothing", What: fmt.Sprintf("no relay has ever read slot %q in this database", cfg.Slot), Fix: "correct slot or postgres.url; there is nothing to hand over",
		}
	}
	if state.HandedOver == nil {
		if err := c.close(ctx); err != nil {
			return Report{}, err
		}
		if state, err = checkpoint.Load(ctx, c.conn, cfg.Slot); err != nil {
			return Report{}, err
		}
	}
	if err := step(options.step, "closed"); err != nil {
		return Report{}, err
	}
	if err := c.drop(ctx); err != nil {
		return Report{}, err
	}
	return report(ctx, c.conn, state.HandedOver)
}

// report counts what goes along.
func report(ctx context.Context, conn *pgx.Conn, h *checkpoint.Handover) (Report, error) {
	r := Report{From: checkpoint.Writer(h.SystemID, h.Slot), To: h.To, Streams: make(map[string]uint64)}
	for name, s := range h.Streams {
		r.Streams[name] = s.LastSequence
	}
	err := conn.QueryRow(ctx, sql.HandoverCount, h.Slot).Scan(&r.Delayed, &r.Emitted)
	if err != nil {
		return r, fmt.Errorf("counting delayed events: %w", err)
	}
	return r, nil
}

type closing struct {
	cfg     config.Config
	options CloseOptions
	conn    *pgx.Conn
	js      *connect.JetStream
}

func (c *closing) close(ctx context.Context) error {
	if err := c.refuseEvents(ctx); err != nil {
		return err
	}
	if err := step(c.options.step, "refusing"); err != nil {
		return err
	}
	// Nothing that comes later is an event of an outbox table.
	if err := settled.Await(ctx, c.conn, c.cfg, c.options.Settling); err != nil {
		return err
	}
	if err := step(c.options.step, "settled"); err != nil {
		return err
	}
	for said := false; ; said = true {
		done, err := c.note(ctx)
		if err != nil || done {
			return err
		}
		if !said && c.options.Stopping != nil {
			c.options.Stopping()
		}
		if err := wait.For(ctx, poll); err != nil {
			return fmt.Errorf("waiting until the relay is stopped: %w", err)
		}
	}
}

// refuseEvents has the outbox tables refuse events. The trigger's lock waits for the
// transactions that have written some.
func (c *closing) refuseEvents(ctx context.Context) error {
	tables, err := outboxTables(c.cfg)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, c.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", lockPatience.Milliseconds())); err != nil {
			return err
		}
		for _, t := range tables {
			if _, err := tx.Exec(ctx, t.refuse); err != nil {
				return fmt.Errorf("closing outbox table %s: %w", t.name, err)
			}
		}
		return nil
	})
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case ok && pgErr.Code == sqlstate.InsufficientPrivilege:
		return &problem.Problem{
			ID: "handover_rights", What: fmt.Sprintf("role %q may not close the outbox tables", c.conn.Config().User), Fix: "run this as the role that ran init, which owns them", Err: err,
		}
	case ok && pgErr.Code == sqlstate.LockNotAvailable:
		return fmt.Errorf("transactions have kept the outbox tables locked for %v; nothing was changed, run this again: %w", lockPatience, err)
	case err != nil:
		return fmt.Errorf("having the outbox tables refuse events: %w", err)
	}
	return nil
}

type outboxTable struct {
	name          string
	refuse, admit string // SQL
}

// trigger is the name of what refuses events.
const trigger = "walrelay_closed"

func outboxTables(cfg config.Config) ([]outboxTable, error) {
	var tables []outboxTable
	for _, name := range cfg.Outbox.Tables {
		table, err := config.ParseTable(name)
		if err != nil {
			return nil, err
		}
		tables = append(tables, outboxTable{
			name: name,
			refuse: "CREATE OR REPLACE TRIGGER " + trigger + " BEFORE INSERT ON " + table.Ident() +
				" FOR EACH STATEMENT EXECUTE FUNCTION walrelay.refuse_event()",
			admit: "DROP TRIGGER IF EXISTS " + trigger + " ON " + table.Ident(),
		})
	}
	return tables, nil
}

// note writes down that the slot is closed, once no relay has it any more.
func (c *closing) note(ctx context.Context) (done bool, err error) {
	err = pgx.BeginFunc(ctx, c.conn, func(tx pgx.Tx) error {
		// A relay that starts meanwhile waits here, and finds the slot closed.
		var systemID string
		var passed string
		if err := tx.QueryRow(ctx, sql.HandoverLock, c.cfg.Slot).Scan(&systemID, &passed); err != nil {
			return fmt.Errorf("locking walrelay.progress: %w", err)
		}
		slot, err := check.FindSlot(ctx, c.conn, c.cfg)
		if err != nil {
			return err
		}
		if slot == nil {
			return &problem.Problem{
				ID: "slot_missing", What: fmt.Sprintf("replication slot %q does not exist", c.cfg.Slot), Why: "what it had not read is lost",
				Fix: "see docs/operations.md, \"A slot was lost\"",
			}
		}
		if slot.ActivePID != nil {
			return nil
		}
		state, err := checkpoint.Load(ctx, c.conn, c.cfg.Slot)
		if err != nil {
			return err
		}
		h := &checkpoint.Handover{At: time.Now().UTC(), SystemID: systemID, Slot: c.cfg.Slot, Streams: state.Streams}
		if err := verify(ctx, c.js, c.cfg, h, state.Key); err != nil {
			return err
		}
		if err := c.forgetSettled(ctx, tx, passed); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, sql.HandoverClose, c.cfg.Slot, h); err != nil {
			return fmt.Errorf("writing walrelay.progress: %w", err)
		}
		done = true
		return nil
	})
	return done && err == nil, err
}

// forgetSettled deletes the emitted events that are settled. What stands in the WAL behind
// what is saved is not: events that the timer emitted while the relay stopped.
func (c *closing) forgetSettled(ctx context.Context, tx pgx.Tx, passed string) error {
	unread, err := c.unread(ctx, tx, passed)
	if err != nil {
		return err
	}
	var ids, schemas, tables []string
	var times []int32
	wanted := int64(0)
	for row, n := range unread {
		wanted += int64(n)
		ids, schemas, tables, times = append(ids, row.id), append(schemas, row.schema), append(tables, row.table), append(times, n)
	}
	if _, err := tx.Exec(ctx, sql.HandoverForget, c.cfg.Slot, ids, schemas, tables, times); err != nil {
		return fmt.Errorf("deleting settled events of walrelay.emitted: %w", err)
	}
	var delayed, left int64
	if err := tx.QueryRow(ctx, sql.HandoverCount, c.cfg.Slot).Scan(&delayed, &left); err != nil {
		return fmt.Errorf("counting events of walrelay.emitted: %w", err)
	}
	if left != wanted { // the ids in the WAL and in the table are not the same
		return unsettled(c.cfg.Slot, wanted)
	}
	return nil
}

func unsettled(slot string, events int64) error {
	return &problem.Problem{
		ID: "handover_unsettled", What: fmt.Sprintf("slot %q has still to read %d events", slot, events), Fix: "start the relay, stop it, and run this again",
	}
}

// emittedRow is an event of walrelay.emitted.
type emittedRow struct{ id, schema, table string }

// unread counts the emitted events that the slot has still to read. Events of outbox tables
// are refused since all before was settled: one would be lost.
func (c *closing) unread(ctx context.Context, tx pgx.Tx, passed string) (map[emittedRow]int32, error) {
	flushed, err := pglogrepl.ParseLSN(passed)
	if err != nil {
		return nil, fmt.Errorf("reading walrelay.progress: %w", err)
	}
	plan, err := c.cfg.Compile()
	if err != nil {
		return nil, err
	}
	decoder, err := decode.New(plan.Decode)
	if err != nil {
		return nil, err
	}
	var rows pgx.Rows
	if c.cfg.Postgres.Standby == "" {
		rows, err = tx.Query(ctx, sql.HandoverPeek, c.cfg.Slot, c.cfg.Publication)
	} else {
		var standby *pgx.Conn
		if standby, err = connect.Slot(ctx, c.cfg.Postgres); err != nil {
			return nil, err
		}
		defer connect.ClosePostgres(standby)
		if err := check.AwaitReplay(ctx, c.conn, standby); err != nil {
			return nil, err
		}
		rows, err = standby.Query(ctx, sql.HandoverPeek, c.cfg.Slot, c.cfg.Publication)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what slot %q has still to read: %w", c.cfg.Slot, err)
	}
	found := make(map[emittedRow]int32)
	others := int64(0)
	var data []byte
	var commit uint64
	_, err = pgx.ForEachRow(rows, []any{&data}, func() error {
		change, err := decoder.Decode(data)
		if _, ok := errors.AsType[*decode.RowError](err); err != nil && !ok {
			return err
		}
		switch {
		case change.Kind == decode.Begin:
			commit = change.CommitLSN
		case change.Kind != decode.Insert && change.Kind != decode.Reference, commit < uint64(flushed):
		case change.Event.Delay != nil || change.Event.Schema == sql.OwnSchema:
			found[emittedRow{change.Event.ID, change.Event.Schema, change.Event.Table}]++
		default:
			others++
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading what slot %q has still to read: %w", c.cfg.Slot, err)
	}
	if others > 0 {
		return nil, unsettled(c.cfg.Slot, others)
	}
	return found, nil
}

// verify refuses to hand over a stream that has something after what the writer has saved,
// or other messages.
func verify(ctx context.Context, js *connect.JetStream, cfg config.Config, h *checkpoint.Handover, key []byte) error {
	writer := checkpoint.Writer(h.SystemID, h.Slot)
	for _, s := range cfg.Streams {
		saved, known := h.Streams[s.Name]
		if s.Shared || !known {
			continue // it has no writer of its own, or nothing was published there
		}
		if err := verifyStream(ctx, js, s.Name, writer, saved, key); err != nil {
			return err
		}
	}
	return nil
}

func verifyStream(ctx context.Context, js *connect.JetStream, name, writer string, saved router.StreamState, key []byte) error {
	info, err := js.Stream(ctx, name)
	if err != nil {
		return err
	}
	if info == nil || !info.Created.Equal(saved.Created) || info.State.LastSeq < saved.LastSequence {
		return &problem.Problem{
			ID: "handover_stream", What: fmt.Sprintf("stream %q has lost messages, or is another one than writer %s has written to", name, writer),
			Fix: "run \"walrelay repair\" there first",
		}
	}
	for seq := info.State.LastSeq; seq >= max(saved.LastSequence, 1); seq-- {
		header, found, err := js.Header(ctx, name, seq)
		if err != nil {
			return err
		}
		position := header.Get(event.PositionHeader)
		switch {
		case !found || position == "":
			// Consumed, or of somebody else.
		case seq > saved.LastSequence:
			return &problem.Problem{
				ID: "handover_stream", What: fmt.Sprintf("stream %q has message %d, which was written after %d, the last one that writer %s has saved", name, seq, saved.LastSequence, writer),
				Why: "its relay has not ended in order, or another one has written there since",
				Fix: "start the relay of the writer that wrote it, stop it, and run this again",
			}
		case !written(position, saved.Position, writer) || key != nil && !event.NewSigner(name, key).Signs(seq, position, header.Get(event.DigestHeader)):
			return &problem.Problem{
				ID: "handover_stream", What: fmt.Sprintf("message %d of stream %q is not the one that writer %s has saved", seq, name, writer),
				Why: "the stream is another one, or was changed", Fix: "find out who writes into the stream",
			}
		}
		if info.State.LastSeq-seq >= maxOthers {
			break
		}
	}
	return nil
}

// written reports whether a position header is of the writer and the position.
func written(header, position, writer string) bool {
	fields := strings.Split(strings.TrimSuffix(header, event.LateSuffix), " ")
	// A message that came late has an earlier position than what is saved.
	return len(fields) == 3 && fields[2] == writer && (fields[0] == position || strings.HasSuffix(header, event.LateSuffix))
}

// drop drops the slot, which nobody needs any more: it would keep WAL for ever.
func (c *closing) drop(ctx context.Context) error {
	return check.AtSlot(ctx, c.conn, c.cfg.Postgres, func(at *pgx.Conn) error {
		for deadline := time.Now().Add(dropPatience); ; {
			slot, err := check.ReadSlot(ctx, at, c.cfg.Slot)
			if err != nil || slot == nil {
				return err
			}
			if slot.ActivePID == nil {
				if _, err = at.Exec(ctx, "SELECT pg_catalog.pg_drop_replication_slot($1)", c.cfg.Slot); err == nil {
					return nil
				}
			} else {
				err = errors.New("a relay has it")
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("dropping slot %q, which is closed: %w", c.cfg.Slot, err)
			}
			if err := wait.For(ctx, poll); err != nil {
				return fmt.Errorf("dropping slot %q: %w", c.cfg.Slot, err)
			}
		}
	})
}
