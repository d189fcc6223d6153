package walrelay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/sql"
)

const (
	// cleanInterval is the time between two clean-ups when there is little to
	// do, and cleanBatch how many rows one statement takes.
	cleanInterval = 5 * time.Second
	cleanBatch    = 5000
	// cleanPause is the shortest time between two statements, for others to have
	// the disk. Looking at rows that stay is followed by a pause that is as many
	// times longer as cleanShare says.
	cleanPause = 10 * time.Millisecond
	cleanShare = 20
	// journalBatch is how many pages of the journal one statement takes.
	journalBatch = 100
)

// cleaner deletes or marks the rows of the outbox tables whose events have an
// outcome, as the configuration says. It works off the hot path, on a
// connection of its own: by the snapshot of the transactions that are wholly
// published, not by a list, so a crash forgets nothing; in small transactions,
// past rows that are locked.
type cleaner struct {
	session *session
	conn    *pgx.Conn
	tasks   []cleanTask
	said    time.Time // when it last said that it cannot
}

// cleanTask is one statement for one table, which it goes through again and
// again in the order of transactions, some rows at a time.
type cleanTask struct {
	statement string
	// window is how old rows must be, and for how long published, in seconds; -1
	// for a statement that does not ask.
	window float64

	// xact and stay say how far it has come: up to that transaction, of which so
	// many rows were looked at and stay. 0 at the beginning.
	xact uint64
	stay int
	// rest is until when it pauses.
	rest time.Time
}

// run cleans until the context ends. It never fails: what cannot be cleaned now
// is cleaned later.
func (c *cleaner) run(ctx context.Context) {
	defer func() {
		if c.conn != nil {
			connect.ClosePostgres(c.conn)
		}
	}()
	timer := time.NewTimer(cleanInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		wait, err := c.clean(ctx)
		if err != nil && ctx.Err() == nil && time.Since(c.said) > time.Minute {
			c.said = time.Now()
			c.session.relay.log.Warn().Err(err).Msg("published rows are not cleaned away; trying again")
		}
		timer.Reset(wait)
	}
}

// clean runs each task once, and returns when to do so again.
func (c *cleaner) clean(ctx context.Context) (wait time.Duration, err error) {
	s := c.session
	published := s.checkpoint.State().Published
	if c.conn == nil || c.conn.IsClosed() {
		if c.conn, err = connect.Postgres(ctx, s.relay.cfg.Postgres); err != nil {
			return cleanInterval, err
		}
	}
	settled, more, err := c.cleanJournal(ctx)
	if err != nil {
		return cleanInterval, err
	}
	wait = cleanInterval
	if more {
		wait = cleanPause
	}
	if published == "" {
		return wait, nil
	}
	through := true
	for i := range c.tasks {
		task := &c.tasks[i]
		snapshot := settled
		if task.window < 0 {
			snapshot = published
		}
		if snapshot == "" {
			continue
		}
		if time.Now().After(task.rest) {
			done, err := task.step(ctx, c.conn, snapshot)
			if err != nil {
				return cleanInterval, fmt.Errorf("cleaning up an outbox table: %w", err)
			}
			s.relay.metrics.cleaned.Add(float64(done))
		}
		if task.xact > 0 {
			through = false
			wait = min(wait, max(cleanPause, time.Until(task.rest)))
		}
	}
	if through {
		s.relay.metrics.cleanUps.Inc()
	}
	return wait, nil
}

// step looks at the next rows of the transactions that the snapshot sees, and
// returns how many it deleted or marked. After the last ones it begins anew.
func (t *cleanTask) step(ctx context.Context, conn *pgx.Conn, snapshot string) (done int, err error) {
	args := []any{snapshot, cleanBatch, t.xact, t.stay}
	if t.window >= 0 {
		args = append(args, t.window)
	}
	started := time.Now()
	var looked, stay int
	var last uint64
	if err := conn.QueryRow(ctx, t.statement, args...).Scan(&looked, &done, &last, &stay); err != nil {
		return 0, err
	}
	if looked > done {
		idle := float64(looked-done) / float64(looked)
		t.rest = time.Now().Add(time.Duration(cleanShare * idle * float64(time.Since(started))))
	}
	if looked < cleanBatch {
		t.xact, t.stay = 0, 0
		return done, nil
	}
	if last == t.xact {
		stay += t.stay
	}
	t.xact, t.stay = last, stay
	return done, nil
}

// cleanJournal deletes what is older than the repair window from the journal,
// whatever becomes of the rows. It returns a snapshot of transactions that were
// wholly published before that: a row is kept for the window from then on, also
// if it was written long before.
func (c *cleaner) cleanJournal(ctx context.Context) (settled string, more bool, err error) {
	cfg := c.session.relay.cfg
	window := cfg.Outbox.RepairWindow.Seconds()
	var looked, done int
	if err := c.conn.QueryRow(ctx, sql.JournalClean, cfg.Slot, window, journalBatch).Scan(&looked, &done); err != nil {
		return "", false, fmt.Errorf("cleaning up walrelay.journal: %w", err)
	}
	err = c.conn.QueryRow(ctx, sql.JournalPublished, cfg.Slot, window).Scan(&settled)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", false, fmt.Errorf("cleaning up walrelay.published: %w", err)
	}
	return settled, done == journalBatch, nil
}

// describeOutboxes finds out which columns the outbox tables have, for the
// clean-up and for walrelay.event_status.
func (s *session) describeOutboxes(ctx context.Context, conn *pgx.Conn) (outboxes []outboxColumns, tasks []cleanTask, err error) {
	cfg := s.relay.cfg
	for _, table := range s.relay.plan.Decode.Tables {
		mapping := table.Mapping
		name := sql.Table{Schema: table.Schema, Name: table.Name}
		columns := sql.Cleaned{Table: name.Ident(), ID: mapping.Column(decode.AttributeID), Time: mapping.Column(decode.AttributeTime)}
		scheduled := mapping.Column(decode.AttributeScheduledAt)
		var hasXact, hasTime, hasSchedule, marked, indexed bool
		if err := conn.QueryRow(ctx, sql.OutboxColumns, columns.Table, columns.Time, scheduled).
			Scan(&hasXact, &hasTime, &hasSchedule, &marked, &indexed); err != nil {
			return nil, nil, fmt.Errorf("reading the columns of table %s: %w", name, err)
		}
		if hasSchedule {
			columns.Scheduled = scheduled
		}
		if hasXact {
			columns.Xact = "xact_id"
		}
		outboxes = append(outboxes, outboxColumns{Table: columns.Table, ID: columns.ID, Xact: columns.Xact})
		mark := cfg.Outbox.AfterPublish == "mark"
		switch {
		case cfg.Outbox.AfterPublish == "keep":
			continue
		case !hasXact || !mark && !hasTime || mark && !marked:
			s.relay.log.Warn().Stringer("table", name).Msg("published rows stay in the table: the clean-up needs a column " +
				"xact_id xid8 DEFAULT pg_current_xact_id(), and a time or, to mark rows, published_at timestamptz; or set outbox.after_publish to keep")
			continue
		}
		if !indexed {
			s.relay.log.Warn().Stringer("table", name).Msg("every clean-up reads the whole table; CREATE INDEX CONCURRENTLY ON " + columns.Table + " (xact_id)")
		}
		if mark {
			statement, err := sql.MarkPublished(columns)
			if err != nil {
				return nil, nil, err
			}
			tasks = append(tasks, cleanTask{statement: statement, window: -1})
			columns.Time, columns.Scheduled = "published_at", ""
		}
		statement, err := sql.DeletePublished(columns)
		if err != nil {
			return nil, nil, err
		}
		tasks = append(tasks, cleanTask{statement: statement, window: cfg.Outbox.RepairWindow.Seconds()})
	}
	return outboxes, tasks, nil
}
