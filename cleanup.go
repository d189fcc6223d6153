package walrelay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/sql"
)

const (
	// cleanInterval is the time between two clean-ups when there is little to
	// do, and cleanBatch how many rows one statement takes.
	cleanInterval = 5 * time.Second
	cleanBatch    = 5000
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

// cleanTask is one statement for one table.
type cleanTask struct {
	statement string
	// window is how old rows must be, and for how long published, in seconds; -1
	// for a statement that does not ask.
	window float64
}

// run cleans until the context ends. It never fails: what cannot be cleaned now
// is cleaned later.
func (c *cleaner) run(ctx context.Context) {
	defer func() {
		if c.conn != nil {
			closePostgres(c.conn)
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
		wait := cleanInterval
		if more, err := c.clean(ctx); err != nil && ctx.Err() == nil {
			if time.Since(c.said) > time.Minute {
				c.said = time.Now()
				c.session.relay.log.Warn().Err(err).Msg("published rows are not cleaned away; trying again")
			}
		} else if more {
			wait = 10 * time.Millisecond // let others have the disk
		}
		timer.Reset(wait)
	}
}

// clean runs each task once, and reports whether there is more to do.
func (c *cleaner) clean(ctx context.Context) (more bool, err error) {
	s := c.session
	s.saving.Lock()
	published := s.recorded.published
	s.saving.Unlock()
	if c.conn == nil || c.conn.IsClosed() {
		if c.conn, err = connectPostgres(ctx, s.relay.cfg); err != nil {
			return false, err
		}
	}
	settled, more, err := c.cleanJournal(ctx)
	if err != nil || published == "" {
		return more, err
	}
	for _, task := range c.tasks {
		args := []any{settled, task.window, cleanBatch}
		if task.window < 0 {
			args = []any{published, cleanBatch}
		} else if settled == "" {
			continue
		}
		var looked, done int
		if err := c.conn.QueryRow(ctx, task.statement, args...).Scan(&looked, &done); err != nil {
			return false, fmt.Errorf("cleaning up an outbox table: %w", err)
		}
		s.relay.metrics.cleaned.Add(float64(done))
		more = more || looked == cleanBatch && done > 0
	}
	s.relay.metrics.cleanUps.Inc()
	return more, nil
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
	for _, table := range s.relay.plan.decode.Tables {
		mapping := table.Mapping
		name := sql.Table{Schema: table.Schema, Name: table.Name}
		columns := sql.Cleaned{Table: name.Ident(), ID: mapping.Column(decode.AttributeID), Time: mapping.Column(decode.AttributeTime)}
		var hasXact, hasTime, marked, indexed bool
		if err := conn.QueryRow(ctx, sql.OutboxColumns, columns.Table, columns.Time).Scan(&hasXact, &hasTime, &marked, &indexed); err != nil {
			return nil, nil, fmt.Errorf("reading the columns of table %s: %w", name, err)
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
			tasks = append(tasks, cleanTask{statement, -1})
			columns.Time = "published_at"
		}
		statement, err := sql.DeletePublished(columns)
		if err != nil {
			return nil, nil, err
		}
		tasks = append(tasks, cleanTask{statement, cfg.Outbox.RepairWindow.Seconds()})
	}
	return outboxes, tasks, nil
}
